package main

import (
	"errors"
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

// Programs that get the listening socket itself, as inetd's wait and systemd's
// sockets have it.

// acceptor is a program of perl that accepts as many connections as it is told
// from descriptor 0, tells each its number, and ends.
func acceptor(t *testing.T, connections int, end string) string {
	return "wait: stdin, run: " + yamlList(installed(t, "perl"), "-e", fmt.Sprintf(
		`open S, "+<&=0"; for (1..%d) { accept C, S or die "accept: $!"; syswrite C, "$$ $_"; close C } %s`, connections, end))
}

// line is the answer of a service.
func (d *process) line(service string) string {
	d.t.Helper()
	return reply(d.t, d.address(service))
}

// A program that accepts is started at the first connection, takes the others,
// and the next one comes when it has ended.
func TestWaitStdin(t *testing.T) {
	t.Parallel()
	d := start(t, `services: {inetd: {listen: "127.0.0.1:0", `+acceptor(t, 2, "")+`}}`)
	if c := d.children(); len(c) > 0 {
		t.Errorf("before anybody has come there are %v", c)
	}
	var pids []string
	for range 3 {
		first, second := d.line("inetd"), d.line("inetd")
		pid, number, _ := strings.Cut(first, " ")
		if number != "1" || second != pid+" 2" {
			t.Errorf("the answers are %q and %q", first, second)
		}
		pids = append(pids, pid)
	}
	if pids[0] == pids[1] || pids[1] == pids[2] {
		t.Errorf("the programs are %v", pids)
	}
	for i, r := range d.exited("inetd", 3) {
		if fmt.Sprint(r.number("pid")) != pids[i] || r.number("status") != 0 || r.text("peer") != "" || r.text("local") != d.address("inetd") {
			t.Errorf("program %s is recorded as %v", pids[i], r)
		}
	}
}

// Whoever is at the other end of a program that accepts itself is not known.
func TestPsOfWait(t *testing.T) {
	t.Parallel()
	a := startAsked(t, several("inetd", `listen: "127.0.0.1:0", `+acceptor(t, 2, "")))
	a.line("inetd")
	if got, want := fieldsOf(t, a.told("ps", "--json")), "[age_ms id local pid service state]"; fmt.Sprint(got) != want {
		t.Errorf("the fields are %v, not %s", got, want)
	}
	if cells := strings.Fields(strings.Split(a.told("ps"), "\n")[1]); len(cells) != 10 || cells[2] != "-" {
		t.Errorf("the line is %q", cells)
	}
	a.line("inetd")
	a.exited("inetd", 1)
}

// A program finds its socket blocking, whatever the one before it has made of it.
func TestWaitStdinBlocks(t *testing.T) {
	t.Parallel()
	d := start(t, several("inetd", `listen: "127.0.0.1:0", wait: stdin, run: `+yamlList(installed(t, "perl"), "-e",
		`use Fcntl; open S, "+<&=0"; $f = fcntl S, F_GETFL, 0; accept C, S; syswrite C, $f & O_NONBLOCK ? "it does not" : "it blocks"; fcntl S, F_SETFL, $f | O_NONBLOCK`)))
	for i := range 3 {
		if got := d.line("inetd"); got != "it blocks" {
			t.Errorf("program %d says %q", i, got)
		}
	}
	d.exited("inetd", 3)
}

// Each socket has a program of its own; while one of them has its socket, the
// other one is waited for.
func TestWaitStdinWithTwoSockets(t *testing.T) {
	t.Parallel()
	d := start(t, `services: {inetd: {listen: ["127.0.0.1:0", "127.0.0.2:0"], run: `+yamlList(installed(t, "perl"), "-e",
		`open S, "+<&=0"; for (1..2) { accept C, S; syswrite C, "$$ "; sysread C, $x, 1 if $_ == 1; close C }`)+`, wait: true}}`)
	list := d.addresses("inetd")
	var held []net.Conn
	pids := map[string]bool{}
	for _, address := range list {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		pid := make([]byte, 16)
		n, err := c.Read(pid)
		if err != nil {
			t.Fatal(err)
		}
		held, pids[string(pid[:n])] = append(held, c), true
	}
	if len(pids) != 2 {
		t.Errorf("the programs are %v", pids)
	}
	for _, c := range held {
		c.Close()
	}
	for _, address := range list {
		if got := reply(t, address); !pids[got] {
			t.Errorf("the second client comes to %q, not to one of %v", got, pids)
		}
	}
	d.exited("inetd", 2)
}

// A program that finds its clients itself is told of the socket alone.
func TestEnvironmentOfWaitStdin(t *testing.T) {
	t.Parallel()
	d := start(t, `services: {inetd: {listen: "127.0.0.1:0", wait: stdin, env_style: [ucspi, systemd, xinetd, ncat, cgi], run: `+
		yamlList(installed(t, "perl"), "-e", `open S, "+<&=0"; accept C, S;
		syswrite C, join " ", map { "$_=$ENV{$_}" } sort grep { !/^(PATH|HOME|USER|LOGNAME|SHELL|SUPERD_.*)$/ } keys %ENV`)+`}}`)
	_, port, _ := net.SplitHostPort(d.address("inetd"))
	want := strings.ReplaceAll("GATEWAY_INTERFACE=CGI/1.1 NCAT_LOCAL_ADDR=127.0.0.1 NCAT_LOCAL_PORT=N NCAT_PROTO=TCP PROTO=TCP "+
		"SERVER_NAME=127.0.0.1 SERVER_PORT=N SERVER_PROTOCOL=TCP TCPLOCALIP=127.0.0.1 TCPLOCALPORT=N", "=N", "="+port)
	if got := d.line("inetd"); got != want {
		t.Errorf("it has %q, not %q", got, want)
	}
}

// listenFDs is a program that tells in one line what sd_listen_fds(3) would
// read, and what the descriptors are.
const listenFDs = `
use Socket;
use Fcntl;
@names = split /:/, $ENV{LISTEN_FDNAMES};
for $n (3..2+$ENV{LISTEN_FDS}) {
	open my $s, "+<&=$n" or die "$n: $!";
	($port) = unpack_sockaddr_in(getsockname $s);
	push @sockets, $s;
	push @told, "$names[$n-3]=$port";
	$flags = fcntl $s, F_GETFL, 0;
	push @told, "nonblocking" if $flags & O_NONBLOCK;
	fcntl $s, F_SETFL, $flags | O_NONBLOCK;
}
push @told, "pid" if $ENV{LISTEN_PID} == $$;
push @told, grep { -e "/proc/$$/fd/$_" } 3+$ENV{LISTEN_FDS} .. 60;
push @told, sort grep { !/^(PATH|HOME|USER|LOGNAME|SHELL|SUPERD_.*|LISTEN_.*)$/ } keys %ENV;
vec($bits, fileno $_, 1) = 1 for @sockets;
select $ready = $bits, undef, undef, undef;
for $s (@sockets) { if (vec $ready, fileno $s, 1) { accept C, $s; syswrite C, "@told"; close C } }
`

// All sockets of a service go to one program together, with their names; it is
// started by a connection to any of them, and again after its end.
func TestWaitListenFDs(t *testing.T) {
	t.Parallel()
	d := start(t, `services: {web: {wait: listen-fds, env_style: [ucspi, systemd, xinetd, ncat, cgi], env: {LISTEN_PID: "1"},
  listen: [{address: "127.0.0.1:0", name: http}, {address: "127.0.0.2:0", name: admin}, "127.0.0.3:0"],
  run: `+yamlList(installed(t, "perl"), "-e", listenFDs)+`}}`)
	var told []string
	for i, address := range d.addresses("web") {
		_, port, _ := net.SplitHostPort(address)
		told = append(told, []string{"http=", "admin=", "web="}[i]+port)
	}
	want := strings.Join(told, " ") + " pid"
	for _, address := range d.addresses("web") {
		for range 2 {
			if got := reply(t, address); got != want {
				t.Errorf("at %s the program tells %q, not %q", address, got, want)
			}
		}
	}
	d.exited("web", 6)
}

// What a program writes goes to the log, its output as well where it has no
// connection.
func TestOutputOfListenFDs(t *testing.T) {
	t.Parallel()
	d := start(t, several(
		"web", `wait: listen-fds, listen: "127.0.0.1:0", run: [/bin/sh, -c, "echo out; echo err >&2; read x; echo in $?"]`,
		"killable", `wait: listen-fds, listen: "127.0.0.1:0", run: [/bin/readlink, /proc/self/fd/0], oom_score_adj: 900`,
		"long", `wait: listen-fds, listen: "127.0.0.1:0", run: [/bin/sleep, "1000"], timeout: {session: 300ms}`))
	for _, service := range []string{"web", "long"} {
		d.dial(service)
	}
	for _, want := range []string{"out", "err", "in 1"} {
		d.await(func(r record) bool { return r.is("stderr") && r.text("service") == "web" && r.text("text") == want })
	}
	d.dial("killable") // on its way to the program, 0 is needed for something else
	d.await(func(r record) bool {
		return r.is("stderr") && r.text("service") == "killable" && r.text("text") == "/dev/null"
	})
	for service, reason := range map[string]string{"web": "", "long": "timeout.session"} {
		if r := d.exited(service, 1)[0]; r.text("reason") != reason || r.number("bytes_in") != -1 {
			t.Errorf("it is recorded as %v", r)
		}
	}
	d.signal(os.Interrupt) // connections that nobody has accepted start them again and again
	d.ended()
}

// A program that fails with its work undone is not started as fast as it ends:
// it pauses, also where the file says nothing of failures; then it is tried
// again, and who waits in the kernel's queue is served. Nobody is refused: what
// is counted are the programs.
func TestWaitFailing(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	d := startAsked(t, `services: {inetd: {listen: "127.0.0.1:0", wait: stdin, failures: {within: 1h, pause: 500ms}, run: `+yamlList(installed(t, "perl"), "-e",
		`exit 3 unless -e "`+dir+`/mended"; open S, "+<&=0"; accept C, S; syswrite C, "served"`)+`}}`)
	answer := make(chan string, 1)
	go func() { answer <- d.line("inetd") }() // ends with the answer
	d.await(func(r record) bool { return r.is("paused") })
	d.checkFailures("inetd")
	d.await(func(r record) bool { return r.is("paused") && r["again"] == true })
	writeFile(t, dir, "mended", "", 0o644)
	if got := <-answer; got != "served" {
		t.Errorf("the client gets %q", got)
	}
	d.await(func(r record) bool { return r.is("recovered") })
	d.settled()
	if s := d.status().Services[0]; s.Refused != 0 || s.Total != s.Exited || s.Exited != s.Failed+1 {
		t.Errorf("of one client and its programs %d are counted, %d refused, %d exited, %d failed", s.Total, s.Refused, s.Exited, s.Failed)
	}
}

// A program that succeeds and leaves its work undone does not take the
// processor for itself either, where nothing pauses it.
func TestWaitUndone(t *testing.T) {
	t.Parallel()
	d := start(t, `services: {inetd: {listen: "127.0.0.1:0", wait: stdin, failures: {after: 1000}, run: /bin/true}}`)
	began := time.Now()
	c, err := net.Dial("tcp", d.address("inetd"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d.exited("inetd", startsAtOnce+6)
	if took := time.Since(began); took < 5*betweenStarts {
		t.Errorf("%d starts took %v", startsAtOnce+6, took)
	}
	d.signal(os.Interrupt)
	d.ended()
}

// It pauses as one that fails, if it has surely accepted nobody.
func TestWaitUndonePauses(t *testing.T) {
	t.Parallel()
	d := startAsked(t, `services: {inetd: {listen: "127.0.0.1:0", wait: stdin, failures: {after: 3, within: 1h, pause: 1h}, run: /bin/true}}`)
	c, err := net.Dial("tcp", d.address("inetd"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := d.await(func(r record) bool { return r.is("paused") })
	if why := r.text("error"); !strings.HasPrefix(why, "the program exited with status 0 after ") || !strings.Contains(why, "has accepted nobody") {
		t.Errorf("it pauses since %q", why)
	}
	if s := d.status().Services[0]; s.State != "failing" || s.Refused != 0 || s.Failed != 0 {
		t.Errorf("its status is %+v", s)
	}
	d.signal(os.Interrupt)
	d.ended()
}

// A program that accepts one client and leaves the others to the next has done
// its work.
func TestWaitOneByOne(t *testing.T) {
	t.Parallel()
	d := start(t, `services: {inetd: {listen: "127.0.0.1:0", failures: {after: 1}, `+acceptor(t, 1, "")+`}}`)
	const clients = 10
	var waiting []net.Conn
	for range clients {
		waiting = append(waiting, d.dial("inetd"))
	}
	for _, c := range waiting {
		if got, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(got), " 1") {
			t.Errorf("a client gets %q, %v", got, err)
		}
	}
	d.exited("inetd", clients)
}

// A program that is missing is told of, and not without end; nobody accepts.
func TestWaitMissingProgram(t *testing.T) {
	t.Parallel()
	d := start(t, `services: {inetd: {listen: "127.0.0.1:0", wait: stdin, run: /none}}`)
	c, err := net.Dial("tcp", d.address("inetd"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d.await(func(r record) bool { return r.is("paused") })
	if r := d.refused("inetd"); r.text("reason") != "spawn" || !strings.Contains(r.text("error"), "cannot execute /none: ENOENT") {
		t.Errorf("the refusal is %v", r)
	}
	d.signal(os.Interrupt)
	d.ended()
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection that nobody has accepted ends with %v", err)
	}
}

// A program that has its socket keeps it across a reload. Whoever comes next
// finds what the file says by then, be it a program for each connection, or
// again one that accepts itself.
func TestReloadWhileLent(t *testing.T) {
	needRoot(t)
	t.Parallel()
	d := start(t, several("inetd", `listen: "127.0.0.1:0", `+acceptor(t, 3, "")))
	first := d.line("inetd")
	pid, _, _ := strings.Cut(first, " ")
	d.rewrite(1, several("inetd", `listen: "127.0.0.1:0", run: [/bin/echo, "superd accepts"]`))
	if second := d.line("inetd"); second != pid+" 2" {
		t.Errorf("after the reload the program says %q, and %q before", second, first)
	}
	d.line("inetd")
	d.exited("inetd", 1)
	for range 3 {
		if got := d.line("inetd"); got != "superd accepts\n" {
			t.Errorf("instead of superd's own connection there is %q", got)
		}
	}
	d.rewrite(2, several("inetd", `listen: "127.0.0.1:0", user: 4711, `+acceptor(t, 1, "")))
	if got := d.line("inetd"); !strings.HasSuffix(got, " 1") {
		t.Errorf("the program that accepts says %q", got)
	}
	d.exited("inetd", 5)
}

// What a removed service has left is reached by its name, as ps shows it; where
// it is in the way of a service, it is told how to end it.
func TestRemovedServicesAreReached(t *testing.T) {
	t.Parallel()
	a := startAsked(t, several("inetd", `listen: "127.0.0.1:0", `+acceptor(t, 1000, ""), "cat", `listen: "127.0.0.1:0", run: /bin/cat`,
		"off", `listen: "127.0.0.1:0", run: /bin/cat`))
	address := a.address("inetd")
	first := a.line("inetd")
	a.held("cat")
	a.held("off")
	a.rewrite(1, several("off", `listen: "127.0.0.1:0", run: /bin/cat, enabled: false`))
	if second := reply(t, address); strings.Fields(second)[0] != strings.Fields(first)[0] {
		t.Errorf("the program that has the socket says %q, and before %q", second, first)
	}
	back := several("inetd", `listen: "`+address+`", `+acceptor(t, 1, ""))
	writeFile(t, filepath.Dir(a.config()), filepath.Base(a.config()), "control: {path: "+a.socket+"}\n"+back, 0o644)
	var id string
	for _, row := range a.connections() {
		if row.Service == "inetd" {
			id = row.ID
		}
	}
	want := fmt.Sprintf("process %s, a program of inetd: to end it, say superd kill %s)\n", strings.Fields(first)[0], id)
	if code, _, complaints := a.tell("reload"); code != 1 || !strings.Contains(complaints, want) {
		t.Errorf("while the program has the address, reload ends with %d and %q, without %q", code, complaints, want)
	}
	if out := a.told("drain", "inetd", "--limit", "1h", "--no-wait"); !strings.HasPrefix(out, "for 1h0m at most, until these have ended:\n") || !strings.Contains(out, id) {
		t.Errorf("drain says %q", out)
	}
	for _, name := range []string{"cat", "off"} {
		if out := a.told("drain", name, "--limit", "50ms"); !strings.HasSuffix(out, name+": drained\n") {
			t.Errorf("drain of %s says %q", name, out)
		}
		checkEnd(t, a.exited(name, 1)[0], "TERM", "drain")
	}
	if out := a.told("kill", "--service", "inetd"); out != "1 connection was told to end\n" {
		t.Errorf("kill says %q", out)
	}
	checkEnd(t, a.exited("inetd", 1)[0], "TERM", "kill")
	for _, verb := range []string{"kill --service inetd", "drain inetd"} {
		args := strings.Fields(verb)
		if code, _, complaints := a.tell(args[0], args[1:]...); code != 1 || complaints != "there is no service \"inetd\"\n" {
			t.Errorf("when nothing is left, %s ends with %d and %q", verb, code, complaints)
		}
	}
	a.rewrite(2, back)
	a.idle -= 2
	reply(t, address)
	a.exited("inetd", 2)
}

// A socket that is new to a service goes to the program together with the
// others, when nobody has those any more.
func TestReloadAddsASocketToThoseLent(t *testing.T) {
	t.Parallel()
	const script = `for ($n = $ENV{LISTEN_FDS}; $n--;) { open my $s, "+<&=".(3+$n); push @s, $s; vec($bits, 3+$n, 1) = 1 }
for (1..$ARGV[0]) { select $r = $bits, undef, undef, undef; for $s (@s) { if (vec $r, fileno $s, 1) { accept C, $s; syswrite C, "$$ ".@s; close C } } }`
	keys := func(list, clients string) string {
		return several("web", "listen: ["+list+"], wait: listen-fds, run: "+yamlList(installed(t, "perl"), "-e", script, clients))
	}
	d := start(t, keys(`"127.0.0.1:0"`, "2"))
	old, sockets, _ := strings.Cut(d.line("web"), " ")
	if sockets != "1" {
		t.Errorf("the program has %s sockets", sockets)
	}
	d.rewrite(1, keys(`"127.0.0.1:0", "127.0.0.2:0"`, "1"))
	d.idle++
	added := d.addresses("web")[1]
	waiting, err := net.Dial("tcp", added) // its program may not start before the old one has ended
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if got := d.line("web"); got != old+" 1" {
		t.Errorf("the program of before says %q", got)
	}
	if got, err := io.ReadAll(waiting); err != nil || !strings.HasSuffix(string(got), " 2") || strings.HasPrefix(string(got), old+" ") {
		t.Errorf("who came to the new socket gets %q, %v", got, err)
	}
	d.exited("web", 2)
}

// What superd was handed over it hands on, with the names that it has.
func TestInheritedSocketsAreHandedOn(t *testing.T) {
	t.Parallel()
	first, firstAddress := handedSocket(t, "tcp4", "127.0.0.1:0")
	second, _ := handedSocket(t, "tcp4", "127.0.0.1:0")
	named, _ := handedSocket(t, "tcp4", "127.0.0.1:0")
	yaml := several("web", `listen: ["fd:web", {address: "fd:other", name: admin}], wait: listen-fds, run: `+yamlList(installed(t, "perl"), "-e",
		`open S, "+<&=3"; accept C, S; syswrite C, "$ENV{LISTEN_FDS} $ENV{LISTEN_FDNAMES} ".($ENV{LISTEN_PID} == $$)`))
	d := startCommand(t, handed(t, prepare(t, yaml), "web:other:web", first, named, second))
	if got, want := reply(t, firstAddress), "3 web:web:admin 1"; got != want {
		t.Errorf("the program says %q, not %q", got, want)
	}
	d.exited("web", 1)
}
