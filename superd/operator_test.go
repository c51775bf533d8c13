package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"superd/superd/internal/control"
)

// What a running superd answers, and does when it is told.

// An asked is a superd with an administrative socket.
type asked struct {
	*process
	socket string
}

// startAsked is start for a file that names an administrative socket.
func startAsked(t testing.TB, yaml string) asked {
	t.Helper()
	socket := filepath.Join(publicDir(t), "socket")
	return asked{start(t, "control: {path: "+socket+"}\n"+yaml), socket}
}

// rewrite is that of a process, for a file that goes on naming the socket.
func (a asked) rewrite(n int, yaml string) record {
	a.t.Helper()
	return a.process.rewrite(n, "control: {path: "+a.socket+"}\n"+yaml)
}

// tell says a verb to it, as an administrator would.
func (a asked) tell(verb string, args ...string) (code int, out, complaints string) {
	a.t.Helper()
	return finished(a.t, superd(append([]string{verb, "--socket", a.socket}, args...)...))
}

// told is tell where all must go well.
func (a asked) told(verb string, args ...string) (out string) {
	a.t.Helper()
	code, out, complaints := a.tell(verb, args...)
	if code != 0 || complaints != "" {
		a.t.Fatalf("%s %q ends with %d: %s", verb, args, code, complaints)
	}
	return out
}

func (a asked) status() (s control.Status) {
	a.t.Helper()
	if err := json.Unmarshal([]byte(a.told("status", "--json")), &s); err != nil {
		a.t.Fatal(err)
	}
	return s
}

func (a asked) connections() (list []control.Connection) {
	a.t.Helper()
	if err := json.Unmarshal([]byte(a.told("ps", "--json")), &list); err != nil {
		a.t.Fatal(err)
	}
	return list
}

