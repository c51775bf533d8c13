package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"superd/services"
	"superd/superd/internal/control"
)

// What is decided about datagrams, and what superd survives of them.

// silent wants a service not to have answered, in the time that it takes others
// to do so that were asked later.
func (d *process) silent(t *testing.T, c net.Conn, other string) {
	t.Helper()
	for range 3 {
		dialogue(t, d.dialUDP(other), "x")
	}
	if got, err := unread(t, c); err == nil {
		t.Errorf("it is answered with %q", got)
	}
}

// quick has programs end that end with their input, however slow they are.
const quick = `timeout: {idle: 1s, stop: 1h}, `

// dutiful is a counter that ends when its peer tells it to.
func dutiful(t *testing.T) string {
	return teller(t, `exit if $_ eq "end"; $n++; syswrite STDOUT, "$$ $n $_"`)
}

// dismiss ends the programs of a service, and of who comes in their place, until
// there are none.
func (a asked) dismiss(service string) {
	a.t.Helper()
	eventually(a.t, func() error {
		a.tell("kill", "--service", service)
		if s := a.counts(service); s.Live > 0 || s.Waiting > 0 {
			return fmt.Errorf("%d programs run, and %d wait", s.Live, s.Waiting)
		}
		return nil
	})
}

// sees is a service that tells when one that was asked before would have
// answered.
func sees(t *testing.T) []string {
	return []string{"other", `listen: "udp:127.0.0.1:0", ` + quick + `run: ` + yamlList(installed(t, "cat"))}
}

// Built-ins answer datagrams, and never with more than they got unless they are
// told to.
func TestBuiltinsAnswerDatagrams(t *testing.T) {
	t.Parallel()
	list := []string{}
	for _, name := range services.Names() {
		if name == "greeting" {
			continue
		}
		list = append(list, name, `listen: ["udp:127.0.0.1:0", "127.0.0.1:0"], `+quick+`builtin: `+name)
		if name != "echo" && name != "discard" {
			list = append(list, name+"-all", `listen: "udp:127.0.0.1:0", `+quick+`amplify: true, builtin: `+name)
		}
	}
	d := start(t, several(append(list, "control", `listen: "udp:127.0.0.1:0", `+quick+`builtin: echo`)...))
	whole := map[string]int{"qotd": 72, "time": 4, "daytime": 0, "chargen": 512}
	for name, most := range whole {
		for _, size := range []int{1, 3, 4, 30, 600} {
			got := len(dialogue(t, d.dialUDP(name), strings.Repeat("x", size)))
			if got > size || most > 0 && got != min(size, most) || most == 0 && size == 30 && got != 30 {
				t.Errorf("%s answers %d bytes with %d", name, size, got)
			}
			got = len(dialogue(t, d.dialUDP(name+"-all"), strings.Repeat("x", size)))
			if most > 0 && got != most || got < 30 && most == 0 {
				t.Errorf("%s that may answers with %d", name, got)
			}
		}
		if got := len(dialogue(t, d.dialUDP(name+"-all"), "")); got < 4 {
			t.Errorf("%s that may answers an empty datagram with %d bytes", name, got)
		}
		c := d.dialUDP(name)
		sendTo(t, c, "")
		d.silent(t, c, "control")
	}
	if got := dialogue(t, d.dialUDP("echo"), "hello"); got != "hello" {
		t.Errorf("echo answers with %q", got)
	}
	c := d.dialUDP("discard")
	sendTo(t, c, "hello")
	d.silent(t, c, "control")
	if got := reply(t, d.addresses("qotd")[1]); len(got) != 72 {
		t.Errorf("a connection is told %q", got)
	}
}

// A peer that sends on while its built-in ends is answered each time.
func TestBuiltinsAnswerEach(t *testing.T) {
	t.Parallel()
	const each = 300
	d := start(t, several("time", `listen: {address: "udp:127.0.0.1:0", rcvbuf: 64K}, timeout: {stop: 1h}, builtin: time`))
	c := d.dialUDP("time")
	const ahead = 8
	for range ahead {
		sendTo(t, c, "1234")
	}
	for n := range each {
		if got := receive(t, c); len(got) != 4 {
			t.Fatalf("answer %d is %q", n, got)
		}
		if n < each-ahead {
			sendTo(t, c, "1234")
		}
	}
}

