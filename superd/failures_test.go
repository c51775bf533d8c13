package main

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Programs that cannot be started. Each costs its client the connection, in
// good order, and superd nothing.

// programUser is how messages call the user that programs run as by default.
func programUser() string {
	if os.Geteuid() == 0 {
		return unprivileged
	}
	return "superd's own user"
}

// foreign is the head of a program for another architecture.
func foreign() string {
	b := make([]byte, 128)
	copy(b, elf.ELFMAG+"\x02\x01\x01")
	binary.LittleEndian.PutUint16(b[16:], uint16(elf.ET_EXEC))
	binary.LittleEndian.PutUint16(b[18:], uint16(elf.EM_S390))
	return string(b)
}

// A failure is a service whose program cannot be started, and what is said.
type failure struct{ name, keys, want string }

func failures(t *testing.T) []failure {
	dir := publicDir(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	writeFile(t, dir, "plain", "#!/bin/sh\n", 0o644)
	writeFile(t, dir, "script", "#!/nowhere/sh\n", 0o755)
	writeFile(t, dir, "text", "echo hello\n", 0o755)
	writeFile(t, dir, "foreign", foreign(), 0o755)
	busy := writeFile(t, dir, "busy", "#!/bin/sh\n", 0o755)
	writer, err := os.OpenFile(busy, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { writer.Close() })
	if err := os.Symlink("loop", path("loop")); err != nil {
		t.Fatal(err)
	}
	many := make([]string, 40)
	for i := range many {
		many[i] = strings.Repeat("x", 120_000)
	}
	inexecutable := "EACCES (it is not executable by " + programUser() + ", or a directory above it is closed to that user)"
	const noSuchFile = "ENOENT (the file does not exist, or the interpreter that it names does not)"
	return []failure{
		{"missing program", "run: " + path("none"), "cannot execute " + path("none") + ": " + noSuchFile},
		{"not executable", "run: " + path("plain"), "cannot execute " + path("plain") + ": " + inexecutable},
		{"a directory", "run: " + dir, "cannot execute " + dir + ": " + inexecutable},
		{"not in a directory", "run: " + path("plain/x"), "cannot execute " + path("plain/x") + ": ENOTDIR (a part of the path is not a directory)"},
		{"in a circle", "run: " + path("loop"), "cannot execute " + path("loop") + ": ELOOP (too many symbolic links, or an interpreter that needs an interpreter)"},
		{"missing interpreter", "run: " + path("script"), "cannot execute " + path("script") + ": " + noSuchFile},
		{"no interpreter named", "run: " + path("text"), "cannot execute " + path("text") + ": ENOEXEC (not a program of this machine's architecture, and no script with a #! line)"},
		{"wrong architecture", "run: " + path("foreign"), "cannot execute " + path("foreign") + ": ENOEXEC (not a program of this machine's architecture, and no script with a #! line)"},
		{"open for writing", "run: " + busy, "cannot execute " + busy + ": ETXTBSY (the file is open for writing; it was probably being replaced)"},
		{"too many arguments", "run: " + yamlList(append([]string{"/bin/true"}, many...)...), "cannot execute /bin/true: E2BIG (arguments and environment are too long)"},
		{"no such directory", "run: /bin/cat, dir: " + path("none"), "cannot change to the directory " + path("none") + ": ENOENT (no such file or directory)"},
		{"no directory", "run: /bin/cat, dir: " + path("plain"), "cannot change to the directory " + path("plain") + ": ENOTDIR (not a directory)"},
	}
}

func TestProgramsThatCannotBeStarted(t *testing.T) {
	t.Parallel()
	list := failures(t)
	for _, f := range list {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			d := start(t, fmt.Sprintf(`
services:
  echo: {listen: "127.0.0.1:0", builtin: echo}
  bad:  {listen: "127.0.0.1:0", %s}
`, f.keys))
			// What the client has sent must not turn the end into a reset.
			if got := d.ask("bad", "a question that nobody reads\n"); got != "" {
				t.Errorf("the client got %q", got)
			}
			checkRefused(t, d.refused("bad"), f.want)
			if got := d.ask("echo", "still here"); got != "still here" {
				t.Errorf("then the echo of %q is %q", "still here", got)
			}
			d.settled()
			for _, r := range d.recordsOf("bad") {
				if r.is("exited") {
					t.Errorf("a program that never was has ended: %v", r)
				}
			}
		})
	}
}

