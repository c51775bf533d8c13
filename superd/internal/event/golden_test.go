package event

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// everything says each event once, in all its shapes.
func everything(l *Log, now *clock) {
	l.Info("starting", F("version", "1.0"), F("generation", 1))
	l.Info("stopping")
	l.Warn("not supported", F("what", "cgroup"), F("error", errors.New("no cgroup here")))
	l.Error("cannot listen", F("local", "0.0.0.0:7"), F("error", error(syscall.EADDRINUSE)), F("after", 1500*time.Millisecond),
		F("tried", []string{"a", "b"}))
	s, c := l.Service("echo"), sampleConn()
	s.Listening("0.0.0.0:7")
	s.Accepted(&Conn{ID: c.ID, Peer: c.Peer, Local: c.Local})
	s.Started(c)
	s.Exited(c, sampleExit())
	s.Exited(c, &Exit{Status: 3, Duration: time.Hour, MaxRSSKB: 1, BytesIn: -1, BytesOut: -1})
	s.Exited(&Conn{ID: c.ID, Pid: 1}, &Exit{Signaled: true, Signal: syscall.SIGTERM, BytesIn: 0, BytesOut: -1, Reason: "timeout.idle", Leftovers: 2, Dropped: 3})
	s.Exited(c, &Exit{Signaled: true, Signal: 35, Duration: -1, BytesIn: -1, BytesOut: -1})
	s.Stderr(c, []byte(`cannot open "x": no such file`), false)
	s.Stderr(c, []byte("a long line"), true)
	s.Stderr(c, []byte("\x1b[31mred\x1b[0m\ttab\r\x00\x7f \xff\xfe caf\u00e9 20\u00b0 \u009b31m \u202e back\\slash"), false)
	for _, r := range Reasons() {
		s.Refused(c, r, nil)
	}
	s.Refused(c, ReasonLimit, nil)
	s.Refused(c, ReasonLimit, nil)
	s.Refused(c, ReasonRate, nil) // told by Close
	now.advance(time.Second)
	s.Refused(c, ReasonLimit, nil)
	s.Refused(c, ReasonSpawn, errors.New("cannot execute /x: ENOENT"))
	s.Silent(c.Peer)
	s.Listed(c.Peer)
	s.Paused(c, &Pause{Last: errors.New("cannot execute /x: ENOENT"), Length: 90 * time.Second})
	s.Trying(c)
	s.Paused(c, &Pause{Last: errors.New("the program exited with status 1"), Length: 1500 * time.Millisecond, Again: true, Narrow: true})
	s.Recovered()
	l.Service("a-service-with-a-long-name").Refused(&Conn{Peer: []byte("@")}, ReasonProxy, errors.New("bad header"))
}

func TestGolden(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		t.Run(format, func(t *testing.T) {
			now := newClock()
			got := writtenLater(t, Options{Level: "debug", Format: format, Now: now.Now}, func(l *Log) { everything(l, now) })
			name := filepath.Join("testdata", format+".golden")
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			compareLines(t, got, string(want))
		})
	}
}

func compareLines(t *testing.T, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		switch {
		case i >= len(g):
			t.Errorf("missing: %s", w[i])
		case i >= len(w):
			t.Errorf("too much: %s", g[i])
		case g[i] != w[i]:
			t.Errorf("line %d\n got %s\nwant %s", i+1, g[i], w[i])
		}
	}
}
