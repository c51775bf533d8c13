package main

import (
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/spawn"
)

// What the file says about who may come in, up to those who decide.

// withFiles is a System with files of rules.
type withFiles struct {
	documentedNames
	files map[string]string
}

func (s withFiles) ReadFile(path string, _ int64) ([]byte, error) {
	if text, is := s.files[path]; is {
		return []byte(text), nil
	}
	return nil, fs.ErrNotExist
}

// twoAccounts knows the user alice and the group staff.
func twoAccounts(t *testing.T) *identities {
	dir := t.TempDir()
	return newIdentities(spawn.Databases{
		Passwd: writeFile(t, dir, "passwd", "alice:x:501:501::/:/bin/sh\n", 0o644),
		Group:  writeFile(t, dir, "group", "staff:x:50:\n", 0o644),
		Getent: func(string, string) (string, error) { return "", nil },
	})
}

// admitted is the admission of the only service of a file.
func admitted(t *testing.T, yaml string, files map[string]string) (*admission, config.Problems) {
	t.Helper()
	c, err := config.Parse("x.yaml", []byte(yaml), withFiles{files: files})
	if err != nil {
		t.Fatal(err)
	}
	return admissionOf(c.Services[0], twoAccounts(t))
}

// serving is a file of one service with these keys.
func serving(keys string) string { return "services: {x: {listen: 7, run: /bin/cat, " + keys + "}}" }

// echoing is the same with a built-in.
func echoing(keys string) string { return "services: {x: {listen: 7, builtin: echo, " + keys + "}}" }

