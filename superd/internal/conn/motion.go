package conn

import (
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
)

// The kernel notes when a TCP connection moved a byte last (TCP_INFO), and
// nothing of the kind for unix sockets. There, where a service has an idle
// timeout, the epoll set is asked for the edges: one comes for input that
// arrives, and one for output that the client takes. To hear of every one of
// them would have superd run as often as the program, so after an edge it is
// deaf for a part of the idle time, and idleness counts from the end of that.

// deafness is that part: how much later than it says an idle timeout can come.
const deafness = 8

// motions are the edges.
const motions = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// motion is what a record knows of them.
type motion struct {
	heeded bool  // the kept duplicate is in the set for its edges
	ready  bool  // the next event tells how things stood when it was added, and not of an edge
	unsent int   // bytes that were on their way to the client then
	heedAt int64 // when to add it again; 0 is never

	// Of a connection of several paths.
	moved   uint64 // the sum of what the kernel counts
	movedAt int64  // when that was first seen
}

// mustBeHeeded tells whether nothing else shows r's connection to be idle. Of a
// vsock one the edges do not show it either: output makes none.
func (r *record) mustBeHeeded() bool {
	return r.idleAt > 0 && r.kept >= 0 && r.visitor.Peer.Kind == peer.Unix
}

// heed notes how things stand. The caller adds the duplicate to the set.
func (r *record) heed() {
	now := []unix.PollFd{{Fd: int32(r.kept), Events: unix.POLLIN | unix.POLLOUT | unix.POLLRDHUP}}
	n, _ := unix.Poll(now, 0)
	r.motion = motion{heeded: true, ready: n > 0, unsent: unsent(r.kept)}
}

// heedAgain ends the deafness after an edge. Where the set takes no more, it
// goes on.
func (t *Table) heedAgain(r *record) {
	r.heed()
	if t.poll.addFor(motions, r.kept, key{r.slot, r.use, connectionMoved}) != nil {
		t.deafen(r)
	}
}

// moved hears an edge of r's connection.
func (t *Table) moved(r *record) {
	switch {
	case !r.heeded:
	case r.ready:
		r.ready = false
	default:
		t.unheed(r)
		if r.state == running {
			t.deafen(r)
			t.arm(r, r.nextLimit(t.now))
		}
	}
}

func (t *Table) deafen(r *record) {
	r.motion = motion{heedAt: later(t.now, r.service.Idle/deafness)}
	r.idleAt = later(r.heedAt, r.service.Idle)
}

// unheed takes the duplicate out of the set.
func (t *Table) unheed(r *record) {
	if r.heeded {
		t.poll.remove(r.kept)
		r.heeded = false
	}
}

// stillness is the whole idle time for a connection of which no edge came since
// it was heeded, unless the client takes its output slowly: while a unix socket
// is more than a quarter full, taking some of it is no edge.
func (r *record) stillness() time.Duration {
	before := r.unsent
	if r.unsent = unsent(r.kept); r.unsent != before {
		return 0
	}
	return r.service.Idle
}

// unsent is how many bytes are on their way to the client, 0 where the kernel
// does not tell.
func unsent(fd int) int {
	n, _ := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return n
}
