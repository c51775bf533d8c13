package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"superd/superd/internal/config"
	"superd/superd/internal/control"
	"superd/superd/internal/spawn"
)

// explained are uses of explain, in a directory with the file explain.yaml. What
// is said is compared with the golden file.
var explainedLines = []string{
	"open 192.0.2.1",
	"open [2001:db8::1]:5000",
	"rules 10.0.0.66",
	"rules 10.1.2.3:5000",
	"rules uid:4711",
	"rules uid:4712,gid:4,gid:4713",
	"small 192.0.2.1",
	"proxied 2001:db8::1",
	"off 192.0.2.1",
	"mux 192.0.2.1",
	"named 192.0.2.1",
	"datagrams 192.0.2.1",
	"datagrams 192.0.2.1:19",
	"both udp:[2001:db8::1]:5000",
	"machines vsock:3:5000",
	"waiting 192.0.2.1",
	"missing 192.0.2.1",
}

const explainedFile = `
services:
  open: {listen: 7, run: /bin/cat}
  rules:
    listen: ["127.0.0.1:8", "unix:/run/rules"]
    run: [/bin/sh, -c, "echo 'hello'", ""]
    env: {SECRET: hello, HOME: /}
    env_style: [ucspi, systemd]
    dir: /etc
    umask: "077"
    nice: 3
    stderr: client
    allow:
      - 10.0.0.0/8
      - {from: 10.1.0.0/16, max_per_source: 7, env: {WHO: special}, run: "/bin/echo a 'b c'"}
      - uid:4711
      - gid:4713
    deny: [10.0.0.66]
  small: {listen: 9, builtin: discard, max: 5, rate: 1/s, queue: {length: 3, timeout: 1m}, timeout: {first_byte: 5s}, ban: {after: 3, within: 1m, for: 1h}}
  proxied: {listen: 10, builtin: echo, proxy_protocol: {from: [192.0.2.0/24]}, deny: [192.0.2.1]}
  off: {listen: 11, builtin: echo, enabled: false}
  mux: {listen: 1, builtin: tcpmux}
  named: {tcpmux: true, builtin: greeting}
  datagrams: {listen: "udp:7", builtin: echo}
  both: {listen: ["127.0.0.1:12", "udp:[::1]:12"], builtin: echo}
  machines: {listen: "vsock:13", builtin: echo}
  waiting: {listen: ["127.0.0.1:14", "127.0.0.1:15"], run: /bin/true, wait: listen-fds}
  missing: {listen: 16, run: /nonexistent/program}
`

// changing is what differs by machine, by user and by moment.
var changing = regexp.MustCompile(`(?m)^    (user|HOME=|USER=|LOGNAME=|SHELL=|capabilities|SUPERD_CONNECTION=).*\n`)

func TestExplain(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	writeFile(t, dir, "explain.yaml", explainedFile, 0o644)
	var all strings.Builder
	for _, line := range explainedLines {
		args := append(strings.Fields("explain --offline -c explain.yaml"), strings.Fields(line)...)
		code, out, complaints := finished(t, inDirectory(superd(args...), dir))
		if code != 0 || complaints != "" {
			t.Errorf("explain %s ends with %d: %s", line, code, complaints)
		}
		out = changing.ReplaceAllString(strings.ReplaceAll(out, dir, "DIR"), "")
		fmt.Fprintf(&all, "$ superd explain %s\n%s\n", line, out)
	}
	checkGolden(t, "explain", all.String())
}

// explains has superd say what would become of somebody, as JSON.
func explains(t *testing.T, cmd *exec.Cmd) (x explained) {
	t.Helper()
	code, out, complaints := finished(t, cmd)
	if code != 0 || complaints != "" {
		t.Fatalf("%q ends with %d: %s", cmd.Args[1:], code, complaints)
	}
	if err := json.Unmarshal([]byte(out), &x); err != nil {
		t.Fatal(err)
	}
	return x
}

