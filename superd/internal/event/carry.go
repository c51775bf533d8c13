package event

import (
	"math"
	"slices"
	"time"
)

// A Carried is what of a log another superd goes on with, which takes this
// one's place in the same process. It is plain data.
type Carried struct {
	Services []CarriedService
	Dropped  uint64 // lines
	Untold   uint64 // of those, that the log has not told of
	Key      []byte // of hashed addresses
}

// CarriedService is the counters of one service, refusals by the words of
// their reasons.
type CarriedService struct {
	Name                             string
	Accepted, Exited, Failed, Silent uint64
	Lost, LostStderr                 uint64
	Refused                          map[string]uint64
	Usage                            Usage
	Undelivered                      [ways]uint64
}

// Carry reads all counters. Nothing may happen meanwhile. Lines that are not
// written yet count as dropped: Flush comes first.
func (l *Log) Carry() Carried {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Carried{Dropped: l.Dropped() + l.queue.waiting(), Key: slices.Clone(l.peer.Load().key[:])}
	c.Untold = c.Dropped - min(l.queue.told.Load(), c.Dropped)
	for _, s := range l.services {
		n := s.Counts()
		one := CarriedService{s.name, n.Accepted, n.Exited, n.Failed, n.Silent, n.Lost, n.LostStderr, map[string]uint64{}, s.Usage(), n.Undelivered}
		for _, r := range Reasons() {
			if n.Refused[r] > 0 {
				one.Refused[r.String()] = n.Refused[r]
			}
		}
		c.Services = append(c.Services, one)
	}
	return c
}

// Resume goes on counting where another superd has left off. A reason that is
// not known any more counts as spawn, so that the sums stay right.
func (l *Log) Resume(c *Carried) {
	l.queue.total.Add(c.Dropped)
	l.queue.told.Add(c.Dropped - min(c.Untold, c.Dropped))
	l.queue.owed.Add(c.Untold)
	l.queue.ring()
	l.peer.Store(l.peer.Load().resume(c.Key))
	for i := range c.Services {
		from := &c.Services[i]
		s := l.Service(from.Name)
		s.accepted.Add(from.Accepted)
		s.exited.Add(from.Exited)
		s.failed.Add(from.Failed)
		s.silent.Add(from.Silent)
		s.lost.Add(from.Lost)
		s.lostStderr.Add(from.LostStderr)
		s.usage.resume(&from.Usage)
		for way, n := range from.Undelivered {
			s.undelivered[way].Add(n)
		}
		for word, n := range from.Refused {
			s.refused[reasonNamed(word)].Add(n)
		}
	}
}

func (u *usage) resume(from *Usage) {
	u.bytesIn.Add(from.BytesIn)
	u.bytesOut.Add(from.BytesOut)
	u.lines.Add(from.StderrLines)
	u.user.Add(int64(from.User))
	u.system.Add(int64(from.System))
	u.queued.resume(&from.Queued)
	u.spawned.resume(&from.Spawned)
	u.lasted.resume(&from.Lasted)
}

// resume counts what another meter has counted. Where that had other bounds, each
// duration is taken for the longest that it can have been.
func (m *meter) resume(from *Histogram) {
	before := uint64(0)
	for i, n := range from.Counts {
		longest := time.Duration(math.MaxInt64)
		if i < len(from.Bounds) {
			longest = from.Bounds[i]
		}
		m.counts[m.place(longest)].Add(n - min(before, n))
		before = n
	}
	m.sum.Add(int64(from.Sum))
}

// waiting is how many lines the writer has not taken.
func (q *queue) waiting() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return uint64(countLines(q.pending.lines))
}

func reasonNamed(word string) Reason {
	for _, r := range Reasons() {
		if r.String() == word {
			return r
		}
	}
	return ReasonSpawn
}

// Flush tells the refusals that are held back, and returns when all that was
// said is written, or false when that takes longer than wait.
func (l *Log) Flush(wait time.Duration) bool {
	l.flush(true)
	patience := time.NewTimer(wait)
	defer patience.Stop()
	written := make(chan struct{})
	w := l.writer.Load()
	select {
	case w.asked <- written:
	case <-w.done:
		return false
	case <-patience.C:
		return false
	}
	select {
	case <-written:
		return true
	case <-patience.C:
		return false
	}
}
