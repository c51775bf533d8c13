package spawn

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// under puts s behind a filter.
func under(s Spec, systemCalls string) Spec {
	s.Sandbox = config.Sandbox{SystemCalls: systemCalls, NoNewPrivs: true}
	return s
}

// caller is this test's own binary as a program that makes system calls, one
// after the other, by number and with every argument arg.
func caller(arg uint64, numbers ...int) Spec {
	return Spec{Path: "/proc/self/exe", Argv: []string{"caller", "-test.run", "^TestMakeTheCalls$"}, Stderr: StderrClient, Dir: "/",
		Env: []string{fmt.Sprintf("SUPERD_TEST_CALLS=%d %v", arg, numbers), "GOMAXPROCS=2"}}
}

// TestMakeTheCalls is what caller runs; it is no test.
func TestMakeTheCalls(t *testing.T) {
	argument, numbers, is := strings.Cut(os.Getenv("SUPERD_TEST_CALLS"), " ")
	if !is {
		return
	}
	arg, err := strconv.ParseUint(argument, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for n := range strings.FieldsSeq(strings.Trim(numbers, "[]")) {
		number, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		a := uintptr(arg)
		_, _, errno := unix.RawSyscall6(uintptr(number), a, a, a, a, a, a)
		fmt.Println(unix.ErrnoName(errno))
	}
	os.Exit(0)
}

// fate runs s and says what became of its calls: killed, or the names of their
// errors, "" for success.
func fate(t *testing.T, e *Engine, s Spec) string {
	t.Helper()
	out, end, err := answer(t, e, compile(t, e, s))
	switch {
	case err != nil:
		t.Fatal(err)
	case end.Signaled && end.Signal == unix.SIGSYS:
		return "killed"
	case end.Signaled || end.Status != 0:
		t.Fatalf("the program ended with %+v and wrote %q", end, out)
	}
	return strings.TrimSuffix(out, "\n")
}

// TestRefusedCallsFromInside makes every call that a policy refuses, from a
// program behind the filter. The arguments are 1: where a filter failed to
// refuse a call, it would do no harm.
func TestRefusedCallsFromInside(t *testing.T) {
	e := NewEngine()
	for _, name := range []string{"default", "tight"} {
		p := policies[name]
		var failing []int
		var want []string
		for number, o := range p.outcomes(ownArchitecture) {
			switch {
			case o.condition != nil || o.verdict == allow:
			case o.verdict != kill:
				failing = append(failing, number)
				want = append(want, unix.ErrnoName(unix.Errno(o.verdict&unix.SECCOMP_RET_DATA)))
			default:
				if got := fate(t, e, under(caller(1, number), name)); got != "killed" {
					t.Errorf("%s: %s: got %q, want killed", name, SystemCallName(number), got)
				}
			}
		}
		got := strings.Split(fate(t, e, under(caller(1, failing...), name)), "\n")
		for i, number := range failing {
			if i >= len(got) || got[i] != want[i] {
				t.Fatalf("%s: %s: got %q, want %s", name, SystemCallName(number), got[i:], want[i])
			}
		}
	}
}

func TestConditionsFromInside(t *testing.T) {
	e := NewEngine()
	for _, c := range []struct {
		number                        int
		arg                           uint64
		systemCalls, want, unfiltered string
	}{
		{unix.SYS_UNSHARE, unix.CLONE_NEWUTS, "default", "EPERM", ""},
		{unix.SYS_UNSHARE, unix.CLONE_FS, "default", "", ""},
		{unix.SYS_UNSHARE, unix.CLONE_FS, "tight", "EPERM", ""},
		{unix.SYS_CLONE, unix.CLONE_NEWUSER, "default", "EPERM", "-"},
		{unix.SYS_CLONE, unix.CLONE_NEWNET, "tight", "EPERM", "-"},
		{unix.SYS_PERSONALITY, 0xffffffff, "tight", "", ""},
		{unix.SYS_PERSONALITY, addrNoRandomize, "default", "EPERM", ""},
		{unix.SYS_SOCKET, unix.AF_INET, "tight", "EAFNOSUPPORT", "-"},
		{unix.SYS_SOCKET, unix.AF_ALG, "default", "EAFNOSUPPORT", "-"},
		{unix.SYS_IOCTL, unix.TIOCSTI, "default", "EPERM", "EBADF"},
		{unix.SYS_IOCTL, unix.TIOCSTI, "tight", "EPERM", "EBADF"},
		{unix.SYS_IOCTL, unix.TCGETS, "tight", "EBADF", "EBADF"},
		{999, 1, "default", "ENOSYS", "ENOSYS"},
		{999, 1, "tight", "ENOSYS", "ENOSYS"},
	} {
		if c.unfiltered != "-" && os.Geteuid() == 0 {
			if got := fate(t, e, under(caller(c.arg, c.number), "all")); got != c.unfiltered {
				t.Errorf("%s(%#x) without a filter: got %q, want %q", SystemCallName(c.number), c.arg, got, c.unfiltered)
			}
		}
		if got := fate(t, e, under(caller(c.arg, c.number), c.systemCalls)); got != c.want {
			t.Errorf("%s(%#x) in %s: got %q, want %q", SystemCallName(c.number), c.arg, c.systemCalls, got, c.want)
		}
	}
}

// machineCode is a static program of amd64 that consists of code alone.
func machineCode(code ...byte) []byte {
	b := make([]byte, 0, 256)
	word := func(size int, n uint64) {
		for range size {
			b, n = append(b, byte(n)), n>>8
		}
	}
	const base, head = 0x400000, 64 + 56
	b = append(b, 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	word(2, 2)         // ET_EXEC
	word(2, 62)        // EM_X86_64
	word(4, 1)         // version
	word(8, base+head) // entry
	word(8, 64)        // program headers
	word(8+4, 0)       // no section headers, no flags
	word(2, 64)        // size of this header
	word(2, 56)        // of a program header
	word(2, 1)         // of which there is one
	word(6, 0)         // nothing of sections
	word(4, 1)         // PT_LOAD
	word(4, 5)         // to read and execute
	word(8, 0)         // from the beginning of the file
	word(8, base)      // to there
	word(8, base)      //
	word(8, head+uint64(len(code)))
	word(8, head+uint64(len(code)))
	word(8, 0x1000)
	return append(b, code...)
}

// exitCode is exit_group(0).
var exitCode = []byte{0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05}

// TestOtherTablesKill: the 32-bit and x32 system call tables have the same
// calls under other numbers, and lead around a filter that forgets them.
func TestOtherTablesKill(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("SKIPPED: this machine has one system call table")
	}
	e := NewEngine()
	for name, c := range map[string]struct {
		code []byte
		call string
	}{
		"getpid by int 0x80": {[]byte{0xb8, 20, 0, 0, 0, 0xcd, 0x80}, "number 20 of the 32-bit table"},
		"getpid by x32":      {[]byte{0xb8, 39, 0, 0, 0x40, 0x0f, 0x05}, "number 39 of the x32 table"},
	} {
		image, err := e.NewImage("code", machineCode(append(c.code, exitCode...)...))
		if err != nil {
			t.Fatal(err)
		}
		defer image.Close()
		s := Spec{Image: image, Argv: []string{"code"}, Stderr: StderrClient, Dir: "/"}
		if got := fate(t, e, s); got != "" && got != "killed" {
			t.Errorf("%s without a filter: %q", name, got)
		}
		for _, systemCalls := range []string{"default", "tight"} {
			if got := fate(t, e, under(s, systemCalls)); got != "killed" {
				t.Errorf("%s in %s: got %q", name, systemCalls, got)
			}
		}
	}
	code := append([]byte{0xb8, 39, 0, 0, 0, 0x0f, 0x05}, exitCode...)
	image, err := e.NewImage("code", machineCode(code...))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if got := fate(t, e, under(Spec{Image: image, Argv: []string{"code"}, Stderr: StderrClient, Dir: "/"}, "tight")); got != "" {
		t.Errorf("getpid by its own number: got %q", got)
	}
}

func TestFilterIsShared(t *testing.T) {
	e := NewEngine()
	one, other := compile(t, e, under(script("true"), "default")), compile(t, e, under(script("true"), "default"))
	if &one.walls.filter[0] != &other.walls.filter[0] {
		t.Error("two plans have two filters")
	}
	network := under(script("true"), "tight")
	network.Sandbox.Network = true
	tight := compile(t, e, under(script("true"), "tight"))
	if p := compile(t, e, network); &p.walls.filter[0] == &tight.walls.filter[0] {
		t.Error("a network makes no difference to tight")
	}
	for _, name := range []string{"", "all"} {
		if p := compile(t, e, under(script("true"), name)); p.walls.filter != nil {
			t.Errorf("%q is a filter", name)
		}
	}
	if _, err := e.Compile(under(script("true"), "loose")); err == nil || !strings.Contains(err.Error(), `no filter has the name "loose"`) {
		t.Errorf("got %v", err)
	}
}

// TestFailingChildPassesItsFilter: what follows the filter in the plan may
// fail, and is told as ever.
func TestFailingChildPassesItsFilter(t *testing.T) {
	e := NewEngine()
	s := under(script("true"), "tight")
	s.Path = "/none"
	_, end, err := answer(t, e, compile(t, e, s))
	if err == nil || !strings.HasPrefix(err.Error(), "cannot execute /none: ENOENT") || end.Status != 127 {
		t.Errorf("ended with %+v, %v", end, err)
	}
}

// TestFilterIsInherited: what a program starts is behind its filter.
func TestFilterIsInherited(t *testing.T) {
	if _, err := os.Stat("/bin/mount"); err != nil {
		t.Skip("SKIPPED: this machine has no mount")
	}
	s := under(script(`mount -t tmpfs none /none 2>/dev/null; [ $? = 159 ] && echo killed; grep Seccomp: /proc/self/status`), "default")
	lines := bufio.NewScanner(strings.NewReader(mustAnswer(t, s)))
	var got []string
	for lines.Scan() {
		if !strings.Contains(lines.Text(), "Bad system call") {
			got = append(got, lines.Text())
		}
	}
	if strings.Join(got, ",") != "killed,Seccomp:\t2" {
		t.Errorf("got %q", got)
	}
}

// BenchmarkFilteredSpawn starts a program that ends at once: the differences
// are what a filter costs a connection.
func BenchmarkFilteredSpawn(b *testing.B) {
	if runtime.GOARCH != "amd64" {
		b.Skip("SKIPPED: the program is in amd64's machine code")
	}
	e := NewEngine()
	image, err := e.NewImage("exit", machineCode(exitCode...))
	if err != nil {
		b.Fatal(err)
	}
	defer image.Close()
	for _, systemCalls := range []string{"all", "default", "tight"} {
		b.Run(systemCalls, func(b *testing.B) {
			p := compile(b, e, under(Spec{Image: image, Argv: []string{"exit"}, Stderr: StderrClient, Dir: "/"}, systemCalls))
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
		})
	}
}

// BenchmarkInstall is seccomp(2) alone, in a thread of its own: filters add up,
// so that there cannot be many.
func BenchmarkInstall(b *testing.B) {
	for _, name := range []string{"default", "tight"} {
		b.Run(name, func(b *testing.B) {
			e := NewEngine()
			p := compile(b, e, under(script("true"), name))
			program := &unix.SockFprog{Len: uint16(len(p.walls.filter)), Filter: &p.walls.filter[0]}
			var spent time.Duration
			const each = 50
			for range b.N {
				done := make(chan time.Duration)
				go func() {
					runtime.LockOSThread() // which ends with the goroutine
					unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
					begin := time.Now()
					for range each {
						if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(program))); errno != 0 {
							b.Error(errno)
						}
					}
					done <- time.Since(begin)
				}()
				spent += <-done
			}
			b.ReportMetric(float64(spent.Nanoseconds())/each/float64(b.N), "ns/install")
		})
	}
}
