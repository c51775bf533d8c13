package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Who comes in, as clients and the log see it: the keys of superd.yaml(5) from
// allow to ban. The rules themselves are tested where they are decided.

// from connects to a service from an address of this machine.
func (d *process) from(address, service string) *net.TCPConn {
	d.t.Helper()
	own := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: patience}
	c, err := own.Dial("tcp", d.address(service))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// Two sources.
const (
	here  = "127.0.0.1"
	there = "127.0.0.2"
)

// heldFrom is held for a client of that address.
func (d *process) heldFrom(address, service string) *net.TCPConn {
	d.t.Helper()
	c := d.from(address, service)
	d.talk(c, "hello\n")
	return c
}

// comesIn is heldFrom where others are refused until a place is free, which it
// is in a moment.
func (d *process) comesIn(address, service string) (c *net.TCPConn) {
	d.t.Helper()
	const hello = "hello\n"
	eventually(d.t, func() error {
		c = d.from(address, service)
		io.WriteString(c, hello)
		got := make([]byte, len(hello))
		if n, err := io.ReadFull(c, got); err != nil || string(got) != hello {
			c.Close()
			return fmt.Errorf("the client is told %q, %v", got[:n], err)
		}
		return nil
	})
	return c
}

// hears wants the client to be told a text, and then the end, in order.
func (d *process) hears(c *net.TCPConn, want string) {
	d.t.Helper()
	renew(c)
	if got, err := io.ReadAll(c); err != nil || string(got) != want {
		d.t.Errorf("the client is told %q, %v, not %q", got, err, want)
	}
	c.Close()
}

// tellsFrom asks a service without a word, from an address.
func (d *process) tellsFrom(address, service string) string {
	d.t.Helper()
	c := d.from(address, service)
	defer c.Close()
	c.CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil {
		d.t.Fatalf("after %q: %v", got, err)
	}
	return string(got)
}

// refusedFor waits for the n-th record of a refusal for a reason.
func (d *process) refusedFor(service, reason string, n int) record {
	d.t.Helper()
	list := d.awaitMany(n, func(r record) bool {
		return r.is("refused") && r.text("service") == service && r.text("reason") == reason && r.text("conn") != ""
	})
	return list[n-1]
}

// accepted waits until n connections of a service have been accepted. The log
// must be at the level debug.
func (d *process) accepted(service string, n int) {
	d.t.Helper()
	d.awaitMany(n, func(r record) bool { return r.is("accepted") && r.text("service") == service })
}

// addsUp wants every connection that was accepted to have ended once: all have
// to be over. The log must be at the level debug.
func (d *process) addsUp(service string) {
	d.t.Helper()
	eventually(d.t, func() error {
		counts := map[string]int{}
		for _, r := range d.recordsOf(service) {
			counts[r.text("message")]++
		}
		refused, _ := d.refusals(service)
		if counts["accepted"] != counts["exited"]+refused {
			return fmt.Errorf("%s: %d were accepted, %d programs ended, and %d were refused", service, counts["accepted"], counts["exited"], refused)
		}
		return nil
	})
}

// runsNothing wants no program of a service to have been started. The log must
// be at the level debug.
func (d *process) runsNothing(service string) {
	d.t.Helper()
	for _, r := range d.recordsOf(service) {
		if r.is("started") || r.is("exited") {
			d.t.Errorf("a program ran: %v", r)
		}
	}
}

// closedDays is a day of the week that is today in no time zone.
func closedDays() string {
	return time.Now().AddDate(0, 0, 3).Format("Mon")
}

