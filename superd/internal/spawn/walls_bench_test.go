package spawn

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/services"
	"superd/superd/internal/config"
)

// BenchmarkWalledSpawn is a spawn behind each wall, one after another, from its
// start to the end of a static program that writes a line; cpu-µs is what it
// costs superd and the child in processor time.
func BenchmarkWalledSpawn(b *testing.B) {
	strict := config.Sandbox{Preset: "strict", NoNewPrivs: true, Confined: true, PrivateTmp: true}
	confined := strict
	confined.PrivateTmp, confined.Network = false, true
	path := small(b)
	for _, c := range []struct {
		name    string
		sandbox config.Sandbox
	}{
		{"none", config.Sandbox{}},
		{"landlock", confined}, // and the read-only mount namespace that all share
		{"network", config.Sandbox{Preset: "offline", NoNewPrivs: true}},
		{"tmp", config.Sandbox{Preset: "basic", NoNewPrivs: true, PrivateTmp: true, Network: true}},
		{"strict", strict},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.sandbox.BestEffort = os.Geteuid() != 0
			spec := Spec{Path: path, Argv: []string{"small"}, Stderr: StderrClient, Dir: "/", Sandbox: c.sandbox}
			e := NewEngine()
			benchmark(b, e, compile(b, e, spec))
		})
		b.Run(c.name+"/builtin", func(b *testing.B) {
			e := NewEngine()
			spec := builtIn(b, e)
			c.sandbox.BestEffort = os.Geteuid() != 0
			spec.Sandbox = c.sandbox
			benchmark(b, e, compile(b, e, spec))
		})
	}
}

// BenchmarkPreset is a spawn under each preset as a service has it, as another
// user where that is possible: basic is entered by the thread that spawns, and
// the others by their children.
func BenchmarkPreset(b *testing.B) {
	path := small(b)
	strict := config.Sandbox{Preset: "strict", NoNewPrivs: true, Confined: true, PrivateTmp: true, SystemCalls: "tight"}
	offline := config.Sandbox{Preset: "offline", NoNewPrivs: true, SystemCalls: "default"}
	for _, c := range []struct {
		name    string
		sandbox config.Sandbox
		rlimits []config.Rlimit
		cgroup  config.Cgroup
		score   *int
		alone   bool // nothing is made ahead
	}{
		{name: "none", sandbox: config.Sandbox{Preset: "none", SystemCalls: "all", Network: true}},
		{name: "basic", sandbox: basic},
		{name: "basic-oom", sandbox: basic, score: new(ownOOMScore(b))},
		{name: "offline", sandbox: offline},
		{name: "strict", sandbox: strict},
		{name: "strict-alone", sandbox: strict, alone: true},
		{name: "all-on", sandbox: strict, rlimits: everyRlimit(), cgroup: config.Cgroup{On: os.Geteuid() == 0, PerConnection: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.sandbox.BestEffort = os.Geteuid() != 0
			spec := Spec{Service: "bench", Path: path, Argv: []string{"small"}, Stderr: StderrClient, Dir: "/",
				Sandbox: c.sandbox, Rlimits: c.rlimits, Cgroup: c.cgroup, OOMScore: c.score}
			if os.Geteuid() == 0 {
				spec.Identity = &Identity{UID: 65534, GID: 65534}
			}
			spec.Inherit = Inheritable(&spec)
			e := NewEngine()
			p := compile(b, e, spec)
			if !c.alone {
				if err := e.KeepCells(); err != nil {
					b.Fatal(err)
				}
				defer e.StopKeeping()
			}
			if !spec.Inherit {
				benchmark(b, e, p)
				return
			}
			onConfinedThread(b, e, func() { benchmark(b, e, p) })
		})
	}
}

// everyRlimit sets all sixteen limits, to what superd itself has.
func everyRlimit() (list []config.Rlimit) {
	for resource := range 16 {
		var l unix.Rlimit
		unix.Getrlimit(resource, &l)
		list = append(list, config.Rlimit{Name: "limit", Resource: resource, Soft: l.Cur, Hard: l.Max})
	}
	return list
}

// small is the path of a program, outside of /tmp.
func small(b *testing.B) string {
	dir, err := os.MkdirTemp("/dev/shm", "superd-test")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	content, err := services.Image("greeting", services.Options{})
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(dir, "small")
	if err := os.WriteFile(path, content, 0o755); err != nil {
		b.Fatal(err)
	}
	return path
}

// benchmark starts programs of p one after another. Start-µs is how long the
// accepting thread is kept by one, and answer-µs how long a client waits for
// the first byte.
func benchmark(b *testing.B, e *Engine, p *Plan) {
	before, starting, answering := processorTime(), time.Duration(0), time.Duration(0)
	perSpawn := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) }
	defer func() {
		b.ReportMetric(perSpawn(processorTime()-before), "cpu-µs/op")
		b.ReportMetric(perSpawn(starting), "start-µs/op")
		b.ReportMetric(perSpawn(answering), "answer-µs/op")
	}()
	for b.Loop() {
		client, connection := socketPair(b)
		begin := time.Now()
		c, err := e.Start(p, Streams{Connection: connection, Stderr: -1}, &someFacts)
		starting += time.Since(begin)
		if err != nil {
			b.Fatal(err)
		}
		unix.Read(client, make([]byte, 1))
		answering += time.Since(begin)
		end, err := Wait(c.PIDFD)
		unix.Close(c.PIDFD)
		unix.Close(client)
		e.Release(c, false)
		if failure := e.Failure(c); err != nil || failure != nil || end.Signaled || end.Status != 0 {
			b.Fatal(end, err, failure)
		}
	}
}

func socketPair(b *testing.B) (one, other int) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	return pair[0], pair[1]
}

// processorTime is what this process and its ended children have used.
func processorTime() (sum time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		unix.Getrusage(who, &u)
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}