// TestDoubts: what is allowed and probably not meant, and what is none of it.
func TestDoubts(t *testing.T) {
	files := map[string]string{"/empty": "# nobody\n", "/office": "10.0.0.0/8\nuid:7\n", "/many": manyHosts(30)}
	for name, test := range map[string]struct{ yaml, want string }{
		"nothing": {serving(""), ""},
		"datagrams of everybody": {"services: {x: {listen: [7, udp:7], builtin: echo}}",
			"x.yaml:1:28: services.x.listen[1]: echo answers datagrams of everybody, who can make it answer others (name with allow whom it is for, or listen on 127.0.0.1)"},
		"datagrams of few":       {"services: {x: {listen: udp:7, builtin: echo, allow: [10.0.0.0/8]}}", ""},
		"datagrams of here":      {"services: {x: {listen: [\"udp:127.0.0.1:7\", \"udp:[::1]:7\"], builtin: time}}", ""},
		"datagrams for nobody":   {"services: {x: {listen: udp:9, builtin: discard}}", ""},
		"datagrams to a program": {"services: {x: {listen: udp:9, run: /bin/cat}}", ""},
		"all in order":           {serving("allow: [10.0.0.0/8], deny: [10.1.0.0/16], max: 5, max_per_source: 5, on_limit: refuse, ban: {}, failures: {}"), ""},
		"the empty list":         {serving("allow: []"), "x.yaml:1:49: services.x.allow: the list is empty: nobody may come in (leave it out to let everybody in, or say enabled: false)"},
		"an empty file":          {serving(`allow: ["@/empty"]`), "x.yaml:1:49: services.x.allow: the list is empty: nobody may come in (leave it out to let everybody in, or say enabled: false)"},

		"users of inet":            {serving("allow: [10.0.0.0/8, uid:7]"), "x.yaml:1:62: services.x.allow[1]: uid:7 has no effect: only clients of unix sockets have a user"},
		"a file for several":       {serving(`allow: ["@/office"]`), ""},
		"repeated":                 {serving("allow: [10.0.0.0/8, 10.0.0.0/8]"), "x.yaml:1:62: services.x.allow[1]: allow 10.0.0.0/8 has no effect: it repeats another rule (allow 10.0.0.0/8 at x.yaml:1:50)"},
		"denied":                   {serving("allow: [10.0.0.0/8, 11.0.0.0/8], deny: [10.0.0.0/8]"), "x.yaml:1:50: services.x.allow[0]: allow 10.0.0.0/8 has no effect: the same is denied (deny 10.0.0.0/8 at x.yaml:1:82)"},
		"inside":                   {serving(`allow: ["@/office", 10.1.0.0/16]`), "x.yaml:1:62: services.x.allow[1]: allow 10.1.0.0/16 has no effect: it says what a wider rule says (allow 10.0.0.0/8 at /office:1:1)"},
		"inside, with a limit":     {serving(`allow: ["@/office", {from: 10.1.0.0/16, max_per_source: 3}]`), ""},
		"inside, with a variable":  {serving(`allow: ["@/office", {from: 10.1.0.0/16, env: {A: b}}]`), ""},
		"filled":                   {serving("deny: [10.0.0.0/8, 10.0.0.0/9, 10.128.0.0/9]"), "x.yaml:1:49: services.x.deny[0]: deny 10.0.0.0/8 has no effect: more specific rules leave nobody to it"},
		"refused anyway":           {serving("allow: [10.0.0.0/8], deny: [11.0.0.0/8]"), "x.yaml:1:70: services.x.deny[0]: deny 11.0.0.0/8 has no effect: whom no rule allows is refused anyway"},
		"no more than can be read": {serving(`deny: [10.0.0.0/8, "@/many"]`), "*x.yaml: 21: /many:21:1: services.x.deny[1]: 10 more rules have no effect"},

		"a queue nobody waits in":     {serving("on_limit: refuse, queue: {length: 5}"), "x.yaml:1:67: services.x.queue: has no effect with on_limit: refuse"},
		"more than all":               {serving("max: 5, max_per_source: 6"), "x.yaml:1:66: services.x.max_per_source: has no effect: max is 5"},
		"faster than all":             {serving("rate: 30/m, rate_per_source: 1/s burst 30"), "x.yaml:1:71: services.x.rate_per_source: has no effect: rate is 30/m"},
		"slower than all":             {serving("rate: 30/m, rate_per_source: 29/m burst 100"), ""},
		"a larger burst":              {serving("rate: 30/m burst 100, rate_per_source: 1/s"), ""},
		"a ban of a program's":        {serving("ban: {}"), ""},
		"a ban of nobody":             {echoing("ban: {}"), "x.yaml:1:47: services.x.ban: has no effect: no client is refused for what it does itself, and a built-in does not fail (set max_per_source or rate_per_source)"},
		"a ban by a limit":            {echoing("ban: {}, max_per_source: 3"), ""},
		"a ban by a rule":             {echoing("ban: {}, deny: [10.0.0.1]"), ""},
		"a built-in that fails":       {echoing("failures: {}"), "x.yaml:1:52: services.x.failures: has no effect: a built-in does not fail"},
		"a program in its place":      {echoing("failures: {}, allow: [{from: '::/0', run: /bin/cat}]"), ""},
		"a first byte that comes":     {echoing("timeout: {first_byte: 3s}"), ""},
		"texts":                       {serving("refuse_text: busy"), ""},
		"texts that can be said":      {serving("max_per_source: 3, refuse_text: {queue-full: a, queue-timeout: b, spawn: c, draining: d, banned: e}"), ""},
		"texts that can, refusing":    {serving("on_limit: refuse, max: 3, allow: [{from: '::/0', max_per_source: 2, rate_per_source: 1/s}], refuse_text: {total-limit: a, limit: b, source-limit: c, source-rate: d, address: e}"), ""},
		"in the kernel's queue":       {serving("max: 3, refuse_text: {queue-full: a}"), "x.yaml:1:76: services.x.refuse_text.queue-full: is never said: all who wait for room do so in the kernel's queue"},
		"behind a proxy":              {serving("max: 3, proxy_protocol: {from: [10.0.0.1]}, refuse_text: {queue-full: a}"), ""},
		"in superd's":                 {serving("max: 3, queue: {}, refuse_text: {queue-full: a}"), ""},
		"a wait with another text":    {serving("max: 3, refuse_text: {limit: a}"), "x.yaml:1:71: services.x.refuse_text.limit: is never said: clients wait for room, the refusals are queue-full and queue-timeout"},
		"a refusal with another text": {serving("on_limit: refuse, refuse_text: {queue-full: a, limit: b}"), "x.yaml:1:86: services.x.refuse_text.queue-full: is never said: with on_limit: refuse nobody waits\nx.yaml:1:96: services.x.refuse_text.limit: is never said: there is no max"},
		"texts for what is not there": {serving("refuse_text: {address: a, hours: b, proxy: c, failing: d}"), strings.Join([]string{
			"x.yaml:1:65: services.x.refuse_text.address: is never said: there is neither allow nor deny",
			"x.yaml:1:75: services.x.refuse_text.hours: is never said: there are no hours",
			"x.yaml:1:85: services.x.refuse_text.proxy: is never said: there is no proxy_protocol",
			"x.yaml:1:97: services.x.refuse_text.failing: is never said: there is no failures"}, "\n")},
	} {
		a, problems := admitted(t, test.yaml, files)
		if problems != nil {
			t.Fatal(name, problems)
		}
		list := a.warnings()
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(a, b config.Problem) int { return a.At.Column - b.At.Column })
		got := list.Error()
		if test.want != "" && test.want[0] == '*' {
			got = fmt.Sprintf("*x.yaml: %d: %s", len(list), a.warnings()[len(list)-1].Error())
		}
		if got != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, test.want)
		}
	}
}

