package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/control"
)

// upgradeNow has superd go on as its own program; it returns the record of that,
// the nth of this superd.
func (d *process) upgradeNow(n int) record {
	d.t.Helper()
	mark := d.soFar()
	d.signal(syscall.SIGUSR2)
	r := d.concluded(mark)
	if got := d.timesSaid("upgraded"); got != n {
		d.t.Errorf("superd was upgraded %d times, not %d", got, n)
	}
	return r
}

// upgraded waits for the nth upgrade, which superd was told to try after the one
// before.
func (d *process) upgraded(n int) record {
	d.t.Helper()
	if n > 1 {
		d.awaitMany(n-1, func(r record) bool { return r.is("upgraded") })
	}
	mark, upgrades := 0, 0
	d.mu.Lock()
	for i, r := range d.records {
		if r.is("upgraded") && upgrades < n-1 {
			upgrades, mark = upgrades+1, i+1
		}
	}
	d.mu.Unlock()
	return d.concluded(mark)
}

// soFar is how many records there are.
func (d *process) soFar() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.records)
}

// concluded waits for an upgrade after the first mark records. One that was given
// up since something stood still is tried again.
func (d *process) concluded(mark int) record {
	d.t.Helper()
	for begin := time.Now(); ; d.signal(syscall.SIGUSR2) {
		list := d.attempted(mark)
		last := list[len(list)-1]
		if last.is("upgraded") {
			return last
		}
		if !slices.ContainsFunc(list, func(r record) bool { return tooSlow(r.text("message")) }) || time.Since(begin) > patience {
			d.t.Fatalf("superd is not upgraded: %v", list)
		}
		mark += len(list)
	}
}

// attempted waits for the end of an attempt to upgrade: it is the last of the
// records, which are those after the first mark ones.
func (d *process) attempted(mark int) (list []record) {
	d.t.Helper()
	seen, over := 0, false
	d.await(func(r record) bool {
		if seen++; seen <= mark || over {
			return false
		}
		list = append(list, r)
		over = r.is("upgraded") || r.givesUp()
		return over
	})
	return list
}

// givesUp tells whether it is the last record of an upgrade that did not come about.
func (r record) givesUp() bool {
	return r.is(notUpgraded) || strings.HasPrefix(r.text("message"), errUpgrading.Error())
}

// upgradeInto upgrades a superd whose log goes from one place to another with
// that, and tries again while it gives up.
func (d *process) upgradeInto(from, to func() []record, done func(record) bool) {
	d.t.Helper()
	failures := func() (n int) {
		for _, r := range from() {
			if r.givesUp() {
				n++
			}
		}
		return n
	}
	known := failures()
	d.signal(syscall.SIGUSR2)
	eventually(d.t, func() error {
		if slices.ContainsFunc(to(), done) {
			return nil
		}
		if n := failures(); n > known {
			known = n
			d.signal(syscall.SIGUSR2)
		}
		return errors.New("the log does not say where it goes that superd is upgraded")
	})
}

// tooSlow tells whether an upgrade was given up since superd or its heir stood
// still, or the attempt before was not quite over: then it can be tried again.
func tooSlow(complaint string) bool {
	for _, why := range []string{"superd is not at rest within ", "it takes longer than ", errUpgrading.Error()} {
		if strings.Contains(complaint, why) {
			return true
		}
	}
	return false
}

// cannotUpgrade spoils something, and wants that to be why superd is not upgraded.
func (d *process) cannotUpgrade(spoil func(), want string) {
	d.t.Helper()
	for begin := time.Now(); ; {
		spoil()
		mark := d.soFar()
		d.signal(syscall.SIGUSR2)
		list := d.attempted(mark)
		says := func(does func(text string) bool) bool {
			return slices.ContainsFunc(list, func(r record) bool { return r["level"] != "info" && does(r.text("message")) })
		}
		if says(func(text string) bool { return strings.Contains(text, want) }) && list[len(list)-1].is(notUpgraded) {
			return
		}
		if !says(tooSlow) || time.Since(begin) > patience {
			d.t.Fatalf("an upgrade that fails since %s is told as %v", want, list)
		}
	}
}

// toldUpgrade is told for the order to upgrade, which is given again where it
// was given up since something stood still.
func (a asked) toldUpgrade(args ...string) (out string) {
	a.t.Helper()
	code, out, complaints := a.tellUpgrade(args...)
	if code != 0 || complaints != "" {
		a.t.Fatalf("upgrade %q ends with %d: %s", args, code, complaints)
	}
	return out
}

func (a asked) tellUpgrade(args ...string) (code int, out, complaints string) {
	a.t.Helper()
	for begin := time.Now(); ; {
		code, out, complaints = a.tell("upgrade", args...)
		if code == 0 || !tooSlow(complaints) || time.Since(begin) > patience {
			return code, out, complaints
		}
	}
}

// exitedOnce wants the record of a connection, and that there is one.
func (d *process) exitedOnce(conn string) record {
	d.t.Helper()
	ended := func(r record) bool { return r.is("exited") && r.text("conn") == conn }
	d.await(ended)
	d.mu.Lock()
	defer d.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(d.records), func(r record) bool { return !ended(r) })
	if len(list) != 1 {
		d.t.Errorf("%s has %d records: %v", conn, len(list), list)
	}
	return list[0]
}

