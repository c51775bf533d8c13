package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"superd/services"
)

// The worst program is one that does what a hostile client says: it reads
// Perl, and does it.
const (
	obedient = `local $/; my $code = <STDIN>; $| = 1; eval $code; print $@ if $@`

	// What acts are written with: said prints what became of one.
	prelude = `sub said { print $_[0] ? "done" : "$!" } sub call { my @a = @_; said(syscall(shift @a, @a) != -1) }
sub inet { pack "S n a4 x8", 2, $_[0], "\x7f\0\0\1" }
`
)

// presetsOfActs are the columns of a table of acts.
var presetsOfActs = []string{"none", "basic", "offline", "strict"}

// An act is what a hostile program tries, and what becomes of it in each of
// the columns: its answer, or the signal that ended it. A | is between the
// answers of walls of which either may be asked first; "" is not looked at.
type act struct {
	name string
	code string
	want []string
}

// all is one answer for every column.
func all(answer string) []string { return slices.Repeat([]string{answer}, len(presetsOfActs)) }

const (
	notPermitted = "Operation not permitted"
	denied       = "Permission denied"
	unreachable  = "Network is unreachable"
	noFamily     = "Address family not supported by protocol"
	notThere     = "No such file or directory"
	noCall       = "Function not implemented"
	readOnly     = "Read-only file system"
)

// acts are tried as nobody. Words in braces are replaced by the test.
var acts = []act{
	{"read what is root's", `said(open F, "<", "/etc/shadow")`, []string{denied, denied, denied, denied}},
	{"read what is everybody's", `said(open F, "<", "/etc/passwd")`, []string{"done", "done", "done", denied}},
	{"write where everybody may", `said(open F, ">", "{open}/new"); unlink "{open}/new"`, []string{"done", "done", "done", readOnly}},
	{"change modes where it may", `said(chmod 0640, "{own}")`, []string{"done", "done", "done", readOnly}},
	{"see other processes", `said(open F, "<", "/proc/{victim}/status")`, []string{"done", "done", "done", notThere}},

	{"connect", `socket(S, 2, 1, 0) or print("$!"), exit; said(connect S, inet({port}))`, []string{"done", "done", unreachable + "|" + denied, noFamily}},
	{"send a datagram", `socket(S, 2, 2, 0) or print("$!"), exit; said(send S, "x", 0, inet({port}))`, []string{"done", "done", unreachable, noFamily}},
	{"bind a port", `socket(S, 2, 1, 0) or print("$!"), exit; said(bind S, inet(0))`, []string{"done", "done", "done|" + denied, noFamily}},
	{"make a raw socket", `said(socket S, 2, 3, 1)`, []string{notPermitted, notPermitted, notPermitted, noFamily}},
	{"load a module by a socket", `said(socket S, 38, 5, 0)`, []string{"", noFamily, noFamily, noFamily}},

	{"signal superd", `said(kill 0, {superd})`, all(notPermitted)},
	{"signal init", `said(kill 0, 1)`, all(notPermitted)},
	{"signal another service of its user", `said(kill 0, {victim})`, []string{"done", "done", "done", "{scoped}"}},
	{"trace superd", `call({ptrace}, 0x4206, {superd}, 0, 0)`, []string{notPermitted, "SIGSYS", "SIGSYS", "SIGSYS"}},
	{"trace another service of its user", `call({ptrace}, 0x4206, {victim}, 0, 0)`, []string{"{traces}", "SIGSYS", "SIGSYS", "SIGSYS"}},
	{"read superd's memory", `said(open F, "<", "/proc/{superd}/mem")`, []string{denied, denied, denied, notThere}},
	{"write superd's memory", `said(open F, "+<", "/proc/{superd}/mem")`, []string{denied, denied, denied, notThere}},
	{"read superd's environment", `said(open F, "<", "/proc/{superd}/environ")`, []string{denied, denied, denied, notThere}},
	{"read memory without opening it", `call({process_vm_readv}, {victim}, 0, 0, 0, 0, 0)`, []string{"", "SIGSYS", "SIGSYS", "SIGSYS"}},
	{"write superd's descriptors", `said(open F, ">", "/proc/{superd}/fd/2")`, []string{denied, denied, denied, notThere}},

	{"mount", `call({mount}, "none", "/tmp", "tmpfs", 0, 0)`, []string{notPermitted, "SIGSYS", "SIGSYS", "SIGSYS"}},
	{"make a user namespace", `call({unshare}, 0x10000000)`, []string{"", notPermitted, notPermitted, notPermitted}},
	{"leave its root", `call({chroot}, "/")`, all(notPermitted)},
	{"use io_uring", `call({io_uring_setup}, 1, "\0" x 120)`, []string{"", noCall, noCall, noCall}},
	{"load code into the kernel", `call({bpf}, 5, "\0" x 120, 120)`, []string{"", "SIGSYS", "SIGSYS", "SIGSYS"}},
	{"set the clock", `call({clock_settime}, 0, "\0" x 16)`, []string{notPermitted, "SIGSYS", "SIGSYS", "SIGSYS"}},
	{"reboot", `call({reboot}, 0, 0, 0, 0)`, []string{"", "SIGSYS", "SIGSYS", "SIGSYS"}},
	{"become root", `$! = 0; ($<, $>) = (0, 0); said($< == 0)`, all(notPermitted)},
	{"become root through a file", `print system("{setuid}", "-u") < 0 ? "$!" : ""`, []string{"0\n", "65534\n", "65534\n", notThere}},
	{"raise its own limits", `call({prlimit64}, 0, 7, pack("QQ", 1 << 30, 1 << 30), 0)`, all(notPermitted)},
	{"lower its nice value", `said(setpriority 0, 0, -5)`, all(denied)},
}

// numbers are the system calls that acts make by number.
var numbers = map[string]int{
	"ptrace": unix.SYS_PTRACE, "process_vm_readv": unix.SYS_PROCESS_VM_READV, "mount": unix.SYS_MOUNT,
	"unshare": unix.SYS_UNSHARE, "chroot": unix.SYS_CHROOT, "io_uring_setup": unix.SYS_IO_URING_SETUP,
	"bpf": unix.SYS_BPF, "clock_settime": unix.SYS_CLOCK_SETTIME, "reboot": unix.SYS_REBOOT,
	"prlimit64": unix.SYS_PRLIMIT64, "connect": unix.SYS_CONNECT,
}

// landlockABI is the version of Landlock that the kernel offers, 0 for none.
func landlockABI() int {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(abi)
}

func needLandlock(t testing.TB, abi int) {
	t.Helper()
	if has := landlockABI(); has < abi {
		skip(t, fmt.Sprintf("this needs Landlock ABI %d, the kernel has %d", abi, has))
	}
}

// outcome has a service do something, and tells what became of it: what it
// answered, and the signal that ended it, where one did.
func (d *process) outcome(service, code string) string {
	d.t.Helper()
	ended := func(r record) bool { return r.is("exited") && r.text("service") == service }
	d.mu.Lock()
	before := 0
	for _, r := range d.records {
		if ended(r) {
			before++
		}
	}
	d.mu.Unlock()
	c := d.dial(service)
	if _, err := io.WriteString(c, prelude+code); err != nil {
		d.t.Fatal(err)
	}
	c.CloseWrite()
	answer, _ := io.ReadAll(c) // an act may reset it
	c.Close()
	r := d.awaitMany(before+1, ended)[before]
	return string(answer) + r.text("signal")
}

// hold connects to a service that stays, and returns its process.
func (d *process) hold(service string) (c *net.TCPConn, pid int) {
	d.t.Helper()
	c = d.dial(service)
	local := c.LocalAddr().String()
	r := d.await(func(r record) bool { return r.is("started") && r.text("peer") == local })
	return c, int(r.number("pid"))
}

