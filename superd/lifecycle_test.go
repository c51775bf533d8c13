package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// How programs end: by themselves, or because superd ends them; and what of
// theirs is left.

// ending is how a record says that a program ended.
func (r record) ending() string {
	if s := r.text("signal"); s != "" {
		return strings.TrimPrefix(s, "SIG")
	}
	return strconv.Itoa(int(r.number("status")))
}

// checkEnd wants a program to have ended so, for that reason.
func checkEnd(t *testing.T, r record, ending, reason string) {
	t.Helper()
	if err := r.ended(ending, reason); err != nil {
		t.Error(err)
	}
}

func (r record) ended(ending, reason string) error {
	if r.ending() != ending || r.text("reason") != reason {
		return fmt.Errorf("it did not end with %q for the reason %q, but: %v", ending, reason, r)
	}
	return nil
}

// line is the next line that a program sends.
func line(t testing.TB, c net.Conn) string {
	t.Helper()
	renew(c)
	text, err := readLine(c)
	if err != nil {
		t.Fatalf("after %q: %v", text, err)
	}
	return text
}

func readLine(c net.Conn) (string, error) {
	var text []byte
	for b := make([]byte, 1); len(text) < 1000; { // what follows the line is left to who reads next
		if _, err := io.ReadFull(c, b); err != nil {
			return string(text), err
		}
		if b[0] == '\n' {
			break
		}
		text = append(text, b[0])
	}
	return string(text), nil
}

// number is the process number that a program sends.
func number(t testing.TB, c net.Conn) int {
	t.Helper()
	n, err := strconv.Atoi(line(t, c))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// lives tells whether a process is there and no zombie.
func lives(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state := strings.Fields(string(status[strings.LastIndex(string(status), ")")+1:]))[0]
	return state != "Z" && state != "X"
}

// comesBack has a service send a text back that may have ended.
func comesBack(c net.Conn, text string) error {
	_, err := io.WriteString(c, text)
	back := make([]byte, len(text))
	n, wrong := io.ReadFull(c, back)
	if err = errors.Join(err, wrong); err == nil && string(back) != text {
		err = fmt.Errorf("%q came back as %q", text, back[:n])
	}
	return err
}

func waitForEnd(t testing.TB, pid int) {
	t.Helper()
	eventually(t, func() error {
		if lives(pid) {
			return fmt.Errorf("process %d lives", pid)
		}
		return nil
	})
}

// stubborn is the beginning of a script that TERM does not end.
const stubborn = `trap '' TERM; `

// holds is the end of a script: it says that it is there, and stays.
const holds = `echo hello; while :; do read x || sleep 1; done`

func TestEndsAreRecorded(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{
		"exit 0":             "0",
		"exit 7":             "7",
		"exit 127":           "127",
		"kill -TERM $$":      "TERM",
		"kill -KILL $$":      "KILL",
		"kill -SEGV $$":      "SEGV",
		"kill -USR1 $$":      "USR1",
		"exec /nowhere/none": "127",
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			d := start(t, one("ends", shell(script)+", stderr: client"))
			d.ask("ends", "")
			r := d.exited("ends", 1)[0]
			checkEnd(t, r, want, "")
			for _, name := range []string{"duration_ms", "user_ms", "system_ms", "maxrss_kb", "pid", "bytes_in", "bytes_out"} {
				if r.number(name) < 0 {
					t.Errorf("no %s in %v", name, r)
				}
			}
		})
	}
}

func TestSessionTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ script, ending string }{
		"ends on TERM":        {holds, "TERM"},
		"ends in its own way": {`trap 'exit 3' TERM; ` + holds, "3"},
		"ignores TERM":        {stubborn + holds, "KILL"},
		"is stopped":          {`echo hello; kill -STOP $$; echo on; ` + holds, "TERM"},
		"is stopped, ignores": {stubborn + `echo hello; kill -STOP $$; ` + holds, "KILL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			longEnough(t, 700*time.Millisecond, func(length time.Duration) error {
				d := start(t, one("long", shell(c.script)+fmt.Sprintf(", timeout: {session: %v, stop: %v}", length, length*10/7)))
				got, err := readLine(d.dial("long"))
				r := d.exited("long", 1)[0]
				if r.text("reason") != "timeout.session" || r.number("duration_ms") < float64(length.Milliseconds()) {
					t.Errorf("it had less than its time: %v", r)
				}
				if err != nil || got != "hello" {
					return fmt.Errorf("the program says %q, %v", got, err)
				}
				return r.ended(c.ending, "timeout.session")
			})
		})
	}
}