// Nobody answers who may answer in turn.
func TestLoopsAreRefused(t *testing.T) {
	needRoot(t) // for the ports
	t.Parallel()
	d := start(t, several(append(sees(t), "echo", `listen: "udp:127.0.0.1:0", `+quick+`builtin: echo`,
		"all", `listen: "udp:0.0.0.0:0", `+quick+`run: `+yamlList(installed(t, "cat")))...))
	all := port(strings.TrimPrefix(d.address("all"), "udp:"))
	at := func(host, port string) *net.UDPAddr {
		a, err := net.ResolveUDPAddr("udp4", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	echo, other := port(strings.TrimPrefix(d.address("echo"), "udp:")), port(strings.TrimPrefix(d.address("other"), "udp:"))
	n := 0
	for name, c := range map[string]struct {
		from, to *net.UDPAddr
		says     string
	}{
		"echo's port":        {at("127.7.0.1", "7"), at("127.0.0.1", all), "a datagram from port 7 is not answered"},
		"discard's port":     {at("127.7.0.1", "9"), at("127.0.0.1", all), "a datagram from port 9 "},
		"daytime's port":     {at("127.7.0.1", "13"), at("127.0.0.1", all), "a datagram from port 13 "},
		"qotd's port":        {at("127.7.0.1", "17"), at("127.0.0.1", all), "a datagram from port 17 "},
		"chargen's port":     {at("127.7.0.1", "19"), at("127.0.0.1", all), "a datagram from port 19 "},
		"time's port":        {at("127.7.0.1", "37"), at("127.0.0.1", all), "a datagram from port 37 "},
		"a built-in's port":  {at("127.7.0.1", echo), at("127.0.0.1", all), "a datagram from port " + echo + " "},
		"another own socket": {at("127.0.0.2", other), at("127.0.0.1", all), "a socket of superd's own"},
		"the broadcast":      {at("127.0.0.1", "0"), at("127.255.255.255", all), "to everybody, or to a group"},
	} {
		u, err := net.DialUDP("udp4", c.from, c.to)
		if err != nil {
			t.Fatal(name, err)
		}
		if raw, err := u.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_BROADCAST, 1) })
		}
		n++
		d.refusesToAnswer(c.says, func() { sendTo(t, u, "hello") })
		d.silent(t, u, "other")
		u.Close()
	}
	d.refusesToAnswer("from port 0", func() { portless(t, at("127.0.0.1", all)) })
	d.exited("other", n)
	for _, r := range d.recordsOf("all") {
		if r.is("exited") {
			t.Errorf("a program was started: %v", r)
		}
	}
}

// The addresses of everybody in a network are nobody's.
func TestEverybody(t *testing.T) {
	for network, want := range map[string]string{
		"192.0.2.77/24": "192.0.2.255", "10.0.0.1/8": "10.255.255.255", "192.0.2.5/30": "192.0.2.7", "192.0.2.1/0": "255.255.255.255",
	} {
		if got := lastOf(netip.MustParsePrefix(network)); got.String() != want {
			t.Errorf("of %s it is %v, not %s", network, got, want)
		}
	}
	l := &loops{}
	l.addAddresses()
	if l.addresses[netip.MustParseAddr("127.0.0.1")] && !l.everybody[netip.MustParseAddr("127.255.255.255")] {
		t.Errorf("of this machine they are %v", l.everybody)
	}
}

// refusesToAnswer sends something until a record says why it is not answered: of
// one reason there is a line in a second.
func (d *process) refusesToAnswer(why string, send func()) {
	d.t.Helper()
	eventually(d.t, func() error {
		send()
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, r := range d.records {
			if r.is("refused") && r.text("reason") == "address" && strings.Contains(r.text("error"), why) {
				return nil
			}
		}
		return fmt.Errorf("it is not refused because of %q", why)
	})
}

