package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Programs of others that take listening sockets.

// endChild ends superd's only program.
func (d *process) endChild(service string) {
	d.t.Helper()
	if err := syscall.Kill(d.child(), syscall.SIGTERM); err != nil {
		d.t.Error(err)
	}
	d.exited(service, 1)
}

// nbdkit takes its socket from systemd, as it thinks, serves as many clients as
// come, and ends by a signal.
func TestNbdkit(t *testing.T) {
	t.Parallel()
	nbdkit, nbdcopy := installed(t, "nbdkit"), program(t, "nbdcopy")
	dir := publicDir(t)
	content := noise(1, 1<<20)
	writeFile(t, dir, "disk", string(content), 0o644)
	d := start(t, `services: {disk: {listen: "127.0.0.1:0", wait: listen-fds, run: `+
		yamlList(nbdkit, "-f", "-r", "file", dir+"/disk")+`}}`)
	for range 2 {
		copied := dir + "/copy"
		output(t, client(t, nbdcopy, "nbd://"+d.address("disk"), copied))
		if got, err := os.ReadFile(copied); err != nil || string(got) != string(content) {
			t.Errorf("%d of %d bytes came, %v", len(got), len(content), err)
		}
		os.Remove(copied)
	}
	d.endChild("disk")
}

// lighttpd takes all sockets, and would open one of its own for the port that
// its file names if that were not among them.
func TestLighttpd(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	writeFile(t, dir, "page", "hello\n", 0o644)
	d := start(t, `services: {web: {listen: ["127.0.0.1:0", "127.0.0.2:0"], wait: listen-fds, run: `+
		yamlList(installed(t, "lighttpd"), "-D", "-f", dir+"/conf")+`}}`)
	_, port, _ := net.SplitHostPort(d.address("web"))
	writeFile(t, dir, "conf", `server.systemd-socket-activation = "enable"
server.document-root = "`+dir+`"
server.port = `+port+"\n", 0o644)
	curl := program(t, "curl")
	for _, address := range d.addresses("web") {
		if got := output(t, client(t, curl, "-sS", "http://"+address+"/page")); got != "hello\n" {
			t.Errorf("%s answers %q", address, got)
		}
	}
	d.endChild("web")
}

// fcgiwrap is a FastCGI server, which has its socket as descriptor 0.
func TestFcgiwrap(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	script := writeFile(t, dir, "script", "#!/bin/sh\necho Content-Type: text/plain; echo; echo \"hello from $SCRIPT_FILENAME\"; cat\n", 0o755)
	d := start(t, `services: {cgi: {listen: "127.0.0.1:0", wait: stdin, run: `+
		yamlList(installed(t, "fcgiwrap"), "-c", "2")+`}}`)
	ask := func(body string) string {
		c := client(t, program(t, "cgi-fcgi"), "-bind", "-connect", d.address("cgi"))
		c.Env = []string{"SCRIPT_FILENAME=" + script, "REQUEST_METHOD=POST", "CONTENT_LENGTH=" + strconv.Itoa(len(body))}
		c.Stdin = strings.NewReader(body)
		return output(t, c)
	}
	for range 3 {
		if got := ask("body"); !strings.HasSuffix(got, "hello from "+script+"\nbody") {
			t.Errorf("it answers %q", got)
		}
	}
	d.endChild("cgi")
}