// A program that is busy has no more time than others.
func TestSessionTimeOfTheBusy(t *testing.T) {
	t.Parallel()
	longEnough(t, 300*time.Millisecond, func(length time.Duration) error {
		d := start(t, one("flood", fmt.Sprintf("builtin: chargen, timeout: {session: %v, stop: 1h}", length)))
		n, _ := io.Copy(io.Discard, d.dial("flood"))
		checkEnd(t, d.exited("flood", 1)[0], "TERM", "timeout.session")
		if n == 0 {
			return errors.New("nothing came")
		}
		return nil
	})
}

// Idle is who neither sends nor is sent anything. One byte now and then, in
// either direction, is enough to live on.
func TestIdleTime(t *testing.T) {
	t.Parallel()
	longEnough(t, 1500*time.Millisecond, func(length time.Duration) error {
		d := start(t, fmt.Sprintf(`
services:
  idle: {listen: "127.0.0.1:0", run: /bin/cat, timeout: {idle: %[2]v, stop: 1h}}
  up:   {listen: "127.0.0.1:0", builtin: discard, timeout: {idle: %[2]v}}
  down: {listen: "127.0.0.1:0", %[1]s, timeout: {idle: %[2]v}}
`, shell("while echo x; do sleep 0.2; done"), length))
		up, down := d.dial("up"), d.dial("down")
		defer down.Close()
		defer up.Close()
		go func() { // ends with the connection
			for _, err := io.WriteString(up, "x"); err == nil; _, err = io.WriteString(up, "x") {
				time.Sleep(200 * time.Millisecond)
			}
		}()
		// Two who are idle one after the other show that time enough has passed.
		for n := range 2 {
			c := d.dial("idle")
			io.WriteString(c, "hello\n")
			checkEnd(t, d.exited("idle", n+1)[n], "TERM", "timeout.idle")
		}
		for _, service := range []string{"up", "down"} {
			for _, r := range d.recordsOf(service) {
				if r.is("exited") {
					return fmt.Errorf("%s was not idle: %v", service, r)
				}
			}
		}
		return nil
	})
}

// The time of a client who was idle for a while, and then was not, begins anew.
func TestIdleTimeBeginsAnew(t *testing.T) {
	t.Parallel()
	longEnough(t, 1500*time.Millisecond, func(length time.Duration) error {
		d := start(t, one("idle", fmt.Sprintf("run: /bin/cat, timeout: {idle: %v, stop: 1h}", length)))
		c := d.dial("idle")
		for range 4 {
			if err := comesBack(c, "x"); err != nil {
				return err
			}
			time.Sleep(length * 2 / 5)
		}
		r := d.exited("idle", 1)[0]
		checkEnd(t, r, "TERM", "timeout.idle")
		if r.number("duration_ms") < 2.1*float64(length.Milliseconds()) {
			t.Errorf("its time did not begin anew: %v", r)
		}
		return nil
	})
}

// What a program leaves behind in its process group is ended, and counted.
func TestLeftoversAreEnded(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"end on TERM": `echo $$; exec sleep 1000`,
		"ignore TERM": stubborn + `echo $$; exec sleep 1000`,
		"are stopped": `echo $$; kill -STOP $$; exec sleep 1000`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, one("parent", shell(`sh -c "$1" & sh -c "$1" & read x; exit 4`, script)+", timeout: {stop: 200ms}"))
			c := d.dial("parent")
			r := bufio.NewReader(c)
			var pids [2]int
			for i := range pids {
				if _, err := fmt.Fscanln(r, &pids[i]); err != nil {
					t.Fatal(err)
				}
			}
			begun := time.Now()
			c.CloseWrite()
			if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
				t.Errorf("then came %q, %v", rest, err)
			}
			record := d.exited("parent", 1)[0]
			checkEnd(t, record, "4", "")
			if record.number("leftovers") != 2 {
				t.Errorf("the leftovers were counted wrong: %v", record)
			}
			for _, pid := range pids {
				if lives(pid) && time.Since(begun) < time.Second { // after KILL superd waits no longer
					t.Errorf("process %d is left", pid)
				}
				waitForEnd(t, pid)
			}
		})
	}
}

// With leftovers: leave, they stay, and so does the connection as long as they
// use it.
func TestLeftoversAreLeft(t *testing.T) {
	t.Parallel()
	d := start(t, one("parent", shell(`exec 3<&0; (read x <&3; echo "late $x") & echo $!`)+", leftovers: leave"))
	c := d.dial("parent")
	pid := number(t, c)
	r := d.exited("parent", 1)[0]
	checkEnd(t, r, "0", "")
	if r.number("leftovers") >= 0 {
		t.Errorf("leftovers are counted that are left: %v", r)
	}
	d.settled()
	if !lives(pid) {
		t.Errorf("process %d was ended", pid)
	}
	io.WriteString(c, "hello\n")
	if got := line(t, c); got != "late hello" {
		t.Errorf("the one that was left says %q", got)
	}
	d.closed(c)
}

