package listen

import (
	"net"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
)

// A lodge is a porter that lends each socket to a program that the test plays,
// and accepts nobody.
type lodge struct {
	set    *Set
	called chan *Socket
	pauses bool // it does not want to be told again
}

func (l *lodge) Readable(k *Socket) {
	if l.pauses {
		l.set.Leave(k)
	} else {
		l.set.Lend(k)
	}
	l.called <- k
}

func (l *lodge) Enter() bool                   { panic("a place is taken") }
func (l *lodge) Leave()                        {}
func (l *lodge) Impatient() bool               { return false }
func (l *lodge) Connection(int, *peer.Peer)    { panic("somebody is accepted") }
func (l *lodge) TurnAway(fd int, _ *peer.Peer) { panic("somebody is turned away") }

func (l *lodge) Porter(*Socket) Porter { return l }

func newLodge(s *Set) *lodge { return &lodge{set: s, called: make(chan *Socket, 10)} }

// quiet waits until s has done what was ordered, and all that came before, and
// wants nothing to have been told.
func (l *lodge) quiet(t *testing.T, s *Set) {
	t.Helper()
	for range 3 { // the set looks for events between orders
		done := make(chan struct{})
		s.Order(func() { close(done) })
		receive(t, done)
	}
	if len(l.called) > 0 {
		t.Error("it is told of a socket that it does not wait for")
	}
}

func blocking(t *testing.T, k *Socket) bool {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(k.fd), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags&unix.O_NONBLOCK == 0
}

// A socket that is lent is left alone, however many come, until it is returned;
// and it blocks, whatever the program before has done to it.
func TestLentSocketIsLeftAlone(t *testing.T) {
	s := newSet(t)
	l := newLodge(s)
	k := open(t, s, at("127.0.0.1:0"), l)[0]
	serve(t, s)
	for range 3 {
		dial(t, k.Local())
		if got := receive(t, l.called); got != k || !k.Lent() || !blocking(t, k) {
			t.Fatalf("lent: %t, blocking: %t", k.Lent(), blocking(t, k))
		}
		dial(t, k.Local())
		l.quiet(t, s)
		for range 2 { // the program does its work
			fd, _, err := unix.Accept(k.FD())
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
		}
		unix.SetNonblock(k.fd, true)
		k.Return()
		l.quiet(t, s)
	}
	dial(t, k.Local())
	receive(t, l.called)
	dial(t, k.Local())
	k.Return() // with its work undone
	receive(t, l.called)
	k.Return()
	receive(t, l.called)
}

func TestPausedSocketIsResumed(t *testing.T) {
	s := newSet(t)
	l := newLodge(s)
	l.pauses = true
	k := open(t, s, at("127.0.0.1:0"), l)[0]
	serve(t, s)
	dial(t, k.Local())
	receive(t, l.called)
	l.quiet(t, s)
	s.Resume(l)
	receive(t, l.called)
}

// A socket goes to another set and door while a program has it: who has it by
// then waits for it when the program has ended, and accepts without blocking.
func TestLentSocketIsAdopted(t *testing.T) {
	from, to := newSet(t), newSet(t)
	l, door := newLodge(from), newRoom(9)
	k := open(t, from, at("127.0.0.1:0"), l)[0]
	serve(t, from)
	serve(t, to)
	dial(t, k.Local())
	receive(t, l.called)
	handed := make(chan struct{})
	from.Order(func() {
		from.Forsake(k)
		to.Order(func() {
			if err := to.Adopt(k, door); err != nil {
				t.Error(err)
			}
			close(handed)
		})
	})
	receive(t, handed)
	if n := door.tries.Load(); n != 0 || !blocking(t, k) {
		t.Errorf("%d times a place was asked for; blocking: %t", n, blocking(t, k))
	}
	k.Return()
	door.next(t)
	if blocking(t, k) {
		t.Error("it accepts from a socket that blocks")
	}
	l.quiet(t, from)
}