func TestAccess(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	writeFile(t, dir, "rules", "# who may\n127.0.0.1 # this machine\n\n10.0.0.0/8\n", 0o644)
	writeFile(t, dir, "none", "", 0o644)
	const (
		in      = "in\n"
		address = "address"
		hours   = "hours"
	)
	list := []struct{ keys, here, there, why string }{
		{`description: none`, in, in, ""},
		{`allow: [127.0.0.1]`, in, address, "no rule allows this client"},
		{`allow: [127.0.0.1/32, "::/0"]`, in, address, "no rule allows this client"},
		{`allow: [0.0.0.0/0], deny: [127.0.0.2]`, in, address, "deny 127.0.0.2"},
		{`deny: [127.0.0.0/8], allow: [127.0.0.1]`, in, address, "deny 127.0.0.0/8"},
		{`deny: [127.0.0.2, 127.0.0.1], allow: [127.0.0.1]`, address, address, "deny 127.0.0.2"},
		{`allow: []`, address, address, "no rule allows this client"},
		{`allow: ["@` + dir + `/rules"]`, in, address, "no rule allows this client"},
		{`allow: ["@` + dir + `/none"]`, address, address, "no rule allows this client"},
		{`deny: ["@` + dir + `/rules"]`, address, in, "deny 127.0.0.1"},
		{`hours: [Mon-Sun]`, in, in, ""},
		{`hours: [` + closedDays() + `]`, hours, hours, "outside the hours"},
		{`hours: [` + closedDays() + `], deny: [127.0.0.0/8]`, address, address, "deny 127.0.0.0/8"},
	}
	yaml := "log: {level: debug}\nservices:\n"
	for i, x := range list {
		yaml += fmt.Sprintf("  s%d: {listen: '127.0.0.1:0', builtin: greeting, text: \"in\\n\", refuse_text: {address: address, hours: hours}, %s}\n", i, x.keys)
	}
	d := start(t, yaml)
	for i, x := range list {
		service := fmt.Sprint("s", i)
		for _, client := range []struct{ from, want string }{{there, x.there}, {here, x.here}} {
			if got := d.tellsFrom(client.from, service); got != client.want {
				t.Errorf("%s: %s is told %q, not %q", x.keys, client.from, got, client.want)
			}
		}
		if x.why == "" {
			continue
		}
		// Of more for one reason there is one record in a second.
		reason, who := x.there, there
		if x.there == in {
			reason, who = x.here, here
		}
		r := d.refusedFor(service, reason, 1)
		if why := r.text("error"); !strings.HasPrefix(why, x.why) || r["level"] != "warn" {
			t.Errorf("%s: the record is %v", x.keys, r)
		}
		if peer := r.text("peer"); !strings.HasPrefix(peer, who+":") || r.text("local") != d.address(service) {
			t.Errorf("%s: the record does not say who it was: %v", x.keys, r)
		}
		if x.here != in && x.there != in {
			d.runsNothing(service)
		}
	}
	for i := range list {
		d.addsUp(fmt.Sprint("s", i))
	}
}

// A rule is found again by what the record says of it.
func TestRefusalNamesItsRule(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	rules := writeFile(t, dir, "rules", "# nobody from here\n\n127.0.0.0/8\n", 0o644)
	cmd := prepare(t, `services:
  own:  {listen: "127.0.0.1:0", builtin: greeting,
         deny: [10.0.0.0/8, 127.0.0.0/8]}
  file: {listen: "127.0.0.1:0", builtin: greeting, deny: ["@`+rules+`"]}
`)
	file := cmd.Args[len(cmd.Args)-1]
	d := startCommand(t, cmd)
	for service, want := range map[string]string{
		"own":  "deny 127.0.0.0/8 (" + file + ":3:29)",
		"file": "deny 127.0.0.0/8 (" + rules + ":3:1)",
	} {
		d.ask(service, "")
		if got := d.refusedFor(service, "address", 1).text("error"); got != want {
			t.Errorf("%s: the record says %q, not %q", service, got, want)
		}
	}
}

