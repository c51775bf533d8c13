package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tries runs a program on what is no terminal.
func tries(t *testing.T, input, file string, args ...string) (code int, out, complaints string) {
	t.Helper()
	cmd := superd(append([]string{"try", "-c", file}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	return finished(t, cmd)
}

// services, each with what becomes of it when it is tried with hello as input.
var tried = []struct {
	name, keys, from string
	code             int
	out, complaints  string // regular expressions, of the whole
}{
	{"cat", "run: /bin/cat", "", 0, "hello\n", ""},
	{"status", shell("cat; exit 3"), "", 3, "hello\n", ""},
	{"stderr", shell("echo error >&2"), "", 0, "", "error\n"},
	{"client", shell("echo error >&2") + ", stderr: client", "", 0, "error\n", ""},
	{"quiet", shell("echo error >&2; cat") + `, stderr: "null"`, "", 0, "hello\n", ""},
	{"signal", shell("kill -TERM $$"), "", 143, "", "signal: the program was ended by SIGTERM\n"},
	{"interrupted", shell("kill -INT $$"), "", 130, "", ""},
	{"absent", "run: /nonexistent/program", "", 127, "", `absent: cannot execute /nonexistent/program: ENOENT \(.*\)\n`},
	{"nowhere", "run: /bin/cat, dir: /nonexistent", "", 127, "", `nowhere: cannot change to the directory /nonexistent: ENOENT \(.*\)\n`},
	{"echo", "builtin: echo", "", 0, "hello\n", ""},
	{"greeting", "builtin: greeting", "", 0, "hi client", ""},
	{"daytime", "builtin: daytime", "", 0, ".*UTC\r\n", ""},
	{"disabled", "run: /bin/cat, enabled: false", "", 0, "hello\n", ""},
	{"killable", shell("cat /proc/self/oom_score_adj; cat") + ", oom_score_adj: 900", "", 0, "900\nhello\n", ""},
	{"descriptors", "run: [/bin/sh, -c, 'echo /proc/self/fd/*; cat']", "", 0, "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2( /proc/self/fd/3)?\nhello\n", ""}, // 3 is of the shell's glob
	{"limits", shell("ulimit -n; ulimit -c; umask; pwd") + `, rlimits: {nofile: 77, core: 0}, umask: "027", dir: /etc`, "", 0, "77\n0\n0027\n/etc\n", ""},
	{"rules", shell("echo $WHO $TCPREMOTEIP $TCPREMOTEPORT") + `, env: {WHO: you}, allow: [127.0.0.1, {from: 10.0.0.0/8, env: {WHO: me}}]`, "", 0, "you 127.0.0.1 12345\n", ""},
	{"others", shell("echo $WHO $TCPREMOTEIP $TCPREMOTEPORT") + `, env: {WHO: you}, allow: [{from: 10.0.0.0/8, env: {WHO: me}}]`, "10.1.2.3:77", 0, "me 10.1.2.3 77\n", ""},
	{"refused", shell("echo $TCPREMOTEIP") + `, deny: [10.0.0.0/8]`, "10.1.2.3", 0, "10.1.2.3\n", "warning: refused: 10.1.2.3 would be refused: address\n"},
	{"waits", "run: /bin/cat, wait: true", "", 1, "", "waits: with wait, its program wants the listening socket itself, which try does not have\n"},
	{"mux", "builtin: tcpmux", "", 1, "", "mux: a service with builtin: tcpmux has no program to try\n"},
	{"ipv4", "run: /bin/cat", "::1", 1, "", "ipv4: no such client can come, it listens on 127.0.0.1:0\n"},
}

func TestTry(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	for _, c := range tried {
		file := writeFile(t, dir, c.name+".yaml", one(c.name, c.keys), 0o644)
		args := []string{c.name}
		if c.from != "" {
			args = append(args, "--from", c.from)
		}
		code, out, complaints := tries(t, "hello\n", file, args...)
		for _, said := range []struct{ got, want string }{{out, c.out}, {complaints, c.complaints}} {
			if !regexp.MustCompile(`^` + said.want + `$`).MatchString(said.got) {
				t.Errorf("%s: it says %q, not %q", c.name, said.got, said.want)
			}
		}
		if code != c.code {
			t.Errorf("%s: it ends with %d, not %d", c.name, code, c.code)
		}
	}
}

// Other sockets: the client is the first of this machine that could come.
func TestTryOfOtherSockets(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	for name, c := range map[string]struct{ listen, variables, want string }{
		"ipv6":     {"[::1]:0", "$PROTO $TCPREMOTEIP", "TCP ::1"},
		"unix":     {"unix:@superd-try", "$PROTO $UNIXREMOTEEUID $IPCLOCALPATH", fmt.Sprint("IPC ", os.Getuid(), " @superd-try")},
		"vsock":    {"vsock:7", "$PROTO $VSOCKREMOTECID", "VSOCK 1"},
		"udp":      {"udp:127.0.0.1:0", "$PROTO $UDPREMOTEIP", "UDP 127.0.0.1"},
		"datagram": {"{address: 'unix:@superd-try', type: datagram}", "$PROTO", "IPC"},
	} {
		file := writeFile(t, dir, name+".yaml", several(name, "listen: "+listed(c.listen)+", "+shell("echo "+c.variables+"; cat")), 0o644)
		if code, out, complaints := tries(t, "hello\n", file, name); code != 0 || out != c.want+"\nhello\n" || complaints != "" {
			t.Errorf("%s: it ends with %d and says %q, %q", name, code, out, complaints)
		}
	}
}

// listed is an address as an item of a list.
func listed(address string) string {
	if strings.HasPrefix(address, "{") {
		return "[" + address + "]"
	}
	return "['" + address + "']"
}

// What is tried is what is served: the same user, walls, limits and environment,
// beside a superd that serves the same file.
func TestTryIsWhatIsServed(t *testing.T) {
	t.Parallel()
	const look = `grep -E "^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Seccomp_filters|SigIgn|SigBlk|SigCgt)" /proc/self/status
		ulimit -a; umask; pwd; echo $0; env -u PWD | grep -v -e ^SUPERD_CONNECTION= -e PORT= | sort`
	keys := shell(look) + `, env_style: [ucspi, cgi], env: {A: b}, umask: "077", rlimits: {nproc: 500, nofile: 50}, nice: 2`
	d := start(t, several("it", `listen: "127.0.0.1:0", `+keys, "none", `listen: "127.0.0.1:0", sandbox: none, `+keys))
	for _, name := range []string{"it", "none"} {
		served := d.ask(name, "")
		code, out, complaints := tries(t, "", d.named(), name)
		if code != 0 || complaints != "" || out != served || !strings.Contains(out, "CapEff") || !strings.Contains(out, "TCPREMOTEIP=127.0.0.1") {
			t.Errorf("%s: it ends with %d and is\n%s%s\nnot\n%s", name, code, out, complaints, served)
		}
	}
}

// Closed walls, which only root can build in full, hold: what the child needs
// its descriptor 0 for on its way does not take that from the program.
func TestTryInsideWalls(t *testing.T) {
	t.Parallel()
	needRoot(t)
	file := writeFile(t, publicDir(t), "superd.yaml", one("it", `sandbox: strict, oom_score_adj: 3, `+
		shell(`read a; echo $a >/tmp/try && read b </tmp/try && echo "$b"; read c </etc/hostname || echo closed`)), 0o644)
	code, out, complaints := tries(t, "hello\n", file, "it")
	if code != 0 || out != "hello\nclosed\n" || !strings.Contains(complaints, "/etc/hostname: Permission denied") {
		t.Errorf("it ends with %d and says %q, %q", code, out, complaints)
	}
	if _, err := os.Stat("/tmp/try"); err == nil {
		t.Error("its /tmp is that of the machine")
	}
}

// What an ordinary user cannot build is told as at start.
func TestTryForAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	try := func(keys string) (int, string, string) {
		cmd := superd("try", "-c", writeFile(t, dir, "superd.yaml", one("it", keys), 0o644), "it")
		if os.Geteuid() == 0 {
			asUser(t, cmd, someUser)
		}
		cmd.Stdin = strings.NewReader("hello\n")
		return finished(t, cmd)
	}
	if code, out, complaints := try("run: /bin/cat"); code != 0 || out != "hello\n" || complaints != "" {
		t.Errorf("it ends with %d and says %q, %q", code, out, complaints)
	}
	if code, out, complaints := try("run: /bin/cat, user: daemon"); code != 1 || out != "" || !strings.Contains(complaints, " and cannot become daemon") {
		t.Errorf("as another user it ends with %d and says %q, %q", code, out, complaints)
	}
}

// The system call that a filter kills for is named where the kernel tells.
func TestTryNamesTheSystemCall(t *testing.T) {
	t.Parallel()
	file := writeFile(t, publicDir(t), "superd.yaml", one("it", "run: ["+program(t, "mount")+", -t, tmpfs, none, /mnt]"), 0o644)
	code, _, complaints := tries(t, "", file, "it")
	if code != 128+int(unix.SIGSYS) || !strings.HasPrefix(complaints, "it: the program was ended by SIGSYS: ") || os.Geteuid() == 0 && !strings.Contains(complaints, "system call") {
		t.Errorf("it ends with %d and says %q", code, complaints)
	}
}

// What only superd is sent is for the program.
func TestTryPassesSignalsOn(t *testing.T) {
	t.Parallel()
	file := writeFile(t, publicDir(t), "superd.yaml", one("it", shell("trap 'echo got it; exit 7' TERM INT; echo ready; while :; do sleep 0.01; done")), 0o644)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd := superd("try", "-c", file, "it")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal, on which INT would come to both
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		defer time.AfterFunc(patience, func() { cmd.Process.Kill() }).Stop() // who reads waits no longer
		lines := bufio.NewReader(out)
		if line, err := lines.ReadString('\n'); line != "ready\n" {
			t.Fatalf("it says %q, %v", line, err)
		}
		cmd.Process.Signal(s)
		if rest, err := io.ReadAll(lines); string(rest) != "got it\n" || err != nil {
			t.Errorf("at %v it says %q, %v", s, rest, err)
		}
		if code := waitFor(t, cmd); code != 7 {
			t.Errorf("at %v it ends with %d", s, code)
		}
	}
}

