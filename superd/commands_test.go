package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The command line: what is said, where, and with which exit code.

var update = flag.Bool("update", false, "write the golden files anew")

// commandLines are uses of superd that end by themselves, in a directory with
// the files good.yaml, bad.yaml, worse.yaml, nolog.yaml, inetd.conf and xinetd.conf. What is said is compared with
// the golden file of the same name.
var commandLines = map[string][]string{
	"wrong use": {
		"",
		"nope",
		"rnu",
		"chekc -c good.yaml",
		"help",
		"''",
		"-c good.yaml run",
		"--bogus",
		"run extra",
		"run -c good.yaml extra",
		"run -c",
		"run -c ''",
		"run --config",
		"run -x",
		"run --confg good.yaml",
		"check extra",
		"check -c",
		"version extra",
		"version -c good.yaml",
		"connect",
		"connect one two",
		"explain",
		"explain cat",
		"explain cat 10.0.0.1 extra",
		"explain cat '' -c good.yaml",
		"explain cat here -c good.yaml --offline",
		"explain cat gid:4 -c good.yaml --offline",
		"explain cat vsock:x -c good.yaml --offline",
		"try",
		"try cat dog",
		"try -c good.yaml ''",
		"try cat -c ''",
		"try cat -c good.yaml --from here",
		"connect -x",
		"import",
		"import sendmail x",
		"import inetd",
		"import inetd -x",
		"import tcpserver --",
		"import -x",
		"status extra",
		"status --socket",
		"status --socket ''",
		"status -c ''",
		"ps -x",
		"reload now",
		"upgrade now",
		"drain one two",
		"drain ''",
		"drain --limit soon",
		"drain --limit=-1s",
		"stop echo",
		"kill",
		"kill one two",
		"kill one --service two",
		"kill --source nowhere",
		"block",
		"block nowhere",
		"block 10.0.0.0/33",
		"block 10.0.0.0/8 --for soon",
		"block 10.0.0.0/8 --for=-1h",
		"unblock",
		"unblock fe80::1%eth0",
	},
	"nobody": {
		"status --socket none",
		"ps --json --socket none",
		"explain cat 10.0.0.1 --socket none",
		"ps --watch --socket none",
		"reload --socket none",
		"drain --socket none",
		"upgrade --socket none",
		"stop --now --socket none",
		"kill 1 --socket none",
		"block 10.0.0.0/8 --for 1h --socket none",
		"unblock 10.0.0.0/8 --socket none",
		"status -c elsewhere.yaml",
	},
	"failure": {
		"run -c none.yaml",
		"run -c .",
		"run -c bad.yaml",
		"check -c none.yaml",
		"check -c bad.yaml",
		"check -c worse.yaml",
		"run -c nolog.yaml",
		"check -c nolog.yaml",
		"explain dog 10.0.0.1 -c good.yaml --offline",
		"explain cap 10.0.0.1 -c good.yaml --offline",
		"explain cat vsock:3 -c good.yaml --offline",
		"explain cat udp:10.0.0.1 -c good.yaml --offline",
		"explain cat 10.0.0.1 -c bad.yaml --offline",
		"try cap -c good.yaml",
		"try cat -c none.yaml",
		"connect host:port:7",
		"connect nowhere",
		"connect 70000",
		"connect unix:none",
		"import inetd none.conf",
		"import inetd.conf .",
		"import inetd bad.yaml",
		"import xinetd inetd.conf xinetd.conf",
		"import systemd inetd.conf",
		"import tcpserver -- tcpserver 0 25",
		"status -c none.yaml",
		"status -c worse.yaml",
	},
	"success": {
		"check -c good.yaml",
		"check --config good.yaml",
		"version",
		"--version",
		"-v",
		"run --version",
		"check --version",
		"connect --version",
		"version --version",
		"--help",
		"run --help",
		"check -h",
		"explain --help",
		"try --help",
		"import inetd inetd.conf",
		"import tcpserver -- setuidgid mail tcpserver -c 20 -l0 0 25 /usr/sbin/smtpd -x --help",
		"import --help",
		"import --version",
		"connect --help",
		"version --help",
		"status --help",
		"ps --help",
		"reload --help",
		"drain --help",
		"upgrade --help",
		"stop --help",
		"kill --help",
		"block --help",
		"unblock --help",
	},
}

var exitCodes = map[string]int{"success": 0, "failure": 1, "wrong use": 2, "nobody": 3}

