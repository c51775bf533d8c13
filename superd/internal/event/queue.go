package event

import (
	"sync"
	"sync/atomic"
)

const (
	// maxPending is how many bytes of lines may wait for the writer: about 4,000 lines of exited programs.
	maxPending = 1 << 20
	// maxStderr is how many of them may be what programs wrote. The rest is always there for records.
	maxStderr = maxPending / 4 * 3
	// muchPending is how many bytes make the writer come without a rest: a burst that it can write is not lost.
	muchPending = 64 << 10
	// keepPending is how large a buffer is kept in any case. A larger one is given back once it is mostly empty.
	keepPending = 64 << 10
)

// A queue is what was said and is not yet written. Producers append whole lines under a mutex that is
// never held over a system call; the writer takes all of it at once.
type queue struct {
	wake  chan struct{} // capacity 1: there is something to look at
	much  chan struct{} // capacity 1: there is so much that it should not wait
	total atomic.Uint64 // lines dropped since the beginning, here or by the writer
	told  atomic.Uint64 // of those, that the log has told of
	owed  atomic.Uint64 // that a superd before has not told of, until the writer takes them over

	mu      sync.Mutex
	pending batch   // guarded by mu
	stderr  int     // guarded by mu; how many bytes of pending are lines of stderr
	turn    uint64  // guarded by mu; counts the batches, so that no share has to be cleared
	closed  bool    // guarded by mu
	writer  *writer // guarded by mu; whose what is pending is
}

// A batch is what came between two visits of the writer.
type batch struct {
	lines   []byte // whole ones, at most maxPending
	dropped uint64 // lines that came after these and found no room
	gaps    []gap  // what is missing among these
}

// A gap is lines of stderr that a service's programs wrote beyond its share.
type gap struct {
	service *Service
	lines   uint64
}

// size is how much there is to tell.
func (b *batch) size() int { return len(b.lines) + int(b.dropped) + len(b.gaps) }

// A share is what of the lines of stderr in the queue is one service's. The queue's mutex guards it.
type share struct {
	turn  uint64 // of the queue, when the rest was so; else the rest is 0
	bytes int
	gap   int // its place among the gaps, from 1; 0 for none
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), much: make(chan struct{}, 1)}
}

// Write appends a line of the daemon's own.
func (q *queue) Write(line []byte) (int, error) {
	q.put(line)
	return len(line), nil
}

// put appends one line or drops it, and says which; it never waits. After one line was dropped all are, until
// the writer has taken what there is: so a gap in the log is in one place, and is told in that place.
func (q *queue) put(line []byte) bool {
	q.mu.Lock()
	before := q.pending.size()
	in := q.append(line)
	after := q.pending.size()
	q.mu.Unlock()
	q.tell(before, after)
	return in
}

// putStderr is put for a line that a program of s wrote, which must fit into the share of s, too.
func (q *queue) putStderr(s *Service, line []byte) bool {
	q.mu.Lock()
	before := q.pending.size()
	in := q.appendStderr(s, line)
	after := q.pending.size()
	q.mu.Unlock()
	q.tell(before, after)
	return in
}

// tell wakes the writer when the queue has become more than nothing, and again when it has become much.
func (q *queue) tell(before, after int) {
	if before == 0 {
		q.ring()
	}
	if before < muchPending && after >= muchPending {
		signal(q.much)
	}
}

func (q *queue) append(line []byte) bool {
	if q.closed || q.pending.dropped > 0 || len(q.pending.lines)+len(line) > maxPending {
		q.pending.dropped++
		q.total.Add(1)
		return false
	}
	q.pending.lines = append(q.pending.lines, line...)
	return true
}

// appendStderr lets a service have a third of what the others leave free: one that floods gets a quarter of the
// queue, and however many do, there is some left for who is quiet.
func (q *queue) appendStderr(s *Service, line []byte) bool {
	if s.share.turn != q.turn {
		s.share = share{turn: q.turn}
	}
	others := q.stderr - s.share.bytes
	if s.share.gap > 0 || s.share.bytes+len(line) > (maxStderr-others)/3 {
		q.miss(s)
		return false
	}
	if !q.append(line) {
		return false
	}
	s.share.bytes += len(line)
	q.stderr += len(line)
	return true
}

// miss counts a line of stderr that found no room.
func (q *queue) miss(s *Service) {
	if s.share.gap == 0 {
		q.pending.gaps = append(q.pending.gaps, gap{service: s})
		s.share.gap = len(q.pending.gaps)
	}
	q.pending.gaps[s.share.gap-1].lines++
	q.total.Add(1)
}

// ring wakes the writer, or lets it look once more.
func (q *queue) ring() { signal(q.wake) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// takeFor gives what is w's to w, in its batch, whose memory the next lines get.
func (q *queue) takeFor(w *writer) {
	w.batch.clear()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.writer != w {
		w.batch, w.rest = w.rest, batch{}
		return
	}
	q.swap(&w.batch)
}

// clear leaves no more than memory that it is worth to keep.
func (b *batch) clear() {
	if cap(b.lines) > keepPending && len(b.lines) < cap(b.lines)/4 {
		b.lines = nil
	}
	clear(b.gaps)
	b.lines, b.dropped, b.gaps = b.lines[:0], 0, b.gaps[:0]
}

// swap is called under q.mu.
func (q *queue) swap(b *batch) {
	q.pending, *b = *b, q.pending
	q.stderr = 0
	q.turn++
}

// give has what comes from now on be w's. What is pending is the rest for the one before.
func (q *queue) give(w *writer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.swap(&q.writer.rest)
	q.writer = w
}

// full tells that records find no room now.
func (q *queue) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pending.dropped > 0
}

// close lets no further line in.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
}