// statusField is a line of /proc/PID/status.
func (d *process) statusField(name string) string {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid()))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, is := strings.CutPrefix(line, name+":"); is {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Sessions go on through several upgrades, with every byte, and have one record
// that speaks of all of their life.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(publicDir(t), "talk")
	a := startAsked(t, several(
		"cat", `listen: "127.0.0.1:0", run: /bin/cat, max: 7`,
		"echo", `listen: "127.0.0.1:0", builtin: echo`,
		"bare", `listen: "127.0.0.1:0", run: /bin/cat, keep: false, sandbox: none`,
		"unix", `listen: "unix:`+socket+`", run: /bin/cat, timeout: {idle: 1h}`))
	names := []string{"cat", "echo", "bare"}
	conns := map[string]net.Conn{}
	for _, name := range names {
		conns[name] = a.held(name)
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	a.talk(c, "hello\n")
	conns["unix"] = c
	before := a.connections()
	const upgrades = 4
	for i := range upgrades {
		r := a.upgradeNow(i + 1)
		if got := fmt.Sprint(r["version"], " ", r["before"], " ", r["generation"], " ", r["connections"]); got != fmt.Sprint(version, " ", version, " ", i+2, " ", len(conns)) {
			t.Errorf("version, version before, generation and connections are %s", got)
		}
		for name, c := range conns {
			c.SetDeadline(time.Now().Add(patience))
			a.talk(c, fmt.Sprintf("still %s after %d\n", name, i))
		}
	}
	if got := a.statusField("Seccomp") + a.statusField("NoNewPrivs"); got != "00" {
		t.Errorf("superd itself is under a filter, or no_new_privs: %s", got)
	}
	s := a.status()
	for _, v := range s.Services {
		if v.Live != 1 || v.Total != 1 || v.Exited+v.Refused != 0 || v.Generation != 1 || v.Since.After(s.Loaded) {
			t.Errorf("%s is %+v", v.Name, v)
		}
	}
	if s.Generation != upgrades+1 || !s.Started.Before(s.Loaded) || s.Live != len(conns) {
		t.Errorf("superd is %+v", s)
	}
	after := a.connections()
	for i := range after {
		if after[i].ID != before[i].ID || after[i].PID != before[i].PID || after[i].Peer != before[i].Peer || after[i].Local != before[i].Local || after[i].AgeMS < before[i].AgeMS {
			t.Errorf("%+v was %+v", after[i], before[i])
		}
	}
	for _, one := range after {
		conns[one.Service].Close()
		r := a.exitedOnce(one.ID)
		if r.number("duration_ms") < float64(one.AgeMS) || r.number("status") != 0 || r.number("pid") != float64(one.PID) || r.text("peer") != one.Peer {
			t.Errorf("the record is %v", r)
		}
		want := -1.0 // not known
		if one.BytesIn != nil {
			want = float64(len("hello\n") + upgrades*len("still X after 0\n") + upgrades*(len(one.Service)-1))
		}
		if r.number("bytes_in") != want || r.number("bytes_out") != want {
			t.Errorf("of %v bytes the record says %v", want, r)
		}
	}
	d := a.process
	if again := d.held("cat"); again != nil {
		var id string
		for _, one := range a.connections() {
			if one.Peer == again.LocalAddr().String() {
				id = one.ID
			}
		}
		if prefix, number, _ := strings.Cut(id, "-"); !strings.HasPrefix(before[0].ID, prefix+"-") || number != "5" {
			t.Errorf("the next connection after %s is %s", before[0].ID, id)
		}
		again.Close()
	}
}

// The verb says what has come of it.
func TestUpgradeByOrder(t *testing.T) {
	t.Parallel()
	a := startAsked(t, several("a", `listen: "127.0.0.1:0", run: /bin/cat`))
	c := a.held("a")
	if got, want := a.toldUpgrade(), "superd "+version+" goes on with 1 connection, generation 2\n"; got != want {
		t.Errorf("it says %q, not %q", got, want)
	}
	var u control.Upgraded
	if err := json.Unmarshal([]byte(a.toldUpgrade("--json")), &u); err != nil || u.Generation != 3 || u.Before != version || u.Connections != 1 {
		t.Errorf("it says %+v, %v", u, err)
	}
	a.talk(c, "still here\n")
	c.Close()
	a.exited("a", 1)
	// Whoever asks while superd is another is answered: by the one or the other.
	var stop atomic.Bool
	var asking sync.WaitGroup
	for range 3 {
		asking.Go(func() {
			for !stop.Load() {
				client, begin := control.Client{Path: a.socket, Timeout: patience}, time.Now()
				if _, err := client.Ask("status", nil); err != nil && time.Since(begin) < longestAnswers {
					t.Error(err)
					return
				}
			}
		})
	}
	for range fewer(20, 5) {
		a.toldUpgrade()
	}
	stop.Store(true)
	asking.Wait()
}

// Upgrades one after the other, while clients come as fast as they can, refuse,
// reset and forget nobody, and leave nothing behind.
func TestManyUpgrades(t *testing.T) {
	t.Parallel()
	a := startAsked(t, several(
		"echo", `listen: "127.0.0.1:0", builtin: echo, max: 40`,
		"cat", `listen: "127.0.0.1:0", run: /bin/cat, sandbox: none, max_per_source: 30, queue: {length: 1000, timeout: 1h}`,
		"slow", `listen: "127.0.0.1:0", `+shell("echo begin >&2; cat; echo end >&2")))
	var stop atomic.Bool
	var visits [3]atomic.Uint64
	var clients sync.WaitGroup
	names := []string{"echo", "cat", "slow"}
	for i, name := range names {
		address := a.address(name)
		for range 4 {
			clients.Go(func() {
				text := strings.Repeat("0123456789abcdef", 1+rand.IntN(1000))
				for pace := everySoOften(t); !stop.Load(); <-pace {
					visits[i].Add(1)
					if err := visitOnce(address, askFor(text, text)); err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
				}
			})
		}
	}
	var sums [3][2][sha256.Size]byte
	for i, name := range names {
		c := a.dial(name)
		clients.Go(func() { sums[i] = stream(t, c, &stop) })
	}
	n, begin := fewer(200, 12), time.Now()
	for i := 1; i <= n; i++ {
		a.upgradeNow(i)
		eventually(t, func() error { // not only upgrades: hundreds of connections in each second
			if came := visits[0].Load() + visits[1].Load() + visits[2].Load(); came < uint64(i)*100 {
				return fmt.Errorf("%d clients have come after %d upgrades", came, i)
			}
			return nil
		})
	}
	took := time.Since(begin)
	stop.Store(true)
	clients.Wait()
	t.Logf("%d upgrades in %s, beside %d connections", n, took, visits[0].Load()+visits[1].Load()+visits[2].Load())
	for i, name := range names {
		if sums[i][0] != sums[i][1] {
			t.Errorf("what came back from %s is not what was sent", name)
		}
	}
	a.settled()
	for i, v := range a.status().Services {
		if want := visits[i].Load() + 1; v.Total != want || v.Total != v.Exited+v.Refused+v.Live || v.Exited != want || v.Refused != 0 || v.Live != 0 || v.Failed != 0 {
			t.Errorf("of %d clients: %+v", want, v)
		}
	}
	a.exited("slow", int(visits[2].Load())+1)
	for _, text := range []string{"begin", "end"} {
		lines := a.awaitMany(1, func(r record) bool { return r.is("stderr") && r.text("text") == text })
		if uint64(len(lines)) != visits[2].Load()+1 {
			t.Errorf("of %d lines %q there are %d", visits[2].Load()+1, text, len(lines))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := map[string]bool{}
	for _, r := range a.records {
		if id := r.text("conn"); r.is("exited") {
			if seen[id] {
				t.Errorf("%s has ended twice", id)
			}
			seen[id] = true
		}
	}
}

// stream sends until it is to stop, and returns the sums of what went and what
// came.
func stream(t *testing.T, c *net.TCPConn, stop *atomic.Bool) (sums [2][sha256.Size]byte) {
	c.SetDeadline(time.Time{})
	sent, came := sha256.New(), sha256.New()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := io.Copy(came, c); err != nil {
			t.Error(err)
		}
	}()
	part, noise := make([]byte, 32<<10), rand.NewChaCha8([32]byte{})
	for pace := everySoOften(t); !stop.Load(); <-pace {
		noise.Read(part)
		sent.Write(part)
		if _, err := c.Write(part); err != nil {
			t.Error(err)
			break
		}
	}
	c.CloseWrite()
	<-done
	sent.Sum(sums[0][:0])
	came.Sum(sums[1][:0])
	return sums
}

// Who is in counts as before, and who waits goes on waiting, in its order.
func TestUpgradeKeepsLimits(t *testing.T) {
	t.Parallel()
	d := start(t, several(
		"full", `listen: "127.0.0.1:0", run: /bin/cat, max: 1`,
		"queue", `listen: "127.0.0.1:0", run: /bin/cat, max: 1, queue: {length: 2, timeout: 1h}`,
		"source", `listen: "127.0.0.1:0", run: /bin/cat, max_per_source: 1, on_limit: refuse, refuse_text: "busy\n"`,
		"rate", `listen: "127.0.0.1:0", run: /bin/cat, rate: 1/h burst 2, on_limit: refuse`))
	full, queue, source := d.held("full"), d.held("queue"), d.held("source")
	d.held("rate").Close()
	kernel := d.dial("full")
	first, second := d.dial("queue"), d.dial("queue")
	parked := func() {
		eventually(t, func() error {
			if n := len(connectedTo(t, d, "queue")); n != 3 {
				return fmt.Errorf("%d are accepted", n)
			}
			return nil
		})
	}
	parked()
	for i := range 3 {
		d.upgradeNow(i + 1)
	}
	third := d.dial("queue")
	d.closed(third)
	if r := d.refused("queue"); r.text("reason") != "queue-full" {
		t.Errorf("the reason is %v", r)
	}
	if got := d.ask("source", ""); got != "busy\n" {
		t.Errorf("one more of the source gets %q", got)
	}
	source.Close()
	d.exited("source", 1)
	eventually(t, func() error { // its place is free in a moment
		if got := d.ask("source", "hello\n"); got != "hello\n" {
			return fmt.Errorf("the next of the source gets %q", got)
		}
		return nil
	})
	d.held("rate").Close()
	d.closed(d.dial("rate"))
	full.Close()
	d.talk(kernel, "in\n")
	queue.Close()
	d.talk(first, "first\n")
	first.Close()
	d.talk(second, "second\n")
	for _, c := range []net.Conn{kernel, second} {
		c.Close()
	}
}

// connectedTo lists the accepted connections of a service that superd has, in
// /proc.
func connectedTo(t *testing.T, d *process, service string) (list []string) {
	t.Helper()
	_, local, _ := net.SplitHostPort(d.address(service))
	number, _ := strconv.Atoi(local)
	own := map[string]bool{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.pid()))
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			own[target] = true
		}
	}
	table, _ := os.ReadFile("/proc/net/tcp")
	for line := range strings.Lines(string(table)) {
		const local, state, inode, established = 1, 3, 9, "01"
		f := strings.Fields(line)
		if len(f) > inode && f[state] == established && own["socket:["+f[inode]+"]"] && strings.HasSuffix(f[local], fmt.Sprintf(":%04X", number)) {
			list = append(list, f[inode])
		}
	}
	return list
}

