package spawn

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A served is a plan behind a TCP port of this machine.
type served struct {
	port string
	ends chan string // how each program ended
}

// serve starts p's program for every connection until the test ends.
func serve(t *testing.T, s Spec) served {
	t.Helper()
	e := NewEngine()
	p := compile(t, e, s)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	service := served{strconv.Itoa(l.Addr().(*net.TCPAddr).Port), make(chan string, 16)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			service.ends <- serveOne(e, p, c.(*net.TCPConn))
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return service
}

// serveOne runs p's program for c to its end.
func serveOne(e *Engine, p *Plan, c *net.TCPConn) string {
	f, err := c.File() // blocking, as a program gets it
	c.Close()
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	fd, err := dupFrom(int(f.Fd()), 0)
	if err != nil {
		return err.Error()
	}
	child, err := e.Start(p, Streams{Connection: fd, Stderr: -1}, &someFacts)
	if err != nil {
		return err.Error()
	}
	for e.Settle() > 0 {
		time.Sleep(100 * time.Microsecond)
	}
	end, err := Wait(child.PIDFD)
	unix.Close(child.PIDFD)
	call := ""
	if end.Signaled && end.Signal == unix.SIGSYS && violations.listening {
		call, _ = patientViolation(e, child.PID)
	}
	return fmt.Sprint(end.Status, " ", end.Signal, " ", call, " ", err, " ", e.Failure(child))
}

// endedWell is what a program's end should be.
const endedWell = "0 signal 0  <nil> <nil>"

// need skips the test where the machine lacks a program, and finds them.
func need(t *testing.T, programs ...string) (paths []string) {
	t.Helper()
	for _, p := range programs {
		path, err := exec.LookPath(p)
		if err != nil {
			t.Skipf("SKIPPED: this machine has no %s", p)
		}
		paths = append(paths, path)
	}
	return paths
}

// client runs a program of the test's own, without a filter.
func client(t *testing.T, home, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null"}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestProgramsBehindAFilter runs what people make services of, with a bit of
// what their languages can do.
func TestProgramsBehindAFilter(t *testing.T) {
	for name, c := range map[string]struct {
		argv []string
		want string
	}{
		"sh": {[]string{"sh", "-c", `echo a | cat; trap 'echo trapped' TERM; kill $$; x=$(ls / | wc -l); [ "$x" -gt 3 ]; mkfifo $HOME/f; rm $HOME/f; (sleep 0.01 & wait); cp /etc/passwd $HOME/p; date >/dev/null && echo end`},
			"a\ntrapped\nend\n"},
		"bash": {[]string{"bash", "-c", `for i in 1 2 3; do ( : ) & done; wait; read -t 0.01 x </dev/null; cat <(echo hi); cat <<<here; printf '%(%s)T' -1 >/dev/null; echo $((RANDOM * 0))`},
			"hi\nhere\n0\n"},
		"python3": {[]string{"python3", "-c", `
import os, threading, subprocess, socket, asyncio, tempfile, shutil
t = threading.Thread(target=lambda: os.urandom(4)); t.start(); t.join()
print(subprocess.run("echo hi", shell=True, capture_output=True).stdout)
a, b = socket.socketpair(); a.send(b"x"); print(b.recv(1))
asyncio.run(asyncio.sleep(0.001))
with tempfile.TemporaryDirectory() as d: open(d + "/x", "w").write("x"); shutil.copy2(d + "/x", d + "/y")
`}, "b'hi\\n'\nb'x'\n"},
		"perl": {[]string{"perl", "-e", `$| = 1; system("true"); open F, "-|", "echo hi"; print <F>; $p = fork; exit if !$p; waitpid $p, 0; select undef, undef, undef, 0.01; print((getpwuid 0)[0], "\n"); $< = $<; print "end\n"`},
			"hi\nroot\nend\n"},
		"sqlite3": {[]string{"sh", "-c", `exec sqlite3 $HOME/db 'create table t(x); insert into t values(7); select x from t'`}, "7\n"},
		"git":     {[]string{"git", "--version"}, "git version"},
		"busybox": {[]string{"busybox", "sh", "-c", "echo hi | tee $HOME/t; wc -l <$HOME/t"}, "hi\n1\n"},
		"openssl": {[]string{"openssl", "dgst", "-sha256", "/dev/null"}, "SHA2-256(/dev/null)= e3b0c442"},
		"node":    {[]string{"node", "-e", "setTimeout(() => console.log(1), 1)"}, "1\n"},
		"go":      {[]string{os.Args[0], "-test.run", "^TestUseTheRuntime$"}, "PASS\n"},
	} {
		for _, systemCalls := range []string{"default", "tight"} {
			for _, id := range []*Identity{nil, {UID: 65534, GID: 65534, Groups: []uint32{}}} {
				t.Run(fmt.Sprint(name, "/", systemCalls, "/", id != nil), func(t *testing.T) {
					home := t.TempDir()
					if id != nil {
						needRoot(t)
						openToAll(t, home, filepath.Dir(os.Args[0]))
					}
					s := under(script(""), systemCalls)
					need(t, name)
					s.Path, s.Argv, s.Identity = need(t, c.argv[0])[0], c.argv, id
					if id != nil && strings.HasPrefix(s.Path, "/root/") {
						t.Skipf("SKIPPED: %s is not for everybody", s.Path)
					}
					s.Env = append(s.Env, "HOME="+home, "LC_ALL=C", "SUPERD_TEST_RUNTIME=1")
					if got := mustAnswer(t, s); !strings.HasPrefix(got, c.want) {
						t.Errorf("got %q, want %q", got, c.want)
					}
				})
			}
		}
	}
}

// openToAll lets everybody use directories of this test, and what is above them.
func openToAll(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		for ; strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestUseTheRuntime is a Go program behind a filter; otherwise it is no test.
func TestUseTheRuntime(t *testing.T) {
	if os.Getenv("SUPERD_TEST_RUNTIME") == "" {
		return
	}
	done := make(chan bool)
	for range 10 {
		go func() {
			runtime.LockOSThread()
			time.Sleep(time.Millisecond)
			done <- true
		}()
	}
	for range 10 {
		<-done
	}
	runtime.GC()
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	if out, err := exec.Command("/bin/echo", "hi").Output(); err != nil || string(out) != "hi\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestServersBehindAFilter talks to servers as their clients do.
func TestServersBehindAFilter(t *testing.T) {
	for _, systemCalls := range []string{"default", "tight"} {
		var id *Identity
		if systemCalls == "tight" && os.Geteuid() == 0 {
			id = &Identity{UID: 65534, GID: 65534, Groups: []uint32{}} // root's servers want to become another
		}
		t.Run(systemCalls+"/git", func(t *testing.T) {
			dir, path := t.TempDir(), need(t, "git")[0]
			client(t, dir, "git", "init", "-q", dir+"/tree")
			client(t, dir, "git", "-C", dir+"/tree", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "--allow-empty", "-m", "first")
			s := under(script(""), systemCalls)
			s.Identity = id
			openToAll(t, dir)
			s.Path, s.Argv = path, []string{"git", "daemon", "--inetd", "--export-all", "--base-path=" + dir}
			s.Env = append(s.Env, "HOME="+dir, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
			service := serve(t, s)
			client(t, dir, "git", "clone", "-q", "git://127.0.0.1:"+service.port+"/tree/.git", dir+"/copy")
			service.endWell(t)
			if got := client(t, dir, "git", "-C", dir+"/copy", "log", "--format=%s"); got != "first\n" {
				t.Errorf("cloned %q", got)
			}
		})
		t.Run(systemCalls+"/rsync", func(t *testing.T) {
			dir, path := t.TempDir(), need(t, "rsync")[0]
			write(t, dir+"/conf", "use chroot = no\nread only = yes\n[m]\npath = "+dir+"\n")
			write(t, dir+"/file", "content")
			s := under(script(""), systemCalls)
			s.Identity = id
			openToAll(t, dir)
			s.Path, s.Argv = path, []string{"rsync", "--daemon", "--config=" + dir + "/conf"}
			service := serve(t, s)
			client(t, dir, "rsync", "rsync://127.0.0.1:"+service.port+"/m/file", dir+"/copy")
			service.endWell(t)
			if got, err := os.ReadFile(dir + "/copy"); err != nil || string(got) != "content" {
				t.Errorf("copied %q, %v", got, err)
			}
		})
		t.Run(systemCalls+"/busybox httpd", func(t *testing.T) {
			dir, path := t.TempDir(), need(t, "busybox")[0]
			write(t, dir+"/index.html", "content")
			s := under(script(""), systemCalls)
			s.Identity = id
			openToAll(t, dir)
			s.Path, s.Argv = path, []string{"busybox", "httpd", "-i", "-h", dir}
			service := serve(t, s)
			answer, err := http.Get("http://127.0.0.1:" + service.port + "/index.html")
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			service.endWell(t)
			if err != nil || string(got) != "content" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	t.Run("default/sshd", func(t *testing.T) {
		needRoot(t)
		path := need(t, "sshd", "ssh", "ssh-keygen")[0]
		if _, err := os.Stat("/run/sshd"); err != nil {
			t.Skip("SKIPPED: sshd wants a directory /run/sshd, which this machine does not have")
		}
		dir := t.TempDir()
		openToAll(t, dir)
		client(t, dir, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/key")
		s := under(script(""), "default")
		s.Sandbox.NoNewPrivs = false // as root
		s.Path, s.Argv = path, []string{path, "-i", "-f", "/dev/null", "-h", dir + "/key", "-o", "AuthorizedKeysFile=" + dir + "/key.pub", "-o", "StrictModes=no", "-o", "PermitRootLogin=yes"}
		service := serve(t, s)
		got := client(t, dir, "ssh", "-q", "-F", "/dev/null", "-p", service.port, "-i", dir+"/key", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"root@127.0.0.1", "grep -c Seccomp /proc/self/status; echo hi")
		if end := <-service.ends; end != "255 signal 0  <nil> <nil>" { // so it ends when its client leaves
			t.Errorf("the program ended with %q", end)
		}
		if got != "2\nhi\n" {
			t.Errorf("got %q", got)
		}
	})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (s served) endWell(t *testing.T) {
	t.Helper()
	if end := <-s.ends; end != endedWell {
		t.Errorf("the program ended with %q", end)
	}
}