// TestStatus: the counters add up, and say what has happened.
func TestStatus(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	a := startAsked(t, `
services:
  cat:    {listen: "127.0.0.1:0", run: /bin/cat, max: 20, description: sends back}
  fails:  {listen: "127.0.0.1:0", run: /bin/false}
  absent: {listen: "127.0.0.1:0", run: /nowhere/none}
  off:    {listen: "127.0.0.1:0", run: /bin/cat, enabled: false}
`)
	c := a.held("cat")
	for range 3 {
		a.ask("cat", "x")
		a.ask("fails", "")
		a.ask("absent", "")
	}
	a.exited("cat", 3)
	a.exited("fails", 3)
	eventually(t, func() error {
		if s := a.counts("absent"); s.Refused != 3 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	s := a.status()
	got := map[string]string{}
	for _, v := range s.Services {
		got[v.Name] = fmt.Sprint(v.State, " live ", v.Live, " total ", v.Total, " exited ", v.Exited, " failed ", v.Failed,
			" refused ", v.Refused, v.RefusedBy, " max ", v.Max, " waiting ", v.Waiting, " bans ", v.Bans, " generation ", v.Generation, " ", v.Description)
		if v.Total != v.Live+v.Exited+v.Refused {
			t.Errorf("the counters of %s do not add up: %+v", v.Name, v)
		}
		if wanted := map[bool]int{true: 1}[v.State == "ready"]; len(v.Listen) != wanted || wanted == 1 && v.Listen[0] != a.address(v.Name) {
			t.Errorf("%s listens on %v", v.Name, v.Listen)
		}
	}
	want := map[string]string{
		"cat":    "ready live 1 total 4 exited 3 failed 0 refused 0 map[] max 20 waiting 0 bans 0 generation 1 sends back",
		"fails":  "ready live 0 total 3 exited 3 failed 3 refused 0 map[] max 0 waiting 0 bans 0 generation 1 ",
		"absent": "ready live 0 total 3 exited 0 failed 0 refused 3 map[spawn:3] max 0 waiting 0 bans 0 generation 1 ",
		"off":    "disabled live 0 total 0 exited 0 failed 0 refused 0 map[] max 0 waiting 0 bans 0 generation 1 ",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if s.State != "serving" || s.PID != a.pid() || s.Version != version || s.Generation != 1 || s.Live != 1 || s.Max <= 0 || s.Max > 10000 ||
		s.File != a.cmd.Args[3] || s.Started.Before(begin) || s.UptimeMS <= 0 || s.Loaded.Before(s.Started) {
		t.Errorf("of superd itself it says %+v", s)
	}
	for _, words := range []string{"SERVICE", "cat      ready     1/20", "absent   ready     0     0        3      0       3 (spawn 3)", "generation 1"} {
		if text := a.told("status"); !strings.Contains(text, words) {
			t.Errorf("%q is missing in\n%s", words, text)
		}
	}
	c.Close()
}

// TestStatusNamesTheFile so that it can be found from everywhere.
func TestStatusNamesTheFile(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	socket := filepath.Join(dir, "socket")
	file := writeFile(t, dir, "superd.yaml", "control: {path: "+socket+"}\n"+one("cat", "run: /bin/cat"), 0o644)
	a := asked{startCommand(t, inDirectory(superd("run", "-c", "superd.yaml"), dir)), socket}
	shown := a.status().File
	is, err := os.Stat(shown)
	if err != nil {
		t.Fatal(err)
	}
	if wanted, err := os.Stat(file); !filepath.IsAbs(shown) || err != nil || !os.SameFile(is, wanted) {
		t.Errorf("it is shown as %s", shown)
	}
	if path := absolute(builtInName); path != builtInName {
		t.Errorf("no file is shown as %s", path)
	}
}

// fieldsOf are the keys of the first object in a list.
func fieldsOf(t *testing.T, text string) []string {
	t.Helper()
	var rows []map[string]any
	if err := json.Unmarshal([]byte(text), &rows); err != nil || len(rows) == 0 {
		t.Fatalf("%q, %v", text, err)
	}
	return slices.Sorted(maps.Keys(rows[0]))
}

// TestPs: what the kernel counts is shown while the connection lives.
func TestPs(t *testing.T) {
	t.Parallel()
	a := startAsked(t, `
services:
  cat:    {listen: "127.0.0.1:0", run: /bin/cat}
  unkept: {listen: "127.0.0.1:0", run: /bin/cat, keep: false}
`)
	if out := a.told("ps", "--json"); out != "[]\n" {
		t.Errorf("without connections it is %q", out)
	}
	c := a.held("cat")
	a.talk(c, strings.Repeat("x", 1000))
	text := a.told("ps", "--json")
	want := []string{"age_ms", "bytes_in", "bytes_out", "id", "idle_ms", "local", "peer", "pid", "rtt_us", "service", "state"}
	if got := fieldsOf(t, text); !slices.Equal(got, want) {
		t.Errorf("the fields are %v", got)
	}
	row := a.connections()[0]
	if row.Service != "cat" || row.State != "running" || row.PID != a.child() || row.Peer != c.LocalAddr().String() ||
		row.Local != a.address("cat") || *row.BytesIn != 1006 || *row.BytesOut != 1006 || *row.RTTUS <= 0 || row.AgeMS < *row.IdleMS {
		t.Errorf("it is shown as %s", text)
	}
	eventually(t, func() error { // the clock of idleness runs, and begins anew
		if idle := *a.connections()[0].IdleMS; idle < 50 {
			return fmt.Errorf("it is idle for %d ms", idle)
		}
		return nil
	})
	id := row.ID
	c.Close()
	if r := a.exited("cat", 1)[0]; r.text("conn") != id {
		t.Errorf("it was shown as %s, and the log has %v", id, r)
	}
	bare := a.held("unkept")
	got := fieldsOf(t, a.told("ps", "--json"))
	if want := []string{"age_ms", "id", "local", "peer", "pid", "service", "state"}; !slices.Equal(got, want) {
		t.Errorf("the fields without a kept descriptor are %v", got)
	}
	if line := strings.Split(a.told("ps"), "\n")[1]; !strings.HasPrefix(line, a.connections()[0].ID) || !strings.HasSuffix(line, "-     -   -    -") {
		t.Errorf("the line is %q", line)
	}
	bare.Close()
}

// TestPsOfMany: a list of many is whole, and holds nobody up.
func TestPsOfMany(t *testing.T) {
	t.Parallel()
	a := startAsked(t, one("echo", "builtin: echo"))
	n := fewer(500, 150)
	held := make([]net.Conn, n)
	for i := range held {
		held[i] = a.held("echo")
	}
	seen := map[string]bool{}
	for _, row := range a.connections() {
		seen[row.Peer] = true
	}
	for _, c := range held {
		if !seen[c.LocalAddr().String()] {
			t.Errorf("%v is missing", c.LocalAddr())
		}
		c.Close()
	}
	if len(seen) != n {
		t.Errorf("%d of %d connections are shown", len(seen), n)
	}
}

// TestPsWatch goes on until superd ends.
func TestPsWatch(t *testing.T) {
	t.Parallel()
	a := startAsked(t, one("echo", "builtin: echo"))
	cmd := superd("ps", "--watch", "--json", "--socket", a.socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := range 2 {
		if !lines.Scan() || lines.Text() != "[]" {
			t.Fatalf("look %d shows %q", i, lines.Text())
		}
	}
	a.told("stop")
	for lines.Scan() {
	}
	if code := waitFor(t, cmd); code != 3 {
		t.Errorf("it ends with %d", code)
	}
}

func TestKillOrder(t *testing.T) {
	t.Parallel()
	a := startAsked(t, `
services:
  cat:   {listen: "127.0.0.1:0", run: /bin/cat, timeout: {stop: 1h}}
  other: {listen: "127.0.0.1:0", run: /bin/cat}
  tough: {listen: "127.0.0.1:0", `+shell(stubborn+holds)+`, timeout: {stop: 100ms}}
`)
	stays := a.held("cat")
	id := a.connections()[0].ID
	goes := a.held("cat")
	var second string
	for _, row := range a.connections() {
		if row.ID != id {
			second = row.ID
		}
	}
	if out := a.told("kill", second); out != "1 connection was told to end\n" {
		t.Errorf("it says %q", out)
	}
	a.closed(goes)
	checkEnd(t, a.exited("cat", 1)[0], "TERM", "kill")
	a.talk(stays, "still here")

	for range 3 {
		a.held("other")
	}
	if out := a.told("kill", "--service", "other"); out != "3 connections were told to end\n" {
		t.Errorf("it says %q", out)
	}
	a.exited("other", 3)
	if out := a.told("kill", "--service", "other"); out != "0 connections were told to end\n" {
		t.Errorf("it says %q", out)
	}
	line(t, a.dial("tough"))
	a.told("kill", "--source", "127.0.0.0/8", "--service", "tough")
	checkEnd(t, a.exited("tough", 1)[0], "KILL", "kill")
	a.talk(stays, "still here")
	if code, _, complaints := a.tell("kill", "nobody"); code != 1 || complaints != "there is no connection \"nobody\"\n" {
		t.Errorf("it ends with %d and %q", code, complaints)
	}
	if code, _, complaints := a.tell("kill", "--service", "nothing"); code != 1 || complaints != "there is no service \"nothing\"\n" {
		t.Errorf("it ends with %d and %q", code, complaints)
	}
	a.told("kill", "--source", "127.0.0.1")
	a.closed(stays)
	r := a.await(func(r record) bool {
		return r.is("ordered") && r.text("what") == "source 127.0.0.0/8" || r.is("ordered")
	})
	if r.text("verb") != "kill" || r.text("what") != "connection "+second || int(r.number("uid")) != os.Getuid() || r.number("pid") <= 0 {
		t.Errorf("the order is told as %v", r)
	}
}

// TestDrainOfOne: its clients finish, nobody else comes, and others are served.
func TestDrainOfOne(t *testing.T) {
	t.Parallel()
	a := startAsked(t, `
drain: 1h
services:
  going:   {listen: ["127.0.0.1:0", "127.0.0.1:0"], run: /bin/cat}
  staying: {listen: "127.0.0.1:0", run: /bin/cat}
`)
	c := a.held("going")
	waits := superd("drain", "going", "--socket", a.socket)
	out, err := waits.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := waits.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	if text, err := said.ReadString('\n'); err != nil || text != "for 1h0m at most, until these have ended:\n" {
		t.Errorf("it says %q, %v", text, err)
	}
	for _, address := range a.addresses("going") {
		if late, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a client who comes too late got %v, %v", late, err)
		}
	}
	if r := a.await(func(r record) bool { return r.is("draining") }); r.text("service") != "going" || r.number("live") != 1 || r.number("seconds") != 3600 {
		t.Errorf("it is told as %v", r)
	}
	a.talk(c, "still here")
	if got := a.ask("staying", "hello"); got != "hello" {
		t.Errorf("the other service answers %q", got)
	}
	s := a.status()
	if s.State != "serving" || s.Services[0].State != "draining" || s.Services[1].State != "ready" {
		t.Errorf("the states are %q, %q, %q", s.State, s.Services[0].State, s.Services[1].State)
	}
	c.Close()
	rest, _ := io.ReadAll(said)
	if code := waitFor(t, waits); code != 0 || !strings.Contains(string(rest), c.LocalAddr().String()) || !strings.HasSuffix(string(rest), "\ngoing: drained\n") {
		t.Errorf("it ends with %d and %q", code, rest)
	}
	checkEnd(t, a.exited("going", 1)[0], "0", "")
	if out := a.told("drain", "going"); out != "going: drained\n" {
		t.Errorf("said again it says %q", out)
	}
	a.idle -= 2 // its sockets
	if code, _, complaints := a.tell("drain", "giong"); code != 1 || complaints != "there is no service \"giong\"; did you mean \"going\"?\n" {
		t.Errorf("it ends with %d and %q", code, complaints)
	}
	if code, _, complaints := a.tell("drain", "nothing"); code != 1 || complaints != "there is no service \"nothing\"\n" {
		t.Errorf("it ends with %d and %q", code, complaints)
	}
}

// TestDrainLimit: who does not finish in time is ended; a later order replaces
// an earlier one's limit.
func TestDrainLimit(t *testing.T) {
	t.Parallel()
	a := startAsked(t, "drain: 1h\nservices: {cat: {listen: '127.0.0.1:0', run: /bin/cat, timeout: {stop: 1h}}}")
	c := a.held("cat")
	if out := a.told("drain", "cat", "--no-wait"); !strings.HasPrefix(out, "for 1h0m at most") || strings.Contains(out, "drained") {
		t.Errorf("it says %q", out)
	}
	a.talk(c, "still here")
	a.told("drain", "cat", "--limit", "100ms")
	a.closed(c)
	checkEnd(t, a.exited("cat", 1)[0], "TERM", "drain")
	a.idle--
}

// TestDrainOfAll leaves a superd that can be asked and stopped.
func TestDrainOfAll(t *testing.T) {
	t.Parallel()
	a := startAsked(t, `
services:
  one: {listen: "127.0.0.1:0", run: /bin/cat}
  two: {listen: "127.0.0.1:0", run: /bin/cat}
`)
	c := a.held("two")
	var begun control.Drained
	if err := json.Unmarshal([]byte(a.told("drain", "--json", "--limit", "50ms")), &begun); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(begun) != "{[one two] 1 50}" {
		t.Errorf("it says %+v", begun)
	}
	a.closed(c)
	if s := a.status(); s.State != "draining" || s.Live != 0 {
		t.Errorf("then it is %q with %d connections", s.State, s.Live)
	}
	a.idle -= 2
}

func TestStopOrder(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args   []string
		script string
		ending string
		reason string
	}{
		"lets them finish": {nil, "exec cat", "0", ""},
		"now":              {[]string{"--now"}, "exec cat", "TERM", "stop"},
		"now, stubborn":    {[]string{"--now"}, stubborn + `while read x; do echo "$x"; done; while :; do sleep 1; done`, "KILL", "stop"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inTime(t, stopTime, func() error {
				a := startAsked(t, "drain: 1h\n"+one("cat", shell(c.script)+", timeout: {stop: 1h}"))
				client := a.held("cat")
				stop := superd(append([]string{"stop", "--socket", a.socket}, c.args...)...)
				var out strings.Builder
				stop.Stdout = &out
				if err := stop.Start(); err != nil {
					t.Fatal(err)
				}
				if c.args == nil {
					a.await(func(r record) bool { return r.is("draining") })
					if s := a.status(); s.State != "stopping" || s.Live != 1 {
						t.Errorf("meanwhile it is %q with %d connections", s.State, s.Live)
					}
					client.Close()
				}
				want := map[bool]string{true: "1 connection is left\nstopped\n", false: "stopped\n"}[c.args == nil]
				if code := waitFor(t, stop); code != 0 || out.String() != want {
					t.Errorf("it ends with %d and %q", code, &out)
				}
				a.stopped()
				if _, err := os.Lstat(a.socket); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the socket is left: %v", err)
				}
				if code, _, complaints := a.tell("status"); code != 3 || complaints != "no superd answers at "+a.socket+": no such file or directory\n" {
					t.Errorf("then status ends with %d and %q", code, complaints)
				}
				return a.exited("cat", 1)[0].ended(c.ending, c.reason)
			})
		})
	}
}

