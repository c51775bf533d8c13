package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// beSuperd, in the environment, makes the test binary the command itself, so
// that the tests drive real processes and the race detector sees them.
const beSuperd = "SUPERD_TEST_BE_SUPERD"

func TestMain(m *testing.M) {
	if os.Getenv(beSuperd) != "" {
		os.Exit(execute(append([]string{"superd"}, os.Args[1:]...)))
	}
	os.Exit(m.Run())
}

// patience bounds every wait of a test; it decides nothing about speed.
const patience = 30 * time.Second

// superd is the command, not yet started.
func superd(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), beSuperd+"=1")
	return c
}

// A process is a superd that a test has started.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	file string
	wait chan struct{} // closed when it has ended
	idle int           // descriptors that it has open when nothing goes on

	mu      sync.Mutex
	records []record // of the log, in order; guarded by mu
	grown   chan struct{}
}

// A record is one line of superd's log.
type record map[string]any

func (r record) is(message string) bool { return r["message"] == message }

func (r record) text(field string) string {
	if s, ok := r[field].(string); ok {
		return s
	}
	return ""
}

// number is a numeric field, -1 where there is none.
func (r record) number(field string) float64 {
	if n, ok := r[field].(float64); ok {
		return n
	}
	return -1
}

// publicDir is a temporary directory that every user can enter.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "superd-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// writeFile puts content under name into dir.
func writeFile(t testing.TB, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// start starts superd with a file and returns when it is ready. When the test
// ends, superd is told to drain, and must leave nothing behind.
func start(t testing.TB, yaml string) *process {
	t.Helper()
	file := writeFile(t, publicDir(t), "superd.yaml", yaml, 0o644)
	return startCommand(t, superd("run", "-c", file))
}

// startCommand is start for a command that a test has prepared.
func startCommand(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	d := &process{t: t, cmd: cmd, wait: make(chan struct{}), grown: make(chan struct{})}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go d.read(stderr) // ends with superd
	t.Cleanup(d.finish)
	d.await(func(r record) bool { return r.is("ready") })
	d.idle = d.descriptors()
	return d
}

func (d *process) read(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r record
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			r = record{"message": lines.Text()}
		}
		d.mu.Lock()
		d.records = append(d.records, r)
		close(d.grown)
		d.grown = make(chan struct{})
		d.mu.Unlock()
	}
	d.cmd.Wait()
	close(d.wait)
}

// await returns the first record of the log that matches, waiting for it.
func (d *process) await(match func(record) bool) record {
	d.t.Helper()
	return d.awaitMany(1, match)[0]
}

// awaitMany waits for n records that match.
func (d *process) awaitMany(n int, match func(record) bool) []record {
	d.t.Helper()
	deadline := time.After(patience)
	for ended := false; ; {
		d.mu.Lock()
		var found []record
		for _, r := range d.records {
			if match(r) {
				found = append(found, r)
			}
		}
		grown := d.grown
		d.mu.Unlock()
		if len(found) >= n {
			return found
		}
		if ended {
			d.t.Fatalf("superd has ended; %d of %d records came; the log:\n%s", len(found), n, d.log())
		}
		select {
		case <-grown:
		case <-d.wait:
			ended = true
		case <-deadline:
			d.t.Fatalf("%d of %d records came in time; the log:\n%s", len(found), n, d.log())
		}
	}
}

// exited waits for n connections of a service to end.
func (d *process) exited(service string, n int) []record {
	d.t.Helper()
	return d.awaitMany(n, func(r record) bool { return r.is("exited") && r.text("service") == service })
}

// refused waits for the first refusal of a service.
func (d *process) refused(service string) record {
	d.t.Helper()
	return d.await(func(r record) bool { return r.is("refused") && r.text("service") == service })
}

func (d *process) log() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	for _, r := range d.records[max(0, len(d.records)-50):] {
		line, _ := json.Marshal(r)
		b.Write(append(line, '\n'))
	}
	return b.String()
}

// address is where a service's first socket listens.
func (d *process) address(service string) string {
	d.t.Helper()
	return d.addresses(service)[0]
}

func (d *process) addresses(service string) (list []string) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.records {
		if r.is("listening") && r.text("service") == service {
			list = append(list, r.text("local"))
		}
	}
	if len(list) == 0 {
		d.t.Fatalf("%s does not listen", service)
	}
	return list
}

// dial connects to a service.
func (d *process) dial(service string) *net.TCPConn {
	d.t.Helper()
	c, err := net.Dial("tcp", d.address(service))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// ask sends input, closes that direction, and returns the whole answer.
func (d *process) ask(service, input string) string {
	d.t.Helper()
	c := d.dial(service)
	defer c.Close()
	if _, err := io.WriteString(c, input); err != nil {
		d.t.Fatal(err)
	}
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil {
		d.t.Fatalf("after %q: %v", answer, err)
	}
	return string(answer)
}

func (d *process) pid() int { return d.cmd.Process.Pid }

func (d *process) signal(s os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

// ended waits for superd's end and returns its exit code.
func (d *process) ended() int {
	d.t.Helper()
	select {
	case <-d.wait:
	case <-time.After(patience):
		d.t.Fatalf("superd does not end; the log:\n%s", d.log())
	}
	return d.cmd.ProcessState.ExitCode()
}

// descriptors counts what superd has open.
func (d *process) descriptors() int {
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.pid()))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(names)
}

// children lists superd's child processes, zombies included, as "PID STATE".
func (d *process) children() (list []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if fields[1] == strconv.Itoa(d.pid()) {
			list = append(list, strings.Split(path, "/")[2]+" "+fields[0])
		}
	}
	return list
}

// settled waits until superd is back to its start: no children, no zombies, no
// descriptor more than when it was ready.
func (d *process) settled() {
	d.t.Helper()
	eventually(d.t, func() error {
		if c := d.children(); len(c) > 0 {
			return fmt.Errorf("children are left: %v", c)
		}
		if n := d.descriptors(); n > d.idle {
			return fmt.Errorf("%d descriptors are open, %d when it was ready", n, d.idle)
		}
		return nil
	})
}

// finish drains superd, unless the test has ended it.
func (d *process) finish() {
	select {
	case <-d.wait:
		return
	default:
	}
	if !d.t.Failed() {
		d.settled()
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.wait:
		if code := d.cmd.ProcessState.ExitCode(); code != 0 {
			d.t.Errorf("superd ended with %v; the log:\n%s", d.cmd.ProcessState, d.log())
		}
	case <-time.After(patience):
		d.cmd.Process.Kill()
		d.t.Errorf("superd did not end on TERM; the log:\n%s", d.log())
	}
}

// eventually asks until ask is content.
func eventually(t testing.TB, ask func() error) {
	t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

// strict is set where nothing may be skipped.
var strict = os.Getenv("SUPERD_TEST_STRICT") != ""

// skip leaves a test out, visibly, or fails it where nothing may be skipped.
func skip(t testing.TB, why string) {
	t.Helper()
	if strict {
		t.Fatal("cannot be skipped: " + why)
	}
	t.Skip("SKIPPED: " + why)
}

// needRoot leaves out what only root can try.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "this needs root")
	}
}

// program finds a program of the machine that a test needs.
func program(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range slices.Concat(filepath.SplitList(os.Getenv("PATH")), []string{"/usr/sbin", "/sbin"}) {
		path := filepath.Join(dir, name)
		if s, err := os.Stat(path); err == nil && !s.IsDir() && s.Mode()&0o111 != 0 {
			return path
		}
	}
	skip(t, "this needs "+name)
	return ""
}
