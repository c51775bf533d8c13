package spawn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
)

// script is a service that runs text with sh.
func script(text string) Spec {
	return Spec{Service: "test", Path: "/bin/sh", Argv: []string{"sh", "-c", text}, Stderr: StderrClient, Dir: "/", Umask: 0o22,
		Env: []string{"PATH=" + DefaultPath}}
}

// compile makes a plan that is closed with the test.
func compile(t testing.TB, e *Engine, s Spec) *Plan {
	t.Helper()
	p, err := e.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

var someFacts = Facts{
	ID: []byte("abc-1"),
	Peer: &peer.Peer{
		Remote: netip.MustParseAddrPort("192.0.2.7:4711"),
		Local:  netip.MustParseAddrPort("[2001:db8::1]:25"),
	},
	FromSource: 3,
}

// answer runs s to its end and returns what it wrote and how it ended.
func answer(t testing.TB, e *Engine, p *Plan) (string, End, error) {
	t.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	stderr := -1
	if p.spec.Stderr == StderrLog {
		var err error
		if stderr, err = dupFrom(ends[1], 0); err != nil {
			t.Fatal(err)
		}
	}
	c, err := e.Start(p, Streams{Connection: ends[1], Stderr: stderr}, &someFacts)
	if err != nil {
		unix.Close(ends[0])
		return "", End{}, err
	}
	// The pipe ends when the program does, once our copy of it is closed.
	for e.Settle() > 0 {
		unix.Nanosleep(&unix.Timespec{Nsec: 1e5}, nil)
	}
	r := os.NewFile(uintptr(ends[0]), "answer")
	defer r.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.PIDFD)
	if c.PIDFD < e.Window() {
		t.Errorf("pidfd %d stands in the window", c.PIDFD)
	}
	end, err := Wait(c.PIDFD)
	if err != nil {
		t.Fatal(err)
	}
	e.Release(c, false)
	return string(out), end, e.Failure(c)
}

func mustAnswer(t testing.TB, s Spec) string {
	t.Helper()
	return mustAnswerWith(t, NewEngine(), s)
}

// mustAnswerWith asks twice where programs have a /tmp of their own: one that
// makes it itself, and one that gets it made ahead.
func mustAnswerWith(t testing.TB, e *Engine, s Spec) string {
	t.Helper()
	p := compile(t, e, s)
	out, end, err := answer(t, e, p)
	if err != nil || end.Signaled || end.Status != 0 {
		t.Fatalf("%q ended with %+v, %v", out, end, err)
	}
	if p.walls.stock != nil {
		keepCells(t, e, p)
		if again, end, err := answer(t, e, p); again != out || err != nil {
			t.Fatalf("in a cell made ahead: %q, %+v, %v; else %q", again, end, err, out)
		}
	}
	return out
}

// openDescriptors lists this process's own.
func openDescriptors(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(n string) bool { // Glob's own
		_, err := os.Stat(n)
		return err != nil
	})
}

func TestProgramHasThreeDescriptors(t *testing.T) {
	for _, at := range []int{3, 9, 40, 63, 64, 500} {
		if fd, err := dupFrom(0, at); err == nil {
			planted, _, _ := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), unix.F_DUPFD, uintptr(at)) // without CLOEXEC
			t.Cleanup(func() { unix.Close(fd); unix.Close(int(planted)) })
		}
	}
	for _, stderr := range []string{StderrClient, StderrNull, StderrLog} {
		s := script(`n=0; while [ $n -lt 600 ]; do [ ! -e /proc/$$/fd/$n ] || echo -n " $n"; n=$((n+1)); done`)
		s.Stderr = stderr
		if got := mustAnswer(t, s); got != " 0 1 2" {
			t.Errorf("stderr %s: descriptors %q", stderr, got)
		}
	}
}

func TestProgramHasDefaultSignals(t *testing.T) {
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE, unix.SIGUSR2)
	defer signal.Reset(unix.SIGHUP, unix.SIGPIPE, unix.SIGUSR2)
	got := mustAnswer(t, Spec{Path: "/bin/cat", Argv: []string{"cat", "/proc/self/status"}, Stderr: StderrClient, Dir: "/"})
	for _, mask := range []string{"SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"} {
		if !strings.Contains(got, mask+":\t0000000000000000\n") {
			t.Errorf("%s is not empty:\n%s", mask, got)
		}
	}
}