// Bans, blocks, failures and orders to drain hold on.
func TestUpgradeKeepsVerdicts(t *testing.T) {
	t.Parallel()
	a := startAsked(t, several(
		"banned", `listen: "127.0.0.1:0", run: /bin/cat, max_per_source: 1, on_limit: refuse, ban: {after: 2, within: 1h, for: 1h}`,
		"fails", `listen: "127.0.0.1:0", run: /nowhere/none, failures: {after: 2, within: 1h, pause: 1h}`,
		"drained", `listen: "127.0.0.1:0", run: /bin/cat`))
	held, drained := a.held("banned"), a.held("drained")
	for range 2 {
		a.closed(a.dial("banned"))
		a.ask("fails", "")
	}
	a.await(func(r record) bool { return r.is("paused") })
	a.told("block", "192.0.2.0/24", "--for", "1h")
	a.told("block", "198.51.100.7")
	a.told("drain", "--no-wait", "--limit", "1h", "drained")
	before := a.status()
	for i := range 2 {
		a.upgradeNow(i + 1)
	}
	after := a.status()
	if len(before.Blocks) != 3 || len(after.Blocks) != 3 {
		t.Errorf("blocks were %+v and are %+v", before.Blocks, after.Blocks)
	}
	for i := range after.Blocks {
		if !slices.ContainsFunc(before.Blocks, func(b control.Block) bool {
			return b.Source == after.Blocks[i].Source && b.Service == after.Blocks[i].Service && b.LeftMS >= after.Blocks[i].LeftMS && (b.LeftMS > 0) == (after.Blocks[i].LeftMS > 0)
		}) {
			t.Errorf("%+v is new", after.Blocks[i])
		}
	}
	for i, v := range after.Services {
		was := before.Services[i]
		if v.State != was.State || v.Bans != was.Bans || v.FailingFor != was.FailingFor || v.PausedMS > was.PausedMS || v.Total != was.Total ||
			v.Live != was.Live || v.Failed != was.Failed || !maps.Equal(v.RefusedBy, was.RefusedBy) {
			t.Errorf("%+v was %+v", v, was)
		}
	}
	if c, err := net.Dial("tcp", a.address("drained")); err == nil {
		c.Close()
		t.Error("the drained service accepts")
	}
	a.closed(a.dial("fails"))
	held.Close()
	a.talk(drained, "still here\n")
	if code, out, complaints := a.tell("drain", "--limit", "0", "drained"); code != 0 || !strings.Contains(out, "drained") {
		t.Errorf("it ends with %d, %s%s", code, out, complaints)
	}
	checkReason(t, a.exited("drained", 1)[0], "drain")
	a.idle-- // its socket
}

