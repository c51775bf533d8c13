package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Overload, failing programs and an end in the middle of it all: nobody else is
// to suffer, and nothing is to be left.

// timesSaid counts the records of superd's own that begin with these words.
func (d *process) timesSaid(words string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.records {
		if strings.HasPrefix(r.text("message"), words) {
			n++
		}
	}
	return n
}

// A program that cannot be executed: after some failures its service pauses, and
// says so once.
func TestFailingService(t *testing.T) {
	t.Parallel()
	path := filepath.Join(publicDir(t), "never")
	d := start(t, fmt.Sprintf(`
log: {level: debug}
services:
  never: {listen: "127.0.0.1:0", run: %s, failures: {after: 3, within: 1h, pause: 90m, text: "closed"}, refuse_text: {spawn: "sorry"}}
`, path))
	for i, want := range []string{"sorry", "sorry", "sorry", "closed", "closed"} {
		if got := d.tellsFrom([]string{here, there}[i%2], "never"); got != want {
			t.Errorf("time %d: the client is told %q, not %q", i, got, want)
		}
	}
	r := d.await(func(r record) bool { return r.is("paused") })
	if want := "cannot execute " + path + ": ENOENT "; !strings.HasPrefix(r.text("error"), want) || r.number("seconds") != 5400 || r["level"] != "warn" {
		t.Errorf("the record of the pause is %v", r)
	}
	if _, narrow := r["source_only"]; narrow || r.text("conn") == "" || r.text("peer") == "" {
		t.Errorf("the record of the pause is %v", r)
	}
	if why := d.refusedFor("never", "failing", 1).text("error"); !strings.HasPrefix(why, "the program keeps failing, the next try in ") {
		t.Errorf("the record says %q", why)
	}
	if n := d.timesSaid("paused"); n != 1 {
		t.Errorf("of the pause is told %d times", n)
	}
}

// Once the program is there, a service that has paused goes on by itself.
func TestFailingServiceRecovers(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	d := start(t, fmt.Sprintf(`
log: {level: debug}
services:
  late: {listen: "127.0.0.1:0", run: %s/late, failures: {after: 3, within: 1h, pause: 300ms, text: "closed"}, refuse_text: {spawn: "sorry"}}
`, dir))
	eventually(t, func() error { // it is tried again, in vain
		if got := d.tellsFrom(here, "late"); got != "sorry" && got != "closed" {
			t.Errorf("the client is told %q", got)
		}
		if n := d.timesSaid("paused"); n < 2 {
			return fmt.Errorf("it has paused %d times", n)
		}
		return nil
	})
	if r := d.await(func(r record) bool { return r.is("paused") && r["again"] == true }); r["level"] != "info" {
		t.Errorf("the record of another pause is %v", r)
	}
	writeFile(t, dir, "late", "#!/bin/sh\necho here I am\n", 0o755)
	eventually(t, func() error {
		if got := d.tellsFrom(here, "late"); got != "here I am\n" {
			return fmt.Errorf("the client is told %q", got)
		}
		return nil
	})
	d.await(func(r record) bool { return r.is("recovered") })
	for range 3 {
		if got := d.tellsFrom(here, "late"); got != "here I am\n" {
			t.Errorf("then the client is told %q", got)
		}
	}
	d.settled()
	d.addsUp("late")
	warned := 0
	for _, r := range d.recordsOf("late") {
		if r.is("paused") && r["level"] == "warn" {
			warned++
		}
	}
	if warned != 1 {
		t.Errorf("of the pause is warned %d times", warned)
	}
}

// A client that knows how to make a program fail shuts itself out, and others
// only if their programs fail as well.
func TestFailuresOfOneSource(t *testing.T) {
	t.Parallel()
	const quick = time.Second // who lives for longer has come up, and its end is no failure
	inTime(t, quick, func() error {
		d := start(t, fmt.Sprintf(`
services:
  frail: {listen: "127.0.0.1:0", %s, failures: {after: 3, within: 1h, pause: 1h, text: "closed"}}
`, shell(`read x; test $x = kill && kill -KILL $$; exit $x`)))
		for i, x := range []struct{ from, says, hears string }{
			{here, "0", ""}, {there, "7", ""}, {there, "7", ""}, {there, "7", ""}, {there, "0", "closed"},
			{here, "0", ""}, {here, "kill", ""}, {here, "kill", ""}, {here, "kill", ""}, {"127.0.0.3", "0", "closed"},
		} {
			c := d.from(x.from, "frail")
			fmt.Fprintln(c, x.says)
			got, err := io.ReadAll(c)
			c.Close()
			if string(got) != x.hears {
				return fmt.Errorf("client %d is told %q, %v, and not %q", i, got, err, x.hears)
			}
			d.settled()
		}
		list := d.awaitMany(2, func(r record) bool { return r.is("paused") })
		if r := list[0]; !strings.HasPrefix(r.text("error"), "the program exited with status 7 after ") || r["source_only"] != true || r.number("seconds") != 3600 {
			t.Errorf("the record of the pause is %v", r)
		}
		if _, narrow := list[1]["source_only"]; narrow || !strings.HasPrefix(list[1].text("error"), "the program was ended by SIGKILL after ") {
			t.Errorf("the record of the other pause is %v", list[1])
		}
		return nil
	})
}

