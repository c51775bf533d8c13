package spawn

import (
	"net/netip"
	"strings"
	"testing"

	"superd/superd/internal/peer"
)

// What a child reads must not move, so that there is room for the longest value
// of every variable.
func TestLongestVariable(t *testing.T) {
	long := strings.Repeat("x", 107)
	six := netip.MustParseAddrPort("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535")
	f := &Facts{ID: []byte(strings.Repeat("z", 40)), FromSource: 1 << 62}
	for kind := range peer.Kinds {
		f.Peer = &peer.Peer{Kind: kind, Remote: six, Local: six, Path: "@" + long, Bound: "@" + long, PID: 1<<31 - 1, UID: 1<<32 - 1, GID: 1<<32 - 1}
		lists, _ := variablesOf([]string{"ucspi", "systemd", "xinetd", "ncat", "cgi"})
		for _, v := range lists[kind] {
			if n := len(v.name) + len(v.value(nil, f)) + 1; n > longestVariable {
				t.Errorf("%s takes %d bytes", v.name, n)
			}
		}
	}
}

func TestHarmless(t *testing.T) {
	for text, want := range map[string]string{
		"":                "",
		"/run/a_b-c.9:@Z": "/run/a_b-c.9:@Z",
		"/a b":            "",
		"/a\n":            "",
		"/$(x)":           "",
		"/ä":              "",
		"/\xff":           "",
		"@\x00":           "",
	} {
		if got := string(appendHarmless([]byte("x="), text)); got != "x="+want {
			t.Errorf("of %q the program is told %q", text, got)
		}
	}
}