// A process that makes a session of its own is out of superd's reach.
func TestProcessThatLeavesTheSession(t *testing.T) {
	t.Parallel()
	program(t, "setsid")
	d := start(t, one("parent", shell(`setsid sh -c 'echo $$; exec sleep 1000 <&- >&-' & read x`)))
	c := d.dial("parent")
	pid := number(t, c)
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	c.Close()
	if r := d.exited("parent", 1)[0]; r.number("leftovers") >= 0 {
		t.Errorf("it is counted: %v", r)
	}
	if !lives(pid) {
		t.Error("it was ended")
	}
}

// The program of a service that is not kept closes the connection itself, when
// it closes 0 and 1; else superd does at its end.
func TestKeep(t *testing.T) {
	t.Parallel()
	d := start(t, fmt.Sprintf(`
services:
  kept:   {listen: "127.0.0.1:0", %[1]s}
  unkept: {listen: "127.0.0.1:0", %[1]s, keep: false}
`, shell("exec <&- >&-; exec sleep 1000")))
	for service, want := range map[string]uint8{"kept": unix.BPF_TCP_ESTABLISHED, "unkept": unix.BPF_TCP_CLOSE_WAIT} {
		c := d.dial(service)
		eventually(t, func() error {
			if list := d.children(); len(list) != 1 {
				return fmt.Errorf("the children are %v", list)
			}
			if list := descriptorsOf(t, d.child()); len(list) != 1 || list[0] != 2 {
				return fmt.Errorf("the program has %v", list)
			}
			return nil
		})
		if want == unix.BPF_TCP_CLOSE_WAIT {
			d.closed(c)
		}
		if got := tcpInfo(t, c).State; got != want {
			t.Errorf("%s: the client's connection is in state %d, not %d", service, got, want)
		}
		syscall.Kill(d.child(), syscall.SIGTERM)
		d.closed(c)
		r := d.exited(service, 1)[0]
		if known := r.number("bytes_in") >= 0; known != (service == "kept") {
			t.Errorf("%s: the bytes are counted: %v", service, known)
		}
		c.Close()
		d.settled()
	}
}

func tcpInfo(t testing.TB, c *net.TCPConn) (info *unix.TCPInfo) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		failed := raw.Control(func(fd uintptr) {
			info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		})
		err = errors.Join(err, failed)
	}
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// An answer is not destroyed by a question that was not read; without linger
// it is.
func TestLinger(t *testing.T) {
	t.Parallel()
	d := start(t, fmt.Sprintf(`
services:
  polite: {listen: "127.0.0.1:0", %[1]s, linger: 1h}
  rude:   {listen: "127.0.0.1:0", %[1]s, linger: 0}
`, shell("head -c 1 >/dev/null; echo answer")))
	question := strings.Repeat("x", 1<<17)
	if got := d.ask("polite", question); got != "answer\n" {
		t.Errorf("the client got %q", got)
	}
	c := d.dial("rude")
	io.WriteString(c, question[:1000])
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without linger the client got %v, not a reset", err)
	}
}

// A client that does not close is waited for no longer than linger says.
func TestLingerEnds(t *testing.T) {
	t.Parallel()
	d := start(t, one("brief", "builtin: greeting, linger: 200ms"))
	c := d.dial("brief")
	if got, err := io.ReadAll(c); err != nil || string(got) != "hi client" {
		t.Errorf("the client got %q, %v", got, err)
	}
	d.settled() // while the client is still there
	eventually(t, func() error {
		if _, err := c.Write([]byte("x")); err == nil {
			return errors.New("the connection is still open")
		}
		return nil
	})
}

func TestHalfClose(t *testing.T) {
	t.Parallel()
	d := start(t, one("late", shell("cat >/dev/null; sleep 0.3; echo late")))
	if got := d.ask("late", "hello"); got != "late\n" {
		t.Errorf("the client got %q", got)
	}
}

// isWaiting wants a client not to be served although superd had its chance:
// another one, who came later, was served meanwhile.
func (d *process) isWaiting(c net.Conn, other string, live int) {
	d.t.Helper()
	for range 3 {
		d.ask(other, "x")
	}
	eventually(d.t, func() error {
		if list := d.children(); len(list) != live {
			return fmt.Errorf("the children are %v", list)
		}
		return nil
	})
	if got, err := unread(d.t, c); err != unix.EAGAIN {
		d.t.Errorf("the client got %q, %v", got, err)
	}
}

