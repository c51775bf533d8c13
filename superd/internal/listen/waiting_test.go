package listen

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// queued waits until n connections are in k's queue.
func queued(t *testing.T, k *Socket, n uint32) {
	t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		got, known := queueLength(k.fd)
		if known && got == n {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("%d connections wait, %d were to: %t", got, n, known)
		}
	}
}

// Whether a program has accepted nobody is told where that is sure, and else it
// is not.
func TestUntouched(t *testing.T) {
	for i, c := range []struct {
		before, taken, after int // connections that wait, are accepted, and come meanwhile
		want                 bool
	}{
		{1, 0, 0, true}, {3, 0, 0, true},
		{1, 1, 0, false}, {3, 1, 0, false},
		{1, 0, 1, false}, // it may have accepted one
		{1, 1, 1, false}, {3, 2, 2, false},
	} {
		s := newSet(t)
		t.Cleanup(s.Abandon)
		list := open(t, s, at("127.0.0.1:0", "127.0.0.2:0"), newLodge(s))
		for n := range c.before {
			dial(t, list[0].Local())
			queued(t, list[0], uint32(n+1))
		}
		w := s.Waiting(list)
		if w == nil {
			t.Fatal("nothing is known of TCP")
		}
		for range c.taken {
			fd, _, err := unix.Accept(list[0].fd)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
		}
		for n := range c.after {
			dial(t, list[0].Local())
			queued(t, list[0], uint32(c.before-c.taken+n+1))
		}
		if c.after > 0 { // the kernel tells a moment after it has counted
			unix.Poll([]unix.PollFd{{Fd: int32(w.poll), Events: unix.POLLIN}}, int(patience/time.Millisecond))
		}
		if got := w.Untouched(); got != c.want {
			t.Errorf("case %d: untouched is %t", i, got)
		}
	}
}

// Of a socket that superd does not wait for any more nothing is known, nor of one
// that nobody has come to, nor of those that the kernel does not count at.
func TestUntouchedUnknown(t *testing.T) {
	s := newSet(t)
	t.Cleanup(s.Abandon)
	l := newLodge(s)
	k := open(t, s, at("127.0.0.1:0"), l)[0]
	if s.Waiting([]*Socket{k}).Untouched() {
		t.Error("nobody has come, and is left there")
	}
	dial(t, k.Local())
	queued(t, k, 1)
	w := s.Waiting([]*Socket{k})
	s.Forsake(k)
	if w.Untouched() {
		t.Error("a socket is looked at that may be closed")
	}
	if err := s.Adopt(k, l); err != nil {
		t.Fatal(err)
	}
	other := open(t, s, local(filepath.Join(shortDir(t), "x")), l)[0]
	if s.Waiting([]*Socket{k, other}) != nil {
		t.Error("it is known who waits at a unix socket")
	}
}
