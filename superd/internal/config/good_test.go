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
	"defaults.yaml":        checkDefaults,
	"sandboxes.yaml":       checkSandboxes,
	"limits.yaml":          checkLimits,
	"rules.yaml":           checkRules,
	"admission.yaml":       checkAdmission,
	"control.yaml":         checkControl,
	"unix.yaml":            checkUnix,
	"http.yaml":            checkHTTP,
	"http-everywhere.yaml": checkHTTPEverywhere,
	"inherited.yaml":       checkInherited,
	"vsock.yaml":           checkVSock,
	"wait.yaml":            checkWait,
	"udp.yaml":             checkUDP,
	"tcpmux.yaml":          checkTCPMux,
	"tcpmux-alone.yaml":    warnsOf("tcpmux-alone.yaml:2:30: services.mux.builtin: leads to nothing: no service has tcpmux: true"),
	"tcpmux-without.yaml":  warnsOf("tcpmux-without.yaml:2:20: services.named.tcpmux: has no effect: no service has builtin: tcpmux"),
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
	b.where, b.written, b.lent = nil, nil, nil
	b.Listen = slices.Clone(s.Listen)
	for i := range b.Listen {
		b.Listen[i].At, b.Listen[i].keys = Position{}, places{}
	}
	b.Rules = slices.Clone(s.Rules)
	for i := range b.Rules {
		b.Rules[i].At = Position{}
	}
	return b
}

func checkMinimal(t *testing.T, c *Config) {
	equal(t, c.Log, Log{"info", "auto", "stderr", "full"})
	equal(t, c.Limits, Limits{Max: 10000})
	equal(t, []any{c.Control.Path, c.Control.PathSet, c.Control.Mode}, []any{"/run/superd/control.sock", false, 0o600})
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

		SourcePrefix: Prefixes{32, 64},
		OnLimit:      "queue",
		Queue:        Queue{100, 10 * time.Second, false},

		Timeout: Timeouts{Stop: 5 * time.Second},
	})
}

