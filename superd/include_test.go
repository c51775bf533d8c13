package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// including is a file that includes those of dir, and what else it says.
func including(dir string, more ...string) string {
	return "include: ['" + dir + "/*.yaml']\n" + strings.Join(more, "\n") + "\n"
}

// saying is a service that says what it is.
func saying(name, text string) string {
	return several(name, `listen: "127.0.0.1:0", builtin: greeting, text: `+text)
}

// Included files appear, change, break and vanish; a reload takes all of them up,
// or nothing.
func TestReloadOfIncluded(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	path := writeFile(t, dir, "a.yaml", saying("a", "one"), 0o644)
	a := startAsked(t, including(dir))
	check := func(want string) {
		t.Helper()
		if got := a.told("reload"); got != want {
			t.Errorf("it says %q, not %q", got, want)
		}
	}
	if got := a.ask("a", ""); got != "one" {
		t.Errorf("the service says %q", got)
	}
	check("generation 2\n")
	writeFile(t, dir, "a.yaml", saying("a", "two"), 0o644)
	check("changed a\n    text: one -> two\ngeneration 3\n")
	other := writeFile(t, dir, "b.yaml", saying("b", "other"), 0o644)
	check("added b\ngeneration 4\n")
	if got := a.ask("a", "") + a.ask("b", ""); got != "twoother" {
		t.Errorf("they say %q", got)
	}
	writeFile(t, dir, "a.yaml", "services: {a: {lisen: 7}}\n", 0o644)
	writeFile(t, dir, "b.yaml", "services: [", 0o644)
	code, out, complaints := a.tell("reload")
	if code != 1 || out != "" || !strings.Contains(complaints, path+":1:16: services.a.lisen: unknown key (did you mean listen?)\n") ||
		!strings.Contains(complaints, other+":1:11: the file ends inside brackets (close them)\n"+notReloaded) {
		t.Errorf("it ends with %d, %q and\n%s", code, out, complaints)
	}
	if got := a.ask("a", "") + a.ask("b", ""); got != "twoother" {
		t.Errorf("they say %q", got)
	}
	writeFile(t, dir, "a.yaml", saying("a", "two"), 0o644)
	os.Remove(other)
	check("removed b\ngeneration 5\n")
	os.Remove(path)
	if code, _, complaints := a.tell("reload"); code != 1 || !strings.Contains(complaints, "services: missing, here and in what is included") {
		t.Errorf("it ends with %d and\n%s", code, complaints)
	}
	writeFile(t, dir, "a.yaml", saying("a", "two"), 0o644)
	check("generation 6\n")
}

// A service has changed where its defaults have, and what it says itself holds.
func TestReloadOfDefaults(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	writeFile(t, dir, "a.yaml", several("a", `listen: "127.0.0.1:0", `+shell("echo $GREETING"), "b", `listen: "127.0.0.1:0", max: 7, env: {GREETING: own}, `+shell("echo $GREETING")), 0o644)
	a := startAsked(t, including(dir, "defaults: {env: {GREETING: hello}, max: 5}"))
	if got := a.ask("a", "") + a.ask("b", ""); got != "hello\nown\n" {
		t.Errorf("they say %q", got)
	}
	text, err := os.ReadFile(a.config())
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Dir(a.config()), filepath.Base(a.config()), strings.ReplaceAll(strings.ReplaceAll(string(text), "hello", "bye"), "max: 5", "max: 6"), 0o644)
	want := "changed a\n    env.GREETING\n    max: 5 -> 6\nchanged beside services\n    defaults.env.GREETING\n    defaults.max: 5 -> 6\ngeneration 2\n"
	if got := a.told("reload"); got != want {
		t.Errorf("it says %q, not %q", got, want)
	}
	if got := a.ask("a", "") + a.ask("b", ""); got != "bye\nown\n" {
		t.Errorf("they say %q", got)
	}
	for _, s := range a.status().Services {
		if want := map[string]string{"a": "6 2", "b": "7 1"}[s.Name]; fmt.Sprint(s.Max, s.Generation) != want {
			t.Errorf("%s has the max %d since generation %d", s.Name, s.Max, s.Generation)
		}
	}
}