// portless sends a datagram from port 0, which takes a raw socket.
func portless(t *testing.T, to *net.UDPAddr) {
	t.Helper()
	c, err := net.DialIP("ip4:udp", &net.IPAddr{IP: net.ParseIP("127.0.0.1")}, &net.IPAddr{IP: to.IP})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sendTo(t, c, string([]byte{0, 0, byte(to.Port >> 8), byte(to.Port), 0, 9, 0, 0, 'x'}))
}

// A peer is let in, made to wait and refused as a connection is.
func TestPeersAreAdmitted(t *testing.T) {
	t.Parallel()
	cat := `run: ` + yamlList(installed(t, "cat"))
	service := func(more string) string {
		return `listen: "udp:127.0.0.1:0", timeout: {idle: 1h}, ` + more + ", " + cat
	}
	for name, c := range map[string]struct {
		keys   string
		first  int // that get in
		reason string
	}{
		"deny":       {"deny: [127.0.0.2]", 0, "address"},
		"hours":      {`hours: [` + closedDays() + `]`, 0, "hours"},
		"max":        {"max: 1, on_limit: refuse", 1, "limit"},
		"source":     {"max_per_source: 2, on_limit: refuse", 2, "source-limit"},
		"rate":       {"rate: 2/h, on_limit: refuse", 2, "rate"},
		"own rate":   {"rate_per_source: 1/h, on_limit: refuse", 1, "source-rate"},
		"full queue": {"max: 1, queue: {length: 1, timeout: 1h}", 1, "queue-full"},
		"slow queue": {"max: 1, queue: {timeout: 100ms}", 1, "queue-timeout"},
		"ban":        {"max_per_source: 1, on_limit: refuse, ban: {after: 1, for: 1h}", 1, "source-limit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startAsked(t, several(append(sees(t), "x", service(c.keys))...))
			var in []net.Conn
			for range c.first {
				u := d.dialUDP("x", "127.0.0.2")
				dialogue(t, u, "hello")
				in = append(in, u)
			}
			if name == "full queue" {
				sendTo(t, d.dialUDP("x", "127.0.0.3"), "waits")
			}
			u := d.dialUDP("x", "127.0.0.2")
			sendTo(t, u, "one more")
			if r := d.refused("x"); r.text("reason") != c.reason || r.text("peer") != u.LocalAddr().String() {
				t.Errorf("%s: %v", name, r)
			}
			d.silent(t, u, "other")
			for _, u := range in {
				if got := dialogue(t, u, "still"); got != "still" {
					t.Errorf("who is in gets %q", got)
				}
			}
			if name == "ban" {
				sendTo(t, u, "banned")
				if r := d.await(func(r record) bool { return r.text("reason") == "banned" }); r.text("service") != "x" {
					t.Errorf("a ban: %v", r)
				}
			}
			d.dismiss("x")
		})
	}
}

// Who waits for a place is answered once there is one, all that was sent.
func TestPeersWaitInOrder(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several("x", `listen: "udp:127.0.0.1:0", timeout: {idle: 1h}, max: 1, queue: {timeout: 1h}, `+dutiful(t)))
	first := d.dialUDP("x")
	counted(t, first, "", 1)
	second := d.dialUDP("x")
	for range 3 {
		sendTo(t, second, "hello")
	}
	eventually(t, func() error {
		if n := d.counts("x").Waiting; n != 1 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	sendTo(t, first, "end")
	for n := range 3 {
		if f := strings.Fields(receive(t, second)); len(f) != 3 || f[1] != fmt.Sprint(n+1) {
			t.Errorf("answer %d is %q", n, f)
		}
	}
	sendTo(t, second, "end")
}

// A peer's program is one of those that are listed and can be ended.
func TestPeersAreListed(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several("x", `listen: "udp:127.0.0.1:0", timeout: {idle: 0}, `+counter(t)))
	c := d.dialUDP("x")
	pid := counted(t, c, "", 1)
	var list struct{ Connections []control.Connection }
	text := d.told("ps", "--json")
	if err := json.Unmarshal([]byte(text), &list.Connections); err != nil {
		t.Fatal(err, text)
	}
	if l := list.Connections; len(l) != 1 || fmt.Sprint(l[0].PID) != pid || l[0].Peer != c.LocalAddr().String() || !strings.Contains(text, `"bytes_in":5`) {
		t.Errorf("the list is %s", text)
	}
	d.told("kill", list.Connections[0].ID)
	if r := d.exited("x", 1)[0]; r.text("reason") != "kill" || r.text("signal") != "SIGTERM" || r.number("bytes_in") != 5 {
		t.Errorf("it is recorded as %v", r)
	}
	counted(t, c, "", 1)
	d.told("kill", "--source", "127.0.0.1")
	d.exited("x", 2)
}