// What superd lacks is no failure of a service.
func TestLackIsNoFailure(t *testing.T) {
	t.Parallel()
	d := start(t, `
services:
  cat: {listen: "127.0.0.1:0", run: /bin/cat, failures: {after: 1, pause: 1h, text: "closed"}, refuse_text: {spawn: "sorry"}}
`)
	restore := d.leaveDescriptors(2)
	d.hears(d.dial("cat"), "sorry")
	restore()
	d.held("cat")
}

// With few descriptors and many clients superd stays alive, says so once, and
// is as before when they have gone.
func TestPressureOnDescriptors(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string]string{
		"kernel's queue": "run: /bin/cat",
		"refuse":         "run: /bin/cat, on_limit: refuse, refuse_text: full",
		"queue":          "run: /bin/cat, queue: {timeout: 1h}, refuse_text: full",
		"first byte":     "run: /bin/cat, timeout: {first_byte: 1h}",
		"proxy":          "run: /bin/cat, proxy_protocol: {from: [127.0.0.1], timeout: 1h}",
		"denied":         "run: /bin/cat, deny: [127.0.0.2], refuse_text: full",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			d := startCommand(t, withDescriptors(prepare(t, one("few", keys)), 64))
			const n = 200
			header := ""
			if name == "proxy" {
				header = "PROXY UNKNOWN\r\n"
			}
			list := make([]*net.TCPConn, n)
			for i := range list {
				list[i] = d.from([]string{here, there}[i%2], "few")
				if i%4 == 0 {
					io.WriteString(list[i], header+"hello\n")
				}
			}
			// Somebody has got in, and is served for as long as he likes.
			served := d.anyEcho(list, "hello\n")
			for range 3 {
				d.talk(served, "still here")
			}
			for _, c := range list {
				c.Close()
			}
			d.settled()
			c := d.dial("few")
			d.talkBehind(c, header, "hello")
			if n := d.timesSaid("the limit of open files leaves less room"); n != 1 {
				t.Errorf("it is said %d times", n)
			}
			if n := d.timesSaid("cannot accept connections now"); n > 1+int(time.Since(begin)/time.Minute) {
				t.Errorf("it is said %d times", n)
			}
		})
	}
}

// anyEcho waits until one of many clients is sent back what it has sent.
func (d *process) anyEcho(list []*net.TCPConn, text string) *net.TCPConn {
	d.t.Helper()
	found := make(chan *net.TCPConn, len(list))
	for _, c := range list {
		go func() { // ends with the connection
			got := make([]byte, len(text))
			if _, err := io.ReadFull(c, got); err == nil && string(got) == text {
				found <- c
			}
		}()
	}
	select {
	case c := <-found:
		return c
	case <-time.After(patience):
		d.t.Fatal("nobody is served")
		return nil
	}
}

// talkBehind is talk after a header that the service takes away.
func (d *process) talkBehind(c *net.TCPConn, header, text string) {
	d.t.Helper()
	io.WriteString(c, header)
	d.talk(c, text)
}

// While there are no descriptors at all for connections, who was let in before
// is dealt with, it is said once, and then everybody comes in.
func TestNoDescriptorsForAMoment(t *testing.T) {
	t.Parallel()
	for patient := 300 * time.Millisecond; !noDescriptorsForAMoment(t, patient); patient *= 3 {
		if patient > patience {
			t.Fatalf("who has %s is refused before", patient)
		}
	}
}

