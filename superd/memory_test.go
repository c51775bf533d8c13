package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// ownOOMScore is what superd is started with.
func ownOOMScore(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// oom_score_adj is the program's from its first moment, whatever it is confined
// to, and nobody else's.
func TestOOMScoreAdj(t *testing.T) {
	t.Parallel()
	const show = "run: [/bin/cat, /proc/self/oom_score_adj]"
	yaml := "services:\n  own: {listen: '127.0.0.1:0', " + show + "}\n"
	want := map[string]string{"own": ownOOMScore(t)}
	for i, keys := range []string{"", ", stderr: client", ", sandbox: none", ", nice: 5, rlimits: {fsize: 0}", ", keep: false, sandbox: {read: [/proc]}"} {
		name, score := fmt.Sprint("s", i), fmt.Sprint(1000-i)
		yaml += fmt.Sprintf("  %s: {listen: '127.0.0.1:0', %s, oom_score_adj: %s%s}\n", name, show, score, keys)
		want[name] = score
	}
	if mayRaise(t) {
		yaml += "  none: {listen: '127.0.0.1:0', " + show + ", oom_score_adj: -1000}\n"
		want["none"] = "-1000"
	} else {
		t.Log("SKIPPED: -1000 takes CAP_SYS_RESOURCE")
	}
	d := start(t, yaml)
	for range 5 {
		for service, score := range want {
			if got := d.ask(service, ""); got != score+"\n" {
				t.Errorf("%s has %q, not %s", service, got, score)
			}
		}
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", d.pid()))
	if err != nil || strings.TrimSpace(string(text)) != want["own"] {
		t.Errorf("superd has %q, %v, not %s", text, err, want["own"])
	}
}

// Many programs that have one of their own are as good as any.
func TestOOMScoreAdjOfMany(t *testing.T) {
	t.Parallel()
	d := start(t, one("echo", "builtin: echo, oom_score_adj: 1000"))
	n := fewer(3000, 300)
	d.many("echo", n, 50, askFor("hello", "hello"))
	checkStatus(t, d.allExited("echo", n))
}
