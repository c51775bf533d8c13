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

// socketsIn, in the environment, is where such a superd has its administrative
// socket if its file names none: each its own.
const socketsIn = "SUPERD_TEST_SOCKETS"

// logSocket, in the environment, is where a superd of the tests has syslog and
// journald.
const logSocket = "SUPERD_TEST_LOG_SOCKET"

func TestMain(m *testing.M) {
	if os.Getenv(beSuperd) != "" {
		rootSocket = filepath.Join(os.Getenv(socketsIn), strconv.Itoa(os.Getpid()))
		syslogSocket, journalSocket = os.Getenv(logSocket), os.Getenv(logSocket)
		os.Exit(supervise(func() int { return execute(append([]string{"superd"}, os.Args[1:]...)) }))
	}
	dir, err := os.MkdirTemp("", "superd-sockets")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv(socketsIn, dir)
	os.Unsetenv("XDG_RUNTIME_DIR") // whose socket is one for all
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// patience bounds every wait of a test, and what is said on a connection
// together; it decides nothing about speed.
const patience = time.Minute

// superd is the command, not yet started. The race detector would have each
// sleep for a second at its end, for the sake of threads that still run.
func superd(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), beSuperd+"=1", "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
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

// writeFile puts content under name into dir. No process is started meanwhile:
// a copy of the descriptor would make a program that is run at once ETXTBSY.
func writeFile(t testing.TB, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// start starts superd with a file and returns when it is ready. When the test
// ends, superd is told to drain, and must leave nothing behind.
func start(t testing.TB, yaml string) *process {
	t.Helper()
	return startCommand(t, prepare(t, yaml))
}

// prepare is the command that start starts.
func prepare(t testing.TB, yaml string) *exec.Cmd {
	t.Helper()
	return superd("run", "-c", writeFile(t, publicDir(t), "superd.yaml", yaml, 0o644))
}

// startCommand is start for a command that a test has prepared.
func startCommand(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	d := launch(t, cmd)
	go d.read(stderr) // ends with superd
	d.await(func(r record) bool { return r.is("ready") })
	d.idle = d.descriptors()
	return d
}

// startSilent is startCommand where the log goes elsewhere, or nowhere: the one
// service of the file that is to be reached by IPv4 listens where superd does.
func startSilent(t testing.TB, cmd *exec.Cmd, service string) *process {
	t.Helper()
	d := launch(t, cmd)
	go func() { // ends with superd
		cmd.Wait()
		close(d.wait)
	}()
	eventually(t, func() error {
		ports := d.portsOf("tcp")
		if len(ports) != 1 {
			return fmt.Errorf("superd listens on the ports %v", ports)
		}
		d.records = []record{{"message": "listening", "service": service, "local": "127.0.0.1:" + ports[0]}}
		return nil
	})
	d.idle = d.descriptors()
	return d
}

// launch starts a command and sees to its end; the caller closes wait.
func launch(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	d := &process{t: t, cmd: cmd, wait: make(chan struct{}), grown: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.finish)
	return d
}

// portsOf finds the ports that superd listens on, in proc(5)'s tcp or tcp6.
func (d *process) portsOf(family string) (list []string) {
	own := map[string]bool{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.pid()))
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			own[target] = true
		}
	}
	table, _ := os.ReadFile("/proc/net/" + family)
	for line := range strings.Lines(string(table)) {
		const local, state, inode, listening = 1, 3, 9, "0A"
		f := strings.Fields(line)
		if len(f) <= inode || f[state] != listening || !own["socket:["+f[inode]+"]"] {
			continue
		}
		port, _ := strconv.ParseUint(f[local][len(f[local])-4:], 16, 16)
		list = append(list, strconv.FormatUint(port, 10))
	}
	return list
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
	var found []record
	for seen, ended := 0, false; ; {
		d.mu.Lock()
		for _, r := range d.records[seen:] {
			if match(r) {
				found = append(found, r)
			}
		}
		seen = len(d.records)
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
	for i, r := range d.records {
		if i < len(d.records)-50 && r["level"] != nil {
			continue // what is no record of superd's is the Go runtime's: a race, or a crash
		}
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

// talk sends text, which the service has to send back.
func (d *process) talk(c net.Conn, text string) {
	d.t.Helper()
	renew(c)
	if _, err := io.WriteString(c, text); err != nil {
		d.t.Fatal(err)
	}
	back := make([]byte, len(text))
	if n, err := io.ReadFull(c, back); err != nil || string(back) != text {
		d.t.Fatalf("%q came back as %q, %v", text, back[:n], err)
	}
}

// renew has a connection wait as long as anything may take, however much of
// that went into what came before.
func renew(c net.Conn) { c.SetDeadline(time.Now().Add(patience)) }

// held connects to a service that sends back what it gets, and returns when
// its program runs.
func (d *process) held(service string) *net.TCPConn {
	d.t.Helper()
	c := d.dial(service)
	d.talk(c, "hello\n")
	return c
}

// closed wants no more from the other end but its close.
func (d *process) closed(c net.Conn) {
	d.t.Helper()
	renew(c)
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		d.t.Errorf("instead of the end came %q, %v", rest, err)
	}
}

// many has n clients of a service do something, width of them at a time, and
// fails the test with the first error.
func (d *process) many(service string, n, width int, do func(c *net.TCPConn) error) {
	d.t.Helper()
	address := d.address(service)
	places := make(chan struct{}, width)
	failed := make(chan error, n)
	for range n {
		places <- struct{}{}
		go func() { // ends with its connection
			failed <- visitOnce(address, do)
			<-places
		}()
	}
	var first error
	for range n {
		if err := <-failed; first == nil {
			first = err
		}
	}
	if first != nil {
		d.t.Fatal(first)
	}
}

func visitOnce(address string, do func(c *net.TCPConn) error) error {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	return do(c.(*net.TCPConn))
}

// askFor is a client that wants one answer, whole.
func askFor(question, answer string) func(*net.TCPConn) error {
	return func(c *net.TCPConn) error {
		if _, err := io.WriteString(c, question); err != nil {
			return err
		}
		c.CloseWrite()
		got, err := io.ReadAll(c)
		if err == nil && string(got) != answer {
			err = fmt.Errorf("%q is answered with %q, not %q", question, got, answer)
		}
		return err
	}
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

// child is the number of superd's only child.
func (d *process) child() int {
	d.t.Helper()
	list := d.children()
	if len(list) != 1 {
		d.t.Fatalf("superd has the children %v, not one", list)
	}
	pid, _ := strconv.Atoi(strings.Fields(list[0])[0])
	return pid
}

// settled waits until superd is back to its start: no children, no zombies, no
// descriptor more or less than when it was ready.
func (d *process) settled() {
	d.t.Helper()
	eventually(d.t, func() error {
		if c := d.children(); len(c) > 0 {
			return fmt.Errorf("children are left: %v", c)
		}
		if n := d.descriptors(); n != d.idle {
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
	stop := syscall.SIGTERM
	if !d.t.Failed() {
		d.settled()
	}
	if d.t.Failed() {
		stop = syscall.SIGINT // its programs may never end by themselves
	}
	d.cmd.Process.Signal(stop)
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

// await waits until c is closed.
func await(t testing.TB, c <-chan struct{}, complaint string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal(complaint)
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
