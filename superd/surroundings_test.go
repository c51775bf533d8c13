package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"superd/superd/internal/spawn"
)

// What a program finds around it when it starts: superd-program(7).

// shell is the run key of a service that is a script.
func shell(script string, args ...string) string {
	return "run: " + yamlList(append([]string{"/bin/sh", "-c", script, "sh"}, args...)...)
}

// one is a file with one service.
func one(name, keys string) string {
	return fmt.Sprintf("services: {%s: {listen: '127.0.0.1:0', %s}}", name, keys)
}

// ownStatus is a program that tells what proc(5) says of it.
const ownStatus = "run: [/bin/cat, /proc/self/status]"

// field is a line of /proc/PID/status, without its name.
func field(t testing.TB, status, name string) string {
	t.Helper()
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in %q", name, status)
	return ""
}

// descriptorsOf lists what a process has open.
func descriptorsOf(t testing.TB, pid int) (list []int) {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		n, _ := strconv.Atoi(filepath.Base(name))
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}

// checkDescriptors wants 0, 1 and 2, each as a program expects it: blocking.
func checkDescriptors(t testing.TB, pid int) {
	t.Helper()
	if got := descriptorsOf(t, pid); !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("the program has the descriptors %v", got)
	}
	for fd := range 3 {
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
		if err != nil {
			t.Error(err)
			continue
		}
		flags, err := strconv.ParseUint(field(t, string(info), "flags"), 8, 32)
		if err != nil || flags&(unix.O_NONBLOCK|unix.O_CLOEXEC) != 0 {
			t.Errorf("descriptor %d has the flags %#o, %v", fd, flags, err)
		}
	}
}

// plant gives a command that is not started yet an open file at each number.
func plant(t testing.TB, cmd *exec.Cmd, numbers ...int) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	cmd.ExtraFiles = make([]*os.File, slices.Max(numbers)-2)
	for _, n := range numbers {
		cmd.ExtraFiles[n-3] = null
	}
}

func upTo(from, to int) (list []int) {
	for n := from; n <= to; n++ {
		list = append(list, n)
	}
	return list
}

func TestProgramHasThreeDescriptors(t *testing.T) {
	t.Parallel()
	for name, numbers := range map[string][]int{
		"a few":                    {3, 4, 9, 40, 63, 64, 65, 100, 500},
		"all where superd expects": upTo(3, 80),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := prepare(t, `
services:
  log:    {listen: "127.0.0.1:0", run: /bin/cat}
  client: {listen: "127.0.0.1:0", run: /bin/cat, stderr: client}
  nobody: {listen: "127.0.0.1:0", run: /bin/cat, stderr: "null"}
  unkept: {listen: "127.0.0.1:0", run: /bin/cat, keep: false}
  echo:   {listen: "127.0.0.1:0", builtin: echo}
`)
			plant(t, cmd, numbers...)
			d := startCommand(t, cmd)
			for _, service := range []string{"log", "client", "nobody", "unkept", "echo"} {
				c := d.held(service)
				checkDescriptors(t, d.child())
				c.Close()
				d.exited(service, 1)
			}
		})
	}
}

// Programs that are started at the same time have nothing of each other.
func TestManyProgramsHaveThreeDescriptorsEach(t *testing.T) {
	t.Parallel()
	d := start(t, one("cat", "run: /bin/cat"))
	n := fewer(100, 30)
	list := make([]net.Conn, n)
	for i := range list {
		list[i] = d.dial("cat")
	}
	for _, c := range list {
		d.talk(c, "x")
	}
	children := d.children()
	if len(children) != n {
		t.Errorf("%d programs run for %d connections", len(children), n)
	}
	for _, child := range children {
		pid, _ := strconv.Atoi(strings.Fields(child)[0])
		checkDescriptors(t, pid)
	}
	for _, c := range list {
		c.Close()
	}
	d.exited("cat", n)
}

// heedless are signals that superd is started with ignored or blocked.
var heedless = []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE, unix.SIGUSR1, unix.SIGCHLD, unix.SIGALRM}

// ignoring starts superd as nohup(1) does, with more signals.
func ignoring(t *testing.T, cmd *exec.Cmd) *process {
	// Go leaves some of these ignored, and sets others to its own.
	script := `trap '' HUP INT TERM PIPE USR1 CHLD ALRM TSTP TTIN TTOU; exec "$0" "$@"`
	outer := exec.Command("/bin/sh", append([]string{"-c", script, cmd.Path}, cmd.Args[1:]...)...)
	outer.Env = cmd.Env
	return startCommand(t, outer)
}

