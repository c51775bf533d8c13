package conn

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
	"superd/superd/internal/spawn"
)

// pathsOf is a connection by MPTCP, or of a plain client, to a socket that
// speaks MPTCP; the server's end as a bare, blocking descriptor.
func pathsOf(t *testing.T, plain bool) (client *net.TCPConn, server int) {
	t.Helper()
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err != nil {
		t.Skip("SKIPPED: this kernel has no MPTCP, or the sysctl net.mptcp.enabled is 0: ", err)
	}
	defer unix.Close(listener)
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listener, 1); err != nil {
		t.Fatal(err)
	}
	own, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	in := own.(*unix.SockaddrInet4)
	var d net.Dialer
	d.SetMultipathTCP(!plain)
	c, err := d.DialContext(context.Background(), "tcp", (&net.TCPAddr{IP: in.Addr[:], Port: in.Port}).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if server, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn), server
}

// However a connection of MPTCP ends, its bytes are counted, and no end is
// counted as one.
func TestBytesOfMPTCP(t *testing.T) {
	for _, plain := range []bool{false, true} {
		for name, end := range map[string]func(t *testing.T, client *net.TCPConn){
			"client first": func(t *testing.T, client *net.TCPConn) { client.CloseWrite() },
			"never":        func(*testing.T, *net.TCPConn) {},
			"reset":        func(t *testing.T, client *net.TCPConn) { client.SetLinger(0); client.Close() },
		} {
			f := newFixture(t)
			f.service.Plan = compile(t, f.engine, spawn.Spec{Path: "/bin/sh",
				Argv: []string{"sh", "-c", "head -c 1000 >/dev/null; head -c 5000 /dev/zero"}, Stderr: spawn.StderrLog, Dir: "/"})
			client, server := pathsOf(t, plain)
			f.Start(&f.service, server, &Visitor{Peer: peer.Peer{MPTCP: true}, Taken: 100}, false)
			r := f.slots[0]
			if _, err := client.Write(make([]byte, 1100)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(client, make([]byte, 5000)); err != nil {
				t.Fatal(err)
			}
			awaitEnd(t, r.child)
			live := f.look(r)
			in, out := int64(1000), int64(5000)
			if known := f.lookAtMPTCP(r); known > 0 && known < int(unsafe.Offsetof(f.paths.bytesAcked)) {
				in, out = -1, -1 // before Linux 6.5
			}
			end(t, client)
			f.handle(key{r.slot, r.use, processEnded})
			if r.ended.BytesIn != in || r.ended.BytesOut != out {
				t.Errorf("%s, plain: %v: %d bytes in, %d out", name, plain, r.ended.BytesIn, r.ended.BytesOut)
			}
			if live.BytesIn != in || live.BytesOut != out || live.RoundTrip <= 0 || live.Idle > patience {
				t.Errorf("%s, plain: %v: before its end it is %+v", name, plain, live)
			}
			f.finish(r)
		}
	}
}

// Idleness is seen though the kernel does not tell when a byte moved on any of
// the paths, later by an eighth at most.
func TestIdleMPTCP(t *testing.T) {
	f := newFixture(t)
	const idle = 8 * time.Second
	f.service.Idle = idle
	f.service.Plan = compile(t, f.engine, spawn.Spec{Path: "/bin/cat", Argv: []string{"cat"}, Stderr: spawn.StderrLog, Dir: "/"})
	client, server := pathsOf(t, false)
	f.Start(&f.service, server, &Visitor{Peer: peer.Peer{MPTCP: true}}, false)
	r := f.slots[0]
	if r.idleAt > int64(idle/deafness)+f.sinceBegin() {
		t.Errorf("it is looked at in %v first", time.Duration(r.idleAt))
	}
	at := func(now time.Duration) time.Duration {
		t.Helper()
		f.now = int64(now)
		r.idleAt = f.now // as if it had been due then
		f.checkLimits(r)
		return time.Duration(r.idleAt) - now
	}
	at(1 * time.Second)
	for i := range 20 {
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		settle(t, f, r)
		if next := at(time.Duration(i+1) * 10 * time.Second); r.state != running || next != idle/deafness {
			t.Fatalf("after %d bytes it is in state %d, and looked at in %v", i+1, r.state, next)
		}
	}
	const last = 200 * time.Second
	if next := at(last + idle - time.Millisecond); r.state != running || next != time.Millisecond {
		t.Errorf("shortly before, it is in state %d, and looked at in %v", r.state, next)
	}
	if at(last + idle); r.state != stopping || r.ended.Reason != ReasonIdle {
		t.Errorf("it is in state %d for %q", r.state, r.ended.Reason)
	}
	awaitEnd(t, r.child)
	f.handle(key{r.slot, r.use, processEnded})
	f.finish(r)
}

// settle waits until the acknowledgements of what was sent are here.
func settle(t *testing.T, f *fixture, r *record) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if f.lookAtMPTCP(r); f.paths.writeSeq == f.paths.sentUnacked {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("what was sent is never acknowledged")
		}
	}
}