// recordsOf lists all that the log has of a service.
func (d *process) recordsOf(service string) (list []record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.records {
		if r.text("service") == service {
			list = append(list, r)
		}
	}
	return list
}

// checkRefused wants a record of a program that could not be started.
func checkRefused(t *testing.T, r record, want string) {
	t.Helper()
	if r.text("reason") != "spawn" || r.text("error") != want || r["level"] != "warn" {
		t.Errorf("the record is\n%v\nand should say\n%s", r, want)
	}
	if r.text("conn") == "" || r.text("peer") == "" || r.text("local") == "" {
		t.Errorf("the record does not say of which connection: %v", r)
	}
}

// A program that cannot be started now may be started later.
func TestProgramThatComesLater(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	d := start(t, one("late", "run: "+filepath.Join(dir, "late")))
	d.ask("late", "")
	d.refused("late")
	writeFile(t, dir, "late", "#!/bin/sh\necho here I am\n", 0o755)
	if got := d.ask("late", ""); got != "here I am\n" {
		t.Errorf("the client got %q", got)
	}
}

// Of many refusals for one reason the log has a line a second, and the number
// of the others.
func TestRefusalsAreCounted(t *testing.T) {
	t.Parallel()
	d := start(t, one("none", "run: /nowhere/none"))
	begin := time.Now()
	n := fewer(500, 100)
	d.many("none", n, 20, askFor("hello", ""))
	d.settled()
	eventually(t, func() error {
		if told, _ := d.refusals("none"); told != n {
			return fmt.Errorf("%d of %d refusals are told", told, n)
		}
		return nil
	})
	_, lines := d.refusals("none")
	if most := int(time.Since(begin)/time.Second) + 2; lines > most {
		t.Errorf("%d refusals took %d lines", n, lines)
	}
}

// refusals counts those that the log tells of, and its lines for them.
func (d *process) refusals(service string) (told, lines int) {
	for _, r := range d.recordsOf(service) {
		if !r.is("refused") {
			continue
		}
		lines++
		if r.text("conn") != "" {
			told++
		}
		told += max(0, int(r.number("suppressed")))
	}
	return told, lines
}

// allowProcesses limits the processes and threads of superd's user, and of the
// users of programs that it starts from now on. Only the user itself may do so
// without privilege.
func (d *process) allowProcesses(n int) {
	d.t.Helper()
	cmd := exec.Command(program(d.t, "prlimit"), fmt.Sprint("--pid=", d.pid()), fmt.Sprint("--nproc=", n))
	cmd.SysProcAttr = d.cmd.SysProcAttr
	output(d.t, cmd)
}

func (d *process) threads() int {
	d.t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", d.pid()))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(names)
}

// Where the system gives superd no more processes, clients are refused one
// after another, superd itself wants for nothing, and once there is room,
// programs run again.
func TestNoMoreProcessesForSuperd(t *testing.T) {
	t.Parallel()
	uid := someUser + 5_000
	d := startCommand(t, asUser(t, prepare(t, one("cat", "run: /bin/cat")), uid))
	d.allowProcesses(d.threads() + 2)
	live := []net.Conn{d.held("cat"), d.held("cat")}
	const n = 4
	d.many("cat", n, n, askFor("hello", ""))
	checkRefused(t, d.refused("cat"),
		"cannot start a process: EAGAIN (a limit on processes is reached: see RLIMIT_NPROC, kernel.pid_max and the cgroup's pids.max)")
	live[0].Close()
	d.exited("cat", 1)
	d.held("cat")
	d.talk(live[1], "still here")
}

// A client that comes when a place among the processes is about to become free
// waits for it.
func TestNoMoreProcessesForAMoment(t *testing.T) {
	t.Parallel()
	d := startCommand(t, asUser(t, prepare(t, one("cat", "run: /bin/cat")), someUser+10_000))
	d.allowProcesses(d.threads() + 1)
	n := fewer(100, 20)
	var refused atomic.Int64
	d.many("cat", n, 2, func(c *net.TCPConn) error {
		if err := askFor("hello", "hello")(c); err != nil {
			t.Log(err)
			refused.Add(1)
		}
		return nil
	})
	told := int(refused.Load())
	if told == 0 {
		return
	}
	// That is right only where superd has waited in vain for one that was slow.
	waits := 0.0
	for _, delay := range startDelays {
		waits += float64(delay.Milliseconds())
	}
	longest := 0.0
	for _, r := range d.exited("cat", n-told) {
		longest = max(longest, r.number("duration_ms"))
	}
	if longest < waits/2 {
		t.Errorf("%d clients were refused, and no program took longer than %v ms", told, longest)
	}
}