func TestCommandLines(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	writeFile(t, dir, "good.yaml", one("cat", "run: /bin/cat")+"\n", 0o644)
	writeFile(t, dir, "bad.yaml", "services:\n  cat: {listen: 0, rum: /bin/cat}\n  dog: {lisen: 0, builtin: bark}\n", 0o644)
	writeFile(t, dir, "inetd.conf", "# two\n7 stream tcp nowait root internal\n70 stream tcp nowait/5 gopher:daemon /usr/sbin/gopherd gopherd -I\n", 0o644)
	writeFile(t, dir, "xinetd.conf", "includedir none.d\n", 0o644)
	writeFile(t, dir, "worse.yaml", "services: [\n", 0o644)
	writeFile(t, dir, "elsewhere.yaml", "control: {path: /nowhere/superd.sock}\n", 0o644)
	writeFile(t, dir, "nolog.yaml", "log: {output: /nonexistent/superd.log}\nservices: {cat: {listen: '192.0.2.1:0', run: /bin/cat}}\n", 0o644)
	for kind, lines := range commandLines {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var all strings.Builder
			for _, line := range lines {
				code, out, complaints := finished(t, inDirectory(superd(words(line)...), dir))
				fmt.Fprintf(&all, "$ superd %s\n%s%s\n", line, out, complaints)
				if code != exitCodes[kind] {
					t.Errorf("superd %s: the exit code is %d", line, code)
				}
				if wrote := out != ""; wrote != (kind == "success") || (complaints != "") == wrote {
					t.Errorf("superd %s: to stdout went %q, to stderr %q", line, out, complaints)
				}
			}
			checkGolden(t, strings.ReplaceAll(kind, " ", "-"), all.String())
		})
	}
}

// words splits a command line of a test, in which ” is an empty word.
func words(line string) []string {
	list := strings.Fields(line)
	for i := range list {
		list[i] = strings.ReplaceAll(list[i], "''", "")
	}
	return list
}

func inDirectory(cmd *exec.Cmd, dir string) *exec.Cmd {
	cmd.Dir = dir
	return cmd
}

func checkGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: what is said is\n%s", path, got)
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, sh := range []string{"bash", "zsh", "fish"} {
		code, out, complaints := finished(t, superd("completion", sh))
		if code != 0 || !strings.Contains(out, "superd") || complaints != "" {
			t.Errorf("completion %s ends with %d and says %q, %q", sh, code, out, complaints)
		}
	}
	_, out, _ := finished(t, superd("--generate-shell-completion"))
	for _, verb := range []string{"run", "check", "explain", "try", "connect", "import", "status", "ps", "reload", "drain", "upgrade", "stop", "kill", "block", "unblock", "version"} {
		if !strings.Contains("\n"+out, "\n"+verb) {
			t.Errorf("%s is not proposed in %q", verb, out)
		}
	}
	file := writeFile(t, publicDir(t), "superd.yaml", several("cat", "listen: 7, run: /bin/cat", "dog", "listen: 8, builtin: echo"), 0o644)
	for _, verb := range []string{"explain", "try"} {
		if _, out, _ := finished(t, superd(verb, "-c", file, "--generate-shell-completion")); out != "cat\ndog\n" {
			t.Errorf("for %s it proposes %q", verb, out)
		}
	}
}

func TestUnreadableFile(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	path := writeFile(t, dir, "secret.yaml", one("cat", "run: /bin/cat"), 0o600)
	for _, verb := range []string{"run", "check"} {
		cmd := superd(verb, "-c", path)
		if os.Geteuid() == 0 {
			asUser(t, cmd, someUser)
		} else if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		code, out, complaints := finished(t, cmd)
		if want := "cannot read " + path + ": permission denied\n"; code != 1 || out != "" || complaints != want {
			t.Errorf("%s ends with %d and says %q, %q", verb, code, out, complaints)
		}
	}
}

// connecting is superd as a client.
func connecting(t *testing.T, address string) (cmd *exec.Cmd, in io.WriteCloser, out *bytes.Buffer) {
	t.Helper()
	cmd = superd("connect", address)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out = new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd, in, out
}

func waitFor(t *testing.T, cmd *exec.Cmd) (code int) {
	t.Helper()
	ended := make(chan struct{})
	go func() { // ends with the command
		cmd.Wait()
		close(ended)
	}()
	await(t, ended, cmd.String()+" does not end")
	return cmd.ProcessState.ExitCode()
}

// The client's end of input ends the question, not the answer.
func TestConnectKeepsHalf(t *testing.T) {
	t.Parallel()
	d := start(t, one("late", shell("cat; sleep 0.2; echo late")))
	cmd, in, out := connecting(t, d.address("late"))
	question := strings.Repeat("hello\n", 50_000)
	if _, err := io.WriteString(in, question); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if code := waitFor(t, cmd); code != 0 || out.String() != question+"late\n" {
		t.Errorf("it ends with %d and %d bytes", code, out.Len())
	}
}

