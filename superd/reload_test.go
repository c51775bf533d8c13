package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// rewrite gives superd another file, and has it taken up; it returns the record
// of that, the nth of this superd.
func (d *process) rewrite(n int, yaml string) record {
	d.t.Helper()
	if err := os.WriteFile(d.config(), []byte(yaml), 0o644); err != nil {
		d.t.Fatal(err)
	}
	return d.hup(n)
}

func (d *process) hup(n int) record {
	d.t.Helper()
	d.signal(syscall.SIGHUP)
	r := d.awaitMany(n, func(r record) bool { return r.is("reloaded") })[n-1]
	return r
}

// config is the file that superd was started with.
func (d *process) config() string { return d.cmd.Args[len(d.cmd.Args)-1] }

// several is a file of services, each with the keys that follow its name.
func several(list ...string) string {
	text := "services:\n"
	for i := 0; i < len(list); i += 2 {
		text += "  " + list[i] + ": {" + list[i+1] + "}\n"
	}
	return text
}

// A reload adds, removes and changes services; those that are connected keep
// what they came to.
func TestReload(t *testing.T) {
	t.Parallel()
	d := start(t, several(
		"old", `listen: "127.0.0.1:0", run: /bin/cat`,
		"same", `listen: "127.0.0.1:0", builtin: echo`,
		"other", `listen: "127.0.0.1:0", builtin: greeting, text: before`))
	removed, kept := d.held("old"), d.held("same")
	addresses := map[string]string{"same": d.address("same"), "other": d.address("other")}
	r := d.rewrite(1, several(
		"same", `listen: "127.0.0.1:0", builtin: echo`,
		"other", `listen: "127.0.0.1:0", builtin: greeting, text: after`,
		"new", `listen: "127.0.0.1:0", run: /bin/cat`))
	if got, want := fmt.Sprint(r["added"], r["removed"], r["changed"], r["generation"]), "[new] [old] 1 2"; got != want {
		t.Errorf("added, removed, changed and generation are %s, not %s", got, want)
	}
	d.await(func(r record) bool {
		return r.is("changed") && r.text("service") == "other" && fmt.Sprint(r["keys"]) == "[text: before -> after]"
	})
	if got := d.ask("other", ""); got != "after" {
		t.Errorf("the changed service says %q", got)
	}
	for name, address := range addresses {
		if got := d.addresses(name); len(got) != 1 || got[0] != address {
			t.Errorf("%s listens on %v, not on %s alone", name, got, address)
		}
	}
	if got := d.ask("new", "x"); got != "x" {
		t.Errorf("the new service says %q", got)
	}
	eventually(t, func() error {
		c, err := net.Dial("tcp", d.address("old"))
		if err == nil {
			c.Close()
			return errors.New("the removed service can still be reached")
		}
		return nil
	})
	d.talk(removed, "still here\n")
	d.talk(kept, "still here\n")
	removed.Close()
	kept.Close()
	d.exited("old", 1)
}