// A service's user with too many processes costs this service its clients, and
// no other.
func TestNoMoreProcessesForAUser(t *testing.T) {
	needRoot(t)
	t.Parallel()
	uid := someUser + 15_000
	d := start(t, fmt.Sprintf(`
services:
  cat:  {listen: "127.0.0.1:0", run: /bin/cat, user: %d}
  echo: {listen: "127.0.0.1:0", builtin: echo, user: %d}
`, uid, uid+1))
	d.allowProcesses(1)
	first := d.held("cat")
	var got []byte
	tries := 0
	for ; tries < 5; tries++ { // kernels count the new process or not
		c := d.dial("cat")
		io.WriteString(c, "hello")
		got, _ = io.ReadAll(io.LimitReader(c, int64(len("hello"))))
		if len(got) == 0 {
			break
		}
	}
	if len(got) > 0 {
		t.Fatal("a limit of one process lets five run")
	}
	checkRefused(t, d.refused("cat"), fmt.Sprintf("cannot execute /bin/cat: EAGAIN (the user %d has too many processes)", uid))
	d.held("echo")
	first.Close()
	d.exited("cat", 1)
	eventually(t, func() error { // those that failed count until they have been reaped
		if list := d.children(); len(list) != tries+1 { // echo's, and who came in beside the first
			return fmt.Errorf("the children are %v", list)
		}
		return nil
	})
	d.held("cat")
}

// hangExec makes every execve of a file hang until the test ends: who holds a
// lease on a file is asked first, and does not answer (fcntl(2), F_SETLEASE).
func hangExec(t *testing.T, path string) (release func()) {
	t.Helper()
	signal.Ignore(unix.SIGIO) // the question
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		skip(t, "leases on files do not work here: "+err.Error())
	}
	return func() { unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK) }
}

// A program that hangs in execve, as on a file system that does not answer, is
// its client's trouble alone.
func TestHungExec(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	// The kernel asks only where the lease is of the file's owner, or of one
	// who may do all.
	hung := writeFile(t, dir, "hung", "#!/bin/cat\nas if nothing had been\n", 0o755)
	release := hangExec(t, hung)
	d := start(t, fmt.Sprintf(`
services:
  hung: {listen: "127.0.0.1:0", run: %[1]s}
  fated: {listen: "127.0.0.1:0", run: %[1]s, oom_score_adj: 1000}
  late: {listen: "127.0.0.1:0", run: %[1]s, oom_score_adj: 1000, timeout: {session: 200ms}}
  echo: {listen: "127.0.0.1:0", builtin: echo}
  fated-echo: {listen: "127.0.0.1:0", builtin: echo, oom_score_adj: 1000}
`, hung))
	n := 50 // more than superd hands over at a time
	waiting := make([]net.Conn, 2*n)
	for i := range waiting {
		waiting[i] = d.dial([]string{"hung", "fated"}[i%2])
	}
	late := d.dial("late")
	for range fewer(200, 50) {
		for _, service := range []string{"echo", "fated-echo"} {
			if got := d.ask(service, "hello"); got != "hello" {
				t.Fatalf("of %s the echo of hello is %q", service, got)
			}
		}
	}
	// A program that is not one yet can be ended.
	d.closed(late)
	if r := d.exited("late", 1)[0]; r.text("reason") != "timeout.session" {
		t.Errorf("it ended as %v", r)
	}
	release()
	for _, c := range waiting {
		got, err := io.ReadAll(c)
		if err != nil || !strings.Contains(string(got), "as if nothing had been") {
			t.Fatalf("the client got %q, %v", got, err)
		}
	}
	d.exited("hung", n)
	d.exited("fated", n)
}

// What superd needs of the system is there before there are connections: the
// number of its threads does not depend on them, and stays small.
func TestThreads(t *testing.T) {
	t.Parallel()
	d := start(t, one("echo", "builtin: echo"))
	before := d.threads()
	n := fewer(1000, 200)
	d.many("echo", n, 50, askFor("hello", "hello"))
	d.exited("echo", n)
	if after := d.threads(); after > before || before > 20 {
		t.Errorf("superd has %d threads, and had %d", after, before)
	}
}