// What a program does not read is bounded, and harms nobody else.
func TestProgramThatReadsNothing(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several("x", `listen: {address: "udp:127.0.0.1:0", rcvbuf: 64K}, timeout: {idle: 1h, stop: 1h}, run: `+yamlList(installed(t, "sleep"), "1000"),
		"other", `listen: "udp:127.0.0.1:0", `+quick+`builtin: echo`))
	c, o := d.dialUDP("x"), d.dialUDP("other")
	for n := range 1000 {
		sendTo(t, c, strings.Repeat("x", 1000))
		if n%10 == 0 {
			dialogue(t, o, "hello")
		}
	}
	d.dismiss("x")
	if r := d.exited("x", 1)[0]; r.number("dropped") < 1 || r.number("bytes_in") > 500e3 || r.text("reason") != "kill" || r.text("signal") != "SIGTERM" {
		t.Errorf("it is recorded as %v", r)
	}
}

// A program that does not end with its input has its time to do so, and is ended
// then.
func TestProgramThatStaysIdle(t *testing.T) {
	t.Parallel()
	for name, program := range map[string]string{
		"reads nothing":  yamlList(installed(t, "sleep"), "1000"),
		"closes its own": yamlList(installed(t, "perl"), "-e", `sysread STDIN, $_, 9; close STDIN; close STDOUT; sleep 1000`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			longEnough(t, 500*time.Millisecond, func(length time.Duration) error {
				d := start(t, several("x", fmt.Sprintf(`listen: "udp:127.0.0.1:0", timeout: {idle: %v, stop: %[1]v}, run: %s`, length, program)))
				sendTo(t, d.dialUDP("x"), "x")
				r := d.exited("x", 1)[0]
				if r.number("duration_ms") < 2*float64(length.Milliseconds())-1 {
					t.Errorf("it had less than its time: %v", r)
				}
				if r.text("reason") != "timeout.idle" || r.text("signal") != "SIGTERM" {
					return fmt.Errorf("it is recorded as %v", r)
				}
				return nil
			})
		})
	}
}

// A program that ends at each datagram, and badly, is not started for ever.
func TestProgramThatFailsAtDatagrams(t *testing.T) {
	t.Parallel()
	d := start(t, several("x", `listen: "udp:127.0.0.1:0", failures: {within: 1h, pause: 1h}, run: `+yamlList(installed(t, "false"))))
	c := d.dialUDP("x")
	var last record
	for n := 0; n < 1000 && !last.is("refused"); n++ {
		sendTo(t, c, "x")
		last = d.awaitMany(n+1, func(r record) bool { return r.is("exited") || r.is("refused") })[n]
	}
	if last.text("reason") != "failing" {
		t.Errorf("it is recorded as %v", last)
	}
	d.checkFailures("x")
}

// checkFailures wants five programs of a service to have failed before it paused.
// Those that lived for a second say nothing of it, and it takes more then.
func (d *process) checkFailures(service string) {
	d.t.Helper()
	n, slow := 0, false
	for _, r := range d.recordsOf(service) {
		if r.is("paused") {
			break
		}
		if r.is("exited") {
			n++
			slow = slow || r.number("duration_ms") >= 990
		}
	}
	if n < 5 || n > 5 && !slow {
		d.t.Errorf("the program was started %d times before the pause; the log:\n%s", n, d.log())
	}
}