// noDescriptorsForAMoment is false where that long was not enough for what has to
// happen before.
func noDescriptorsForAMoment(t *testing.T, patient time.Duration) bool {
	begin := time.Now()
	d := start(t, strings.ReplaceAll(`
services:
  waits: {listen: "127.0.0.1:0", run: /bin/cat, max_per_source: 1, queue: {timeout: TIME}, refuse_text: "too late"}
  proxy: {listen: "127.0.0.1:0", run: /bin/cat, proxy_protocol: {from: [127.0.0.1], timeout: TIME}, refuse_text: "bad"}
  cat:   {listen: "127.0.0.1:0", run: /bin/cat}
`, "TIME", patient.String()))
	d.held("waits")
	held := d.held("cat")
	parked, silent := d.dial("waits"), d.dial("proxy")
	d.caughtUp("cat")
	restore := d.leaveDescriptors(0)
	var list []*net.TCPConn
	for range 3 {
		list = append(list, d.dial("cat"))
	}
	if r := d.await(func(r record) bool {
		return strings.HasPrefix(r.text("message"), "cannot accept connections now") || r.is("refused")
	}); r.is("refused") {
		restore()
		for _, c := range append(list, held) {
			c.Close()
		}
		return false
	}
	d.hears(parked, "too late")
	d.hears(silent, "bad")
	d.talk(held, "still here")
	restore()
	for _, c := range list {
		d.talk(c, "hello")
	}
	restore = d.leaveDescriptors(0)
	last := d.dial("cat")
	d.talk(held, "still here")
	restore()
	d.talk(last, "hello")
	if n := d.timesSaid("cannot accept connections now"); n > 2*(1+int(time.Since(begin)/time.Minute)) { // once for each thread
		t.Errorf("it is said %d times", n)
	}
	return true
}

// Where the system has no process to give, only those have to wait who need
// one.
func TestNoProcessHoldsUpNobody(t *testing.T) {
	t.Parallel()
	d := startCommand(t, asUser(t, prepare(t, `
services:
  cat:    {listen: "127.0.0.1:0", run: /bin/cat, refuse_text: {spawn: "sorry"}}
  denied: {listen: "127.0.0.1:0", run: /bin/cat, deny: [127.0.0.0/8], refuse_text: "no"}
`), someUser+20_000))
	d.allowProcesses(d.threads() + 1)
	held := d.held("cat")
	d.halt()
	const n = 10
	var list []*net.TCPConn
	for range n {
		list = append(list, d.dial("cat"))
	}
	denied := d.dial("denied")
	d.signal(syscall.SIGCONT)
	d.hears(denied, "no")
	for _, c := range list {
		d.hears(c, "sorry")
	}
	d.mu.Lock()
	first := slices.IndexFunc(d.records, func(r record) bool { return r.is("refused") })
	if r := d.records[first]; r.text("service") != "denied" {
		t.Errorf("who needs no process has to wait for those who do: %v", r)
	}
	d.mu.Unlock()
	held.Close()
	d.exited("cat", 1)
	d.held("cat")
}

// However many are turned away, superd does not grow.
func TestManyDenied(t *testing.T) {
	t.Parallel()
	a := startAsked(t, `
services:
  denied: {listen: "127.0.0.1:0", run: /bin/cat, deny: [127.0.0.0/8], ban: {}, refuse_text: "no"}
`)
	n := fewer(10_000, 1000)
	clients := func(n int) {
		crowd(t, n, 50, func(i int) error {
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i%100), byte(1+i%50))}, Timeout: patience}
			c, err := from.Dial("tcp", a.address("denied"))
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			if i%2 == 0 {
				io.WriteString(c, "hello")
			}
			got, err := io.ReadAll(c)
			if err == nil && string(got) != "no" {
				err = fmt.Errorf("the client is told %q", got)
			}
			return err
		})
	}
	clients(n / 5)
	a.settled()
	memory, threads := a.residentKB(), a.threads()
	clients(n - n/5)
	a.settled()
	if now := a.residentKB(); now > memory+8<<10 {
		t.Errorf("superd has %d KB after all, %d after a fifth", now, memory)
	}
	const some = 8 // the runtime makes one where another is long in the kernel
	if now := a.threads(); now > threads+some {
		t.Errorf("superd has %d threads after all, %d after a fifth", now, threads)
	}
	if s := a.counts("denied"); s.Total != uint64(n) || s.Refused != s.Total || s.RefusedBy["address"] != s.Total || s.Live != 0 {
		t.Errorf("of %d superd counts %+v", n, s)
	}
}

