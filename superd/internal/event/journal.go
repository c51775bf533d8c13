package event

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/rs/zerolog"
)

// systemJournal is where the journal listens for its own protocol.
const systemJournal = "/run/systemd/journal/socket"

// mostOfField bounds one field of a journal entry. A program's line, where none of its 8 KiB is UTF-8, is three
// times as much; it and the sentence about it fit into one datagram.
const mostOfField = 24 << 10

// openJournal speaks the journal's protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) itself: the library for it,
// go-systemd, waits for a journal that takes nothing, for ever, and knows one socket only.
func openJournal(o Options) (output, error) {
	path := o.Journal
	if path == "" {
		path = systemJournal
	}
	return openSocket("journald", path, o, journalLetter)
}

// journalLetter is a record as an entry of the journal: a sentence for people, and each of the record's fields
// as one of the entry's. The time is the journal's.
func journalLetter(b, line []byte) []byte {
	b = appendEntry(b, "MESSAGE", appendSentence(nil, line))
	b = appendEntry(b, "PRIORITY", strconv.AppendInt(nil, int64(severityOf(line)), 10))
	b = appendEntry(b, "SYSLOG_IDENTIFIER", []byte(programName))
	b = appendEntry(b, "SYSLOG_FACILITY", strconv.AppendInt(nil, facilityDaemon, 10))
	for name, value := range fields(line) {
		switch string(name) {
		case fieldTime, zerolog.LevelFieldName:
			continue
		}
		b = appendEntry(b, journalName(name), plain(value))
	}
	return b
}

// appendEntry appends a field, if it fits. A value of several lines has its length before it.
func appendEntry(b []byte, name string, value []byte) []byte {
	value = upTo(value, mostOfField)
	if len(b)+len(name)+len(value)+len("\n12345678\n") > mostSent {
		return b
	}
	b = append(b, name...)
	if bytes.IndexByte(value, '\n') < 0 {
		b = append(b, '=')
	} else {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	}
	return append(append(b, value...), '\n')
}

// journalName is a field's name as the journal allows it: capitals, digits and _, at most 64 of them, the
// first of which say whose it is.
func journalName(name []byte) string {
	b := []byte("SUPERD_")
	for _, c := range name[:min(len(name), 64-len(b))] {
		switch {
		case 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		case 'A' <= c && c <= 'Z' || '0' <= c && c <= '9':
		default:
			c = '_'
		}
		b = append(b, c)
	}
	return string(b)
}
