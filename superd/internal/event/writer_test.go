package event

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

func eachPipe(t *testing.T, f func(t *testing.T, blocking bool)) {
	t.Run("blocking", func(t *testing.T) { f(t, true) })
	t.Run("non-blocking", func(t *testing.T) { f(t, false) })
}

// TestNobodyReads fills a pipe, the batch in flight and the queue; no producer waits. Then somebody reads, and
// what was read and what the log says was dropped is what was said.
func TestNobodyReads(t *testing.T) {
	eachPipe(t, func(t *testing.T, blocking bool) {
		r, w := pipe(t, blocking)
		l := Open(w, Options{Format: "json"})
		said := 0
		for l.Dropped() < 1000 { // would never end if a producer waited
			l.Info("line", F("seq", said))
			said++
		}
		dropped := l.Dropped()
		var lines []string
		s := bufio.NewScanner(r)
		for told := uint64(0); told < dropped && s.Scan(); { // all is told without anything else happening
			var record struct{ Dropped uint64 }
			json.Unmarshal(s.Bytes(), &record)
			told += record.Dropped
			lines = append(lines, s.Text())
		}
		l.Info("line", F("seq", said)) // after the gap
		said++
		l.Close(patience)
		<-l.writer.Load().done
		w.Close()
		for s.Scan() {
			lines = append(lines, s.Text())
		}
		account(t, lines, said, dropped)
		if l.Dropped() != dropped {
			t.Errorf("dropped %d, then %d", dropped, l.Dropped())
		}
	})
}

