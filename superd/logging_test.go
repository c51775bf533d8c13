package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What programs write to descriptor 2, and what becomes of superd when nobody
// reads its log.

// said lists what the connections of a service have written to the log up to
// now, in order.
func (d *process) said(service string) (list []record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.records {
		if r.is("stderr") && r.text("service") == service {
			list = append(list, r)
		}
	}
	return list
}

func texts(list []record) (all []string) {
	for _, r := range list {
		all = append(all, r.text("text"))
	}
	return all
}

func TestLinesOfStderr(t *testing.T) {
	t.Parallel()
	d := start(t, one("speaker", shell(`printf 'one\n\ntwo\r\n' >&2
		head -c 8192 /dev/zero | tr '\0' x >&2; echo >&2
		head -c 20000 /dev/zero | tr '\0' y >&2; echo >&2
		printf 'after\nlast, without an end' >&2`)))
	d.ask("speaker", "")
	exit := d.exited("speaker", 1)[0]
	list := d.said("speaker")
	want := []string{"one", "", "two", strings.Repeat("x", 8192), strings.Repeat("y", 8192), "after", "last, without an end"}
	if got := texts(list); !slices.Equal(got, want) {
		t.Fatalf("the log has %q", got)
	}
	for i, r := range list {
		if cut := r["cut"] == true; cut != (i == 4) {
			t.Errorf("line %d is marked as cut: %v", i, cut)
		}
		for _, name := range []string{"conn", "peer", "local"} {
			if r.text(name) == "" || r.text(name) != exit.text(name) {
				t.Errorf("line %d has the %s %q, the end of the program has %q", i, name, r.text(name), exit.text(name))
			}
		}
	}
}

// The parts of a line of one program never mix with another's.
func TestLinesOfSeveralPrograms(t *testing.T) {
	t.Parallel()
	d := start(t, one("parts", shell(`while read x; do printf %s "$x" >&2; echo "$x"; done; echo >&2`)))
	first, second := d.dial("parts"), d.dial("parts")
	for i := range 20 {
		d.talk(first, fmt.Sprintf("a%d\n", i))
		d.talk(second, fmt.Sprintf("b%d\n", i))
	}
	first.Close()
	second.Close()
	d.exited("parts", 2)
	var want [2]strings.Builder
	for i := range 20 {
		fmt.Fprintf(&want[0], "a%d", i)
		fmt.Fprintf(&want[1], "b%d", i)
	}
	got := texts(d.said("parts"))
	slices.Sort(got)
	if !slices.Equal(got, []string{want[0].String(), want[1].String()}) {
		t.Errorf("the log has %q", got)
	}
}

// What a program wrote last is in the log before its end.
func TestLastWordsComeBeforeTheEnd(t *testing.T) {
	t.Parallel()
	d := start(t, one("brief", shell(`echo "these are my last words" >&2`)))
	n := fewer(300, 60)
	d.many("brief", n, 20, askFor("", ""))
	d.exited("brief", n)
	spoken := map[string]bool{}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.records {
		switch {
		case r.is("stderr"):
			spoken[r.text("conn")] = true
		case r.is("exited") && !spoken[r.text("conn")]:
			t.Fatalf("%s ended before it was heard", r.text("conn"))
		}
	}
}

// What outlives a program is heard to its end, too.
func TestLastWordsOfLeftovers(t *testing.T) {
	t.Parallel()
	d := start(t, one("parent", shell(`
		sh -c 'trap "printf %s \"last words\" >&2; exit" TERM; echo up; while :; do sleep 0.01; done' &
		read x`)+", timeout: {stop: 1h}"))
	c := d.dial("parent")
	if _, err := io.ReadFull(c, make([]byte, len("up\n"))); err != nil {
		t.Fatal(err)
	}
	c.Close()
	exit := d.exited("parent", 1)[0]
	if exit.number("leftovers") < 1 {
		t.Errorf("nothing was left: %v", exit)
	}
	if got := texts(d.said("parent")); !slices.Contains(got, "last words") {
		t.Errorf("the log has %q", got)
	}
}

// Descriptor 2 can be opened anew, whoever the program runs as.
func TestStderrByName(t *testing.T) {
	t.Parallel()
	keys := map[string]string{"usual": ""}
	if os.Geteuid() == 0 {
		keys["root"] = ", user: root"
		keys["stranger"] = fmt.Sprint(", user: ", someUser)
		keys["group"] = ", user: daemon, group: 4002, groups: []"
	}
	for name, keys := range keys {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, one("named", shell(`echo one >/dev/stderr; echo two >/proc/self/fd/2; echo three >>/dev/stderr`)+keys))
			d.ask("named", "")
			d.exited("named", 1)
			if got := texts(d.said("named")); !slices.Equal(got, []string{"one", "two", "three"}) {
				t.Errorf("the log has %q", got)
			}
		})
	}
}

