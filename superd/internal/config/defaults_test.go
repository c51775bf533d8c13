package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// effective is the service x of a file with defaults.
func effective(t *testing.T, defaults, keys string) *Service {
	t.Helper()
	return parse(t, "defaults: {"+defaults+"}\nservices: {x: {"+keys+"}}").Services[0]
}

// TestDefaults: a service with defaults is as if it had been written out.
func TestDefaults(t *testing.T) {
	const base = "listen: 7, builtin: echo"
	for _, test := range []struct{ defaults, own, same string }{
		{"user: nobody, max: 100", "", "user: nobody, max: 100"},
		{"user: nobody, max: 100", "max: 7", "user: nobody, max: 7"},
		{"groups: [a, b]", "groups: [c]", "groups: [c]"},
		{"groups: [a, b]", "groups: []", "groups: []"},
		{"allow: [10.0.0.0/8]", "allow: [192.0.2.1]", "allow: [192.0.2.1]"},
		{"allow: [10.0.0.0/8]", "deny: [10.0.0.1]", "allow: [10.0.0.0/8], deny: [10.0.0.1]"},
		{"timeout: {idle: 1m, session: 1h}", "timeout: {idle: 2m}", "timeout: {idle: 2m, session: 1h}"},
		{"timeout: {idle: 1m, session: 1h}", "timeout: {}", "timeout: {idle: 1m, session: 1h}"},
		{"queue: {length: 5}", "queue: {timeout: 1s}", "queue: {length: 5, timeout: 1s}"},
		{"queue: {}", "", "queue: {}"},
		{"ban: {after: 3, for: 1h}", "ban: {for: 2h}", "ban: {after: 3, for: 2h}"},
		{"failures: {after: 3, text: no}", "failures: {pause: 1m}", "failures: {after: 3, pause: 1m, text: no}"},
		{"source_prefix: {ipv4: 24}", "source_prefix: {ipv6: 48}", "source_prefix: {ipv4: 24, ipv6: 48}"},
		{"proxy_protocol: {from: [10.0.0.1], timeout: 1s}", "proxy_protocol: {from: [10.0.0.2]}", "proxy_protocol: {from: [10.0.0.2], timeout: 1s}"},
		{"env: {A: 1, B: 2}", "env: {B: 3, C: 4}", "env: {B: 3, C: 4, A: 1}"},
		{"rlimits: {nofile: {soft: 5, hard: 9}, core: 0}", "rlimits: {nofile: 7}", "rlimits: {nofile: 7, core: 0}"},
		{"cgroup: {memory: 64M, tasks: 9}", "cgroup: {per_connection: true, tasks: 5}", "cgroup: {memory: 64M, tasks: 5, per_connection: true}"},
		{"sandbox: strict", "sandbox: {read: [/srv]}", "sandbox: {preset: strict, read: [/srv]}"},
		{"sandbox: strict", "sandbox: basic", "sandbox: basic"},
		{"sandbox: {preset: strict, read: [/a], write: [/b]}", "sandbox: {read: [/c]}", "sandbox: {preset: strict, read: [/c], write: [/b]}"},
		{"sandbox: {network: false}", "sandbox: strict", "sandbox: strict"},
		{"sandbox: {network: false}", "sandbox: {preset: basic}", "sandbox: {preset: basic, network: false}"},
		{"sandbox: {network: false}", "sandbox: {}", "sandbox: {network: false}"},
		{"refuse_text: no", "refuse_text: {limit: full}", "refuse_text: {limit: full}"},
		{"refuse_text: {limit: a, load: b}", "refuse_text: {limit: full}", "refuse_text: {limit: full, load: b}"},
		{"failures: {text: a}", "refuse_text: {failing: b}", "failures: {}, refuse_text: {failing: b}"},
		{"failures: {text: a}", "refuse_text: {limit: b}", "failures: {text: a}, refuse_text: {limit: b}"},
		{"failures: {text: a}", "refuse_text: b", "failures: {}, refuse_text: b"},
		{"refuse_text: {failing: a}", "failures: {text: b}", "refuse_text: {failing: b}, failures: {}"},
		{"stderr: client", "stderr: null", "stderr: null"},
		// Null does without.
		{"max: 100, user: nobody", "max: null", "user: nobody"},
		{"allow: [10.0.0.0/8]", "allow: ~", ""},
		{"timeout: {idle: 1m, session: 1h}", "timeout: {idle: null}", "timeout: {session: 1h}"},
		{"timeout: {idle: 1m, session: 1h}", "timeout: Null", ""},
		{"env: {A: 1, B: 2}", "env: {A: null}", "env: {B: 2}"},
		{"sandbox: strict", "sandbox: null", ""},
		{"sandbox: strict", "sandbox: {preset: null}", "sandbox: {}"},
		// What opens nothing where it is missing is left out where it has no meaning.
		{"timeout: {first_byte: 9s, session: 1h}", "builtin: greeting", "builtin: greeting, timeout: {session: 1h}"},
		{"linger: 1s, keep: true, refuse_text: no", "listen: udp:7", "listen: udp:7"},
		{"failures: {after: 3, text: no}", "listen: udp:7", "listen: udp:7, failures: {after: 3}"},
		{"linger: 1s, on_limit: refuse, queue: {}, stderr: client, source_prefix: {ipv4: 24}, user: nobody", "builtin: null, run: /bin/cat, wait: true", "builtin: null, run: /bin/cat, wait: true, user: nobody"},
		{"linger: 1s", "keep: false", "keep: false"},
		// What concerns programs is for those who start some.
		{"user: nobody, max: 100, sandbox: strict, rate: 5/s, timeout: {session: 1h}", "builtin: tcpmux", "builtin: tcpmux, rate: 5/s"},
	} {
		without := func(keys string) string { // a key of base that keys have otherwise
			for _, pair := range strings.Split(base, ", ") {
				name, _, _ := strings.Cut(pair, ":")
				if !strings.Contains(keys, name+": ") {
					keys += ", " + pair
				}
			}
			return strings.TrimPrefix(strings.ReplaceAll(keys, "builtin: null, ", ""), ", ")
		}
		got, want := bareListen(effective(t, test.defaults, without(test.own))), bareListen(parse(t, "services: {x: {"+without(test.same)+"}}").Services[0])
		for _, s := range []*Service{&got, &want} {
			slices.SortFunc(s.Env, func(a, b EnvVar) int { return strings.Compare(a.Name, b.Name) })
			for i := range s.Rules {
				s.Rules[i].Override = nil
			}
		}
		if strings.Contains(test.own, "tcpmux") { // a service alone that leads to nobody has its warning in any case
			got.Sandbox, got.User, want.Sandbox, want.User, got.Timeout, want.Timeout = Sandbox{}, "", Sandbox{}, "", Timeouts{}, Timeouts{}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s with %s is\n%+v\nnot\n%+v", test.own, test.defaults, got, want)
		}
	}
}