// One that is returned when nobody has it is waited for by who adopts it.
func TestReturnedSocketIsAdopted(t *testing.T) {
	s := newSet(t)
	l, door := newLodge(s), newRoom(9)
	k := open(t, s, at("127.0.0.1:0"), l)[0]
	serve(t, s)
	c, err := net.Dial("tcp", k.Local().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	receive(t, l.called)
	s.Order(func() { s.Forsake(k); k.Return() })
	s.Order(func() {
		if err := s.Adopt(k, door); err != nil {
			t.Error(err)
		}
	})
	door.next(t)
	if blocking(t, k) {
		t.Error("it accepts from a socket that blocks")
	}
}

// At the end the queue of a porter's socket is left to its program.
func TestShutDoesNotAcceptForPorters(t *testing.T) {
	s := newSet(t)
	l := newLodge(s)
	l.pauses = true
	k := open(t, s, at("127.0.0.1:0"), l)[0]
	dial(t, k.Local())
	serve(t, s)
	receive(t, l.called)
	s.ShutAll()
}

// A program can ask for errors with IP_RECVERR and leave them unread: the kernel
// tells of them as long as they are there, and superd does not turn round for
// it, neither while the program has the socket nor afterwards.
func TestErrorsThatProgramsLeave(t *testing.T) {
	s := newSet(t)
	l := newLodge(s)
	k, _ := mailedTo(t, s, l, "127.0.0.1:0")
	s.Lend(k)
	nobody, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	to := &unix.SockaddrInet4{Port: nobody.LocalAddr().(*net.UDPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	nobody.Close()
	if err := unix.SetsockoptInt(k.FD(), unix.IPPROTO_IP, unix.IP_RECVERR, 1); err != nil {
		t.Fatal(err)
	}
	unix.Sendto(k.FD(), []byte("x"), 0, to)
	failed := []unix.PollFd{{Fd: int32(k.FD())}}
	for n, err := 0, error(unix.EINTR); n != 1; n, err = unix.Poll(failed, int(patience.Milliseconds())) {
		if err != unix.EINTR {
			t.Fatal("no error comes: ", err)
		}
	}
	unix.Sendto(k.FD(), []byte("x"), 0, to) // hears of the first
	var events [4]unix.EpollEvent
	s.wait(events[:], 0)
	if n := s.wait(events[:], 0); n > 0 {
		t.Errorf("while a program has the socket, %d events are told again", n)
	}
	k.lease.lent = false
	s.resume(l)
	if n := s.wait(events[:], 0); n != 1 || events[0].Events&unix.EPOLLERR == 0 {
		t.Fatalf("%d events are told: %v", n, events)
	}
	s.heed(k, events[0].Events)
	s.resume(l) // which has lent it again
	k.lease.lent = false
	s.resume(l)
	if n := s.wait(events[:], 0); n > 0 {
		t.Errorf("%d events are told again: %v", n, events)
	}
}

// A listening socket that a program has shut down, and that superd is to accept
// at afterwards, is told of for ever: that is remarked once.
func TestSocketThatAProgramHasShutDown(t *testing.T) {
	complaints := 0
	s, err := NewSet(func(fd int) (int, error) { return fd, nil }, func(error) { complaints++ })
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	for _, l := range [][]config.Listener{at("127.0.0.1:0"), {{Family: config.Unix, Name: path, Type: "stream", Mode: 0o600}}} {
		k := open(t, s, l, newRoom(3))[0]
		unix.Shutdown(k.FD(), unix.SHUT_RDWR)
		var events [4]unix.EpollEvent
		if n := s.wait(events[:], 0); n != 1 {
			t.Fatalf("%d events are told", n)
		}
		s.heed(k, events[0].Events)
		s.wait(events[:], 0) // that nobody waits for it any more
		if n := s.wait(events[:], 0); n > 0 || complaints != 1 {
			t.Errorf("%d events are told again, and %d complaints", n, complaints)
		}
	}
}
