package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// How superd stops: superd(8), SIGNALS.

// stopped wants superd to end in order.
func (d *process) stopped() {
	d.t.Helper()
	if code := d.ended(); code != 0 {
		d.t.Errorf("superd ended with %v; the log:\n%s", d.cmd.ProcessState, d.log())
	}
	d.await(func(r record) bool { return r.is("stopped") })
}

// inTime has something tried for which superd leaves a time that cannot be set,
// and again where that may have been too short, since something stood still.
func inTime(t *testing.T, limit time.Duration, try func() error) {
	t.Helper()
	for first := time.Now(); ; {
		begin := time.Now()
		err := try()
		if err == nil {
			return
		}
		if time.Since(begin) < limit || time.Since(first) > patience {
			t.Fatal(err)
		}
		t.Logf("once more after %s: %v", time.Since(begin), err)
	}
}

func TestTermLetsClientsFinish(t *testing.T) {
	t.Parallel()
	d := start(t, one("cat", "run: /bin/cat")+"\ndrain: 1h")
	c := d.held("cat")
	address := d.address("cat")
	d.signal(syscall.SIGTERM)
	if r := d.await(func(r record) bool { return r.is("draining") }); r.number("live") != 1 || r.number("seconds") != 3600 {
		t.Errorf("draining is told as %v", r)
	}
	if late, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a client who comes too late got %v, %v", late, err)
	}
	d.talk(c, "still here")
	c.Close()
	d.stopped()
	checkEnd(t, d.exited("cat", 1)[0], "0", "")
}

// Who stood in the kernel's queue when TERM came is served.
func TestTermServesTheQueue(t *testing.T) {
	t.Parallel()
	d := start(t, one("cat", "run: /bin/cat")+"\ndrain: 1h")
	d.signal(syscall.SIGSTOP)
	list := make([]net.Conn, 100)
	for i := range list {
		list[i] = d.dial("cat")
	}
	d.signal(syscall.SIGTERM)
	d.signal(syscall.SIGCONT)
	for _, c := range list {
		d.talk(c, "hello")
		c.Close()
	}
	d.stopped()
}

// Who waits for a place then, and gets none, learns it at once.
func TestTermTurnsAwayWhoFindsNoRoom(t *testing.T) {
	t.Parallel()
	d := start(t, `
drain: 1h
services:
  few:   {listen: "127.0.0.1:0", run: /bin/cat, max: 1}
  other: {listen: "127.0.0.1:0", builtin: echo}
`)
	first := d.held("few")
	second := d.dial("few")
	d.isWaiting(second, "other", 1)
	d.signal(syscall.SIGTERM)
	if _, err := io.ReadAll(second); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the one who waits gets %v, not a reset", err)
	}
	d.talk(first, "still here")
	first.Close()
	d.stopped()
	d.exited("few", 1)
}

func TestDrainTimeEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ script, stop, ending string }{
		"ends on TERM": {holds, "1h", "TERM"},
		"ignores TERM": {stubborn + holds, "1s", "KILL"},
		"is stopped":   {`echo hello; kill -STOP $$; ` + holds, "1h", "TERM"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, one("long", shell(c.script)+", linger: 100ms, timeout: {stop: "+c.stop+"}")+"\ndrain: 300ms")
			line(t, d.dial("long"))
			d.signal(syscall.SIGTERM)
			d.stopped()
			checkEnd(t, d.exited("long", 1)[0], c.ending, "drain")
		})
	}
}

func TestSecondTermHurries(t *testing.T) {
	t.Parallel()
	d := start(t, one("long", shell(holds)+", linger: 100ms, timeout: {stop: 1h}")+"\ndrain: 1h")
	line(t, d.dial("long"))
	d.signal(syscall.SIGTERM)
	d.await(func(r record) bool { return r.is("draining") })
	d.signal(syscall.SIGTERM)
	d.stopped()
	checkEnd(t, d.exited("long", 1)[0], "TERM", "drain")
}