func manyHosts(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "10.0.0.%d\n", i)
	}
	return text.String()
}

// TestAccountsOfRules: names become numbers, or problems where they stand.
func TestAccountsOfRules(t *testing.T) {
	files := map[string]string{"/staff": "gid:staff\nuid:bob\n"}
	a, problems := admitted(t, serving("allow: [uid:alice, gid:staff, uid:7]"), nil)
	if problems != nil {
		t.Fatal(problems)
	}
	var got []string
	for _, r := range a.rules.Access {
		got = append(got, r.Spec.String()+" as "+r.Words())
	}
	if want := []string{"uid:501 as allow uid:alice", "gid:50 as allow gid:staff", "uid:7 as allow uid:7"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	_, problems = admitted(t, serving(`allow: ["@/staff"], deny: [gid:wheel]`), files)
	want := `/staff:2:1: services.x.allow[0]: no such user: bob (create it, or write its number)
x.yaml:1:69: services.x.deny[0]: no such group: wheel (create it, or write its number)`
	if problems.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", problems, want)
	}
	many := map[string]string{"/staff": strings.Repeat("uid:bob\n", 1000)}
	if _, problems = admitted(t, serving(`allow: ["@/staff"]`), many); len(problems) != mostUnknown {
		t.Errorf("%d problems", len(problems))
	}
}