// decided is an explanation in short.
func decided(x explained) string {
	return strings.Join(slices.DeleteFunc([]string{x.Verdict, x.Reason, x.Cause}, func(s string) bool { return s == "" }), " ")
}

// A running superd tells what it would decide now: it knows who is there, who is
// blocked, and what is drained.
func TestExplainWhatRuns(t *testing.T) {
	t.Parallel()
	d := startAsked(t, several(
		"cat", `listen: "127.0.0.1:0", run: /bin/cat, max: 2, max_per_source: 1, queue: {length: 1, timeout: 1h}, env: {SECRET: hello}`,
		"other", `listen: "127.0.0.1:0", builtin: echo`))
	ask := func(service, address string) explained {
		return explains(t, superd("explain", "--json", service, address, "-c", d.named()))
	}
	expect := func(service, address, want string) {
		t.Helper()
		if got := decided(ask(service, address)); got != want {
			t.Errorf("%s at %s: %s, not %s", address, service, got, want)
		}
	}
	expect("cat", "127.0.0.1", "enters")
	d.held("cat")
	x := ask("cat", "127.0.0.1")
	if decided(x) != "waits source-limit" || x.PID != d.pid() || x.Live != 1 || x.Generation != 1 {
		t.Errorf("of who is there already it says %+v", x)
	}
	if !slices.Contains(x.Program.Environment, "TCPCONNNUM=2") || !slices.Contains(x.Program.Environment, "SECRET=hello") {
		t.Errorf("its environment would be %q", x.Program.Environment)
	}
	expect("cat", "192.0.2.1", "enters")
	expect("other", "127.0.0.1", "enters")
	d.dial("cat")
	eventually(t, func() error {
		if got := decided(ask("cat", "127.0.0.1")); got != "refused queue-full source-limit" {
			return fmt.Errorf("behind one who waits it says %s", got)
		}
		return nil
	})
	d.told("block", "192.0.2.0/24")
	expect("other", "192.0.2.1", "refused banned")
	if got := ask("other", "192.0.2.1"); !slices.ContainsFunc(got.Checks, func(c control.Step) bool { return c.Why == "192.0.2.0/24 is banned" }) {
		t.Errorf("it does not say what is blocked: %+v", got.Checks)
	}
	expect("other", "127.0.0.1", "enters")
	d.told("drain", "--no-wait", "other")
	expect("other", "127.0.0.1", "refused draining")
	if got := explains(t, superd("explain", "--json", "--offline", "other", "127.0.0.1", "-c", d.named())); decided(got) != "enters" || got.PID != 0 {
		t.Errorf("of one that was only imagined it says %+v", got)
	}
	d.idle-- // the socket of what is drained
}

// named is the file that superd was started with.
func (d *process) named() string { return d.cmd.Args[len(d.cmd.Args)-1] }

// To explain changes nothing: no count, no token, no ban.
func TestExplainChangesNothing(t *testing.T) {
	t.Parallel()
	d := startAsked(t, one("cat", "run: /bin/cat, rate: 1/h, ban: {after: 1, within: 1h, for: 1h}, deny: [192.0.2.1]"))
	for range 3 {
		for _, address := range []string{"127.0.0.1", "192.0.2.1"} {
			explains(t, superd("explain", "--json", "cat", address, "-c", d.named()))
		}
	}
	if got := d.ask("cat", "hello"); got != "hello" {
		t.Errorf("the first client gets %q", got)
	}
	var s control.Status
	if err := json.Unmarshal([]byte(d.told("status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	if c := s.Services[0]; c.Total != 1 || c.Bans != 0 {
		t.Errorf("%+v", c)
	}
}

// What the program gets is what was said, but for its connection's name and the
// clients' port.
func TestExplainTellsTheEnvironment(t *testing.T) {
	t.Parallel()
	d := startAsked(t, one("env", `run: /usr/bin/env, env: {A: "1"}, env_style: [ucspi, ncat, cgi, systemd, xinetd],
		allow: [{from: 127.0.0.1, env: {WHO: me}}]`))
	c := d.dial("env")
	var got []string
	for lines := bufio.NewScanner(c); lines.Scan(); {
		got = append(got, lines.Text())
	}
	x := explains(t, superd("explain", "--json", "env", c.LocalAddr().String(), "--socket", d.socket))
	_, port, _ := net.SplitHostPort(d.address("env"))
	want := x.Program.Environment
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], "PORT=0", "PORT="+port) // superd's own is the kernel's choice
	}
	for _, list := range [][]string{got, want} {
		i := slices.IndexFunc(list, func(v string) bool { return strings.HasPrefix(v, "SUPERD_CONNECTION=") })
		if i < 0 {
			t.Fatalf("no name in %q", list)
		}
		list[i] = "SUPERD_CONNECTION="
	}
	d.exited("env", 1)
	if !slices.Equal(got, want) {
		t.Errorf("the environment is\n%q\nnot\n%q", got, want)
	}
}

