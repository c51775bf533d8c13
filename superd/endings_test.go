package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// How connections end: which side goes first, in what way, and what superd
// makes of it.

// hold connects n clients, has each do something, and leaves them connected
// until the test ends.
func hold(t *testing.T, n int, address string, do func(c *net.TCPConn) error) {
	t.Helper()
	crowd(t, n, 50, func(int) error {
		c, err := dialAddress(address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		return do(c)
	})
}

// Clients that neither read nor go away cannot keep anything of superd's.
func TestStubbornClients(t *testing.T) {
	d := start(t, `
services:
  deaf:  {listen: "127.0.0.1:0", builtin: echo, timeout: {session: 500ms, stop: 1h}, linger: 100ms}
  flood: {listen: "127.0.0.1:0", builtin: chargen, timeout: {session: 500ms, stop: 1h}, linger: 100ms}
  mute:  {listen: "127.0.0.1:0", builtin: echo, timeout: {idle: 500ms, stop: 1h}, linger: 100ms}
`)
	n := holdable(t, 3*fewer(500, 50)) / 3
	var senders sync.WaitGroup
	hold(t, n, d.address("deaf"), func(c *net.TCPConn) error {
		c.SetReadBuffer(32 << 10)
		senders.Go(func() { c.Write(make([]byte, 2<<20)) }) // until superd ends the connection
		return nil
	})
	hold(t, n, d.address("flood"), func(*net.TCPConn) error { return nil })
	hold(t, n, d.address("mute"), func(*net.TCPConn) error { return nil })
	for service, reason := range map[string]string{"deaf": "timeout.session", "flood": "timeout.session", "mute": "timeout.idle"} {
		for _, r := range d.allExited(service, n) {
			if r.text("reason") != reason || r.text("signal") != "SIGTERM" {
				t.Fatalf("a client of %s ended otherwise: %v", service, r)
			}
		}
	}
	senders.Wait()
	d.ends()
}

// A stage is how far a client gets before it resets its connection.
type stage struct {
	name, service string
	do            func(c *net.TCPConn) error
}

var stages = []stage{
	{"at once", "echo", func(*net.TCPConn) error { return nil }},
	{"when it has sent", "echo", sends},
	{"after an exchange", "echo", func(c *net.TCPConn) error { return exchange(c, 0) }},
	{"half-closed", "echo", func(c *net.TCPConn) error { return errors.Join(sends(c), c.CloseWrite()) }},
	{"with the echo unread", "echo", func(c *net.TCPConn) error { return errors.Join(sends(c), readSome(c)) }},
	{"while the answer comes", "chargen", readSome},
	{"when it has the answer", "greeting", func(c *net.TCPConn) error {
		_, err := readAll(c)
		return err
	}},
	{"when the answer is unread", "greeting", readSome},
}

func sends(c *net.TCPConn) error {
	_, err := c.Write(make([]byte, 1000))
	return err
}

func readSome(c *net.TCPConn) error {
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

func TestResettingClients(t *testing.T) {
	d := start(t, `
services:
  echo: {listen: "127.0.0.1:0", builtin: echo}
  chargen: {listen: "127.0.0.1:0", builtin: chargen}
  greeting: {listen: "127.0.0.1:0", builtin: greeting}
`)
	n := fewer(500, 50)
	made := map[string]int{}
	for _, s := range stages {
		t.Run(s.name, func(t *testing.T) {
			made[s.service] += n
			crowdOf(t, n, 50, d.address(s.service), func(v visit) error {
				return errors.Join(s.do(v.TCPConn), reset(v.TCPConn))
			})
			checkStatus(t, d.allExited(s.service, made[s.service]))
		})
	}
	if got := d.ask("echo", "still here"); got != "still here" {
		t.Errorf("afterwards the echo of %q is %q", "still here", got)
	}
	d.allExited("echo", made["echo"]+1)
	d.ends()
}

// late is what a program without interest in its input answers.
var late = strings.Repeat("an answer to nothing\n", 195)

func TestUnreadInput(t *testing.T) {
	d := start(t, fmt.Sprintf(`
services:
  rude:   {listen: "127.0.0.1:0", builtin: greeting, text: %q, linger: 1h}
  ruder:  {listen: "127.0.0.1:0", builtin: greeting, text: %q, linger: 0}
`, late, late))
	n := fewer(200, 50)
	input := make([]byte, 1<<20)

	// The input comes first, whether the program is still there or not.
	crowdOf(t, n, 50, d.address("rude"), func(v visit) error {
		if _, err := v.Write(input); err != nil {
			return err
		}
		return hear(v.TCPConn)
	})
	d.allExited("rude", n)

	// The input comes when the program has certainly gone.
	hold(t, 1, d.address("rude"), func(c *net.TCPConn) error {
		d.exited("rude", n+1)
		if _, err := c.Write(input); err != nil {
			return err
		}
		return errors.Join(hear(c), c.Close())
	})

	// Who wants no lingering gets resets, which may cost a client anything.
	var spoilt atomic.Int64
	crowdOf(t, n, 50, d.address("ruder"), func(v visit) error {
		v.Write(input)
		if hear(v.TCPConn) != nil {
			spoilt.Add(1)
		}
		return nil
	})
	d.allExited("ruder", n)
	t.Logf("with linger: 0, %d of %d answers were spoilt", spoilt.Load(), n)
}

// However many others come and go meanwhile, a connection has its time to
// linger.
func TestLingerInACrowd(t *testing.T) {
	t.Parallel()
	d := start(t, fmt.Sprintf(`
services:
  rude:  {listen: "127.0.0.1:0", builtin: greeting, text: %q, linger: 1h}
  quick: {listen: "127.0.0.1:0", builtin: greeting}
`, late))
	const many = 1500 // more than superd lets linger at once
	hold(t, 1, d.address("rude"), func(c *net.TCPConn) error {
		d.exited("rude", 1)
		crowdOf(t, many, 50, d.address("quick"), says("hi client"))
		d.exited("quick", many)
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
		return errors.Join(hear(c), c.Close())
	})
}

// withDescriptors is a command that can have no more than n open.
func withDescriptors(cmd *exec.Cmd, n int) *exec.Cmd {
	limited := exec.Command("/bin/sh", append([]string{"-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, n), cmd.Path}, cmd.Args[1:]...)...)
	limited.Env = cmd.Env
	return limited
}

// Clients that do not close their connections take no descriptors from others.
func TestLingerWithFewDescriptors(t *testing.T) {
	t.Parallel()
	cmd := prepare(t, `services: {quick: {listen: "127.0.0.1:0", builtin: greeting, linger: 500ms}}`)
	d := startCommand(t, withDescriptors(cmd, 150))
	const n = 200
	hold(t, n, d.address("quick"), func(c *net.TCPConn) error { return says("hi client")(visit{TCPConn: c}) })
	d.allExited("quick", n)
}

// hear wants the whole late answer, and the end.
func hear(c *net.TCPConn) error {
	b, err := readAll(c)
	if err != nil {
		return err
	}
	return checkSame(b, []byte(late))
}

// A meeting is a client's connection and the fifo at which its program waits.
type meeting struct {
	*testing.T
	conn *net.TCPConn
	fifo fifo
}

// A step is something that the client, or the test for it, does.
type step func(meeting) error

func (m meeting) ask() error   { _, err := io.WriteString(m.conn, "12345"); return err }
func (m meeting) half() error  { return m.conn.CloseWrite() }
func (m meeting) leave() error { return m.conn.Close() }
func (m meeting) rest() error  { _, err := readAll(m.conn); return err }

// kick resets the connection as kick does.
func (m meeting) kick() error { return kick(m, m.conn) }

// kick resets a connection, and returns when the other end of it knows: the
// kernel lists that no more then (proc(5), /proc/net/tcp).
func kick(t testing.TB, c *net.TCPConn) error {
	listed := procAddress(c.RemoteAddr()) + " " + procAddress(c.LocalAddr())
	if err := reset(c); err != nil {
		return err
	}
	eventually(t, func() error {
		table, err := os.ReadFile("/proc/net/tcp")
		if strings.Contains(string(table), listed) {
			err = errors.New("the connection is still there")
		}
		return err
	})
	return nil
}

// procAddress writes an address of this machine as /proc/net/tcp does.
func procAddress(a net.Addr) string {
	at := a.(*net.TCPAddr)
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(at.IP.To4()), at.Port)
}

// answer hears what perlAnswer says.
func (m meeting) answer() error {
	_, err := io.ReadFull(m.conn, make([]byte, len("answer\n")))
	return err
}

// open lets a program go on that has come to perlWait.
func (m meeting) open() error {
	m.fifo.open(m)
	return nil
}

// much is how many bytes flow sends and hears at the same time.
func much() int { return fewer(50, 5) << 20 }

func (m meeting) flow() error {
	sent := noise(1, much())
	failed := make(chan error, 1)
	go func() {
		_, err := m.conn.Write(sent)
		failed <- errors.Join(err, m.conn.CloseWrite())
	}()
	b, err := readAll(m.conn)
	if err == nil {
		err = checkSame(b, sent)
	}
	return errors.Join(err, <-failed)
}

// What programs do: the script of one is some of these. The fifo is its
// argument.
const (
	perlReadAll   = `1 while sysread(STDIN, $b, 65536); `
	perlReadSome  = `sysread(STDIN, $b, 65536); `
	perlAnswer    = `syswrite(STDOUT, "answer\n"); `
	perlShutdown  = `shutdown(STDOUT, 1); `
	perlWait      = `open(F, "<", $ARGV[0]); `
	perlUntilPIPE = `$SIG{PIPE} = "IGNORE"; 1 while defined(syswrite(STDOUT, "x")); `
)

// A count is a connection of which it is known to the byte what went over it.
type count struct {
	name    string
	script  string // of perl; "" for the built-in echo
	steps   []step
	in, out int
}

func counts() []count {
	m := func(steps ...step) []step { return steps }
	return []count{
		{"nothing is sent", "", m(meeting.leave), 0, 0},
		{"nothing is sent, half-closed", "", m(meeting.half, meeting.rest), 0, 0},
		{"the client closes its side first", "", m(meeting.ask, meeting.half, meeting.rest), 5, 5},
		{"much both ways", "", m(meeting.flow), much(), much()},
		{"the program ends first", perlReadSome + perlAnswer, m(meeting.ask, meeting.rest), 5, 7},
		{"the program ends with input unread", perlAnswer + perlWait,
			m(meeting.ask, meeting.answer, meeting.open, meeting.rest), 5, 7},
		{"the program closes its side first", perlAnswer + perlShutdown + perlReadAll,
			m(meeting.rest, meeting.ask, meeting.leave), 5, 7},
		{"the program closes its side and lives on", perlAnswer + perlShutdown + perlReadAll + perlWait,
			m(meeting.rest, meeting.ask, meeting.half, meeting.leave, meeting.open), 5, 7},
		{"the program closes its side after the client", perlReadAll + perlAnswer + perlShutdown + perlWait,
			m(meeting.ask, meeting.half, meeting.rest, meeting.leave, meeting.open), 5, 7},
		{"the program ends after the client's close", perlReadAll + perlWait,
			m(meeting.ask, meeting.leave, meeting.open), 5, 0},
		{"the client resets", perlReadSome + perlAnswer + perlReadAll,
			m(meeting.ask, meeting.answer, meeting.kick), 5, 7},
		{"the client resets when the program has closed its side", perlAnswer + perlShutdown + perlWait,
			m(meeting.rest, meeting.ask, meeting.kick, meeting.open), 5, 7},
		{"the client resets when it has closed its side", perlReadAll + perlAnswer + perlWait,
			m(meeting.ask, meeting.half, meeting.answer, meeting.kick, meeting.open), 5, 7},
		{"the program hears of that reset", perlReadAll + perlAnswer + perlWait + perlUntilPIPE,
			m(meeting.ask, meeting.half, meeting.answer, meeting.kick, meeting.open), 5, 7},
		{"the program hears of a reset", perlReadSome + perlAnswer + perlWait + perlUntilPIPE,
			m(meeting.ask, meeting.answer, meeting.kick, meeting.open), 5, 7},
	}
}

func TestByteCounts(t *testing.T) {
	t.Parallel()
	perl, f := installed(t, "perl"), newFifo(t, publicDir(t))
	list := counts()
	yaml := "services:\n"
	for i, c := range list {
		what := "builtin: echo"
		if c.script != "" {
			what = "run: " + yamlList(perl, "-e", c.script, string(f))
		}
		yaml += fmt.Sprintf("  c%d: {listen: '127.0.0.1:0', %s}\n", i, what)
	}
	d := start(t, yaml)
	for i, c := range list {
		t.Run(c.name, func(t *testing.T) { c.check(t, d, fmt.Sprint("c", i), f) })
	}
}

func (c count) check(t *testing.T, d *process, service string, f fifo) {
	m := meeting{t, d.dial(service), f}
	defer m.conn.Close()
	for i, do := range c.steps {
		if err := do(m); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	m.conn.Close()
	r := d.allExited(service, 1)[0]
	if in, out := int(r.number("bytes_in")), int(r.number("bytes_out")); in != c.in || out != c.out {
		t.Errorf("%d bytes went in and %d out, the log says %d and %d", c.in, c.out, in, out)
	}
}

// A program that cannot be started for lack of a descriptor costs its client
// the connection, and superd nothing.
func TestStartWithoutDescriptors(t *testing.T) {
	t.Parallel()
	d := start(t, fmt.Sprintf(`
services:
  file:  {listen: "127.0.0.1:0", keep: false, stderr: "null", run: %s}
  image: {listen: "127.0.0.1:0", keep: false, stderr: "null", builtin: greeting}
`, yamlList(installed(t, "true"))))
	for _, service := range []string{"file", "image"} {
		d.settled()
		restore := d.leaveDescriptors(1)
		c := d.dial(service)
		if b, _ := readAll(c); len(b) > 0 {
			t.Errorf("without a descriptor for it, %s answers %q", service, b)
		}
		c.Close()
		d.refused(service)
		restore()
		for fd := range 3 {
			if _, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", d.pid(), fd)); err != nil {
				t.Errorf("superd has lost its descriptor %d: %v", fd, err)
			}
		}
		d.ask(service, "")
		d.exited(service, 1)
	}
}

// leaveDescriptors lowers superd's limit of open files so that it can open n
// more; the result puts it back.
func (d *process) leaveDescriptors(n int) (restore func()) {
	d.t.Helper()
	fd := -1
	for free := -1; free < n; {
		fd++
		if _, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", d.pid(), fd)); err != nil {
			free++
		}
	}
	var was unix.Rlimit
	if err := unix.Prlimit(d.pid(), unix.RLIMIT_NOFILE, nil, &was); err != nil {
		d.t.Fatal(err)
	}
	limit := func(l unix.Rlimit) {
		if err := unix.Prlimit(d.pid(), unix.RLIMIT_NOFILE, &l, nil); err != nil {
			d.t.Error(err)
		}
	}
	limit(unix.Rlimit{Cur: uint64(fd), Max: was.Max})
	return func() { limit(was) }
}