// What cannot be sent is dropped, and the next answer is sent.
func TestAnswersThatCannotBeSent(t *testing.T) {
	t.Parallel()
	d := start(t, several("x", `listen: "udp:127.0.0.1:0", `+quick+teller(t,
		`if (/large/) { syswrite STDOUT, "x" x $_ for 65508, 65536, 65537, 100000 } syswrite STDOUT, "answer"; syswrite STDOUT, ""; syswrite STDOUT, "end"`)))
	c := d.dialUDP("x")
	sendTo(t, c, "large")
	for _, want := range []string{"answer", "", "end"} {
		if got := receive(t, c); got != want {
			t.Errorf("%.20q comes instead of %q", got, want)
		}
	}
	if r := d.exited("x", 1)[0]; r.number("dropped") != 4 || r.number("bytes_out") != 9 {
		t.Errorf("it is recorded as %v", r)
	}
}

// A peer that is gone when it is answered harms nobody, nor does one that sends
// nothing.
func TestPeersThatAreGone(t *testing.T) {
	t.Parallel()
	d := start(t, several("x", `listen: "udp:127.0.0.1:0", `+quick+teller(t, `select undef, undef, undef, 0.1; syswrite STDOUT, $_`)))
	var list []net.Conn
	for range 20 { // all before one has closed: each has a port of its own
		list = append(list, d.dialUDP("x"))
	}
	last := d.dialUDP("x")
	for _, c := range list {
		sendTo(t, c, "")
		sendTo(t, c, "x")
		c.Close()
	}
	if got := dialogue(t, last, "hello"); got != "hello" {
		t.Errorf("the answer is %q", got)
	}
	for _, r := range d.exited("x", 21) {
		if r.number("status") != 0 {
			t.Errorf("it is recorded as %v", r)
		}
	}
}

// A program that closes its input before its end is not given what comes then.
func TestProgramThatClosesItsInput(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several("x", `listen: "udp:127.0.0.1:0", timeout: {idle: 1h}, run: `+yamlList(installed(t, "perl"), "-e",
		`sysread STDIN, $_, 9; syswrite STDOUT, "$$ $_"; close STDIN; close STDOUT; sleep 1000`)))
	c := d.dialUDP("x")
	first := dialogue(t, c, "one")
	eventually(t, func() error {
		flags, err := os.Readlink(fmt.Sprintf("/proc/%s/fd/0", strings.Fields(first)[0]))
		if err == nil {
			return fmt.Errorf("its input is %s still", flags)
		}
		return nil
	})
	if second := dialogue(t, c, "two"); !strings.HasSuffix(second, " two") || second == first {
		t.Errorf("after %q comes %q", first, second)
	}
	d.dismiss("x")
	for _, r := range d.exited("x", 2) {
		if r.text("reason") != "kill" || r.text("signal") != "SIGTERM" {
			t.Errorf("it is recorded as %v", r)
		}
	}
}

// A flood of peers costs no more than may come in.
func TestFloodOfPeers(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several("x", `listen: "udp:127.0.0.1:0", timeout: {idle: 1h}, max: 5, queue: {length: 7, timeout: 1h}, run: `+yamlList(installed(t, "cat"))))
	var last []*net.UDPConn
	for range 400 {
		c := d.dialUDP("x")
		for range 3 {
			sendTo(t, c, "x")
		}
		last = append(last, c)
	}
	d.await(func(r record) bool { return r.is("refused") && r.text("reason") == "queue-full" })
	eventually(t, func() error { // but for what is on its way
		if n, most := d.descriptors(), d.idle+5*3+7*2; n > most {
			return fmt.Errorf("%d descriptors are open, %d at most are right", n, most)
		}
		return nil
	})
	if n := len(d.children()); n > 5 {
		t.Errorf("%d programs run", n)
	}
	for _, c := range last {
		c.Close()
	}
	d.dismiss("x")
	d.exited("x", 12)
}

