package main

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// needVSockLoopback leaves out what takes a kernel where a machine can reach
// itself by vsock. That of make test-vm can.
func needVSockLoopback(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip("SKIPPED: this kernel has no vsock: ", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: unix.VMADDR_PORT_ANY}); err != nil {
		t.Skip("SKIPPED: this kernel has no vsock_loopback: ", err)
	}
}

// Without a way to reach it, a service of vsock can at least be started, asked
// for and stopped.
func TestVSockListens(t *testing.T) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip("SKIPPED: this kernel has no vsock: ", err)
	}
	unix.Close(fd)
	t.Parallel()
	yaml := several("guest", "listen: vsock:0, builtin: echo", "other", "listen: 'vsock:0', run: /bin/cat, timeout: {session: 1h}")
	d := start(t, yaml)
	address := d.address("guest")
	if !strings.HasPrefix(address, "vsock:") || address == d.address("other") {
		t.Errorf("it listens on %s, the other on %s", address, d.address("other"))
	}
	d.rewrite(1, several("guest", "listen: '"+address+"', builtin: greeting", "other", "listen: vsock:0, run: /bin/cat"))
	if got := d.addresses("other"); len(got) != 1 {
		t.Errorf("after a reload the other listens on %q", got)
	}
	for _, r := range d.recordsOf("") {
		if strings.HasPrefix(r.text("message"), "cannot change") {
			t.Errorf("the reload says %v", r)
		}
	}
	code, _, complaints := finished(t, prepare(t, several("taken", "listen: '"+address+"', builtin: echo")))
	if want := ": cannot listen on " + address + ": address already in use (EADDRINUSE) (another process listens there)\n"; code != 1 || !strings.HasSuffix(complaints, want) {
		t.Errorf("another superd says %d %s, not %s", code, complaints, want)
	}
}

func TestVSock(t *testing.T) {
	needVSockLoopback(t)
	t.Parallel()
	env := installed(t, "env")
	d := start(t, several(
		"cat", "listen: vsock:0, run: /bin/cat",
		"records", "listen: {address: 'vsock:0', type: seqpacket}, run: /bin/cat",
		"brief", "listen: vsock:1:0, "+shell("echo answer"),
		"closed", "listen: vsock:0, builtin: echo, allow: ['127.0.0.0/8', uid:0]",
		"ucspi", "listen: vsock:0, run: "+env, "systemd", "listen: vsock:0, env_style: [systemd], run: "+env,
		"ncat", "listen: vsock:0, env_style: [ncat], run: "+env, "cgi", "listen: vsock:0, env_style: [cgi], run: "+env,
		"xinetd", "listen: vsock:0, env_style: [xinetd], run: "+env))
	ask := func(service, input string) string {
		t.Helper()
		cmd := superd("connect", d.address(service))
		cmd.Stdin = strings.NewReader(input)
		code, out, complaints := finished(t, cmd)
		if code != 0 {
			t.Errorf("%s: %d %s", service, code, complaints)
		}
		return out
	}
	for _, service := range []string{"cat", "records"} {
		if got := ask(service, "hello\n"); got != "hello\n" {
			t.Errorf("%s answers %q", service, got)
		}
		r := d.exited(service, 1)[0]
		if port := strings.TrimPrefix(d.address(service), "vsock:"); !strings.HasPrefix(r.text("peer"), "vsock:1:") || r.text("local") != "vsock:1:"+port || r.number("bytes_in") != -1 {
			t.Errorf("%s: it is recorded as %v", service, r)
		}
	}
	if got := ask("brief", strings.Repeat("unread", 10_000)); got != "answer\n" {
		t.Errorf("brief answers %q", got)
	}
	ask("closed", "hello")
	if r := d.refused("closed"); r.text("reason") != "address" {
		t.Errorf("it is recorded as %v", r)
	}
	for style, want := range map[string]string{
		"ucspi":   "PROTO=VSOCK VSOCKLOCALCID=1 VSOCKLOCALPORT=$lp VSOCKREMOTECID=1 VSOCKREMOTEPORT=$rp",
		"systemd": "REMOTE_ADDR=vsock:1 REMOTE_PORT=$rp",
		"xinetd":  "",
		"ncat":    "NCAT_LOCAL_ADDR=1 NCAT_LOCAL_PORT=$lp NCAT_REMOTE_ADDR=1 NCAT_REMOTE_PORT=$rp",
		"cgi":     "GATEWAY_INTERFACE=CGI/1.1 SERVER_PROTOCOL=VSOCK",
	} {
		got := fmt.Sprint(connectionsVariables(ask(style, "")))
		r := d.exited(style, 1)[0]
		port := func(field string) string { return r.text(field)[strings.LastIndex(r.text(field), ":")+1:] }
		want = "[" + strings.NewReplacer("$lp", port("local"), "$rp", port("peer")).Replace(want) + "]"
		if got != want {
			t.Errorf("%s: got\n%s, want\n%s", style, got, want)
		}
	}
}

// What is no address of vsock is no reason to ask the kernel.
func TestConnectToNoVSock(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"vsock:", "vsock:x", "vsock:1:", "vsock:1:2:3", "vsock:4294967296"} {
		code, _, complaints := finished(t, superd("connect", address))
		if want := "cannot connect to " + address + ": it is not vsock:PORT or vsock:CID:PORT\n"; code != 1 || complaints != want {
			t.Errorf("it ends with %d and %q, not %q", code, complaints, want)
		}
	}
}