// Secrets of the file do not go over the socket, which a group may read.
func TestExplainKeepsSecrets(t *testing.T) {
	t.Parallel()
	d := startAsked(t, one("cat", `run: [/bin/cat, hidden-argument], env: {KEY: hidden-value},
		allow: [{from: 127.0.0.1, env: {OTHER: hidden-too}, run: [/bin/cat, hidden-also]}]`))
	client := control.Client{Path: d.socket, Timeout: patience}
	who := control.Applicant{}
	text, err := client.Ask("explain", who.Query("cat"))
	if err != nil || strings.Contains(string(text), "hidden") || !strings.Contains(string(text), `"verdict":"refused"`) {
		t.Errorf("it says %s, %v", text, err)
	}
	d.settled()
}

// Whoever may ask and not read the file learns what is decided. A file that has
// changed, or that superd does not serve, is told.
func TestExplainAndTheFile(t *testing.T) {
	t.Parallel()
	d := startAsked(t, one("cat", "run: /bin/cat, allow: [127.0.0.1]"))
	other := writeFile(t, publicDir(t), "other.yaml", "control: {path: "+d.socket+"}\n"+one("dog", "run: /bin/cat"), 0o644)
	code, out, complaints := finished(t, superd("explain", "dog", "127.0.0.1", "-c", other))
	if want := fmt.Sprintf("warning: the superd that runs, process %d, serves another file, %s\n", d.pid(), d.named()); code != 0 || complaints != want ||
		!strings.HasPrefix(out, "with nobody connected, by "+other+":\n127.0.0.1 enters dog\n") {
		t.Errorf("of another file it says %d, %s, %s", code, out, complaints)
	}
	code, _, complaints = finished(t, superd("explain", "dog", "127.0.0.1", "--socket", d.socket))
	if want := "there is no service \"dog\" (--offline asks nobody)\n"; code != 1 || complaints != want {
		t.Errorf("of a service that is not there it says %d, %s", code, complaints)
	}
	writeFile(t, filepath.Dir(d.named()), "superd.yaml", "control: {path: "+d.socket+"}\n"+one("cat", "run: /bin/cat, deny: [127.0.0.1]"), 0o644)
	if out := d.told("explain", "cat", "127.0.0.1"); !strings.Contains(out, "127.0.0.1 enters cat") || !strings.Contains(out, " has changed since superd has read it;") {
		t.Errorf("of a file that has changed it says %s", out)
	}
	if err := os.WriteFile(d.named(), []byte("services: ["), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := d.told("explain", "cat", "127.0.0.1"); !strings.Contains(out, "127.0.0.1 enters cat") || !strings.Contains(out, "what its program would get is not known: ") {
		t.Errorf("of a file that cannot be read it says %s", out)
	}
}

// An ordinary user can explain root's file, and learns as whom programs run.
func TestExplainForAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := publicDir(t)
	socket := filepath.Join(dir, "socket")
	d := start(t, "control: {path: "+socket+", mode: \"0666\"}\n"+one("cat", fmt.Sprint("run: /bin/cat, user: ", someUser+1)))
	x := explains(t, asUser(t, superd("explain", "--json", "cat", "127.0.0.1", "--socket", socket), someUser))
	want := fmt.Sprintf("user %d (%[1]d), group %[1]d (%[1]d), supplementary groups []", someUser+1)
	if decided(x) != "enters" || x.Program == nil || x.Program.Walls[0] != want || len(x.Program.Problems) > 0 {
		t.Errorf("it says %+v, %+v", x, x.Program)
	}
	x = explains(t, asUser(t, superd("explain", "--json", "--offline", "cat", "127.0.0.1", "-c", d.named()), someUser))
	if decided(x) != "enters" || len(x.Program.Problems) != 1 || !strings.Contains(x.Program.Problems[0], fmt.Sprintf("superd runs as user %d and cannot become %d", someUser, someUser+1)) {
		t.Errorf("of one that he starts himself it says %+v, %+v", x, x.Program)
	}
}

