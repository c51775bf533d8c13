package event

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A listener is a fake of who reads the log from a unix socket.
type listener struct {
	t    *testing.T
	path string
	*net.UnixConn
}

// listen makes one, at a path that is a socket's for as long as it lives.
func listen(t *testing.T, path string) *listener {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &listener{t, path, c}
}

// next is the next datagram.
func (l *listener) next() string {
	l.t.Helper()
	b := make([]byte, 2*mostSent)
	l.SetReadDeadline(time.Now().Add(patience))
	n, err := l.Read(b)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(b[:n])
}

// all closes the log and returns what it has sent and was not read.
func (l *listener) all(log *Log) (datagrams []string) {
	l.t.Helper()
	const end = "that is all"
	failed := make(chan error, 1)
	go func() { // ends with the log, for which it is read from
		log.Close(patience)
		failed <- l.send(end)
	}()
	for {
		switch d := l.next(); d {
		case end:
			if err := <-failed; err != nil {
				l.t.Fatal(err)
			}
			return datagrams
		default:
			datagrams = append(datagrams, d)
		}
	}
}

// send sends a datagram to l from elsewhere.
func (l *listener) send(text string) error {
	c, err := net.Dial("unixgram", l.path)
	if err == nil {
		_, err = c.Write([]byte(text))
		c.Close()
	}
	return err
}

// socketPath is a place for a socket; the path of t's own directory can be too long for one.
func socketPath(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "superd-log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, name)
}

// opened is a log on a socket, with what it says on stderr.
func opened(t *testing.T, output string, o Options) (*Log, *os.File) {
	t.Helper()
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stderr.Close() })
	l, err := OpenOutput(output, stderr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(0); <-l.writer.Load().done })
	return l, stderr
}

