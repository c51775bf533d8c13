package proxy

import (
	"bytes"
	"net/netip"
	"strings"
	"unsafe"
)

// mostLine is how long a line of version 1 may be, with its end.
const mostLine = 107

// inLine are the bytes of the addresses and ports of a form.
var inLine = [...]string{
	tcp4: " .0123456789",
	tcp6: " .:0123456789ABCDEFabcdef",
}

var families = [...]string{tcp4: "IPv4", tcp6: "IPv6"}

// readLine reads version 1. Nothing is decoded before the line is whole, as the
// specification wants it, but what no line has is refused when it comes.
func (h *Header) readLine(b []byte, f form) (n int, err error) {
	h.Version = 1
	if f == unknown || f == unknownAlone {
		h.Local = true
		return lineEnd(b, len("PROXY UNKNOWN"), "")
	}
	start := len(beginnings[f])
	if n, err = lineEnd(b, start, inLine[f]); err != nil {
		return n, err
	}
	return n, h.readFields(b[:n-len("\r\n")], start, f)
}

// lineEnd is how long the line is, of which allowed says what may stand in it
// from start on; "" is anything. Neither a CR nor an LF ends it alone.
func lineEnd(b []byte, start int, allowed string) (int, error) {
	for i := start; i < len(b); i++ {
		returned := b[i-1] == '\r'
		switch c := b[i]; {
		case returned && c == '\n':
			return i + 1, nil
		case i == mostLine-1:
			return 0, wrong(i, "the line does not end within %d bytes", mostLine)
		case returned:
			return 0, wrong(i, "the CR before it has no LF")
		case c == '\n':
			return 0, wrong(i, "an LF without a CR")
		case c != '\r' && allowed != "" && strings.IndexByte(allowed, c) < 0:
			return 0, wrong(i, "neither an address nor a port has this")
		}
	}
	return len(b) + 1, ErrMore
}

// readFields reads what stands in a line, without its end, from start on:
// source, destination, source port, destination port.
func (h *Header) readFields(line []byte, start int, f form) (err error) {
	if bytes.Count(line[start:], space) != 3 {
		return wrong(start, "there are not two addresses and two ports, with one space between")
	}
	var from, to netip.Addr
	var fromPort, toPort uint16
	r := fields{line: line, at: start}
	if from, err = r.address("source", f); err != nil {
		return err
	}
	if to, err = r.address("destination", f); err != nil {
		return err
	}
	if fromPort, err = r.port("source"); err != nil {
		return err
	}
	if toPort, err = r.port("destination"); err != nil {
		return err
	}
	h.Source, h.Destination = netip.AddrPortFrom(from, fromPort), netip.AddrPortFrom(to, toPort)
	return nil
}

var space = []byte(" ")

// fields are what of a line is still to be read.
type fields struct {
	line []byte
	at   int // where the next one begins
}

func (r *fields) next() (text []byte, at int) {
	at = r.at
	text, _, _ = bytes.Cut(r.line[at:], space)
	r.at = at + len(text) + len(space)
	return text, at
}

// address reads an address of the form's family. One of IPv6 may be written in
// any way, as the specification allows, but an IPv4 address only v4-mapped.
func (r *fields) address(what string, f form) (netip.Addr, error) {
	text, at := r.next()
	// A view and no copy, since netip keeps no text of an address without a zone,
	// and no zone gets here.
	addr, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(text), len(text)))
	if err != nil || addr.Is4() != (f == tcp4) {
		return addr, wrong(at, `the %s "%s" is not an %s address`, what, text, families[f])
	}
	return addr.Unmap(), nil
}

// port reads a number from 0 to 65535 without leading zeros.
func (r *fields) port(what string) (uint16, error) {
	text, at := r.next()
	n := 0
	for _, c := range text {
		if n = n*10 + int(c-'0'); c < '0' || c > '9' || n > 65535 {
			return 0, wrong(at, `the %s port "%s" is not a number from 0 to 65535`, what, text)
		}
	}
	switch {
	case len(text) == 0:
		return 0, wrong(at, "the %s port is missing", what)
	case len(text) > 1 && text[0] == '0':
		return 0, wrong(at, `the %s port "%s" has a leading zero`, what, text)
	}
	return uint16(n), nil
}
