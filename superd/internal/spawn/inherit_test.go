package spawn

import (
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// basic is what a service without a sandbox key gets.
var basic = config.Sandbox{Preset: "basic", NoNewPrivs: true, SystemCalls: "default", Network: true}

// onConfinedThread runs f on a thread behind the common walls, which ends with
// it.
func onConfinedThread(t testing.TB, e *Engine, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := e.Confine()
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestWallsAreInherited(t *testing.T) {
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	defer signal.Reset(unix.SIGHUP, unix.SIGPIPE)
	s := Spec{Path: "/bin/cat", Argv: []string{"cat", "/proc/self/status"}, Stderr: StderrClient, Dir: "/", Sandbox: basic, Inherit: true}
	if !Inheritable(&s) {
		t.Fatal("basic is not inheritable")
	}
	e := NewEngine()
	p := compile(t, e, s)
	for range 3 {
		var got string
		var err error
		onConfinedThread(t, e, func() { got, _, err = answer(t, e, p) })
		for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "Seccomp_filters:\t1\n",
			"SigBlk:\t0000000000000000\n", "SigIgn:\t0000000000000000\n", "SigCgt:\t0000000000000000\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in %v\n%s", want, err, got)
			}
		}
	}
}

func TestInheritedFilterKills(t *testing.T) {
	if _, err := os.Stat("/usr/bin/perl"); err != nil {
		t.Skip("SKIPPED: this machine has no perl")
	}
	s := script(`exec perl -e 'syscall($ARGV[0], 0, 0, 0, 0, 0)' "$0"`)
	s.Argv = append(s.Argv, mountNumber())
	s.Sandbox, s.Inherit = basic, true
	e := NewEngine()
	p := compile(t, e, s)
	onConfinedThread(t, e, func() {
		if _, end, err := answer(t, e, p); !end.Signaled || end.Signal != unix.SIGSYS {
			t.Errorf("ended with %+v, %v", end, err)
		}
	})
}

// TestConfinementStaysWithItsThread: the other threads start programs as ever.
func TestConfinementStaysWithItsThread(t *testing.T) {
	e := NewEngine()
	p := compile(t, e, Spec{Path: "/bin/cat", Argv: []string{"cat", "/proc/self/status"}, Stderr: StderrClient, Dir: "/"})
	onConfinedThread(t, e, func() {
		done := make(chan struct{})
		go func() { // on another thread: this one is locked
			defer close(done)
			got, _, err := answer(t, e, p)
			if !strings.Contains(got, "Seccomp:\t0\n") || !strings.Contains(got, "NoNewPrivs:\t0\n") {
				t.Errorf("%v\n%s", err, got)
			}
		}()
		<-done
	})
}

func TestOnlyCommonWallsAreInherited(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"no filter":      func(s *Spec) { s.Sandbox.SystemCalls = "all" },
		"a tight filter": func(s *Spec) { s.Sandbox.SystemCalls = "tight" },
		"new privileges": func(s *Spec) { s.Sandbox.NoNewPrivs = false },
		"no network":     func(s *Spec) { s.Sandbox.Network = false },
		"a /tmp":         func(s *Spec) { s.Sandbox.PrivateTmp = true },
		"a cgroup":       func(s *Spec) { s.Cgroup.On = true },
		"closed files":   func(s *Spec) { s.Sandbox.Confined = true },
	} {
		s := Spec{Sandbox: basic}
		change(&s)
		if Inheritable(&s) {
			t.Errorf("with %s: inheritable", name)
		}
	}
}

func mountNumber() string {
	for number := range 512 {
		if SystemCallName(number) == "mount" {
			return strconv.Itoa(number)
		}
	}
	return "-1"
}
