package conn

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
	"superd/superd/internal/spawn"
)

// A heeding is a unix connection of a service with an idle timeout, and the
// clock in the test's hands.
type heeding struct {
	*fixture
	r      *record
	client int
}

const heedTime = 8 * time.Second

func newHeeding(t *testing.T, kind int) *heeding {
	t.Helper()
	h := &heeding{fixture: newFixture(t)}
	h.service.Idle = heedTime
	h.service.Plan = compile(t, h.engine, spawn.Spec{Path: "/bin/sleep", Argv: []string{"sleep", "1000"}, Stderr: spawn.StderrLog, Dir: "/"})
	ends, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	h.client = ends[0]
	t.Cleanup(func() { unix.Close(h.client) })
	h.Start(&h.service, ends[1], &Visitor{Peer: peer.Peer{Kind: peer.Unix}}, true)
	h.r = h.slots[0]
	t.Cleanup(func() {
		h.end(t)
		h.finish(h.r)
	})
	h.idleIn(t, "at first", h.r.idleAt-h.sinceBegin(), heedTime)
	h.r.idleAt = int64(heedTime) // the table's clock stands at 0
	h.hear(t, "at first", false)
	return h
}

// end has the connection's program ended and reported.
func (h *heeding) end(t *testing.T) {
	t.Helper()
	if h.r.state == draining {
		return
	}
	unix.PidfdSendSignal(h.r.child.PIDFD, unix.SIGKILL, nil, 0)
	awaitEnd(t, h.r.child)
	h.handle(key{h.r.slot, h.r.use, processEnded})
}

// idleIn compares times that a real clock was asked for.
func (h *heeding) idleIn(t *testing.T, when string, got int64, want time.Duration) {
	t.Helper()
	if d := time.Duration(got) - want; d > 0 || d < -patience {
		t.Errorf("%s, it is idle in %v, want %v", when, time.Duration(got), want)
	}
}

// hear hands the events that are there over; moved says whether they count as
// bytes that moved.
func (h *heeding) hear(t *testing.T, when string, moved bool) {
	t.Helper()
	before := h.r.idleAt
	for _, k := range h.edges() {
		h.handle(k)
	}
	if !moved && h.r.idleAt != before {
		t.Errorf("%s, bytes have moved", when)
	}
	if want := h.now + int64(heedTime)/deafness + int64(heedTime); moved && h.r.idleAt != want {
		t.Errorf("%s, it is idle at %v, want %v", when, time.Duration(h.r.idleAt), time.Duration(want))
	}
}

// edges are the events of connections that are there.
func (h *heeding) edges() (list []key) {
	for _, e := range h.poll.wait(0) {
		if k := keyOf(&e); k.kind == connectionMoved {
			list = append(list, k)
		}
	}
	return list
}

// at sets the clock, and looks at what is due then.
func (h *heeding) at(now time.Duration) {
	h.now = int64(now)
	if h.r.state == running {
		h.checkLimits(h.r)
	}
}

func (h *heeding) send(t *testing.T, fd, n int) {
	t.Helper()
	if _, err := unix.SendmsgN(fd, make([]byte, n), nil, nil, unix.MSG_DONTWAIT); err != nil {
		t.Fatal(err)
	}
}

func (h *heeding) take(t *testing.T, fd, n int) {
	t.Helper()
	if _, _, err := unix.Recvfrom(fd, make([]byte, n), unix.MSG_DONTWAIT); err != nil {
		t.Fatal(err)
	}
}

var pairs = map[string]int{"stream": unix.SOCK_STREAM, "seqpacket": unix.SOCK_SEQPACKET}

func TestIdleWithoutTCP(t *testing.T) {
	for name, kind := range pairs {
		t.Run(name, func(t *testing.T) {
			h := newHeeding(t, kind)
			h.at(heedTime / 2)
			h.send(t, h.client, 1)
			h.hear(t, "after input", true)
			h.send(t, h.client, 1)
			if list := h.edges(); len(list) > 0 {
				t.Errorf("superd is told of every byte: %v", list)
			}
			h.at(heedTime/2 + heedTime/deafness)
			h.hear(t, "with input unread", false)
			h.at(heedTime)
			h.send(t, h.r.kept, 100)
			h.hear(t, "after output that nobody took", false)
			h.take(t, h.client, 100)
			h.hear(t, "after output", true)
			h.at(heedTime + heedTime/deafness)
			h.hear(t, "when it is heeded again", false)
			h.at(2*heedTime + heedTime/deafness - 1)
			if h.r.state != running {
				t.Error("it is ended too early")
			}
			h.at(2*heedTime + heedTime/deafness)
			if h.r.state != stopping || h.r.ended.Reason != ReasonIdle {
				t.Errorf("it is in state %d for %q when its time is over", h.r.state, h.r.ended.Reason)
			}
			h.send(t, h.client, 1)
			h.hear(t, "when it is ended", false)
		})
	}
}

// Who takes a long answer piece by piece is not idle, though there is no edge.
func TestSlowClientWithoutTCP(t *testing.T) {
	h := newHeeding(t, unix.SOCK_SEQPACKET)
	for range 60 {
		h.send(t, h.r.kept, 1000)
	}
	for i := range 20 {
		h.take(t, h.client, 1000)
		h.hear(t, "after a piece", false)
		h.at(time.Duration(i+1) * heedTime)
		if h.r.state != running {
			t.Fatalf("it is ended after %d pieces", i)
		}
	}
	h.at(21 * heedTime)
	if h.r.state != stopping {
		t.Errorf("it is in state %d when nothing is taken any more", h.r.state)
	}
}

// What is heeded is heeded no longer when its program has ended: its number may
// be another's soon.
func TestHeedingEnds(t *testing.T) {
	h := newHeeding(t, unix.SOCK_STREAM)
	h.send(t, h.client, 1) // an edge on its way
	h.end(t)
	if h.r.state != draining || h.r.heeded {
		t.Errorf("in state %d, heeded: %v", h.r.state, h.r.heeded)
	}
	if err := h.poll.addFor(motions, h.r.kept, key{}); err != unix.EEXIST {
		t.Errorf("what is drained is not in the set: %v", err)
	}
}
