package spawn

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unsafe"

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

// Variables that a plan has no room for, since the client came by another file,
// are left out.
func TestNoRoomForVariables(t *testing.T) {
	e := NewEngine()
	var extra []byte
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprint("SUPERD_PROXY_", i))
		extra = append(append(extra, names[i]+"="+strings.Repeat("x", 300)...), 0)
	}
	for _, room := range []int{0, len(extra)} {
		s := script("true")
		s.EnvStyle = []string{"ucspi"}
		if s.Room = room; room > 0 {
			s.Further = names
		}
		in := compile(t, e, s).newInstance()
		text, envp := unsafe.SliceData(in.text), unsafe.SliceData(in.envp)
		in.describe(&Facts{ID: []byte("1"), Peer: &peer.Peer{Remote: netip.MustParseAddrPort("192.0.2.1:1"), Local: netip.MustParseAddrPort("192.0.2.2:2"), Extra: extra}})
		if text != unsafe.SliceData(in.text) || envp != unsafe.SliceData(in.envp) {
			t.Errorf("with room for %d bytes what the child reads has moved", room)
		}
		if got := bytes.HasSuffix(in.text, extra); got != (room > 0) || in.envp[len(in.envp)-1] != 0 || !bytes.Contains(in.text, []byte("TCPREMOTEIP=192.0.2.1\x00")) {
			t.Errorf("with room for %d bytes the variables are %q", room, in.text)
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