// An IPv4 client of an IPv6 socket is what it is.
func TestAccessOfMappedClients(t *testing.T) {
	needIPv6(t)
	t.Parallel()
	d := start(t, `
services:
  mapped: {listen: {address: "[::]:0", v6only: false}, run: /bin/cat, deny: [127.0.0.0/8], refuse_text: "no"}
  six:    {listen: {address: "[::]:0", v6only: false}, run: /bin/cat, deny: ["::/0"], refuse_text: "no"}
`)
	for service, want := range map[string][2]string{"mapped": {"no", ""}, "six": {"", "no"}} {
		_, port, _ := net.SplitHostPort(d.address(service))
		for i, host := range []string{"127.0.0.1", "::1"} {
			if err := visitOnce(net.JoinHostPort(host, port), askFor("", want[i])); err != nil {
				t.Errorf("%s: %s: %v", service, host, err)
			}
		}
	}
}

// A rule can have limits, variables and a program of its own.
func TestRulesOfTheirOwn(t *testing.T) {
	t.Parallel()
	d := start(t, fmt.Sprintf(`
log: {level: debug}
services:
  own:
    listen: "127.0.0.1:0"
    %s
    env: {ROLE: anybody, OTHER: thing}
    max_per_source: 1
    on_limit: refuse
    refuse_text: "one at a time\n"
    allow:
      - 127.0.0.1
      - {from: 127.0.0.2, env: {ROLE: office}, max_per_source: 2}
      - {from: 127.0.0.3, run: [/bin/sh, -c, "echo another $OTHER; cat"]}
`, shell(`echo "$ROLE $OTHER"; cat`)))
	var list []net.Conn
	for _, x := range []struct{ from, want string }{
		{here, "anybody thing"}, {here, "one at a time"},
		{there, "office thing"}, {there, "office thing"}, {there, "one at a time"},
		{"127.0.0.3", "another thing"}, {"127.0.0.3", "one at a time"},
	} {
		c := d.from(x.from, "own")
		if got := line(t, c); got != x.want {
			t.Errorf("a client from %s is told %q, not %q", x.from, got, x.want)
		}
		list = append(list, c)
	}
	for _, c := range list {
		c.Close()
	}
	d.settled()
	d.addsUp("own")
}

// What a refused client is told arrives whole, and the connection ends in
// order, whatever the client has sent before.
func TestRefuseText(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("no, no, never. \n", 4096/16)
	d := start(t, fmt.Sprintf(`
log: {level: debug}
services:
  one:   {listen: "127.0.0.1:0", run: /bin/cat, deny: [127.0.0.0/8], refuse_text: %q}
  other: {listen: "127.0.0.1:0", run: /bin/cat, deny: [127.0.0.0/8], refuse_text: {hours: "not now", address: "not you"}}
  none:  {listen: "127.0.0.1:0", run: /bin/cat, deny: [127.0.0.0/8], refuse_text: {hours: "not now"}}
`, long))
	much := make([]byte, 1<<20)
	for service, text := range map[string]string{"one": long, "other": "not you", "none": ""} {
		for _, x := range []struct {
			before, after int  // bytes that the client sends, and when it has heard all
			half          bool // it closes its side
		}{
			{0, 0, false}, {0, 0, true}, {1, 0, false}, {1, 0, true}, {len(much), 0, false}, {len(much), 0, true},
			{0, 1, false}, {1, len(much), false}, {len(much), len(much), false},
		} {
			if service == "none" && x.before+x.after > 0 {
				continue // who is told nothing and goes on sending may get a reset
			}
			visit := func() error {
				c := d.dial(service)
				defer c.Close()
				_, err := c.Write(much[:x.before])
				if x.half {
					c.CloseWrite()
				}
				got, wrong := io.ReadAll(c)
				var late error
				if x.after > 0 { // superd has only shut down its own side
					_, late = c.Write(much[:x.after])
				}
				if err = errors.Join(err, wrong, late); err == nil && string(got) != text {
					err = fmt.Errorf("it is told %d bytes", len(got))
				}
				return err
			}
			for begun, err := time.Now(), visit(); err != nil; begun, err = time.Now(), visit() {
				if took := time.Since(begun); took < farewell/2 { // who takes longer is not waited for
					t.Fatalf("%s: of %+v the client after %v: %v", service, x, took, err)
				}
			}
		}
		d.runsNothing(service)
	}
	d.settled()
	for _, service := range []string{"one", "other", "none"} {
		d.addsUp(service)
	}
}