// listener accepts and forgets, in superd's own network.
func listener(t *testing.T) (port int) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func TestActs(t *testing.T) {
	needRoot(t)
	needLandlock(t, 1)
	perl := program(t, "perl")
	yaml := "log: {level: debug}\nservices:\n  victim: {listen: \"127.0.0.1:0\", run: /bin/cat}\n"
	for _, preset := range presetsOfActs {
		yaml += fmt.Sprintf("  %s: {listen: \"127.0.0.1:0\", run: [%s, -e, '%s'], sandbox: %s, rlimits: {core: 0}}\n", preset, perl, obedient, preset)
	}
	d := start(t, yaml)
	c, victim := d.hold("victim")
	d.talk(c, "here")
	words := []string{
		"{superd}", strconv.Itoa(d.pid()), "{victim}", strconv.Itoa(victim), "{port}", strconv.Itoa(listener(t)),
		"{setuid}", setUserID(t), "{scoped}", ifElse(landlockABI() >= 6, notPermitted, "done"),
		"{traces}", ifElse(freeToTrace(), "done", notPermitted),
	}
	dir := openDir(t)
	own := writeFile(t, dir, "own", "", 0o600)
	if err := os.Chown(own, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	words = append(words, "{open}", dir, "{own}", own)
	for name, number := range numbers {
		words = append(words, "{"+name+"}", strconv.Itoa(number))
	}
	fill := strings.NewReplacer(words...).Replace
	for _, a := range acts {
		for i, preset := range presetsOfActs {
			got := d.outcome(preset, fill(a.code))
			if want := fill(a.want[i]); a.want[i] != "" && !slices.Contains(strings.Split(want, "|"), got) {
				t.Errorf("%s, %s: %q, want %q", a.name, preset, got, want)
			}
		}
	}
	if children := d.children(); len(children) != 1 || !strings.HasPrefix(children[0], strconv.Itoa(victim)+" ") {
		t.Errorf("superd's children are %v; only %d should be", children, victim)
	}
}

func ifElse(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}

// freeToTrace tells whether a process may trace another of its user.
func freeToTrace() bool {
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	return err != nil || strings.TrimSpace(string(scope)) == "0"
}

// openDir is a directory that everybody may write to, and that no private /tmp
// hides.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/usr/local/lib", "superd-test")
	if err != nil {
		skip(t, "this needs a place outside /tmp: "+err.Error())
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// setUserID is id(1) as a set-user-ID program of root's.
func setUserID(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(program(t, "id"))
	if err != nil {
		t.Fatal(err)
	}
	path := writeFile(t, publicDir(t), "id", string(content), 0o755)
	if err := os.Chmod(path, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil || fs.Flags&unix.ST_NOSUID != 0 {
		skip(t, "this needs a temporary directory that is not mounted nosuid")
	}
	return path
}

// A connection stays in superd's network. Whoever dissolves it could connect it
// to another place there.
func TestConnectionIsNoWayOut(t *testing.T) {
	needRoot(t)
	needLandlock(t, 4)
	perl := program(t, "perl")
	yaml := "services:\n"
	for _, preset := range presetsOfActs {
		yaml += fmt.Sprintf("  %s: {listen: \"127.0.0.1:0\", run: [%s, -e, '%s'], sandbox: %s}\n", preset, perl, obedient, preset)
	}
	d := start(t, yaml)
	for deed, code := range map[string]string{
		"connect": fmt.Sprintf("syscall(%d, 0, $to, 16)", unix.SYS_CONNECT),
		"listen":  fmt.Sprintf("(syscall(%d, 0, $to, 16) || syscall(%d, 0, 1))", unix.SYS_BIND, unix.SYS_LISTEN),
	} {
		port := map[string]int{"connect": listener(t)}[deed]
		for i, preset := range presetsOfActs {
			d.outcome(preset, fmt.Sprintf(`my ($none, $to) = ("\0" x 16, inet(%d)); syscall(%d, 0, $none, 16); exit(%s == -1 ? $! + 0 : 0)`, port, unix.SYS_CONNECT, code))
			want := []float64{0, 0, float64(unix.EACCES), float64(unix.EACCES)}[i]
			if r := d.exited(preset, 1); r[len(r)-1].number("status") != want {
				t.Errorf("%s, %s: %v", deed, preset, r[len(r)-1])
			}
		}
	}
}

// hostile is a service that does what its client says.
func hostile(t *testing.T, name, keys string) string {
	t.Helper()
	return fmt.Sprintf("  %s: {listen: '127.0.0.1:0', run: [%s, -e, '%s'], %s}\n", name, program(t, "perl"), obedient, keys)
}

func TestLimitsBite(t *testing.T) {
	needRoot(t)
	t.Parallel()
	yaml := "services:\n  echo: {listen: '127.0.0.1:0', builtin: echo}\n"
	for i, c := range limitsThatBite {
		yaml += hostile(t, fmt.Sprint("s", i), ifElse(c.keys == "", "timeout: {session: 1s, stop: 1h}", c.keys))
	}
	d := startAsked(t, strings.ReplaceAll(yaml, "{user}", strconv.Itoa(someUser+1)))
	for i, c := range limitsThatBite {
		service := fmt.Sprint("s", i)
		if c.reason == "kill" {
			d.killWhenReady(service, c.code)
		}
		answer := ""
		if c.reason != "kill" {
			answer = d.outcome(service, c.code)
		}
		r := d.exited(service, 1)[0]
		if signal := r.text("signal"); !strings.HasPrefix(answer, c.want) || !slices.Contains(strings.Split(c.signal, "|"), signal) || r.text("reason") != c.reason {
			t.Errorf("%s: it answers %.200q and ends as %v", c.name, answer, r)
		}
		if c.leftovers >= 0 && max(0, int(r.number("leftovers"))) != c.leftovers { // of some it is chance
			t.Errorf("%s: %v is left over, not %d", c.name, r.number("leftovers"), c.leftovers)
		}
		if got := d.ask("echo", "still here"); got != "still here" {
			t.Fatalf("%s: afterwards the echo is %q", c.name, got)
		}
	}
	eventually(t, func() error {
		if left := processesOf(t, someUser+1); len(left) > 0 {
			return fmt.Errorf("of those who forked there are %v", left)
		}
		return nil
	})
}

// processesOf are the processes of a user.
func processesOf(t *testing.T, uid int) (list []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		var s unix.Stat_t
		if unix.Stat(p, &s) == nil && int(s.Uid) == uid {
			list = append(list, filepath.Base(p))
		}
	}
	return list
}

// killWhenReady has superd end a program once it says that it is ready.
func (a asked) killWhenReady(service, code string) {
	a.t.Helper()
	c := a.dial(service)
	io.WriteString(c, prelude+code)
	c.CloseWrite()
	if got := line(a.t, c); got != "ready" {
		a.t.Errorf("it says %q", got)
	}
	a.told("kill", "--service", service)
}

// limitsThatBite are deeds and what ends them. Without keys, time alone does; and
// an order those that are to be ready for their end.
var limitsThatBite = []struct {
	name, keys, code     string
	want, signal, reason string
	leftovers            int
}{
	{"fill memory", "rlimits: {memory: 256M}", `print "begun"; my $x = "x" x (1 << 20); $x .= $x while 1`, "begun", "", "", 0},
	{"allocate too much", "rlimits: {data: 128M}", `print "begun"; my $x = "x" x (1 << 20); $x .= $x while 1`, "begun", "", "", 0},
	{"open many descriptors", "rlimits: {nofile: 64}", `for (1 .. 1000) { open($f[$_], "<", "/dev/null") or print("$_ $!"), last }`, "62 Too many open files", "", "", 0},
	{"raise a limit", "rlimits: {nofile: {soft: 16, hard: 64}}",
		fmt.Sprintf(`for my $n (64, 65) { my $l = pack "QQ", $n, 64 > $n ? 64 : $n; call(%d, 0, %d, $l, 0); print " " }`, unix.SYS_PRLIMIT64, unix.RLIMIT_NOFILE),
		"done " + notPermitted, "", "", 0},
	{"fork", "user: '{user}', rlimits: {nproc: 8}", `my $n = 0; while (defined(my $p = fork)) { $p or sleep(1000), exit; $n++ } print "$n $!"`,
		"7 Resource temporarily unavailable", "", "", 7},
	{"use the processor", "rlimits: {cpu: 1s}", `1 while 1`, "SIGKILL", "SIGKILL", "", 0},
	{"use the processor until told", "rlimits: {cpu: {soft: 1s, hard: 5s}}", `$SIG{XCPU} = sub { print "told"; exit }; 1 while 1`, "told", "", "", 0},
	{"write a large file", "rlimits: {fsize: 64K}, sandbox: {private_tmp: true}", `open F, ">", "/tmp/x"; syswrite F, "x" x 100_000 while 1`, "SIGXFSZ", "SIGXFSZ", "", 0},
	{"fill its own /tmp", "sandbox: {private_tmp: true}", `open F, ">", "/tmp/x"; 1 while syswrite F, "x" x (1 << 20); print "$! ", -s "/tmp/x"`,
		"No space left on device 67108864", "", "", 0},
	{"fork without end", "user: '{user}', rlimits: {nproc: 8}, timeout: {session: 1s, stop: 100ms}", `fork while 1`, "SIG", "SIGTERM|SIGKILL", "timeout.session", -1},
	{"catch TERM", "timeout: {stop: 100ms}", `$SIG{TERM} = "IGNORE"; print "ready\n"; sleep 1 while 1`, "", "SIGKILL", "kill", 0},
	{"hold the session open", "", `close STDOUT; sleep 1 while 1`, "SIGTERM", "SIGTERM", "timeout.session", 0},
	{"stop itself", "", `kill STOP => $$; sleep 1 while 1`, "SIGTERM", "SIGTERM", "timeout.session", 0},
	{"stop itself and catch TERM", "timeout: {stop: 100ms}", `$SIG{TERM} = sub { kill STOP => $$ }; print "ready\n"; kill STOP => $$; sleep 1 while 1`, "", "SIGKILL", "kill", 0},
	{"go on after its end", "timeout: {stop: 100ms}", `pipe R, W; if (!fork) { $SIG{TERM} = "IGNORE"; print "I stay"; close W; sleep 1000 } close W; <R>`, "I stay", "", "", 1},
	{"crash", "rlimits: {core: 0}", `kill SEGV => $$; sleep 1`, "SIGSEGV", "SIGSEGV", "", 0},
}

// TestOthersAreServedMeanwhile: a program that floods the log, and one that
// stands still, keep no other service from its work. The flood may cost records
// of the log, its own end's too.
func TestOthersAreServedMeanwhile(t *testing.T) {
	t.Parallel()
	d := startAsked(t, "services:\n  echo: {listen: '127.0.0.1:0', builtin: echo}\n"+hostile(t, "flood", "keep: true")+hostile(t, "stands", "keep: true"))
	var bad []net.Conn
	for service, code := range map[string]string{"flood": `print 1; print STDERR "x" x 8000, "\n" while 1`, "stands": `print 1; kill STOP => $$`} {
		c := d.dial(service)
		io.WriteString(c, prelude+code)
		c.CloseWrite()
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		bad = append(bad, c)
	}
	for range 50 {
		if got := d.ask("echo", "hello"); got != "hello" {
			t.Fatalf("the echo of hello is %q", got)
		}
	}
	d.told("kill", "--source", here)
	for _, c := range bad {
		d.closed(c)
	}
}

// What a program sees of its walls in /proc/self/status.
func TestProgramSeesItsWalls(t *testing.T) {
	needRoot(t)
	needLandlock(t, 1)
	t.Parallel()
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	const none = "0000000000000000"
	bounding := field(t, string(own), "CapBnd")
	cases := []struct {
		keys, noNewPrivs, seccomp, bounding, rest string // rest: permitted, effective, inheritable, ambient
		groups                                    string
	}{
		{"sandbox: none", "0", "0", bounding, none, "65534"},
		{"sandbox: basic", "1", "2", bounding, none, "65534"},
		{"sandbox: offline", "1", "2", bounding, none, "65534"},
		{"sandbox: {preset: strict, read: [/proc]}", "1", "2", bounding, none, "65534"},
		{"groups: []", "1", "2", bounding, none, ""},
		{"groups: [4, '12345']", "1", "2", bounding, none, "4 12345"},
		{"sandbox: {no_new_privs: false, system_calls: all}", "0", "0", bounding, none, "65534"},
		{"sandbox: {capabilities: []}", "1", "2", none, none, "65534"},
		{"sandbox: {capabilities: [CAP_NET_BIND_SERVICE, chown]}", "1", "2", "0000000000000401", "0000000000000401", "65534"},
		{"sandbox: {preset: none, capabilities: [net_bind_service]}", "0", "0", "0000000000000400", "0000000000000400", "65534"},
		{"user: root, groups: [], sandbox: {capabilities: [kill]}", "1", "2", "0000000000000020", "0000000000000020", ""},
	}
	yaml := "services:\n"
	for i, c := range cases {
		yaml += fmt.Sprintf("  s%d: {listen: '127.0.0.1:0', %s, %s}\n", i, ownStatus, c.keys)
	}
	d := start(t, yaml)
	for i, c := range cases {
		status := d.ask(fmt.Sprint("s", i), "")
		for name, want := range map[string]string{
			"NoNewPrivs": c.noNewPrivs, "Seccomp": c.seccomp, "Groups": c.groups, "CapBnd": c.bounding,
			"CapPrm": c.rest, "CapEff": c.rest, "CapInh": c.rest, "CapAmb": c.rest,
		} {
			if got := field(t, status, name); got != want {
				t.Errorf("%s: %s is %q, not %q", c.keys, name, got, want)
			}
		}
	}
}

// A capability that is kept is of use, and one that is not is not.
func TestCapabilitiesAreOfUse(t *testing.T) {
	needRoot(t)
	t.Parallel()
	d := start(t, "services:\n"+
		hostile(t, "with", "sandbox: {capabilities: [chown, net_raw]}")+
		hostile(t, "without", "sandbox: {capabilities: []}")+
		hostile(t, "root", "user: root, sandbox: {capabilities: [chown]}"))
	own := writeFile(t, publicDir(t), "own", "", 0o600)
	const raw = `said(socket S, 2, 3, 1)`
	for _, c := range []struct{ service, code, want string }{
		{"with", fmt.Sprintf(`said(chown 1, 1, "%s")`, own), "done"},
		{"without", fmt.Sprintf(`said(chown 1, 1, "%s")`, own), notPermitted},
		{"with", raw, "done"},
		{"without", raw, notPermitted},
		{"root", fmt.Sprintf(`said(chown 0, 0, "%s")`, own), "done"},
		{"root", raw, notPermitted},
		{"root", `said(open F, "<", "/etc/shadow")`, "done"}, // it is the owner
		{"root", fmt.Sprintf(`chown 1, 1, "%s"; said(open F, "<", "%[1]s")`, own), denied},
		{"root", fmt.Sprintf(`call(%d, "none", "/tmp", "tmpfs", 0, 0)`, unix.SYS_MOUNT), "SIGSYS"},
	} {
		if got := d.outcome(c.service, c.code); got != c.want {
			t.Errorf("%s: %s: %q, want %q", c.service, c.code, got, c.want)
		}
	}
}

// TestSixteenLimits: each key of rlimits is the kernel's limit of that name,
// soft and hard.
func TestSixteenLimits(t *testing.T) {
	needRoot(t)
	t.Parallel()
	limits := []struct{ key, value, kernel string }{
		{"cpu", "{soft: 1m, hard: 2m}", "Max cpu time 60 120 seconds"},
		{"fsize", "{soft: 1M, hard: 2M}", "Max file size 1048576 2097152 bytes"},
		{"data", "{soft: 1G, hard: 2G}", "Max data size 1073741824 2147483648 bytes"},
		{"stack", "{soft: 4M, hard: 16M}", "Max stack size 4194304 16777216 bytes"},
		{"core", "{soft: 0, hard: 1K}", "Max core file size 0 1024 bytes"},
		{"rss", "{soft: 64M, hard: unlimited}", "Max resident set 67108864 unlimited bytes"},
		{"nproc", "{soft: 1000, hard: 2000}", "Max processes 1000 2000 processes"},
		{"nofile", "{soft: 30, hard: 60}", "Max open files 30 60 files"},
		{"memlock", "{soft: 64K, hard: 128K}", "Max locked memory 65536 131072 bytes"},
		{"memory", "{soft: 3G, hard: unlimited}", "Max address space 3221225472 unlimited bytes"},
		{"locks", "{soft: 5, hard: 6}", "Max file locks 5 6 locks"},
		{"sigpending", "{soft: 7, hard: 8}", "Max pending signals 7 8 signals"},
		{"msgqueue", "{soft: 8K, hard: 16K}", "Max msgqueue size 8192 16384 bytes"},
		{"nice", "{soft: 1, hard: 2}", "Max nice priority 1 2"},
		{"rtprio", "{soft: 3, hard: 4}", "Max realtime priority 3 4"},
		{"rttime", "{soft: 5ms, hard: unlimited}", "Max realtime timeout 5000 unlimited us"},
	}
	own, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	keys, want := []string{}, ""
	for _, l := range limits {
		if none := regexp.MustCompile("(?m)^" + strings.Join(strings.Fields(l.kernel)[:3], " ") + " +0 +0 "); none.Match(own) && !mayRaise(t) {
			t.Logf("SKIPPED: %s: to raise it takes CAP_SYS_RESOURCE", l.key)
			want += strings.Join(strings.Fields(l.kernel)[:3], " ") + " 0 0\n"
			continue
		}
		keys = append(keys, l.key+": "+l.value)
		want += l.kernel + "\n"
	}
	d := start(t, fmt.Sprintf("services:\n  all: {listen: '127.0.0.1:0', run: [/bin/cat, /proc/self/limits], rlimits: {%s}}\n  none: {listen: '127.0.0.1:0', run: [/bin/cat, /proc/self/limits]}\n",
		strings.Join(keys, ", ")))
	plain := func(table string) (lines string) {
		for line := range strings.Lines(table) {
			if strings.HasPrefix(line, "Max ") {
				lines += strings.Join(strings.Fields(line), " ") + "\n"
			}
		}
		return lines
	}
	if got := plain(d.ask("all", "")); got != want {
		t.Errorf("the limits are\n%s\nnot\n%s", got, want)
	}
	openFiles := regexp.MustCompile("(?m)^Max open files .*\n") // of a Go program it is not what it was started with
	if got, want := openFiles.ReplaceAllString(plain(d.ask("none", "")), ""), openFiles.ReplaceAllString(plain(string(own)), ""); got != want {
		t.Errorf("without rlimits the limits are\n%s\nnot\n%s", got, want)
	}
}

// mayRaise tells whether superd may raise hard limits, as root may on a machine
// of its own.
func mayRaise(t *testing.T) bool {
	t.Helper()
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	set, err := strconv.ParseUint(field(t, string(own), "CapEff"), 16, 64)
	return err == nil && set&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// inImage is a built-in's program in a file of its own.
func inImage(t *testing.T, dir string) {
	t.Helper()
	content, err := services.Image("greeting", services.Options{})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "greet", string(content), 0o755)
}

func TestRootDirectory(t *testing.T) {
	needRoot(t)
	needLandlock(t, 1)
	t.Parallel()
	dir, empty := publicDir(t), publicDir(t)
	inImage(t, dir)
	for _, sub := range []string{"dir", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d := start(t, fmt.Sprintf(`
services:
  file: {listen: "127.0.0.1:0", run: /greet, chroot: %[1]s}
  dir: {listen: "127.0.0.1:0", run: /greet, chroot: %[1]s, dir: /dir, stderr: "null"}
  offline: {listen: "127.0.0.1:0", run: /greet, chroot: %[1]s, sandbox: offline}
  strict: {listen: "127.0.0.1:0", run: /greet, chroot: %[1]s, sandbox: strict}
  open: {listen: "127.0.0.1:0", run: /greet, chroot: %[1]s, sandbox: {preset: strict, read: [/dir], write: [/tmp]}}
  empty: {listen: "127.0.0.1:0", builtin: greeting, chroot: %[2]s}
  strict-empty: {listen: "127.0.0.1:0", builtin: greeting, chroot: %[2]s, sandbox: strict}
  missing: {listen: "127.0.0.1:0", run: /bin/cat, chroot: %[1]s}
  no-dir: {listen: "127.0.0.1:0", run: /greet, chroot: %[1]s, dir: /etc}
`, dir, empty))
	for _, service := range []string{"file", "dir", "offline", "strict", "open", "empty", "strict-empty"} {
		for range 2 {
			if got := d.ask(service, ""); got != "hi client" {
				t.Errorf("%s says %q", service, got)
			}
		}
		checkStatus(t, d.exited(service, 2))
	}
	for service, want := range map[string]string{
		"missing": "cannot execute /bin/cat: ENOENT",
		"no-dir":  "cannot change to the directory /etc: ENOENT",
	} {
		d.ask(service, "")
		if r := d.refused(service); r.text("reason") != "spawn" || !strings.HasPrefix(r.text("error"), want) {
			t.Errorf("%s: %v", service, r)
		}
	}
}

// TestStrictIsEnough: a program that needs nothing, and a shell that stays
// inside itself, run in a strict sandbox as they are.
func TestStrictIsEnough(t *testing.T) {
	needRoot(t)
	needLandlock(t, 1)
	t.Parallel()
	dir := openDir(t)
	inImage(t, dir)
	script := writeFile(t, dir, "script", "#!/bin/sh\nread -r x; echo \"$x in $PWD\"; echo x > /tmp/y; read -r z < /tmp/y; echo $z\n", 0o755)
	d := start(t, fmt.Sprintf(`
services:
  tiny: {listen: "127.0.0.1:0", run: %[1]s/greet, sandbox: strict, linger: 1h}
  sh: {listen: "127.0.0.1:0", run: [/bin/sh, -c, 'read -r x; echo "$x"; (echo child); kill -0 $$ && echo self'], sandbox: strict}
  script: {listen: "127.0.0.1:0", run: %[2]s, dir: %[1]s, sandbox: strict}
  others: {listen: "127.0.0.1:0", run: [/bin/sh, -c, '/bin/ls'], sandbox: strict, stderr: client, linger: 1h}
`, dir, script))
	for service, want := range map[string]string{
		"tiny": "hi client", "sh": "hello\nchild\nself\n", "script": "hello in " + dir + "\nx\n",
		"others": "/bin/sh: 1: /bin/ls: Permission denied\n",
	} {
		if got := d.ask(service, "hello\n"); got != want {
			t.Errorf("%s says %q, not %q", service, got, want)
		}
	}
}

// TestPrivateTmp: each connection has a /tmp of its own, which nobody sees and
// which is gone with it.
func TestPrivateTmp(t *testing.T) {
	needRoot(t)
	t.Parallel()
	const script = `ls -A /tmp /var/tmp; read -r name; echo "$name" > /tmp/$name; cat /var/tmp/$name; read -r x; ls /tmp`
	yaml := fmt.Sprintf("services:\n  tmp: {listen: '127.0.0.1:0', %s, sandbox: {private_tmp: true}}\n", shell(script))
	d := start(t, yaml)
	name := fmt.Sprint("superd-test-", os.Getpid())
	var visitors []*net.TCPConn
	come := func() {
		t.Helper()
		i, c := len(visitors), d.dial("tmp")
		visitors = append(visitors, c)
		mine := fmt.Sprint(name, i, "\n")
		io.WriteString(c, mine)
		want := "/tmp:\n\n/var/tmp:\n" + mine
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Fatalf("it says %q, not %q, %v", got, want, err)
		}
	}
	for range 12 { // more than are made ahead
		come()
	}
	d.upgradeNow(1)
	come()
	d.rewrite(1, yaml+"  other: {listen: '127.0.0.1:0', run: /bin/cat}\n")
	come()
	if left, _ := filepath.Glob("/*/" + name + "*"); len(left) > 0 {
		t.Errorf("outside there is %v", left)
	}
	for i, c := range visitors {
		io.WriteString(c, "\n")
		if rest, _ := io.ReadAll(c); string(rest) != fmt.Sprint(name, i, "\n") {
			t.Errorf("in the end there is %q in it", rest)
		}
	}
	d.idle++ // one more socket
}

// TestNetworkFalse: what is closed, and that the connection is not.
func TestNetworkFalse(t *testing.T) {
	needRoot(t)
	t.Parallel()
	d := start(t, "services:\n"+hostile(t, "closed", "sandbox: offline")+"  echo: {listen: '127.0.0.1:0', run: /bin/cat, sandbox: offline}\n"+
		"  links: {listen: '127.0.0.1:0', run: [/bin/cat, /proc/net/dev], sandbox: offline}\n")
	much := string(noise(1, 1<<20))
	if err := checkSame([]byte(d.ask("echo", much)), []byte(much)); err != nil {
		t.Error(err)
	}
	if got := strings.Count(d.ask("links", ""), "\n"); got != 3 { // two of a heading, and lo
		t.Errorf("the program sees %d interfaces", got-2)
	}
	for code, want := range map[string]string{
		`socket(S, 10, 1, 0); said(connect S, pack("S n N a16 N", 10, 80, 0, "\x20\x01" . "\0" x 13 . "\1", 0))`:      "Cannot assign requested address|" + denied,
		`socket(S, 1, 1, 0); said(connect S, pack("S a*", 1, "\0/abstract"))`:                                         "Connection refused",
		`my ($a, $b); said(socketpair $a, $b, 1, 1, 0)`:                                                               "done",
		`my $s = "\0" x 16; my $l = pack "L", 16; print syscall(` + fmt.Sprint(unix.SYS_GETPEERNAME) + `, 0, $s, $l)`: "0",
	} {
		if got := d.outcome("closed", code); !slices.Contains(strings.Split(want, "|"), got) {
			t.Errorf("%s: %q, want %q", code, got, want)
		}
	}
}

// inCopy is a command line of superd by an ordinary user.
func ordinary(t *testing.T, yaml string, args ...string) (code int, out, complaints string) {
	t.Helper()
	file := writeFile(t, publicDir(t), "superd.yaml", yaml, 0o644)
	cmd := superd(append(args, "-c", file)...)
	if os.Geteuid() == 0 {
		asUser(t, cmd, someUser+2)
	}
	code, out, complaints = finished(t, cmd)
	return code, strings.ReplaceAll(out, file, "FILE"), strings.ReplaceAll(complaints, file, "FILE")
}

// TestWallsThatTakeRoot: an ordinary user is told so at start, by check as by
// run, and best_effort makes it a warning.
func TestWallsThatTakeRoot(t *testing.T) {
	needLandlock(t, 4)
	t.Parallel()
	const (
		takesRoot = "it takes root: CAP_SYS_ADMIN"
		leftOut   = takesRoot + "; left out, as best_effort allows: "
		hint      = " (start superd as root, or do without it by best_effort: true)"
		mounts    = "private_tmp: cannot build the mount namespace: "
		network   = "network: cannot build the network namespace: "
		alone     = "Landlock alone guards it, and does not see chmod, chown, utime and setxattr, nor stat, access, readlink and chdir, nor connections to sockets in it"
	)
	for _, c := range []struct {
		keys         string // of a mapping
		errors, open []string
	}{
		{"private_tmp: true", []string{mounts + takesRoot + hint}, []string{mounts + leftOut + "/tmp and /var/tmp are those of the machine"}},
		{"preset: strict", []string{mounts + takesRoot + hint, network + takesRoot + hint}, []string{
			mounts + leftOut + "/tmp and /var/tmp are those of the machine, closed as all the rest; the file system is not read-only: " + alone,
			network + leftOut + "the filter refuses new sockets of the Internet, but abstract ones of the machine can be reached"}},
		{"preset: strict, private_tmp: false, network: true", nil, []string{
			": the file system is not read-only, which takes root (CAP_SYS_ADMIN): " + alone}},
		{"preset: offline", []string{network + takesRoot + hint}, []string{
			network + leftOut + "UDP, all other protocols and abstract sockets are open, and TCP where the kernel's Landlock does not close it"}},
	} {
		const file = "services:\n  walled: {listen: '127.0.0.1:0', run: /bin/cat, sandbox: {%s}}\n"
		for _, verb := range []string{"check", "run"} {
			if len(c.errors) == 0 {
				continue
			}
			code, _, complaints := ordinary(t, fmt.Sprintf(file, c.keys), verb)
			if said := saidOf("services.walled.sandbox", complaints); code != 1 || !slices.Equal(said, c.errors) {
				t.Errorf("%s, %s: %d, %q, not %q", c.keys, verb, code, said, c.errors)
			}
		}
		code, out, complaints := ordinary(t, fmt.Sprintf(file, c.keys+", best_effort: true"), "check")
		if said := saidOf("services.walled.sandbox", complaints); code != 0 || !strings.Contains(out, "no mistakes") || !slices.Equal(said, c.open) {
			t.Errorf("%s with best_effort: %d, %q, not %q", c.keys, code, said, c.open)
		}
	}
}

// saidOf is what is said of the keys of a mapping in a file, in order.
func saidOf(path, complaints string) (list []string) {
	for line := range strings.Lines(complaints) {
		if _, said, is := strings.Cut(strings.TrimSpace(line), " "+path); is {
			list = append(list, strings.TrimPrefix(said, "."))
		}
	}
	return list
}

// TestActsOfAnOrdinaryUsersPrograms: superd is an ordinary user, and so its
// programs share its user with it.
func TestActsOfAnOrdinaryUsersPrograms(t *testing.T) {
	needRoot(t) // to be another one
	needLandlock(t, 6)
	t.Parallel()
	yaml := "services:\n" + hostile(t, "none", "sandbox: none") + hostile(t, "basic", "sandbox: basic") +
		hostile(t, "closed", "sandbox: {preset: strict, private_tmp: false, network: true}") +
		hostile(t, "offline", "sandbox: {preset: offline, best_effort: true}")
	d := startCommand(t, asUser(t, prepare(t, yaml), someUser+3))
	own := writeFile(t, publicDir(t), "own", "", 0o600)
	if err := os.Chown(own, someUser+3, someUser+3); err != nil {
		t.Fatal(err)
	}
	services := []string{"none", "basic", "closed", "offline"}
	port := listener(t)
	for _, a := range []act{
		{"signal superd", fmt.Sprintf("said(kill 0, %d)", d.pid()), []string{"done", "done", notPermitted, "done"}},
		{"trace superd", fmt.Sprintf("call(%d, 0x4206, %d, 0, 0)", unix.SYS_PTRACE, d.pid()), []string{"", "SIGSYS", "SIGSYS", "SIGSYS"}},
		{"read a file of superd's", `said(open F, "<", "` + own + `")`, []string{"done", "done", denied, "done"}},
		{"change its mode", `said(chmod 0640, "` + own + `")`, []string{"done", "done", "done", "done"}},
		{"read everybody's", `said(open F, "<", "/etc/passwd")`, []string{"done", "done", denied, "done"}},
		{"write to /tmp", `said(open F, ">", "/tmp/superd-test")`, []string{"done", "done", denied, "done"}},
		{"connect", fmt.Sprintf("socket(S, 2, 1, 0); said(connect S, inet(%d))", port), []string{"done", "done", "done", denied}},
		{"bind", "socket(S, 2, 1, 0); said(bind S, inet(0))", []string{"done", "done", "done", denied}},
		{"send a datagram", fmt.Sprintf("socket(S, 2, 2, 0); said(send S, 'x', 0, inet(%d))", port), []string{"done", "done", "done", "done"}},
		{"become root", "$! = 0; ($<, $>) = (0, 0); said($< == 0)", []string{notPermitted, notPermitted, notPermitted, notPermitted}},
	} {
		for i, service := range services {
			if got := d.outcome(service, a.code); a.want[i] != "" && got != a.want[i] {
				t.Errorf("%s, %s: %q, want %q", a.name, service, got, a.want[i])
			}
		}
	}
	os.Remove("/tmp/superd-test")
}

// TestCheckShowsWalls: what check -v prints of walls, word for word.
func TestCheckShowsWalls(t *testing.T) {
	needRoot(t)
	needLandlock(t, 6) // an older one is told
	t.Parallel()
	empty := publicDir(t)
	file := writeFile(t, publicDir(t), "superd.yaml", fmt.Sprintf(`
services:
  plain: {listen: 7, run: /bin/cat, user: '64001'}
  strict: {listen: 8, run: /bin/cat, user: '64001', group: '64002', groups: ['64003', '64004'],
    sandbox: {preset: strict, read: [/etc], write: [/srv], exec: [/bin/ls, /bin/sh]}}
  rooted: {listen: "udp:9", builtin: echo, user: '64001', chroot: %s, sandbox: offline,
    rlimits: {nofile: {soft: 64, hard: 128}, core: 0, cpu: 10s}}
  caps: {listen: 10, run: /bin/cat, user: '64001', sandbox: {preset: none, capabilities: [CAP_CHOWN, kill]}}
  effort: {listen: 11, run: /bin/cat, user: '64001', sandbox: {read: [/no/such/path], best_effort: true}, enabled: false}
`, empty), 0o644)
	code, out, complaints := finished(t, superd("check", "-v", "-c", file))
	want := `plain:
    user 64001 (64001), group 64001 (64001), supplementary groups []
    sandbox basic
    capabilities none
    no_new_privs true
    system calls default
    network true
    private_tmp false
    file system as the user may
    allow everybody
    where there is no room: wait in the kernel's queue
strict:
    user 64001 (64001), group 64002 (64002), supplementary groups [64003 64004]
    sandbox strict
    capabilities none
    no_new_privs true
    system calls tight
    network false
    private_tmp true
    file system closed but for the program's own needs; read /etc; write /srv; exec /bin/ls /bin/sh
    allow everybody
    where there is no room: wait in the kernel's queue
rooted:
    user 64001 (64001), group 64001 (64001), supplementary groups []
    root directory ` + empty + `
    sandbox offline
    capabilities none
    no_new_privs true
    system calls default
    network false
    private_tmp false
    file system as the user may
    limit cpu 10, at most 10
    limit core 0, at most 0
    limit nofile 64, at most 128
    allow everybody
    where there is no room: wait, at most 100 clients for 10s
caps:
    user 64001 (64001), group 64001 (64001), supplementary groups []
    sandbox none
    capabilities chown kill
    no_new_privs false
    system calls all
    network true
    private_tmp false
    file system as the user may
    allow everybody
    where there is no room: wait in the kernel's queue
effort:
    enabled false
    user 64001 (64001), group 64001 (64001), supplementary groups []
    sandbox basic
    capabilities none
    no_new_privs true
    system calls default
    network true
    private_tmp false
    file system closed but for the program's own needs; read /no/such/path
    cannot open /no/such/path: no such file or directory; left out, as best_effort allows
    allow everybody
    where there is no room: wait in the kernel's queue
` + file + ": 5 services, no mistakes\n"
	if code != 0 || out != want {
		t.Errorf("check -v says %d\n%s\nnot\n%s", code, out, want)
	}
	if warning := "services.effort.sandbox.read[0]: cannot open /no/such/path: no such file or directory; left out"; !strings.Contains(complaints, warning) {
		t.Errorf("the warnings are %q", complaints)
	}
	if before := cgroupsOf(t); len(before) > 0 {
		t.Errorf("check leaves %v", before)
	}
}

// TestCheckShowsWhatIsLeftOut: of a wall that best_effort left out it does not say
// that it stands.
func TestCheckShowsWhatIsLeftOut(t *testing.T) {
	needLandlock(t, 6)
	t.Parallel()
	code, out, _ := ordinary(t, one("x", "run: /bin/cat, sandbox: {preset: strict, best_effort: true}, cgroup: {memory: 64M}"), "check", "-v")
	want := `    sandbox strict
    capabilities none
    no_new_privs true
    system calls tight
    network left out
    private_tmp left out
    file system closed but for the program's own needs
`
	if code != 0 || !strings.Contains(out, want) {
		t.Errorf("check -v ends with %d and says\n%s", code, out)
	}
}

// cgroupsOf lists what superd has made in the tree of control groups.
func cgroupsOf(t *testing.T) []string {
	t.Helper()
	list, _ := filepath.Glob("/sys/fs/cgroup/*/service.strict")
	return list
}

// TestCheckLooksAtPrograms: what could never work is found before it is tried.
func TestCheckLooksAtPrograms(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	writeFile(t, dir, "plain", "#!/bin/sh\n", 0o644)
	for keys, want := range map[string]string{
		"run: {dir}/plain":  "the program {dir}/plain is not executable (chmod +x)",
		"run: {dir}":        "{dir} is a directory",
		"run: {dir}/none":   "the program {dir}/none does not exist",
		"run: {dir}/none/x": "the program {dir}/none/x does not exist",
	} {
		fill := strings.NewReplacer("{dir}", dir).Replace
		file := writeFile(t, publicDir(t), "superd.yaml", fill("services:\n  x: {listen: 0, "+keys+"}\n"), 0o644)
		code, _, complaints := finished(t, superd("check", "-c", file))
		at := file + ":2:23: services.x.run: "
		if want == "" && (code != 0 || complaints != "") || want != "" && (code != 1 || complaints != at+fill(want)+"\n") {
			t.Errorf("%s: %d, %q, not %q", keys, code, complaints, fill(want))
		}
	}
}

// TestCheckLooksAtPrivileges: what a program's file is to give it and
// no_new_privs takes away is told, unless the service has it anyway.
func TestCheckLooksAtPrivileges(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := publicDir(t)
	for name, mode := range map[string]os.FileMode{"setuid": 0o755 | os.ModeSetuid, "setgid": 0o755 | os.ModeSetgid, "ping": 0o755} {
		if err := os.Chmod(writeFile(t, dir, name, "#!/bin/sh\n", 0o644), mode); err != nil {
			t.Fatal(err)
		}
	}
	// net_bind_service and net_raw, checkpoint_restore, and effective: struct vfs_cap_data of linux/capability.h.
	attribute := []byte{1, 0, 0, 2, 0, 0x24, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(dir+"/ping", "security.capability", attribute, 0); err != nil {
		skip(t, "this needs a file system with capabilities: "+err.Error())
	}
	const (
		ineffective = " is set-user-ID or set-group-ID, which no_new_privs makes ineffective (name the user that it needs with user, or write sandbox: {no_new_privs: false, system_calls: all})"
		lost        = "the program {dir}/ping has the file capabilities NAMES, which no_new_privs makes ineffective (write sandbox: {capabilities: [NAMES]}, or {no_new_privs: false, system_calls: all})"
	)
	losing := func(names string) string { return strings.ReplaceAll(lost, "NAMES", names) }
	for keys, want := range map[string]string{
		"run: {dir}/setuid": "the program {dir}/setuid" + ineffective,
		"run: {dir}/setgid": "the program {dir}/setgid" + ineffective,
		"run: {dir}/setuid, sandbox: {no_new_privs: false, system_calls: all}":                              "",
		"run: {dir}/setuid, sandbox: none":                                                                  "",
		"run: {dir}/setuid, user: root":                                                                     "",
		"run: {dir}/setgid, group: '0'":                                                                     "",
		"run: {dir}/setgid, user: root, group: '64001'":                                                     "the program {dir}/setgid" + ineffective,
		"run: {dir}/ping":                                                                                   losing("net_bind_service, net_raw, checkpoint_restore"),
		"run: {dir}/ping, sandbox: {capabilities: [net_raw]}":                                               losing("net_bind_service, checkpoint_restore"),
		"run: {dir}/ping, sandbox: {capabilities: [net_raw, net_bind_service, checkpoint_restore]}":         "",
		"run: {dir}/ping, sandbox: {no_new_privs: false, system_calls: all}":                                "",
		"run: {dir}/ping, user: root":                                                                       "",
		"run: {dir}/ping, user: root, sandbox: {capabilities: []}":                                          losing("net_bind_service, net_raw, checkpoint_restore"),
		"builtin: echo, allow: [{from: 127.0.0.1, run: {dir}/setuid}, {from: 127.0.0.2, run: {dir}/none}]":  "the program {dir}/setuid" + ineffective,
		"run: /bin/cat, chroot: {dir}/none, allow: [{from: 127.0.0.1, run: {dir}/setuid, dir: {dir}/none}]": "",
	} {
		fill := strings.NewReplacer("{dir}", dir).Replace
		file := writeFile(t, publicDir(t), "superd.yaml", fill("services:\n  x: {listen: '127.0.0.1:0', "+keys+"}\n"), 0o644)
		_, _, complaints := finished(t, superd("check", "-c", file))
		told := strings.Contains(complaints, "ineffective")
		if told != (want != "") || !strings.Contains(complaints, fill(want)+"\n") && want != "" {
			t.Errorf("%s: %q, not %q", keys, complaints, fill(want))
		}
		for line := range strings.Lines(complaints) {
			if strings.Contains(line, "ineffective") && strings.HasPrefix(line, "warning: ") != strings.Contains(want, "file capabilities") {
				t.Errorf("%s: %q", keys, line)
			}
		}
	}
}

// TestHiddenByPrivateTmp: what lies in the machine's /tmp is not there for who
// has a /tmp of its own. A built-in needs no file, and gets none.
func TestHiddenByPrivateTmp(t *testing.T) {
	needRoot(t)
	needLandlock(t, 3)
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "superd-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	elsewhere, err := os.MkdirTemp("/dev/shm", "superd-test")
	if err != nil {
		skip(t, "this needs a directory that is not below /tmp: "+err.Error())
	}
	t.Cleanup(func() { os.RemoveAll(elsewhere) })
	probe := writeFile(t, dir, "probe", "#!/bin/sh\n", 0o755)
	for _, err := range []error{os.Chmod(dir, 0o755), os.Chmod(elsewhere, 0o755), os.Symlink(probe, elsewhere+"/in"), os.Symlink("/bin/cat", dir+"/out")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	yaml := strings.NewReplacer("TMP", dir, "ELSE", elsewhere).Replace(`services:
  path: {listen: '127.0.0.1:0', run: TMP/probe, sandbox: {private_tmp: true}}
  link: {listen: '127.0.0.1:0', run: ELSE/in, dir: TMP, sandbox: strict}
  back: {listen: '127.0.0.1:0', run: TMP/out, sandbox: strict}
  rule: {listen: '127.0.0.1:0', run: /bin/cat, sandbox: strict, allow: [{from: 127.0.0.1, run: TMP/probe}]}
  list: {listen: '127.0.0.1:0', run: /bin/cat, sandbox: {preset: strict, read: [/etc, TMP], write: [/tmp, TMP/probe], exec: [ELSE/in]}}
  good: {listen: '127.0.0.1:0', run: TMP/probe, sandbox: {preset: strict, private_tmp: false, read: [TMP]}}
  echo: {listen: '127.0.0.1:0', builtin: echo, dir: TMP, sandbox: strict}
`)
	file := writeFile(t, publicDir(t), "superd.yaml", yaml, 0o644)
	code, _, complaints := finished(t, superd("check", "-c", file))
	d := startCommand(t, superd("run", "-c", file))
	const warning = true // of check; of run all are
	for want, kind := range map[string]bool{
		"path.run: the program TMP/probe":          !warning,
		"link.run: the program ELSE/in":            !warning,
		"link.dir: the directory TMP":              !warning,
		"back.run: the program TMP/out":            !warning,
		"rule.allow[0].run: the program TMP/probe": !warning,
		"list.sandbox.read[1]: TMP":                warning,
		"list.sandbox.write[1]: TMP/probe":         warning,
		"list.sandbox.exec[0]: ELSE/in":            warning,
	} {
		want = "services." + strings.NewReplacer("TMP", dir, "ELSE", elsewhere).Replace(want) +
			" does not exist in a /tmp of the program's own (put it elsewhere, or write sandbox: {private_tmp: false})"
		lines := slices.Collect(strings.Lines(complaints))
		i := slices.IndexFunc(lines, func(line string) bool { return strings.HasSuffix(line, want+"\n") })
		if i < 0 || strings.HasPrefix(lines[i], "warning: ") != kind {
			t.Errorf("check does not tell %s", want)
		}
		d.await(func(r record) bool { return r.text("level") == "warn" && strings.HasSuffix(r.text("message"), want) })
	}
	if n := strings.Count(complaints, "\n"); code != 1 || n != 8 {
		t.Errorf("check ends with %d and %d complaints:\n%s", code, n, complaints)
	}
}

// TestNeighboursOfOneUser: services that share a user can signal one another;
// users of their own are the cure, and a closed file system keeps a program to
// its own processes.
func TestNeighboursOfOneUser(t *testing.T) {
	needRoot(t)
	needLandlock(t, 6)
	t.Parallel()
	d := startAsked(t, "log: {level: debug}\nservices:\n  victim: {listen: '127.0.0.1:0', run: /bin/cat}\n"+
		"  stopped: {listen: '127.0.0.1:0', run: /bin/cat, timeout: {stop: 1h}}\n"+
		hostile(t, "same", "sandbox: basic")+hostile(t, "other", fmt.Sprintf("user: '%d'", someUser+4))+hostile(t, "strict", "sandbox: strict"))
	c, victim := d.hold("victim")
	for _, service := range []string{"other", "strict"} {
		for _, signal := range []string{"TERM", "KILL", "STOP"} {
			if got := d.outcome(service, fmt.Sprintf("said(kill %s => %d)", signal, victim)); got != notPermitted {
				t.Errorf("%s of %s: %q", signal, service, got)
			}
		}
	}
	d.talk(c, "unharmed")
	if got := d.outcome("same", fmt.Sprintf("said(kill KILL => %d)", victim)); got != "done" {
		t.Errorf("between programs of one user kill is %q", got)
	}
	if r := d.exited("victim", 1)[0]; r.text("signal") != "SIGKILL" || r.text("reason") != "" {
		t.Errorf("the victim ends as %v", r)
	}
	c, victim = d.hold("stopped")
	d.talk(c, "here")
	if got := d.outcome("same", fmt.Sprintf("said(kill STOP => %d)", victim)); got != "done" {
		t.Errorf("between programs of one user STOP is %q", got)
	}
	d.told("kill", "--service", "stopped")
	checkEnd(t, d.exited("stopped", 1)[0], "TERM", "kill")
}

// TestChildOnItsWay: between the change of its user and execve a child shares
// superd's memory. Whoever runs as that user must not get at it there.
func TestChildOnItsWay(t *testing.T) {
	needRoot(t)
	t.Parallel()
	slow := writeFile(t, publicDir(t), "slow", "#!/bin/cat\nnobody has touched me\n", 0o755)
	release := hangExec(t, slow)
	d := start(t, fmt.Sprintf("log: {level: debug}\nservices:\n  slow: {listen: '127.0.0.1:0', run: %s}\n", slow)+
		hostile(t, "attacker", "sandbox: none"))
	c, child := d.hold("slow")
	eventually(t, func() error {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child))
		if err == nil && !strings.HasPrefix(field(t, string(status), "Uid"), "65534") {
			err = fmt.Errorf("the child has not changed its user")
		}
		return err
	})
	for code, want := range map[string]string{
		fmt.Sprintf(`call(%d, 0x4206, %d, 0, 0)`, unix.SYS_PTRACE, child):                                                         notPermitted,
		fmt.Sprintf(`said(open F, "<", "/proc/%d/mem")`, child):                                                                   denied,
		fmt.Sprintf(`said(open F, "+<", "/proc/%d/mem")`, child):                                                                  denied,
		fmt.Sprintf(`said(opendir F, "/proc/%d/fd")`, child):                                                                      denied,
		fmt.Sprintf(`my $b = "x" x 8; my $v = pack "PQ", $b, 8; call(%d, %d, $v, 1, $v, 1, 0)`, unix.SYS_PROCESS_VM_READV, child): notPermitted,
	} {
		if got := d.outcome("attacker", code); got != want {
			t.Errorf("%s: %q, not %q", code, got, want)
		}
	}
	release()
	if got, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(got), "nobody has touched me\n") {
		t.Errorf("then it says %q, %v", got, err)
	}
}

// TestLeavingTheSession: a process that leaves the process group goes on; that
// is said in the manual, and a cgroup is the answer.
func TestLeavingTheSession(t *testing.T) {
	needRoot(t)
	t.Parallel()
	d := start(t, "services:\n"+hostile(t, "leaver", "sandbox: strict"))
	pid, err := strconv.Atoi(d.outcome("leaver", fmt.Sprintf(
		`my $p = fork; if (!$p) { syscall(%d); print $$; close $_ for *STDIN, *STDOUT, *STDERR; kill STOP => $$; exit } waitpid $p, 2`, unix.SYS_SETSID)))
	if err != nil {
		t.Fatal(err)
	}
	unix.Kill(pid, unix.SIGKILL)
	if r := d.exited("leaver", 1)[0]; r.number("leftovers") != -1 {
		t.Errorf("it ends as %v", r)
	}
}

// Real programs in a strict sandbox, with what superd-program(7) says that
// they need.
func TestProgramsUnderStrict(t *testing.T) {
	needRoot(t)
	needLandlock(t, 1)
	t.Parallel()
	for _, c := range talks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run := append([]string{installed(t, c.run[0])}, c.run[1:]...)
			d := start(t, fmt.Sprintf("services: {talk: {listen: '127.0.0.1:0', run: %s, sandbox: strict}}", yamlList(run...)))
			if err := c.with(d.address("talk")); err != nil {
				t.Error(err)
			}
			checkStatus(t, d.allExited("talk", 1))
		})
	}
	for name, try := range map[string]func(*testing.T, string){
		"sqlite3": strictSQLite, "httpd": strictHTTPD, "git": strictGit, "rsync": strictRsync, "zone": strictZone,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			try(t, openDir(t))
		})
	}
}

