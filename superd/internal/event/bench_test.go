package event

import (
	"errors"
	"os"
	"testing"
	"time"
)

func benchLog(b *testing.B, level, format string) *Service {
	b.Helper()
	out, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	l := Open(out, Options{Level: level, Format: format})
	b.Cleanup(func() {
		l.Close(time.Minute)
		out.Close()
		b.ReportMetric(float64(l.Dropped())/float64(b.N), "dropped/op")
	})
	b.ReportAllocs()
	return l.Service("echo")
}

func BenchmarkExited(b *testing.B) {
	s := benchLog(b, "info", "json")
	c, x := sampleConn(), sampleExit()
	for b.Loop() {
		s.Exited(c, x)
	}
}

func BenchmarkExitedParallel(b *testing.B) {
	s := benchLog(b, "info", "json")
	b.RunParallel(func(pb *testing.PB) {
		c, x := sampleConn(), sampleExit()
		for pb.Next() {
			s.Exited(c, x)
		}
	})
}

func BenchmarkExitedConsole(b *testing.B) { // what the producer pays: the writer drops what it cannot keep up with
	s := benchLog(b, "info", "console")
	c, x := sampleConn(), sampleExit()
	for b.Loop() {
		s.Exited(c, x)
	}
}

func BenchmarkAcceptedFiltered(b *testing.B) {
	s := benchLog(b, "info", "json")
	c := sampleConn()
	for b.Loop() {
		s.Accepted(c)
	}
}

func BenchmarkStderr(b *testing.B) {
	s := benchLog(b, "info", "json")
	c, line := sampleConn(), []byte("cannot open /var/lib/thing: no such file")
	for b.Loop() {
		s.Stderr(c, line, false)
	}
}

func BenchmarkRefusedHeld(b *testing.B) {
	s := benchLog(b, "info", "json")
	c, cause := sampleConn(), errors.New("no place")
	for b.Loop() {
		s.Refused(c, ReasonLimit, cause)
	}
}

func BenchmarkConsoleLine(b *testing.B) { // what the writer pays for one line
	line := []byte(`{"level":"info","service":"echo","time":"2026-01-02T10:04:05.678Z","conn":"1f","peer":"192.0.2.7:40000","pid":4242,"status":0,"duration_ms":12.345,"message":"exited"}` + "\n")
	render := consoleForm(false)
	b.ReportAllocs()
	for b.Loop() {
		render(line)
	}
}
