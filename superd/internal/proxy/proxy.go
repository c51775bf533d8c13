// Package proxy understands the header with which a proxy begins a connection
// to say whose it is: the PROXY protocol, versions 1 and 2, as specified in
// https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. It touches no
// descriptor, waits for nothing and decides nobody's access.
//
// Whoever owns the connection shows it what has arrived, by recv with MSG_PEEK,
// as often as something has; when the header is complete it takes exactly the
// header's bytes with a second recv. So what follows the header stays in the
// socket, for the program. The answer to some bytes never depends on how they
// were split on their way, and a wrong byte is refused as soon as it is there,
// without waiting for those after it.
package proxy

import (
	"errors"
	"fmt"
	"net/netip"
)

// MostBytes is how long a header may be; one that says it is longer is refused.
// Version 1 ends within 107 bytes. The length field of version 2 could say
// 65551, but the specification wants a header to fit in the smallest segment,
// 536 bytes. All of it has to be in the socket's receive buffer at once, so what
// is allowed here is memory that every silent proxy can make the kernel hold,
// and more than a buffer that was made small can take. 4096 bytes have room
// for all that proxies are known to send, a client's certificate included.
const MostBytes = 4096

// ErrMore is the answer to the beginning of a header.
var ErrMore = errors.New("the PROXY header is not complete")

// An Error is why bytes are not accepted as a header.
type Error struct {
	At   int    // which byte is wrong, or the first of those that are; from 1
	What string // of printable ASCII only
}

// Error is the mistake with its place.
func (e *Error) Error() string { return fmt.Sprintf("byte %d: %s", e.At, e.What) }

// wrong is an Error about the byte that has index i.
func wrong(i int, format string, args ...any) error {
	return &Error{At: i + 1, What: fmt.Sprintf(format, args...)}
}

// A Header is what a proxy says of a connection. Its byte slices are parts of
// what was parsed, and valid as long as that is; nil where the header has none.
// They may hold anything: only AppendVariables makes them fit for others.
type Header struct {
	Version int // 1 or 2

	// Local says that the addresses of the connection itself count, because the
	// proxy speaks for itself (LOCAL), does not know better (UNKNOWN, unspecified)
	// or has its client on a unix socket, whose path says nothing about who it is.
	// Source and Destination are not valid then.
	Local               bool
	Source, Destination netip.AddrPort // plain IPv4 where v4-mapped, each by itself

	// Of version 2 alone, and never of LOCAL, whose rest is to be ignored.
	ALPN      []byte // the protocol that was agreed on, as by TLS
	Authority []byte // the host name that the client asked for, as by SNI
	UniqueID  []byte // opaque, at most 128 bytes
	Namespace []byte // the network namespace in the proxy's world
	SSL       SSL
}

// SSL is how the client came to the proxy, if by TLS; else it is zero.
type SSL struct {
	On          bool
	Certificate bool // the client has shown one, now or earlier in the session
	Verified    bool // and the proxy has found it good

	Version, Cipher                  []byte
	CommonName                       []byte // of the client's certificate, verified or not
	SignatureAlgorithm, KeyAlgorithm []byte // of the proxy's certificate
}

// A form is one of the ways in which a header begins.
type form int

const (
	tcp4 form = iota
	tcp6
	unknown
	unknownAlone
	version2
)

// beginnings are the bytes by which a form is recognized: none begins another.
var beginnings = [...]string{
	tcp4:         "PROXY TCP4 ",
	tcp6:         "PROXY TCP6 ",
	unknown:      "PROXY UNKNOWN ",
	unknownAlone: "PROXY UNKNOWN\r",
	version2:     "\r\n\r\n\x00\r\nQUIT\n",
}

// Parse reads the header at the beginning of b, which is everything that has
// arrived so far, or the first MostBytes of it.
//
// Where the header is complete, n is its length. Where it is not, err is
// ErrMore, and n is how many bytes have to be there, those of b included,
// before another answer is possible: what SO_RCVLOWAT wants to know, never
// more than the header has and never more than MostBytes. Any other err is an
// *Error, and no further bytes would change it.
func Parse(b []byte) (h Header, n int, err error) {
	f, same := recognize(b)
	switch {
	case same < len(beginnings[f]) && same == len(b):
		return Header{}, len(b) + 1, ErrMore
	case same < len(beginnings[f]):
		return Header{}, 0, unlike(f, same)
	case f == version2:
		n, err = h.readBinary(b)
	default:
		n, err = h.readLine(b, f)
	}
	switch err {
	case nil:
		return h, n, nil
	case ErrMore:
		return Header{}, n, err
	}
	return Header{}, 0, err
}

// recognize finds the form whose beginning b has the most bytes of.
func recognize(b []byte) (f form, same int) {
	for i, beginning := range beginnings {
		if n := common(b, beginning); n > same {
			f, same = form(i), n
		}
	}
	return f, same
}

// common is how many bytes a and b begin with alike.
func common(a []byte, b string) int {
	most := min(len(a), len(b))
	for i := range most {
		if a[i] != b[i] {
			return i
		}
	}
	return most
}

// unlike is about the first byte, at index i, that no form has there.
func unlike(f form, i int) error {
	if f != version2 && i >= len("PROXY ") {
		return wrong(i, "the protocol is none of TCP4, TCP6 and UNKNOWN")
	}
	return wrong(i, "this is not the beginning of a PROXY header")
}
