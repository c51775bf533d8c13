package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Sockets that superd is started with.

// handed makes cmd a command that has files from 3 on, as systemd hands sockets
// over: with their names, and for the process that superd is.
func handed(t testing.TB, cmd *exec.Cmd, names string, files ...*os.File) *exec.Cmd {
	t.Helper()
	script := fmt.Sprintf(`LISTEN_PID=$$ LISTEN_FDS=%d LISTEN_FDNAMES='%s' exec "$0" "$@"`, len(files), names)
	outer := exec.Command("/bin/sh", append([]string{"-c", script, cmd.Path}, cmd.Args[1:]...)...)
	outer.Env, outer.ExtraFiles = cmd.Env, files
	return outer
}

// handedSocket is a blocking, listening socket to be handed over.
func handedSocket(t testing.TB, network, address string) (f *os.File, at string) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err = l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	f.Fd() // makes it blocking
	return f, l.Addr().String()
}

func TestInheritedSockets(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	web, webAddress := handedSocket(t, "tcp4", "127.0.0.1:0")
	also, _ := handedSocket(t, "unix", dir+"/web")
	plain, plainAddress := handedSocket(t, "tcp4", "127.0.0.1:0")
	local, _ := handedSocket(t, "unix", dir+"/local")
	spare, spareAddress := handedSocket(t, "tcp4", "127.0.0.1:0")
	yaml := several(
		"web", "listen: fd:web, run: "+installed(t, "env")+", env_pass: [LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES]",
		"plain", fmt.Sprintf("listen: '%s', run: /bin/cat", plainAddress),
		"local", fmt.Sprintf("listen: 'unix:%s/local', run: /bin/cat", dir),
		"own", "listen: '127.0.0.1:0', run: /bin/cat")
	d := startCommand(t, handed(t, prepare(t, yaml), "web:web::local:spare", web, also, plain, local, spare))
	if got, want := fmt.Sprint(d.addresses("web")), "["+webAddress+" unix:"+dir+"/web]"; got != want {
		t.Errorf("web listens on %s, not on %s", got, want)
	}
	warning := d.await(func(r record) bool { return strings.HasPrefix(r.text("message"), "no service listens on") })
	if want := "descriptor 7 (spare), for " + spareAddress; warning.text("socket") != want {
		t.Errorf("what is not used is called %v, not %s", warning, want)
	}
	for _, answer := range []string{d.ask("web", ""), d.askUnix("web", "", "")} {
		if strings.Contains(answer, "LISTEN") || !strings.Contains(answer, "SUPERD_SERVICE=web") {
			t.Errorf("the program's environment is\n%s", answer)
		}
	}
	d.exited("web", 2)
	c := d.held("plain")
	checkDescriptors(t, d.child())
	c.Close()
	d.exited("plain", 1)
	if got := d.askUnix("local", "", "hello"); got != "hello" {
		t.Errorf("local answers %q", got)
	}
	if got := d.ask("own", "hello"); got != "hello" {
		t.Errorf("own answers %q", got)
	}
	d.settled()
	both := func() string {
		_, one, _ := finished(t, superd("connect", webAddress))
		_, other, _ := finished(t, superd("connect", "unix:"+dir+"/web"))
		return one + other
	}
	// A reload keeps them, by their name or by their address, and they can be
	// taken out and added again.
	d.rewrite(1, several("other", "listen: fd:web, builtin: greeting", "plain", "listen: fd:local, run: /bin/cat"))
	if got := both(); got != "hi clienthi client" {
		t.Errorf("after a reload it says %q", got)
	}
	d.rewrite(2, several(
		"other", fmt.Sprintf("listen: ['%s', 'unix:%s/web'], builtin: greeting, text: again", webAddress, dir),
		"back", fmt.Sprintf("listen: '%s', run: /bin/cat", plainAddress)))
	if got := both(); got != "againagain" {
		t.Errorf("after another reload it says %q", got)
	}
	if got := d.ask("back", "hello"); got != "hello" {
		t.Errorf("what was taken out and added again answers %q", got)
	}
	d.settled() // with the image of a built-in for the socket of own
	d.ends()
	// They are whose they were.
	for _, name := range []string{"/web", "/local"} {
		if !isSocket(dir + name) {
			t.Errorf("%s is gone", name)
		}
	}
	if c, err := net.Dial("tcp", webAddress); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

// Who else has a socket can take its connections from under superd's eyes,
// which keeps nobody from his.
func TestSharedInheritedSocket(t *testing.T) {
	t.Parallel()
	shared, address := handedSocket(t, "tcp4", "127.0.0.1:0")
	listener := int(shared.Fd()) // to ask for it later would make it blocking again
	d := startCommand(t, handed(t, prepare(t, several(
		"shared", "listen: fd:x, builtin: greeting", "own", "listen: '127.0.0.1:0', builtin: echo")), "x", shared))
	stolen := make(chan int, 1000)
	go func() { // ends with the test, which shuts the socket down
		for {
			fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
			switch err {
			case nil:
				unix.Close(fd)
				stolen <- fd
			case unix.EAGAIN: // superd has made it non-blocking
			default:
				return
			}
		}
	}()
	defer shared.Close() // no sooner
	defer unix.Shutdown(listener, unix.SHUT_RD)
	for range 200 {
		c, err := dialAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadAll(c)
		c.Close()
		if got := d.ask("own", "x"); got != "x" {
			t.Fatalf("another service says %q", got)
		}
	}
	if len(stolen) == 0 || len(stolen) == 200 {
		t.Logf("of 200 connections %d were somebody else's: this was no test", len(stolen))
	}
}

// What was meant for another process is no business of superd's, which says so
// once.
func TestInheritanceOfAnotherProcess(t *testing.T) {
	t.Parallel()
	web, address := handedSocket(t, "tcp4", "127.0.0.1:0")
	cmd := prepare(t, several("own", "listen: '127.0.0.1:0', run: "+installed(t, "env")+", env_pass: [LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES]"))
	cmd.ExtraFiles = []*os.File{web}
	cmd.Env = append(cmd.Env, "LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=web")
	d := startCommand(t, cmd)
	if got := d.ask("own", ""); strings.Contains(got, "LISTEN") {
		t.Errorf("the program is told\n%s", got)
	}
	const astray = "LISTEN_PID is 1 and not this process"
	if list := d.awaitMany(1, func(r record) bool { return strings.HasPrefix(r.text("message"), "LISTEN_PID") }); len(list) != 1 ||
		list[0].text("level") != "warn" || !list[0].is(astray+": the sockets that were handed over are not taken") {
		t.Errorf("it warns: %v", list)
	}
	cmd = prepare(t, several("web", "listen: fd:web, builtin: echo", "taken", "listen: '"+address+"', builtin: echo"))
	cmd.ExtraFiles = []*os.File{web}
	cmd.Env = append(cmd.Env, "LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=web")
	code, _, complaints := finished(t, cmd)
	for _, want := range []string{
		":2:17: services.web.listen: cannot listen on fd:web: no socket of that name was handed over to superd (" + astray + ")\n",
		astray + ": the sockets that were handed over are not taken",
		":3:19: services.taken.listen: cannot listen on " + address + ": address already in use (EADDRINUSE) (port " + port(address) +
			" is held by superd itself, which has left alone what was handed over: " + astray + ")\n",
	} {
		if code != 1 || !strings.Contains(complaints, want) {
			t.Errorf("it ends with %d and says\n%s, not\n%s", code, complaints, want)
		}
	}
}

func TestBrokenInheritance(t *testing.T) {
	t.Parallel()
	web, _ := handedSocket(t, "tcp4", "127.0.0.1:0")
	yaml := several("web", "listen: fd:web, builtin: echo")
	for names, want := range map[string]string{
		"web:more": "cannot take over descriptors: LISTEN_FDS is 1, and LISTEN_FDNAMES has 2 names\n",
		"other":    ": cannot listen on fd:web: no socket of that name was handed over to superd (there are: other)\n",
	} {
		code, _, complaints := finished(t, handed(t, prepare(t, yaml), names, web))
		if code != 1 || !strings.HasSuffix(complaints, want) {
			t.Errorf("it ends with %d and says %s, not %s", code, complaints, want)
		}
	}
	// Numbers that nothing was handed over at can be superd's own by now.
	cmd := handed(t, prepare(t, yaml), "web:a:b:c:d:e:f:g:h:i:j:k:l:m:n:o:p:q:r:s", append([]*os.File{web}, make([]*os.File, 19)...)...)
	if code, _, complaints := finished(t, cmd); code != 1 || !strings.Contains(complaints, " of LISTEN_FDS: bad file descriptor\n") {
		t.Errorf("it ends with %d and says %s", code, complaints)
	}
}

// What systemd itself does with a socket unit, by its own tool.
func TestSystemdSocketActivate(t *testing.T) {
	t.Parallel()
	activate, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("SKIPPED: this machine has no systemd-socket-activate; TestInheritedSockets does the same")
	}
	dir := publicDir(t)
	cmd := prepare(t, several("named", "listen: fd:named, run: /bin/cat", "addressed", fmt.Sprintf("listen: 'unix:%s/addressed', run: /bin/cat", dir)))
	outer := exec.Command(activate, append([]string{"-l", dir + "/named", "-l", dir + "/addressed", "--fdname=named:x",
		"-E", beSuperd, "-E", "GORACE", "-E", "PATH", cmd.Path}, cmd.Args[1:]...)...)
	outer.Env = cmd.Env
	stderr, err := outer.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	d := launch(t, outer)
	go d.read(stderr) // ends with superd
	eventually(t, func() error {
		c, err := net.Dial("unix", dir+"/addressed") // the first client, who has superd started
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		d.talk(c, "first\n")
		return nil
	})
	d.await(func(r record) bool { return r.is("ready") })
	d.exited("addressed", 1)
	d.idle = d.descriptors()
	d.atRest()
	if got := d.askUnix("named", "", "hello"); got != "hello" {
		t.Errorf("named answers %q", got)
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 2 {
		t.Errorf("of two files there are %q", left)
	}
}
