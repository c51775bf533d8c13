package config

import (
	"slices"
	"strings"
	"testing"
)

func TestChanges(t *testing.T) {
	parse := func(text string) *Service {
		c, err := Parse("test.yaml", []byte("services:\n  a:\n"+text), Machine)
		if err != nil {
			t.Fatal(err)
		}
		return c.Services[0]
	}
	before := parse(`
    listen: [7007, "127.0.0.1:7008"]
    builtin: echo
    max: 10
    timeout: {idle: 10s}
    env: {PASSWORD: secret}
    allow:
      - 10.0.0.0/8
      - {from: 192.0.2.0/24, max_per_source: 3}
`)
	after := parse(`
    max:     20  # more
    builtin: echo
    listen:
      - 7007
      - 127.0.0.1:7008
    env: {PASSWORD: another}
    allow: [10.0.0.0/8, {from: 192.0.2.0/24, max_per_source: 4}]
    timeout: {session: 1h}
    description: ""
`)
	want := []string{
		"allow: [10.0.0.0/8, {from: 192.0.2.0/24, max_per_source: 3}] -> [10.0.0.0/8, {from: 192.0.2.0/24, max_per_source: 4}]",
		`description: nothing -> ""`,
		"env.PASSWORD",
		"max: 10 -> 20",
		"timeout.idle: 10s -> nothing",
		"timeout.session: nothing -> 1h",
	}
	if got := after.Changes(before); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := before.Changes(before); got != nil {
		t.Errorf("a service differs from itself: %q", got)
	}
}

// TestChangesOfLongValues: what is shown of them is what differs.
func TestChangesOfLongValues(t *testing.T) {
	long := strings.Repeat("\u00e4", 100)
	for _, c := range []struct{ before, after, want string }{
		{`listen: [7001, 7002, 7003, 7004, "127.0.0.1:7005", "127.0.0.1:7006", "127.0.0.1:7007"]`,
			`listen: [7001, 7002, 7003, 7004, "127.0.0.1:7005", "127.0.0.1:7006", "127.0.0.1:7008"]`,
			"listen: [..., 127.0.0.1:7007] -> [..., 127.0.0.1:7008]"},
		{`listen: [7001, 7002, 7003, 7004, "127.0.0.1:7005", "127.0.0.1:7006", "127.0.0.1:7007"]`,
			`listen: [7001, 7002, 7003, 7004, "127.0.0.1:7006", "127.0.0.1:7007"]`,
			"listen: [..., 127.0.0.1:7005] -> [...]"},
		{`listen: 7001`, `listen: [7001, "127.0.0.1:7004", "127.0.0.1:7005", "127.0.0.1:7006", "127.0.0.1:7007"]`,
			`listen: 7001 -> "[7001, 127.0.0.1:7004, 127.0.0.1:7005, 127.0.0.1:7006, 127.0"...`},
		{`listen: ["127.0.0.1:7003", "127.0.0.1:7004", "127.0.0.1:7005", "127.0.0.1:7006", "127.0.0.1:7007"]`,
			`listen: ["127.0.0.1:7003", "127.0.0.1:7004", "127.0.0.1:7005", "127.0.0.1:7007", "127.0.0.1:7006"]`,
			"listen: ...:7005, 127.0.0.1:7006, 127.0.0.1:7007] -> ...:7005, 127.0.0.1:7007, 127.0.0.1:7006]"},
		{`listen: 7001, description: ` + long + `one`, `listen: 7001, description: ` + long + `two`,
			`description: ...` + long[:20] + `one -> ...` + long[:20] + `two`},
	} {
		parse := func(keys string) *Service {
			return parse(t, "services: {a: {builtin: echo, "+keys+"}}").Services[0]
		}
		if got := parse(c.after).Changes(parse(c.before)); len(got) != 1 || got[0] != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

func TestChangesOfSettings(t *testing.T) {
	parse := func(text string) *Config {
		c, err := Parse("test.yaml", []byte(text+"\nservices: {a: {listen: 7007, builtin: echo, max: 1}}\n"), Machine)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	before := parse("log: {level: info, output: stderr}\ndrain: 5s")
	after := parse("log: {level: debug, output: stderr}\nhttp: {listen: 127.0.0.1:9116}\ncontrol: {mode: \"0660\"}")
	want := []string{"control.mode: nothing -> 0660", "drain: 5s -> nothing", "http.listen: nothing -> 127.0.0.1:9116", "log.level: info -> debug"}
	if got := after.Changes(before); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := after.Changes(after); got != nil {
		t.Errorf("a file differs from itself: %q", got)
	}
}
