package services

// chargen is the Character Generator Protocol, RFC 864: lines without end,
// until the client goes. Each has 72 of the 95 printing characters, and begins
// one character later than the line before, so that all comes round after 95
// lines. What the client sends is thrown away, up to a buffer of it per round
// and without waiting; where descriptor 0 is no socket, recvfrom fails and the
// input stays unread, which harms nobody.
var chargen = service{
	steps: func(o Options) (program, error) {
		round := ring()
		if o.Datagrams {
			return o.answer(round[:mostAnswered]), nil
		}
		return program{
			0: write(1, text(round), len(round)),
			1: recvfrom(0, buffer, msgDontWait|msgTrunc).anyhow().backTo(0),
		}, nil
	},
}

// mostAnswered is how many characters a datagram is answered with at most,
// RFC 864.
const mostAnswered = 512

// ring is one round of 95 lines, RFC 864's popular pattern.
func ring() string {
	const first, printing, width = ' ', 95, 72
	var s []byte
	for line := range printing {
		for column := range width {
			s = append(s, byte(first+(line+column)%printing))
		}
		s = append(s, "\r\n"...)
	}
	return string(s)
}
