package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Programs that get a socket of datagrams itself, as inetd's dgram wait has it.

// dialUDP is a client of a service's first socket, from an address if one is
// given.
func (d *process) dialUDP(service string, from ...string) *net.UDPConn {
	d.t.Helper()
	return dialUDP(d.t, d.address(service), from...)
}

// dialUDP takes a port that the kernel gives to nobody who leaves it the choice:
// one of another address that a socket of superd's has as well is not answered.
func dialUDP(t testing.TB, address string, from ...string) *net.UDPConn {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", strings.TrimPrefix(address, "udp:"))
	if err != nil {
		t.Fatal(err)
	}
	var own net.UDPAddr
	if len(from) > 0 {
		own.IP = net.ParseIP(from[0])
	}
	c, err := (*net.UDPConn)(nil), error(syscall.EADDRINUSE)
	for try := 0; try < 100 && errors.Is(err, syscall.EADDRINUSE); try++ {
		own.Port = 10_000 + rand.IntN(20_000) // below ip_local_port_range of ip(7)
		c, err = net.DialUDP("udp", &own, to)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// sendTo sends a datagram.
func sendTo(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// receive is the datagram that comes next.
func receive(t testing.TB, c net.Conn) string {
	t.Helper()
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// receiver is a program of perl that answers as many datagrams as it is told
// from descriptor 0, and ends.
func receiver(t *testing.T, datagrams int, begin string) string {
	return "run: " + yamlList(installed(t, "perl"), "-e", fmt.Sprintf(
		`open S, "+<&=0"; %s; for (1..%d) { $from = recv S, $x, 65536, 0; send S, "$$ $_ $x", 0, $from }`, begin, datagrams))
}

// A program is started by a datagram, which it finds in its socket; each that
// comes while it runs is its own.
func TestDatagramsWaitStdin(t *testing.T) {
	t.Parallel()
	d := start(t, several("inetd", `listen: "udp:127.0.0.1:0", wait: stdin, `+receiver(t, 2, "")))
	c := d.dialUDP("inetd")
	for i, word := range []string{"a", "b"} {
		var pid [2]string
		for n := range pid {
			sendTo(t, c, word)
			answer := strings.Fields(receive(t, c))
			if len(answer) != 3 || answer[1] != fmt.Sprint(n+1) || answer[2] != word {
				t.Fatalf("the answer is %q", answer)
			}
			pid[n] = answer[0]
		}
		if r := d.exited("inetd", i+1)[i]; pid[0] != pid[1] || fmt.Sprint(r.number("pid")) != pid[0] ||
			r.text("peer") != c.LocalAddr().String() || r.text("local") != d.address("inetd") {
			t.Errorf("the programs %v are recorded as %v", pid, r)
		}
	}
}

// What a program leaves in the socket is the next one's.
func TestDatagramsLeftToTheNextProgram(t *testing.T) {
	t.Parallel()
	d := start(t, several("inetd", `listen: "udp:127.0.0.1:0", wait: stdin, `+receiver(t, 1, "")))
	c := d.dialUDP("inetd")
	const many = 10
	for i := range many {
		sendTo(t, c, fmt.Sprint(i))
	}
	pids := map[string]bool{}
	for i := range many {
		answer := strings.Fields(receive(t, c))
		if pids[answer[0]] = true; answer[2] != fmt.Sprint(i) {
			t.Errorf("answer %d is to %s", i, answer[2])
		}
	}
	if len(pids) != many {
		t.Errorf("%d programs have answered", len(pids))
	}
	d.exited("inetd", many)
}

// A program that fails with a datagram left unread does not spin: its service
// pauses for the sender, whose datagrams are dropped meanwhile and told as
// refused; others are served.
func TestDatagramThatProgramsFailFor(t *testing.T) {
	t.Parallel()
	d := start(t, several("inetd", `listen: "udp:127.0.0.1:0", wait: stdin, failures: {within: 1h, pause: 1h}, `+
		receiver(t, 1, `recv S, $x, 9, 2; exit 3 if $x eq "poison"`))) // 2: MSG_PEEK
	bad, good := d.dialUDP("inetd"), d.dialUDP("inetd", "127.0.0.2")
	sendTo(t, bad, "poison")
	d.await(func(r record) bool { return r.is("paused") && r["source_only"] == true })
	if r := d.refused("inetd"); r.text("reason") != "failing" || r.text("peer") != bad.LocalAddr().String() {
		t.Errorf("the datagram that was left is recorded as %v", r)
	}
	d.checkFailures("inetd")
	n := len(d.exited("inetd", 5))
	sendTo(t, good, "hello")
	if got := receive(t, good); !strings.HasSuffix(got, " 1 hello") {
		t.Errorf("another client gets %q", got)
	}
	d.exited("inetd", n+1)
}

// Rules hold for who has a program started, as far as superd sees that.
func TestDatagramsAreRefused(t *testing.T) {
	t.Parallel()
	d := start(t, several("inetd", `listen: "udp:127.0.0.1:0", wait: stdin, deny: [127.0.0.2], `+receiver(t, 1, "")))
	d.await(func(r record) bool {
		return strings.Contains(r.text("message"), "with wait, superd sees only who has sent")
	})
	denied, allowed := d.dialUDP("inetd", "127.0.0.2"), d.dialUDP("inetd")
	for range 40 { // more than are looked at together
		sendTo(t, denied, "x")
	}
	sendTo(t, allowed, "hello")
	if got := receive(t, allowed); !strings.HasSuffix(got, " 1 hello") {
		t.Errorf("the answer is %q", got)
	}
	if r := d.refused("inetd"); r.text("reason") != "address" || !strings.HasPrefix(r.text("peer"), "127.0.0.2:") {
		t.Errorf("the refusal is recorded as %v", r)
	}
	d.exited("inetd", 1)
}

// A port alone is one socket for IPv4 and one for IPv6, each with a program of
// its own, that is told of its socket alone.
func TestDatagramsOnABarePort(t *testing.T) {
	needIPv6(t)
	t.Parallel()
	d := start(t, several("inetd", `listen: "udp:0", wait: stdin, env_style: [ucspi, systemd, xinetd, ncat, cgi], `+receiver(t, 1,
		`$_ = join " ", map { "$_=$ENV{$_}" } sort grep { !/^(PATH|HOME|USER|LOGNAME|SHELL|SUPERD_.*)$/ } keys %ENV; recv S, $x, 9, 2; $from = recv S, $x, 9, 0; send S, $_, 0, $from; exit`)))
	addresses := d.addresses("inetd")
	port := port(strings.TrimPrefix(addresses[0], "udp:"))
	if addresses[0] != "udp:0.0.0.0:"+port || addresses[1] != "udp:[::]:"+port {
		t.Fatalf("it listens on %v", addresses)
	}
	for host, own := range map[string]string{"127.0.0.1": "0.0.0.0", "::1": "::"} {
		c := dialUDP(t, net.JoinHostPort(host, port))
		sendTo(t, c, "x")
		want := strings.NewReplacer("=N", "="+port, "=A", "="+own).Replace("GATEWAY_INTERFACE=CGI/1.1 NCAT_LOCAL_ADDR=A NCAT_LOCAL_PORT=N " +
			"NCAT_PROTO=UDP PROTO=UDP SERVER_NAME=A SERVER_PORT=N SERVER_PROTOCOL=UDP UDPLOCALIP=A UDPLOCALPORT=N")
		if got := receive(t, c); got != want {
			t.Errorf("at %s the environment is %q, not %q", host, got, want)
		}
	}
	d.exited("inetd", 2)
}

// Unix sockets of datagrams are lent as well.
func TestUnixDatagramsWaitStdin(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	os.Chmod(dir, 0o777)
	path := filepath.Join(dir, "log")
	d := start(t, several("log", fmt.Sprintf(`listen: {address: "unix:%s", type: datagram, mode: "0666"}, wait: stdin, env_style: [ucspi], %s`, path, receiver(t, 2, ""))))
	own := filepath.Join(dir, "own")
	c, err := net.DialUnix("unixgram", &net.UnixAddr{Name: own, Net: "unixgram"}, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	os.Chmod(own, 0o777)
	c.SetDeadline(time.Now().Add(patience))
	for i := range 2 {
		sendTo(t, c, "hello")
		if got := receive(t, c); !strings.HasSuffix(got, fmt.Sprintf(" %d hello", i+1)) {
			t.Errorf("the answer is %q", got)
		}
	}
	if r := d.exited("log", 1)[0]; r.text("peer") != ownPeer() || r.text("local") != "unix:"+path {
		t.Errorf("it is recorded as %v", r)
	}
}

// ownPeer is the test itself as the log has it where it comes by a unix socket.
func ownPeer() string {
	return fmt.Sprintf("unix:pid=%d,uid=%d,gid=%d", os.Getpid(), os.Getuid(), os.Getgid())
}

// Rules about users hold for who has a program started by a datagram to a unix
// socket.
func TestUnixDatagramsAreRefused(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	other := fmt.Sprintf("'uid:%d'", os.Getuid()+1)
	service := `%[1]s: {listen: {address: "unix:` + dir + `/%[1]s", type: datagram}, wait: stdin, %[2]s, ` + receiver(t, 1, "") + "}\n"
	d := start(t, "services:\n  "+fmt.Sprintf(service, "closed", fmt.Sprintf("deny: ['uid:%d']", os.Getuid()))+
		"  "+fmt.Sprintf(service, "others", "allow: ["+other+"]")+"  "+fmt.Sprintf(service, "open", "deny: ["+other+"]"))
	for _, name := range []string{"closed", "others", "open"} {
		c, err := net.Dial("unixgram", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sendTo(t, c, "hello")
		c.Close()
		if name == "open" {
			continue
		}
		if r := d.refused(name); r.text("reason") != "address" || r.text("peer") != ownPeer() {
			t.Errorf("%s: the refusal is recorded as %v", name, r)
		}
	}
	if r := d.exited("open", 1)[0]; r.text("peer") != ownPeer() {
		t.Errorf("it is recorded as %v", r)
	}
	for _, r := range d.awaitMany(3, func(r record) bool { return strings.Contains(r.text("message"), "with wait") }) {
		if !strings.Contains(r.text("message"), "superd sees only who has sent the datagram") {
			t.Errorf("it warns: %v", r)
		}
	}
}

// A program can get sockets of both kinds together.
func TestDatagramsAndConnectionsTogether(t *testing.T) {
	t.Parallel()
	d := start(t, several("dns", `listen: ["127.0.0.1:0", "udp:127.0.0.1:0"], wait: listen-fds, run: `+yamlList(installed(t, "perl"), "-e",
		`open T, "+<&=3"; open U, "+<&=4"; vec($bits, 3, 1) = vec($bits, 4, 1) = 1;
		for (1..2) { select $r = $bits, undef, undef, undef; if (vec $r, 3, 1) { accept C, T; syswrite C, "$$ tcp"; close C } else { $from = recv U, $x, 9, 0; send U, "$$ udp", 0, $from } }`)))
	for range 2 {
		tcp := reply(t, d.addresses("dns")[0])
		c := dialUDP(t, d.addresses("dns")[1])
		sendTo(t, c, "x")
		pid, rest, _ := strings.Cut(receive(t, c), " ")
		if rest != "udp" || tcp != pid+" tcp" {
			t.Errorf("the answers are %q and %q of %s", tcp, rest, pid)
		}
	}
	d.exited("dns", 2)
}

// A reload that moves a service to another port leaves the program alone that
// has the socket of before, and starts one for the new socket at once.
func TestReloadMovesDatagrams(t *testing.T) {
	t.Parallel()
	d := start(t, several("inetd", `listen: "udp:127.0.0.1:0", wait: stdin, `+receiver(t, 3, "")))
	before := d.dialUDP("inetd")
	sendTo(t, before, "1")
	old, _, _ := strings.Cut(receive(t, before), " ")
	d.rewrite(1, several("inetd", `listen: "udp:127.0.0.2:0", wait: stdin, `+receiver(t, 1, "")))
	after := dialUDP(t, d.addresses("inetd")[1])
	sendTo(t, after, "new")
	if got := receive(t, after); strings.HasPrefix(got, old+" ") || !strings.HasSuffix(got, " 1 new") {
		t.Errorf("at the new port the answer is %q", got)
	}
	for i := range 2 {
		sendTo(t, before, "still")
		if got, want := receive(t, before), fmt.Sprintf("%s %d still", old, i+2); got != want {
			t.Errorf("at the old port the answer is %q, not %q", got, want)
		}
	}
	d.exited("inetd", 2)
	eventually(t, func() error { // nobody has the old socket any more
		before.SetDeadline(time.Now().Add(patience / 100)) // what finds it open still has no answer
		_, err := before.Write([]byte("x"))
		if err == nil {
			_, err = before.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("the old port answers %v", err)
		}
		return nil
	})
}

// in.tftpd answers each request by a process of its own, from a port of its
// own, and ends when it has been idle.
func TestTFTP(t *testing.T) {
	needRoot(t)
	needIPv6(t)
	t.Parallel()
	tftpd, curl := installed(t, "in.tftpd"), program(t, "curl")
	dir := publicDir(t)
	sizes := []int{0, 511, 512, 513, 5 << 20}
	for _, size := range sizes {
		writeFile(t, dir, fmt.Sprint(size), string(noise(uint64(size), size)), 0o644)
	}
	d := start(t, several("tftp", fmt.Sprintf(`listen: "udp:0", wait: true, user: root, leftovers: leave, sandbox: {preset: none, capabilities: [setuid, setgid, sys_chroot]}, run: %s`,
		yamlList(tftpd, "-s", "-t", "2", "-u", "nobody", dir))))
	port := port(strings.TrimPrefix(d.address("tftp"), "udp:"))
	get := func(host, file string) (out, complaints []byte) {
		for range 5 { // curl asks again where nothing comes for seconds, and takes two answers for an error
			var stderr bytes.Buffer
			c := client(t, curl, "-g", "-sS", "--tftp-no-options", fmt.Sprintf("tftp://%s:%s//%s", host, port, file))
			c.Stderr = &stderr
			var err error
			out, err = c.Output()
			complaints = stderr.Bytes()
			if err == nil || bytes.Contains(complaints, []byte("(68)")) { // no such file
				break
			}
		}
		return out, complaints
	}
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		for _, size := range sizes {
			if got, complaints := get(host, fmt.Sprint(size)); !bytes.Equal(got, noise(uint64(size), size)) || len(complaints) > 0 {
				t.Errorf("%s: %d of %d bytes came: %s", host, len(got), size, complaints)
			}
			if _, complaints := get(host, "none"); !bytes.Contains(complaints, []byte("(68)")) {
				t.Errorf("a missing file: %s", complaints)
			}
		}
	}
	for _, r := range d.exited("tftp", 2) {
		if r.number("status") != 0 {
			t.Errorf("it ended with %v", r)
		}
	}
}