func TestStderrElsewhere(t *testing.T) {
	t.Parallel()
	d := start(t, fmt.Sprintf(`
services:
  client: {listen: "127.0.0.1:0", %[1]s, stderr: client}
  gone:   {listen: "127.0.0.1:0", %[1]s, stderr: "null"}
`, shell("echo out; echo err >&2")))
	if got := d.ask("client", ""); got != "out\nerr\n" {
		t.Errorf("the client got %q", got)
	}
	if got := d.ask("gone", ""); got != "out\n" {
		t.Errorf("the client got %q", got)
	}
	d.exited("client", 1)
	d.exited("gone", 1)
	if list := slices.Concat(d.said("client"), d.said("gone")); len(list) > 0 {
		t.Errorf("the log has %v", list)
	}
}

// Programs that write without end to descriptor 2 keep nobody else from being
// served, and nothing of theirs keeps them from being ended.
func TestEndlessStderr(t *testing.T) {
	t.Parallel()
	cmd := prepare(t, `
services:
  echo:  {listen: "127.0.0.1:0", builtin: echo}
  noise: {listen: "[::1]:0", `+shell(`read x; exec yes "a line of the same noise again and again" >&2`)+`, timeout: {session: 1h}}
drain: 0
`)
	if !haveIPv6() {
		skip(t, "this machine has no IPv6")
	}
	// The log is read as fast as can be, by nobody. So the service to listen to
	// is found by its family.
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd.Stderr = null
	d := startSilent(t, cmd, "echo")
	var noisy []string
	eventually(t, func() error {
		if noisy = d.portsOf("tcp6"); len(noisy) != 1 {
			return fmt.Errorf("superd listens on the ports %v", noisy)
		}
		return nil
	})
	for range 2 {
		c, err := dialAddress("[::1]:" + noisy[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "go\n")
	}
	for range fewer(60, 20) {
		if got := d.ask("echo", "hello"); got != "hello" {
			t.Fatalf("the echo of hello is %q", got)
		}
	}
	eventually(t, func() error { // the last echo may be there still
		if list := d.children(); len(list) != 2 {
			return fmt.Errorf("the children are %v, not two that make noise", list)
		}
		return nil
	})
	d.signal(syscall.SIGTERM)
	if code := d.ended(); code != 0 {
		t.Errorf("superd ended with %d", code)
	}
}

// openAtWork is how many descriptors a superd without a log has open that serves
// its first client, or has just done so: it can listen before it has all of its
// own.
func (d *process) openAtWork(service string) int {
	d.t.Helper()
	if got := d.ask(service, "hello"); got != "hello" {
		d.t.Fatalf("the echo of hello is %q", got)
	}
	return d.descriptors()
}

// opensNoMore wants superd to have no children, and at most n descriptors.
func (d *process) opensNoMore(n int) {
	d.t.Helper()
	eventually(d.t, func() error {
		if children, open := d.children(), d.descriptors(); len(children) > 0 || open > n {
			return fmt.Errorf("%d descriptors are open, not %d; children are %v", open, n, children)
		}
		return nil
	})
}

// A reader of the log that goes away, or was never there, is no reason for
// superd to go.
func TestLogWithoutReader(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before the start", "later"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd := prepare(t, "log: {level: debug}\n"+one("loud", shell("echo noise >&2; exec cat")))
			cmd.Stdout, cmd.Stderr = w, w
			if when == "before the start" {
				r.Close()
			}
			d := startSilent(t, cmd, "loud")
			w.Close()
			r.Close()
			open := d.openAtWork("loud")
			for range 20 {
				if got := d.ask("loud", "hello"); got != "hello" {
					t.Fatalf("the echo of hello is %q", got)
				}
			}
			d.signal(syscall.SIGHUP)
			d.opensNoMore(open)
			d.signal(syscall.SIGTERM)
			if code := d.ended(); code != 0 {
				t.Errorf("superd ended with %d", code)
			}
		})
	}
}

// Where nobody reads the log, but somebody may, superd serves on, and what the
// log lacks is told in it afterwards.
func TestLogThatIsNotRead(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := prepare(t, "log: {level: debug}\n"+one("echo", "builtin: echo"))
	cmd.Stderr = w
	d := startSilent(t, cmd, "echo")
	w.Close()
	open := d.openAtWork("echo")
	const n = 2500 // three records each, which is more than is kept
	d.many("echo", n, 50, askFor("hello", "hello"))
	d.opensNoMore(open)

	lines := make(chan string)
	go func() { // ends with superd
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	records := 0
	waitFor := func(sign string) {
		for {
			select {
			case line, open := <-lines:
				if !open {
					t.Fatalf("the log ends without %q", sign)
				}
				records++
				if strings.Contains(line, sign) {
					return
				}
			case <-time.After(patience):
				t.Fatalf("nothing says %q", sign)
			}
		}
	}
	waitFor("log lines were dropped because nobody reads the log")
	if records >= 3*n {
		t.Errorf("%d records came, which is all: nothing can have been dropped", records)
	}
	d.ask("echo", "")
	waitFor(`"message":"exited"`)
	go func() { // ends with the channel
		for range lines {
		}
	}()
	d.signal(syscall.SIGTERM)
	if code := d.ended(); code != 0 {
		t.Errorf("superd ended with %d", code)
	}
}
