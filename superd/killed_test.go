package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What becomes of programs, and of the next superd, when one was killed.

// unused is an address of this machine that nobody listens at.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.83.0.1:0") // where other tests take none
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Programs go on with their connections, and a superd that is started at once,
// with the same file, has all that the killed one had: ports, unix sockets and
// the administrative socket; of connections it knows its own.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	tcp, web, udp := unused(t), unused(t), unused(t)
	yaml := fmt.Sprintf("control: {path: %[1]s/control}\nhttp: {listen: '%[2]s'}\nlog: {output: %[1]s/log}\n", dir, web) + several(
		"cat", "listen: '"+tcp+"', run: /bin/cat, max: 2, sandbox: none",
		"inside", "listen: '127.0.0.1:0', run: /bin/cat, sandbox: "+ifElse(os.Geteuid() == 0, "strict", "basic"), // strict takes root
		"echo", "listen: '127.0.0.1:0', builtin: echo",
		"path", "listen: 'unix:"+dir+"/path', run: /bin/cat",
		"name", "listen: 'unix:@"+dir+"/name', run: /bin/cat",
		"datagrams", "listen: 'udp:"+udp+"', wait: stdin, "+receiver(t, 1, ""))
	begin := func() (asked, map[string]net.Conn) {
		t.Helper()
		cmd := prepare(t, yaml)
		stderrFile(t, cmd)
		a := asked{launch(t, cmd), dir + "/control"}
		go func() { // ends with superd
			cmd.Wait()
			close(a.wait)
		}()
		ready := func() error {
			list := recordsIn(t, dir+"/log")
			for i := len(list) - 1; i >= 0; i-- {
				if list[i].is("ready") && list[i].number("pid") == float64(a.pid()) {
					a.records = list
					return nil
				}
			}
			return fmt.Errorf("superd is not ready")
		}
		eventually(t, ready)
		addresses := map[string]string{}
		for _, r := range a.records { // the last one of each is its own
			if r.is("listening") {
				addresses[r.text("service")] = r.text("local")
			}
		}
		conns := map[string]net.Conn{}
		for name, address := range addresses {
			if name == "datagrams" {
				continue
			}
			network := "tcp"
			if path, is := strings.CutPrefix(address, "unix:"); is {
				network, address = "unix", path
			}
			c, err := net.Dial(network, address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(patience))
			a.talk(c, "hello "+name+"\n")
			conns[name] = c
		}
		c := dialUDP(t, udp)
		sendTo(t, c, "x")
		if got := receive(t, c); !strings.HasSuffix(got, " 1 x") {
			t.Errorf("the datagram is answered with %q", got)
		}
		eventually(t, func() error { // until the program for the datagram has ended
			if n := len(a.connections()); n != len(conns) {
				return fmt.Errorf("of %d connections superd says %d", len(conns), n)
			}
			return nil
		})
		return a, conns
	}
	first, before := begin()
	for _, one := range first.connections() {
		t.Cleanup(func() { syscall.Kill(one.PID, syscall.SIGKILL) })
	}
	first.signal(syscall.SIGKILL)
	first.ended()
	second, after := begin()
	if s := second.status(); s.PID != second.pid() || s.Live != len(after) || s.Generation != 1 || len(s.Services) != 6 {
		t.Errorf("the next superd says %+v", s)
	}
	mine := map[string]bool{}
	for _, one := range second.connections() {
		mine[one.Local+" "+one.Peer] = true
	}
	if len(mine) != len(after) {
		t.Errorf("the next superd has the connections %v", mine)
	}
	for name, c := range before {
		second.talk(c, "still here "+name+"\n")
		if mine[c.RemoteAddr().String()+" "+c.LocalAddr().String()] && c.LocalAddr().Network() == "tcp" {
			t.Errorf("the next superd takes a connection of %s for its own", name)
		}
		closeWrite(c)
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Errorf("the connection of %s ends with %q, %v", name, rest, err)
		}
	}
	watched := watched{second, web}
	if got := watched.page("/readyz"); got != "200 ok" {
		t.Errorf("it is %s", got)
	}
	for name, c := range after {
		second.talk(c, "hello again "+name+"\n")
		c.Close()
	}
	second.signal(syscall.SIGTERM)
	if code := second.ended(); code != 0 {
		t.Errorf("the next superd ends with %d", code)
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 1 {
		t.Errorf("left are %v, beside the log", left)
	}
}

// closeWrite ends what goes from here to the other end.
func closeWrite(c net.Conn) { c.(interface{ CloseWrite() error }).CloseWrite() }