// halt stops superd until SIGCONT, and returns when none of its threads runs any
// more. What clients do meanwhile has been done when it accepts them.
func (d *process) halt() {
	d.t.Helper()
	d.signal(syscall.SIGSTOP)
	eventually(d.t, func() error {
		stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.pid()))
		for _, path := range stats {
			text, _ := os.ReadFile(path)
			if _, state, _ := strings.Cut(string(text), ") "); !strings.HasPrefix(state, "T") {
				return fmt.Errorf("it does not stop: %s", text)
			}
		}
		return nil
	})
}

// What has come already when superd looks does not make the end a reset.
func TestRefusalWithoutText(t *testing.T) {
	t.Parallel()
	d := start(t, `services: {none: {listen: "127.0.0.1:0", run: /bin/cat, deny: [127.0.0.0/8]}}`)
	d.halt()
	c := d.dial("none")
	io.WriteString(c, strings.Repeat("x", 50_000))
	eventually(t, func() error { // all of it is there
		if unsent := tcpInfo(t, c).Unacked; unsent > 0 {
			return fmt.Errorf("%d segments are on their way", unsent)
		}
		return nil
	})
	d.signal(syscall.SIGCONT)
	d.hears(c, "")
}

// A client that is told why, and neither reads nor closes, is let go.
func TestRefusedClientsThatStay(t *testing.T) {
	t.Parallel()
	d := start(t, `
services:
  none: {listen: "127.0.0.1:0", run: /bin/cat, deny: [127.0.0.0/8], refuse_text: "no"}
  echo: {listen: "127.0.0.1:0", builtin: echo}
`)
	const n = 300 // more than superd waits for
	hold(t, n, d.address("none"), func(*net.TCPConn) error { return nil })
	if got := d.ask("echo", "hello"); got != "hello" {
		t.Errorf("meanwhile the echo of hello is %q", got)
	}
	d.settled()
}

// At max, who waits is let in by how little its source has, and then by how
// long it waits.
func TestQueueIsFair(t *testing.T) {
	t.Parallel()
	d := start(t, `
services:
  few:   {listen: "127.0.0.1:0", run: /bin/cat, max: 2, max_per_source: 2, queue: {timeout: 1h}}
  other: {listen: "127.0.0.1:0", builtin: echo}
`)
	first, second := d.heldFrom(here, "few"), d.heldFrom(here, "few")
	waits := map[string]*net.TCPConn{"third": d.from(here, "few")}
	waits["other"] = d.from(there, "few")
	for _, c := range waits {
		io.WriteString(c, "in")
		d.isWaiting(c, "other", 2)
	}
	first.Close()
	io.ReadFull(waits["other"], make([]byte, 2))
	d.isWaiting(waits["third"], "other", 2)
	second.Close()
	if _, err := io.ReadFull(waits["third"], make([]byte, 2)); err != nil {
		t.Errorf("the one who waited longest: %v", err)
	}
	d.talk(waits["other"], "still here")
}

// Who waits for its own source's sake holds up nobody else.
func TestQueueOfOneSource(t *testing.T) {
	t.Parallel()
	d := start(t, `
services:
  few: {listen: "127.0.0.1:0", run: /bin/cat, max: 3, max_per_source: 1, queue: {timeout: 1h, length: 50}}
`)
	d.heldFrom(here, "few")
	for range 20 {
		d.from(here, "few")
	}
	for range 20 {
		d.heldFrom(there, "few").Close()
	}
	d.exited("few", 20)
}

