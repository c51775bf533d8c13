package main

import (
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Datagrams that start a program for each peer.

// teller is a program of perl that reads each datagram into $_ and does what it
// is told; it ends with its input.
func teller(t *testing.T, do string) string {
	return "run: " + yamlList(installed(t, "perl"), "-e", `while (sysread STDIN, $_, 65536) { `+do+` }`)
}

// dialogue sends a datagram and returns the answer.
func dialogue(t testing.TB, c net.Conn, text string) string {
	t.Helper()
	sendTo(t, c, text)
	return receive(t, c)
}

// never is the time of peers who are to stay, however long something stands still;
// endPeers ends their programs.
const never = `timeout: {idle: 1h}, `

func (a asked) endPeers() {
	a.t.Helper()
	a.told("kill", "--source", "127.0.0.0/8")
}

// A program ends when its peer has been idle.
func TestIdlePeersAtOnce(t *testing.T) {
	t.Parallel()
	const peers = 20
	d := start(t, several("echo", `listen: "udp:127.0.0.1:0", timeout: {idle: 300ms, stop: 1h}, run: `+yamlList(installed(t, "cat"))))
	all := map[string]bool{}
	for range peers {
		c := d.dialUDP("echo")
		all[c.LocalAddr().String()] = true
		sendTo(t, c, "x")
	}
	for _, r := range d.exited("echo", peers) {
		if r.text("reason") != "timeout.idle" || r.number("status") != 0 || !all[r.text("peer")] || r.number("bytes_out") != 1 {
			t.Errorf("it is recorded as %v", r)
		}
		delete(all, r.text("peer"))
	}
}

// Each peer has a program of its own, which gets all of its datagrams and no
// others. As clients by UDP do, these send again what is not answered: the kernel
// drops what its buffer has no room for.
func TestManyPeersAtOnce(t *testing.T) {
	t.Parallel()
	const peers, each = 200, 5
	d := startAsked(t, several("sum", `listen: "udp:127.0.0.1:0", `+never+teller(t, `syswrite STDOUT, "$$ " . length() . " " . unpack("%32C*", $_)`)))
	var all sync.WaitGroup
	for i := range peers {
		c := d.dialUDP("sum")
		all.Add(1)
		go func() {
			defer all.Done()
			var pid string
			for n := range each {
				text := noise(uint64(i*each+n), 1+n+each*((i*31+n*977)%280))
				sum := 0
				for _, b := range text {
					sum += int(b)
				}
				f := insist(c, text, fmt.Sprint(len(text)))
				if len(f) != 3 || n > 0 && f[0] != pid || f[2] != fmt.Sprint(sum) {
					t.Errorf("peer %d, datagram %d: %q; the program of before is %s", i, n, f, pid)
					return
				}
				pid = f[0]
			}
		}()
	}
	all.Wait()
	d.endPeers()
	seen := map[string]bool{}
	for _, r := range d.exited("sum", peers) {
		if r.text("reason") != "kill" || seen[r.text("peer")] || r.number("bytes_out") == 0 {
			t.Errorf("it is recorded as %v", r)
		}
		seen[r.text("peer")] = true
	}
}

// insist sends a datagram until it is answered, and returns the words of the
// answer that has the second word right; nil where none comes.
func insist(c net.Conn, text []byte, second string) []string {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		c.Write(text)
		c.SetReadDeadline(time.Now().Add(time.Second))
		for {
			b := make([]byte, 1<<16)
			n, err := c.Read(b)
			if err != nil {
				break
			}
			if f := strings.Fields(string(b[:n])); len(f) > 1 && f[1] == second {
				return f
			}
		}
	}
	return nil
}

// What a datagram has goes there and back unchanged, up to the largest that
// there is, and the record knows how much it was.
func TestDatagramsOfAllSizes(t *testing.T) {
	needIPv6(t)
	t.Parallel()
	d := startAsked(t, several("echo", `listen: ["udp:127.0.0.1:0", "udp:[::1]:0"], `+never+`run: `+yamlList(installed(t, "cat"))))
	total := 0
	for i, address := range d.addresses("echo") {
		c := dialUDP(t, address)
		for _, size := range []int{1, 2, 511, 1472, 9000, 65507} {
			text := string(noise(uint64(size+i), size))
			total += size
			if got := dialogue(t, c, text); got != text {
				t.Errorf("%d bytes come back as %d, %x", size, len(got), crc32.ChecksumIEEE([]byte(got)))
			}
		}
	}
	d.told("kill", "--service", "echo")
	in, out := 0, 0
	for _, r := range d.exited("echo", 2) {
		in, out = in+int(r.number("bytes_in")), out+int(r.number("bytes_out"))
	}
	if in != total || out != total {
		t.Errorf("%d bytes in and %d out are recorded, not %d", in, out, total)
	}
}