// When superd is to stop, peers have their time as connections have.
func TestStopWithPeers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		signal syscall.Signal
		idle   string
		reason string
	}{
		"drain": {syscall.SIGTERM, "1h", ""},
		"idle":  {syscall.SIGTERM, "1s", "timeout.idle"},
		"now":   {syscall.SIGINT, "1h", "stop"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, "drain: 1h\n"+several("x", `listen: "udp:127.0.0.1:0", timeout: {idle: `+c.idle+`, stop: 1h}, `+dutiful(t)))
			u, stranger := d.dialUDP("x"), d.dialUDP("x")
			pid := counted(t, u, "", 1)
			d.signal(c.signal)
			if name == "drain" {
				d.await(func(r record) bool { return r.is("draining") })
				counted(t, u, pid, 2)
				sendTo(t, stranger, "x")
				if r := d.refused("x"); r.text("reason") != "draining" {
					t.Errorf("a stranger is recorded as %v", r)
				}
				sendTo(t, u, "end")
			}
			if r := d.exited("x", 1)[0]; r.text("reason") != c.reason {
				t.Errorf("it is recorded as %v", r)
			}
			if code := d.ended(); code != 0 {
				t.Errorf("superd ends with %d", code)
			}
		})
	}
}

// Who is drained by name has its time, and a reload brings the service back.
func TestDrainWithPeers(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several("x", `listen: "udp:127.0.0.1:0", timeout: {idle: 1h}, `+dutiful(t)))
	u, stranger := d.dialUDP("x"), d.dialUDP("x")
	pid := counted(t, u, "", 1)
	d.told("drain", "x", "--no-wait")
	counted(t, u, pid, 2)
	sendTo(t, stranger, "hello")
	if r := d.refused("x"); r.text("reason") != "draining" {
		t.Errorf("a stranger is recorded as %v", r)
	}
	d.hup(1)
	counted(t, u, pid, 3)
	counted(t, stranger, "", 1)
	for _, c := range []net.Conn{u, stranger} {
		sendTo(t, c, "end")
	}
	d.exited("x", 2)
}

// What a program has written when it ends is sent, all of it.
func TestLastAnswersAreSent(t *testing.T) {
	t.Parallel()
	const peers, answers = 30, 50
	d := start(t, several("x", `listen: "udp:127.0.0.1:0", timeout: {idle: 0}, run: `+yamlList(installed(t, "perl"), "-e",
		fmt.Sprintf(`sysread STDIN, $_, 9; syswrite STDOUT, sprintf("%%03d", $_) for 1..%d; kill 9, $$`, answers))))
	for range peers {
		c := d.dialUDP("x")
		sendTo(t, c, "x")
		for n := range answers {
			if got, want := receive(t, c), fmt.Sprintf("%03d", n+1); got != want {
				t.Fatalf("answer %s is %q", want, got)
			}
		}
	}
	for _, r := range d.exited("x", peers) {
		if r.number("bytes_out") != 3*answers || r.text("signal") != "SIGKILL" || r.text("reason") != "" || r.number("dropped") != -1 {
			t.Errorf("it is recorded as %v", r)
		}
	}
}

// What a rule has for some clients holds for their datagrams as well, and both
// kinds of clients come to one service.
func TestRulesChangeWhatPeersGet(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several("x", `listen: ["127.0.0.1:0", "udp:127.0.0.1:0"], timeout: {idle: 1h}, max_per_source: 1, on_limit: refuse, `+
		`allow: [127.0.0.0/8, {from: 127.0.0.2, env: {ROLE: office}}, {from: 127.0.0.3, run: `+yamlList(installed(t, "cat"))+`}], `+
		teller(t, `syswrite STDOUT, "$ENV{PROTO} $ENV{ROLE}"`)))
	at := d.addresses("x")[1]
	for from, want := range map[string]string{"127.0.0.1": "UDP ", "127.0.0.2": "UDP office", "127.0.0.3": "hello"} {
		if got := dialogue(t, dialUDP(t, at, from), "hello"); got != want {
			t.Errorf("%s gets %q, not %q", from, got, want)
		}
	}
	d.closed(d.dial("x")) // the limit is one for both
	if r := d.refused("x"); r.text("reason") != "source-limit" {
		t.Errorf("it is refused as %v", r)
	}
	d.dismiss("x")
	d.exited("x", 3)
	c := d.dial("x")
	sendTo(t, c, "x")
	if got := receive(t, c); got != "TCP " {
		t.Errorf("a connection gets %q", got)
	}
}