// A full queue, and one that a client has waited in for too long.
func TestQueueEnds(t *testing.T) {
	t.Parallel()
	d := start(t, `
log: {level: debug}
services:
  full:  {listen: "127.0.0.1:0", run: /bin/cat, max: 1, queue: {length: 1, timeout: 1h}, refuse_text: {queue-full: "full"}}
  slow:  {listen: "127.0.0.1:0", run: /bin/cat, max: 1, queue: {timeout: 200ms}, refuse_text: {queue-timeout: "too late"}}
`)
	first := d.held("full")
	second := d.dial("full")
	d.accepted("full", 2)
	d.hears(d.dial("full"), "full")
	if why := d.refusedFor("full", "queue-full", 1).text("error"); why != "1 of 1 already wait (limit)" {
		t.Errorf("the record says %q", why)
	}
	first.Close()
	d.talk(second, "in")

	d.held("slow")
	d.hears(d.dial("slow"), "too late")
	why := d.refusedFor("slow", "queue-timeout", 1).text("error")
	said, _ := strings.CutSuffix(strings.TrimPrefix(why, "waited "), " (limit)")
	if waited, err := time.ParseDuration(said); err != nil || waited < 200*time.Millisecond || why != "waited "+said+" (limit)" {
		t.Errorf("the record says %q", why)
	}
}

// With max alone clients wait in the kernel's queue, for as long as they like,
// unless the file has a queue.
func TestQueueWhereOnlyNumbersCount(t *testing.T) {
	t.Parallel()
	for keys, parks := range map[string]bool{
		"max: 1":                                false,
		"max: 1, queue: {}":                     true,
		"max: 1, failures: {}, refuse_text: no": false,
		"max: 1, rate: 1000/s":                  true,
		"max: 1, max_per_source: 1":             true,
		"max: 1, allow: [127.0.0.1]":            true,
		"max: 1, ban: {}":                       true,
	} {
		t.Run(keys, func(t *testing.T) {
			t.Parallel()
			d := start(t, fmt.Sprintf(`
log: {level: debug}
services:
  few:   {listen: "127.0.0.1:0", run: /bin/cat, %s}
  other: {listen: "127.0.0.1:0", builtin: echo}
`, keys))
			first := d.held("few")
			second := d.dial("few")
			d.isWaiting(second, "other", 1)
			if parks {
				d.accepted("few", 2)
			} else if slices.ContainsFunc(d.recordsOf("few"), func(r record) bool { return r.is("accepted") && r.text("peer") == second.LocalAddr().String() }) {
				t.Error("the second was accepted")
			}
			first.Close()
			io.WriteString(second, "in")
			second.CloseWrite()
			if got, err := io.ReadAll(second); len(got) == 0 && parks {
				d.refusedFor("few", "queue-timeout", 1) // it takes ten seconds, where the file says nothing else
			} else if err != nil || string(got) != "in" {
				t.Errorf("the second gets %q, %v", got, err)
			}
		})
	}
}

// caughtUp returns when superd has heard of everything that clients have done
// so far: the thread that accepts for a service was round twice since.
func (d *process) caughtUp(service string) {
	d.t.Helper()
	for range 2 {
		d.ask(service, "x")
	}
}

// A client that resets its connection leaves the queue; the next finds room.
func TestQueueAfterResets(t *testing.T) {
	t.Parallel()
	d := start(t, `
log: {level: debug}
services:
  few:   {listen: "127.0.0.1:0", run: /bin/cat, max: 1, queue: {length: 1, timeout: 1h}, refuse_text: "full"}
  other: {listen: "127.0.0.1:0", builtin: echo}
`)
	first := d.held("few")
	for i := range 20 {
		c := d.dial("few")
		d.accepted("few", 2+i)
		if err := kick(t, c); err != nil {
			t.Fatal(err)
		}
		d.caughtUp("other")
	}
	last := d.dial("few")
	d.accepted("few", 22)
	first.Close()
	d.talk(last, "in")
	last.Close()
	if why := d.refusedFor("few", "limit", 1).text("error"); !strings.HasPrefix(why, "the client left after ") {
		t.Errorf("the record says %q", why)
	}
	d.settled()
	d.addsUp("few")
	for _, r := range d.recordsOf("few") {
		if r.text("reason") == "queue-full" {
			t.Errorf("there was no room: %v", r)
		}
	}
}