// TestBlocks are shown, end by themselves, and are lifted.
func TestBlocks(t *testing.T) {
	t.Parallel()
	a := startAsked(t, one("cat", "run: /bin/cat"))
	for _, c := range []struct{ verb, args, want string }{
		{"block", "192.0.2.0/24 --for 1h", "192.0.2.0/24 is blocked for 1h0m\n"},
		{"block", "203.0.113.7/24", "203.0.113.0/24 is blocked until it is unblocked\n"},
		{"unblock", "203.0.113.0/24", "1 block or ban was lifted\n"},
		{"block", "2001:db8::7", "2001:db8::7 is blocked until it is unblocked\n"},
		{"block", "192.0.2.77 --for 10m", "192.0.2.77 is blocked for 10m0s\n"},
		{"block", "198.51.100.1 --for 1ms", "198.51.100.1 is blocked for 1ms\n"},
	} {
		if out := a.told(c.verb, strings.Fields(c.args)...); out != c.want {
			t.Errorf("%s %s says %q", c.verb, c.args, out)
		}
	}
	var got []string
	for _, b := range a.status().Blocks {
		got = append(got, fmt.Sprint(b.Service, b.Source, " ", b.LeftMS > 0))
	}
	slices.Sort(got)
	if want := []string{"192.0.2.0/24 true", "192.0.2.77 true", "2001:db8::7 false"}; !slices.Equal(got, want) {
		t.Errorf("the blocks are %q", got)
	}
	if text := a.told("status"); !strings.Contains(text, "2001:db8::7   all      until it is unblocked\n") {
		t.Errorf("it is shown as\n%s", text)
	}
	want := "nobody in 192.0.2.1 is blocked or banned by itself, but 192.0.2.0/24 around it is: superd unblock 192.0.2.0/24 lifts that\n"
	if code, _, complaints := a.tell("unblock", "192.0.2.1"); code != 1 || complaints != want {
		t.Errorf("it ends with %d and %q", code, complaints)
	}
	if out := a.told("unblock", "192.0.0.0/16"); out != "2 blocks and bans were lifted\n" {
		t.Errorf("it says %q", out)
	}
	if code, _, complaints := a.tell("unblock", "192.0.0.0/16"); code != 1 || complaints != "nobody in 192.0.0.0/16 is blocked or banned\n" {
		t.Errorf("it ends with %d and %q", code, complaints)
	}
}