// A peer is answered from the address that it has sent to: its socket takes no
// other's.
func TestAnswersFromTheRightAddress(t *testing.T) {
	needIPv6(t)
	t.Parallel()
	for name, listen := range map[string]string{"two": `"udp:0"`, "shared": `{address: "udp:0", v6only: false}`} {
		t.Run(name, func(t *testing.T) {
			d := start(t, several("env", fmt.Sprintf(`listen: %s, timeout: {idle: 1s}, `, listen)+
				teller(t, `syswrite STDOUT, "$ENV{PROTO} $ENV{UDPLOCALIP} $ENV{UDPREMOTEIP} $ENV{UDPREMOTEPORT}"`)))
			p := port(strings.TrimPrefix(d.address("env"), "udp:"))
			n := 0
			for to, from := range map[string]string{"127.0.0.1": "127.0.0.1", "127.0.0.2": "127.0.0.3", "::1": "::1"} {
				c := dialUDP(t, net.JoinHostPort(to, p), from)
				if got, want := dialogue(t, c, "x"), fmt.Sprintf("UDP %s %s %s", to, from, port(c.LocalAddr().String())); got != want {
					t.Errorf("%q and not %q", got, want)
				}
				n++
			}
			for _, r := range d.exited("env", n) {
				if host, _, _ := net.SplitHostPort(strings.TrimPrefix(r.text("local"), "udp:")); !strings.HasPrefix(r.text("peer"), map[string]string{
					"127.0.0.1": "127.0.0.1:", "127.0.0.2": "127.0.0.3:", "::1": "[::1]:"}[host]) {
					t.Errorf("it is recorded as %v", r)
				}
			}
		})
	}
}

// One client that sends to two addresses from one socket has two sessions.
func TestOnePeerAtTwoAddresses(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several("pid", `listen: "udp:0.0.0.0:0", `+never+teller(t, `syswrite STDOUT, $$`)))
	p := port(strings.TrimPrefix(d.address("pid"), "udp:"))
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	pids := map[string]string{}
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.1"} {
		to, _ := net.ResolveUDPAddr("udp", net.JoinHostPort(host, p))
		c.WriteTo([]byte("x"), to)
		b := make([]byte, 20)
		n, from, err := c.ReadFrom(b)
		if err != nil || from.String() != to.String() {
			t.Fatalf("%s is answered by %v, %v", to, from, err)
		}
		if before := pids[host]; before != "" && before != string(b[:n]) {
			t.Errorf("%s is another program", host)
		}
		pids[host] = string(b[:n])
	}
	if pids["127.0.0.1"] == pids["127.0.0.2"] {
		t.Errorf("both addresses have one program")
	}
	d.endPeers()
	d.exited("pid", 2)
}