// Clients that go away in the middle of anything leave the only place free.
func TestOnlyPlaceAfterAborts(t *testing.T) {
	t.Parallel()
	a := startAsked(t, `
services:
  single: {listen: "127.0.0.1:0", run: /bin/cat, max: 1, linger: 0, proxy_protocol: {from: [127.0.0.1], timeout: 1h},
           timeout: {first_byte: 1h}, queue: {length: 1000, timeout: 1h}}
  direct: {listen: "127.0.0.1:0", run: /bin/cat, max: 1, linger: 0}
  absent: {listen: "127.0.0.1:0", run: /nowhere/none, max: 1, max_per_source: 1, linger: 0, queue: {length: 1000, timeout: 1h}}
`)
	const header = "PROXY TCP4 192.0.2.1 192.0.2.2 4711 25\r\n"
	hold := map[string]string{"single": header + "h", "direct": "h"}
	for _, x := range []struct {
		phase, service, sends string
		taken, answered       bool // the place is taken meanwhile; the client waits for its answer
	}{
		{"before the header", "single", "", false, false},
		{"within the header", "single", header[:20], false, false},
		{"behind the header", "single", header, false, false},
		{"in the queue", "single", header + "h", true, false},
		{"in the kernel's queue", "direct", "h", true, false},
		{"before the program", "single", header + "h", false, false},
		{"before the program, at once", "direct", "", false, false},
		{"before a program that is not there", "absent", "h", false, false},
		{"while the program runs", "single", header + "h", false, true},
		{"while the program runs", "direct", "h", false, true},
	} {
		for how, leave := range map[string]func(*net.TCPConn) error{"resets": reset, "closes": (*net.TCPConn).Close} {
			var held *net.TCPConn
			if x.taken {
				held = a.dial(x.service)
				io.WriteString(held, hold[x.service])
				if _, err := io.ReadFull(held, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			crowd(t, fewer(30, 10), 10, func(int) error {
				c, err := dialAddress(a.address(x.service))
				if err != nil {
					return err
				}
				_, err = io.WriteString(c, x.sends)
				if x.answered {
					_, wrong := io.ReadFull(c, make([]byte, 1))
					err = errors.Join(err, wrong)
				}
				return errors.Join(err, leave(c))
			})
			if held != nil {
				held.Close()
			}
			a.settled()
			for service, text := range hold {
				c := a.dial(service)
				io.WriteString(c, text)
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Fatalf("after a client that %s %s, %s is full: %v", how, x.phase, service, err)
				}
				c.Close()
			}
			a.ask("absent", "")
			a.settled()
		}
	}
	for _, service := range []string{"single", "direct", "absent"} {
		if s := a.counts(service); s.Total != s.Exited+s.Refused || s.Live != 0 || s.Waiting != 0 {
			t.Errorf("superd counts %+v", s)
		}
	}
	a.ends()
}

// A flood from one source is its own trouble: requests of another succeed, and
// about as fast.
func TestFlood(t *testing.T) {
	t.Parallel()
	a := startAsked(t, `
services:
  site: {listen: "127.0.0.1:0", builtin: greeting, max: 20, max_per_source: 5, rate_per_source: 1/s burst 50, queue: {length: 50, timeout: 1h}}
`)
	request := func() time.Duration {
		begin := time.Now()
		if got := a.tellsFrom(here, "site"); got != "hi client" {
			t.Errorf("the client is told %q", got)
		}
		return time.Since(begin)
	}
	const n = 20 // which its own rate lets come at once
	median := func() time.Duration {
		times := make([]time.Duration, n)
		for i := range times {
			times[i] = request()
		}
		slices.Sort(times)
		return times[n/2]
	}
	before := median()
	end := make(chan struct{})
	var flood sync.WaitGroup
	flood.Go(func() {
		every := time.NewTicker(time.Second / 200)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				flood.Go(func() { // ends when its connection is answered or closed
					own := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(there)}, Timeout: patience}
					if c, err := own.Dial("tcp", a.address("site")); err == nil {
						defer c.Close()
						c.SetDeadline(time.Now().Add(patience))
						io.ReadAll(c)
					}
				})
			case <-end:
				return
			}
		}
	})
	eventually(t, func() error { // the flood has filled what it can fill
		if s := a.counts("site"); s.RefusedBy["queue-full"] == 0 {
			return fmt.Errorf("superd counts %+v", s)
		}
		return nil
	})
	during := median()
	close(end)
	t.Logf("the median of %d requests is %s, and during the flood %s", n, before, during)
	if s := a.counts("site"); s.RefusedBy["queue-full"] != s.Refused {
		t.Errorf("superd counts %+v", s)
	}
	a.signal(syscall.SIGTERM) // the rest of the flood need not be waited for
	a.stopped()
	flood.Wait()
}