// TestUsersAreSources: what a user of unix sockets is shown as can be told.
func TestUsersAreSources(t *testing.T) {
	t.Parallel()
	dir, me := publicDir(t), fmt.Sprintf("uid:%d", os.Getuid())
	a := startAsked(t, several("bans", fmt.Sprintf("listen: 'unix:%s/bans', run: /bin/cat, deny: [%s], ban: {after: 1, for: 1h}", dir, me),
		"cat", fmt.Sprintf("listen: ['unix:%s/cat', '127.0.0.1:0'], run: /bin/cat", dir)))
	blocks := func(want string) {
		t.Helper()
		list := a.status().Blocks
		for i := range list {
			list[i].LeftMS = 0
		}
		if got := fmt.Sprint(list); got != want {
			t.Errorf("kept out are %s, not %s", got, want)
		}
	}
	a.askUnix("bans", "", "")
	a.refused("bans")
	blocks("[{bans " + me + " 0}]")
	if out := a.told("unblock", me); out != "1 block or ban was lifted\n" {
		t.Errorf("it says %q", out)
	}
	blocks("[]")
	if code, _, complaints := a.tell("unblock", me); code != 1 || complaints != me+" is neither blocked nor banned\n" {
		t.Errorf("it ends with %d and %q", code, complaints)
	}
	local := a.dialUnix("cat", "")
	a.talk(local, "hello\n")
	other, err := net.Dial("tcp", a.addresses("cat")[1])
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	a.talk(other, "hello\n")
	if out := a.told("block", me); out != me+" is blocked until it is unblocked\n" {
		t.Errorf("it says %q", out)
	}
	blocks("[{ " + me + " 0}]")
	a.askUnix("cat", "", "")
	if r := a.refused("cat"); r.text("reason") != "banned" {
		t.Errorf("a blocked user is recorded as %v", r)
	}
	if out := a.told("kill", "--source", me); out != "1 connection was told to end\n" {
		t.Errorf("it says %q", out)
	}
	a.closed(local)
	a.talk(other, "still here\n")
	if code, _, complaints := a.tell("unblock", "uid:me"); code != 2 || !strings.Contains(complaints, `"uid:me" is neither an address, nor a network`) {
		t.Errorf("it ends with %d and %q", code, complaints)
	}
}