// blocking starts superd with signals blocked: a child has the mask of the
// thread that makes it.
func blocking(t *testing.T, cmd *exec.Cmd) *process {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var set, old unix.Sigset_t
	for _, s := range heedless {
		set.Val[0] |= 1 << (s - 1)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old); err != nil {
		t.Fatal(err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	return startCommand(t, cmd)
}

func TestProgramHasDefaultSignals(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*testing.T, *exec.Cmd) *process{
		"as usual": func(t *testing.T, cmd *exec.Cmd) *process { return startCommand(t, cmd) },
		"ignored":  ignoring,
		"blocked":  blocking,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := begin(t, prepare(t, one("status", ownStatus)))
			status := d.ask("status", "")
			for _, set := range []string{"SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"} {
				if got := field(t, status, set); strings.Trim(got, "0") != "" {
					t.Errorf("%s is %s", set, got)
				}
			}
			if d.signal(unix.SIGTERM); d.ended() != 0 {
				t.Errorf("superd ended with %v", d.cmd.ProcessState)
			}
		})
	}
}

func TestProgramLeadsItsSession(t *testing.T) {
	t.Parallel()
	d := start(t, one("stat", "run: [/bin/cat, /proc/self/stat]"))
	const pid, group, session, terminal = 0, 4, 5, 6
	f := strings.Fields(d.ask("stat", ""))
	if f[group] != f[pid] || f[session] != f[pid] || f[terminal] != "0" {
		t.Errorf("process %s is in group %s of session %s on terminal %s", f[pid], f[group], f[session], f[terminal])
	}
	if own := d.exited("stat", 1)[0].number("pid"); strconv.Itoa(int(own)) != f[pid] {
		t.Errorf("process %s is called %v in the log", f[pid], own)
	}
}

// userVariables is what a program's environment has to say of the user that
// programs run as by default.
func userVariables(t testing.TB) (list []string) {
	t.Helper()
	name := strconv.Itoa(os.Geteuid())
	if os.Geteuid() == 0 {
		name = unprivileged
	}
	id, err := spawn.NewEngine().System().User(name)
	if err != nil {
		t.Fatal(err)
	}
	return id.Variables()
}

// environment asks a service that runs env(1), and checks what no style
// changes; it returns the rest, sorted.
func environment(t testing.TB, d *process, service string, c net.Conn) (rest []string) {
	t.Helper()
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	peer := c.LocalAddr().String()
	r := d.await(func(r record) bool { return r.is("exited") && r.text("peer") == peer })
	common := append(userVariables(t), "PATH="+spawn.DefaultPath, "SUPERD_SERVICE="+service, "SUPERD_CONNECTION="+r.text("conn"))
	list := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for _, v := range common {
		i := slices.Index(list, v)
		if i < 0 {
			t.Errorf("no %s in %q", v, list)
			continue
		}
		list = slices.Delete(list, i, i+1)
	}
	slices.Sort(list)
	return list
}

// facts are the values that the variables of a connection have, as its client
// sees them.
func facts(c net.Conn) *strings.Replacer {
	remote, local := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
	return strings.NewReplacer(
		"$ra", remote.IP.String(), "$rp", strconv.Itoa(remote.Port),
		"$la", local.IP.String(), "$lp", strconv.Itoa(local.Port))
}