// What a program has written after an empty answer is answered as well, though it
// has ended before anybody has read that.
func TestEmptyAnswerIsNoEnd(t *testing.T) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	for _, text := range []string{"", "a", "", "b"} {
		if err := unix.Send(ends[1], []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	unix.Close(ends[1])
	buffer := make([]byte, 10)
	for i, want := range []struct {
		text string
		end  bool
	}{{"", false}, {"a", false}, {"", false}, {"b", true}, {"", true}} {
		n, err := get(ends[0], buffer)
		if err != nil || string(buffer[:n]) != want.text || closed(ends[0]) != want.end {
			t.Errorf("%d: %q, %v, closed %t", i, buffer[:n], err, closed(ends[0]))
		}
	}
}

// Unix sockets of datagrams have programs for each peer as well: one that is
// bound gets answers, and one that is not is heard all the same.
func TestUnixPeers(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	os.Chmod(dir, 0o777)
	path := filepath.Join(dir, "s")
	d := startAsked(t, several("u", fmt.Sprintf(`listen: {address: "unix:%s", type: datagram, mode: "0666"}, %s%s`, path, never,
		teller(t, `syswrite STDOUT, "$$ $ENV{UNIXREMOTEEUID} $ENV{IPCREMOTEPATH} $_"; print STDERR "got $_\n"`))))
	dial := func(own string) net.Conn {
		var from *net.UnixAddr
		if own != "" {
			from = &net.UnixAddr{Name: own, Net: "unixgram"}
		}
		c, err := net.DialUnix("unixgram", from, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if own != "" {
			os.Chmod(own, 0o777)
		}
		c.SetDeadline(time.Now().Add(patience))
		return c
	}
	pids := map[string]bool{}
	for _, name := range []string{"a", "b"} {
		own := filepath.Join(dir, name)
		c := dial(own)
		for range 2 {
			f := strings.Fields(dialogue(t, c, name))
			if len(f) != 4 || f[1] != fmt.Sprint(os.Geteuid()) || f[2] != own || f[3] != name {
				t.Fatalf("the answer is %q", f)
			}
			pids[f[0]] = true
		}
	}
	if len(pids) != 2 {
		t.Errorf("the programs are %v", pids)
	}
	sendTo(t, dial(""), "nameless")
	d.await(func(r record) bool { return r.text("text") == "got nameless" })
	d.told("kill", "--service", "u")
	dropped := false
	for _, r := range d.exited("u", 3) {
		dropped = dropped || r.number("dropped") == 1 && r.number("bytes_out") == 0
		if want := fmt.Sprintf("unix:pid=%d,uid=%d,gid=%d", os.Getpid(), os.Geteuid(), os.Getegid()); r.text("peer") != want {
			t.Errorf("the peer is recorded as %v, not %s", r, want)
		}
	}
	if !dropped {
		t.Error("the answer to nobody is not recorded as dropped")
	}
}

// counter is a program that answers with its number, how many datagrams it has
// had, and the last one.
func counter(t *testing.T) string { return teller(t, `$n++; syswrite STDOUT, "$$ $n $_"`) }

// counted wants the answer of the nth datagram of a program, that of pid unless
// that is "", and returns which.
func counted(t *testing.T, c net.Conn, pid string, n int) string {
	t.Helper()
	f := strings.Fields(dialogue(t, c, "hello"))
	if len(f) != 3 || pid != "" && f[0] != pid || f[1] != fmt.Sprint(n) || f[2] != "hello" {
		t.Fatalf("datagram %d of %s is answered with %q", n, pid, f)
	}
	return f[0]
}

// A reload leaves peers and their programs alone, whatever becomes of the
// service; who comes anew finds the new one.
func TestReloadKeepsPeers(t *testing.T) {
	t.Parallel()
	service := func(name, listen, more string) string {
		return several(name, `listen: `+listen+`, `+never+more+counter(t))
	}
	d := startAsked(t, service("a", `"udp:127.0.0.1:0"`, ""))
	at := d.address("a")
	before := d.dialUDP("a")
	pid := counted(t, before, "", 1)
	for i, yaml := range []string{
		service("a", `"udp:127.0.0.1:0"`, "env: {X: y}, "), // kept
		service("b", `"`+at+`"`, ""),                       // the socket is another's
		service("b", `"udp:127.0.0.1:0"`, ""),              // nobody's
	} {
		d.rewrite(i+1, yaml)
		counted(t, before, pid, i+2)
	}
	stranger := dialUDP(t, at)
	sendTo(t, stranger, "x")
	if r := d.await(func(r record) bool { return r.is("refused") }); r.text("reason") != "draining" {
		t.Errorf("who comes to a socket that is to be closed is recorded as %v", r)
	}
	d.rewrite(4, service("c", `"`+at+`"`, "")) // somebody's again
	counted(t, before, pid, 5)
	other := counted(t, stranger, "", 1)
	if other == pid {
		t.Error("a new peer gets the program of another")
	}
	d.rewrite(5, service("b", `"udp:127.0.0.1:0"`, ""))
	d.endPeers()
	d.exited("a", 1)
	d.exited("c", 1)
	eventually(t, func() error { // nobody has the socket any more
		stranger.SetDeadline(time.Now().Add(patience / 100))
		stranger.Write([]byte("x"))
		if _, err := stranger.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("the port that was left answers %v", err)
		}
		return nil
	})
}

// A socket that is left is closed with the last peer that is answered from it,
// however many strangers send to it just then: none of them comes in.
func TestStrangersKeepNoSocket(t *testing.T) {
	t.Parallel()
	at := []string{"127.0.0.1", "127.0.0.2"}
	service := func(i int) string {
		return several("a", `listen: "udp:`+at[i%2]+`:0", timeout: {idle: 500ms}, max: 1, on_limit: refuse, `+counter(t))
	}
	d := start(t, service(0))
	for i := 1; i <= 8; i++ {
		var address string
		for _, r := range d.awaitMany(i, func(r record) bool { return r.is("listening") }) {
			address = r.text("local")
		}
		c := dialUDP(t, address)
		counted(t, c, "", 1)
		d.rewrite(i, service(i))
		quit := make(chan struct{})
		for range 4 {
			stranger := dialUDP(t, address)
			go func() { // ends with quit
				for {
					select {
					case <-quit:
						return
					default:
						stranger.Write([]byte("x"))
					}
				}
			}()
		}
		d.exited("a", i)
		eventually(t, func() error {
			c.SetDeadline(time.Now().Add(patience / 100)) // what finds the socket open still has no answer
			c.Write([]byte("x"))
			if _, err := c.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNREFUSED) {
				return fmt.Errorf("the address that was left answers %v", err)
			}
			return nil
		})
		close(quit)
	}
}

