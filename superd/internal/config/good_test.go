package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// goodFiles has a check of what each file in testdata/good means.
var goodFiles = map[string]func(*testing.T, *Config){
	"minimal.yaml":         checkMinimal,
	"full.yaml":            checkFull,
	"addresses.yaml":       checkAddresses,
	"commands.yaml":        checkCommands,
	"anchors.yaml":         checkAnchors,
	"no-clash.yaml":        func(*testing.T, *Config) {},
	"byte-order-mark.yaml": checkMinimal,
	"document-marks.yaml":  checkMinimal,
	"warnings.yaml":        checkWarnings,
}

func TestGoodFiles(t *testing.T) {
	for _, path := range glob(t, "testdata/good/*.yaml") {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			c, err := Parse(name, contents(t, path), fakeSystem{})
			if err != nil {
				t.Fatal(err)
			}
			check := goodFiles[name]
			if check == nil {
				t.Fatal("no check of this file")
			}
			check(t, c)
		})
	}
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

// bare is a service without what only tells where it was written.
func bare(s *Service) Service {
	b := *s
	b.where = nil
	b.Listen = slices.Clone(s.Listen)
	for i := range b.Listen {
		b.Listen[i].At = Position{}
	}
	return b
}

func checkMinimal(t *testing.T, c *Config) {
	equal(t, c.Log, Log{"info", "auto"})
	equal(t, c.Limits, Limits{10000})
	equal(t, c.Drain, 30*time.Second)
	path := "services.echo.listen"
	equal(t, bare(c.Services[0]), Service{
		Name:    "echo",
		Enabled: true,
		Listen: []Listener{
			{Spec: "7", Addr: netip.MustParseAddrPort("0.0.0.0:7"), NoDelay: true, Path: path},
			{Spec: "7", Addr: netip.MustParseAddrPort("[::]:7"), Optional: true, NoDelay: true, Path: path},
		},
		Builtin:  "echo",
		Stderr:   "log",
		Dir:      "/",
		Umask:    0o22,
		EnvStyle: []string{"ucspi"},
		Keep:     true,
		Linger:   2 * time.Second,
		Leftover: "kill",
		Timeout:  Timeouts{Stop: 5 * time.Second},
	})
}

func checkFull(t *testing.T, c *Config) {
	equal(t, c.Path, "full.yaml")
	equal(t, c.Log, Log{"debug", "json"})
	equal(t, c.Limits, Limits{0})
	equal(t, c.Drain, 90*time.Minute)
	equal(t, bare(c.Services[0]), Service{
		Name:        "full_Name-1.x",
		Description: "every key, none with its default",
		Listen: []Listener{{
			Spec:      "[::1%lo]:4444",
			Addr:      netip.MustParseAddrPort("[::1%lo]:4444"),
			Backlog:   4096,
			KeepAlive: KeepAlive{true, time.Minute, 10 * time.Second, 6},
			Path:      "services.full_Name-1.x.listen.address",
		}},
		Run:       []string{"/bin/sh", "-c", "", "10"},
		Argv0:     "-sh",
		Stderr:    "null",
		Dir:       "/var/empty",
		Umask:     0o77,
		Nice:      -5,
		Env:       []EnvVar{{"B", ""}, {"A", "yes"}, {"PORT", "0080"}},
		EnvPass:   []string{"TZ", "LANG"},
		EnvStyle:  []string{"systemd", "ncat"},
		Linger:    500 * time.Millisecond,
		Leftover:  "leave",
		User:      "1000",
		Group:     "nobody",
		GroupsSet: true,
		Max:       12,
		Timeout:   Timeouts{time.Hour, 10 * time.Minute, 1500 * time.Millisecond},
	})
}

func checkAddresses(t *testing.T, c *Config) {
	s := c.Services[0]
	equal(t, s.Text, "hi\n")
	var got []string
	for _, l := range s.Listen {
		got = append(got, fmt.Sprintf("%s %s optional=%t dual=%t keepalive=%t", l.Spec, l.Addr, l.Optional, l.Dual, l.KeepAlive.On))
	}
	equal(t, strings.Join(got, "\n"), strings.TrimSpace(`
1001 0.0.0.0:1001 optional=false dual=false keepalive=false
1001 [::]:1001 optional=true dual=false keepalive=false
http 0.0.0.0:80 optional=false dual=false keepalive=false
http [::]:80 optional=true dual=false keepalive=false
*:1002 0.0.0.0:1002 optional=false dual=false keepalive=false
*:1002 [::]:1002 optional=true dual=false keepalive=false
*:echo 0.0.0.0:7 optional=false dual=false keepalive=false
*:echo [::]:7 optional=true dual=false keepalive=false
127.0.0.1:1003 127.0.0.1:1003 optional=false dual=false keepalive=false
0.0.0.0:1004 0.0.0.0:1004 optional=false dual=false keepalive=false
[::]:1005 [::]:1005 optional=false dual=false keepalive=false
[::1]:ssh [::1]:22 optional=false dual=false keepalive=false
[fe80::1%lo]:1006 [fe80::1%lo]:1006 optional=false dual=false keepalive=false
localhost:1007 127.0.0.1:1007 optional=false dual=false keepalive=false
localhost:1007 [::1]:1007 optional=false dual=false keepalive=false
good.example:1008 192.0.2.7:1008 optional=false dual=false keepalive=false
1009 [::]:1009 optional=false dual=true keepalive=false
[::]:1010 [::]:1010 optional=false dual=true keepalive=true
1011 0.0.0.0:1011 optional=false dual=false keepalive=false
1011 [::]:1011 optional=true dual=false keepalive=false
0 0.0.0.0:0 optional=false dual=false keepalive=false
0 [::]:0 optional=true dual=false keepalive=false`))
}

func checkCommands(t *testing.T, c *Config) {
	equal(t, c.Services[0].Run, []string{"/bin/echo", "a b", "c d", "e f", "", "$HOME", "|"})
	equal(t, c.Services[1].Run, []string{"/bin/echo", "a", "b"})
	equal(t, c.Services[2].Run, []string{"/bin/echo", "a b", "-1", "0x10", ""})
}

// checkAnchors: an alias means what it stands for, and is at its own place.
func checkAnchors(t *testing.T, c *Config) {
	a, b := bare(c.Services[0]), bare(c.Services[1])
	equal(t, c.Services[1].Where("user"), Position{"anchors.yaml", 11, 11})
	b.Name = a.Name
	for i := range b.Listen {
		b.Listen[i].Path = a.Listen[i].Path
	}
	equal(t, a, b)
}

func checkWarnings(t *testing.T, c *Config) {
	equal(t, Problems(c.Warnings).Error(), strings.TrimSpace(`
warnings.yaml:2:57: services.echo.linger: has no effect with keep: false
warnings.yaml:2:77: services.echo.timeout.idle: has no effect with keep: false`))
}