// A file with mistakes changes nothing, and each mistake is told.
func TestReloadOfABadFile(t *testing.T) {
	t.Parallel()
	good := several("a", `listen: "127.0.0.1:0", builtin: echo`)
	d := start(t, good)
	c := d.held("a")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for i, bad := range []struct{ yaml, want string }{
		{several("a", `listen: "127.0.0.1:0", builtin: ecko`), "did you mean echo?"},
		{several("a", `listen: "127.0.0.1:0", builtin: echo`, "b", fmt.Sprintf(`listen: "%s", builtin: echo`, taken.Addr())), "address already in use"},
		{several("a", `listen: "127.0.0.1:0", builtin: greeting`, "b", `listen: "127.0.0.1:0", builtin: echo, user: no-such-user`), "no-such-user"},
		{several("a", fmt.Sprintf(`listen: "0.0.0.0:%s", builtin: echo`, port(d.address("a")))), "take that out first"},
	} {
		if err := os.WriteFile(d.config(), []byte(bad.yaml), 0o644); err != nil {
			t.Fatal(err)
		}
		d.signal(syscall.SIGHUP)
		d.awaitMany(i+1, func(r record) bool { return r.is(notReloaded) })
		d.await(func(r record) bool { return strings.Contains(r.text("message"), bad.want) })
	}
	d.talk(c, "still here\n")
	if got := d.ask("a", "x"); got != "x" {
		t.Errorf("the service says %q", got)
	}
	c.Close()
	d.rewrite(1, good)
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// Who waits in a socket's queue while its service changes is served by the new
// one, also where that has another name.
func TestReloadKeepsTheQueue(t *testing.T) {
	t.Parallel()
	d := start(t, several("a", `listen: "127.0.0.1:0", run: /bin/cat, max: 1`))
	address := d.address("a")
	first := d.held("a")
	var waiting []*net.TCPConn
	for range 10 {
		waiting = append(waiting, d.dial("a"))
	}
	d.rewrite(1, several("b", fmt.Sprintf(`listen: "%s", builtin: greeting, text: b, sandbox: none`, address)))
	// The address was the kernel's choice before, and is the file's now.
	for _, c := range waiting {
		if got, err := io.ReadAll(c); string(got) != "b" {
			t.Errorf("who waited got %q, %v", got, err)
		}
	}
	d.talk(first, "still here\n")
	first.Close()
	d.rewrite(2, several("a", fmt.Sprintf(`listen: "%s", run: /bin/cat, max: 1`, address)))
}

// A program inherits its walls from the thread that starts it, also where
// nobody did when superd started.
func TestReloadBuildsWalls(t *testing.T) {
	t.Parallel()
	file := func(walls string) string {
		return several("a", `listen: "127.0.0.1:0", run: [/bin/grep, "^Seccomp:", /proc/self/status], sandbox: `+walls)
	}
	d := start(t, file("none"))
	for i, want := range []string{"0", "2", "0", "2"} {
		if got := strings.Fields(d.ask("a", "")); len(got) != 2 || got[1] != want {
			t.Errorf("after %d reloads the program's filter is %v, not %s", i, got, want)
		}
		d.settled()
		d.rewrite(i+1, file([]string{"basic", "none"}[i%2]))
		if i == 0 {
			d.idle = d.descriptors() // what tells of killed programs stays open from the first filter on
		}
	}
}

// Reloads one after the other under load lose nobody, and leave nothing behind.
func TestManyReloads(t *testing.T) {
	t.Parallel()
	file := func(n int) string {
		text := several(
			"fixed", `listen: "127.0.0.1:0", builtin: echo`,
			"walls", fmt.Sprintf(`listen: "127.0.0.1:0", run: /bin/cat, max_per_source: %d, sandbox: %s`, 50+n%2, []string{"none", "basic"}[n%2]))
		if n%3 == 0 {
			text += fmt.Sprintf("  some%d: {listen: \"127.0.0.1:0\", builtin: greeting}\n", n)
		}
		return text
	}
	a := startWatched(t, file(1))
	goroutines := func() float64 {
		values, _ := a.metrics()
		return values["go_goroutines{}"]
	}
	atFirst := goroutines()
	var stop atomic.Bool
	var clients sync.WaitGroup
	visits := map[string]*atomic.Uint64{"fixed": {}, "walls": {}}
	for service := range visits {
		address := a.address(service)
		for range 4 {
			clients.Go(func() {
				for pace := everySoOften(t); !stop.Load(); <-pace {
					visits[service].Add(1)
					if err := visitOnce(address, askFor("hello\n", "hello\n")); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	held := a.held("walls")
	n, begin := fewer(1000, 50), time.Now()
	for i := 1; i <= n; i++ {
		a.rewrite(i, "http: {listen: '127.0.0.1:0'}\n"+file(i+1))
	}
	held.SetDeadline(time.Now().Add(patience))
	a.talk(held, "after all that\n")
	held.Close()
	stop.Store(true)
	clients.Wait()
	a.rewrite(n+1, "http: {listen: '127.0.0.1:0'}\n"+file(1))
	a.settled()
	t.Logf("%d reloads in %s, beside %d connections", n, time.Since(begin), visits["fixed"].Load()+visits["walls"].Load())
	eventually(t, func() error {
		if now := goroutines(); now > atFirst {
			return fmt.Errorf("there are %v goroutines, and were %v", now, atFirst)
		}
		return nil
	})
	s := a.status()
	for _, v := range s.Services {
		want := visits[v.Name].Load()
		if v.Name == "walls" {
			want++ // the one that was held
		}
		if v.Total != want || v.Exited != want || v.Failed+v.Refused+v.Live != 0 {
			t.Errorf("of %d clients: %+v", want, v)
		}
	}
	if len(s.Services) != 2 || s.Generation != n+2 {
		t.Errorf("superd says %+v", s)
	}
}

// everySoOften is how clients come that are not to have the machine for
// themselves.
func everySoOften(t *testing.T) <-chan time.Time {
	pace := time.NewTicker(16 * time.Millisecond)
	t.Cleanup(pace.Stop)
	return pace.C
}

// What a reload allows or forbids holds at once, for those who wait as well.
func TestReloadOfLimits(t *testing.T) {
	t.Parallel()
	d := start(t, several("a", `listen: "127.0.0.1:0", builtin: echo, max_per_source: 1, queue: {timeout: 1h}`))
	first, second := d.held("a"), d.dial("a")
	d.rewrite(1, several("a", `listen: "127.0.0.1:0", builtin: echo, max_per_source: 2, queue: {timeout: 1h}`))
	d.talk(second, "in\n")
	d.rewrite(2, several("a", `listen: "127.0.0.1:0", builtin: echo, deny: [127.0.0.0/8]`))
	c := d.dial("a")
	d.closed(c)
	if r := d.refused("a"); r.text("reason") != "address" {
		t.Errorf("the reason is %s", r.text("reason"))
	}
	d.talk(first, "still in\n")
	first.Close()
	second.Close()
	c.Close()
}

// The verb says what has changed, or what is wrong and where.
func TestReloadByOrder(t *testing.T) {
	t.Parallel()
	a := startAsked(t, several("a", `listen: "127.0.0.1:0", builtin: greeting, text: before`))
	good, err := os.ReadFile(a.config())
	if err != nil {
		t.Fatal(err)
	}
	write := func(from, to string) {
		t.Helper()
		if err := os.WriteFile(a.config(), []byte(strings.ReplaceAll(string(good), from, to)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("before", "after")
	if got, want := a.told("reload"), "changed a\n    text: before -> after\ngeneration 2\n"; got != want {
		t.Errorf("it says %q, not %q", got, want)
	}
	if got := a.ask("a", ""); got != "after" {
		t.Errorf("the service says %q", got)
	}
	write("text: before", "txet: before, max: 0")
	code, out, complaints := a.tell("reload")
	if code != 1 || out != "" || strings.Count(complaints, "\n") != 3 || !strings.Contains(complaints, "services.a.txet: unknown key (did you mean text?)\n") ||
		!strings.HasSuffix(complaints, "\ncannot reload, nothing was changed\n") {
		t.Errorf("it ends with %d, %q and\n%s", code, out, complaints)
	}
	code, out, complaints = a.tell("reload", "--json")
	var answer struct {
		Error    string
		Problems []string
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != 1 || answer.Error+"\n" != complaints || len(answer.Problems) != 2 ||
		answer.Error != strings.Join(append(answer.Problems, notReloaded), "\n") {
		t.Errorf("as JSON it ends with %d, %v, %q and\n%s", code, err, out, complaints)
	}
	// The log has it as well: the next one who looks did not ask.
	a.await(func(r record) bool {
		return strings.HasSuffix(r.text("message"), "services.a.txet: unknown key (did you mean text?)")
	})
	a.await(func(r record) bool { return r.is(notReloaded) })
	a.told("drain", "a")
	write("", "")
	if got := a.told("reload"); got != "resumed a\nchanged a\n    text: after -> before\ngeneration 3\n" {
		t.Errorf("it says %q", got)
	}
	a.await(func(r record) bool { return r.is("reloaded") && fmt.Sprint(r["generation"], r["resumed"]) == "3 [a]" })
	a.await(func(r record) bool { return r.is("reloaded") && fmt.Sprint(r["generation"], r["resumed"]) == "2 []" })
	a.awaitMany(2, func(r record) bool { return r.is("listening") }) // of a port of the kernel's choice the second is another
	addresses := a.addresses("a")
	if err := visitOnce(addresses[len(addresses)-1], askFor("", "before")); err != nil {
		t.Errorf("after a drain and a reload: %v", err)
	}
}
