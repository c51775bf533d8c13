package event

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain makes local time a zone that is not UTC, lets the test binary be the child that a test needs,
// and at the end asks for every goroutine back.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && children[os.Args[1]] != nil {
		if err := children[os.Args[1]](os.Args[len(os.Args)-1]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	time.Local = time.FixedZone("test", 2*60*60)
	before := runtime.NumGoroutine()
	code := m.Run()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(code) // fuzzing leaves goroutines of its own
	}
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<16)
			fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", stacks[:runtime.Stack(stacks, true)])
			os.Exit(1)
		}
	}
	os.Exit(code)
}

// patience is only how long a test waits before it is called stuck.
const patience = time.Minute

func sampleConn() *Conn {
	return &Conn{ID: []byte("1f"), Peer: []byte("192.0.2.7:40000"), Local: []byte("192.0.2.1:7"), Pid: 4242}
}

func sampleExit() *Exit {
	return &Exit{
		Duration: 12345678 * time.Nanosecond, User: 1500 * time.Microsecond, System: 70 * time.Microsecond,
		MaxRSSKB: 116, BytesIn: 64, BytesOut: 128,
	}
}

// clock is a time that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock {
	return &clock{now: time.Date(2026, 1, 2, 10, 4, 5, 678_900_000, time.UTC).In(time.FixedZone("elsewhere", -5*60*60))}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// written runs say with a log on a file and returns what is in the file after Close.
func written(t *testing.T, o Options, say func(l *Log)) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "log")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	l := Open(out, o)
	say(l)
	l.Close(patience)
	<-l.writer.Load().done
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// writtenLater is written for a log with a clock that the test sets: the writer, whose looks at what is held back
// are by another clock, comes when all is said and Close has told what was held.
func writtenLater(t *testing.T, o Options, say func(l *Log)) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "log")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	l := quiet(lent(out, o.Format), o)
	say(l)
	go writeLast(l)
	l.Close(patience)
	<-l.writer.Load().done
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// writeLast is the goroutine of a log's writer, from Close on.
func writeLast(l *Log) {
	w := l.writer.Load()
	<-w.stop
	w.run()
}

// records are the lines of a log in JSON.
func records(t *testing.T, text string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(text) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		all = append(all, record)
	}
	return all
}

// pipe is a pipe whose writing end blocks, as stderr does, or not.
func pipe(t *testing.T, blocking bool) (r, w *os.File) {
	t.Helper()
	var fds [2]int
	flags := syscall.O_CLOEXEC
	if !blocking {
		flags |= syscall.O_NONBLOCK
	}
	if err := syscall.Pipe2(fds[:], flags); err != nil {
		t.Fatal(err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "reader"), os.NewFile(uintptr(fds[1]), "writer")
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// reading reads lines in a goroutine until the end; the channel then gives them.
func reading(r io.Reader) <-chan []string {
	all := make(chan []string, 1)
	go func() {
		var lines []string
		for s := bufio.NewScanner(r); s.Scan(); {
			lines = append(lines, s.Text())
		}
		all <- lines
	}()
	return all
}

// until yields until what is asked for is so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}