// One that has only closed its own side waits on, and has its answer; but it
// gives way where others find the queue full.
func TestQueueOfHalfClosed(t *testing.T) {
	t.Parallel()
	d := start(t, `
log: {level: debug}
services:
  few:   {listen: "127.0.0.1:0", run: /bin/cat, max: 1, queue: {length: 3, timeout: 1h}, refuse_text: "full",
          deny: [127.0.0.3]}
  other: {listen: "127.0.0.1:0", builtin: echo}
`)
	first := d.held("few")
	var waiting []*net.TCPConn
	for i, text := range []string{"early", "late", "open"} {
		c := d.dial("few")
		io.WriteString(c, text)
		if text != "open" {
			c.CloseWrite()
			eventually(t, func() error { // the other end knows
				if state := tcpInfo(t, c).State; state != unix.BPF_TCP_FIN_WAIT2 {
					return fmt.Errorf("the state is %d", state)
				}
				return nil
			})
		}
		waiting = append(waiting, c)
		d.accepted("few", 2+i)
		d.caughtUp("other")
	}
	// Whoever cannot come in takes nobody's place.
	d.hears(d.from("127.0.0.3", "few"), "full")
	d.caughtUp("other")
	next := d.dial("few")
	d.hears(waiting[1], "full")
	first.Close()
	d.hears(waiting[0], "early")
	d.talk(waiting[2], "")
	waiting[2].CloseWrite()
	d.hears(waiting[2], "open")
	d.talk(next, "in")
	next.Close()
	d.settled()
	d.addsUp("few")
}

// With on_limit: refuse nobody waits.
func TestRefuse(t *testing.T) {
	t.Parallel()
	d := start(t, `
log: {level: debug}
limits: {max: 4}
services:
  few:   {listen: "127.0.0.1:0", run: /bin/cat, max: 2, max_per_source: 1, on_limit: refuse,
          refuse_text: {limit: "full", source-limit: "one each", total-limit: "all full"}}
  other: {listen: "127.0.0.1:0", run: /bin/cat}
`)
	first := d.heldFrom(here, "few")
	d.hears(d.from(here, "few"), "one each")
	d.heldFrom(there, "few")
	d.hears(d.from("127.0.0.3", "few"), "full")
	d.held("other")
	d.held("other")
	d.hears(d.from("127.0.0.3", "few"), "all full")
	for reason, want := range map[string]string{
		"source-limit": "1 of 1 places are taken", "limit": "2 of 2 places are taken", "total-limit": "4 of 4 places are taken",
	} {
		if why := d.refusedFor("few", reason, 1).text("error"); why != want {
			t.Errorf("%s: the record says %q, not %q", reason, why, want)
		}
	}
	first.Close()
	d.exited("few", 1)
	d.comesIn(here, "few")
}