func checkReason(t *testing.T, r record, want string) {
	t.Helper()
	if r.text("reason") != want {
		t.Errorf("the reason is not %s: %v", want, r)
	}
}

// Times go on: of sessions, of idleness, of silence, of lingering, and between
// TERM and KILL.
func TestUpgradeKeepsTimes(t *testing.T) {
	t.Parallel()
	d := startAsked(t, "log: {level: debug}\n"+several(
		"session", `listen: "127.0.0.1:0", run: /bin/cat, timeout: {session: 2s, stop: 1h}`,
		"idle", `listen: "127.0.0.1:0", run: /bin/cat, timeout: {idle: 2s, stop: 1h}`,
		"peer", `listen: "udp:127.0.0.1:0", run: /bin/cat, timeout: {idle: 2s}`,
		"stubborn", `listen: "127.0.0.1:0", `+shell(`trap "" TERM; echo hello; while :; do sleep 0.05; done`)+`, timeout: {stop: 2s}, sandbox: none`,
		"hasty", `listen: "127.0.0.1:0", run: /bin/cat, timeout: {first_byte: 2s}`,
		"patient", `listen: "127.0.0.1:0", run: /bin/cat, timeout: {first_byte: 1h}`,
		"linger", `listen: "127.0.0.1:0", builtin: greeting, linger: 1h`))
	begin := time.Now()
	silent, speaks := d.dial("hasty"), d.dial("patient")
	sendTo(t, d.dialUDP("peer"), "x")
	for _, name := range []string{"session", "idle"} {
		d.dial(name)
	}
	for _, name := range []string{"session", "idle", "peer"} {
		d.await(func(r record) bool { return r.is("started") && r.text("service") == name })
	}
	stubborn := d.dial("stubborn")
	if got := line(t, stubborn); got != "hello" {
		t.Errorf("it says %q", got)
	}
	d.told("kill", "--service", "stubborn")
	lingers := d.dial("linger")
	if got, err := io.ReadAll(lingers); err != nil || string(got) != "hi client" {
		t.Fatalf("it says %q, %v", got, err)
	}
	d.exited("linger", 1)
	eventually(t, func() error {
		if n := len(connectedTo(t, d.process, "patient")); n != 1 {
			return fmt.Errorf("%d are accepted", n)
		}
		return nil
	})
	for i := range 2 {
		d.upgradeNow(i + 1)
	}
	d.talk(speaks, "late\n")
	speaks.Close()
	d.closed(silent)
	if took := time.Since(begin); took < 2*time.Second {
		t.Errorf("who says nothing was let go after %s", took)
	}
	checkReason(t, d.exited("session", 1)[0], "timeout.session")
	checkReason(t, d.exited("idle", 1)[0], "timeout.idle")
	checkReason(t, d.exited("peer", 1)[0], "timeout.idle")
	checkEnd(t, d.exited("stubborn", 1)[0], "KILL", "kill")
	for _, name := range []string{"session", "stubborn"} { // the idle were silent before their programs began
		if ms := d.exited(name, 1)[0].number("duration_ms"); ms < 2000 {
			t.Errorf("%s took %v ms", name, ms)
		}
	}
	lingers.Close()
}

