package event

import (
	"sync/atomic"
	"time"
)

// mostBounds is how many bounds a histogram can have.
const mostBounds = 12

// A meter counts durations by how long they were. To observe one is two atomic
// additions.
type meter struct {
	bounds *[mostBounds]time.Duration // rising; immutable
	counts [mostBounds + 1]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

// The bounds: of what the kernel does, and of what clients and programs do.
var (
	quickBounds = [mostBounds]time.Duration{
		50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
		25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	}
	slowBounds = [mostBounds]time.Duration{
		time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond,
		500 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second,
		time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour,
	}
)

func (m *meter) observe(d time.Duration) {
	m.counts[m.place(d)].Add(1)
	m.sum.Add(int64(max(d, 0)))
}

// place is which of the counts d belongs to.
func (m *meter) place(d time.Duration) (i int) {
	for i < mostBounds && d > m.bounds[i] {
		i++
	}
	return i
}

// A Histogram is how many durations there were, by how long they were.
type Histogram struct {
	Bounds []time.Duration // rising
	Counts []uint64        // of those up to each bound, shorter ones included; the last one is of all
	Sum    time.Duration
}

func (m *meter) read() Histogram {
	h := Histogram{Bounds: m.bounds[:], Counts: make([]uint64, mostBounds+1), Sum: time.Duration(m.sum.Load())}
	total := uint64(0)
	for i := range m.counts {
		total += m.counts[i].Load()
		h.Counts[i] = total
	}
	return h
}

// Usage is what a service has used and how long things took, since the process
// began, upgrades or not. It only grows.
type Usage struct {
	BytesIn, BytesOut uint64        // of the connections of which it is known
	User, System      time.Duration // processor time of programs that have ended
	StderrLines       uint64
	Queued            Histogram // from accept until the connection had its place, of those that waited
	Spawned           Histogram // from then until the program's process existed
	Lasted            Histogram // from accept until the program's end
}

// usage is what a service records of it.
type usage struct {
	bytesIn, bytesOut, lines atomic.Uint64
	user, system             atomic.Int64 // nanoseconds
	queued, spawned, lasted  meter
}

func (u *usage) begin() {
	u.queued.bounds, u.spawned.bounds, u.lasted.bounds = &slowBounds, &quickBounds, &slowBounds
}

func (u *usage) exited(x *Exit) {
	u.bytesIn.Add(uint64(max(x.BytesIn, 0)))
	u.bytesOut.Add(uint64(max(x.BytesOut, 0)))
	u.user.Add(int64(x.User))
	u.system.Add(int64(x.System))
	u.lasted.observe(x.Duration)
}

// Queued records how long a connection has waited for its place.
func (s *Service) Queued(d time.Duration) { s.usage.queued.observe(d) }

// Spawned records how long it took to have a process for a connection.
func (s *Service) Spawned(d time.Duration) { s.usage.spawned.observe(d) }

// Usage reads what the service has used, each number by itself.
func (s *Service) Usage() Usage {
	u := &s.usage
	return Usage{
		BytesIn:     u.bytesIn.Load(),
		BytesOut:    u.bytesOut.Load(),
		User:        time.Duration(u.user.Load()),
		System:      time.Duration(u.system.Load()),
		StderrLines: u.lines.Load(),
		Queued:      u.queued.read(),
		Spawned:     u.spawned.read(),
		Lasted:      u.lasted.read(),
	}
}