// TestRulesReachThePolicy: each key that decides does decide.
func TestRulesReachThePolicy(t *testing.T) {
	const text = `allow: [10.0.0.0/8, {from: 10.0.0.9, max_per_source: 2}], deny: [10.1.0.0/16], hours: ["08:00-18:00 UTC"],
		max: 4, max_per_source: 1, rate: 9/h, rate_per_source: 8/h, max_load: 2.5, source_prefix: {ipv4: 31},
		on_limit: refuse, queue: {length: 3, timeout: 2s}, ban: {after: 7, within: 1h, for: 2h}, failures: {after: 6, within: 5s, pause: 4s},
		proxy_protocol: {from: [10.9.9.9]}, refuse_text: {address: no}`
	a, problems := admitted(t, serving(text), nil)
	if problems != nil {
		t.Fatal(problems)
	}
	r := a.rules
	r.Access, r.Hours = nil, nil
	if got, want := fmt.Sprintf("%+v", r), "{Restricted:true Access:[] Hours:[] Max:4 MaxPerSource:1 Rate:9/h RatePerSource:8/h MaxLoad:2.5 "+
		"SourcePrefix:{IPv4:31 IPv6:64} Refuse:true Queue:{Length:3 Timeout:2s} Parks:true Ban:{After:7 Within:1h0m0s For:2h0m0s} "+
		"Failures:{After:6 Within:5s Pause:4s} Trusted:[10.9.9.9/32]}"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	g := admit.NewHouse(admit.Limits{}, nil).Gate("x", a.policy, nil)
	noon := admit.Moment{Wall: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)}
	for _, step := range []struct{ from, want string }{
		{"10.0.0.1", "entered"}, {"10.0.0.0", "source-limit"}, {"10.0.0.9", "entered"}, {"10.0.0.8", "source-limit"},
		{"10.0.0.9", "entered"}, {"10.1.0.1", "address"}, {"11.0.0.1", "address"}, {"10.0.0.4", "entered"}, {"10.0.0.6", "limit"},
	} {
		d := g.Ask(admit.Client{Addr: netip.MustParseAddr(step.from)}, noon)
		got := d.Verdict.String()
		if d.Verdict == admit.Refused {
			got = d.Reason.String()
		}
		if got != step.want {
			t.Errorf("%s: %s, want %s", step.from, got, step.want)
		}
	}
	if string(a.texts[admit.ReasonAddress]) != "no" || a.texts[admit.ReasonLimit] != nil {
		t.Errorf("%q", a.texts)
	}
}

