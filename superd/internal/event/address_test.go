package event

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

func TestPeerForms(t *testing.T) {
	for _, c := range []struct{ peer, full, prefix string }{
		{"192.0.2.7:40000", "192.0.2.7:40000", "192.0.2.0/24"},
		{"[2001:db8:1:2:3:4:5:6]:40000", "[2001:db8:1:2:3:4:5:6]:40000", "2001:db8:1::/48"},
		{"[fe80::1%eth0]:1", "[fe80::1%eth0]:1", "fe80::/48"},
		{"[::ffff:192.0.2.7]:1", "[::ffff:192.0.2.7]:1", "192.0.2.0/24"},
		{"255.255.255.255:65535", "255.255.255.255:65535", "255.255.255.0/24"},
		{"[::1]:0", "[::1]:0", "::/48"},
	} {
		peer := netip.MustParseAddrPort(c.peer)
		for word, want := range map[string]string{"full": c.full, "": c.full, "prefix": c.prefix, "none": ""} {
			if got := string(addressingOf(word).append([]byte("before "), peer)); got != "before "+want {
				t.Errorf("%s of %s is %q, want %q", word, c.peer, got, want)
			}
		}
	}
}

// TestHashOfAnAddress: it tells clients apart, not their ports, and one start of superd from the other.
func TestHashOfAnAddress(t *testing.T) {
	form, other := addressingOf("hash").append, addressingOf("hash").append
	hash := func(f peerForm, peer string) string { return string(f(nil, netip.MustParseAddrPort(peer))) }
	one := hash(form, "192.0.2.7:40000")
	if !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(one) {
		t.Errorf("a hash is %q", one)
	}
	for _, same := range []string{"192.0.2.7:1", "[::ffff:192.0.2.7]:40000"} {
		if got := hash(form, same); got != one {
			t.Errorf("%s is %s, and not %s", same, got, one)
		}
	}
	for _, different := range []string{"192.0.2.8:40000", "[2001:db8::c000:207]:40000"} {
		if got := hash(form, different); got == one {
			t.Errorf("%s is %s as well", different, got)
		}
	}
	if hash(form, "[fe80::1%eth0]:1") != hash(form, "[fe80::1]:1") {
		t.Error("the zone counts")
	}
	if hash(other, "192.0.2.7:40000") == one {
		t.Error("the key is always the same")
	}
}

// TestPeerIsFree: it is called for every connection.
func TestPeerIsFree(t *testing.T) {
	room := make([]byte, 0, 64)
	for _, word := range []string{"full", "prefix", "hash", "none"} {
		form := addressingOf(word).append
		for _, peer := range []string{"192.0.2.7:40000", "[2001:db8:1:2:3:4:5:6]:40000"} {
			p := netip.MustParseAddrPort(peer)
			if n := testing.AllocsPerRun(100, func() { form(room, p) }); n != 0 {
				t.Errorf("%s of %s: %v allocations", word, peer, n)
			}
		}
	}
}

// TestPeerInRecords: what is left out is not there, in any record.
func TestPeerInRecords(t *testing.T) {
	for word, want := range map[string]string{"full": "192.0.2.7:40000", "prefix": "192.0.2.0/24", "none": ""} {
		text := written(t, Options{Level: "debug", Format: "json", Address: word}, func(l *Log) {
			s := l.Service("echo")
			c := &Conn{ID: []byte("1f"), Peer: s.AppendPeer(nil, netip.MustParseAddrPort("192.0.2.7:40000"))}
			s.Accepted(c)
			s.Started(c)
			s.Stderr(c, []byte("line"), false)
			s.Exited(c, sampleExit())
			s.Refused(c, ReasonLimit, nil)
		})
		for _, record := range records(t, text) {
			if got, _ := record["peer"].(string); got != want {
				t.Errorf("%s: the peer is %q in %v", word, got, record)
			}
		}
		if word != "full" && strings.Contains(text, "192.0.2.7") {
			t.Errorf("%s: the address is in %s", word, text)
		}
	}
}

func BenchmarkPeer(b *testing.B) {
	peer := netip.MustParseAddrPort("192.0.2.7:40000")
	for _, word := range []string{"full", "prefix", "hash", "none"} {
		b.Run(word, func(b *testing.B) {
			form, room := addressingOf(word).append, make([]byte, 0, 64)
			b.ReportAllocs()
			for b.Loop() {
				form(room, peer)
			}
		})
	}
}