// Where the service closes, the client ends, whatever its own input does.
func TestConnectEndsWithTheService(t *testing.T) {
	t.Parallel()
	d := start(t, one("brief", "builtin: greeting"))
	cmd, in, out := connecting(t, d.address("brief"))
	defer in.Close()
	if code := waitFor(t, cmd); code != 0 || out.String() != "hi client" {
		t.Errorf("it ends with %d and %q", code, out)
	}
}

func TestConnectToAPortAlone(t *testing.T) {
	t.Parallel()
	d := start(t, one("brief", "builtin: greeting"))
	_, port, _ := net.SplitHostPort(d.address("brief"))
	cmd, _, out := connecting(t, port)
	if code := waitFor(t, cmd); code != 0 || out.String() != "hi client" {
		t.Errorf("it ends with %d and %q", code, out)
	}
}

func TestConnectToAUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(publicDir(t), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with the connection
		if c, err := l.Accept(); err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	cmd, in, out := connecting(t, "unix:"+path)
	io.WriteString(in, "hello")
	in.Close()
	if code := waitFor(t, cmd); code != 0 || out.String() != "hello" {
		t.Errorf("it ends with %d and %q", code, out)
	}
}

func TestConnectFails(t *testing.T) {
	t.Parallel()
	address := silentAddress(t)
	for address, want := range map[string]string{
		address:          "cannot connect to " + address + ": connection refused\n",
		"no.such.host:7": "cannot connect to no.such.host:7: ",
	} {
		cmd, _, out := connecting(t, address)
		if code := waitFor(t, cmd); code != 1 || !strings.HasPrefix(out.String(), want) || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("it ends with %d and %q, not %q", code, out, want)
		}
	}
}

// silentAddress is one that nobody listens on, or can meanwhile.
func silentAddress(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", own.(*unix.SockaddrInet4).Port)
}

// An answer that breaks off is told, after what came of it.
func TestConnectToWhoResets(t *testing.T) {
	t.Parallel()
	d := start(t, one("rude", shell("head -c 1 >/dev/null; echo answer; read x; exit 0")+", linger: 0"))
	cmd, in, out := connecting(t, d.address("rude"))
	defer in.Close()
	io.WriteString(in, "question\nthat is read\nin part only\n")
	if code := waitFor(t, cmd); code != 1 || !strings.HasSuffix(out.String(), ": the answer broke off: connection reset by peer\n") {
		t.Errorf("it ends with %d and %q", code, out)
	}
}

// A second superd on the same ports does not start, not even in part, says all
// that is in its way, and leaves the first alone.
func TestSecondSuperd(t *testing.T) {
	t.Parallel()
	first := start(t, `
services:
  one:   {listen: "127.0.0.1:0", run: /bin/cat}
  two:   {listen: "127.0.0.1:0", run: /bin/cat}
  three: {listen: "127.0.0.1:0", run: /bin/cat}
`)
	var yaml strings.Builder
	yaml.WriteString("services:\n  free: {listen: '127.0.0.1:0', run: /bin/cat}\n")
	for _, name := range []string{"one", "two", "three"} {
		fmt.Fprintf(&yaml, "  %s: {listen: %q, run: /bin/cat}\n", name, first.address(name))
	}
	yaml.WriteString("  none: {listen: '127.0.0.1:0', run: /bin/cat, user: no-such-user-here}\n")
	cmd := prepare(t, yaml.String())
	file := cmd.Args[len(cmd.Args)-1]
	code, out, complaints := finished(t, cmd)
	if code != 1 || out != "" {
		t.Errorf("it ends with %d and %q", code, out)
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", first.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"one", "two", "three"} {
		address := first.address(name)
		_, port, _ := net.SplitHostPort(address)
		for _, want := range []string{
			fmt.Sprintf("%s:%d:", file, i+3),
			fmt.Sprintf("services.%s.listen: cannot listen on %s: address already in use (EADDRINUSE) (port %s is held by %s, process %d)\n",
				name, address, port, strings.TrimSpace(string(comm)), first.pid()),
		} {
			if !strings.Contains(complaints, want) {
				t.Errorf("not told: %s", want)
			}
		}
	}
	if !strings.Contains(complaints, "services.none.user: no such user: no-such-user-here") {
		t.Error("the user who does not exist is not told")
	}
	for _, word := range []string{"listening", `"ready"`, "free"} {
		if strings.Contains(complaints, word) {
			t.Errorf("%q is told", word)
		}
	}
	if t.Failed() {
		t.Log(complaints)
	}
	for _, name := range []string{"one", "two", "three"} {
		if got := first.ask(name, "hello"); got != "hello" {
			t.Errorf("the first one's %s answers %q", name, got)
		}
	}
}