func TestThirdTermKills(t *testing.T) {
	t.Parallel()
	d := start(t, one("long", shell(`trap 'echo asked' TERM; `+holds)+", timeout: {stop: 1h}")+"\ndrain: 1h")
	c := d.dial("long")
	line(t, c)
	d.signal(syscall.SIGTERM)
	d.await(func(r record) bool { return r.is("draining") })
	d.signal(syscall.SIGTERM)
	if got := line(t, c); got != "asked" {
		t.Errorf("the program says %q", got)
	}
	d.signal(syscall.SIGTERM)
	d.stopped()
	checkEnd(t, d.exited("long", 1)[0], "KILL", "drain")
}

func TestIntStopsAtOnce(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(d *process){
		"at once": func(*process) {},
		"while superd drains": func(d *process) {
			d.signal(syscall.SIGTERM)
			d.await(func(r record) bool { return r.is("draining") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inTime(t, stopTime, func() error {
				d := start(t, fmt.Sprintf(`
drain: 1h
services:
  meek:     {listen: "127.0.0.1:0", %s, timeout: {stop: 1h}}
  stubborn: {listen: "127.0.0.1:0", %s, timeout: {stop: 1h}}
`, shell(holds), shell(stubborn+holds)))
				line(t, d.dial("meek"))
				line(t, d.dial("stubborn"))
				before(d)
				d.signal(syscall.SIGINT)
				d.stopped()
				checkEnd(t, d.exited("stubborn", 1)[0], "KILL", "stop")
				return d.exited("meek", 1)[0].ended("TERM", "stop")
			})
		})
	}
}

// What outlives a program that was ended has no more time than the program.
func TestIntEndsLeftovers(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"of a program that ends now":   `sh -c "$1" & while :; do read x || sleep 1; done`,
		"of a program that ended then": `sh -c "$1" & read x`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, one("parent", shell(script, stubborn+"echo $$; exec sleep 1000")+", timeout: {stop: 1h}"))
			c := d.dial("parent")
			pid, program := number(t, c), d.child()
			if strings.Contains(name, "then") {
				c.Close()
				waitForEnd(t, program)
			}
			d.signal(syscall.SIGINT)
			d.stopped()
			if r := d.exited("parent", 1)[0]; r.number("leftovers") != 1 {
				t.Errorf("the leftovers were counted wrong: %v", r)
			}
			if lives(pid) {
				t.Errorf("process %d is left", pid)
			}
		})
	}
}

// A program that was told to end before superd was keeps its time for it.
func TestDrainLeavesTimeToEnd(t *testing.T) {
	t.Parallel()
	script := `trap 'echo asked; read x <&3; echo "$x"; exit 3' TERM; exec 3<&0; echo hello; while :; do sleep 0.05; done`
	d := startAsked(t, "drain: 0\n"+one("slow", shell(script)+", linger: 100ms, timeout: {stop: 1h}"))
	c := d.dial("slow")
	if got := line(t, c); got != "hello" {
		t.Errorf("the program says %q", got)
	}
	d.told("kill", "--service", "slow")
	if got := line(t, c); got != "asked" {
		t.Errorf("the program says %q", got)
	}
	d.signal(syscall.SIGTERM)
	d.await(func(r record) bool { return r.is("draining") })
	d.signal(syscall.SIGUSR2) // is answered once drain has done all it does
	d.await(func(r record) bool { return r.is(tooLate) })
	if _, err := io.WriteString(c, "in good order\n"); err != nil {
		t.Fatal(err)
	}
	if got := line(t, c); got != "in good order" {
		t.Errorf("the program says %q", got)
	}
	d.stopped()
	checkEnd(t, d.exited("slow", 1)[0], "3", "kill")
}

// tooLate is what USR2 gets when superd is about to stop.
const tooLate = "superd is about to stop, nothing was changed"

// TERM is understood from the moment that superd says that it is ready.
func TestTermAtOnce(t *testing.T) {
	t.Parallel()
	for range fewer(30, 10) {
		d := start(t, one("echo", "builtin: echo"))
		d.signal(syscall.SIGTERM)
		d.stopped()
	}
}
