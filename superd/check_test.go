package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Where superd runs, all that it listens on is in order; where another process
// has it, that is told with who that is.
func TestCheckOfTakenPlaces(t *testing.T) {
	t.Parallel()
	d := startAsked(t, "http: {listen: 127.0.0.1:0}\n"+several("echo", `listen: ["127.0.0.1:0", "udp:127.0.0.1:0", "unix:@superd-check-`+fmt.Sprint(os.Getpid())+`"], builtin: echo`))
	web := d.await(func(r record) bool { return r.is("http") }).text("local")
	dir := publicDir(t)
	file := func(socket string) string {
		yaml := fmt.Sprintf("http: {listen: %s}\ncontrol: {path: %s}\nservices:\n", web, socket)
		for i, at := range d.addresses("echo") {
			yaml += fmt.Sprintf("  s%d: {listen: '%s', builtin: echo, enabled: %v}\n", i, at, i != 1)
		}
		return writeFile(t, dir, filepath.Base(socket)+".yaml", yaml, 0o644)
	}
	if code, out, complaints := finished(t, superd("check", "-c", file(d.socket))); code != 0 || complaints != "" {
		t.Errorf("of what superd has it says %d, %s%s", code, out, complaints)
	}
	code, _, complaints := finished(t, superd("check", "-c", file(filepath.Join(dir, "other"))))
	who := fmt.Sprintf(", process %d)", d.pid())
	var want []string
	for _, place := range append([]string{web}, d.addresses("echo")...) {
		want = append(want, "cannot listen on "+place+": address already in use")
	}
	lines := strings.Split(strings.TrimSuffix(complaints, "\n"), "\n")
	if code != 1 || len(lines) != len(want) {
		t.Fatalf("of another file it says %d\n%s", code, complaints)
	}
	for i, line := range lines {
		if !strings.Contains(line, want[i]) || !strings.HasSuffix(line, who) {
			t.Errorf("it says %s, not %s %s", line, want[i], who)
		}
	}
}

// An administrative socket that could not be opened is told.
func TestCheckOfTheAdministrativeSocket(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	writeFile(t, dir, "file", "content", 0o644)
	l, err := net.Listen("unix", filepath.Join(dir, "dead"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for name, want := range map[string]string{
		"new":         "",
		"dead":        "",
		"file":        "what is there is not a socket, and stays",
		"none/socket": "no such file or directory (the directory " + dir + "/none does not exist: make it, or have systemd make it with RuntimeDirectory=)",
	} {
		path := filepath.Join(dir, name)
		file := writeFile(t, dir, "superd.yaml", "control: {path: "+path+"}\n"+one("echo", "builtin: echo"), 0o644)
		if want != "" {
			want = file + ":1:17: control.path: cannot open the administrative socket " + path + ": " + want + "\n"
		}
		for _, verb := range []string{"check", "run"} {
			if verb == "run" && want == "" {
				continue // it would
			}
			if code, _, complaints := finished(t, superd(verb, "-c", file)); complaints != want || code != min(len(want), 1) {
				t.Errorf("%s: %s says %d, %s", name, verb, code, complaints)
			}
		}
	}
}

// A superd without an administrative socket cannot be asked whether it serves
// the file: what it has is a warning.
func TestCheckBesideOneThatCannotBeAsked(t *testing.T) {
	needRoot(t)
	t.Parallel()
	d := start(t, one("echo", "builtin: echo"))
	yaml := fmt.Sprintf("services: {echo: {listen: '%s', builtin: echo}}\n", d.address("echo"))
	file := writeFile(t, publicDir(t), "superd.yaml", yaml, 0o644)
	cmd := asUser(t, superd("check", "-c", file), someUser)
	if code, _, complaints := finished(t, cmd); code != 1 || strings.Contains(complaints, "warning") {
		t.Errorf("who cannot see whose the port is is told %d, %s", code, complaints)
	}
	own := startCommand(t, asUser(t, prepare(t, one("echo", "builtin: echo")), someUser))
	file = writeFile(t, publicDir(t), "superd.yaml", strings.ReplaceAll(yaml, d.address("echo"), own.address("echo")), 0o644)
	code, _, complaints := finished(t, asUser(t, superd("check", "-c", file), someUser))
	want := fmt.Sprintf(", process %d: in order if that serves this file)\n", own.pid())
	if code != 0 || !strings.HasPrefix(complaints, "warning: ") || !strings.HasSuffix(complaints, want) {
		t.Errorf("beside one of one's own it says %d, %s", code, complaints)
	}
}
