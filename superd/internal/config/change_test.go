package config

import (
	"slices"
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
