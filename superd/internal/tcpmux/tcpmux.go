// Package tcpmux understands the line by which a client asks for a service by
// its name: the TCP Port Service Multiplexer, RFC 1078. It touches no
// descriptor, waits for nothing and knows no service.
//
// Whoever owns the connection shows it what has arrived, by recv with MSG_PEEK,
// as often as something has; when the line is complete it takes exactly the
// line's bytes with a second recv. So what follows the line stays in the socket,
// for the program. The answer to some bytes never depends on how they were split
// on their way.
package tcpmux

import (
	"bytes"
	"errors"
)

// MostBytes is how long a line may be, with its end; inetd(8) reads as much.
const MostBytes = 256

// Help is the name, in lower case, that asks for the list of all names.
const Help = "help"

// What superd says to a client, by RFC 1078: + where it can go on, - where it
// cannot, and a text behind either. The texts are inetd's.
const (
	Positive = "+Go\r\n"
	Refusal  = "-"
	Negative = Refusal + "Service not available\r\n"
)

var (
	// ErrMore is the answer to the beginning of a line.
	ErrMore = errors.New("the line is not complete")
	// ErrLong is the answer to a line that is too long.
	ErrLong = errors.New("the line does not end within 256 bytes")
)

// Parse reads the line at the beginning of b, which is everything that has
// arrived so far, or the first MostBytes of it. Ended says that no more will
// come. The line ends with CR LF; like inetd(8), this is content with LF, or the
// end of what comes. A CR alone ends nothing: who sends one is about to send the
// LF, which must not become the program's.
//
// The name is a part of b, as the client has written it; n is how long the line
// is, with its end. No further bytes would change an err but ErrMore.
func Parse(b []byte, ended bool) (name []byte, n int, err error) {
	b = b[:min(len(b), MostBytes)]
	end := bytes.IndexByte(b, '\n')
	switch {
	case end >= 0:
		return bytes.TrimSuffix(b[:end], cr), end + 1, nil
	case len(b) == MostBytes:
		return nil, 0, ErrLong
	case ended:
		return bytes.TrimSuffix(b, cr), len(b), nil
	}
	return nil, 0, ErrMore
}

var cr = []byte{'\r'}

// longestName is that of a service's name in the file.
const longestName = 64

// A Name is what a client has asked for, as it is compared: in lower case, since
// RFC 1078 does not tell cases apart.
type Name struct {
	text   [longestName]byte
	length int
}

// Fold makes a Name of a line's. No service is called by one that is too long.
func Fold(name []byte) (n Name, ok bool) {
	if len(name) > longestName {
		return n, false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		n.text[i] = c
	}
	n.length = len(name)
	return n, true
}

// Shown makes a client's name fit for a log: short, and with nothing that a
// service's name cannot have.
func Shown(name []byte) string {
	shown := make([]byte, 0, longestName+len("..."))
	for _, c := range name[:min(len(name), longestName)] {
		if !plain(c) {
			c = '?'
		}
		shown = append(shown, c)
	}
	if len(name) > longestName {
		shown = append(shown, "..."...)
	}
	return string(shown)
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == '-'
}