// They keep the socket that they are answered from as well where it has become
// that of a service whose programs get it themselves, and that has gone, too.
func TestLentSocketsKeepPeers(t *testing.T) {
	t.Parallel()
	for how, sandbox := range map[string]string{"reload": "none", "upgrade": "none", "walls": "basic", "drain": "basic"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			more := []string{"z", `listen: "127.0.0.1:0", builtin: echo`}
			// It answers once more when it reads the end of its input.
			slow := "run: " + yamlList(installed(t, "perl"), "-e", `sysread STDIN, $_, 65536; syswrite STDOUT, "first"; sysread STDIN, $_, 65536; syswrite STDOUT, "last"`)
			d := start(t, several(append(more, "a", `listen: "udp:127.0.0.1:0", timeout: {idle: 3s, stop: 1h}, `+slow)...))
			at := d.address("a")
			c := d.dialUDP("a")
			if got := dialogue(t, c, "x"); got != "first" {
				t.Fatalf("the answer is %q", got)
			}
			d.rewrite(1, several(append(more, "b", `listen: "`+at+`", wait: stdin, sandbox: `+sandbox+`, run: `+installed(t, "true"))...))
			switch how {
			case "upgrade":
				d.upgradeNow(1)
				fallthrough
			case "reload", "walls":
				d.rewrite(2, several(more...))
			case "drain":
				d.cmd.Process.Signal(syscall.SIGTERM)
			}
			if got := receive(t, c); got != "last" {
				t.Errorf("the last answer is %q", got)
			}
			d.exited("a", 1)
			if how == "drain" {
				<-d.wait
				return
			}
			d.idle-- // of another file
		})
	}
}

// An upgrade leaves them alone as well, those too who wait.
func TestUpgradeKeepsPeers(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several("a", `listen: "udp:0.0.0.0:0", `+never+`max: 2, queue: {timeout: 1h}, `+counter(t)))
	p := port(strings.TrimPrefix(d.address("a"), "udp:"))
	one, two, three := dialUDP(t, "127.0.0.1:"+p), dialUDP(t, "127.0.0.2:"+p), dialUDP(t, "127.0.0.3:"+p)
	first, second := counted(t, one, "", 1), counted(t, two, "", 1)
	sendTo(t, three, "waits")
	eventually(t, func() error {
		if s := d.counts("a"); s.Waiting != 1 {
			return fmt.Errorf("the status is %v", s)
		}
		return nil
	})
	for i := range 3 {
		d.upgradeNow(i + 1)
		counted(t, one, first, i+2)
		counted(t, two, second, i+2)
	}
	d.endPeers() // but for who waits
	if f := strings.Fields(receive(t, three)); len(f) != 3 || f[1] != "1" || f[2] != "waits" {
		t.Errorf("who has waited gets %q", f)
	}
	d.exited("a", 2)
	d.endPeers()
	for _, r := range d.exited("a", 3) {
		if r.number("bytes_in") != 20 && r.number("bytes_in") != 5 || r.text("reason") != "kill" {
			t.Errorf("it is recorded as %v", r)
		}
	}
}

// Who waits goes on to send meanwhile, and superd finds that before it has come
// to those who wait.
func TestUpgradeFindsMoreOfWhoWaits(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several("a", `listen: "udp:127.0.0.1:0", `+never+`max: 1, queue: {timeout: 1h}, `+counter(t)))
	first, second := d.dialUDP("a"), d.dialUDP("a")
	pid := counted(t, first, "", 1)
	quit, sent := make(chan struct{}), make(chan struct{})
	go func() { // ends with quit
		defer close(sent)
		for {
			select {
			case <-quit:
				return
			default:
				second.Write([]byte("hello"))
			}
		}
	}()
	eventually(t, func() error {
		if s := d.counts("a"); s.Waiting != 1 {
			return fmt.Errorf("the status is %v", s)
		}
		return nil
	})
	for i := range 3 {
		d.upgradeNow(i + 1)
	}
	close(quit)
	<-sent
	if f := insist(first, []byte("hello"), "2"); len(f) != 3 || f[0] != pid { // others have filled the socket
		t.Errorf("who has a program gets %q, not of %s", f, pid)
	}
	d.endPeers()
	if f := strings.Fields(receive(t, second)); len(f) != 3 || f[1] != "1" || f[2] != "hello" {
		t.Errorf("who has waited gets %q", f)
	}
	d.exited("a", 1)
	d.endPeers()
	d.exited("a", 2)
}

