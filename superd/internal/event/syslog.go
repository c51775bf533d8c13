package event

import (
	"strconv"
	"time"
)

// systemSyslog is where the system's log listens, syslog(3).
const systemSyslog = "/dev/log"

func openSyslog(o Options) (output, error) {
	l := sentenceLetter
	if o.Format == "json" {
		l = jsonLetter
	}
	path := o.Syslog
	if path == "" {
		path = systemSyslog
	}
	return openSocket("syslog", path, o, l)
}

// sentenceLetter is a record in the form of syslog(3), that of RFC 3164 without a host. Those who listen on the
// local socket know no other by default: of RFC 5424, rsyslog, syslog-ng and journald take the version for the
// name of the program.
func sentenceLetter(b, line []byte) []byte {
	return cut(appendSentence(appendHeader(b, line), line), mostSent)
}

// jsonLetter has the record as it is, after the mark by which rsyslog and syslog-ng know it.
func jsonLetter(b, line []byte) []byte {
	return cut(append(append(appendHeader(b, line), "@cee: "...), jsonForm(line)...), mostSent)
}

// appendHeader appends what comes before the text: <30>Jan  2 10:04:05 superd[4242]:
func appendHeader(b, line []byte) []byte {
	b = append(b, '<')
	b = strconv.AppendInt(b, int64(facilityDaemon<<3|severityOf(line)), 10)
	b = append(b, '>')
	if t, err := time.Parse(timeLayout, string(field(line, fieldTime))); err == nil {
		b = t.Local().AppendFormat(b, time.Stamp)
		b = append(b, ' ')
	}
	b = append(b, programName...)
	b = append(b, '[')
	b = strconv.AppendInt(b, int64(pid), 10)
	return append(b, "]: "...)
}