// TestDefaultsWarnOfNothing: a default that a service does without is not told of.
func TestDefaultsWarnOfNothing(t *testing.T) {
	c := parse(t, `
defaults: {user: nobody, max: 100, linger: 1s, timeout: {first_byte: 5s}, rlimits: {core: 0}}
services:
  one: {listen: 7, builtin: tcpmux}
  two: {listen: "udp:7", builtin: echo}
  three: {tcpmux: true, builtin: greeting}
  four: {listen: 8, run: /bin/cat, wait: stdin, max: null}
`)
	if len(c.Warnings) > 0 {
		t.Error(c.Warnings)
	}
}

func TestBadDefaults(t *testing.T) {
	const service = "\nservices: {x: {listen: 7, builtin: echo}, y: {listen: 8, builtin: echo}}"
	for name, test := range map[string]struct{ text, want string }{
		"once":          {"defaults: {max: 0}" + service, `1:17: defaults.max: must be a whole number from 1 to 4194304, not "0" (leave it out, or say enabled: false)`},
		"inside":        {"defaults: {timeout: {idle: 5}}" + service, `1:28: defaults.timeout.idle: must be a duration such as 10s, 500ms or 1h30m, not "5" (write 5s)`},
		"in a list":     {"defaults: {allow: [10.0.0.0/8, x]}" + service, `1:32: defaults.allow[1]: "x" is not an address (names of hosts are not accepted: they change)`},
		"a file":        {`defaults: {allow: ["@/rules/wrong"]}` + service, "/rules/wrong:2:3: defaults.allow[0]: in \"1.2.3.4/33\", the length 33 is more than 32"},
		"no file":       {`defaults: {allow: ["@/rules/none"]}` + service, "1:20: defaults.allow[0]: the file /rules/none does not exist (create it: an empty one has no rules)"},
		"unknown":       {"defaults: {usr: nobody, timeout: {idel: 1s}}" + service, "1:12: defaults.usr: unknown key (did you mean user?)\n1:35: defaults.timeout.idel: unknown key (did you mean idle?)"},
		"repeated":      {"defaults: {max: 1, max: 2}" + service, "1:20: defaults.max: repeated, already on line 1"},
		"no mapping":    {"defaults: strict" + service, `1:11: defaults: must be a mapping of service keys, not "strict"`},
		"nothing":       {"defaults:" + service, "1:10: defaults: has no value, must be a mapping of service keys"},
		"incomplete":    {"defaults: {cgroup: {per_connection: true}}" + service, "1:20: defaults.cgroup: limits nothing (add memory, tasks or cpu)"},
		"contradictory": {"defaults: {sandbox: {no_new_privs: false}}" + service, "1:36: defaults.sandbox.no_new_privs: must be true with system_calls: default (an ordinary user may not set a filter otherwise; system_calls: all is without one)"},
		"of a service":  {"defaults: {listen: 7}" + service, "1:12: defaults.listen: belongs to one service and has no default (write it at the services)"},
		"null":          {"defaults: {}\nservices: {x: {listen: 7, builtin: echo, max: null}}", "2:47: services.x.max: has no value, must be a whole number from 1 to 4194304"},
		"empty":         {"defaults: {max: 1}\nservices: {x: {listen: 7, builtin: echo, max: }}", "2:47: services.x.max: has no value, must be a whole number from 1 to 4194304"},
		"with wait": {"defaults: {max: 100, timeout: {idle: 1m}}\nservices: {x: {listen: 7, run: /bin/cat, wait: true}}",
			"2:12: services.x.max: the default at test.yaml:1:17 does not fit here: has no effect with wait (write a value of its own, or max: null to do without)\n" +
				"2:12: services.x.timeout.idle: the default at test.yaml:1:38 does not fit here: has no effect with wait (write a value of its own, or timeout: {idle: null} to do without)"},
		"of datagrams": {"defaults: {proxy_protocol: {from: [10.0.0.1]}}\nservices: {x: {listen: 'udp:7', builtin: echo}}",
			"2:12: services.x.proxy_protocol: the default at test.yaml:1:28 does not fit here: has no meaning for datagrams: nobody connects, and who sends one is not the proxy (write a value of its own, or proxy_protocol: null to do without)"},
		"of tcpmux": {"defaults: {proxy_protocol: {from: [10.0.0.1]}}\nservices: {x: {tcpmux: true, builtin: echo}, m: {listen: 1, builtin: tcpmux}}",
			"2:12: services.x.proxy_protocol: the default at test.yaml:1:28 does not fit here: has no meaning with tcpmux (write a value of its own, or proxy_protocol: null to do without)"},
		"an override": {"defaults: {allow: [{from: 10.0.0.1, run: /bin/cat}]}\nservices: {x: {tcpmux: true, builtin: echo}, m: {listen: 1, builtin: tcpmux}}",
			"2:46: services.m.allow[0]: the default at test.yaml:1:27 does not fit here: env and run have no meaning with builtin: tcpmux, which starts no program (write a value of its own, or allow: null to do without)"},
		"walls that exclude": {"defaults: {sandbox: {no_new_privs: false, system_calls: all}}\nservices: {x: {listen: 7, builtin: echo, sandbox: {read: [/srv]}}}",
			"2:12: services.x.sandbox.no_new_privs: the default at test.yaml:1:36 does not fit here: must be true with read, write or exec (write a value of its own, or sandbox: {no_new_privs: null} to do without)"},
	} {
		if got := strings.ReplaceAll("\n"+problemsOf(t, test.text), "\ntest.yaml:", "\n"); got != "\n"+test.want {
			t.Errorf("%s: got%s\nwant\n%s", name, got, test.want)
		}
	}
	for _, k := range Keys() {
		name, is := strings.CutPrefix(k.Path, "services.*.")
		if !is || strings.Contains(name, ".") {
			continue
		}
		got := problemsOf(t, "defaults: {"+name+": [[\"\"]]}"+service)
		if own := strings.Contains(got, "belongs to one service"); own != (k.Common == Own) || strings.Count(got, "\n") > 0 {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestDefaultsOfIncluded: a value is where it was written, in whatever file.
func TestDefaultsOfIncluded(t *testing.T) {
	main := "include: [a.yaml]\ndefaults:\n  user: nobody\n  timeout: &t {session: 1h}\n  sandbox: strict\n"
	c, err := parseTree(main, map[string]string{"etc/a.yaml": "services:\n  a:\n    listen: 0\n    builtin: echo\n    timeout: {idle: 1m}\n    sandbox: {read: [/srv]}\n"})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Services[0]
	for key, want := range map[string]string{
		"user": "main.yaml:3:9", "timeout.session": "main.yaml:4:25", "timeout.idle": "a.yaml:5:21", "timeout": "a.yaml:5:14", "timeout.stop": "a.yaml:5:14",
		"sandbox": "a.yaml:6:14", "sandbox.preset": "main.yaml:5:12", "sandbox.read[0]": "a.yaml:6:22", "group": "a.yaml:2:3",
	} {
		equal(t, key+" "+s.Where(key).String(), key+" etc/"+want)
	}
	for key, want := range map[string]bool{"user": true, "timeout.session": true, "timeout.idle": false, "timeout": false, "sandbox.preset": true, "sandbox": false, "group": false, "": false} {
		if s.FromDefaults(key) != want {
			t.Errorf("%s is from defaults: %v", key, !want)
		}
	}
	_, err = parseTree(main, map[string]string{"etc/a.yaml": one("a", "listen: 0, run: /bin/cat, wait: true, max: 0, timeout: {session: x}")})
	want := "etc/a.yaml:1:59: services.a.max: must be a whole number from 1 to 4194304, not \"0\" (leave it out, or say enabled: false)\n" +
		"etc/a.yaml:1:81: services.a.timeout.session: must be a duration such as 10s, 500ms or 1h30m, not \"x\" (the units are h, m, s and ms)"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// TestChangesOfDefaults: a service has changed where what it has from defaults
// has, and not where that has come to be written elsewhere.
func TestChangesOfDefaults(t *testing.T) {
	before := effective(t, "max: 10, env: {A: secret}", "listen: 7, builtin: echo, user: nobody")
	after := effective(t, "max: 20, env: {A: other}, user: nobody", "listen: 7, builtin: echo")
	equal(t, after.Changes(before), []string{"env.A", "max: 10 -> 20"})
	moved := effective(t, "user: nobody", "listen: 7, builtin: echo, max: 10, env: {A: secret}")
	equal(t, moved.Changes(before), []string(nil))
	dropped := effective(t, "linger: 5s", "listen: 'udp:7', builtin: echo")
	equal(t, dropped.Changes(effective(t, "linger: 6s", "listen: 'udp:7', builtin: echo")), []string(nil))
	c := parse(t, "defaults: {max: 1, env: {A: a}}\nservices: {x: {listen: 7, builtin: echo}}")
	d := parse(t, "defaults: {max: 2, env: {A: b}}\nservices: {x: {listen: 7, builtin: echo}}")
	equal(t, d.Changes(c), []string{"defaults.env.A", "defaults.max: 1 -> 2"})
}

// TestOnce: what many services have from defaults is told once.
func TestOnce(t *testing.T) {
	c := parse(t, `defaults: {user: nobody, dir: /srv}
services:
  a: {listen: 1, builtin: echo}
  a.user: {listen: 2, builtin: echo}
  b: {listen: 3, builtin: echo, user: root}
  c: {listen: 4, builtin: echo, dir: /c}
  d: {listen: 5, builtin: echo}
  e: {listen: 6, builtin: echo}
`)
	all := func(key, what string, names ...string) (list Problems) {
		for _, s := range c.Services {
			if slices.Contains(names, s.Name) {
				list = append(list, s.Problem(key, what, ""))
			}
		}
		return list
	}
	list := slices.Concat(
		all("user", "no such user", "a", "a.user", "c", "d", "e"),
		all("user", "no such user", "b"),
		all("dir", "does not exist", "a"),
		all("dir", "is closed", "a", "a.user"),
		all("dir", "is open", "a", "a.user", "b", "d"),
		all("dir", "is small", "c"),
		all("run", "is gone", "a", "b"))
	want := []string{
		"test.yaml:1:18: defaults.user: no such user",
		"test.yaml:5:39: services.b.user: no such user",
		"test.yaml:1:31: services.a.dir: does not exist",
		"test.yaml:1:31: defaults.dir: is closed, in the services a and a.user",
		"test.yaml:1:31: defaults.dir: is open, in the services a, a.user, b and 1 more",
		"test.yaml:6:38: services.c.dir: is small",
		"test.yaml:3:3: services.a.run: is gone",
		"test.yaml:5:3: services.b.run: is gone",
	}
	for range 2 { // again it is as it was
		list = c.Once(list)
		if got := strings.Split(list.Error(), "\n"); !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestDefaultsAreBounded has no clock, as TestHostileFiles.
func TestDefaultsAreBounded(t *testing.T) {
	var services strings.Builder
	for i := range 25 {
		fmt.Fprintf(&services, "  s%d: {listen: 0, builtin: echo}\n", i)
	}
	text := "defaults: {env_pass: [" + strings.TrimSuffix(strings.Repeat("A, ", longestList), ", ") + "]}\nservices:\n" + services.String()
	if got := problemsOf(t, text); !strings.Contains(got, "test.yaml:1:11: defaults: adds more than 200000 values to the services") {
		t.Errorf("got %.300s", got)
	}
}
