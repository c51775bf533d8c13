package proxy

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// seeds are headers of all kinds, whole and broken, and those of others.
func seeds(t testing.TB) []string {
	t.Helper()
	list := []string{
		"", "P", "G", "PROXY", "PROXY UNKNOWN\r\n", "PROXY UNKNOWN ::1\r\r\n", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nrest",
		"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "PROXY TCP6 ::1 192.0.2.1 1 2\r\n", "PROXY TCP6 ::ffff:192.0.2.1 2001:DB8::1 65535 65536\r\n",
		"PROXY TCP6 " + strings.Repeat("f", mostLine), "PROXY UNKNOWN " + strings.Repeat("f", mostLine),
		tcp(), tcp() + "rest", tcp("\x04"), v2(localCommand, 0xff, "any"), v2(proxyCommand, unspecified), v2(proxyCommand, inetDgram, "12345678abcd"),
		v2(proxyCommand, inet6Stream, strings.Repeat("\x00\xff", 18)), v2(proxyCommand, unixStream, strings.Repeat("\x00", 216), field(4)),
		signature + "\x21\x11\xff\xff", v2(localCommand, unspecified, strings.Repeat("\xff", MostBytes-headBytes)),
		summed(tcp(unsummed)), tcp(unsummed), tcp(field(checksum)), tcp(field(alpn, "h2"), field(alpn, "h2")),
		tcp(field(uniqueID, strings.Repeat("i", mostUniqueID+1))), tcp(sslField(overSSL, 1, field(sslCommonName, "a"), "\x22")),
		summed(tcp(field(4), unsummed, sslField(7, 0, field(sslVersion, "TLSv1.3"), field(sslCommonName, "a b")), field(authority, "..", "\x00"))),
	}
	for _, c := range captures(t) {
		list = append(list, c.bytes)
	}
	return list
}

// lineForm is version 1 with nothing but the meaning of its numbers left open.
var lineForm = regexp.MustCompile(`^PROXY (?:UNKNOWN(?: [^\r\n]*)?|(TCP[46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n`)

// lineMeans reads version 1 in another way.
func lineMeans(b []byte) (h Header, n int, ok bool) {
	m := lineForm.FindSubmatch(b[:min(len(b), mostLine)])
	if m == nil {
		return Header{}, 0, false
	}
	h = Header{Version: 1, Local: m[1] == nil}
	if h.Local {
		return h, len(m[0]), true
	}
	from, err1 := netip.ParseAddr(string(m[2]))
	to, err2 := netip.ParseAddr(string(m[3]))
	fromPort, err3 := strconv.ParseUint(string(m[4]), 10, 16)
	toPort, err4 := strconv.ParseUint(string(m[5]), 10, 16)
	v4 := string(m[1]) == "TCP4"
	h.Source, h.Destination = netip.AddrPortFrom(from.Unmap(), uint16(fromPort)), netip.AddrPortFrom(to.Unmap(), uint16(toPort))
	return h, len(m[0]), err1 == nil && err2 == nil && err3 == nil && err4 == nil && from.Is4() == v4 && to.Is4() == v4
}

func FuzzLine(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add([]byte(strings.TrimPrefix(seed, "PROXY ")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append([]byte("PROXY "), b...)
		whole(t, b)
		a := ask(b)
		if h, n, ok := lineMeans(b); ok != (a.err == nil) || ok && (h.Source != a.h.Source || h.Destination != a.h.Destination || h.Local != a.h.Local || n != a.n) {
			t.Errorf("%q: %+v, and not %+v, %d, %v", b, a, h, n, ok)
		}
		again(t, a)
	})
}

// FuzzBinary puts the length field right, and a checksum where it begins with
// one, so that more gets past them.
func FuzzBinary(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(strings.TrimPrefix(seed, signature), true)
		f.Add(strings.TrimPrefix(seed, signature), false)
	}
	f.Fuzz(func(t *testing.T, text string, mend bool) {
		b := signature + text
		if mend && len(b) >= headBytes {
			b = summed(v2(b[atCommand], b[atFamily], b[headBytes:]))
		}
		whole(t, []byte(b))
		again(t, ask([]byte(b)))
	})
}

func FuzzParse(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole(t, b)
		again(t, ask(b))
	})
}

// again wants a header that was read to be the same after it was written and
// read, and what a program gets of it to be in order.
func again(t *testing.T, a answer) {
	t.Helper()
	if a.err != nil {
		return
	}
	written := []byte(encode(&a.h))
	if len(written) > MostBytes {
		return // what encode adds was not in it
	}
	if b := ask(written); b.err != nil || b.n != len(written) || describe(b) != describe(answer{a.h, b.n, nil}) {
		t.Errorf("%+v\nis written as %q\nand read as %+v", a, written, b)
	}
	orderly(t, a.h.AppendVariables(nil))
}