func TestStrangers(t *testing.T) {
	who := spawn.Databases{Passwd: "testdata/none", Group: "testdata/none", Getent: func(string, string) (string, error) { return "", nil }}
	for text, want := range map[string]string{
		"10.0.0.1":                "10.0.0.1",
		"10.0.0.1:5":              "10.0.0.1:5",
		"::ffff:10.0.0.1":         "10.0.0.1",
		"::1":                     "::1",
		"[::1]":                   "::1",
		"[::1]:7":                 "[::1]:7",
		"udp:10.0.0.1":            "udp:10.0.0.1",
		"udp:[::1]:7":             "udp:[::1]:7",
		"udp:::1":                 "udp:::1",
		"uid:0":                   "uid:0,gid:0",
		"uid:7,gid:8,gid:9":       "uid:7,gid:8,gid:9",
		"vsock:3":                 "vsock",
		"vsock:3:9":               "vsock",
		"":                        "",
		"host":                    "",
		"host:7":                  "",
		"10.0.0.1:x":              "",
		"10.0.0.1:65536":          "",
		"10.0.0.0/8":              "",
		"[10.0.0.1":               "",
		"gid:4":                   "",
		"uid:1,uid:2":             "",
		"uid:1,10.0.0.1":          "",
		"uid:":                    "",
		"uid:nobody-of-that-sort": "",
		"uid:1,gid:no-such":       "",
		"vsock:":                  "",
		"vsock:x:1":               "",
		"udp:":                    "",
		"unix:/run/x":             "",
	} {
		c, err := parseStranger(text, who)
		got := ""
		if err == nil {
			got = textOf(c.applicant())
		}
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q is %q, %v, not %q", text, got, err, want)
		}
	}
}

// Whom superd sees is whom explain decides about: of a service whose programs
// receive themselves, the sender of a datagram, without further groups.
func TestExplainSeesWhoSends(t *testing.T) {
	t.Parallel()
	stream, datagram := config.Listener{Family: config.Unix, Type: "stream"}, config.Listener{Family: config.Unix, Type: config.Datagram}
	who := control.Applicant{Unix: true, UID: 5, GID: 60, Groups: []uint32{7}}
	for name, c := range map[string]struct {
		wait   string
		listen []config.Listener
		want   string
	}{
		"datagrams":                {config.WaitStdin, []config.Listener{datagram}, "seen []"},
		"connections":              {config.WaitStdin, []config.Listener{stream}, "unseen []"},
		"connections or datagrams": {config.WaitListenFDs, []config.Listener{datagram, stream}, "unseen []"},
		"a program for each":       {"", []config.Listener{datagram}, "seen []"},
		"accepted":                 {"", []config.Listener{stream}, "seen [7]"},
	} {
		s := &service{config: &config.Service{Wait: c.wait, Listen: c.listen}}
		client := s.clientOf(who)
		got := fmt.Sprint(ifElse(client.Unseen, "unseen ", "seen "), client.Groups)
		if got != c.want || client.Unix == client.Unseen {
			t.Errorf("%s: %s, %+v", name, got, client)
		}
	}
}
