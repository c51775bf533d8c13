package event

import (
	"sync"
	"sync/atomic"
)

const (
	// maxPending is how many bytes of lines may wait for the writer: about 4,000 lines of exited programs.
	maxPending = 1 << 20
	// keepPending is how large a buffer is kept in any case. A larger one is given back once it is mostly empty.
	keepPending = 64 << 10
)

// A queue is what was said and is not yet written. Producers append whole lines under a mutex that is
// never held over a system call; the writer takes all of it at once.
type queue struct {
	wake  chan struct{} // capacity 1: there is something to look at
	total atomic.Uint64 // lines dropped since the beginning, here or by the writer

	mu      sync.Mutex
	pending []byte // guarded by mu; whole lines, at most maxPending
	dropped uint64 // guarded by mu; lines that came after pending and found no room
	closed  bool   // guarded by mu
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1)}
}

// Write appends one line or drops it; it never fails and never waits. After one line was dropped all are,
// until the writer has taken what there is: so a gap in the log is in one place, and is told in that place.
func (q *queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	quiet := len(q.pending) == 0 && q.dropped == 0
	if q.closed || q.dropped > 0 || len(q.pending)+len(line) > maxPending {
		q.dropped++
		q.total.Add(1)
	} else {
		q.pending = append(q.pending, line...)
	}
	q.mu.Unlock()
	if quiet {
		q.ring()
	}
	return len(line), nil
}

// ring wakes the writer, or lets it look once more.
func (q *queue) ring() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take gives all that is pending to the writer, and how many lines were dropped after it. The next lines
// go to spare.
func (q *queue) take(spare []byte) (batch []byte, dropped uint64) {
	if cap(spare) > keepPending && len(spare) < cap(spare)/4 {
		spare = nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	batch, dropped = q.pending, q.dropped
	q.pending, q.dropped = spare[:0], 0
	return batch, dropped
}

// close lets no further line in.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
}
