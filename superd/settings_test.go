package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"superd/superd/internal/control"
)

// What a file says beside services, and a reload or an upgrade changes.

// The log goes where the file says by now, and every record is somewhere.
func TestReloadOfOutput(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	file := func(log string) string {
		return "log: {" + log + "}\n" + several("echo", `listen: "127.0.0.1:0", builtin: echo`)
	}
	paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	d := start(t, file("output: stderr, level: debug"))
	address := d.address("echo")
	var stop atomic.Bool
	var visits atomic.Uint64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for !stop.Load() {
				visits.Add(1)
				if err := visitOnce(address, askFor("hello\n", "hello\n")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	change := func(i int, log string) {
		t.Helper()
		if err := os.WriteFile(d.config(), []byte(file(log)), 0o644); err != nil {
			t.Fatal(err)
		}
		from, to := paths[(i+1)%2], paths[i%2]
		inForce := func(r record) bool {
			return (r.is("reloaded") || r.is("upgraded")) && r.number("generation") == float64(i+2)
		}
		if i%3 == 2 {
			d.upgradeInto(func() []record { return recordsIn(t, from) }, func() []record { return recordsIn(t, to) }, inForce)
			return
		}
		d.signal(syscall.SIGHUP)
		eventually(t, func() error {
			if !slices.ContainsFunc(recordsIn(t, to), inForce) {
				return fmt.Errorf("%s does not say that file %d is in force", to, i)
			}
			return nil
		})
	}
	n := fewer(30, 9)
	for i := range n {
		change(i, fmt.Sprintf("output: %s, level: debug, format: %s", paths[i%2], []string{"json", "auto"}[i/2%2]))
	}
	stop.Store(true)
	clients.Wait()
	if err := os.WriteFile(d.config(), []byte(file("output: stderr, level: debug")), 0o644); err != nil {
		t.Fatal(err)
	}
	d.hup(1)
	d.idle = min(d.idle, d.descriptors())
	d.settled()
	accepted, exited := 0, map[string]bool{}
	d.mu.Lock()
	all := append([]record{}, d.records...)
	d.mu.Unlock()
	for _, path := range paths {
		all = append(all, recordsIn(t, path)...)
	}
	for _, r := range all {
		if r.is("accepted") {
			accepted++
		}
		if r.is("exited") {
			if exited[r.text("conn")] {
				t.Errorf("%s has ended twice", r.text("conn"))
			}
			exited[r.text("conn")] = true
		}
	}
	if want := int(visits.Load()); accepted != want || len(exited) != want {
		t.Errorf("of %d connections, %d were recorded as accepted and %d as exited", want, accepted, len(exited))
	}
}

// How addresses are written changes with a reload, for those who come then.
func TestReloadOfLogAddress(t *testing.T) {
	t.Parallel()
	file := func(form string) string {
		return "log: {address: " + form + "}\n" + several("echo", `listen: "127.0.0.1:0", builtin: echo`)
	}
	d := start(t, file("full"))
	for i, form := range []string{"full", "prefix", "none", "hash", "hash", "full"} {
		if i > 0 {
			d.rewrite(i, file(form))
		}
		d.ask("echo", "x")
		peer := d.exited("echo", i+1)[i].text("peer")
		want := map[string]string{"full": `127\.0\.0\.1:\d+`, "prefix": `127\.0\.0\.0/24`, "none": "", "hash": "[0-9a-f]{16}"}[form]
		if !matches(want, peer) {
			t.Errorf("with %s the client is %q", form, peer)
		}
	}
	d.rewrite(6, file("hash"))
	d.ask("echo", "x")
	d.upgradeNow(1)
	d.ask("echo", "x")
	list := d.exited("echo", 8)
	if list[6].text("peer") != list[7].text("peer") {
		t.Errorf("an upgrade has changed the hash from %s to %s", list[6].text("peer"), list[7].text("peer"))
	}
	if list[3].text("peer") != list[4].text("peer") {
		t.Errorf("a reload has changed the hash from %s to %s", list[3].text("peer"), list[4].text("peer"))
	}
}

// What cannot be had leaves everything as it is, and is told with its place.
func TestReloadOfSettingsFails(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	w := startWatched(t, one("cat", "run: /bin/cat"))
	good, err := os.ReadFile(w.config())
	if err != nil {
		t.Fatal(err)
	}
	dir := publicDir(t)
	writeFile(t, dir, "file", "", 0o644)
	for i, bad := range []struct{ settings, want string }{
		{"http: {listen: '" + taken.Addr().String() + "'}\n", ":2:16: http.listen: cannot listen on " + taken.Addr().String() + ": address already in use (port " + port(taken.Addr().String()) + " is held by "},
		{"http: {listen: '" + strings.Replace(w.web, "127.0.0.1", "0.0.0.0", 1) + "'}\n", "superd itself listens on " + w.web + " until the reload is done"},
		{"log: {output: " + dir + "/none/log}\n", ":2:15: log.output: cannot open the log " + dir + "/none/log: no such file or directory"},
		{"log: {output: " + dir + "/log}\nhttp: {listen: '" + taken.Addr().String() + "'}\n", ":3:16: http.listen: cannot listen on "},
		{"log: {level: debug}\nservices: {cat: {listen: '127.0.0.1:0', run: /bin/cat, user: nobody-at-all}}\n", "nobody-at-all"},
	} {
		text := "control: {path: " + w.socket + "}\n" + bad.settings
		if !strings.Contains(bad.settings, "services") {
			text += one("cat", "run: /bin/cat")
		}
		if err := os.WriteFile(w.config(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if code, out, complaints := w.tell("reload"); code != 1 || out != "" || !strings.Contains(complaints, bad.want) {
			t.Errorf("the reload ends with %d and says %s%s", code, out, complaints)
		}
		if got := w.page("/readyz"); got != "200 ok" {
			t.Errorf("after %s it is %s", bad.settings, got)
		}
		w.ask("cat", "x")
		w.exited("cat", i+1)
	}
	for socket, why := range map[string]string{
		dir + "/file":        "",
		dir + "/none/socket": ": no such file or directory (the directory " + dir + "/none does not exist: make it, or have systemd make it with RuntimeDirectory=)",
	} {
		if err := os.WriteFile(w.config(), []byte("control: {path: "+socket+"}\n"+one("cat", "run: /bin/cat")), 0o644); err != nil {
			t.Fatal(err)
		}
		want := ":1:17: control.path: cannot open the administrative socket " + socket + why
		if code, _, complaints := finished(t, superd("check", "-c", w.config())); code != 1 || !strings.Contains(complaints, want) {
			t.Errorf("check ends with %d and says %s", code, complaints)
		}
		if code, _, complaints := w.tell("reload"); code != 1 || !strings.Contains(complaints, want) {
			t.Errorf("the reload ends with %d and says %s", code, complaints)
		}
	}
	if _, err := os.Stat(dir + "/log"); err == nil {
		t.Error("a log was made that is not to be")
	}
	w.settled()
	if err := os.WriteFile(w.config(), good, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := w.told("reload"); got != "generation 2\n" {
		t.Errorf("then it says %q", got)
	}
}

// The administrative socket can be moved: whoever asks for that at the old one
// is answered, and it is gone. Its rights change as well.
func TestReloadOfControl(t *testing.T) {
	t.Parallel()
	a := startAsked(t, one("cat", "run: /bin/cat"))
	c := a.held("cat")
	dir := filepath.Dir(a.socket)
	for i, next := range []struct {
		name, mode string
		upgrade    bool
	}{
		{"other", "0660", false},
		{"other", "0600", false},
		{"third", "0600", true},
		{"socket", "0660", true},
		{"socket", "0666", true},
		{"other", "0600", false},
	} {
		path := filepath.Join(dir, next.name)
		yaml := fmt.Sprintf("control: {path: %s, mode: %q}\n%s", path, next.mode, one("cat", "run: /bin/cat"))
		if err := os.WriteFile(a.config(), []byte(yaml), 0o644); err != nil {
			t.Fatal(err)
		}
		if i == 0 { // the file leads to a place where nobody is yet
			code, _, complaints := finished(t, superd("reload", "-c", a.config()))
			if code != 3 || !strings.Contains(complaints, "no superd answers at "+path) || !strings.Contains(complaints, "name the socket of before with --socket") {
				t.Errorf("by the file, the reload ends with %d and says %s", code, complaints)
			}
		}
		verb, tell := "reload", func(args ...string) (int, string, string) { return a.tell("reload", args...) }
		if next.upgrade {
			verb, tell = "upgrade", a.tellUpgrade
		}
		if code, out, complaints := tell(); code != 0 || !strings.Contains(out, fmt.Sprintf("generation %d\n", i+2)) {
			t.Errorf("%s ends with %d and says %s%s", verb, code, out, complaints)
		}
		if a.socket != path {
			eventually(t, func() error {
				if _, err := os.Lstat(a.socket); err == nil {
					return fmt.Errorf("%s is there still", a.socket)
				}
				return nil
			})
		}
		a.socket = path
		if info, err := os.Stat(path); err != nil || fmt.Sprintf("%04o", info.Mode().Perm()) != next.mode {
			t.Errorf("%s is %v, %v", path, info.Mode(), err)
		}
		if s := a.status(); s.Generation != i+2 || s.Live != 1 {
			t.Errorf("at %s superd says %+v", path, s)
		}
	}
	c.Close()
}

// A request that is being answered when the socket moves gets its answer.
func TestControlMovesUnderARequest(t *testing.T) {
	t.Parallel()
	a := startAsked(t, one("cat", "run: /bin/cat"))
	var others sync.WaitGroup
	var stop, answers atomic.Int32
	current := atomic.Value{}
	current.Store(a.socket)
	for range 4 {
		others.Go(func() {
			for stop.Load() == 0 {
				path := current.Load().(string)
				client := control.Client{Path: path, Timeout: patience}
				_, err := client.Ask("status", nil)
				if err == nil {
					answers.Add(1)
				} else if path == current.Load().(string) && !strings.Contains(err.Error(), "no superd answers") {
					t.Error(err)
				}
			}
		})
	}
	for i := range fewer(40, 10) {
		next := filepath.Join(filepath.Dir(a.socket), fmt.Sprint("socket", i%2))
		if err := os.WriteFile(a.config(), []byte("control: {path: "+next+"}\n"+one("cat", "run: /bin/cat")), 0o644); err != nil {
			t.Fatal(err)
		}
		if out := a.told("reload"); !strings.Contains(out, "control.path: ") {
			t.Errorf("it says %s", out)
		}
		a.socket = next
		current.Store(next)
	}
	stop.Store(1)
	others.Wait()
	if answers.Load() == 0 {
		t.Error("nobody was answered")
	}
}

// Metrics can be asked for elsewhere, or not at all, after a reload; the port
// that the file names as before stays, also over an upgrade.
func TestReloadOfHTTP(t *testing.T) {
	t.Parallel()
	w := startWatched(t, one("cat", "run: /bin/cat"))
	first := w.web
	with := func(http string) string { return http + one("cat", "run: /bin/cat") }
	w.rewrite(1, with("http: {listen: '127.0.0.1:0'}\nlog: {level: debug}\n"))
	w.upgradeNow(1)
	if got := w.page("/readyz"); got != "200 ok" {
		t.Errorf("at the same place it is %s", got)
	}
	w.rewrite(2, with("http: {listen: '127.0.0.2:0'}\n"))
	w.web = w.awaitMany(2, func(r record) bool { return r.is("http") })[1].text("local")
	if got := w.page("/readyz"); got != "200 ok" || !strings.HasPrefix(w.web, "127.0.0.2:") {
		t.Errorf("at %s it is %s", w.web, got)
	}
	for _, address := range []string{first, w.web} {
		if address != first {
			w.rewrite(3, with(""))
		}
		eventually(t, func() error {
			c, err := net.Dial("tcp", address)
			if err == nil {
				c.Close()
				return fmt.Errorf("somebody listens at %s", address)
			}
			return nil
		})
	}
	w.idle--
	w.settled()
	w.rewrite(4, with("http: {listen: '"+first+"'}\n"))
	w.web = first
	if got := w.page("/readyz"); got != "200 ok" {
		t.Errorf("back at the first place it is %s", got)
	}
	w.idle++
}

// The verb says what has changed beside services.
func TestReloadSaysWhatChanged(t *testing.T) {
	t.Parallel()
	a := startAsked(t, "log: {level: info}\ndrain: 5s\n"+one("cat", "run: /bin/cat"))
	if err := os.WriteFile(a.config(), []byte("control: {path: "+a.socket+", mode: \"0660\"}\nlog: {level: debug}\n"+one("cat", "run: /bin/cat")), 0o644); err != nil {
		t.Fatal(err)
	}
	want := "changed beside services\n    control.mode: nothing -> 0660\n    drain: 5s -> nothing\n    log.level: info -> debug\ngeneration 2\n"
	if got := a.told("reload"); got != want {
		t.Errorf("it says\n%s, not\n%s", got, want)
	}
	a.await(func(r record) bool { return r.is("changed") && r.text("service") == "" && fmt.Sprint(r["keys"]) != "" })
}

// An upgrade takes the settings up as well, where they can be had.
func TestUpgradeToABadLog(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	file := func(log string) string { return "log: {output: " + log + "}\n" + one("cat", "run: /bin/cat") }
	d := start(t, file("stderr"))
	c := d.held("cat")
	bad := dir + "/none/log"
	if err := os.WriteFile(d.config(), []byte(file(bad)), 0o644); err != nil {
		t.Fatal(err)
	}
	d.cannotUpgrade(func() {}, "log.output: cannot open the log "+bad)
	d.talk(c, "still here\n")
	if err := os.WriteFile(d.config(), []byte(file(dir+"/log")), 0o644); err != nil {
		t.Fatal(err)
	}
	d.upgradeInto(func() []record { return d.recordsOf("") }, func() []record { return recordsIn(t, dir+"/log") },
		func(r record) bool { return r.is("upgraded") })
	d.idle++
	c.Close()
}

// Where the log, the administrative socket or the HTTP listener cannot be had any
// more when it comes to it, though the rehearsal was content, the file before
// stays in force, with all of that.
func TestUpgradeLosesItsSettings(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	if err := os.Mkdir(dir+"/soon", 0o755); err != nil {
		t.Fatal(err)
	}
	good := "control: {path: " + dir + "/socket}\nhttp: {listen: '127.0.0.1:0'}\n" + one("cat", "run: /bin/cat")
	d, path := installedCopy(t, good)
	w := watched{asked{d, dir + "/socket"}, d.await(func(r record) bool { return r.is("http") }).text("local")}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := d.held("cat")
	os.Remove(path)
	writeFile(t, filepath.Dir(path), "superd", fmt.Sprintf(`#!/bin/sh
[ "$%s" = %s ] || exec %s "$@"
mkdir -p %[4]s/soon
%[3]s "$@"
code=$?
rmdir %s/soon
exit $code
`, willVariable, rehearsal, os.Args[0], dir), 0o755)
	bad := fmt.Sprintf("log: {output: %[1]s/soon/log}\ncontrol: {path: %[1]s/soon/socket}\nhttp: {listen: '%[2]s'}\n%[3]s", dir, taken.Addr(), one("cat", "run: /bin/echo"))
	if err := os.WriteFile(d.config(), []byte(bad), 0o644); err != nil {
		t.Fatal(err)
	}
	d.upgradeNow(1)
	for _, want := range []string{"log.output: cannot open the log", "control.path: cannot open the administrative socket", "http.listen: cannot listen on", "cannot take the file up, the one before stays in force"} {
		d.await(func(r record) bool { return strings.Contains(r.text("message"), want) })
	}
	d.talk(c, "still here\n")
	c.Close()
	d.held("cat").Close()
	if got := w.page("/readyz"); got != "200 ok" {
		t.Errorf("it is %s", got)
	}
	if s := w.status(); s.PID != d.pid() || s.Generation != 2 {
		t.Errorf("superd says %+v", s)
	}
}

// Everything that /metrics counts goes on over an upgrade: nothing grows less,
// and where nothing happens nothing changes.
func TestMetricsOverUpgrades(t *testing.T) {
	t.Parallel()
	w := startWatched(t, several(
		"cat", `listen: "127.0.0.1:0", run: /bin/cat, max: 1, queue: {timeout: 1h}`,
		"fails", `listen: "127.0.0.1:0", `+shell("echo one >&2; exit 3"),
		"absent", `listen: "127.0.0.1:0", run: /nowhere/none`,
		"flood", `listen: "127.0.0.1:0", `+shell("exec head -c 30000 /dev/zero | tr '\\0' '\\n' >&2")))
	held := w.held("cat")
	waits := w.dial("cat")
	eventually(t, func() error {
		if n := len(connectedTo(t, w.process, "cat")); n != 2 {
			return fmt.Errorf("%d are accepted", n)
		}
		return nil
	})
	held.Close()
	w.talk(waits, "hello\n")
	waits.Close()
	w.ask("fails", "")
	w.ask("absent", "")
	w.ask("flood", "")
	w.exited("cat", 2)
	w.exited("fails", 1)
	w.exited("flood", 1)
	w.refused("absent")
	page := func() (values map[string]float64, families map[string]*sample) {
		t.Helper()
		settled := ""
		eventually(t, func() error { // an answer holds for a moment
			values, families = w.metrics()
			was := settled
			if settled = fmt.Sprint(values["superd_stderr_lines_total{service=\"flood\"}"], values["superd_connections_total{service=\"flood\",result=\"ok\"}"], values["superd_config_generation{}"]); settled != was {
				return fmt.Errorf("the numbers are %s, and were %s", settled, was)
			}
			return nil
		})
		return values, families
	}
	before, families := page()
	for _, name := range []string{`superd_queue_wait_seconds_count{service="cat"}`, `superd_spawn_seconds_count{service="cat"}`, `superd_session_seconds_sum{service="cat"}`,
		`superd_received_bytes_total{service="cat"}`, `superd_stderr_lines_dropped_total{service="flood"}`} {
		if before[name] <= 0 {
			t.Errorf("%s is %v: there is nothing to be carried", name, before[name])
		}
	}
	first := before
	for i := range 3 {
		w.upgradeNow(i + 1)
		after, _ := page()
		for name, was := range before {
			family := families[strings.SplitN(name, "{", 2)[0]]
			if family == nil {
				family = families[histogramOf(name)]
			}
			is, there := after[name]
			switch {
			case !there || family.kind != "gauge" && is < was:
				t.Errorf("after %d upgrades %s is %v (%v), and was %v", i+1, name, is, there, was)
			case family.kind != "gauge" && strings.HasPrefix(name, "superd_") && is != first[name]:
				t.Errorf("though nothing has happened %s is %v, and was %v", name, is, first[name])
			}
		}
		for _, name := range []string{"process_start_time_seconds{}", "superd_connections_limit{}", "superd_blocks{}"} {
			if after[name] != before[name] {
				t.Errorf("%s is %v, and was %v", name, after[name], before[name])
			}
		}
		before = after
	}
	w.ask("fails", "")
	w.exited("fails", 2)
	eventually(t, func() error {
		if values, _ := w.metrics(); values[`superd_session_seconds_count{service="fails"}`] != 2 {
			return fmt.Errorf("%v sessions", values[`superd_session_seconds_count{service="fails"}`])
		}
		return nil
	})
}

// histogramOf is the family of a histogram's number.
func histogramOf(name string) string {
	name, _, _ = strings.Cut(name, "{")
	for _, end := range []string{"_bucket", "_sum", "_count"} {
		name = strings.TrimSuffix(name, end)
	}
	return name
}

// Who asks for metrics while superd becomes another is answered.
func TestScrapesDuringUpgrades(t *testing.T) {
	t.Parallel()
	w := startWatched(t, one("cat", "run: /bin/cat"))
	var stop atomic.Bool
	var scrapers sync.WaitGroup
	for range 2 {
		scrapers.Go(func() {
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
			for !stop.Load() {
				begin := time.Now()
				answer, err := client.Get("http://" + w.web + "/metrics")
				if err == nil {
					_, err = io.Copy(io.Discard, answer.Body)
					answer.Body.Close()
				}
				if err != nil && time.Since(begin) < longestAnswers { // who stands still is not waited for
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range fewer(20, 5) {
		w.upgradeNow(i + 1)
	}
	stop.Store(true)
	scrapers.Wait()
}
