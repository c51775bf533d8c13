package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// Upgrades while programs have sockets of superd's.

// A program that has sockets keeps them through upgrades: nobody else is
// started for them until it has ended, and then the next one is. It has one
// record, and the limits count it.
func TestUpgradeWhileLent(t *testing.T) {
	t.Parallel()
	const listenFDs = `for $n (3, 4) { open my $s, "+<&=$n"; push @s, $s; vec($bits, $n, 1) = 1 }
		while ($k < 3) { select $r = $bits, undef, undef, undef; for $s (@s) { if (vec $r, fileno $s, 1) { accept C, $s; syswrite C, "$$ ".++$k; close C } } }`
	a := startAsked(t, several(
		"stream", `listen: "127.0.0.1:0", max: 1, `+acceptor(t, 3, ""),
		"sockets", `listen: ["127.0.0.1:0", "127.0.0.2:0"], wait: listen-fds, run: `+yamlList(installed(t, "perl"), "-e", listenFDs),
		"datagrams", `listen: "udp:127.0.0.1:0", wait: stdin, `+receiver(t, 3, "")))
	datagrams := a.dialUDP("datagrams")
	asks := map[string]func(n int) string{
		"stream":  func(int) string { return a.line("stream") },
		"sockets": func(n int) string { return reply(t, a.addresses("sockets")[n%2]) },
		"datagrams": func(int) string {
			sendTo(t, datagrams, "x")
			return strings.TrimSuffix(receive(t, datagrams), " x")
		},
	}
	const programs, upgradesEach = 2, 2
	pids := map[string]string{}
	for p := range programs {
		for n := range 3 {
			for name, ask := range asks {
				pid, number, _ := strings.Cut(ask(n), " ")
				if number != fmt.Sprint(n+1) || n > 0 && pid != pids[name] || n == 0 && pid == pids[name] {
					t.Errorf("%s: question %d of program %d is answered by %s as number %s, and the one before by %s", name, n, p, pid, number, pids[name])
				}
				pids[name] = pid
			}
			if n == upgradesEach {
				break
			}
			u := a.upgradeNow(p*upgradesEach + n + 1)
			if u.number("connections") != float64(len(asks)) {
				t.Errorf("the record is %v", u)
			}
			for _, s := range a.status().Services {
				if s.Live != 1 || s.Total != uint64(p+1) || s.Refused != 0 {
					t.Errorf("%+v", s)
				}
			}
		}
		for name := range asks {
			r := a.exited(name, p+1)[p]
			if fmt.Sprint(r.number("pid")) != pids[name] || r.number("status") != 0 {
				t.Errorf("program %s is recorded as %v", pids[name], r)
			}
		}
	}
}

// Programs that end while superd becomes another are each followed by the next
// one, and reaped.
func TestUpgradeWhenLentProgramsEnd(t *testing.T) {
	t.Parallel()
	d := start(t, several("inetd", `listen: "127.0.0.1:0", `+acceptor(t, 1, "")))
	n := fewer(8, 3)
	pids := map[string]bool{}
	const each = 4
	for i := range n {
		d.signal(syscall.SIGUSR2)
		for range each { // each ends a program: before, meanwhile or after
			pids[d.line("inetd")] = true
		}
		d.upgraded(i + 1)
	}
	if len(pids) != n*each || len(d.exited("inetd", n*each)) != n*each {
		t.Errorf("%d clients came to %d programs", n*each, len(pids))
	}
}