// account checks that lines are in order, that each gap is told where it is, and that nothing is missing else.
func account(t *testing.T, lines []string, said int, dropped uint64) {
	t.Helper()
	next, told := 0, 0
	for _, line := range lines {
		var record struct {
			Message, Level string
			Seq, Dropped   int
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if record.Message == "line" {
			if record.Seq != next {
				t.Fatalf("line %d where %d was to come", record.Seq, next)
			}
			next++
			continue
		}
		if want := fmt.Sprintf("%d log lines were dropped because nobody reads the log", record.Dropped); record.Message != want || record.Level != "warn" {
			t.Errorf("got %s, want %s", line, want)
		}
		next += record.Dropped
		told += record.Dropped
	}
	if next != said {
		t.Errorf("the log accounts for %d of %d lines", next, said)
	}
	if told != int(dropped) {
		t.Errorf("the log tells %d dropped lines of %d", told, dropped)
	}
}

// TestCloseUnread: a reader that reads nothing does not keep the daemon from ending.
func TestCloseUnread(t *testing.T) {
	eachPipe(t, func(t *testing.T, blocking bool) {
		r, w := pipe(t, blocking)
		l := Open(w, Options{Format: "json"})
		for l.Dropped() == 0 {
			l.Info("line")
		}
		l.Close(time.Millisecond)
		l.Close(patience) // again: no harm, no wait
		l.Info("too late")
		if blocking {
			r.Close() // the system call ends
		}
		<-l.writer.Load().done
	})
}

// TestCloseWrites: what is queued is written, however much.
func TestCloseWrites(t *testing.T) {
	eachPipe(t, func(t *testing.T, blocking bool) {
		r, w := pipe(t, blocking)
		l := Open(w, Options{Format: "json"})
		said := 0
		for ; said < 5000; said++ { // several times what the pipe holds, less than the queue
			l.Info("line", F("seq", said))
		}
		all := reading(r)
		l.Close(patience)
		w.Close()
		account(t, <-all, said, 0)
	})
}

// TestCloseIsLate: where the writer comes when the patience with it has ended, what takes lines has them all.
func TestCloseIsLate(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	l := quiet(lent(out, "json"), Options{})
	l.Info("line")
	l.Close(0)
	l.writer.Load().run()
	if text := textOf(t, out); !strings.Contains(text, `"line"`) || l.Dropped() != 0 {
		t.Errorf("it has %q, and %d lines were dropped", text, l.Dropped())
	}
}

// TestReaderGone: no line can be written; all are counted, nothing ends or hangs.
func TestReaderGone(t *testing.T) {
	eachPipe(t, func(t *testing.T, blocking bool) {
		r, w := pipe(t, blocking)
		r.Close()
		l := Open(w, Options{Format: "json"})
		for range 100 {
			l.Info("line")
		}
		l.Close(patience)
		<-l.writer.Load().done
		if l.Dropped() != 100 {
			t.Errorf("dropped %d of 100", l.Dropped())
		}
		l.Info("too late")
		if l.Dropped() != 101 {
			t.Errorf("a line after Close: dropped %d", l.Dropped())
		}
	})
}

// TestUnreadStderr: on descriptors 1 and 2 Go makes a process without a reader die of SIGPIPE. Not this one.
func TestUnreadStderr(t *testing.T) {
	r, w := pipe(t, true)
	r.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child, err := os.StartProcess(self, []string{self, "be-unread"}, &os.ProcAttr{Files: []*os.File{nil, w, w}})
	if err != nil {
		t.Fatal(err)
	}
	state, err := child.Wait()
	if err != nil || !state.Success() {
		t.Errorf("%v, %v", state, err)
	}
}

// beUnread is that process: both logs lose what they are told.
func beUnread() error {
	for _, out := range []*os.File{os.Stdout, os.Stderr} {
		l := Open(out, Options{Format: "json"})
		l.Info("line")
		l.Close(patience)
		if l.Dropped() != 1 {
			return fmt.Errorf("%d lines were dropped", l.Dropped())
		}
	}
	return nil
}

// TestReaderReturns: a named pipe loses its reader in the middle of a line and gets another. The half line stays
// a line of its own, and the gap is told before what follows it.
func TestReaderReturns(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(flags int) *os.File {
		f, err := os.OpenFile(name, flags|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	first := open(os.O_RDONLY)
	w := open(os.O_WRONLY)
	const size = 100 // of a line; a pipe holds no whole number of them
	filler := strings.Repeat("x", size-len(`{"level":"info","time":"2026-01-02T10:04:05.678Z","f":"","message":"line"}`)-1)
	capacity := capacityOf(t, w)
	said := 2 * capacity / size
	l := quiet(lent(w, "json"), Options{Now: newClock().Now})
	for range said {
		l.Info("line", F("f", filler))
	}
	go l.writer.Load().run() // finds all lines in one batch
	until(t, "the pipe is full", func() bool { return unread(t, first) == capacity })
	lost := uint64(said - unread(t, first)/size)
	first.Close()
	until(t, "all others are lost", func() bool { return l.Dropped() == lost })

	second := open(os.O_RDONLY)
	all := reading(second)
	l.Info("back")
	l.Close(patience)
	<-l.writer.Load().done
	w.Close()

	whole, torn, told := 0, 0, uint64(0)
	lines := <-all
	for i, line := range lines {
		var record struct {
			Message string
			Dropped uint64
		}
		switch err := json.Unmarshal([]byte(line), &record); {
		case err != nil:
			torn++
		case record.Message == "line":
			whole++
		case record.Dropped > 0:
			told += record.Dropped
			if !strings.HasSuffix(record.Message, " dropped because nobody reads the log") {
				t.Error(record.Message)
			}
			if i != len(lines)-2 {
				t.Errorf("the gap is told in line %d of %d", i+1, len(lines))
			}
		}
	}
	if torn != 1 {
		t.Errorf("%d torn lines", torn)
	}
	if told != lost || whole+int(lost) != said {
		t.Errorf("said %d, read %d, lost %d, told %d", said, whole, lost, told)
	}
	if last := lines[len(lines)-1]; !strings.Contains(last, `"back"`) {
		t.Errorf("the last line is %s", last)
	}
}

// TestFullDisk: an error that is not a missing reader is named.
func TestFullDisk(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := quiet(lent(out, ""), Options{Now: newClock().Now}).writer.Load()
	w.lose([]byte("a\nb\nc\n"), syscall.ENOSPC)
	w.deliver()
	text, _ := os.ReadFile(name)
	const want = `{"level":"warn","time":"2026-01-02T10:04:05.678Z","dropped":3,"error":"no space left on device","message":"3 log lines were dropped because the log cannot be written"}` + "\n"
	if string(text) != want {
		t.Errorf("got  %swant %s", text, want)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	w.out = lent(full, "")
	if missing := w.write([]byte("a\nb\n")); string(missing) != "a\nb\n" || !errors.Is(w.cause, syscall.ENOSPC) {
		t.Errorf("lost %q, because %v", missing, w.cause)
	}
}

// TestTooLong: a line that no queue holds is dropped and does not stop those after it.
func TestTooLong(t *testing.T) {
	text := written(t, Options{Format: "json"}, func(l *Log) {
		l.Info("line", F("text", strings.Repeat("x", maxPending)))
		until(t, "the writer has looked", l.queueEmpty)
		l.Info("next")
	})
	lines := records(t, text)
	if len(lines) != 2 || lines[0]["dropped"] != 1.0 || lines[1]["message"] != "next" {
		t.Errorf("got %.300s", text)
	}
}

// TestProducers: lines of many goroutines are whole, and each goroutine's are in order.
func TestProducers(t *testing.T) {
	const producers, each = 8, 400 // together less than the queue holds
	text := written(t, Options{Format: "json"}, func(l *Log) {
		var all sync.WaitGroup
		for p := range producers {
			all.Go(func() {
				s := l.Service(fmt.Sprint(p))
				for i := range each {
					s.Stderr(&Conn{Pid: i + 1}, []byte("text\nof two lines"), false)
				}
			})
		}
		all.Wait()
	})
	next := map[any]float64{}
	for _, record := range records(t, text) {
		next[record["service"]]++
		if record["pid"] != next[record["service"]] {
			t.Fatalf("got %v, want pid %v", record, next[record["service"]])
		}
	}
	for p, n := range next {
		if n != each {
			t.Errorf("producer %v: %v lines", p, n)
		}
	}
	if len(next) != producers {
		t.Errorf("%d producers", len(next))
	}
}

// TestEverythingAtOnce is for the race detector.
func TestEverythingAtOnce(t *testing.T) {
	written(t, Options{Level: "debug", Format: "console"}, func(l *Log) {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 20 {
					everything(l, newClock())
					l.Service("echo").Counts()
					l.flush(false)
				}
			})
		}
		all.Wait()
	})
}

// TestOneGap: behind a line that found no room, a short one that would find some is dropped as well.
func TestOneGap(t *testing.T) {
	q := newQueue()
	q.put(make([]byte, maxPending-1))
	q.put(make([]byte, 2))
	q.put(make([]byte, 1))
	var b batch
	if q.take(&b); len(b.lines) != maxPending-1 || b.dropped != 2 || q.total.Load() != 2 {
		t.Errorf("%d bytes, %d dropped, %d in all", len(b.lines), b.dropped, q.total.Load())
	}
	q.put(make([]byte, 1))
	if q.take(&b); len(b.lines) != 1 || b.dropped != 0 {
		t.Errorf("then %d bytes, %d dropped", len(b.lines), b.dropped)
	}
}

// TestGivesBack: a flood's buffers do not stay.
func TestGivesBack(t *testing.T) {
	for _, c := range []struct{ room, used, kept int }{
		{maxPending, maxPending, maxPending}, // in use
		{maxPending, 10, 0},                  // large and empty
		{keepPending, 0, keepPending},        // small
	} {
		q := newQueue()
		if q.take(&batch{lines: make([]byte, c.used, c.room)}); cap(q.pending.lines) != c.kept {
			t.Errorf("%+v: %d were kept", c, cap(q.pending.lines))
		}
	}
}

// unread is how many bytes wait in a pipe.
func unread(t *testing.T, f *os.File) int {
	t.Helper()
	var bytes int32
	control(t, f, func(fd uintptr) {
		syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ, uintptr(unsafe.Pointer(&bytes)))
	})
	return int(bytes)
}

// capacityOf is how many bytes a pipe can hold.
func capacityOf(t *testing.T, f *os.File) (n int) {
	t.Helper()
	const getPipeSize = 1032 // F_GETPIPE_SZ of fcntl(2)
	control(t, f, func(fd uintptr) {
		size, _, _ := syscall.Syscall(syscall.SYS_FCNTL, fd, getPipeSize, 0)
		n = int(size)
	})
	return n
}

func control(t *testing.T, f *os.File, do func(fd uintptr)) {
	t.Helper()
	conn, err := f.SyscallConn()
	if err == nil {
		err = conn.Control(do)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (l *Log) queueEmpty() bool {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	return l.queue.pending.size() == 0
}