// The heir takes up what was rehearsed, included files too, and knows by them
// what has not changed.
func TestUpgradeWithIncluded(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	path := writeFile(t, dir, "a.yaml", saying("a", "one"), 0o644)
	writeFile(t, dir, "same.yaml", saying("same", "same"), 0o644)
	a := startAsked(t, including(dir))
	writeFile(t, dir, "a.yaml", saying("a", "two"), 0o644)
	a.upgradeNow(1)
	if got := a.ask("a", "") + a.ask("same", ""); got != "twosame" {
		t.Errorf("they say %q", got)
	}
	for _, s := range a.status().Services {
		if want := map[string]int{"a": 2, "same": 1}[s.Name]; s.Generation != want {
			t.Errorf("%s is of generation %d", s.Name, s.Generation)
		}
	}
	writeFile(t, dir, "a.yaml", "services: {a: {lisen: 7}}\n", 0o644)
	for i, spoil := range []struct {
		how  func() error
		want string
	}{
		{func() error { return nil }, path + ":1:16: services.a.lisen: unknown key (did you mean listen?)"},
		{func() error { os.Remove(path); return os.Symlink("nowhere", path) }, "cannot read " + path + ": no such file or directory"},
	} {
		if err := spoil.how(); err != nil {
			t.Fatal(err)
		}
		a.signal(syscall.SIGUSR2)
		a.awaitMany(i+1, func(r record) bool { return r.is(notUpgraded) })
		a.await(func(r record) bool { return strings.Contains(r.text("message"), spoil.want) })
		if got := a.ask("a", ""); got != "two" {
			t.Errorf("it says %q", got)
		}
	}
	os.Remove(path)
	writeFile(t, dir, "a.yaml", saying("a", "three"), 0o644)
	a.upgradeNow(2)
	if got := a.ask("a", ""); got != "three" {
		t.Errorf("it says %q", got)
	}
}

// Where it turns out too late that an included file cannot be taken up, those
// before stay in force, whatever has become of them.
func TestUpgradeFallsBackToIncluded(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := publicDir(t)
	path := writeFile(t, dir, "a.yaml", saying("a", "one"), 0o644)
	a := startAsked(t, including(dir))
	os.Remove(path)
	writeFile(t, dir, "b.yaml", several("b", `listen: "`+taken.Addr().String()+`", builtin: echo`), 0o644)
	a.upgradeNow(1)
	a.await(func(r record) bool {
		return strings.Contains(r.text("message"), filepath.Join(dir, "b.yaml")+":2:15: services.b.listen: cannot listen on ")
	})
	a.await(func(r record) bool { return r.is("cannot take the file up, " + staysInForce) })
	if got := a.ask("a", ""); got != "one" {
		t.Errorf("it says %q", got)
	}
	os.Remove(filepath.Join(dir, "b.yaml"))
	writeFile(t, dir, "a.yaml", saying("a", "two"), 0o644)
	a.upgradeNow(2)
	if got := a.ask("a", ""); got != "two" {
		t.Errorf("it says %q", got)
	}
}

// What many services have wrong from defaults is told once, where it was written.
func TestCheckOfDefaults(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	writeFile(t, dir, "a.yaml", several("a", "listen: 7001, builtin: echo", "b", "listen: 7002, builtin: echo, user: no-other-user"), 0o644)
	writeFile(t, dir, "c.yaml", several("c", "listen: 7003, builtin: echo", "d", "listen: 7004, builtin: tcpmux", "e", "tcpmux: true, builtin: greeting, dir: /"), 0o644)
	path := writeFile(t, publicDir(t), "superd.yaml", including(dir, "defaults: {user: no-such-user, dir: /nowhere, max: 100, timeout: {first_byte: 1s}, refuse_text: {limit: full}}"), 0o644)
	code, _, complaints := finished(t, superd("check", "-c", path))
	if code != 1 || strings.Count(complaints, path+":2:18: defaults.user: no such user: no-such-user (") != 1 || strings.Count(complaints, "no-such-user") != 1 ||
		strings.Count(complaints, path+":2:37: defaults.dir: the directory /nowhere does not exist\n") != 1 || strings.Count(complaints, "\n") != 3 || strings.Contains(complaints, "warning") {
		t.Errorf("it ends with %d and says\n%s", code, complaints)
	}
}