// A terminal is one end of a pair; the test has the other.
func openTerminal(t *testing.T) (test, program *os.File) {
	t.Helper()
	test, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		skip(t, "this needs /dev/ptmx: "+err.Error())
	}
	t.Cleanup(func() { test.Close() })
	number, err := unix.IoctlGetInt(int(test.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(test.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		program, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		skip(t, "this needs terminals: "+err.Error())
	}
	t.Cleanup(func() { program.Close() })
	return test, program
}

// On a terminal the program reads what is typed, and Ctrl-C ends it, and superd
// with it; one that goes on is left to.
func TestTryOnATerminal(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	for name, c := range map[string]struct {
		script string
		code   int
		last   string
	}{
		"ends":    {"echo ready; read a; echo got $a; exec cat", 130, ""},
		"goes on": {"trap 'echo caught; exit 5' INT; echo ready; read a; echo got $a; while :; do sleep 0.01; done", 5, "caught"},
	} {
		test, terminal := openTerminal(t)
		file := writeFile(t, dir, "superd.yaml", one("it", shell(c.script)), 0o644)
		cmd := superd("try", "-c", file, "it")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		defer time.AfterFunc(patience, func() { cmd.Process.Kill() }).Stop() // who reads waits no longer
		terminal.Close()
		said := bufio.NewReader(test)
		until := func(want string) {
			t.Helper()
			for {
				line, err := said.ReadString('\n')
				if strings.Contains(line, want) {
					return
				}
				if err != nil {
					t.Fatalf("%s: %q never came: %q, %v", name, want, line, err)
				}
			}
		}
		until("ready")
		io.WriteString(test, "hello\n")
		until("got hello")
		io.WriteString(test, "\x03")
		if c.last != "" {
			until(c.last)
		}
		if code := waitFor(t, cmd); code != c.code {
			t.Errorf("%s: it ends with %d, not %d", name, code, c.code)
		}
	}
}

// Its control group is its own, at the top of the tree, and goes with it and
// with what it has left there.
func TestTryInACgroup(t *testing.T) {
	t.Parallel()
	needRoot(t)
	file := writeFile(t, publicDir(t), "superd.yaml", one("it", `cgroup: {tasks: 9}, sandbox: {preset: basic, best_effort: true}, `+
		shell("grep ^0:: /proc/self/cgroup; sleep 1000 & echo $!; cat")), 0o644)
	code, out, _ := tries(t, "hello\n", file, "it")
	var place string
	var left int
	if n, _ := fmt.Sscanf(out, "0::%s\n%d\nhello\n", &place, &left); n != 2 || code != 0 {
		t.Fatalf("it ends with %d and says %q", code, out)
	}
	if !strings.HasPrefix(place, "/try.") {
		t.Skip("SKIPPED: this needs a cgroup tree of version 2: the program is in " + place)
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, filepath.Dir(place))); err == nil {
			t.Errorf("%s is still there", place)
		}
	}
	if err := unix.Kill(left, 0); err == nil {
		eventually(t, func() error {
			if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", left)); err == nil && !strings.Contains(string(stat), ") Z ") {
				return fmt.Errorf("what it left, %d, goes on", left)
			}
			return nil
		})
	}
}