// What programs write to stderr is whole lines, also where an upgrade came in
// the middle of one; and programs that end while nobody looks are reaped.
func TestUpgradeKeepsLines(t *testing.T) {
	t.Parallel()
	d := start(t, several(
		"lines", `listen: "127.0.0.1:0", `+shell(`printf 'first half, ' >&2; echo ready; read x; echo second half >&2; echo last line >&2`),
		"brief", `listen: "127.0.0.1:0", run: /bin/cat`))
	c := d.dial("lines")
	if got := line(t, c); got != "ready" {
		t.Fatalf("it says %q", got)
	}
	var brief []net.Conn
	for range 20 {
		brief = append(brief, d.held("brief"))
	}
	d.signal(syscall.SIGUSR2)
	for _, c := range brief { // some of them before, some meanwhile, some after
		c.Close()
	}
	d.upgraded(1)
	io.WriteString(c, "go on\n")
	c.Close()
	d.exited("lines", 1)
	var texts []string
	for _, r := range d.awaitMany(2, func(r record) bool { return r.is("stderr") }) {
		texts = append(texts, r.text("text"))
	}
	if want := []string{"first half, second half", "last line"}; !slices.Equal(texts, want) {
		t.Errorf("the lines are %q", texts)
	}
	if got := len(d.exited("brief", 20)); got != 20 {
		t.Errorf("%d records of 20", got)
	}
}

// A PROXY header may come in two halves, one to each program.
func TestUpgradeKeepsHeaders(t *testing.T) {
	t.Parallel()
	d := start(t, several("p", `listen: "127.0.0.1:0", run: `+yamlList("/bin/sh", "-c", "echo $TCPREMOTEIP; cat")+`, proxy_protocol: {from: [127.0.0.1], timeout: 1h}, max_per_source: 1, queue: {timeout: 1h}`))
	header := "PROXY TCP4 192.0.2.7 192.0.2.1 1234 80\r\n"
	c, waits := d.dial("p"), d.dial("p")
	io.WriteString(c, header[:20])
	eventually(t, func() error {
		if n := len(connectedTo(t, d, "p")); n != 2 {
			return fmt.Errorf("%d are accepted", n)
		}
		return nil
	})
	d.upgradeNow(1)
	io.WriteString(c, header[20:]+"hello\n")
	for _, want := range []string{"192.0.2.7", "hello"} {
		if got := line(t, c); got != want {
			t.Errorf("it says %q, not %q", got, want)
		}
	}
	io.WriteString(waits, header+"mine\n") // waits for the place of the first
	d.upgradeNow(2)
	c.Close()
	for _, want := range []string{"192.0.2.7", "mine"} {
		if got := line(t, waits); got != want {
			t.Errorf("it says %q, not %q", got, want)
		}
	}
	waits.Close()
	for _, r := range d.exited("p", 2) {
		if !strings.HasPrefix(r.text("peer"), "192.0.2.7:") {
			t.Errorf("the record is %v", r)
		}
	}
}

