package services

// daytime is the Daytime Protocol, RFC 867: the date and time as one line for
// people, in the form that the RFC suggests (weekday, month day, year, time and
// zone), then the connection is closed. The zone is always UTC: where the
// server stands is nobody's business. Input is not looked at.
var daytime = service{
	clocked: true,
	steps: func(o Options) (program, error) {
		return o.tell(o.Now.UTC().Format("Monday, January 2, 2006 15:04:05-MST") + "\r\n"), nil
	},
}
