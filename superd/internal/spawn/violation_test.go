package spawn

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseViolation(t *testing.T) {
	own := ownArchitecture
	const text = `audit(1795254922.890:2): auid=4294967295 uid=0 gid=0 ses=4294967295 subj=unconfined pid=8475 comm="python3" exe="/bin/python3" sig=31 arch=c000003e syscall=165 compat=0 ip=0x7ffb code=0x80000000`
	if got, ok := parseViolation(text); !ok || got != (violation{8475, unix.AUDIT_ARCH_X86_64, 165}) {
		t.Errorf("got %+v, %v", got, ok)
	}
	for name, c := range map[string]string{
		"another signal":  strings.Replace(text, "sig=31", "sig=0", 1),
		"no number":       strings.Replace(text, "syscall=165", "", 1),
		"no architecture": strings.Replace(text, "c000003e", "zz", 1),
		"no process":      strings.Replace(text, "pid=8475", "pid=", 1),
		"nothing":         "",
	} {
		if got, ok := parseViolation(c); ok {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	for v, want := range map[violation]string{
		{1, own.audit, own.number("mount")}:     "mount",
		{1, own.audit, 999}:                     "number 999",
		{1, unix.AUDIT_ARCH_I386, 21}:           "number 21 of the 32-bit table",
		{1, unix.AUDIT_ARCH_ARM, 21}:            "number 21 of the 32-bit table",
		{1, unix.AUDIT_ARCH_X86_64, 1<<30 + 39}: "number 39 of the x32 table",
	} {
		if v.number > 1<<30 && own.foreign == (span{}) {
			continue
		}
		if got := v.call(); got != want {
			t.Errorf("%+v is %q, want %q", v, got, want)
		}
	}
}

func TestViolationsAreToldOnce(t *testing.T) {
	mount, bpf := ownArchitecture.number("mount"), ownArchitecture.number("bpf")
	l := &violationLog{}
	l.keep(violation{7, ownArchitecture.audit, mount})
	l.keep(violation{7, ownArchitecture.audit, bpf})
	for _, want := range []string{"bpf", "mount", ""} { // the latest first
		if call, ok := l.take(7); call != want || ok != (want != "") {
			t.Errorf("got %q, %v, want %q", call, ok, want)
		}
	}
	for pid := range 3 * keptViolations {
		l.keep(violation{1 + pid, ownArchitecture.audit, mount})
	}
	if call, ok := l.take(2 * keptViolations); ok {
		t.Errorf("an old record is still there: %q", call)
	}
	for _, pid := range []int{2*keptViolations + 1, 3 * keptViolations} {
		if _, ok := l.take(pid); !ok {
			t.Errorf("%d of the latest %d is not there", pid, keptViolations)
		}
	}
	if _, ok := l.take(0); ok {
		t.Error("an empty place was taken for a record")
	}
}

// listening skips a test of real records where there are none to hear. Those of
// processes before, whose numbers may come again, are forgotten.
func listening(t *testing.T, e *Engine) {
	t.Helper()
	compile(t, e, under(script("true"), "default"))
	if !violations.listening {
		needRoot(t)
		t.Skip("SKIPPED: this kernel lets nobody listen to its audit records here")
	}
	if config, err := os.ReadFile("/proc/cmdline"); err == nil && strings.Contains(string(config), "audit=0") {
		t.Skip("SKIPPED: this kernel was started with audit=0")
	}
	violations.mu.Lock()
	defer violations.mu.Unlock()
	violations.receive()
	clear(violations.kept[:])
}

// launchKilled starts the program of p, which a filter kills.
func launchKilled(t *testing.T, e *Engine, p *Plan) Child {
	t.Helper()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Start(p, Streams{Connection: null, Stderr: -1}, &someFacts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func reapKilled(t *testing.T, c Child) {
	t.Helper()
	end, err := Wait(c.PIDFD)
	unix.Close(c.PIDFD)
	if err != nil || !end.Signaled || end.Signal != unix.SIGSYS {
		t.Fatalf("ended with %+v, %v", end, err)
	}
}

// patientViolation asks as often as a busy machine may need.
func patientViolation(e *Engine, pid int) (call string, ok bool) {
	for end := time.Now().Add(patience); !ok && time.Now().Before(end); time.Sleep(time.Millisecond) {
		call, ok = e.Violation(pid)
	}
	return call, ok
}

func TestViolationNamesTheCall(t *testing.T) {
	e := NewEngine()
	listening(t, e)
	for _, systemCalls := range []string{"default", "tight"} {
		for _, want := range []string{"mount", "ptrace", "reboot"} {
			p := compile(t, e, under(caller(1, ownArchitecture.number(want)), systemCalls))
			c := launchKilled(t, e, p)
			reapKilled(t, c)
			if got, ok := patientViolation(e, c.PID); !ok || got != want {
				t.Errorf("%s: got %q, %v, want %s", systemCalls, got, ok, want)
			}
			if got, ok := e.Violation(c.PID); ok {
				t.Errorf("told again: %q", got)
			}
		}
	}
}

// TestViolationOfManyAtOnce: the records have no rate limit, unlike the lines
// of the kernel log.
func TestViolationOfManyAtOnce(t *testing.T) {
	e := NewEngine()
	listening(t, e)
	p := compile(t, e, under(caller(1, ownArchitecture.number("bpf")), "tight"))
	var children []Child
	for range 100 {
		children = append(children, launchKilled(t, e, p))
	}
	for _, c := range children {
		reapKilled(t, c)
	}
	for _, c := range children {
		if got, ok := patientViolation(e, c.PID); !ok || got != "bpf" {
			t.Errorf("got %q, %v", got, ok)
		}
	}
}

// TestViolationWithoutListener: nothing is known, and that at once.
func TestViolationWithoutListener(t *testing.T) {
	e := NewEngine()
	compile(t, e, under(script("true"), "default"))
	listening := violations.listening
	violations.listening = false
	defer func() { violations.listening = listening }()
	if call, ok := e.Violation(os.Getpid()); ok {
		t.Errorf("got %q", call)
	}
}