// An upgrade takes the file up as a reload does.
func TestUpgradeTakesTheFileUp(t *testing.T) {
	t.Parallel()
	d := start(t, several(
		"gone", `listen: "127.0.0.1:0", run: /bin/cat, max_per_source: 1, queue: {timeout: 1h}`,
		"same", `listen: "127.0.0.1:0", builtin: greeting, text: before`))
	held, parked := d.held("gone"), d.dial("gone")
	eventually(t, func() error {
		if n := len(connectedTo(t, d, "gone")); n != 2 {
			return fmt.Errorf("%d are accepted", n)
		}
		return nil
	})
	address := d.address("gone")
	yaml := several("same", `listen: "127.0.0.1:0", builtin: greeting, text: after`, "new", `listen: "127.0.0.1:0", builtin: greeting, text: new`)
	if err := os.WriteFile(d.config(), []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	d.upgradeNow(1)
	if got := d.ask("same", "") + d.ask("new", ""); got != "afternew" {
		t.Errorf("they say %q", got)
	}
	d.closed(parked)
	if r := d.refused("gone"); r.text("reason") != "draining" {
		t.Errorf("the reason is %v", r)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("the service that is gone accepts")
	}
	d.upgradeNow(2)
	d.talk(held, "still here\n")
	held.Close()
	checkReason(t, d.exited("gone", 1)[0], "")
	d.rewrite(1, yaml)
	if got := d.ask("same", ""); got != "after" {
		t.Errorf("after a reload it says %q", got)
	}
	d.idle++ // one more built-in
}

// installedCopy is the command that start starts, by a program that can be
// replaced.
func installedCopy(t *testing.T, yaml string) (d *process, path string) {
	t.Helper()
	cmd := prepare(t, yaml)
	path = filepath.Join(publicDir(t), "superd")
	install(t, cmd.Path, path)
	cmd.Path, cmd.Args[0] = path, path
	return startCommand(t, cmd), path
}

// install puts a copy of a program in the place of another, as packages do.
func install(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		writeFile(t, filepath.Dir(to), "new", string(text), 0o755)
		err = os.Rename(filepath.Join(filepath.Dir(to), "new"), to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What cannot take superd's place does not.
func TestBadUpgrade(t *testing.T) {
	t.Parallel()
	d, path := installedCopy(t, several("a", `listen: "127.0.0.1:0", run: /bin/cat`))
	own := os.Args[0]
	good, err := os.ReadFile(d.config())
	if err != nil {
		t.Fatal(err)
	}
	c := d.held("a")
	script := func(text string) func() {
		return func() {
			os.Remove(path)
			writeFile(t, filepath.Dir(path), "superd", text, 0o755)
		}
	}
	file := func(text string) func() {
		return func() {
			install(t, own, path)
			if err := os.WriteFile(d.config(), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, bad := range []struct {
		name  string
		spoil func()
		want  string
	}{
		{"missing", func() { os.Remove(path) }, "no such file"},
		{"fails", script("#!/bin/sh\necho out of order >&2\nexit 3\n"), "it exited with status 3, and says: out of order"},
		{"succeeds", script("#!/bin/sh\nexit 0\n"), "it exited with status 0, and does not say that it can go on"},
		{"dies", script("#!/bin/sh\nkill -9 $$\n"), "it was ended by SIGKILL"},
		{"hangs", script("#!/bin/sh\nsleep 1000\n"), "it takes longer than 10s"},
		{"no interpreter", script("#!/nowhere/sh\n"), "ENOENT"},
		{"no program", script("nonsense"), "ENOEXEC"},
		{"not executable", func() { script("#!/bin/sh\n")(); os.Chmod(path, 0o644) }, "EACCES"},
		{"a directory", func() { os.Remove(path); os.Mkdir(path, 0o755) }, "EACCES"},
		{"bad file", func() { os.Remove(path); file("services: {a: {lisen: 7}}\n")() }, "unknown key (did you mean listen?)"},
		{"no file", func() { os.Remove(d.config()) }, "cannot read"},
		{"no user", file(several("a", `listen: "127.0.0.1:0", run: /bin/cat, user: no-such-user`)), "no-such-user"},
		{"another v6only", file(strings.Replace(string(good), `"127.0.0.1:0"`, `"127.0.0.1:0", nice: 99`, 1)), "nice"},
	} {
		d.cannotUpgrade(bad.spoil, bad.want)
		c.SetDeadline(time.Now().Add(patience))
		d.talk(c, bad.name+"\n")
		d.held("a").Close()
	}
	file(string(good))()
	d.upgradeNow(1)
	c.SetDeadline(time.Now().Add(patience))
	d.talk(c, "at last\n")
	// Whatever it was started from is gone: then there is nothing to go on as.
	d.cannotUpgrade(func() { os.Remove(path) }, "no such file")
	install(t, own, path)
	d.upgradeNow(2)
	c.SetDeadline(time.Now().Add(patience))
	d.talk(c, "and again\n")
	c.Close()
}

// A file that is taken up while the new program is rehearsed is rehearsed as
// well, before that program meets it.
func TestReloadDuringRehearsal(t *testing.T) {
	t.Parallel()
	good := several("a", `listen: "127.0.0.1:0", run: /bin/cat`)
	d, path := installedCopy(t, good)
	c := d.held("a")
	dir := filepath.Dir(path)
	os.Remove(path)
	writeFile(t, dir, "superd", fmt.Sprintf("#!/bin/sh\necho begun >>%[1]s/begun\nwhile [ ! -e %[1]s/go ]; do sleep 0.02; done\nexec %[2]s \"$@\"\n", dir, os.Args[0]), 0o755)
	begun := func() int {
		text, _ := os.ReadFile(dir + "/begun")
		return strings.Count(string(text), "\n")
	}
	for try := 1; ; try++ { // until the first rehearsal did not take too long
		os.Remove(dir + "/go")
		os.Remove(dir + "/begun")
		mark := d.soFar()
		d.signal(syscall.SIGUSR2)
		eventually(t, func() error {
			if begun() == 0 {
				return errors.New("no rehearsal has begun")
			}
			return nil
		})
		d.rewrite(try, strings.Replace(good, "/bin/cat", fmt.Sprint("/bin/cat, max: ", 7+try), 1))
		writeFile(t, dir, "go", "", 0o644)
		list := d.attempted(mark)
		if list[len(list)-1].is("upgraded") {
			break
		}
		if !slices.ContainsFunc(list, func(r record) bool { return tooSlow(r.text("message")) }) || try > 3 {
			t.Fatalf("superd is not upgraded: %v", list)
		}
	}
	if n := begun(); n != 3 {
		t.Errorf("the new program was started %d times, not for two rehearsals and the upgrade", n)
	}
	d.talk(c, "still here\n")
	c.Close()
}

// A symbolic link may come to lead to another version.
func TestUpgradeFollowsLinks(t *testing.T) {
	t.Parallel()
	cmd := prepare(t, several("a", `listen: "127.0.0.1:0", run: /bin/cat`))
	dir := publicDir(t)
	link := filepath.Join(dir, "superd")
	one, two := filepath.Join(dir, "superd-1"), filepath.Join(dir, "superd-2")
	install(t, cmd.Path, one)
	install(t, cmd.Path, two)
	if err := os.Symlink(one, link); err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Args[0] = link, link
	d := startCommand(t, cmd)
	os.Remove(link)
	if err := os.Symlink(two, link); err != nil {
		t.Fatal(err)
	}
	// Which program it is the first time is looked up before: a link that leads
	// elsewhere at once is followed.
	d.upgradeNow(1)
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", d.pid())); err != nil || exe != two {
		t.Errorf("superd is %s, %v", exe, err)
	}
	os.Remove(one)
	d.upgradeNow(2)
}

// There is one upgrade at a time, and none when superd is about to end.
func TestUpgradeAtABadTime(t *testing.T) {
	t.Parallel()
	a := startAsked(t, several("a", `listen: "127.0.0.1:0", run: /bin/cat`)+"drain: 1h\n")
	c := a.held("a")
	var together sync.WaitGroup
	var done, busy atomic.Int32
	for range 6 {
		together.Go(func() {
			client := control.Client{Path: a.socket, Timeout: patience}
			for again := true; again; {
				again = false
				begin := time.Now()
				switch _, err := client.Order("upgrade", nil); {
				case err == nil:
					done.Add(1)
				case err.Error() == errUpgrading.Error():
					busy.Add(1)
				case tooSlow(err.Error()), time.Since(begin) > longestAnswers: // given up, or not waited for
					again = true
				default:
					t.Error(err)
				}
			}
		})
	}
	together.Wait()
	if done.Load() == 0 || done.Load()+busy.Load() != 6 {
		t.Errorf("%d were done, and %d came in between", done.Load(), busy.Load())
	}
	a.upgraded(int(done.Load()))
	a.signal(syscall.SIGTERM)
	a.await(func(r record) bool { return r.is("draining") })
	a.signal(syscall.SIGUSR2)
	a.await(func(r record) bool { return r.is(tooLate) })
	a.talk(c, "still here\n")
	c.Close()
	a.stopped()
}

// An order that is given while superd is upgraded is done, or said not to be.
func TestUpgradeAndReloadTogether(t *testing.T) {
	t.Parallel()
	a := startAsked(t, several("a", `listen: "127.0.0.1:0", run: /bin/cat`))
	c := a.held("a")
	var others sync.WaitGroup
	var stop atomic.Bool
	for _, verb := range []string{"reload", "block"} {
		others.Go(func() {
			for !stop.Load() {
				client, begin := control.Client{Path: a.socket, Timeout: patience}, time.Now()
				_, err := client.Order(verb, map[string]string{"block": "network"})
				if err != nil && verb == "reload" && time.Since(begin) < longestAnswers {
					t.Errorf("%s: %v", verb, err)
				}
			}
		})
	}
	for range fewer(20, 5) {
		a.toldUpgrade()
	}
	stop.Store(true)
	others.Wait()
	c.SetDeadline(time.Now().Add(patience))
	a.talk(c, "still here\n")
	c.Close()
}

// Signals that come meanwhile end nobody, and HUP and USR1 are not forgotten.
func TestSignalsDuringUpgrades(t *testing.T) {
	t.Parallel()
	d := start(t, several("a", `listen: "127.0.0.1:0", run: /bin/cat`))
	c := d.held("a")
	var stop atomic.Bool
	storm := make(chan struct{})
	go func() {
		defer close(storm)
		for !stop.Load() {
			for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGCHLD, syscall.SIGWINCH} {
				d.cmd.Process.Signal(s)
			}
		}
	}()
	for i := range fewer(30, 8) {
		d.upgradeNow(i + 1)
	}
	stop.Store(true)
	<-storm
	c.SetDeadline(time.Now().Add(patience))
	d.talk(c, "still here\n")
	c.Close()
	d.exited("a", 1)
}

// What superd was left by another is understood whole, or not at all.
func TestEstate(t *testing.T) {
	e := &estate{Version: "1", Asker: -1, File: config.Files{Path: "f", Text: []byte("services: {}")}, Guests: []lodger{{Service: "a", FD: 77, Stage: "byte"}}}
	data, err := e.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeEstate(data)
	if err != nil || got.Version != "1" || string(got.File.Text) != "services: {}" || len(got.Guests) != 1 || got.Guests[0].FD != 77 {
		t.Fatalf("it comes out as %+v, %v", got, err)
	}
	other := slices.Clone(data)
	other[len(estateMagic)+3]++
	if _, err := decodeEstate(other); err == nil || !strings.Contains(err.Error(), "its form is 2, and superd "+version+" understands form 1") {
		t.Errorf("of another form it is said: %v", err)
	}
	for n := range data {
		if _, err := decodeEstate(data[:n]); err == nil {
			t.Fatalf("%d of %d bytes are enough", n, len(data))
		}
		flipped := slices.Clone(data)
		flipped[n] ^= 0x10
		if _, err := decodeEstate(flipped); err == nil {
			t.Fatalf("it may be wrong at byte %d", n)
		}
	}
	fd, err := deposit(e)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if got, err := withdrawEstate(fd); err != nil || got.Version != "1" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := syscall.Write(fd, []byte("x")); err != syscall.EPERM {
		t.Errorf("it can be written to: %v", err)
	}
	open, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := withdrawEstate(int(open.Fd())); err == nil {
		t.Error("a file that anybody can change is understood")
	}
}

// A superd that is given a state that it cannot understand says so and goes no
// further: in a rehearsal that is all, and the one that runs goes on.
func TestBadEstate(t *testing.T) {
	good, err := (&estate{Version: "1", Asker: -1, File: config.Files{Path: "f", Text: []byte("services: {a: {listen: 7, builtin: echo}}")}}).encode()
	if err != nil {
		t.Fatal(err)
	}
	newer, damaged := slices.Clone(good), slices.Clone(good)
	newer[len(estateMagic)+3]++
	damaged[len(damaged)-1] ^= 1
	for _, bad := range []struct {
		name   string
		state  []byte
		sealed bool
		want   string
	}{
		{"newer", newer, true, "understands form"},
		{"damaged", damaged, true, "it is damaged"},
		{"short", good[:len(good)-1], true, "bytes of"},
		{"empty", nil, true, "it is not the state of a superd"},
		{"open", good, false, "it is not sealed"},
	} {
		fd, err := unix.MemfdCreate(bad.name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		state := os.NewFile(uintptr(fd), bad.name)
		if _, err := state.Write(bad.state); err != nil {
			t.Fatal(err)
		}
		if bad.sealed {
			if _, err := unix.FcntlInt(state.Fd(), unix.F_ADD_SEALS, estateSeals); err != nil {
				t.Fatal(err)
			}
		}
		for _, how := range []string{rehearsal, "3"} {
			cmd := superd("run")
			cmd.Env = append(cmd.Env, willVariable+"="+how)
			cmd.Stdin, cmd.ExtraFiles = state, []*os.File{state}
			code, _, complaints := finished(t, cmd)
			if code != 1 || !strings.Contains(complaints, "cannot understand the state of the superd that runs: ") || !strings.Contains(complaints, bad.want) {
				t.Errorf("%s, %s: it ends with %d and says %s", bad.name, how, code, complaints)
			}
			if strings.Contains(complaints, consent) {
				t.Errorf("%s: it agrees all the same", bad.name)
			}
		}
		state.Close()
	}
}

// FuzzEstate: nothing that is not an estate makes superd fall.
func FuzzEstate(f *testing.F) {
	good, err := (&estate{Version: "1", Asker: -1}).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Add(good[:estateHeader])
	f.Fuzz(func(t *testing.T, data []byte) {
		if e, err := decodeEstate(data); err == nil {
			if again, err := e.encode(); err != nil || len(again) == 0 {
				t.Errorf("%+v: %v", e, err)
			}
		}
		withHeader := append(slices.Clone(good[:len(estateMagic)+4]), data...)
		decodeEstate(withHeader)
	})
}

// Where the last step fails, after the new program has agreed, everything goes
// on: threads, signals, limits and descriptors.
func TestUpgradeFailsAtTheEnd(t *testing.T) {
	t.Parallel()
	d, path := installedCopy(t, several("a", `listen: "127.0.0.1:0", run: /bin/cat`, "limit", `listen: "127.0.0.1:0", `+shell("ulimit -Sn")))
	limit := d.ask("limit", "")
	c, dir := d.held("a"), filepath.Dir(path)
	// A program that is there still, and has lost its interpreter since.
	interpreter := filepath.Join(dir, "interpreter")
	os.Remove(path)
	writeFile(t, dir, "superd", "#!"+interpreter+"\n", 0o755)
	for i := range 3 {
		d.cannotUpgrade(func() {
			writeFile(t, dir, "interpreter", "#!/bin/sh\necho '"+consent+"7' >&2\nrm "+interpreter+"\n", 0o755)
		}, "cannot execute "+path+": no such file or directory")
		c.SetDeadline(time.Now().Add(patience))
		d.talk(c, "still here\n")
		d.held("a").Close()
		if got := d.ask("limit", ""); got != limit {
			t.Errorf("programs have the limit %q, and had %q", got, limit)
		}
		d.hup(i + 1)
	}
	install(t, os.Args[0], path)
	d.upgradeNow(1)
	if got := d.ask("limit", ""); got != limit {
		t.Errorf("programs have the limit %q, and had %q", got, limit)
	}
	d.talk(c, "still here\n")
	c.Close()
}

// Programs get the limit of open files that superd was started with, and superd
// has all that it may, also after upgrades.
func TestUpgradeKeepsLimitOfFiles(t *testing.T) {
	t.Parallel()
	yaml := writeFile(t, publicDir(t), "superd.yaml", several("limit", `listen: "127.0.0.1:0", `+shell("ulimit -Sn; ulimit -Hn")), 0o644)
	cmd := superd("run", "-c", yaml)
	cmd.Args = []string{"sh", "-c", `ulimit -Sn 300; ulimit -Hn 3000; exec "$0" "$@"`, cmd.Path, "run", "-c", yaml}
	cmd.Path = "/bin/sh"
	d := startCommand(t, cmd)
	for i := range 3 {
		if got := d.ask("limit", ""); got != "300\n3000\n" {
			t.Errorf("after %d upgrades the limits are %q", i, got)
		}
		d.upgradeNow(i + 1)
	}
}

// What cannot be had any more when it comes to it, though the rehearsal was
// content, leaves the file before in force.
func TestUpgradeFallsBack(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	w := startWatched(t, several("a", `listen: "127.0.0.1:0", run: /bin/cat`))
	good, err := os.ReadFile(w.config())
	if err != nil {
		t.Fatal(err)
	}
	c := w.held("a")
	bad := string(good) + "  b: {listen: \"" + taken.Addr().String() + "\", builtin: echo}\n"
	if err := os.WriteFile(w.config(), []byte(bad), 0o644); err != nil {
		t.Fatal(err)
	}
	inForce := func(want string) {
		t.Helper()
		if line := "\nsuperd_config_last_reload_successful " + want + "\n"; !strings.Contains(w.page("/metrics"), line) {
			t.Errorf("/metrics has no%s", line)
		}
	}
	w.upgradeNow(1)
	w.await(func(r record) bool { return strings.Contains(r.text("message"), "address already in use") })
	w.await(func(r record) bool { return r.is("cannot take the file up, the one before stays in force") })
	inForce("0")
	w.talk(c, "still here\n")
	// Whoever asks for it hears of both: the program is another, the file is not.
	code, out, complaints := w.tellUpgrade()
	if code != 1 || !strings.Contains(out, " goes on with 1 connection, generation 3\n") || !strings.Contains(complaints, ": services.b.listen: cannot listen on ") ||
		!strings.HasSuffix(complaints, "\ncannot take the file up, the one before stays in force\n") {
		t.Errorf("the upgrade ends with %d and says %s%s", code, out, complaints)
	}
	w.talk(c, "still here\n")
	c.Close()
	w.held("a").Close()
	if err := os.WriteFile(w.config(), good, 0o644); err != nil {
		t.Fatal(err)
	}
	w.toldUpgrade()
	inForce("1")
}
