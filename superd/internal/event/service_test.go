package event

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestLevels(t *testing.T) {
	for _, c := range []struct{ level, want string }{
		{"debug", "accepted started exited refused"},
		{"info", "exited refused"},
		{"", "exited refused"},
		{"warn", "refused"},
		{"error", ""},
	} {
		var counts Counts
		text := written(t, Options{Level: c.level, Format: "json", Now: newClock().Now}, func(l *Log) {
			s := l.Service("echo")
			s.Accepted(sampleConn())
			s.Started(sampleConn())
			s.Exited(sampleConn(), sampleExit())
			s.Refused(sampleConn(), ReasonLimit, nil)
			s.Refused(sampleConn(), ReasonLimit, nil) // held; told by Close where refusals are told at all
			counts = s.Counts()
		})
		var words []string
		for _, record := range records(t, text) {
			if record["suppressed"] == nil {
				words = append(words, record["message"].(string))
			}
		}
		if got := strings.Join(words, " "); got != c.want {
			t.Errorf("level %q: %q, want %q", c.level, got, c.want)
		}
		if want := c.level != "error"; strings.Contains(text, "suppressed") != want {
			t.Errorf("level %q: the held refusal is told: %v", c.level, !want)
		}
		want := Counts{Accepted: 1, Exited: 1}
		want.Refused[ReasonLimit] = 2
		if counts != want {
			t.Errorf("level %q: counts %+v, want %+v", c.level, counts, want)
		}
	}
}

// TestLevelOfAService: it is the service's own, less or more than the log's, and can change.
func TestLevelOfAService(t *testing.T) {
	text := written(t, Options{Level: "warn", Format: "json", Now: newClock().Now}, func(l *Log) {
		own, other := l.Service("own"), l.Service("other")
		for _, level := range []string{"", "debug", "info", "error", "warn", ""} {
			own.SetLevel(level)
			for _, s := range []*Service{own, other} {
				s.Listening("l")
				s.Accepted(sampleConn())
				s.Stderr(sampleConn(), []byte(level), false)
				s.Exited(sampleConn(), sampleExit())
			}
			l.Info("left out")
		}
		own.Refused(sampleConn(), ReasonLimit, nil)
		own.Refused(sampleConn(), ReasonLimit, nil) // held
		own.SetLevel("error")                       // and left out
		other.Refused(sampleConn(), ReasonLimit, nil)
	})
	var words []string
	for _, r := range records(t, text) {
		words = append(words, fmt.Sprint(r["service"], " ", r["message"]))
	}
	const want = "own listening, own accepted, own stderr, own exited, own listening, own stderr, own exited, own refused, other refused"
	if got := strings.Join(words, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestFilteredIsFree(t *testing.T) {
	written(t, Options{Level: "info"}, func(l *Log) {
		s, c := l.Service("echo"), sampleConn()
		if n := testing.AllocsPerRun(100, func() { s.Accepted(c); s.Started(c) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func TestCounts(t *testing.T) {
	written(t, Options{Level: "error"}, func(l *Log) {
		s := l.Service("echo")
		c := sampleConn()
		for range 6 {
			s.Accepted(c)
		}
		for range 5 {
			s.Started(c)
		}
		s.Refused(c, ReasonSpawn, nil)
		s.Exited(c, &Exit{})
		s.Exited(c, &Exit{Status: 1})
		s.Exited(c, &Exit{Signaled: true, Signal: syscall.SIGKILL})
		want := Counts{Live: 2, Accepted: 6, Exited: 3, Failed: 2}
		want.Refused[ReasonSpawn] = 1
		got := l.Service("echo").Counts() // the same recorder, asked again
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		if got.RefusedTotal() != 1 {
			t.Errorf("total %d", got.RefusedTotal())
		}
		if other := l.Service("other").Counts(); other != (Counts{}) {
			t.Errorf("another service has %+v", other)
		}
	})
}

func TestExitedBeforeStarted(t *testing.T) {
	written(t, Options{}, func(l *Log) {
		s := l.Service("echo")
		s.Exited(sampleConn(), sampleExit())
		if n := s.Counts().Live; n != 0 {
			t.Errorf("live %d", n)
		}
		s.Started(sampleConn())
		if n := s.Counts().Live; n != 0 {
			t.Errorf("live %d", n)
		}
	})
}

func TestReasons(t *testing.T) {
	const closed = "address hours banned total-limit limit source-limit rate source-rate load proxy queue-full queue-timeout failing spawn draining"
	var words []string
	for _, r := range Reasons() {
		words = append(words, r.String())
	}
	if got := strings.Join(words, " "); got != closed {
		t.Errorf("%s, want %s", got, closed)
	}
	if got := Reason(NumReasons).String(); got != "unknown" {
		t.Errorf("beyond the list: %s", got)
	}
}

func TestSignalNames(t *testing.T) {
	for s, want := range map[syscall.Signal]string{
		syscall.SIGHUP: "SIGHUP", syscall.SIGKILL: "SIGKILL", syscall.SIGTERM: "SIGTERM", syscall.SIGSYS: "SIGSYS",
		0: "SIG0", 32: "SIG32", 35: "SIG35", 64: "SIG64",
	} {
		if got := signalName(s); got != want {
			t.Errorf("%d: %s, want %s", int(s), got, want)
		}
	}
	for s := syscall.Signal(1); s < 32; s++ {
		if name := signalName(s); !strings.HasPrefix(name, "SIG") || name == "SIG" {
			t.Errorf("signal %d: %q", int(s), name)
		}
	}
}

func TestMillis(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0.000"}, {999, "0.000"}, {1000, "0.001"}, {12_345_678, "12.345"}, {1_000_000, "1.000"},
		{3_600_000_000_000, "3600000.000"}, {-5_000_000, "0.000"}, {1<<63 - 1, "9223372036854.775"},
	} {
		if got := string(appendMillis(nil, c.d)); got != c.want {
			t.Errorf("%v: %s, want %s", c.d, got, c.want)
		}
	}
}