func textOf(t *testing.T, f *os.File) string {
	t.Helper()
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// entryOf reads an entry of the journal, as systemd.io/JOURNAL_NATIVE_PROTOCOL says it is written.
func entryOf(t *testing.T, datagram []byte) map[string]string {
	t.Helper()
	entry := map[string]string{}
	for len(datagram) > 0 {
		head, rest, ended := bytes.Cut(datagram, []byte{'\n'})
		name, value, onOneLine := bytes.Cut(head, []byte{'='})
		if !ended {
			t.Fatalf("no end of line: %.300q", datagram)
		}
		if !onOneLine {
			if len(rest) < 8 || uint64(len(rest)-9) < binary.LittleEndian.Uint64(rest) {
				t.Fatalf("%s has no length, or a wrong one: %.300q", name, rest)
			}
			n := binary.LittleEndian.Uint64(rest)
			value, rest = rest[8:8+n], rest[8+n:]
			if rest[0] != '\n' {
				t.Fatalf("%s goes on behind its end: %.300q", name, rest)
			}
			rest = rest[1:]
		}
		if _, twice := entry[string(name)]; twice {
			t.Errorf("%s is there twice", name)
		}
		entry[string(name)] = string(value)
		datagram = rest
	}
	return entry
}

func TestSocketsGolden(t *testing.T) {
	defer func(own int) { pid = own }(pid)
	pid = 4242
	for _, c := range []struct{ name, output, format string }{
		{"syslog", "syslog", "auto"}, {"syslog-json", "syslog", "json"}, {"journal", "journald", "auto"},
	} {
		t.Run(c.name, func(t *testing.T) {
			reader := listen(t, socketPath(t, "log"))
			now := newClock()
			o := Options{Level: "debug", Format: c.format, Now: now.Now, Syslog: reader.path, Journal: reader.path}
			l := quiet(nil, o)
			stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
			if err != nil {
				t.Fatal(err)
			}
			defer stderr.Close()
			w, err := openWriter(l, c.output, stderr, o)
			if err != nil {
				t.Fatal(err)
			}
			l.queue.writer = w
			l.writer.Store(w)
			everything(l, now)
			go writeLast(l) // the writer looks at another clock
			var got strings.Builder
			for _, datagram := range reader.all(l) {
				if c.output == "journald" {
					entryOf(t, []byte(datagram))
					datagram = strconv.QuoteToASCII(datagram)
				}
				got.WriteString(datagram + "\n")
			}
			name := filepath.Join("testdata", c.name+".golden")
			if *update {
				if err := os.WriteFile(name, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			compareLines(t, got.String(), string(want))
			if said := textOf(t, stderr); said != "" {
				t.Errorf("on stderr is %s", said)
			}
		})
	}
}

// TestNobodyListens: at the start it is an error.
func TestNobodyListens(t *testing.T) {
	path := socketPath(t, "log")
	check := func(cause string) {
		t.Helper()
		for _, who := range []string{"syslog", "journald"} {
			l, err := OpenOutput(who, os.Stderr, Options{Syslog: path, Journal: path})
			if want := fmt.Sprintf("cannot reach %s at %s: %s", who, path, cause); err == nil || err.Error() != want {
				t.Errorf("got %v, %v, want %s", l, err, want)
			}
		}
	}
	check("no such file or directory")
	dead(t, path)
	check("connection refused")
	os.Remove(path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("connection refused")
}

// dead is the socket of one who was killed.
func dead(t *testing.T, path string) {
	t.Helper()
	fd, err := unixSocket()
	if err == nil {
		err = errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Close(fd))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// isTold are the lines that say what was lost; toldIn how much it was, and how many such lines there are.
var isTold = regexp.MustCompile(`(\d+) log lines were dropped because (nobody reads the log|the log cannot be written)`)

func toldIn(texts []string) (n, gaps int, why string) {
	for _, text := range texts {
		if m := isTold.FindStringSubmatch(text); m != nil {
			k, _ := strconv.Atoi(m[1])
			n, gaps, why = n+k, gaps+1, m[2]
		}
	}
	return n, gaps, why
}

// TestSocketIsNotRead: no producer waits, what was sent and what is told as lost is all, and stderr hears of it
// once, while it lasts.
func TestSocketIsNotRead(t *testing.T) {
	reader := listen(t, socketPath(t, "log"))
	l, stderr := opened(t, "syslog", Options{Syslog: reader.path})
	said := 0
	say := func() {
		l.Info("line", F("seq", said))
		said++
	}
	for l.Dropped() < 1000 { // would never end if a producer waited
		say()
	}
	until(t, "stderr is told", func() bool { say(); return textOf(t, stderr) != "" })
	sent := reader.all(l)
	told, gaps, why := toldIn(sent)
	if uint64(told) != l.Dropped() || why != "nobody reads the log" || len(sent)-gaps+told != said {
		t.Errorf("said %d, sent %d with %d gaps, dropped %d, told %d because %s", said, len(sent), gaps, l.Dropped(), told, why)
	}
	if complaints := records(t, textOf(t, stderr)); len(complaints) != 1 ||
		complaints[0]["message"] != "cannot write the log, lines are dropped" ||
		complaints[0]["output"] != "syslog" || complaints[0]["error"] != syscall.EAGAIN.Error() || complaints[0]["level"] != "error" {
		t.Errorf("on stderr is %v", complaints)
	}
}

// TestSocketWithoutRoom: a burst that is more than the socket holds is not lost while somebody reads.
func TestSocketWithoutRoom(t *testing.T) {
	reader := listen(t, socketPath(t, "log"))
	l, _ := opened(t, "syslog", Options{Syslog: reader.path})
	const n = 1000
	for i := range n {
		l.Info("line", F("seq", i))
	}
	for i, d := range reader.all(l) {
		if !strings.HasSuffix(d, fmt.Sprint(": line seq=", i)) {
			t.Fatalf("datagram %d is %s", i, d)
		}
	}
	if l.Dropped() != 0 {
		t.Errorf("%d were dropped", l.Dropped())
	}
}

// TestListenerReturns: nobody listens for a while, and then somebody else does.
func TestListenerReturns(t *testing.T) {
	for _, left := range []string{"nothing", "its socket", "a file"} {
		t.Run(left, func(t *testing.T) {
			first := listen(t, socketPath(t, "log"))
			l, stderr := opened(t, "journald", Options{Journal: first.path})
			l.Info("before")
			if got := entryOf(t, []byte(first.next())); got["MESSAGE"] != "before" {
				t.Errorf("got %q", got)
			}
			first.Close()
			os.Remove(first.path)
			switch left {
			case "its socket":
				dead(t, first.path)
			case "a file":
				os.WriteFile(first.path, nil, 0o600)
			}
			for i := range 3 {
				l.Info("lost")
				until(t, "it is lost", func() bool { return l.Dropped() == uint64(i+1) })
			}
			os.Remove(first.path)
			second := listen(t, first.path)
			l.Info("after")
			want := fmt.Sprintf("3 log lines were dropped because the log cannot be written dropped=3 error=%q",
				map[bool]error{true: syscall.ENOENT, false: syscall.ECONNREFUSED}[left == "nothing"].Error())
			if got := entryOf(t, []byte(second.next())); got["MESSAGE"] != want || got["PRIORITY"] != "4" || got["SUPERD_DROPPED"] != "3" {
				t.Errorf("got %q, want %q", got, want)
			}
			if got := entryOf(t, []byte(second.next())); got["MESSAGE"] != "after" {
				t.Errorf("got %q", got)
			}
			if n := strings.Count(textOf(t, stderr), "\n"); n != 1 {
				t.Errorf("stderr has %d lines: %s", n, textOf(t, stderr))
			}
		})
	}
}

// TestTooLongForASocket: one datagram that no socket takes is lost alone.
func TestTooLongForASocket(t *testing.T) {
	reader := listen(t, socketPath(t, "log"))
	l, _ := opened(t, "syslog", Options{Syslog: reader.path})
	s := l.writer.Load().out.(*socket)
	short := s.letter
	s.letter = func(b, line []byte) []byte {
		if b = short(b, line); bytes.Contains(b, []byte("huge")) {
			b = append(b, make([]byte, 1<<20)...)
		}
		return b
	}
	l.Service("echo").Stderr(&Conn{}, []byte("huge"), false)
	l.Info("short")
	sent := reader.all(l)
	if told, _, _ := toldIn(sent); told != 1 || len(sent) != 2 || !strings.Contains(strings.Join(sent, "\n")+"\n", ": short\n") {
		t.Errorf("sent is %q", sent)
	}
	if c := l.Service("echo").Counts(); c.Lost != 1 || c.LostStderr != 1 {
		t.Errorf("counted as %+v", c)
	}
}

// TestLongestRecords: what a program writes fits into a datagram, whatever it is.
func TestLongestRecords(t *testing.T) {
	for _, filler := range []string{"x", "\xff", "\x1b", "\u009b", "\"", "\u20ac", "\U000E0001"} {
		reader := listen(t, socketPath(t, "log"))
		text := strings.Repeat(filler, 8<<10/len(filler))
		for _, output := range []string{"syslog", "journald"} {
			l, _ := opened(t, output, Options{Format: "json", Syslog: reader.path, Journal: reader.path})
			l.Service("echo").Stderr(sampleConn(), []byte(text), true)
			l.Info("next")
			sent := reader.all(l)
			if len(sent) != 2 {
				t.Fatalf("%s, %q: %d datagrams", output, filler, len(sent))
			}
			var record map[string]any
			want := strings.ToValidUTF8(text, strings.Repeat("\ufffd", strings.Count(text, "\xff")))
			if output == "journald" {
				record = map[string]any{"text": entryOf(t, []byte(sent[0]))["SUPERD_TEXT"]}
			} else if _, line, _ := strings.Cut(sent[0], "@cee: "); json.Unmarshal([]byte(line), &record) != nil {
				t.Fatalf("%q: no record is %.300s", filler, sent[0])
			}
			if record["text"] != want {
				t.Errorf("%s, %q: the text has %d bytes, not %d", output, filler, len(record["text"].(string)), len(want))
			}
		}
	}
}

// TestSocketIsTakenAway: the descriptor is where the caller wants it, and is closed with the log.
func TestSocketIsTakenAway(t *testing.T) {
	reader := listen(t, socketPath(t, "log"))
	const high = 200
	l, _ := opened(t, "syslog", Options{Syslog: reader.path, Above: above(high)})
	fd := l.writer.Load().out.(*socket).fd
	l.Info("line")
	reader.all(l)
	if fd < high {
		t.Errorf("the socket is descriptor %d", fd)
	}
	if _, err := syscall.Getsockname(fd); err != syscall.EBADF {
		t.Errorf("the socket is still open: %v", err)
	}
}

// above moves descriptors as the daemon does.
func above(lowest int) func(fd int) (int, error) {
	return func(fd int) (int, error) {
		defer syscall.Close(fd)
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, uintptr(lowest))
		if errno != 0 {
			return -1, errno
		}
		return int(n), nil
	}
}
