package spawn

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
)

// Children that are told apart from superd where memory is scarce: those that
// an attendant waits for, and those that are copies.

// births are a spec's ways into the world, by what makes the plan of each.
var births = map[string]func(testing.TB, *Engine, Spec) *Plan{
	"attended": func(t testing.TB, e *Engine, s Spec) *Plan {
		if s.OOMScore == nil {
			s.OOMScore = new(ownOOMScore(t))
		}
		return compile(t, e, s)
	},
	"copied": func(t testing.TB, e *Engine, s Spec) *Plan {
		p := compile(t, e, s)
		p.spec.Cgroup = config.Cgroup{On: true, Memory: 1 << 20} // as if it were in one
		return p
	},
}

func ownOOMScore(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestOOMScoreIsTheProgramsOwn: what a program gets nobody else has, neither
// superd nor what is started meanwhile.
func TestOOMScoreIsTheProgramsOwn(t *testing.T) {
	own := ownOOMScore(t)
	if own == 1000 {
		t.Skip("SKIPPED: there is no higher oom_score_adj than this process's own")
	}
	show := Spec{Path: "/bin/cat", Argv: []string{"cat", "/proc/self/oom_score_adj"}, Stderr: StderrClient, Dir: "/"}
	for name, compileAs := range births {
		e := NewEngine()
		plain := compile(t, e, show)
		s := show
		s.OOMScore = new(own + 1)
		p := compileAs(t, e, s)
		for range 50 {
			if out, _, err := answer(t, e, p); out != fmt.Sprintln(own+1) || err != nil {
				t.Fatalf("%s: the program has %q, %v", name, out, err)
			}
			if out, _, err := answer(t, e, plain); out != fmt.Sprintln(own) || err != nil {
				t.Fatalf("%s: another program has %q, %v", name, out, err)
			}
		}
		if now := ownOOMScore(t); now != own {
			t.Errorf("%s: superd has %d, and had %d", name, now, own)
		}
	}
}

// TestBirthsFailWithWords: whatever a child has in common with superd, it tells
// what went wrong.
func TestBirthsFailWithWords(t *testing.T) {
	for name, compileAs := range births {
		e := NewEngine()
		p := compileAs(t, e, Spec{Path: "/none", Argv: []string{"none"}, Stderr: StderrClient, Dir: "/"})
		away := compileAs(t, e, Spec{Path: "/bin/true", Argv: []string{"true"}, Stderr: StderrClient, Dir: "/none"})
		for range 20 {
			if _, _, err := answer(t, e, p); err == nil || !strings.HasPrefix(err.Error(), "cannot execute /none: ENOENT") {
				t.Fatalf("%s: got %v", name, err)
			}
			if _, _, err := answer(t, e, away); err == nil || !strings.HasPrefix(err.Error(), "cannot change to the directory /none: ENOENT") {
				t.Fatalf("%s: got %v", name, err)
			}
		}
		if made := len(p.free) + len(p.busy); made > 10 {
			t.Errorf("%s: %d instances for one child at a time", name, made)
		}
	}
}

// TestBirthsInACrowd: each of many that live at once has its own environment.
func TestBirthsInACrowd(t *testing.T) {
	for name, compileAs := range births {
		e := NewEngine()
		p := compileAs(t, e, Spec{Path: "/bin/sh", Argv: []string{"sh", "-c", `read -r x; echo "$SUPERD_CONNECTION"`}, Stderr: StderrClient, Dir: "/"})
		before := len(openDescriptors(t))
		var list []Child
		var ends []int
		for i := range 30 {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			c, err := e.Start(p, Streams{Connection: pair[1], Stderr: -1}, &Facts{Peer: &peer.Peer{}, ID: fmt.Appendf(nil, "c%d", i)})
			if err != nil {
				t.Fatal(err)
			}
			list, ends = append(list, c), append(ends, pair[0])
		}
		for i, c := range list {
			unix.Write(ends[i], []byte("\n"))
			end, err := Wait(c.PIDFD)
			var text [64]byte
			n, _ := unix.Read(ends[i], text[:])
			if got := string(text[:max(n, 0)]); got != fmt.Sprintf("c%d\n", i) || err != nil || end != (End{User: end.User, System: end.System, MaxRSS: end.MaxRSS}) {
				t.Errorf("%s: %d says %q, %+v, %v", name, i, got, end, err)
			}
			if err := e.Failure(c); err != nil {
				t.Error(err)
			}
			unix.Close(c.PIDFD)
			unix.Close(ends[i])
		}
		e.Settle()
		if after := len(openDescriptors(t)); after != before {
			t.Errorf("%s: %d descriptors before, %d after", name, before, after)
		}
	}
}

// TestUnbornChild: where clone3 fails, whoever waits for the child hears it, and
// the attendant is free.
func TestUnbornChild(t *testing.T) {
	e := NewEngine()
	p := births["attended"](t, e, script("true"))
	in := p.newInstance()
	in.clone.exitSignal = 1 << 20
	for range 3 {
		if got := launchAttended(in); got != -int(unix.EINVAL) {
			t.Errorf("got %d", got)
		}
	}
	if _, _, err := answer(t, e, p); err != nil {
		t.Error(err)
	}
}

// TestAttendantsAreUsedAgain: there are as many as children were on their way
// at once, and each waits for one. An attendant may be a moment behind its child.
func TestAttendantsAreUsedAgain(t *testing.T) {
	e := NewEngine()
	p := births["attended"](t, e, script("true"))
	count := func() int {
		attendants.Lock()
		defer attendants.Unlock()
		return len(attendants.idle) + len(attendants.busy)
	}
	one := func() int {
		if _, _, err := answer(t, e, p); err != nil {
			t.Fatal(err)
		}
		await(t, attendantsAreFree)
		return count()
	}
	before := one()
	for range 100 {
		if after := one(); after != before {
			t.Fatalf("%d attendants before, %d after", before, after)
		}
	}
}

func attendantsAreFree() bool {
	attendants.Lock()
	defer attendants.Unlock()
	return !slices.ContainsFunc(attendants.busy, func(a *attendant) bool { return atomic.LoadUint32(&a.called) != 0 })
}

// TestCommonMemoryIsGivenBack with the instances that had it.
func TestCommonMemoryIsGivenBack(t *testing.T) {
	free := func() int {
		common.Lock()
		defer common.Unlock()
		return len(common.free)
	}
	const many = 50
	p := births["copied"](t, NewEngine(), script("true"))
	made := make([]*instance, many)
	for i := range made {
		made[i] = p.newInstance()
		made[i].listen()
		atomic.AddUint32(&made[i].told.done, 1)
	}
	before := free()
	runtime.KeepAlive(made)
	made = nil
	await(t, func() bool { runtime.GC(); return free() >= before+many })
}

// BenchmarkBirth is a spawn by each way.
func BenchmarkBirth(b *testing.B) {
	s := Spec{Path: small(b), Argv: []string{"small"}, Stderr: StderrClient, Dir: "/"}
	b.Run("plain", func(b *testing.B) {
		e := NewEngine()
		benchmark(b, e, compile(b, e, s))
	})
	for _, name := range []string{"attended", "copied"} {
		b.Run(name, func(b *testing.B) {
			e := NewEngine()
			benchmark(b, e, births[name](b, e, s))
		})
	}
}