// TestSocketByFile: the file says where to ask, whatever else is wrong with it.
func TestSocketByFile(t *testing.T) {
	t.Parallel()
	a := startAsked(t, one("cat", "run: /bin/cat"))
	file := a.cmd.Args[3]
	if code, out, _ := finished(t, superd("status", "--config", file)); code != 0 || !strings.Contains(out, "cat") {
		t.Errorf("it ends with %d and %q", code, out)
	}
	text := "control: {path: " + a.socket + "}\nservices: {cat: {lisen: none}}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := finished(t, superd("status", "-c", file)); code != 0 || !strings.Contains(out, "cat") {
		t.Errorf("of a file with mistakes it ends with %d and %q", code, out)
	}
	if err := os.WriteFile(file, []byte("control: ["), 0o644); err != nil {
		t.Fatal(err)
	}
	want := file + ":1:10: the file ends inside brackets (close them)\nthe socket can be named with --socket\n"
	if code, _, complaints := finished(t, superd("status", "-c", file)); code != 1 || complaints != want {
		t.Errorf("of no YAML it ends with %d and %q", code, complaints)
	}
}

// TestSocketIsTaken: the one that the file names has to be had, or superd does
// not start. Its first owner is left alone.
func TestSocketIsTaken(t *testing.T) {
	t.Parallel()
	a := startAsked(t, one("cat", "run: /bin/cat"))
	cmd := superd("run", "-c", a.cmd.Args[3])
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", a.pid()))
	want := fmt.Sprintf("%s:1:17: control.path: cannot open the administrative socket %s: it is in use by %s, process %d\n",
		a.cmd.Args[3], a.socket, strings.TrimSpace(string(comm)), a.pid())
	if code, out, complaints := finished(t, cmd); code != 1 || out != "" || !strings.HasSuffix(complaints, want) {
		t.Errorf("it ends with %d and %q, not %q", code, complaints, want)
	}
	if a.status().PID != a.pid() {
		t.Error("the first one does not answer any more")
	}
}

