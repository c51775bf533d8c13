package event

import (
	"math"
	"reflect"
	"testing"
	"time"
)

func TestBounds(t *testing.T) {
	for _, bounds := range [][mostBounds]time.Duration{quickBounds, slowBounds} {
		for i, b := range bounds {
			if b <= 0 || i > 0 && b <= bounds[i-1] {
				t.Errorf("the bounds are %v", bounds)
			}
		}
	}
}

func TestHistogram(t *testing.T) {
	m := meter{bounds: &slowBounds}
	for _, d := range []time.Duration{-time.Second, 0, time.Millisecond, time.Millisecond + 1, time.Second, time.Hour, 7 * time.Hour, math.MaxInt64 / 2} {
		m.observe(d)
	}
	h := m.read()
	want := []uint64{3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 8}
	for i, n := range h.Counts {
		if n != want[i] {
			t.Fatalf("the counts are %v, not %v", h.Counts, want)
		}
	}
	if sum := 2*time.Millisecond + 1 + time.Second + 8*time.Hour + math.MaxInt64/2; h.Sum != sum {
		t.Errorf("the sum is %v, not %v", h.Sum, sum)
	}
	if len(h.Counts) != len(h.Bounds)+1 {
		t.Errorf("%d counts for %d bounds", len(h.Counts), len(h.Bounds))
	}
}

func TestUsage(t *testing.T) {
	written(t, Options{Level: "error"}, func(l *Log) {
		s, c := l.Service("echo"), sampleConn()
		s.Queued(time.Second)
		s.Spawned(time.Millisecond)
		s.Stderr(c, []byte("line"), false)
		s.Exited(c, &Exit{Duration: time.Minute, User: 2, System: 3, BytesIn: 5, BytesOut: 7})
		s.Exited(c, &Exit{Duration: time.Minute, BytesIn: -1, BytesOut: -1})
		u := s.Usage()
		if u.BytesIn != 5 || u.BytesOut != 7 || u.User != 2 || u.System != 3 || u.StderrLines != 1 {
			t.Errorf("it is %+v", u)
		}
		for name, h := range map[string]Histogram{"queued": u.Queued, "spawned": u.Spawned, "lasted": u.Lasted} {
			n, want := h.Counts[mostBounds], map[string]uint64{"queued": 1, "spawned": 1, "lasted": 2}[name]
			if n != want {
				t.Errorf("%s: %d were counted, not %d", name, n, want)
			}
		}
	})
}

func TestObservingIsFree(t *testing.T) {
	written(t, Options{}, func(l *Log) {
		s := l.Service("echo")
		if n := testing.AllocsPerRun(100, func() { s.Spawned(time.Second); s.Queued(time.Second) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func BenchmarkSpawned(b *testing.B) {
	s := benchLog(b, "info", "json")
	for b.Loop() {
		s.Spawned(time.Millisecond)
	}
}

// What one log has counted another one goes on with, be its bounds the same or
// others, and nothing grows less.
func TestUsageIsCarried(t *testing.T) {
	count := func(s *Service) {
		for i := range 40 {
			s.Queued(time.Duration(1) << i)
			s.Spawned(time.Duration(1) << i)
			s.Exited(&Conn{}, &Exit{Duration: time.Duration(1) << i, User: 3, System: 5, BytesIn: 7, BytesOut: 11})
		}
		s.Stderr(&Conn{}, []byte("line"), false)
		s.lost.Add(3)
		s.lostStderr.Add(2)
	}
	first := quiet(nil, Options{Level: "error"})
	count(first.Service("a"))
	c := first.Carry()
	second := quiet(nil, Options{Level: "error"})
	second.Resume(&c)
	a, b := first.Service("a"), second.Service("a")
	if was, is := a.Usage(), b.Usage(); !reflect.DeepEqual(was, is) {
		t.Errorf("%+v was %+v", is, was)
	}
	if was, is := a.Counts(), b.Counts(); was != is || is.LostStderr != 2 || is.Lost != 3 {
		t.Errorf("%+v was %+v", is, was)
	}
	count(b)
	if u := b.Usage(); u.Lasted.Counts[mostBounds] != 80 || u.BytesIn != 2*40*7 || u.StderrLines != 2 {
		t.Errorf("afterwards it is %+v", u)
	}
	m := meter{bounds: &quickBounds}
	m.resume(&Histogram{Bounds: []time.Duration{75 * time.Microsecond, time.Hour}, Counts: []uint64{2, 5, 9}, Sum: time.Minute})
	if h := m.read(); h.Counts[0] != 0 || h.Counts[1] != 2 || h.Counts[mostBounds-1] != 2 || h.Counts[mostBounds] != 9 || h.Sum != time.Minute {
		t.Errorf("with other bounds it is %+v", h)
	}
}