// Who finds a service full waits, and is served when somebody leaves.
func TestMax(t *testing.T) {
	t.Parallel()
	d := start(t, `
services:
  few:   {listen: ["127.0.0.1:0", "127.0.0.1:0"], run: /bin/cat, max: 1}
  other: {listen: "127.0.0.1:0", builtin: echo}
`)
	first := d.held("few")
	for i, address := range d.addresses("few") {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "x")
		d.isWaiting(c, "other", 1)
		first.Close()
		d.exited("few", i+1)
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("the one who waited: %v", err)
		}
		first = c.(*net.TCPConn)
	}
}

// However many wait, each is served, and never two at a time.
func TestMaxWithManyWaiting(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	d := start(t, one("single", shell(`mkdir "$1/lock" || echo "not alone"; cat; rmdir "$1/lock"`, dir)+", max: 1"))
	const n = 50
	d.many("single", n, n, askFor("hello", "hello"))
	d.exited("single", n)
}

// limits.max is for all services together: a place that one leaves, another
// may take.
func TestMaxOfAllServices(t *testing.T) {
	t.Parallel()
	d := start(t, `
log: {level: debug}
limits: {max: 3}
services:
  one:   {listen: "127.0.0.1:0", run: /bin/cat}
  two:   {listen: "127.0.0.1:0", run: /bin/cat, max: 2}
  three: {listen: "127.0.0.1:0", run: /bin/cat}
`)
	a, b, c := d.held("one"), d.held("two"), d.held("three")
	names := []string{"one", "two", "three"}
	var waiting []net.Conn
	for _, service := range names {
		w := d.dial(service)
		io.WriteString(w, service)
		waiting = append(waiting, w)
	}
	// Each who leaves makes room for one of those who wait, of any service.
	b.Close()
	a.Close()
	c.Close()
	for i, w := range waiting {
		got := make([]byte, len(names[i]))
		if _, err := io.ReadFull(w, got); err != nil || string(got) != names[i] {
			t.Errorf("the client of %s got %q, %v", names[i], got, err)
		}
		w.Close()
	}
	for _, service := range names {
		d.exited(service, 2)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	live := 0
	for _, r := range d.records {
		switch {
		case r.is("started"):
			live++
		case r.is("exited"):
			live--
		}
		if live > 3 {
			t.Fatalf("there are %d programs with %v", live, r)
		}
	}
}

// Clients that go away at any moment take no place with them.
func TestMaxAfterAborts(t *testing.T) {
	t.Parallel()
	d := start(t, `
limits: {max: 4}
services:
  cat:  {listen: "127.0.0.1:0", run: /bin/cat, max: 3, linger: 0}
  echo: {listen: "127.0.0.1:0", builtin: echo, max: 2}
  none: {listen: "127.0.0.1:0", run: /nowhere/none, max: 1}
`)
	abort := func(c *net.TCPConn) error { return c.SetLinger(0) }
	abortLater := func(c *net.TCPConn) error {
		_, err := io.WriteString(c, "hello")
		return errors.Join(err, c.SetLinger(0))
	}
	abortAnswered := func(c *net.TCPConn) error {
		io.WriteString(c, "x")
		io.ReadFull(c, make([]byte, 1))
		return c.SetLinger(0)
	}
	for _, service := range []string{"cat", "echo", "none"} {
		for _, do := range []func(*net.TCPConn) error{abort, abortLater, abortAnswered} {
			d.many(service, fewer(100, 30), 20, do)
		}
	}
	d.settled()
	// All places are there: three and one more are served at the same time.
	var list []net.Conn
	for _, service := range []string{"cat", "cat", "cat", "echo"} {
		list = append(list, d.held(service))
	}
	for _, c := range list {
		d.talk(c, "still here")
	}
	list[0].Close()
	d.ask("none", "") // and its only place is there
}

// Clients wait in the kernel's queue while superd can do nothing at all.
func TestBurstWhileSuperdStands(t *testing.T) {
	t.Parallel()
	d := start(t, one("echo", "builtin: echo"))
	d.signal(syscall.SIGSTOP)
	list := make([]net.Conn, 100)
	for i := range list {
		list[i] = d.dial("echo")
	}
	d.signal(syscall.SIGCONT)
	for _, c := range list {
		d.talk(c, "hello")
	}
}

// The program of a service can be replaced while others run from it.
func TestProgramIsReplaced(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	path := writeFile(t, dir, "program", "#!/bin/sh\necho old; read x\n", 0o755)
	d := start(t, one("replaced", "run: "+path))
	c := d.dial("replaced")
	if got := line(t, c); got != "old" {
		t.Errorf("the program says %q", got)
	}
	if err := os.Rename(writeFile(t, dir, "next", "#!/bin/sh\necho new; read x\n", 0o755), filepath.Join(dir, "program")); err != nil {
		t.Fatal(err)
	}
	if got := d.ask("replaced", ""); got != "new\n" {
		t.Errorf("the new program says %q", got)
	}
}