// TERM finds clients in every phase: who has no program yet is told so.
func TestTermInEachPhase(t *testing.T) {
	t.Parallel()
	a := startAsked(t, `
log: {level: debug}
drain: 1h
services:
  header: {listen: "127.0.0.1:0", run: /bin/cat, proxy_protocol: {from: [127.0.0.1], timeout: 1h}, refuse_text: "bye"}
  byte:   {listen: "127.0.0.1:0", run: /bin/cat, timeout: {first_byte: 1h}, refuse_text: "bye"}
  queue:  {listen: "127.0.0.1:0", run: /bin/cat, max: 1, queue: {timeout: 1h}, refuse_text: "bye"}
  source: {listen: "127.0.0.1:0", run: /bin/cat, max_per_source: 1, queue: {timeout: 1h}}
  kernel: {listen: "127.0.0.1:0", run: /bin/cat, max: 1}
  gone:   {listen: "127.0.0.1:0", run: /bin/cat, deny: [127.0.0.1], refuse_text: "no"}
  other:  {listen: "127.0.0.1:0", builtin: echo}
`)
	var live []*net.TCPConn
	for _, service := range []string{"queue", "source", "kernel"} {
		live = append(live, a.held(service))
	}
	header, short := a.dial("header"), a.dial("header")
	io.WriteString(short, "PROXY TCP4")
	byteless, queued, halved := a.dial("byte"), a.dial("queue"), a.dial("queue")
	halved.CloseWrite()
	source, kernel, gone := a.dial("source"), a.dial("kernel"), a.dial("gone")
	io.WriteString(queued, strings.Repeat("x", 100_000))
	a.caughtUp("other")
	late := a.dial("byte")
	a.signal(syscall.SIGTERM)
	for name, x := range map[string]struct {
		c    *net.TCPConn
		text string
	}{
		"no header": {header, "bye"}, "half a header": {short, "bye"}, "no byte": {byteless, "bye"}, "just come": {late, "bye"},
		"in the queue": {queued, "bye"}, "half-closed": {halved, "bye"}, "without a text": {source, ""}, "refused before": {gone, "no"},
	} {
		if got, err := io.ReadAll(x.c); err != nil || string(got) != x.text {
			t.Errorf("%s: the client is told %q, %v", name, got, err)
		}
		x.c.Close()
	}
	if _, err := io.ReadAll(kernel); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who waits in the kernel's queue gets %v, not a reset", err)
	}
	for _, c := range live {
		a.talk(c, "still here")
		c.Close()
	}
	a.stopped()
	for service, n := range map[string]int{"header": 2, "byte": 2, "queue": 2, "source": 1} {
		told := 0
		for _, r := range a.recordsOf(service) {
			if r.is("refused") && r.text("reason") == "draining" {
				told += max(0, int(r.number("suppressed")))
				if r.text("conn") != "" {
					told++
				}
			}
		}
		if told != n {
			t.Errorf("%s: %d refusals are told, not %d", service, told, n)
		}
		a.addsUp(service)
	}
}

// Who is told why it is turned away hears all of it, whatever it is sending,
// also where superd has nothing else to do but to end.
func TestTermWaitsForReaders(t *testing.T) {
	t.Parallel()
	inTime(t, farewell, func() error {
		d := start(t, `
drain: 1h
services:
  few:  {listen: "127.0.0.1:0", run: /bin/cat, max: 1, queue: {timeout: 1h}, refuse_text: {draining: "we are closing"}}
  echo: {listen: "127.0.0.1:0", builtin: echo}
`)
		held, parked := d.held("few"), d.dial("few")
		d.caughtUp("echo")
		d.signal(syscall.SIGTERM)
		if got, err := io.ReadAll(parked); err != nil || string(got) != "we are closing" {
			t.Errorf("the client is told %q, %v", got, err)
		}
		held.Close()
		d.exited("few", 1)
		var wrong error
		for range 2 { // a reset is told when more is sent
			if _, err := parked.Write(make([]byte, 1<<19)); err != nil {
				wrong = fmt.Errorf("what the client sends still: %w", err)
			}
		}
		parked.Close()
		d.stopped()
		return wrong
	})
}