// Whoever is over a rate waits for a token, or is refused.
func TestRates(t *testing.T) {
	t.Parallel()
	d := start(t, `
services:
  waits:  {listen: "127.0.0.1:0", builtin: greeting, rate: 20/s burst 2, queue: {timeout: 1h}}
  each:   {listen: "127.0.0.1:0", builtin: greeting, rate_per_source: 20/s burst 1, queue: {timeout: 1h}}
  all:    {listen: "127.0.0.1:0", builtin: greeting, rate: 1/h burst 2, on_limit: refuse, refuse_text: "later"}
  source: {listen: "127.0.0.1:0", builtin: greeting, rate_per_source: 1/h burst 2, on_limit: refuse, refuse_text: "later"}
`)
	const hi, n = "hi client", 8
	begin := time.Now()
	d.many("waits", n, n, askFor("", hi))
	if least, took := (n-2)*time.Second/20, time.Since(begin); took < least {
		t.Errorf("%d came in within %s, which are too many by %s", n, took, least-took)
	}
	begin = time.Now()
	d.many("each", n, n, askFor("", hi))
	if least, took := (n-1)*time.Second/20, time.Since(begin); took < least {
		t.Errorf("%d of a source came in within %s", n, took)
	}
	for service, list := range map[string][]struct{ from, want string }{
		"all":    {{here, hi}, {there, hi}, {there, "later"}, {"127.0.0.3", "later"}},
		"source": {{here, hi}, {here, hi}, {here, "later"}, {there, hi}},
	} {
		for i, x := range list {
			if got := d.tellsFrom(x.from, service); got != x.want {
				t.Errorf("%s: client %d, from %s, is told %q", service, i, x.from, got)
			}
		}
	}
	for service, reason := range map[string]string{"all": "rate", "source": "source-rate"} {
		why := d.refusedFor(service, reason, 1).text("error")
		if !strings.HasPrefix(why, "0 of 2 tokens are left, the next try in ") {
			t.Errorf("%s: the record says %q", service, why)
		}
	}
}

// Who is refused too often, or whose programs keep failing, is shut out for a
// while, and nobody else.
func TestBans(t *testing.T) {
	t.Parallel()
	d := start(t, fmt.Sprintf(`
log: {level: debug}
services:
  denied:  {listen: "127.0.0.1:0", run: /bin/cat, max_per_source: 1, on_limit: refuse, ban: {after: 3, within: 1h, for: 1h},
            refuse_text: {source-limit: "no", banned: "banned"}}
  brief:   {listen: "127.0.0.1:0", run: /bin/cat, max_per_source: 1, on_limit: refuse, ban: {after: 1, for: 500ms},
            refuse_text: {source-limit: "no", banned: "banned"}}
  failing: {listen: "127.0.0.1:0", %s, ban: {after: 2, within: 1h, for: 1h}, refuse_text: {banned: "banned"}}
  full:    {listen: "127.0.0.1:0", run: /bin/cat, max: 1, on_limit: refuse, ban: {after: 1, for: 1h}, refuse_text: "full"}
`, shell(`read x; exit $x`)))
	held := d.heldFrom(there, "denied")
	for i, want := range []string{"no", "no", "no", "banned"} {
		if got := d.tellsFrom(there, "denied"); got != want {
			t.Errorf("time %d: the client is told %q, not %q", i, got, want)
		}
	}
	d.talk(held, "still here")
	d.heldFrom(here, "denied").Close()
	if why := d.refusedFor("denied", "banned", 1).text("error"); !strings.HasPrefix(why, "banned for another ") {
		t.Errorf("the record says %q", why)
	}
	held.Close()
	short := d.heldFrom(there, "brief")
	d.hears(d.from(there, "brief"), "no")
	eventually(t, func() error { // the ban ends by itself
		if got := d.tellsFrom(there, "brief"); got != "no" {
			return fmt.Errorf("the client is told %q", got)
		}
		return nil
	})
	short.Close()
	for i, status := range []string{"0", "1", "0", "1", "0"} {
		c := d.from(there, "failing")
		fmt.Fprintln(c, status)
		want := ""
		if i == 4 { // two have failed, if not one after the other
			want = "banned"
		}
		d.hears(c, want)
		d.settled()
	}
	c := d.from(here, "failing")
	fmt.Fprintln(c, 0)
	d.hears(c, "")
	// Nobody is banned because others fill the room.
	first := d.heldFrom(here, "full")
	for range 3 {
		d.hears(d.from(there, "full"), "full")
	}
	first.Close()
	d.comesIn(there, "full").Close()
	d.settled()
	for _, service := range []string{"denied", "brief", "failing", "full"} {
		d.addsUp(service)
	}
}