func TestProgramLeadsItsSession(t *testing.T) {
	pid, stat, _ := strings.Cut(mustAnswer(t, script(`echo $$; cat /proc/$$/stat`)), "\n")
	fields := strings.Fields(stat)
	if group, session := fields[4], fields[5]; group != pid || session != pid {
		t.Errorf("process %s is in group %s of session %s", pid, group, session)
	}
}

func TestProgramsSurroundings(t *testing.T) {
	dir := t.TempDir()
	s := script(`pwd; umask; nice`)
	s.Dir, s.Umask, s.Nice = dir, 0o27, 7
	want := dir + "\n0027\n7\n"
	if got := mustAnswer(t, s); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEnvironmentIsExact(t *testing.T) {
	for _, c := range []struct {
		styles []string
		want   []string
	}{
		{nil, nil},
		{[]string{"none"}, nil},
		{[]string{"ucspi"}, []string{"PROTO=TCP", "TCPREMOTEIP=192.0.2.7", "TCPREMOTEPORT=4711",
			"TCPLOCALIP=2001:db8::1", "TCPLOCALPORT=25", "TCPCONNNUM=3"}},
		{[]string{"systemd", "cgi"}, []string{"REMOTE_ADDR=192.0.2.7", "REMOTE_PORT=4711",
			"GATEWAY_INTERFACE=CGI/1.1", "SERVER_NAME=2001:db8::1", "SERVER_PORT=25", "SERVER_PROTOCOL=TCP"}},
		{[]string{"xinetd"}, []string{"REMOTE_HOST=192.0.2.7"}},
		{[]string{"ncat"}, []string{"NCAT_REMOTE_ADDR=192.0.2.7", "NCAT_REMOTE_PORT=4711",
			"NCAT_LOCAL_ADDR=2001:db8::1", "NCAT_LOCAL_PORT=25", "NCAT_PROTO=TCP"}},
	} {
		id := &Identity{UID: 7, Name: "somebody", Home: "/home/s", Shell: "/bin/false"}
		env := Environment("svc", id, []string{"TZ=UTC", "PATH=/p"}, []string{"A=b c", "REMOTE_ADDR=mine", "HOME=/h"})
		got := strings.Split(strings.TrimSuffix(mustAnswer(t, Spec{
			Path: "/usr/bin/env", Argv: []string{"env"}, Env: env, EnvStyle: c.styles, Stderr: StderrClient, Dir: "/",
		}), "\n"), "\n")
		want := append([]string{"USER=somebody", "LOGNAME=somebody", "SHELL=/bin/false", "TZ=UTC", "PATH=/p", "A=b c",
			"HOME=/h", "SUPERD_SERVICE=svc", "SUPERD_CONNECTION=abc-1"}, c.want...)
		if !slices.Contains(c.styles, "systemd") {
			want = append(want, "REMOTE_ADDR=mine")
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%v:\n got %q\nwant %q", c.styles, got, want)
		}
	}
}

// otherELF is the head of a program for another architecture.
func otherELF() []byte {
	b := make([]byte, 128)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(b[16:], 2)  // ET_EXEC
	binary.LittleEndian.PutUint16(b[18:], 22) // EM_S390
	return b
}

func TestFailuresHaveWords(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	busy := file("busy", "", 0o755)
	if b, err := os.ReadFile("/bin/true"); err == nil {
		os.WriteFile(busy, b, 0o755)
	}
	writer, err := os.OpenFile(busy, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for name, c := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"missing program": {func(s *Spec) { s.Path = dir + "/none" },
			"cannot execute " + dir + "/none: ENOENT (the file does not exist, or the interpreter that it names does not)"},
		"not executable": {func(s *Spec) { s.Path = file("plain", "#!/bin/sh\n", 0o644) },
			"cannot execute " + dir + "/plain: EACCES (it is not executable by superd's own user, or a directory above it is closed to that user)"},
		"missing interpreter": {func(s *Spec) { s.Path = file("script", "#!/nowhere/sh\n", 0o755) },
			"cannot execute " + dir + "/script: ENOENT (the file does not exist, or the interpreter that it names does not)"},
		"wrong architecture": {func(s *Spec) { s.Path = file("s390", string(otherELF()), 0o755) },
			"cannot execute " + dir + "/s390: ENOEXEC (not a program of this machine's architecture, and no script with a #! line)"},
		"a directory": {func(s *Spec) { s.Path = dir },
			"cannot execute " + dir + ": EACCES (it is not executable by superd's own user, or a directory above it is closed to that user)"},
		"no such directory": {func(s *Spec) { s.Dir = dir + "/none" },
			"cannot change to the directory " + dir + "/none: ENOENT (no such file or directory)"},
		"arguments too long": {func(s *Spec) { s.Argv = append(s.Argv, strings.Repeat("x", 1<<18)) },
			"cannot execute /bin/sh: E2BIG (arguments and environment are too long)"},
		"text busy": {func(s *Spec) { s.Path = busy },
			"cannot execute " + busy + ": ETXTBSY (the file is open for writing; it was probably being replaced)"},
	} {
		t.Run(name, func(t *testing.T) {
			s := script("true")
			c.change(&s)
			e := NewEngine()
			out, end, err := answer(t, e, compile(t, e, s))
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			if out != "" || end.Status != 127 {
				t.Errorf("wrote %q, ended with %+v", out, end)
			}
		})
	}
}

func TestBuiltInFailureNamesTheBuiltIn(t *testing.T) {
	e := NewEngine()
	image, err := e.NewImage("broken", []byte("not a program"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	_, _, err = answer(t, e, compile(t, e, Spec{Image: image, Argv: []string{"broken"}, Stderr: StderrClient, Dir: "/"}))
	if err == nil || !strings.HasPrefix(err.Error(), "cannot execute the built-in broken: ENOEXEC") {
		t.Errorf("got %v", err)
	}
}

func TestIdentityIsTakenOn(t *testing.T) {
	needRoot(t)
	s := Spec{Path: "/bin/cat", Argv: []string{"cat", "/proc/self/status"}, Stderr: StderrClient, Dir: "/",
		Identity: &Identity{UID: 4001, GID: 4002, Groups: []uint32{4003, 4004}}}
	got := mustAnswer(t, s)
	for _, want := range []string{
		"Uid:\t4001\t4001\t4001\t4001\n", "Gid:\t4002\t4002\t4002\t4002\n", "Groups:\t4003 4004 \n",
		"CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapAmb:\t0000000000000000\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	s.Identity.Groups = []uint32{}
	if got := mustAnswer(t, s); !strings.Contains(got, "Groups:\t \n") {
		t.Errorf("no empty group list in\n%s", got)
	}
}

func TestUnpermittedIdentityHasWords(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("SKIPPED: root may become anybody; this needs an ordinary user")
	}
	s := script("true")
	s.Identity = &Identity{UID: 1, GID: 1}
	_, err := NewEngine().Compile(s)
	want := Faults{
		{"groups", "cannot set the supplementary groups: EPERM", "it takes root: CAP_SETGID"},
		{"group", "cannot set the group 1: EPERM", "it takes root: CAP_SETGID"},
		{"user", "cannot set the user 1: EPERM", "it takes root: CAP_SETUID"},
	}
	if got, is := err.(Faults); !is || !slices.Equal(got, want) {
		t.Errorf("got %v", err)
	}
}

func TestManySpawnsLeaveNothing(t *testing.T) {
	e := NewEngine()
	p := compile(t, e, Spec{Path: "/bin/true", Argv: []string{"true"}, Stderr: StderrClient, Dir: "/"})
	missing := compile(t, e, Spec{Path: "/none", Argv: []string{"none"}, Stderr: StderrClient, Dir: "/"})
	before := openDescriptors(t)
	for i := range 400 {
		plan, wantFailure := p, false
		if i%4 == 0 {
			plan, wantFailure = missing, true
		}
		if _, _, err := answer(t, e, plan); (err != nil) != wantFailure {
			t.Fatal(err)
		}
	}
	if after := openDescriptors(t); len(after) != len(before) {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
	if made := len(p.free) + len(p.busy); made > 20 {
		t.Errorf("%d instances for one child at a time", made)
	}
	if made := len(missing.free) + len(missing.busy); made > 20 {
		t.Errorf("%d instances for one failing child at a time", made)
	}
}

// TestBusyInstanceIsNotReused: a child that has not left superd's memory keeps
// its instance, and others get other ones.
func TestBusyInstanceIsNotReused(t *testing.T) {
	e := NewEngine()
	p := compile(t, e, script("true"))
	stuck := p.newInstance()
	stuck.listen()
	atomic.StoreUint32(&stuck.tid, 1)
	p.busy = append(p.busy, stuck)
	for range 20 {
		if _, _, err := answer(t, e, p); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(p.free, stuck) || stuck.use != 0 {
			t.Fatal("an instance in use was taken")
		}
	}
	atomic.StoreUint32(&stuck.tid, 0)
	for range 2 * lookBack {
		p.reclaim()
	}
	if !slices.Contains(p.free, stuck) {
		t.Error("an instance that was left is not used again")
	}
}

func TestWindowIsSmallWhereTheLimitIs(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	for limit, want := range map[uint64]int{64: 16, 128: 32, 256: 64, 1024: 64} {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: old.Max}); err != nil {
			t.Fatal(err)
		}
		e := NewEngine()
		if e.Window() != want {
			t.Errorf("limit %d: window of %d, want %d", limit, e.Window(), want)
		}
		if _, _, err := answer(t, e, compile(t, e, script("true"))); err != nil {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

// TestProgramGetsTheLimitSuperdWasStartedWith runs this test once more under a
// lower soft limit, which Go raises before main.
func TestProgramGetsTheLimitSuperdWasStartedWith(t *testing.T) {
	if os.Getenv("SUPERD_TEST_LIMIT") != "" {
		var now unix.Rlimit
		unix.Getrlimit(unix.RLIMIT_NOFILE, &now)
		fmt.Printf("own %d, program %s", now.Cur, mustAnswer(t, script("ulimit -n")))
		return
	}
	s := script(`ulimit -Sn 300 && exec "$0" -test.run '^` + t.Name() + `$'`)
	s.Argv = append(s.Argv, os.Args[0])
	s.Env = append(s.Env, "SUPERD_TEST_LIMIT=1")
	got := mustAnswer(t, s)
	if !strings.Contains(got, "program 300\n") || strings.Contains(got, "own 300,") {
		t.Errorf("got %q", got)
	}
}

func TestClone3Failure(t *testing.T) {
	e := NewEngine()
	in := compile(t, e, script("true")).newInstance()
	in.clone.exitSignal = 1 << 20 // EINVAL
	var f *Failure
	if err := in.launch(); !errors.As(err, &f) || f.Errno != unix.EINVAL || f.Words != "start a process" || Busy(err) {
		t.Errorf("got %v", err)
	}
}

func TestSupportedHere(t *testing.T) {
	if err := Supported(); err != nil {
		t.Error(err)
	}
	want := "refuses clone3: EPERM; superd needs Linux 5.14"
	if err := missing("clone3", unix.EPERM); !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
}

func TestGetentFindsWhatTheFilesHave(t *testing.T) {
	e := NewEngine()
	line, err := e.getent("passwd", "root")
	if err != nil {
		t.Fatal(err)
	}
	if _, missing := os.Stat("/usr/bin/getent"); missing != nil {
		t.Skip("SKIPPED: this machine has no getent")
	}
	if !strings.HasPrefix(line, "root:") {
		t.Errorf("got %q", line)
	}
	if line, err := e.getent("passwd", "no-such-user-here"); line != "" || err != nil {
		t.Errorf("got %q, %v", line, err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("SUPERD_TEST_STRICT") != "" && os.Getenv("SUPERD_TEST_USER") == "" {
		t.Fatal("this needs root")
	}
	t.Skip("SKIPPED: this needs root")
}

func BenchmarkSpawn(b *testing.B) {
	e := NewEngine()
	p := compile(b, e, Spec{Path: "/bin/true", Argv: []string{"true"}, Stderr: StderrClient, Dir: "/"})
	for b.Loop() {
		null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		c, err := e.Start(p, Streams{Connection: null, Stderr: -1}, &someFacts)
		if err != nil {
			b.Fatal(err)
		}
		Wait(c.PIDFD)
		unix.Close(c.PIDFD)
	}
}