// TestSocketOfTheDead: what a superd that was killed has left is in nobody's way.
func TestSocketOfTheDead(t *testing.T) {
	t.Parallel()
	a := startAsked(t, one("cat", "run: /bin/cat"))
	a.signal(syscall.SIGKILL)
	a.ended()
	if code, _, complaints := a.tell("status"); code != 3 || !strings.HasSuffix(complaints, ": connection refused\n") {
		t.Errorf("status ends with %d and %q", code, complaints)
	}
	next := asked{startCommand(t, superd("run", "-c", a.cmd.Args[3])), a.socket}
	if next.status().PID != next.pid() {
		t.Error("the next one does not answer")
	}
}

// TestDefaultSocket is each user's own; who finds it taken, or has no place for
// it, goes without, and says so once.
func TestDefaultSocket(t *testing.T) {
	t.Parallel()
	dir, runtime := publicDir(t), publicDir(t)
	file := writeFile(t, dir, "superd.yaml", one("cat", "run: /bin/cat"), 0o644)
	user := func(args ...string) *exec.Cmd {
		cmd := superd(args...)
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+runtime)
		if os.Geteuid() == 0 {
			asUser(t, cmd, someUser)
			if err := os.Chown(runtime, someUser, someUser); err != nil {
				t.Fatal(err)
			}
		}
		return cmd
	}
	first := startCommand(t, user("run", "-c", file))
	ask := func() (s control.Status) {
		code, out, complaints := finished(t, user("status", "--json", "-c", file))
		if code != 0 || json.Unmarshal([]byte(out), &s) != nil {
			t.Fatalf("status ends with %d: %s", code, complaints)
		}
		return s
	}
	if s := ask(); s.PID != first.pid() {
		t.Errorf("process %d answers", s.PID)
	}
	if info, err := os.Lstat(filepath.Join(runtime, "superd/control.sock")); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	second := startCommand(t, user("run", "-c", file))
	without := func(d *process, why string) {
		t.Helper()
		list := d.awaitMany(1, func(r record) bool { return strings.HasPrefix(r.text("message"), "superd runs without") })
		if len(list) != 1 || !strings.Contains(list[0].text("error"), why) {
			t.Errorf("it is told as %v", list)
		}
	}
	without(second, "process "+strconv.Itoa(first.pid()))
	if got := second.ask("cat", "hello"); got != "hello" {
		t.Errorf("the second one answers %q", got)
	}
	if s := ask(); s.PID != first.pid() {
		t.Errorf("then process %d answers", s.PID)
	}
	runtime += "/none"
	homeless := superd("run", "-c", file)
	homeless.Env = append(homeless.Env, "XDG_RUNTIME_DIR="+runtime)
	if os.Geteuid() == 0 {
		asUser(t, homeless, someUser)
	}
	without(startCommand(t, homeless), "no such file or directory")
}

