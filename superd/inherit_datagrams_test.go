package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Sockets for datagrams that superd is started with, and what a reload or an
// upgrade may ask of inherited ones.

// handedPackets is handedSocket for one of datagrams.
func handedPackets(t testing.TB, network, address string) (f *os.File, at string) {
	t.Helper()
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	f, err = c.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	f.Fd() // makes it blocking
	return f, c.LocalAddr().String()
}

// They go on to programs, called by name or by address, and are never taken for
// others with the same port.
func TestInheritedDatagrams(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	os.Chmod(dir, 0o777)
	named, namedAt := handedPackets(t, "udp4", "127.0.0.1:0")
	addressed, addressedAt := handedPackets(t, "udp4", "127.0.0.1:0")
	stream, err := net.Listen("tcp4", addressedAt)
	if err != nil {
		t.Skip("SKIPPED: the port is taken for TCP: ", err)
	}
	t.Cleanup(func() { stream.Close() })
	web, err := stream.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Close() })
	log, _ := handedPackets(t, "unixgram", dir+"/log")
	yaml := several(
		"named", `listen: fd:n, wait: stdin, `+receiver(t, 2, ""),
		"addressed", `listen: "udp:`+addressedAt+`", wait: stdin, `+receiver(t, 2, ""),
		"web", `listen: "`+addressedAt+`", builtin: greeting`,
		"log", `listen: {address: "unix:`+dir+`/log", type: datagram}, wait: stdin, `+receiver(t, 2, ""))
	d := startCommand(t, handed(t, prepare(t, yaml), "web:n:a:log", web, named, addressed, log))
	if got := fmt.Sprint(d.addresses("named"), d.addresses("addressed"), d.addresses("web")); got != fmt.Sprintf("[udp:%s] [udp:%s] [%[2]s]", namedAt, addressedAt) {
		t.Errorf("they listen on %s", got)
	}
	own := filepath.Join(dir, "own")
	local, err := net.DialUnix("unixgram", &net.UnixAddr{Name: own, Net: "unixgram"}, &net.UnixAddr{Name: dir + "/log", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	os.Chmod(own, 0o777)
	local.SetDeadline(time.Now().Add(patience))
	clients := map[string]net.Conn{"named": d.dialUDP("named"), "addressed": d.dialUDP("addressed"), "log": local}
	pids := map[string]string{}
	answers := func(n int) {
		t.Helper()
		for service, c := range clients {
			sendTo(t, c, "hello")
			pid, rest, _ := strings.Cut(receive(t, c), " ")
			if rest != fmt.Sprint(n, " hello") || n > 1 && pid != pids[service] {
				t.Errorf("%s: %s answers %q, and %s before", service, pid, rest, pids[service])
			}
			pids[service] = pid
		}
	}
	for i := range 2 {
		answers(1)
		d.upgradeNow(i + 1)
		answers(2)
		for service := range clients {
			d.exited(service, i+1)
		}
	}
	if got := reply(t, addressedAt); got != "hi client" {
		t.Errorf("the service of the same port says %q", got)
	}
	// Nobody can be accepted there.
	d.badReload(several("named", `listen: fd:n, builtin: echo`), "is a socket for datagrams, at which nobody is accepted (write wait: stdin")
	answers(1)
	answers(2)
	d.exited("named", 3)
	if !isSocket(dir + "/log") {
		t.Error("its file is gone")
	}
}

// badReload wants a file not to be taken up, for a reason; then it writes the one
// of before again.
func (d *process) badReload(yaml, why string) {
	d.t.Helper()
	before, err := os.ReadFile(d.config())
	if err == nil {
		err = os.WriteFile(d.config(), []byte(yaml), 0o644)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.signal(syscall.SIGHUP)
	d.await(func(r record) bool { return strings.Contains(r.text("message"), why) })
	if err := os.WriteFile(d.config(), before, 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// What cannot be had of an inherited socket at the start cannot be had by a
// reload either, and nothing of it is changed.
func TestReloadOfInheritedSockets(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	local, _ := handedSocket(t, "unix", dir+"/local")
	web, address := handedSocket(t, "tcp4", "0.0.0.0:0")
	spare, spareAddress := handedSocket(t, "tcp4", "127.0.0.1:0")
	if err := os.Chmod(dir+"/local", 0o644); err != nil {
		t.Fatal(err)
	}
	d := startCommand(t, handed(t, prepare(t, several("local", "listen: fd:local, builtin: echo", "web", "listen: fd:web, builtin: echo",
		"spare", `listen: fd:spare, builtin: echo`)), "local:web:spare", local, web, spare))
	for listen, why := range map[string]string{
		`{address: "unix:` + dir + `/local", mode: "0600"}`: "services.local.listen.mode: cannot listen on unix:" + dir + "/local: the socket is inherited",
		`{address: "unix:` + dir + `/local", owner: root}`:  "services.local.listen.owner: cannot listen on unix:" + dir + "/local: the socket is inherited",
		`{address: "fd:local", nodelay: true}`:              "services.local.listen.nodelay: cannot listen on fd:local: the inherited socket is not of TCP",
		`{address: "` + spareAddress + `", freebind: true}`: "services.local.listen.freebind: cannot listen on " + spareAddress + ": freebind: the socket is inherited",
	} {
		d.badReload(several("local", "listen: "+listen+", builtin: echo"), why)
	}
	info, err := os.Stat(dir + "/local")
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	if got := d.askUnix("local", "", "hello"); got != "hello" {
		t.Errorf("it says %q", got)
	}
	// Whose address a connection came to is known after an upgrade as well.
	_, port, _ := net.SplitHostPort(address)
	for i := range 2 {
		c, err := dialAddress("127.0.0.1:" + port)
		if err != nil {
			t.Fatal(err)
		}
		d.talk(c, "hello")
		c.Close()
		if r := d.exited("web", i+1)[i]; r.text("local") != "127.0.0.1:"+port {
			t.Errorf("after %d upgrades the record is %v", i, r)
		}
		if i == 0 {
			d.upgradeNow(1)
		}
	}
}

// The file of a unix socket is the same through upgrades, and goes with it.
func TestUpgradeKeepsUnixSockets(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	service := func(name string) []string {
		return []string{name, `listen: "unix:` + dir + "/" + name + `", builtin: echo`}
	}
	d := start(t, several(append(service("stays"), service("goes")...)...))
	before, err := os.Stat(dir + "/stays")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		d.upgradeNow(i + 1)
		if got := d.askUnix("stays", "", "hello"); got != "hello" {
			t.Errorf("it says %q", got)
		}
		if after, err := os.Stat(dir + "/stays"); err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
			t.Errorf("the file is %v, %v", after, err)
		}
	}
	d.rewrite(1, several(service("stays")...))
	if isSocket(dir + "/goes") {
		t.Error("what a reload has taken out is still there")
	}
	d.idle -= 2
	d.settled()
	d.ends()
	if isSocket(dir + "/stays") {
		t.Error("after the end the file is still there")
	}
}

// Where the file has the address of one, each peer has a program, and is answered
// from the address that it has sent to, also who has done that before superd was
// there.
func TestInheritedDatagramsOfPeers(t *testing.T) {
	t.Parallel()
	packets, at := handedPackets(t, "udp4", "0.0.0.0:0")
	early := dialUDP(t, "127.0.0.2:"+port(at))
	sendTo(t, early, "hello")
	d := startCommand(t, handed(t, prepare(t, several("x", `listen: "udp:`+at+`", timeout: {idle: 1h}, `+dutiful(t))), "", packets))
	pid := strings.Fields(receive(t, early))
	late := dialUDP(t, "127.0.0.3:"+port(at))
	counted(t, late, "", 1)
	counted(t, early, pid[0], 2)
	d.upgradeNow(1)
	counted(t, early, pid[0], 3)
	counted(t, late, "", 2)
	for _, c := range []net.Conn{early, late} {
		sendTo(t, c, "end")
	}
	d.exited("x", 2)
	d.hup(1)
	d.idle = d.descriptors() // when it was ready, a program may have been there
}
