package listen

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
)

// mailed is a socket of UDP at an address, and a client of it.
func mailed(t *testing.T, address string) (*Socket, *net.UDPConn) {
	t.Helper()
	s := newSet(t)
	return mailedTo(t, s, newLodge(s), address)
}

// mailedTo is mailed for a set and a door.
func mailedTo(t *testing.T, s *Set, door Door, address string) (*Socket, *net.UDPConn) {
	t.Helper()
	l := at(address)
	l[0].Family = config.UDP
	k := open(t, s, l, door)[0]
	to := net.UDPAddrFromAddrPort(k.Local())
	if to.IP.IsUnspecified() {
		to.IP = net.IPv4(127, 0, 0, 2)
	}
	c, err := net.DialUDP("udp", nil, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return k, c
}

// arrived waits until a datagram is there: the kernel may deliver it a moment
// after it was sent.
func arrived(t *testing.T, k *Socket) {
	there[0].Fd = int32(k.FD())
	for {
		n, err := unix.Poll(there[:], int(patience.Milliseconds()))
		if n == 1 {
			return
		}
		if err != unix.EINTR {
			t.Fatal("nothing comes: ", err)
		}
	}
}

// there is arrived's, which is to take no memory.
var there = [1]unix.PollFd{{Events: unix.POLLIN}}

// What is done for each datagram takes no memory.
func TestMailIsFree(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0"} {
		k, c := mailed(t, address)
		m := new(Mailbox)
		c.Write([]byte("hello"))
		arrived(t, k)
		if err := k.Receive(m); err != nil {
			t.Fatal(err)
		}
		back := k.WayBack(m)
		sessions := map[Sender]int{m.Own(): 1}
		out, in := []byte("hello"), make([]byte, 10)
		if n := testing.AllocsPerRun(100, func() {
			unix.Write(clientFD(t, c), out)
			arrived(t, k)
			if k.Receive(m) != nil || string(m.Text) != "hello" || sessions[m.From] != 1 || k.Answer(&back, m.Text) != nil {
				t.Error("it does not come")
			}
			unix.Read(clientFD(t, c), in)
		}); n > 0 {
			t.Errorf("%s: %v allocations for each datagram", address, n)
		}
	}
}

var clientFDs = map[*net.UDPConn]int{}

// clientFD is a connection's descriptor, asked for once.
func clientFD(t *testing.T, c *net.UDPConn) int {
	if _, known := clientFDs[c]; !known {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { clientFDs[c] = int(fd) })
	}
	return clientFDs[c]
}

// Who has sent, and to which address, is known of each datagram; an answer comes
// from there.
func TestMailKnowsBothEnds(t *testing.T) {
	for address, local := range map[string]string{"127.0.0.1:0": "127.0.0.1", "0.0.0.0:0": "127.0.0.2", "[::1]:0": "::1"} {
		k, c := mailed(t, address)
		m := new(Mailbox)
		for _, text := range []string{"hello", "", "again"} {
			c.Write([]byte(text))
			arrived(t, k)
			if err := k.Receive(m); err != nil {
				t.Fatal(err)
			}
			p := k.Introduce(m)
			if string(m.Text) != text || m.Cut || m.Spread || p.Remote.String() != c.LocalAddr().String() || p.Local.Addr().String() != local ||
				m.From.RemoteAddr() != p.Remote.Addr() || m.From.LocalAddr() != p.Local.Addr() || !p.Datagrams {
				t.Errorf("%q: %+v, cut %t, spread %t", m.Text, p, m.Cut, m.Spread)
			}
			back := k.WayBack(m)
			if err := k.Answer(&back, []byte(text)); err != nil {
				t.Error(err)
			}
			b := make([]byte, 10)
			if n, err := c.Read(b); err != nil || string(b[:n]) != text {
				t.Errorf("the answer is %q, %v", b[:n], err)
			}
		}
		if err := k.Receive(m); err != unix.EAGAIN {
			t.Errorf("where nothing has come: %v", err)
		}
		if err := k.Answer(&Return{}, []byte("x")); err != unix.EDESTADDRREQ {
			t.Errorf("an answer to nobody: %v", err)
		}
	}
}

// withDescriptors is a unix socket of datagrams, to which somebody has sent one
// with descriptors.
func withDescriptors(t *testing.T) *Socket {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	s := newSet(t)
	k := open(t, s, []config.Listener{{Family: config.Unix, Name: path, Type: config.Datagram, Mode: 0o600}}, newLodge(s))[0]
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	sent, err := os.Open("/dev/full")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sent.Close() })
	rights := unix.UnixRights(slices.Repeat([]int{int(sent.Fd())}, 20)...)
	if err := unix.Sendmsg(fd, []byte("hello"), rights, &unix.SockaddrUnix{Name: path}, 0); err != nil {
		t.Fatal(err)
	}
	return k
}

// wantNoDescriptors wants none to be open of what withDescriptors has sent.
func wantNoDescriptors(t *testing.T) {
	t.Helper()
	n := 0
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == "/dev/full" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d descriptors are open of what was sent, beside the sender's", n-1)
	}
}

// Who sends descriptors along does not give them to superd, which would have
// ever more; the datagram comes. So it is where a program that had the socket has
// switched off that the kernel says who sends, and there is room.
func TestMailBringsNoDescriptors(t *testing.T) {
	for _, credentials := range []int{1, 0} {
		t.Run(fmt.Sprint(credentials), func(t *testing.T) {
			k := withDescriptors(t)
			if err := setOption(k.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, credentials, "SO_PASSCRED"); err != nil {
				t.Fatal(err)
			}
			m := new(Mailbox)
			if err := k.Receive(m); err != nil || string(m.Text) != "hello" {
				t.Fatalf("%q has come, %v", m.Text, err)
			}
			if p := k.Introduce(m); credentials == 1 && (p.PID != int32(os.Getpid()) || p.UID != uint32(os.Geteuid()) || p.GID != uint32(os.Getegid())) {
				t.Errorf("it has come from %+v", p)
			}
			wantNoDescriptors(t)
		})
	}
}

// Who has sent is known before anybody takes the datagram, whatever a program
// has made of the socket; and what was sent along is the program's still.
func TestSenderByUnixSocket(t *testing.T) {
	k := withDescriptors(t)
	if err := setOption(k.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 0, "SO_PASSCRED"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var p peer.Peer
		if !k.Sender(&p) || p.Unseen() || p.PID != int32(os.Getpid()) || p.UID != uint32(os.Geteuid()) || p.GID != uint32(os.Getegid()) {
			t.Errorf("it is from %+v", p)
		}
		wantNoDescriptors(t)
	}
	control := make([]byte, 1024)
	_, n, _, _, err := unix.Recvmsg(k.fd, make([]byte, 10), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		t.Fatal(err)
	}
	descriptors := 0
	for i := range messages {
		list, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range list {
			unix.Close(fd)
			descriptors++
		}
	}
	if descriptors != 20 {
		t.Errorf("%d descriptors are left to the program", descriptors)
	}
}