// An upgrade finds a socket that only its peers are left of as it is.
func TestUpgradeKeepsLeftSockets(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several("a", `listen: "udp:127.0.0.1:0", `+never+counter(t), "z", `listen: "127.0.0.1:0", builtin: echo`))
	c := d.dialUDP("a")
	pid := counted(t, c, "", 1)
	d.rewrite(1, several("z", `listen: "127.0.0.1:0", builtin: echo`))
	counted(t, c, pid, 2)
	d.upgradeNow(1)
	counted(t, c, pid, 3)
	stranger := d.dialUDP("a")
	sendTo(t, stranger, "x")
	if r := d.await(func(r record) bool { return r.is("refused") }); r.text("reason") != "draining" {
		t.Errorf("a stranger is recorded as %v", r)
	}
	d.endPeers()
	d.exited("a", 1)
	d.idle-- // the socket that was left
}

// A unix socket that is taken out of the file and put in again is another one:
// peers of the first go on with it, and others find the second.
func TestReloadBringsUnixSocketsBack(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	os.Chmod(dir, 0o777)
	rest := `, ` + never + counter(t)
	path, abstract := filepath.Join(dir, "s"), "@superd-test-"+filepath.Base(dir)
	with := several("p", fmt.Sprintf(`listen: {address: "unix:%s", type: datagram, mode: "0666"}`, path)+rest,
		"a", fmt.Sprintf(`listen: {address: "unix:%s", type: datagram}`, abstract)+rest)
	d := startAsked(t, with)
	n := 0
	dial := func(to string) net.Conn {
		n++
		own := filepath.Join(dir, fmt.Sprint(n))
		c, err := net.DialUnix("unixgram", &net.UnixAddr{Name: own, Net: "unixgram"}, &net.UnixAddr{Name: to, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		os.Chmod(own, 0o777)
		c.SetDeadline(time.Now().Add(patience))
		return c
	}
	pids := map[string]string{}
	olds := map[string]net.Conn{path: dial(path), abstract: dial(abstract)}
	for at, c := range olds {
		pids[at] = counted(t, c, "", 1)
	}
	d.rewrite(1, several("z", `listen: "127.0.0.1:0", builtin: echo`))
	if isSocket(path) {
		t.Error("the file is there still")
	}
	for at, c := range olds {
		counted(t, c, pids[at], 2)
	}
	d.rewrite(2, with)
	for at, c := range olds {
		counted(t, c, pids[at], 3)
		if pid := counted(t, dial(at), "", 1); pid == pids[at] {
			t.Errorf("%s: a new peer has the program of an old one", at)
		}
	}
	for _, service := range []string{"p", "a"} {
		d.told("kill", "--service", service)
		d.exited(service, 2)
	}
	if !isSocket(path) {
		t.Error("the file is gone")
	}
	eventually(t, func() error {
		olds[path].SetDeadline(time.Now().Add(patience / 100))
		if _, err := olds[path].Write([]byte("x")); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("the socket of before is answered with %v", err)
		}
		return nil
	})
}

// A socket can come to be for programs that receive themselves, and back: peers
// that have a program are answered by it.
func TestReloadLendsSockets(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several("x", `listen: "udp:127.0.0.1:0", `+never+counter(t)))
	at := d.address("x")
	c := d.dialUDP("x")
	pid := counted(t, c, "", 1)
	d.rewrite(1, several("x", `listen: "`+at+`", wait: stdin, `+receiver(t, 1, "")))
	if lent := strings.Fields(dialogue(t, c, "lent")); lent[0] == pid || lent[1] != "1" || lent[2] != "lent" {
		t.Errorf("a program that has the socket answers %q", lent)
	}
	d.exited("x", 1)
	d.rewrite(2, several("x", `listen: "`+at+`", `+never+counter(t)))
	counted(t, c, pid, 2)
	d.endPeers()
	d.exited("x", 2)
}