func TestEnvironmentOfEachStyle(t *testing.T) {
	t.Parallel()
	listen := []string{"127.0.0.1:0"}
	if haveIPv6() {
		listen = append(listen, "[::1]:0")
	}
	for _, c := range []struct{ style, want string }{
		{"", "PROTO=TCP TCPCONNNUM=1 TCPLOCALIP=$la TCPLOCALPORT=$lp TCPREMOTEIP=$ra TCPREMOTEPORT=$rp"},
		{"env_style: [ucspi]", "PROTO=TCP TCPCONNNUM=1 TCPLOCALIP=$la TCPLOCALPORT=$lp TCPREMOTEIP=$ra TCPREMOTEPORT=$rp"},
		{"env_style: [systemd]", "REMOTE_ADDR=$ra REMOTE_PORT=$rp"},
		{"env_style: [xinetd]", "REMOTE_HOST=$ra"},
		{"env_style: [ncat]", "NCAT_LOCAL_ADDR=$la NCAT_LOCAL_PORT=$lp NCAT_PROTO=TCP NCAT_REMOTE_ADDR=$ra NCAT_REMOTE_PORT=$rp"},
		{"env_style: [cgi]", "GATEWAY_INTERFACE=CGI/1.1 REMOTE_ADDR=$ra REMOTE_PORT=$rp SERVER_NAME=$la SERVER_PORT=$lp SERVER_PROTOCOL=TCP"},
		{"env_style: [xinetd, systemd]", "REMOTE_ADDR=$ra REMOTE_HOST=$ra REMOTE_PORT=$rp"},
		{"env_style: [none]", ""},
		{"env_style: []", ""},
	} {
		t.Run(c.style, func(t *testing.T) {
			t.Parallel()
			d := start(t, fmt.Sprintf("services: {env: {listen: %s, run: %s, %s}}",
				yamlList(listen...), installed(t, "env"), c.style))
			for _, address := range d.addresses("env") {
				conn, err := dialAddress(address)
				if err != nil {
					t.Fatal(err)
				}
				got := environment(t, d, "env", conn)
				if want := strings.Fields(facts(conn).Replace(c.want)); !slices.Equal(got, want) {
					t.Errorf("on %s\n got %q\nwant %q", address, got, want)
				}
				conn.Close()
			}
		})
	}
}

func TestConnectionsOfASourceAreCounted(t *testing.T) {
	t.Parallel()
	d := start(t, one("count", shell("echo $TCPCONNNUM; read x")))
	for _, want := range []string{"1", "2", "3"} {
		if got := line(t, d.dial("count")); got != want {
			t.Errorf("the connection is number %s, not %s", got, want)
		}
	}
	// One that has ended is no longer counted, soon after its record.
	d.dial("count").Close()
	eventually(t, func() error {
		c := d.dial("count")
		defer c.Close()
		if got := line(t, c); got != "4" {
			return fmt.Errorf("the connection is number %s", got)
		}
		return nil
	})
}

