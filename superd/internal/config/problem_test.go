package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProblemLine(t *testing.T) {
	at := Position{"superd.yaml", 3, 7}
	for want, p := range map[string]Problem{
		"superd.yaml:3:7: services.a.max: is bad (mend it)": {at, "services.a.max", "is bad", "mend it"},
		"superd.yaml:3:7: services.a.max: is bad":           {at, "services.a.max", "is bad", ""},
		"superd.yaml:3:7: is bad":                           {at, "", "is bad", ""},
	} {
		if got := p.Error(); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}

func TestProblemsPrintAHundred(t *testing.T) {
	for n, last := range map[int]string{100: "f:100:1: bad", 101: "and 1 more", 250: "and 150 more"} {
		var ps Problems
		for i := range n {
			ps = append(ps, Problem{Position{"f", i + 1, 1}, "", "bad", ""})
		}
		lines := strings.Split(ps.Error(), "\n")
		if got := lines[len(lines)-1]; got != last || len(lines) > 101 {
			t.Errorf("%d problems: %d lines, the last is %s", n, len(lines), got)
		}
	}
}

func TestWhere(t *testing.T) {
	c := parse(t, `services:
  web.1:
    listen: [7, {address: 8}]
    run: [/bin/cat, -u]
    groups: [staff]
    timeout:
      idle: 5s
    env: {A: b}
`)
	s := c.Services[0]
	for key, want := range map[string]string{
		"":                  "2:3",
		"user":              "2:3",
		"run":               "4:10",
		"run[1]":            "4:21",
		"run[7]":            "4:10",
		"groups[0]":         "5:14",
		"timeout.idle":      "7:13",
		"timeout.stop":      "7:7",
		"env.A":             "8:14",
		"env.B":             "8:10",
		"listen[1].address": "3:27",
		"listen[1].backlog": "3:17",
	} {
		if got := s.Where(key).String(); got != "test.yaml:"+want {
			t.Errorf("%s is at %s, want %s", key, got, want)
		}
	}
	equal(t, s.Problem("user", "no user nobody", "create it").Error(),
		"test.yaml:2:3: services.web.1.user: no user nobody (create it)")
	equal(t, s.Listen[2].At.String()+" "+s.Listen[2].Path, "test.yaml:3:27 services.web.1.listen[1].address")
	equal(t, (&Service{}).Where("user"), Position{})
}

// TestProblemOfAKey: what this package cannot know about a key of the file, a machine says.
func TestProblemOfAKey(t *testing.T) {
	c := parse(t, "log:\n  output: /var/log/x\nservices: {echo: {listen: 7, builtin: echo}}")
	for key, want := range map[string]string{
		"log.output":  "test.yaml:2:11: log.output: is not possible (leave it)",
		"log.address": "test.yaml:2:3: log.address: is not possible (leave it)",
	} {
		equal(t, c.Problem(key, "is not possible", "leave it").Error(), want)
	}
}

// TestWhereOfWalls: what this package cannot know about walls, a kernel says
// of the key.
func TestWhereOfWalls(t *testing.T) {
	s := parse(t, `services:
  echo:
    listen: 7
    builtin: echo
    chroot: /srv
    rlimits: {nofile: 64, core: {soft: 0, hard: 1M}}
    cgroup: {memory: 64M}
    sandbox:
      read: [/usr, /etc]
      capabilities: [kill]
`).Services[0]
	for key, want := range map[string]string{
		"chroot":                  "5:13",
		"rlimits":                 "6:14",
		"rlimits.nofile":          "6:23",
		"rlimits.nofile.hard":     "6:23",
		"rlimits.core.hard":       "6:49",
		"rlimits.cpu":             "6:14",
		"cgroup":                  "7:13",
		"cgroup.cpu":              "7:13",
		"sandbox":                 "9:7",
		"sandbox.read[1]":         "9:20",
		"sandbox.capabilities[0]": "10:22",
		"sandbox.network":         "9:7",
	} {
		if got := s.Where(key).String(); got != "test.yaml:"+want {
			t.Errorf("%s is at %s, want %s", key, got, want)
		}
	}
	equal(t, s.Problem("sandbox.read[0]", "does not exist", "").Error(),
		"test.yaml:9:14: services.echo.sandbox.read[0]: does not exist")
	bare := parse(t, "services: {echo: {listen: 7, builtin: echo}}").Services[0]
	equal(t, bare.Problem("sandbox", "is not possible", "").Error(),
		"test.yaml:1:12: services.echo.sandbox: is not possible")
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "superd.yaml")
	write(t, path, "services: {echo: {listen: 7, builtin: echo}}\n")
	c, err := Load(path, fakeSystem{})
	if err != nil || c.Path != path || c.Services[0].Where("").File != path {
		t.Fatal(c, err)
	}
	write(t, path, "services: {echo: {}}\n")
	if _, err := Load(path, fakeSystem{}); !strings.HasPrefix(err.Error(), path+":1:12: services.echo: ") {
		t.Error(err)
	}
}

func TestLoadUnreadable(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.yaml")
	_, err := Load(missing, fakeSystem{})
	equal(t, err.Error(), "cannot read "+missing+": no such file or directory")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("a caller cannot tell a missing file")
	}
	_, err = Load(dir, fakeSystem{})
	equal(t, err.Error(), "cannot read "+dir+": is a directory")
}

func TestLoadTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.yaml")
	write(t, path, strings.Repeat("#\n", largestFile/2+1))
	_, err := Load(path, fakeSystem{})
	equal(t, err.Error(), path+":1:1: the file is larger than 8 MiB")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMachine asks for what every machine knows without a network.
func TestMachine(t *testing.T) {
	addrs, err := Machine.LookupHost("127.0.0.1")
	if err != nil || len(addrs) != 1 || addrs[0].Unmap().String() != "127.0.0.1" {
		t.Error(addrs, err)
	}
	if port, err := Machine.LookupPort("tcp", "http"); err != nil || port != 80 {
		t.Error(port, err)
	}
}
