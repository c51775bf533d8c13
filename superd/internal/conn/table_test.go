package conn

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/event"
	"superd/superd/internal/spawn"
)

// A fixture is a table that nobody watches, with one service.
type fixture struct {
	*Table
	service  Service
	released int
	told     func() string // ends the log and returns it
}

// patience bounds every wait; it decides nothing about speed.
const patience = time.Minute

func newFixture(t *testing.T) *fixture {
	t.Helper()
	table, err := New(spawn.NewEngine())
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	log := event.Open(out, event.Options{Format: "json"})
	f := &fixture{Table: table}
	f.told = func() string {
		log.Close(patience)
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	t.Cleanup(func() {
		f.told()
		out.Close()
		table.poll.close()
	})
	f.service = Service{
		Events:    log.Service("test"),
		Plan:      compile(t, table.engine, spawn.Spec{Path: "/bin/true", Argv: []string{"true"}, Stderr: spawn.StderrLog, Dir: "/"}),
		Keep:      true,
		LogStderr: true,
		Linger:    time.Hour,
		Stop:      time.Hour,
		Release:   func(*Visitor, *event.Exit, error) { f.released++ },
	}
	return f
}

func compile(t *testing.T, e *spawn.Engine, s spawn.Spec) *spawn.Plan {
	t.Helper()
	p, err := e.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// connection is the two ends of a TCP connection, the server's as a bare
// descriptor.
func connection(t *testing.T) (client net.Conn, server int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { server, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) })
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// An event that was on its way when its descriptor was closed must not touch
// what has that number by now.
func TestLateEventTouchesNothing(t *testing.T) {
	f := newFixture(t)
	_, server := connection(t)
	r := f.take()
	r.begin(&f.service, &Visitor{})
	if _, err := f.equip(r, server); err != nil {
		t.Fatal(err)
	}
	number := r.stderr
	late := key{r.slot, r.use, stderrReadable}
	f.report(r)
	if r.state != draining || f.released != 1 {
		t.Fatalf("the connection is in state %d, its place was given back %d times", r.state, f.released)
	}
	var other [2]int
	if err := unix.Pipe2(other[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(other[0], number, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	for _, fd := range []int{other[0], other[1], number} {
		defer unix.Close(fd)
	}
	unix.Write(other[1], []byte("another's"))
	f.handle(late)
	if n, err := unix.Read(number, make([]byte, 100)); n != len("another's") || err != nil {
		t.Errorf("of what is another's %d bytes are left, %v", n, err)
	}
}

// An event of a connection that is over finds nothing, though the record may
// be another's by now.
func TestEventOfAnEarlierUse(t *testing.T) {
	f := newFixture(t)
	r := f.take()
	early := key{r.slot, r.use, processEnded}
	if f.find(early) != r {
		t.Error("an event of now finds nothing")
	}
	f.give(r)
	if again := f.take(); again != r {
		t.Fatal("the record is not used again")
	}
	if f.find(early) != nil {
		t.Error("an event of before finds what is now")
	}
}

// Whoever stops all programs leaves those more time that have less of their
// own.
func TestStopWithinALimit(t *testing.T) {
	for name, c := range map[string]struct {
		state  state
		killAt int64
		limit  time.Duration
		want   int64
	}{
		"asked before, no limit":    {stopping, 500, NoLimit, 500},
		"asked before, later limit": {stopping, 500, 900, 500},
		"asked before, limit":       {stopping, 500, 50, 150},
		"leftovers, no limit":       {leftovers, 500, NoLimit, 500},
		"leftovers, limit":          {leftovers, 500, 50, 150},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.now = 100
			r := f.take()
			r.begin(&f.service, &Visitor{})
			r.state, r.killAt, r.watched = c.state, c.killAt, true
			f.Stop("test", c.limit)
			f.obey()
			if r.killAt != c.want {
				t.Errorf("KILL comes at %d, want %d", r.killAt, c.want)
			}
			if c.state == stopping && (r.heap < 0 || r.due != c.want) {
				t.Errorf("it is looked at again at %d, want %d", r.due, c.want)
			}
			f.give(r)
		})
	}
}

// What a program wrote before its end is in the log before it, though the end
// is heard of first.
func TestLastWords(t *testing.T) {
	f := newFixture(t)
	f.service.Plan = compile(t, f.engine, spawn.Spec{
		Path: "/bin/sh", Argv: []string{"sh", "-c", "echo last words >&2"}, Stderr: spawn.StderrLog, Dir: "/"})
	_, server := connection(t)
	f.Start(&f.service, server, &Visitor{}, true)
	r := f.slots[0]
	awaitEnd(t, r.child)
	f.handle(key{r.slot, r.use, processEnded})
	told := f.told()
	words, end := strings.Index(told, `"last words"`), strings.Index(told, `"exited"`)
	if words < 0 || end < words {
		t.Errorf("the log is\n%s", told)
	}
	f.finish(r)
}

// lateWitness knows what killed a program when it has been asked a number of
// times.
type lateWitness struct {
	deaf  bool
	left  int
	asked int
}

func (w *lateWitness) Violation(int) (string, bool) {
	w.asked++
	w.left--
	if w.left >= 0 {
		return "", false
	}
	return "mount", true
}

func (w *lateWitness) HearsViolations() bool { return !w.deaf }

// The system call that killed a program can become known a while after the
// end: the record waits for it, for a second at most, and where it can come.
func TestLateViolation(t *testing.T) {
	begin := int64(time.Hour)
	times := func(n int) (at int64) {
		for _, d := range spawn.RecordDelays[:n] {
			at += int64(d)
		}
		return at
	}
	most := len(spawn.RecordDelays)
	for name, c := range map[string]struct {
		witness lateWitness
		latest  int64
		call    bool
		at      int64 // after the end
		asked   int
	}{
		"at once":            {lateWitness{}, notDue, true, 0, 1},
		"late":               {lateWitness{left: 3}, notDue, true, times(3), 4},
		"as late as can be":  {lateWitness{left: most}, notDue, true, times(most), most + 1},
		"later":              {lateWitness{left: most + 1}, notDue, false, int64(time.Second), most + 1},
		"nobody tells":       {lateWitness{left: 3, deaf: true}, notDue, false, 0, 1},
		"superd stops":       {lateWitness{left: 3}, begin, false, 0, 1},
		"superd soon stops":  {lateWitness{left: 3}, begin + times(1) + 1, false, times(1) + 1, 3},
		"superd stops later": {lateWitness{left: 3}, begin + times(3), true, times(3), 4},
	} {
		f := newFixture(t)
		f.now, f.latest = begin, c.latest
		f.witness = &c.witness
		_, server := connection(t)
		r := f.take()
		r.begin(&f.service, &Visitor{})
		if _, err := f.equip(r, server); err != nil {
			t.Fatal(err)
		}
		r.ended.Signaled, r.ended.Signal = true, unix.SIGSYS
		f.conclude(r)
		for r.state == untold {
			if f.released > 0 || r.due <= f.now {
				t.Fatalf("%s: at %d it is due at %d, its place was given back %d times", name, f.now, r.due, f.released)
			}
			f.now = r.due
			f.overdue(r)
		}
		if f.released != 1 || f.now-begin != c.at || c.witness.asked != c.asked {
			t.Errorf("%s: %d records after %v, asked for %d times", name, f.released, time.Duration(f.now-begin), c.witness.asked)
		}
		f.finish(r)
		if told := f.told(); strings.Contains(told, `"syscall":"mount"`) != c.call || !strings.Contains(told, "SIGSYS") {
			t.Errorf("%s: the log is\n%s", name, told)
		}
	}
}

// awaitEnd waits until a child can be reaped, and no longer shares anything.
func awaitEnd(t *testing.T, c spawn.Child) {
	t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.PIDFD), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	for err == unix.EINTR {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(c.PIDFD), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	}
	if n != 1 || err != nil {
		t.Fatalf("the program does not end: %v", err)
	}
}

// What is acknowledged while superd counts is counted.
func TestBytesOnTheirWayAreCounted(t *testing.T) {
	f := newFixture(t)
	client, server := connection(t)
	r := f.take()
	r.begin(&f.service, &Visitor{})
	r.kept = server
	go io.Copy(io.Discard, client) // ends with the connection
	const each = 10
	for written := int64(each); written < 20_000*each; written += each {
		if n, err := unix.Write(server, make([]byte, each)); n != each || err != nil {
			t.Fatal(n, err)
		}
		if !f.lookAtTCP(r) {
			t.Fatal("it cannot be looked at")
		}
		if _, out := f.bytesMoved(r); out != written {
			t.Fatalf("of %d bytes that were written %d are counted", written, out)
		}
	}
	r.kept = -1
	unix.Close(server)
	f.give(r)
}

// However much a program has written, others have a turn after a part of it.
func TestStderrIsReadInParts(t *testing.T) {
	f := newFixture(t)
	_, server := connection(t)
	r := f.take()
	r.begin(&f.service, &Visitor{})
	streams, err := f.equip(r, server)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(streams.Stderr)
	size, err := unix.FcntlInt(uintptr(streams.Stderr), unix.F_SETPIPE_SZ, 4*len(f.buffer))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Write(streams.Stderr, make([]byte, size)); n != size || err != nil {
		t.Fatalf("of %d bytes %d are written, %v", size, n, err)
	}
	f.handle(key{r.slot, r.use, stderrReadable})
	left, err := unix.IoctlGetInt(r.stderr, unix.TIOCINQ)
	if err != nil || left != size-len(f.buffer) {
		t.Errorf("of %d bytes %d are left, %v", size, left, err)
	}
	f.closeStderr(r)
	f.finish(r)
}
