package conn

import (
	"container/heap"
	"math"
	"time"
)

// notDue is the deadline of a record that has none.
const notDue = math.MaxInt64

// later is the deadline d after now, none where that is beyond all time.
func later(now int64, d time.Duration) int64 { return now + min(int64(d), notDue-now) }

// deadlines is a heap of the records that have one, the earliest first.
type deadlines []*record

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].due < d[j].due }

func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].heap, d[j].heap = i, j
}

func (d *deadlines) Push(x any) {
	r := x.(*record)
	r.heap = len(*d)
	*d = append(*d, r)
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	r := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	r.heap = -1
	return r
}

// set gives r the deadline due, or none.
func (d *deadlines) set(r *record, due int64) {
	switch {
	case due == notDue:
		d.remove(r)
		r.due = notDue
	case r.heap >= 0:
		r.due = due
		heap.Fix(d, r.heap)
	default:
		r.due = due
		heap.Push(d, r)
	}
}

func (d *deadlines) remove(r *record) {
	if r.heap >= 0 {
		heap.Remove(d, r.heap)
	}
}

// arm gives r a deadline; Watch wakes where it is now the earliest.
func (t *Table) arm(r *record, due int64) {
	t.mu.Lock()
	t.due.set(r, due)
	first := r.heap == 0
	t.mu.Unlock()
	if first {
		t.poll.wake()
	}
}

// expired returns a record whose deadline has passed, and takes the deadline
// from it; nil when there is none.
func (t *Table) expired() *record {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.due) == 0 || t.due[0].due > t.now {
		return nil
	}
	return heap.Pop(&t.due).(*record)
}

// untilNext is how many milliseconds Watch may sleep, rounded up; -1 for ever.
func (t *Table) untilNext() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(t.orders) > 0:
		return 0
	case len(t.due) == 0:
		return -1
	}
	const millisecond = 1e6
	wait := (t.due[0].due - t.sinceBegin() + millisecond - 1) / millisecond
	return int(min(max(wait, 0), math.MaxInt32))
}
