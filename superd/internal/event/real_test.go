package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The programs that read a system's log, where the machine has them.

// skip leaves a test out, visibly, or fails it where nothing may be skipped.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("SUPERD_TEST_STRICT") != "" {
		t.Fatal("cannot be skipped: " + why)
	}
	t.Skip("SKIPPED: " + why)
}

// program finds one that a test needs.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/lib/systemd", "/lib/systemd") {
		path := filepath.Join(dir, name)
		if s, err := os.Stat(path); err == nil && s.Mode().IsRegular() && s.Mode()&0o111 != 0 {
			return path
		}
	}
	skip(t, "this needs "+name)
	return ""
}

// run starts a daemon in the foreground and ends it with the test, or earlier with what it returns.
func run(t *testing.T, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
		}
	}
	t.Cleanup(func() {
		if stop(); t.Failed() {
			t.Logf("%s: %s", cmd.Path, &out)
		}
	})
	return stop
}

// eventually asks another process until it is content.
func eventually(ask func() error) (err error) {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-again.C {
		if err = ask(); err == nil {
			return nil
		}
	}
	return err
}

// waitFor waits until a file has a text.
func waitFor(t *testing.T, name, text string) {
	t.Helper()
	err := eventually(func() error {
		b, err := os.ReadFile(name)
		if err == nil && !strings.Contains(string(b), text) {
			err = fmt.Errorf("%s is not in\n%s", text, b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// heard opens a log once somebody listens.
func heard(t *testing.T, output string, o Options) (l *Log) {
	t.Helper()
	if err := eventually(func() error { return CheckOutput(output, o) }); err != nil {
		t.Fatal(err)
	}
	l, _ = opened(t, output, o)
	return l
}

// TestRsyslog: the real one takes our datagrams apart as we mean them, and does so again after a restart.
func TestRsyslog(t *testing.T) {
	daemon := program(t, "rsyslogd")
	path := socketPath(t, "log")
	dir := filepath.Dir(path)
	out := filepath.Join(dir, "out")
	config := filepath.Join(dir, "rsyslog.conf")
	text := fmt.Sprintf(`global(workDirectory=%[1]q)
module(load="imuxsock" SysSock.Use="off")
module(load="mmjsonparse")
input(type="imuxsock" Socket=%[2]q)
template(name="all" type="string" string="%%pri%%|%%app-name%%|%%procid%%|%%msg%%\n")
template(name="json" type="string" string="%%$!service%%|%%$!status%%\n")
action(type="omfile" file=%[3]q template="all")
action(type="mmjsonparse")
if $parsesuccess == "OK" then { action(type="omfile" file="%[4]s.json" template="json") }
`, dir, path, out, out)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() (stop func()) {
		return run(t, exec.Command(daemon, "-n", "-f", config, "-i", filepath.Join(dir, "pid")))
	}
	stop := start()
	l := heard(t, "syslog", Options{Syslog: path})
	l.Service("echo").Exited(sampleConn(), &Exit{Status: 3, BytesIn: -1, BytesOut: -1})
	waitFor(t, out, fmt.Sprintf("30|superd|%d| echo exited conn=1f peer=192.0.2.7:40000 local=192.0.2.1:7 pid=4242 status=3", os.Getpid()))

	stop()
	l.Info("lost")
	until(t, "it is", func() bool { return l.Dropped() > 0 })
	start()
	j := heard(t, "syslog", Options{Syslog: path, Format: "json"})
	l.Info("here again")
	waitFor(t, out, "log lines were dropped because the log cannot be written")
	waitFor(t, out, "here again")
	j.Service("echo").Exited(sampleConn(), &Exit{Status: 3})
	waitFor(t, out+".json", "echo|3\n")
}

// TestJournald: the real one, in a mount namespace with a /run of its own.
func TestJournald(t *testing.T) {
	if os.Geteuid() != 0 {
		skip(t, "this needs root")
	}
	program(t, "systemd-journald")
	program(t, "journalctl")
	cmd := exec.Command(os.Args[0], "be-journald", program(t, "systemd-journald"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var entries []map[string]any
	for line := range strings.Lines(string(out)) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		entries = append(entries, e)
	}
	if len(entries) != 2 {
		t.Fatalf("the journal has %d entries: %s", len(entries), out)
	}
	for name, want := range map[string]string{
		"MESSAGE": "echo exited conn=1f peer=192.0.2.7:40000 local=192.0.2.1:7 pid=4242 status=3", "PRIORITY": "6",
		"SUPERD_SERVICE": "echo", "SUPERD_CONN": "1f", "SUPERD_PEER": "192.0.2.7:40000", "SUPERD_MESSAGE": "exited",
		"SUPERD_STATUS": "3", "SYSLOG_IDENTIFIER": "superd", "SYSLOG_FACILITY": "3", "_TRANSPORT": "journal",
	} {
		if got, _ := entries[0][name].(string); got != want && !(name == "MESSAGE" && strings.HasPrefix(got, want)) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := entries[1]["SUPERD_TEXT"]; got != "one\ntwo=three" {
		t.Errorf("a text of two lines is %q", got)
	}
}

// beJournald runs it, tells it something, and prints what journalctl knows of that.
func beJournald(daemon string) error {
	err := errors.Join(
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("run", "/run", "tmpfs", 0, ""),
		os.MkdirAll("/run/systemd/journal", 0o755),
		os.MkdirAll("/run/log/journal", 0o755),
	)
	if err != nil {
		return err
	}
	cmd := exec.Command(daemon)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Wait()
	defer cmd.Process.Signal(syscall.SIGTERM)
	var l *Log
	err = eventually(func() (err error) {
		l, err = OpenOutput("journald", os.Stderr, Options{})
		return err
	})
	if err != nil {
		return err
	}
	s := l.Service("echo")
	s.Exited(sampleConn(), &Exit{Status: 3})
	s.Stderr(sampleConn(), []byte("one\ntwo=three"), false)
	l.Close(patience)
	return eventually(func() error {
		out, err := exec.Command("journalctl", "-D", "/run/log/journal", "-o", "json", "SUPERD_SERVICE=echo").Output()
		if strings.Count(string(out), "\n") < 2 {
			return errors.Join(err, fmt.Errorf("the journal has %s", out))
		}
		_, err = os.Stdout.Write(out)
		return err
	})
}