// The file that an upgrade takes up holds for a lent socket as soon as it is
// superd's again: it may say that superd accepts by now, or nothing of it.
func TestUpgradeChangesWhatIsLent(t *testing.T) {
	t.Parallel()
	own := several("a", `listen: "127.0.0.1:0", `+acceptor(t, 3, ""), "b", `listen: "127.0.0.1:0", `+acceptor(t, 2, ""))
	d := start(t, own)
	first, gone := d.line("a"), d.line("b")
	goneAt := d.address("b")
	yaml := several("a", `listen: "127.0.0.1:0", run: [/bin/echo, "superd accepts"]`)
	if err := os.WriteFile(d.config(), []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	pid, _, _ := strings.Cut(first, " ")
	for i := range 2 {
		d.upgradeNow(i + 1)
		if got, want := d.line("a"), fmt.Sprintf("%s %d", pid, i+2); got != want {
			t.Errorf("the program that has the socket says %q, not %q", got, want)
		}
	}
	if r := d.exited("a", 1)[0]; fmt.Sprint(r.number("pid")) != pid {
		t.Errorf("the record is %v", r)
	}
	if got := d.line("a"); got != "superd accepts\n" {
		t.Errorf("when it is superd's again it says %q", got)
	}
	pid, _, _ = strings.Cut(gone, " ")
	if got := reply(t, goneAt); got != pid+" 2" {
		t.Errorf("the program whose service is no more says %q", got)
	}
	d.exited("b", 1)
	d.idle-- // a socket
	d.settled()
	if c, err := net.Dial("tcp", goneAt); err == nil {
		c.Close()
		t.Error("somebody listens where there is no service")
	}
}

// Who waits at a socket whose service pauses waits on after an upgrade.
func TestUpgradeWhileLenderRests(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	d := start(t, several("inetd", `listen: "127.0.0.1:0", wait: stdin, failures: {after: 2, within: 1h, pause: 1s}, run: `+yamlList(installed(t, "perl"), "-e",
		`exit 3 unless -e "`+dir+`/mended"; open S, "+<&=0"; accept C, S; syswrite C, "served"`)))
	answer := make(chan string, 1)
	go func() { answer <- d.line("inetd") }() // ends with the answer
	d.await(func(r record) bool { return r.is("paused") })
	for i := range 2 {
		d.upgradeNow(i + 1)
	}
	writeFile(t, dir, "mended", "", 0o644)
	if got := <-answer; got != "served" {
		t.Errorf("the client gets %q", got)
	}
	d.await(func(r record) bool { return r.is("recovered") })
}

// Sockets that superd was started with stay whose they are: after upgrades they
// have their names, go back where no service wants them and can be had again,
// and their files are never removed.
func TestUpgradeKeepsInheritedSockets(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	web, webAddress := handedSocket(t, "tcp4", "127.0.0.1:0")
	local, _ := handedSocket(t, "unix", dir+"/local")
	lent, lentAddress := handedSocket(t, "tcp4", "127.0.0.1:0")
	all := several("web", "listen: fd:web, run: /bin/cat", "local", "listen: fd:local, run: /bin/cat",
		"lent", `listen: fd:lent, `+acceptor(t, 3, ""))
	d := startCommand(t, handed(t, prepare(t, all), "web:local:lent", web, local, lent))
	conns := []net.Conn{d.held("web"), d.dialUnix("local", "")}
	pid, _, _ := strings.Cut(reply(t, lentAddress), " ")
	upgrades := 0
	upgrade := func(yaml string) {
		t.Helper()
		if err := os.WriteFile(d.config(), []byte(yaml), 0o644); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			upgrades++
			d.upgradeNow(upgrades)
			for _, c := range conns {
				d.talk(c, "still here\n")
			}
		}
	}
	upgrade(all)
	if got := reply(t, lentAddress); got != pid+" 2" {
		t.Errorf("the program that has its socket says %q", got)
	}
	upgrade(several("lent", `listen: "`+lentAddress+`", `+acceptor(t, 3, ""))) // by its address, and the others not at all
	if !isSocket(dir + "/local") {
		t.Error("the file of an inherited socket is gone")
	}
	waits, err := net.Dial("tcp", webAddress) // whoever has handed it over has it as well
	if err != nil {
		t.Fatal(err)
	}
	defer waits.Close()
	if got := reply(t, lentAddress); got != pid+" 3" {
		t.Errorf("the program that has its socket says %q", got)
	}
	d.exited("lent", 1)
	upgrade(all)
	d.talk(waits, "served\n")
	if got := d.askUnix("local", "", "again"); got != "again" {
		t.Errorf("local answers %q", got)
	}
	for i := range 3 {
		if got := reply(t, lentAddress); strings.HasPrefix(got, pid) || !strings.HasSuffix(got, fmt.Sprint(" ", i+1)) {
			t.Errorf("the next program says %q", got)
		}
	}
	for _, c := range append(conns, waits) {
		c.(interface{ CloseWrite() error }).CloseWrite()
		io.Copy(io.Discard, c)
		c.Close()
	}
	d.exited("local", 2)
	d.exited("web", 2)
	d.exited("lent", 2)
	d.settled()
	d.ends()
	if !isSocket(dir + "/local") {
		t.Error("the file of an inherited socket is gone at the end")
	}
}