// TestOverrides: what a rule changes of the service, and that its rules share it.
func TestOverrides(t *testing.T) {
	files := map[string]string{"/office": "10.0.0.0/8\n11.0.0.0/8\n"}
	a, problems := admitted(t, `services: {x: {listen: 7, run: /bin/cat, argv0: dog, env: {A: service, B: service}, allow: [
		{from: "@/office", env: {C: rule, B: rule}}, {from: 12.0.0.0/8, run: [/bin/true, x]}, 13.0.0.0/8]}}`, files)
	if problems != nil {
		t.Fatal(problems)
	}
	rules := a.rules.Access
	if len(a.overrides) != 2 || rules[0].Data != a.overrides[0] || rules[1].Data != a.overrides[0] || rules[2].Data != a.overrides[1] || rules[3].Data != nil {
		t.Fatalf("%d overrides in %+v", len(a.overrides), rules)
	}
	for i, want := range []string{"[/bin/cat] dog [{A service} {C rule} {B rule}]", "[/bin/true x]  [{A service} {B service}]"} {
		s := a.overrides[i].service
		if got := fmt.Sprint(s.Run, " ", s.Argv0, " ", s.Env); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if p := a.overrides[1].service.Problem("run", "is wrong", ""); p.Error() != "x.yaml:2:72: services.x.allow[1].run: is wrong" {
		t.Error(p.Error())
	}
	if p := a.overrides[0].service.Problem("run", "is wrong", ""); p.Error() != "x.yaml:1:32: services.x.run: is wrong" {
		t.Error(p.Error())
	}
	if own := a.service.Env; len(own) != 2 {
		t.Errorf("the service's own variables are %v", own)
	}
}

// TestCheckShowsRules: check looks at rules, and at the programs that they name.
func TestCheckShowsRules(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	office := writeFile(t, dir, "office", "10.0.0.0/8\n10.1.0.0/16\n", 0o644)
	file := writeFile(t, dir, "superd.yaml", "services:\n  x: {listen: 0, run: /bin/cat, allow: ['@"+office+"'], max_per_source: 3}\n", 0o644)
	code, out, complaints := finished(t, superd("check", "-v", "-c", file))
	shown := "    allow 10.0.0.0/8 (" + office + ":1:1)\n    rules without effect: 1\n    deny everybody else\n    max_per_source 3\n"
	warned := "warning: " + office + ":2:1: services.x.allow[0]: allow 10.1.0.0/16 has no effect: it says what a wider rule says (allow 10.0.0.0/8 at " + office + ":1:1)\n"
	if code != 0 || !strings.Contains(out, shown) || complaints != warned {
		t.Errorf("check -v ends with %d and says\n%s%s", code, out, complaints)
	}
	writeFile(t, dir, "office", "10.0.0.0/8\n1.2.3.4/33\n", 0o644)
	code, _, complaints = finished(t, superd("check", "-c", file))
	if want := office + ":2:1: services.x.allow[0]: in \"1.2.3.4/33\", the length 33 is more than 32\n"; code != 1 || complaints != want {
		t.Errorf("check ends with %d and says\n%s", code, complaints)
	}
	file = writeFile(t, dir, "superd.yaml", "services:\n  x: {listen: 0, builtin: echo, allow: [{from: 10.0.0.0/8, run: "+dir+"/none}]}\n", 0o644)
	code, _, complaints = finished(t, superd("check", "-c", file))
	if want := file + ":2:65: services.x.allow[0].run: the program " + dir + "/none does not exist\n"; code != 1 || complaints != want {
		t.Errorf("check ends with %d and says\n%s", code, complaints)
	}
}

// TestRulesAreRegularFiles: nothing that could keep superd waiting is read.
func TestRulesAreRegularFiles(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		pipe:          "cannot read " + pipe + ": it is not a regular file",
		"/dev/zero":   "cannot read /dev/zero: it is not a regular file",
		dir:           "cannot read " + dir + ": it is a directory",
		dir + "/none": "the file " + dir + "/none does not exist (create it: an empty one has no rules)",
	} {
		_, err := config.Parse("x.yaml", []byte(serving("allow: ['@"+path+"']")), config.Machine)
		if err == nil || err.Error() != "x.yaml:1:50: services.x.allow[0]: "+want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestDescribeAdmission: what check -v says about who may come in, word for word.
func TestDescribeAdmission(t *testing.T) {
	files := map[string]string{"/etc/superd/office": "10.0.0.0/8\n2001:db8::/32\n", "/etc/superd/many": manyHosts(mostDescribed + 50)}
	var all strings.Builder
	for _, keys := range []string{
		"max: 100",
		"max: 100, max_load: 2.5, timeout: {first_byte: 3s}",
		"allow: []",
		`deny: ["@/etc/superd/office", 10.1.2.3]`,
		`allow: ["@/etc/superd/office", 10.2.3.4/17, "::ffff:192.0.2.1", 198.51.100.0/24, uid:alice, gid:staff, 10.1.0.0/17,
			{from: "2001:db8::/48", max_per_source: 100, rate_per_source: 50/s burst 60, env: {ROLE: office, KEY: secret}, run: [/bin/cat, -n]}],
			deny: [172.16.0.0/12, 10.2.0.0/16]`,
		`allow: ["@/etc/superd/many"]`,
		`hours: ["Mon-Fri 08:00-18:00", "Sat 10:00-12:00 Europe/Berlin"], max: 100, max_per_source: 20, rate: 100/s, rate_per_source: 10/s burst 50,
			source_prefix: {ipv4: 24, ipv6: 56}, queue: {length: 7, timeout: 1m30s}, ban: {}, failures: {within: 1h, pause: 90m},
			refuse_text: {queue-full: a, banned: b}`,
		`on_limit: refuse, max: 1, refuse_text: busy, proxy_protocol: {from: [10.0.0.1, "2001:db8::/32"], timeout: 1.5s}`,
	} {
		a, problems := admitted(t, serving(keys), files)
		if problems != nil {
			t.Fatal(problems)
		}
		fmt.Fprintf(&all, "%s\n    %s\n\n", keys, strings.Join(a.describe(), "\n    "))
	}
	checkGolden(t, "admission", all.String())
}