func TestEnvironmentOfTheFile(t *testing.T) {
	t.Parallel()
	cmd := prepare(t, one("env", "run: "+installed(t, "env")+`, env_style: [none],
  env: {TEXT: "a = b", EMPTY: "", TZ: ours}, env_pass: [PASSED, UNSET, TZ]`))
	cmd.Env = append(cmd.Env, "PASSED=from superd", "SECRET=of superd", "TZ=theirs", "TCPREMOTEIP=192.0.2.1")
	d := startCommand(t, cmd)
	got := environment(t, d, "env", d.dial("env"))
	want := []string{"EMPTY=", "PASSED=from superd", "TEXT=a = b", "TZ=ours"}
	if !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

// A service's own variables come before what superd would say, but not before
// what is said of the connection.
func TestEnvironmentOverrides(t *testing.T) {
	t.Parallel()
	d := start(t, one("env", "run: "+installed(t, "env")+`, env_style: [xinetd],
  env: {PATH: /bin, HOME: /tmp, USER: me, REMOTE_HOST: mine}`))
	got := strings.Split(d.ask("env", ""), "\n")
	for _, want := range []string{"PATH=/bin", "HOME=/tmp", "USER=me", "REMOTE_HOST=127.0.0.1"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
	for _, v := range []string{"PATH=", "HOME=", "USER=", "REMOTE_HOST="} {
		if n := strings.Count("\n"+strings.Join(got, "\n"), "\n"+v); n != 1 {
			t.Errorf("%s is there %d times", v, n)
		}
	}
}

func TestPlaceOfTheProgram(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	d := start(t, fmt.Sprintf(`
services:
  usual: {listen: "127.0.0.1:0", %s}
  other: {listen: "127.0.0.1:0", %s, dir: %q, umask: "0077", nice: 7}
`, shell("pwd; umask; nice"), shell("pwd; umask; nice"), dir))
	own := strings.TrimSpace(output(t, exec.Command("nice")))
	if got, want := d.ask("usual", ""), "/\n0022\n"+own+"\n"; got != want {
		t.Errorf("usually a program finds %q, not %q", got, want)
	}
	if got, want := d.ask("other", ""), dir+"\n0077\n7\n"; got != want {
		t.Errorf("the program finds %q, not %q", got, want)
	}
}

func TestNiceAndArgv0(t *testing.T) {
	t.Parallel()
	d := start(t, `
services:
  plain: {listen: "127.0.0.1:0", run: [/bin/cat, /proc/self/cmdline]}
  named: {listen: "127.0.0.1:0", run: [/bin/cat, /proc/self/cmdline], argv0: "-login cat"}
  words: {listen: "127.0.0.1:0", run: "/bin/cat /proc/self/cmdline '' '$HOME *'"}
`)
	for service, want := range map[string]string{
		"plain": "/bin/cat\x00/proc/self/cmdline\x00",
		"named": "-login cat\x00/proc/self/cmdline\x00",
	} {
		if got := d.ask(service, ""); got != want {
			t.Errorf("%s is called with %q", service, got)
		}
	}
	// cat complains of the arguments that are no files.
	if got, want := d.ask("words", ""), "/bin/cat\x00/proc/self/cmdline\x00\x00$HOME *\x00"; got != want {
		t.Errorf("the words are %q", got)
	}
}

func TestProgramGetsTheLimitOfSuperdsStart(t *testing.T) {
	t.Parallel()
	cmd := prepare(t, one("limit", shell("ulimit -Sn; ulimit -Hn")))
	outer := exec.Command("/bin/sh", append([]string{"-c", `ulimit -Sn 300; ulimit -Hn 700; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)...)
	outer.Env = cmd.Env
	if got := startCommand(t, outer).ask("limit", ""); got != "300\n700\n" {
		t.Errorf("the program has the limits %q", got)
	}
}

// Few descriptors are enough for a few connections, and the rest waits.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	cmd := prepare(t, one("cat", "run: /bin/cat"))
	outer := exec.Command("/bin/sh", append([]string{"-c", `ulimit -n 64; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)...)
	outer.Env = cmd.Env
	d := startCommand(t, outer)
	n := fewer(200, 50)
	d.many("cat", n, n, askFor("hello", "hello"))
	if r := d.recordsOf("cat"); slices.ContainsFunc(r, func(r record) bool { return r.is("refused") }) {
		t.Errorf("a client was refused: %v", r)
	}
}

// What superd holds for programs with a /tmp of their own is known before it
// says how many connections fit.
func TestDescriptorsOfPrivateTmp(t *testing.T) {
	needRoot(t)
	t.Parallel()
	room := func(yaml string) int {
		cmd := prepare(t, yaml)
		outer := exec.Command("/bin/sh", append([]string{"-c", `ulimit -n 1024; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)...)
		outer.Env = cmd.Env
		d := startCommand(t, outer)
		warning := d.await(func(r record) bool { return r["open_files"] != nil })
		if left := 1024 - d.idle; left < int(warning["connections"].(float64))*3 {
			t.Errorf("%d descriptors are left for %v connections", left, warning["connections"])
		}
		n := int(warning["connections"].(float64))
		var all []net.Conn
		for range n { // as many as were promised
			all = append(all, d.held("cat"))
		}
		for _, c := range all {
			c.Close()
		}
		d.exited("cat", n)
		return n
	}
	without, with := room(one("cat", "run: /bin/cat")), room(one("cat", "run: /bin/cat, sandbox: {private_tmp: true}"))
	if with >= without*3/4 { // a fourth descriptor for each, and some for all
		t.Errorf("room for %d connections, and for %d with a /tmp of their own", without, with)
	}
}

func TestStartsWithClosedDescriptors(t *testing.T) {
	t.Parallel()
	for _, closed := range []string{"<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"} {
		t.Run(closed, func(t *testing.T) {
			t.Parallel()
			cmd := prepare(t, one("cat", "run: /bin/cat"))
			outer := exec.Command("/bin/sh", append([]string{"-c", `exec "$0" "$@" ` + closed, cmd.Path}, cmd.Args[1:]...)...)
			outer.Env = cmd.Env
			d := startSilent(t, outer, "cat")
			for range 3 {
				c := d.held("cat")
				checkDescriptors(t, d.child())
				c.CloseWrite()
				d.closed(c)
				d.settled()
			}
		})
	}
}

// haveIPv6 tells whether the machine can be reached at ::1.
func haveIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		l.Close()
	}
	return err == nil
}
