package listen

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
)

func vsock(cid, port uint32, kind string) []config.Listener {
	l := config.Listener{Family: config.VSock, CID: cid, Port: port, Type: kind}
	l.Spec = l.Place()
	return []config.Listener{l}
}

// needVSock leaves out what takes a kernel that has it, and needLoopback what
// takes one where a machine can reach itself by it. The machine of make test-vm
// has both.
func needVSock(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip("SKIPPED: this kernel has no vsock: ", err)
	}
	unix.Close(fd)
}

func needLoopback(t *testing.T) {
	t.Helper()
	needVSock(t)
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: anyPort}); err != nil {
		t.Skip("SKIPPED: this kernel has no vsock_loopback: ", err)
	}
}

func TestOpenVSock(t *testing.T) {
	needVSock(t)
	s := newSet(t)
	defer s.Abandon()
	k := open(t, s, vsock(config.AnyCID, 0, "stream"), newRoom(0))[0]
	own := k.self.LocalVM
	if own.CID != config.AnyCID || own.Port == 0 || own.Port == anyPort || k.String() != fmt.Sprintf("vsock:%d", own.Port) {
		t.Errorf("it listens on %s", k)
	}
	const unknown = 77 // no machine has it that superd runs in
	for _, c := range []struct {
		list       []config.Listener
		what, hint string
	}{
		{vsock(own.CID, own.Port, "stream"), "address already in use (EADDRINUSE)", "another process listens there"},
		{vsock(unknown, 0, "stream"), "cannot assign requested address (EADDRNOTAVAIL)", "this machine has not that CID"},
	} {
		opened, problems := s.Open(c.list, Owners{}, newRoom(0))
		if len(opened) > 0 || len(problems) != 1 || problems[0].What != "cannot listen on "+c.list[0].Spec+": "+c.what || !strings.HasPrefix(problems[0].Hint, c.hint) {
			t.Errorf("%s: got %v", c.list[0].Spec, problems)
		}
		if found, _ := new(Checker).Check(c.list, Owners{}); len(found) > 0 {
			t.Errorf("%s: beforehand it is %v", c.list[0].Spec, found)
		}
	}
}

// What the kernel lacks is told, and how to have it.
func TestVSockTrouble(t *testing.T) {
	l := vsock(config.AnyCID, 22, "seqpacket")[0]
	var s *Set
	for err, want := range map[unix.Errno]string{
		unix.EAFNOSUPPORT:    "cannot listen on vsock:22: address family not supported by protocol (EAFNOSUPPORT) (this kernel has no vsock: modprobe vsock)",
		unix.ESOCKTNOSUPPORT: "cannot listen on vsock:22: socket type not supported (ESOCKTNOSUPPORT) (this kernel has no vsock of the type seqpacket)",
		unix.EACCES:          "cannot listen on vsock:22: permission denied (EACCES) (ports below 1024 need root, or CAP_NET_BIND_SERVICE)",
		unix.ENOMEM:          "cannot listen on vsock:22: cannot allocate memory (ENOMEM)",
	} {
		if got := s.problem(&l, l.Addr, vsockTrouble(&l, err)).Error(); got != ":0:0: "+want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestVSockVisitor(t *testing.T) {
	needLoopback(t)
	for _, kind := range []string{"stream", "seqpacket"} {
		s := newSet(t)
		r := newRoom(10)
		opened := open(t, s, append(vsock(config.AnyCID, 0, kind), vsock(unix.VMADDR_CID_LOCAL, 0, kind)...), r)
		serve(t, s)
		for _, k := range opened {
			fd, err := unix.Socket(unix.AF_VSOCK, socketTypes[kind]|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			wait := unix.NsecToTimeval(patience.Nanoseconds()) // the kernel's own is two seconds
			if err := unix.SetsockoptTimeval(fd, unix.AF_VSOCK, unix.SO_VM_SOCKETS_CONNECT_TIMEOUT, &wait); err != nil {
				t.Fatal(err)
			}
			if err := unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: k.self.LocalVM.Port}); err != nil {
				t.Fatal(err)
			}
			own, err := boundVM(fd)
			if err != nil {
				t.Fatal(err)
			}
			v := r.next(t)
			local := peer.VM{CID: unix.VMADDR_CID_LOCAL, Port: k.self.LocalVM.Port}
			if v.peer.Kind != peer.VSock || v.peer.RemoteVM.Port != own.Port || v.peer.RemoteVM.CID != unix.VMADDR_CID_LOCAL || v.peer.LocalVM != local {
				t.Errorf("%s: %v came in as %+v", kind, own, v.peer)
			}
		}
	}
}
