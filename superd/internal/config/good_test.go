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
	"sandboxes.yaml":       checkSandboxes,
	"limits.yaml":          checkLimits,
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
		Sandbox:  Sandbox{Preset: "basic", NoNewPrivs: true, SystemCalls: "default", Network: true},
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
		OOMScore:  new(-1000),
		Env:       []EnvVar{{"B", ""}, {"A", "yes"}, {"PORT", "0080"}},
		EnvPass:   []string{"TZ", "LANG"},
		EnvStyle:  []string{"systemd", "ncat"},
		Linger:    500 * time.Millisecond,
		Leftover:  "leave",
		User:      "1000",
		Group:     "nobody",
		GroupsSet: true,
		Chroot:    "/srv/full",
		Rlimits: []Rlimit{
			{"cpu", 0, 10, 10},
			{"fsize", 1, 1 << 40, 1 << 40},
			{"data", 2, Unlimited, Unlimited},
			{"stack", 3, 8 << 20, Unlimited},
			{"core", 4, 0, 0},
			{"rss", 5, 1 << 30, 1 << 30},
			{"nproc", 6, 20, 20},
			{"nofile", 7, 64, 128},
			{"memlock", 8, 64 << 10, 64 << 10},
			{"memory", 9, 256 << 20, 256 << 20},
			{"locks", 10, 1, 1},
			{"sigpending", 11, 0, 0},
			{"msgqueue", 12, 800 << 10, 800 << 10},
			{"nice", 13, 40, 40},
			{"rtprio", 14, 99, 99},
			{"rttime", 15, 1500, 1500},
		},
		Sandbox: Sandbox{
			Preset:       "strict",
			NoNewPrivs:   true,
			Capabilities: []string{"net_bind_service", "kill", "setuid"},
			CapsSet:      true,
			SystemCalls:  "default",
			Confined:     true,
			Read:         []string{"/etc/ssl", "/usr"},
			Write:        []string{"/var/spool/a b"},
			Exec:         []string{"/usr/bin/env"},
			Network:      true,
			BestEffort:   true,
		},
		Cgroup:  Cgroup{true, 64 << 20, 16, 150, true},
		Max:     12,
		Timeout: Timeouts{time.Hour, 10 * time.Minute, 1500 * time.Millisecond},
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

// checkSandboxes: a preset says what the file does not, and nothing more.
func checkSandboxes(t *testing.T, c *Config) {
	none := Sandbox{Preset: "none", SystemCalls: "all", Network: true}
	basic := Sandbox{Preset: "basic", SystemCalls: "default", Network: true, NoNewPrivs: true}
	offline := Sandbox{Preset: "offline", SystemCalls: "default", NoNewPrivs: true}
	strict := Sandbox{Preset: "strict", SystemCalls: "tight", NoNewPrivs: true, Confined: true, PrivateTmp: true}
	with := func(s Sandbox, change func(s *Sandbox)) Sandbox {
		change(&s)
		return s
	}
	wants := map[string]Sandbox{
		"absent":     basic,
		"none":       none,
		"basic":      basic,
		"strict":     strict,
		"offline":    offline,
		"empty":      basic,
		"preset":     strict,
		"from-none":  with(none, func(s *Sandbox) { s.NoNewPrivs, s.SystemCalls = true, "tight" }),
		"set-uid":    with(basic, func(s *Sandbox) { s.NoNewPrivs, s.SystemCalls = false, "all" }),
		"read":       with(basic, func(s *Sandbox) { s.Confined, s.Read = true, []string{"/"} }),
		"write":      with(offline, func(s *Sandbox) { s.Confined, s.Write = true, []string{"/srv", "/var"} }),
		"exec":       with(basic, func(s *Sandbox) { s.Confined, s.Exec = true, []string{"/bin"} }),
		"closed":     with(basic, func(s *Sandbox) { s.Confined = true }),
		"caps":       with(none, func(s *Sandbox) { s.CapsSet, s.Capabilities = true, []string{"chown", "checkpoint_restore"} }),
		"no-caps":    with(basic, func(s *Sandbox) { s.CapsSet = true }),
		"looser":     with(strict, func(s *Sandbox) { s.Network, s.PrivateTmp, s.SystemCalls = true, false, "all" }),
		"tighter":    with(basic, func(s *Sandbox) { s.Network, s.PrivateTmp, s.SystemCalls = false, true, "tight" }),
		"bestEffort": with(strict, func(s *Sandbox) { s.BestEffort = true }),
	}
	for _, s := range c.Services {
		if want, is := wants[s.Name]; !is || !reflect.DeepEqual(s.Sandbox, want) {
			t.Errorf("%s: got\n%+v\nwant\n%+v", s.Name, s.Sandbox, want)
		}
	}
	equal(t, len(c.Services), len(wants))
}

func checkLimits(t *testing.T, c *Config) {
	wants := map[string]string{
		"none":      "[] {false 0 0 0 false}",
		"lowest":    "[{cpu 0 1 1} {data 2 4096 4096} {stack 3 4096 4096} {nproc 6 1 1} {nofile 7 3 3} {memory 9 4096 4096} {nice 13 1 1} {rttime 15 1 1}] {true 1048576 1 1 false}",
		"zero":      "[{fsize 1 0 0} {core 4 0 0} {rss 5 0 0} {memlock 8 0 0} {locks 10 0 0} {sigpending 11 0 0} {msgqueue 12 0 0} {rtprio 14 0 0}] {false 0 0 0 false}",
		"highest":   "[{cpu 0 2147483647 2147483647} {fsize 1 9222246136947933184 9222246136947933184} {nproc 6 4194304 4194304} {nofile 7 1073741824 1073741824}] {true 0 4194304 819200 false}",
		"halves":    "[{core 4 0 18446744073709551615} {nproc 6 7 7} {memory 9 65536 1073741824} {rttime 15 2000000 18446744073709551615}] {true 67108864 0 0 false}",
		"tasks":     "[] {true 0 16 0 false}",
		"unlimited": "[{cpu 0 18446744073709551615 18446744073709551615} {nice 13 18446744073709551615 18446744073709551615}] {true 0 0 50 false}",
	}
	equal(t, Problems(c.Warnings).Error(), strings.TrimSpace(`
limits.yaml:11:31: services.zero.rlimits.rss: has no effect: Linux ignores this limit (cgroup.memory bounds memory)
limits.yaml:11:41: services.zero.rlimits.locks: has no effect: Linux ignores this limit`))
	for _, s := range c.Services {
		if got := fmt.Sprint(s.Rlimits, " ", s.Cgroup); got != wants[s.Name] {
			t.Errorf("%s: got\n%s\nwant\n%s", s.Name, got, wants[s.Name])
		}
	}
	equal(t, len(c.Services), len(wants))
}
