package proxy

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// fatal is the common part of tests, fuzz targets and properties.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

// An answer is what Parse says.
type answer struct {
	h   Header
	n   int
	err error
}

func ask(b []byte) answer {
	h, n, err := Parse(b)
	return answer{h, n, err}
}

// whole wants the answer to b to be the same however its bytes arrive: each
// shorter part has it or wants more, none has another, and whoever waits for
// as many bytes as it was told to does not miss the answer.
func whole(t fatal, b []byte) {
	t.Helper()
	final := ask(b)
	sound(t, b, final)
	known, wanted := 0, 0 // the fewest bytes that have the answer, and the most that were wanted before
	for a := ask(b[:known]); a.err == ErrMore; a = ask(b[:known]) {
		sound(t, b[:known], a)
		wanted = max(wanted, a.n)
		if known++; known > len(b) {
			known = final.n
			break
		}
	}
	if wanted > known {
		t.Fatalf("%q: it wants %d bytes, and has an answer after %d", b, wanted, known)
	}
	for _, k := range []int{known, known + 1, (known + len(b)) / 2, len(b) - 1} {
		if k >= known && k < len(b) && !reflect.DeepEqual(ask(b[:k]), final) {
			t.Fatalf("%q: %+v\nits first %d bytes: %+v", b, final, k, ask(b[:k]))
		}
	}
	for _, more := range []string{"\x00", "\n", "\r\n", "PROXY ", strings.Repeat("\xff", MostBytes)} {
		if final.err != ErrMore && !reflect.DeepEqual(ask(append(bytes.Clone(b), more...)), final) {
			t.Fatalf("%q: %+v\nwith %.6q behind: %+v", b, final, more, ask(append(bytes.Clone(b), more...)))
		}
	}
}

// sound looks at one answer.
func sound(t fatal, b []byte, a answer) {
	t.Helper()
	var e *Error
	switch {
	case a.err == nil:
		if a.n < len("PROXY UNKNOWN\r\n") || a.n > len(b) || a.n > MostBytes || a.h.Local == a.h.Source.IsValid() || a.h.Local == a.h.Destination.IsValid() {
			t.Fatalf("%q: %+v", b, a)
		}
	case a.err == ErrMore:
		if a.n <= len(b) || a.n > MostBytes || !reflect.DeepEqual(a.h, Header{}) {
			t.Fatalf("%q: %+v", b, a)
		}
	case !errors.As(a.err, &e) || e.At < 1 || e.At > len(b) || e.What == "" || strings.ContainsFunc(e.What, unprintable):
		t.Fatalf("%q: %v", b, a.err)
	}
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }

func TestSplitAnywhere(t *testing.T) {
	for _, seed := range seeds(t) {
		whole(t, []byte(seed))
	}
}

// TestWanted has the numbers that a caller waits for.
func TestWanted(t *testing.T) {
	for bytes, want := range map[string]int{
		"": 1, "P": 2, "PROXY TCP4 ": 12, "PROXY TCP4 192.0.2.1 ": 22, "PROXY UNKNOWN\r": 15,
		"\r": 2, signature: 13, signature + "\x21": 14, signature + "\x21\x11": 16, signature + "\x21\x11\x00": 16,
		signature + "\x21\x11\x00\x20": 48, signature + "\x20\x00\x0f\xf0": 4096, signature + "\x21\x11\x00\x20\x7f": 48,
	} {
		if a := ask([]byte(bytes)); a.err != ErrMore || a.n != want {
			t.Errorf("%q: %+v, not %d", bytes, a, want)
		}
	}
}

// header draws one that can be encoded.
func header(t *rapid.T) *Header {
	text := rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 130), func(b []byte) []byte {
		if len(b) > mostUniqueID {
			return nil
		}
		return append([]byte{}, b...)
	})
	s := SSL{On: rapid.Bool().Draw(t, "tls")}
	s.Certificate = s.On && rapid.Bool().Draw(t, "certificate")
	s.Verified = s.Certificate && rapid.Bool().Draw(t, "verified")
	s.Version, s.Cipher, s.CommonName = text.Draw(t, "version"), text.Draw(t, "cipher"), text.Draw(t, "name")
	s.SignatureAlgorithm, s.KeyAlgorithm = text.Draw(t, "signature"), text.Draw(t, "key")
	h := &Header{Version: rapid.IntRange(1, 2).Draw(t, "protocol"), Local: rapid.Bool().Draw(t, "local")}
	if !h.Local {
		h.Source, h.Destination = endpoint(t, "source"), endpoint(t, "destination")
	}
	if h.Version == 2 {
		h.ALPN, h.Authority, h.UniqueID, h.Namespace = text.Draw(t, "alpn"), text.Draw(t, "authority"), text.Draw(t, "id"), text.Draw(t, "namespace")
		h.SSL = s
	}
	return h
}

// TestEncoded: what a header says is read, wherever it is split.
func TestEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := header(t)
		b := []byte(encode(h))
		whole(t, b)
		if a := ask(b); a.err != nil || a.n != len(b) || !reflect.DeepEqual(&a.h, h) {
			t.Fatalf("%+v\nis read as %+v", h, a)
		}
	})
}

// TestChanged: a byte that has changed on its way is noticed where there is a
// checksum, unless the change hides this.
func TestChanged(t *testing.T) {
	const sum = "\x03\x00\x04"
	found := 0
	for _, c := range captures(t) {
		at := strings.Index(c.bytes, sum)
		if at < 0 || c.bytes[atCommand] != proxyCommand {
			continue
		}
		found++
		for i := headBytes; i < len(c.bytes); i++ {
			b := []byte(c.bytes)
			b[i] ^= 0x80
			if a := ask(b); a.err == nil && (i < at || i >= at+len(sum)) {
				t.Errorf("%s: byte %d is wrong: %+v", c.name, i+1, a)
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d headers have a checksum", found)
	}
}

// endpoint draws an address and a port. A v4-mapped one would be read as IPv4.
func endpoint(t *rapid.T, name string) netip.AddrPort {
	b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name)
	addr := netip.AddrFrom16([16]byte(b)).Unmap()
	if rapid.Bool().Draw(t, name+" is IPv4") {
		addr = netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrPortFrom(addr, rapid.Uint16().Draw(t, name+" port"))
}