// TestSocketForAGroup: whom the mode lets in may ask, and not more.
func TestSocketForAGroup(t *testing.T) {
	needRoot(t)
	t.Parallel()
	socket := filepath.Join(publicDir(t), "socket")
	a := asked{start(t, "control: {path: "+socket+", mode: \"0666\"}\n"+one("cat", "run: /bin/cat")), socket}
	a.await(func(r record) bool {
		return strings.HasSuffix(r.text("message"), "control.mode: lets every user of this machine ask superd who is connected")
	})
	c := a.held("cat")
	other := func(args ...string) (code int, out, complaints string) {
		return finished(t, asUser(t, superd(append(args, "--socket", socket)...), someUser))
	}
	for _, verb := range []string{"status", "ps"} {
		if code, out, complaints := other(verb); code != 0 || !strings.Contains(out, "cat") {
			t.Errorf("%s ends with %d and %q", verb, code, complaints)
		}
	}
	for _, order := range []string{"stop --now", "drain", "kill --service cat", "block ::/0", "unblock ::/0", "reload", "upgrade"} {
		args := strings.Fields(order)
		want := fmt.Sprintf("%s is for root and for user 0, not for user %d\n", args[0], someUser)
		if code, _, complaints := other(args...); code != 1 || complaints != want {
			t.Errorf("%s ends with %d and %q", order, code, complaints)
		}
	}
	a.talk(c, "still here")
	c.Close()
	if err := os.Chmod(socket, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, complaints := other("status"); code != 1 || complaints != "cannot ask superd at "+socket+": permission denied\n" {
		t.Errorf("without the right it ends with %d and %q", code, complaints)
	}
}

// The group that the file names may ask, from the first moment and after a
// reload; one that the machine does not know is a mistake of the file.
func TestGroupOfTheSocket(t *testing.T) {
	needRoot(t)
	t.Parallel()
	socket := filepath.Join(publicDir(t), "socket")
	file := func(group string) string {
		return "control: {path: " + socket + ", mode: \"0660\"" + group + "}\n" + one("cat", "run: /bin/cat")
	}
	a := asked{start(t, file(fmt.Sprintf(", group: %d", someUser))), socket}
	asks := func(want int) {
		t.Helper()
		if code, _, complaints := finished(t, asUser(t, superd("status", "--socket", socket), someUser)); code != want {
			t.Errorf("one of the group ends with %d and %s", code, complaints)
		}
	}
	asks(0)
	a.process.rewrite(1, file(""))
	asks(1)
	a.process.rewrite(2, file(fmt.Sprintf(", group: %d", someUser)))
	asks(0)
	a.upgradeNow(1)
	asks(0)
	if err := os.WriteFile(a.config(), []byte(file(", group: nosuch")), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"check", "run", "reload"} {
		code, _, complaints := finished(t, superd(verb, "-c", a.config()))
		if want := "control.group: no such group: nosuch"; code != 1 || !strings.Contains(complaints, want) {
			t.Errorf("%s ends with %d and %s", verb, code, complaints)
		}
	}
	asks(0)
}

// TestCurl is a client that others have written.
func TestCurl(t *testing.T) {
	t.Parallel()
	curl := program(t, "curl")
	a := startAsked(t, one("cat", "run: /bin/cat"))
	c := a.held("cat")
	do := func(args ...string) string {
		t.Helper()
		return output(t, client(t, curl, append([]string{"-sS", "--unix-socket", a.socket}, args...)...))
	}
	for _, check := range []struct {
		args []string
		want string
	}{
		{[]string{"http://superd/v1/status"}, `"name":"cat","state":"ready","live":1,"total":1,"refused":0`},
		{[]string{"http://superd/v1/connections?service=cat"}, `"bytes_in":6`},
		{[]string{"http://superd/v1/connections?service=dog"}, `[]`},
		{[]string{"-d", `{"service": "dog"}`, "http://superd/v1/kill"}, `{"error":"there is no service \"dog\""}`},
		{[]string{"-d", `{"service": "cat"}`, "http://superd/v1/kill"}, `{"killed":1}`},
		{[]string{"-w", "%{http_code}", "-X", "POST", "http://superd/v1/upgrade"}, `"generation":2,"connections":`},
		{[]string{"-X", "POST", "http://superd/v1/reload"}, `{"generation":3,"added":[],"changed":[],"removed":[],"resumed":[],"settings":[],"warnings":[]}`},
		{[]string{"-H", "Expect: 100-continue", "-H", "Transfer-Encoding: chunked", "-d", `{"network": "192.0.2.1"}`, "http://superd/v1/block"}, `{}`},
		{[]string{"http://superd/v1/blocks"}, `[{"source":"192.0.2.1"}]`},
	} {
		got := do(check.args...)
		for begin := time.Now(); tooSlow(got) && time.Since(begin) < patience; {
			got = do(check.args...)
		}
		if !strings.Contains(got, check.want) {
			t.Errorf("curl %q gets %s", check.args, got)
		}
	}
	a.closed(c)
}

// TestProgramsGiveNoOrders: one that runs as superd's own user may ask, but no
// more, unless it is outside of all walls.
func TestProgramsGiveNoOrders(t *testing.T) {
	t.Parallel()
	curl := installed(t, "curl")
	socket := filepath.Join(publicDir(t), "socket")
	user := ""
	if os.Geteuid() == 0 {
		user = ", user: root"
	}
	yaml := "control: {path: " + socket + "}\nservices:\n"
	do := "run: " + yamlList(curl, "-sS", "--unix-socket", socket, "-d", `{"network": "192.0.2.1"}`, "http://superd/v1/block")
	ask := "run: " + yamlList(curl, "-sS", "--unix-socket", socket, "http://superd/v1/blocks")
	for _, sandbox := range []string{"none", "basic", "strict"} {
		keys := fmt.Sprintf("listen: '127.0.0.1:0', sandbox: {preset: %s, private_tmp: false, best_effort: true}%s", sandbox, user)
		yaml += fmt.Sprintf("  do-%s: {%s, %s}\n  ask-%s: {%s, %s}\n", sandbox, keys, do, sandbox, keys, ask)
	}
	a := asked{start(t, yaml), socket}
	for _, sandbox := range []string{"basic", "strict"} {
		if got := a.ask("ask-"+sandbox, ""); got != "[]\n" {
			t.Errorf("%s: asked, superd says %q", sandbox, got)
		}
		if got := a.ask("do-"+sandbox, ""); got != `{"error":"block is not for programs that superd confines"}`+"\n" {
			t.Errorf("%s: told, superd says %q", sandbox, got)
		}
	}
	if got := a.ask("do-none", ""); got != "{}\n" {
		t.Errorf("told by a program outside of all walls, superd says %q", got)
	}
}

// TestSocketUnderAttack: whoever connects and is slow there delays no
// connection, and leaves nothing behind.
func TestSocketUnderAttack(t *testing.T) {
	t.Parallel()
	a := startAsked(t, one("echo", "builtin: echo"))
	var silent []net.Conn
	for i := range 200 {
		c, err := net.Dial("unix", a.socket)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET /v1/connections HTTP/1.1\r\nHost: x\r\nSlow: "[:i%40])
		silent = append(silent, c)
		if i%20 == 0 {
			if got := a.ask("echo", "hello"); got != "hello" {
				t.Errorf("a client is answered with %q", got)
			}
			a.status()
		}
	}
	const most = 40
	if n := a.descriptors(); n > a.idle+most {
		t.Errorf("%d descriptors are open, %d without the slow ones", n, a.idle)
	}
	for _, c := range silent {
		c.Close()
	}
	a.settled()
	a.told("stop")
	a.stopped()
}

// TestStopIsNotHeldUp by clients of the socket who say nothing.
func TestStopIsNotHeldUp(t *testing.T) {
	t.Parallel()
	a := startAsked(t, one("echo", "builtin: echo"))
	c, err := net.Dial("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a.signal(syscall.SIGTERM)
	a.stopped()
}

// TestStatusSignal writes to the log what status says.
func TestStatusSignal(t *testing.T) {
	t.Parallel()
	a := startAsked(t, "drain: 1h\n"+one("cat", "run: /bin/cat"))
	c := a.held("cat")
	a.signal(syscall.SIGUSR1)
	list := a.awaitMany(2, func(r record) bool { return r.is("status") })
	if r := list[0]; r.text("service") != "cat" || r.text("state") != "ready" || r.number("live") != 1 || r.number("total") != 1 {
		t.Errorf("the service is told as %v", r)
	}
	if r := list[1]; r.text("state") != "serving" || r.number("live") != 1 || r.number("generation") != 1 || r.number("blocks") != 0 {
		t.Errorf("superd is told as %v", r)
	}
	a.signal(syscall.SIGTERM)
	a.await(func(r record) bool { return r.is("draining") })
	a.signal(syscall.SIGUSR1)
	if r := a.awaitMany(4, func(r record) bool { return r.is("status") })[3]; r.text("state") != "stopping" {
		t.Errorf("then superd is told as %v", r)
	}
	c.Close()
	a.stopped()
}
