package main

import (
	"strings"
	"testing"
)

func TestBuiltInsAnswer(t *testing.T) {
	d := start(t, `
services:
  echo: {listen: "127.0.0.1:0", builtin: echo}
  greeting: {listen: "127.0.0.1:0", builtin: greeting}
`)
	if got := d.ask("greeting", ""); got != "hi client" {
		t.Errorf("greeting says %q", got)
	}
	long := strings.Repeat("0123456789abcdef", 1<<14)
	if got := d.ask("echo", long); got != long {
		t.Errorf("echo gave %d of %d bytes back", len(got), len(long))
	}
	r := d.exited("echo", 1)[0]
	if r.number("bytes_in") != float64(len(long)) || r.number("bytes_out") != float64(len(long)) {
		t.Errorf("bytes are counted wrong: %v", r)
	}
}