func strictSQLite(t *testing.T, dir string) {
	sqlite := yamlList(installed(t, "sqlite3"), "-batch", dir+"/db")
	d := start(t, fmt.Sprintf(`
services:
  write: {listen: "127.0.0.1:0", run: %[1]s, sandbox: {preset: strict, write: [%[2]s]}}
  read: {listen: "127.0.0.1:0", run: %[1]s, sandbox: {preset: strict, read: [%[2]s]}, stderr: client}
`, sqlite, dir))
	if got := d.ask("write", "create table t(a); insert into t values (7), (8); select sum(a) from t;\n"); got != "15\n" {
		t.Errorf("the sum is %q", got)
	}
	if got := d.ask("read", "select count(*) from t;\n"); got != "2\n" {
		t.Errorf("the count is %q", got)
	}
	if got := d.ask("read", "insert into t values (9);\n"); !strings.Contains(got, "readonly") {
		t.Errorf("to write where it may read says %q", got)
	}
}

func strictHTTPD(t *testing.T, dir string) {
	writeFile(t, dir, "page", "a page\n", 0o644)
	if err := os.Mkdir(filepath.Join(dir, "cgi-bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "cgi-bin/hello", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nhello\\n'\n", 0o755)
	run := yamlList(installed(t, "busybox"), "httpd", "-i", "-h", dir)
	d := start(t, fmt.Sprintf(`
services:
  files: {listen: "127.0.0.1:0", run: %[1]s, sandbox: {preset: strict, read: [%[2]s]}}
  cgi: {listen: "127.0.0.1:0", run: %[1]s, sandbox: {preset: strict, read: [%[2]s], exec: [%[2]s/cgi-bin/hello, /bin/sh]}}
`, run, dir))
	for _, c := range []struct{ service, path, want string }{
		{"files", "/page", "a page\n"}, {"cgi", "/page", "a page\n"}, {"cgi", "/cgi-bin/hello", "hello\n"},
	} {
		if got := d.ask(c.service, "GET "+c.path+" HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") && !strings.HasPrefix(got, "HTTP/1.0 200 ") || !strings.HasSuffix(got, c.want) {
			t.Errorf("%s of %s: %q", c.path, c.service, got)
		}
	}
}

func strictGit(t *testing.T, dir string) {
	g := newGitClient(t, dir)
	g.run("init", "-q", "first")
	g.commit(filepath.Join(dir, "first"), "a", 20)
	bases := filepath.Join(dir, "bases")
	g.run("clone", "-q", "--bare", "first", filepath.Join(bases, "work.git"))
	giveAway(t, bases)
	d := start(t, fmt.Sprintf(`
services:
  git:
    listen: "127.0.0.1:0"
    run: %s
    env: {GIT_CONFIG_NOSYSTEM: "1"}
    sandbox: {preset: strict, read: [%s], exec: [%s, %s]}
`, yamlList(g.path, "daemon", "--inetd", "--export-all", "--base-path="+bases, bases), bases, g.path, strings.TrimSpace(g.run("--exec-path"))))
	g.run("clone", "-q", "git://"+d.address("git")+"/work.git", "second")
	g.run("-C", "second", "fsck", "--full", "--strict")
	checkStatus(t, d.allExited("git", 1))
}

func strictRsync(t *testing.T, dir string) {
	rsync := installed(t, "rsync")
	for _, sub := range []string{"module", "original"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	aTree(t, filepath.Join(dir, "original"))
	giveAway(t, filepath.Join(dir, "module"))
	config := writeFile(t, dir, "rsyncd.conf", fmt.Sprintf("use chroot = no\nmunge symlinks = no\nreverse lookup = no\n[tree]\npath = %s/module\nread only = no\n", dir), 0o644)
	d := start(t, fmt.Sprintf("services: {rsync: {listen: '127.0.0.1:0', run: %s, umask: '000', sandbox: {preset: strict, read: [%s], write: [%s/module]}}}",
		yamlList(rsync, "--daemon", "--config="+config), config, dir))
	output(t, client(t, rsync, "-rlpt", filepath.Join(dir, "original")+"/", "rsync://"+d.address("rsync")+"/tree/"))
	checkTrees(t, filepath.Join(dir, "module"), filepath.Join(dir, "original"))
	checkStatus(t, d.allExited("rsync", 1))
}

func strictZone(t *testing.T, _ string) {
	if _, err := os.Stat("/usr/share/zoneinfo/Asia/Tokyo"); err != nil {
		skip(t, "this needs time zones")
	}
	d := start(t, one("zone", fmt.Sprintf("run: [%s, +%%Z], env: {TZ: Asia/Tokyo}, sandbox: strict", installed(t, "date"))))
	if got := d.ask("zone", ""); got != "JST\n" {
		t.Errorf("the zone is %q", got)
	}
}

// TestClosedFilesWithoutAPreset: the file system closes for any program whose
// service lists what is open, whatever its other walls are.
func TestClosedFilesWithoutAPreset(t *testing.T) {
	needRoot(t)
	needLandlock(t, 1)
	t.Parallel()
	dir := openDir(t)
	writeFile(t, dir, "open", "open\n", 0o644)
	d := start(t, "services:\n"+hostile(t, "basic", "sandbox: {read: ["+dir+"]}")+
		hostile(t, "offline", "sandbox: {preset: offline, read: ["+dir+"]}")+
		hostile(t, "root", "user: root, sandbox: {read: ["+dir+"]}"))
	for _, service := range []string{"basic", "offline", "root"} {
		for code, want := range map[string]string{
			`said(open F, "<", "` + dir + `/open")`: "done",
			`said(open F, "<", "/etc/passwd")`:      denied,
			`said(open F, ">", "` + dir + `/new")`:  readOnly,
			`said(chmod 0600, "` + dir + `/open")`:  readOnly,
		} {
			c := d.dial(service)
			io.WriteString(c, prelude+code)
			c.CloseWrite()
			if got, _ := io.ReadAll(c); string(got) != want {
				t.Errorf("%s: %s: %q, not %q", service, code, got, want)
			}
		}
	}
}