func checkFull(t *testing.T, c *Config) {
	equal(t, c.Path, "full.yaml")
	equal(t, c.Log, Log{"debug", "json", "/var/log/superd.log", "hash"})
	equal(t, c.Limits, Limits{0, 12.5})
	equal(t, c.Drain, 90*time.Minute)
	equal(t, bare(c.Services[0]), Service{
		Name:        "full_Name-1.x",
		Description: "every key, none with its default",
		Listen: []Listener{{
			Spec:        "[::1%lo]:4444",
			Addr:        netip.MustParseAddrPort("[::1%lo]:4444"),
			Backlog:     4096,
			MPTCP:       true,
			Device:      "eth0.1",
			FreeBind:    true,
			Transparent: true,
			KeepAlive:   KeepAlive{true, time.Minute, 10 * time.Second, 6},
			RcvBuf:      64 << 10,
			SndBuf:      1 << 20,
			Mark:        4294967295,
			TOS:         184,
			DeferAccept: time.Minute,
			Path:        "services.full_Name-1.x.listen.address",
		}},
		Run:       []string{"/bin/sh", "-c", "", "10"},
		Argv0:     "-sh",
		Stderr:    "null",
		LogLevel:  "warn",
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
		Cgroup: Cgroup{true, 64 << 20, 16, 150, true},

		Restricted: true,
		Rules: []Rule{
			{Spec: Network(netip.MustParsePrefix("192.0.2.0/24")), Path: "services.full_Name-1.x.allow[0]"},
			{Spec: User(1000), Path: "services.full_Name-1.x.allow[1]", MaxPerSource: 100, RatePerSource: Rate{50, time.Second, 60}, Override: &Override{
				[]EnvVar{{"ROLE", "office"}}, []string{"/bin/cat", "-n"}, "services.full_Name-1.x.allow[1]"}},
			{Spec: Spec{Kind: GroupSpec, Name: "adm"}, Deny: true, Path: "services.full_Name-1.x.deny[0]"},
		},
		Hours: []Hours{{"Mon 08:00-18:00 UTC", time.UTC, [7]bool{1: true}, []Span{{8 * 60, 18 * 60}}}},
		Max:   12, MaxPerSource: 3, Rate: Rate{100, time.Minute, 200}, RatePerSource: Rate{10, time.Hour, 10}, MaxLoad: 2.5,
		SourcePrefix: Prefixes{24, 56},
		OnLimit:      "refuse",
		Queue:        Queue{7, 3 * time.Second, true},
		RefuseText:   map[string]string{"limit": "full\n", "failing": "sorry\n"},
		Ban:          Ban{3, time.Hour, 2 * time.Hour},
		Proxy:        Proxy{[]netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("2001:db8::/32")}, 5 * time.Second},
		Failures:     Failures{4, time.Minute, 15 * time.Second},

		Timeout: Timeouts{time.Hour, 10 * time.Minute, 20 * time.Second, 0, 1500 * time.Millisecond},
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

// checkDefaults: a service has what it does not say itself, where that has a
// meaning.
func checkDefaults(t *testing.T, c *Config) {
	warnsOf("defaults.yaml:17:41: services.alias.timeout.first_byte: greeting speaks first: its clients wait for it, and it for them (leave it out)")(t, c)
	of := map[string]*Service{}
	for _, s := range c.Services {
		of[s.Name] = s
	}
	for name, want := range map[string]string{
		"plain": "nobody [staff adm] [{A one} {B 2}] 5s 2 3 1h0m0s 0s 5s 100 5 strict [] 64 0 map[failing:sorry limit:full]",
		"own":   "root [staff adm] [{B one} {C 3} {A one}] 5s 2 1 0s 1m0s 5s 100 5 strict [/srv] 7 0 map[failing:later limit:full]",
		"alias": "nobody [staff adm] [{A one} {B 2}] 5s 2 3 1h0m0s 0s 5s 100 5 strict [] 64 0 map[failing:sorry limit:full]",
		"udp":   "nobody [staff adm] [{A one} {B 2}] 2s 2 3 1h0m0s 0s 0s 100 5 strict [] 64 0 map[]",
		"mux":   " [] [] 2s 0 3 0s 0s 5s 0 5 basic [] map[failing:sorry limit:full]",
		"named": "nobody [staff adm] [{A one} {B 2}] 5s 2 3 1h0m0s 0s 5s 100 5 none [] 64 0 map[failing:sorry limit:full]",
	} {
		s := of[name]
		got := fmt.Sprint(s.User, " ", s.Groups, " ", s.Env, " ", s.Linger, " ", len(s.Rlimits), " ", len(s.Rules)+len(s.Hours), " ",
			s.Timeout.Session, " ", s.Timeout.Idle, " ", s.Timeout.FirstByte, " ", s.Max, " ", s.Queue.Length, " ", s.Sandbox.Preset, " ", s.Sandbox.Read)
		for i := len(s.Rlimits) - 1; i >= 0; i-- {
			got += fmt.Sprint(" ", s.Rlimits[i].Soft)
		}
		if got += fmt.Sprint(" ", s.RefuseText); got != want {
			t.Errorf("%s is\n%s\nnot\n%s", name, got, want)
		}
	}
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

// checkRules: what stands for whom, and where; a file has lines of its own.
func checkRules(t *testing.T, c *Config) {
	var got []string
	for _, r := range c.Services[0].Rules {
		got = append(got, fmt.Sprintf("%s %q deny=%t max=%d override=%t %s %s", r.Spec, r.Text, r.Deny, r.MaxPerSource, r.Override != nil, r.At, r.Path))
	}
	equal(t, strings.Join(got, "\n"), strings.TrimSpace(`
10.1.0.0/16 "10.1.2.3/16" deny=false max=0 override=false rules.yaml:6:9 services.rules.allow[0]
192.0.2.0/24 "::ffff:192.0.2.0/120" deny=false max=0 override=false rules.yaml:7:9 services.rules.allow[1]
2001:db8::1 "2001:0DB8::1" deny=false max=0 override=false rules.yaml:8:9 services.rules.allow[2]
::/0 "" deny=false max=0 override=false rules.yaml:9:9 services.rules.allow[3]
0.0.0.0/0 "" deny=false max=0 override=false rules.yaml:10:9 services.rules.allow[4]
uid:alice "" deny=false max=0 override=false rules.yaml:11:9 services.rules.allow[5]
gid:4294967294 "" deny=false max=0 override=false rules.yaml:12:9 services.rules.allow[6]
10.0.0.0/8 "" deny=false max=0 override=false /rules/office:1:1 services.rules.allow[7]
2001:db8::/32 "" deny=false max=0 override=false /rules/office:3:1 services.rules.allow[7]
uid:alice "" deny=false max=0 override=false /rules/office:4:1 services.rules.allow[7]
10.0.0.0/8 "" deny=false max=2 override=true /rules/office:1:1 services.rules.allow[8]
2001:db8::/32 "" deny=false max=2 override=true /rules/office:3:1 services.rules.allow[8]
uid:alice "" deny=false max=2 override=true /rules/office:4:1 services.rules.allow[8]
10.0.0.0/8 "" deny=true max=0 override=false /rules/office:1:1 services.rules.deny[0]
2001:db8::/32 "" deny=true max=0 override=false /rules/office:3:1 services.rules.deny[0]
uid:alice "" deny=true max=0 override=false /rules/office:4:1 services.rules.deny[0]
10.0.0.1 "" deny=true max=0 override=false rules.yaml:16:30 services.rules.deny[1]`))
	equal(t, Problems(c.Warnings).Error(), `rules.yaml:6:9: services.rules.allow[0]: "10.1.2.3/16" has bits beyond its network (write 10.1.0.0/16)`)
	equal(t, []bool{c.Services[0].Restricted, c.Services[1].Restricted, len(c.Services[1].Rules) == 0}, []bool{true, true, true})
}

func checkAdmission(t *testing.T, c *Config) {
	s := bare(c.Services[0])
	equal(t, s.Ban, Ban{20, time.Minute, 10 * time.Minute})
	equal(t, s.Queue, Queue{100, 10 * time.Second, true})
	equal(t, s.Failures, Failures{5, 10 * time.Second, 30 * time.Second})
	equal(t, s.Proxy, Proxy{[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")}, 3 * time.Second})
	equal(t, len(s.RefuseText), len(reasons))
	equal(t, s.RefuseText["queue-timeout"], "busy, come back later\n")
	equal(t, Problems(c.Warnings).Error(), strings.TrimSpace(`
admission.yaml:8:29: services.defaults.proxy_protocol.from[0]: "10.1.2.3/8" has bits beyond its network (write 10.0.0.0/8)
admission.yaml:16:33: services.hours.hours[1]: the comma before "13:00-17:00" begins hours of their own (quote the whole, or put a blank after the comma)`))
	var hours []string
	for _, h := range c.Services[1].Hours {
		hours = append(hours, fmt.Sprintf("%s %s %v", &h, h.Place, h.Spans))
	}
	equal(t, hours, []string{
		"Mon-Fri 08:00-12:00 Local [{480 720}]", "13:00-17:00 Local [{780 1020}]",
		"Sat Local [{0 1440}]", "Sun 22:00-06:00 Europe/Berlin Europe/Berlin [{1320 1800}]"})
	equal(t, c.Services[1].MaxLoad, 4.0)
	equal(t, c.Services[1].Rate, Rate{10, time.Second, 10})
	equal(t, c.Services[2].RefuseText, map[string]string{"limit": "full\n", "draining": "5", "failing": "paused\n"})
	equal(t, c.Services[3].RefuseText["failing"], "paused")
	equal(t, c.Services[3].RefuseText["spawn"], "busy")
}

func checkControl(t *testing.T, c *Config) {
	equal(t, c.Control, Control{"/run/other/superd.sock", true, 0o666, "adm", Position{"control.yaml", 2, 9}})
	equal(t, Problems(c.Warnings).Error(), "control.yaml:4:9: control.mode: lets every user of this machine ask superd who is connected")
}

func checkHTTP(t *testing.T, c *Config) {
	equal(t, c.HTTP, HTTP{[]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9116"), netip.MustParseAddrPort("[::1]:9116")}, Position{"http.yaml", 1, 16}})
	equal(t, len(c.Warnings), 0)
}

func checkHTTPEverywhere(t *testing.T, c *Config) {
	equal(t, c.HTTP.Listen, []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:9116")})
	equal(t, Problems(c.Warnings).Error(),
		"http-everywhere.yaml:1:16: http.listen: 0.0.0.0 is not a loopback address: whoever reaches it sees how superd is used")
}

// TestLoadControl: whatever else is wrong with a file, it says where its superd
// can be asked.
func TestLoadControl(t *testing.T) {
	path := filepath.Join(t.TempDir(), "superd.yaml")
	for text, want := range map[string]string{
		"services: {echo: {listen: 7, builtin: echo}}":                   "/run/superd/control.sock false",
		"control: {path: /x}\nservices: {echo: {lisen: 7}}":              "/x true",
		"control: {path: /x}\nnonsense: [1]\nlog: {level: loud}":         "/x true",
		"control: {path: /x}\nservices: {e: {listen: 'no.such.host:7'}}": "/x true",
		"control: {path: x}":                path + `:1:17: control.path: must be an absolute path, not "x" (begin it with /)`,
		"control: {paht: /x}":               path + ":1:11: control.paht: unknown key (did you mean path?)",
		"control: [":                        path + ":1:10: the file ends inside brackets (close them)",
		"":                                  path + ":1:1: the file is empty (name at least one service)",
		"control: /x\nservices: {echo: {}}": path + ":1:10: control: must be a mapping, not \"/x\"",
	} {
		write(t, path, text)
		c, err := LoadControl(path)
		got := fmt.Sprint(c.Path, " ", c.PathSet)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got\n%s\nwant\n%s", text, got, want)
		}
	}
	_, err := LoadControl(path + ".none")
	equal(t, err.Error(), "cannot read "+path+".none: no such file or directory")
}

func checkUnix(t *testing.T, c *Config) {
	path := "services.local.listen"
	long := "/" + strings.Repeat("a", 106)
	equal(t, bare(c.Services[0]).Listen, []Listener{
		{Spec: "unix:/run/local.sock", Family: Unix, Type: "stream", Name: "/run/local.sock", NoDelay: true, Mode: 0o660, Path: path + "[0]"},
		{Spec: "unix:@local", Family: Unix, Type: "stream", Name: "@local", NoDelay: true, Mode: 0o660, Path: path + "[1]"},
		{Spec: "unix:/run/a b:c", Family: Unix, Type: "stream", Name: "/run/a b:c", Backlog: 5, NoDelay: true, Mode: 0o600, Owner: "www-data", Group: "4",
			Path: path + "[2].address"},
		{Spec: "unix:" + long, Family: Unix, Type: "stream", Name: long, NoDelay: true, Mode: 0o660, Path: path + "[3]"},
		{Spec: "unix:@" + long, Family: Unix, Type: "stream", Name: "@" + long, NoDelay: true, Mode: 0o660, Path: path + "[4]"},
	})
	equal(t, c.Services[1].Listen[0].Type, "seqpacket")
	l := c.Services[0].Listen
	equal(t, l[2].Problem("owner", "is unknown", "").Error(), "unix.yaml:7:71: "+path+"[2].owner: is unknown")
	equal(t, l[2].Problem("nodelay", "is odd", "").Error(), "unix.yaml:7:19: "+path+"[2].address: is odd")
	equal(t, l[0].Problem("owner", "is unknown", "").Error(), "unix.yaml:5:9: "+path+"[0]: is unknown")
}

func checkInherited(t *testing.T, c *Config) {
	path := "services.web.listen"
	equal(t, bare(c.Services[0]).Listen, []Listener{
		{Spec: "fd:web", Family: Inherited, Name: "web", Label: "web", NoDelay: true, Path: path + "[0]"},
		{Spec: "fd:superd.socket", Family: Inherited, Name: "superd.socket", Label: "superd.socket", NoDelay: true, Path: path + "[1]"},
		{Spec: "fd:a b/c", Family: Inherited, Name: "a b/c", Label: "a b/c", Backlog: 7, KeepAlive: KeepAlive{On: true, Idle: time.Minute}, Path: path + "[2].address"},
	})
	l := c.Services[0].Listen[2]
	equal(t, []bool{l.Written("nodelay"), l.Written("mode"), l.Written("address")}, []bool{true, false, true})
	plain := c.Services[0].Listen[0]
	equal(t, []bool{plain.Written("nodelay"), plain.Written("address")}, []bool{false, false})
}

// checkWait: what concerns single connections is off where the program accepts
// them, and what concerns its starts is not.
func checkWait(t *testing.T, c *Config) {
	inetd, systemd := c.Services[0], c.Services[1]
	equal(t, []string{inetd.Wait, systemd.Wait, c.Services[2].Wait}, []string{WaitStdin, WaitListenFDs, ""})
	equal(t, []string{systemd.Listen[0].Label, systemd.Listen[1].Label}, []string{"web server", ""})
	equal(t, inetd.Failures, Failures{2, 10 * time.Second, 30 * time.Second})
	equal(t, systemd.Failures, Failures{5, 10 * time.Second, 30 * time.Second})
	equal(t, inetd.Rate, Rate{5, time.Second, 5})
	equal(t, systemd.Timeout, Timeouts{Session: time.Hour, Stop: 5 * time.Second})
	equal(t, []int{systemd.Max, systemd.MaxPerSource, len(systemd.RefuseText), c.Services[2].Max}, []int{0, 0, 0, 3})
	equal(t, []bool{inetd.Keep, systemd.Keep, c.Services[2].Keep}, []bool{false, false, true})
	var keys []string
	for _, w := range c.Warnings {
		if !strings.HasPrefix(w.What, "has no effect with wait") {
			t.Errorf("it warns: %v", w)
		}
		keys = append(keys, strings.TrimPrefix(w.Path, "services.systemd."))
	}
	slices.Sort(keys)
	equal(t, strings.Join(keys, " "), "allow ban deny failures.text keep linger max max_per_source on_limit queue rate_per_source refuse_text source_prefix timeout.idle")
}

func checkUDP(t *testing.T, c *Config) {
	var got []string
	for _, l := range slices.Concat(c.Services[0].Listen, c.Services[2].Listen) {
		got = append(got, fmt.Sprintf("%s %s optional=%t dual=%t datagrams=%t", l.Spec, l.Place(), l.Optional, l.Dual, l.Datagrams()))
	}
	equal(t, strings.Join(got, "\n"), strings.TrimSpace(`
udp:69 udp:0.0.0.0:69 optional=false dual=false datagrams=true
udp:69 udp:[::]:69 optional=true dual=false datagrams=true
udp:127.0.0.1:1069 udp:127.0.0.1:1069 optional=false dual=false datagrams=true
udp:[::1]:tftp udp:[::1]:7000 optional=false dual=false datagrams=true
udp:[::]:70 udp:[::]:70 optional=false dual=true datagrams=true
udp:localhost:0 udp:127.0.0.1:0 optional=false dual=false datagrams=true
udp:localhost:0 udp:[::1]:0 optional=false dual=false datagrams=true
udp:localhost:0 udp:127.0.0.1:0 optional=false dual=false datagrams=true
udp:localhost:0 udp:[::1]:0 optional=false dual=false datagrams=true
unix:/run/log unix:/run/log optional=false dual=false datagrams=true
unix:@log unix:@log optional=false dual=false datagrams=true`))
	equal(t, c.Services[1].Listen[0].Datagrams(), false)
	equal(t, len(c.Warnings), 0)
}

func checkVSock(t *testing.T, c *Config) {
	at := func(n int) string { return fmt.Sprintf("services.guest.listen[%d]", n) }
	l := Listener{Family: VSock, CID: AnyCID, Type: "stream", NoDelay: true}
	want := []Listener{l, l, l, l, l, l}
	want[0].Spec, want[0].Port = "vsock:1234", 1234
	want[1].Spec, want[1].CID, want[1].Port = "vsock:3:1235", 3, 1235
	want[2].Spec, want[2].CID, want[2].Port = "vsock:4:1235", 4, 1235
	want[3].Spec, want[4].Spec = "vsock:0", "vsock:0"
	want[5].Spec, want[5].CID, want[5].Port, want[5].Type, want[5].Backlog = "vsock:1:4294967294", 1, 4294967294, "seqpacket", 9
	for i := range want {
		want[i].Path = at(i)
	}
	want[5].Path += ".address"
	equal(t, bare(c.Services[0]).Listen, want)
	equal(t, []string{want[0].Place(), want[1].Place()}, []string{"vsock:1234", "vsock:3:1235"})
	equal(t, []bool{want[0].KernelsChoice(), want[3].KernelsChoice()}, []bool{false, true})
}

// checkTCPMux: who comes by a name has the limits of what the name stands for.
func checkTCPMux(t *testing.T, c *Config) {
	mux, both := c.Services[0], c.Services[2]
	for i, want := range []string{"", MuxAnswered, MuxPlain, MuxAnswered, MuxAnswered, ""} {
		equal(t, c.Services[i].Mux, want)
	}
	equal(t, []int{mux.Max, mux.RatePerSource.Count, both.Max, c.Services[1].Max}, []int{0, 1, 0, 3})
	equal(t, []int{len(mux.Listen), len(both.Listen), len(c.Services[1].Listen)}, []int{3, 2, 0})
	equal(t, mux.Failures, Failures{})
	var keys []string
	for _, w := range c.Warnings {
		if w.Path == "services.both.tcpmux" {
			equal(t, w.What, "echo does not say the line with + that the client waits for")
			continue
		}
		if w.What != "has no effect with builtin: tcpmux, which starts no program" {
			t.Errorf("it warns: %v", w)
		}
		keys = append(keys, strings.TrimPrefix(w.Path, "services.mux."))
	}
	slices.Sort(keys)
	equal(t, strings.Join(keys, " "), "failures max sandbox timeout.session user")
}

// warnsOf wants these warnings.
func warnsOf(lines ...string) func(*testing.T, *Config) {
	return func(t *testing.T, c *Config) { equal(t, Problems(c.Warnings).Error(), strings.Join(lines, "\n")) }
}
