package peer

import (
	"net/netip"
	"testing"
)

func TestText(t *testing.T) {
	for _, c := range []struct {
		peer          Peer
		remote, local string
	}{
		{Peer{Remote: netip.MustParseAddrPort("192.0.2.1:4711"), Local: netip.MustParseAddrPort("[::1]:7")}, "192.0.2.1:4711", "[::1]:7"},
		{Peer{Kind: Unix, Path: "/run/x", Bound: "/tmp/client", PID: 12, UID: 1000, GID: 100}, "unix:pid=12,uid=1000,gid=100", "unix:/run/x"},
		{Peer{Kind: Unix, Path: "@x", UID: 4294967295}, "unix:uid=4294967295,gid=0", "unix:@x"},
		{Peer{Kind: VSock, RemoteVM: VM{2, 4294967294}, LocalVM: VM{3, 22}}, "vsock:2:4294967294", "vsock:3:22"},
		{Peer{Kind: VSock, LocalVM: VM{AnyCID, 22}, Listening: true}, "", "vsock:22"},
	} {
		if got := string(c.peer.AppendRemote([]byte("from "))); got != "from "+c.remote {
			t.Errorf("got %q, want %q", got, c.remote)
		}
		if got := string(c.peer.AppendLocal([]byte("at "))); got != "at "+c.local {
			t.Errorf("got %q, want %q", got, c.local)
		}
	}
}
