package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Where the log goes, and what becomes of superd when it cannot go there:
// superd(8), LOG.

// A logged is a superd whose log is a file.
type logged struct {
	*process
	path   string
	stderr string // the path of what it gets
}

// startLogged is start for a file of YAML that has superd.log, in a directory
// of the test's own, in the place of %s.
func startLogged(t *testing.T, yaml string) *logged {
	t.Helper()
	dir := publicDir(t)
	path := filepath.Join(dir, "superd.log")
	cmd := superd("run", "-c", writeFile(t, dir, "superd.yaml", fmt.Sprintf(yaml, path), 0o644))
	stderr := stderrFile(t, cmd)
	d := &logged{launch(t, cmd), path, stderr}
	go func() { // ends with superd
		cmd.Wait()
		close(d.wait)
	}()
	eventually(t, func() error {
		d.records = d.in("superd.log")
		if len(d.records) == 0 || !d.records[len(d.records)-1].is("ready") {
			return fmt.Errorf("superd is not ready, and said %q", d.complaints())
		}
		return nil
	})
	d.idle = d.descriptors()
	return d
}

// in is what a file beside the log has.
func (d *logged) in(name string) (list []record) {
	d.t.Helper()
	return recordsIn(d.t, filepath.Join(filepath.Dir(d.path), name))
}

// count is how many records of a file match.
func (d *logged) count(name string, match func(record) bool) (n int) {
	d.t.Helper()
	for _, r := range d.in(name) {
		if match(r) {
			n++
		}
	}
	return n
}

func (d *logged) complaints() string {
	text, _ := os.ReadFile(d.stderr)
	return string(text)
}

func (d *logged) rename(from, to string) {
	d.t.Helper()
	dir := filepath.Dir(d.path)
	if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
		d.t.Fatal(err)
	}
}

func hasExited(r record) bool { return r.is("exited") }

func TestLogFile(t *testing.T) {
	t.Parallel()
	d := startLogged(t, "log: {output: %s}\n"+one("echo", "builtin: echo"))
	if s, err := os.Stat(d.path); err != nil || s.Mode().Perm()&0o137 != 0 {
		t.Errorf("the log has the mode %v, %v", s.Mode(), err)
	}
	d.ask("echo", "one")
	d.logIsOutOfTheWay()
	eventually(t, func() error { return wantCount(d.count("superd.log", hasExited), 1) })
	d.rename("superd.log", "old")
	d.signal(syscall.SIGHUP)
	eventually(t, func() error {
		return wantCount(d.count("superd.log", func(r record) bool { return r.is("reloaded") }), 1)
	})
	d.ask("echo", "two")
	eventually(t, func() error { return wantCount(d.count("superd.log", hasExited), 1) })
	d.logIsOutOfTheWay()
	d.settled()
	d.signal(syscall.SIGTERM)
	if code := d.ended(); code != 0 {
		t.Errorf("superd ended with %d", code)
	}
	if last := d.in("superd.log"); !last[len(last)-1].is("stopped") {
		t.Errorf("the log ends with %v", last[len(last)-1])
	}
	if n := d.count("old", hasExited); n != 1 {
		t.Errorf("%d ends are in the old file", n)
	}
	if said := d.complaints(); said != "" {
		t.Errorf("on stderr is %q", said)
	}
}

func wantCount(n, want int) error {
	if n != want {
		return fmt.Errorf("there are %d, not %d", n, want)
	}
	return nil
}

// logIsOutOfTheWay wants the log's descriptor where connections do not land.
func (d *logged) logIsOutOfTheWay() {
	d.t.Helper()
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.pid()))
	found := 0
	for _, link := range links {
		if target, _ := os.Readlink(link); filepath.Base(target) == filepath.Base(d.path) {
			found++
			if fd, _ := strconv.Atoi(filepath.Base(link)); fd < 64 {
				d.t.Errorf("the log is descriptor %d", fd)
			}
		}
	}
	if found != 1 {
		d.t.Errorf("the log is open %d times", found)
	}
}

// Who moves the file away and says nothing is followed.
func TestLogFileIsMovedAway(t *testing.T) {
	t.Parallel()
	d := startLogged(t, "log: {output: %s}\n"+one("echo", "builtin: echo"))
	d.rename("superd.log", "old")
	n := 0
	eventually(t, func() error {
		d.ask("echo", "hello")
		n++
		return wantCount(min(d.count("superd.log", hasExited), 1), 1)
	})
	eventually(t, func() error {
		return wantCount(d.count("old", hasExited)+d.count("superd.log", hasExited), n)
	})
}

// logrotate(8) takes the file away under load, in three ways, and no record is
// lost or torn.
func TestLogrotate(t *testing.T) {
	t.Parallel()
	logrotate := program(t, "logrotate")
	for name, ways := range map[string]string{
		"create and HUP": "create 0600\n postrotate\n kill -HUP $(cat %[1]s/pid)\n endscript",
		"HUP":            "nocreate\n postrotate\n kill -HUP $(cat %[1]s/pid)\n endscript",
		"create":         "create 0600",
		"nothing":        "nocreate",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startLogged(t, "log: {output: %s}\n"+one("echo", "builtin: echo"))
			dir := filepath.Dir(d.path)
			writeFile(t, dir, "pid", fmt.Sprint(d.pid()), 0o644)
			if strings.Contains(ways, "%") {
				ways = fmt.Sprintf(ways, dir)
			}
			conf := writeFile(t, dir, "rotate.conf", fmt.Sprintf("%s {\n rotate 9\n missingok\n %s\n}\n", d.path, ways), 0o644)
			const turns, each = 3, 100
			for range turns {
				d.many("echo", each/2, 5, askFor("hello", "hello"))
				out, err := exec.Command(logrotate, "-f", "-s", filepath.Join(dir, "state"), conf).CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				d.many("echo", each/2, 5, askFor("hello", "hello"))
			}
			eventually(t, func() error {
				n := 0
				files, _ := filepath.Glob(filepath.Join(dir, "superd.log*"))
				for _, file := range files {
					n += d.count(filepath.Base(file), hasExited)
				}
				return wantCount(n, turns*each)
			})
		})
	}
}

// A disk that is full does not matter to connections. It is said once, and at
// the end it is said how much is missing.
func TestLogOnFullDisk(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/full"); err != nil {
		skip(t, "this needs /dev/full")
	}
	cmd := prepare(t, "log: {output: /dev/full, level: debug}\n"+one("echo", "builtin: echo"))
	stderr := stderrFile(t, cmd)
	begin := time.Now()
	d := startSilent(t, cmd, "echo")
	const n = 50
	for range n {
		if got := d.ask("echo", "hello"); got != "hello" {
			t.Fatalf("the echo of hello is %q", got)
		}
	}
	d.settled()
	d.signal(syscall.SIGTERM)
	if code := d.ended(); code != 0 {
		t.Errorf("superd ended with %d", code)
	}
	list := recordsIn(t, stderr)
	if len(list) < 2 || len(list) > 2+int(time.Since(begin)/time.Minute) || !list[0].is("cannot write the log, lines are dropped") ||
		list[0].text("output") != "/dev/full" || list[len(list)-1].number("dropped") < 3*n {
		t.Errorf("on stderr is %v", list)
	}
}

// stderrFile is a file that gets what a command writes to stderr.
func stderrFile(t *testing.T, cmd *exec.Cmd) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "stderr")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	cmd.Stderr = f
	return path
}

// recordsIn is what a file has, whose last line may not be complete.
func recordsIn(t testing.TB, path string) (list []record) {
	t.Helper()
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		var r record
		err := json.Unmarshal([]byte(line), &r)
		switch {
		case err == nil:
			list = append(list, r)
		case strings.HasSuffix(line, "\n"):
			t.Fatalf("%s has %q: %v", path, line, err)
		}
	}
	return list
}

// Syslog or the journal may stop to read, or end: connections do not notice,
// and who comes after it is told what is missing.
func TestLogToSocket(t *testing.T) {
	t.Parallel()
	for _, output := range []string{"syslog", "journald"} {
		t.Run(output, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(publicDir(t), "log")
			listen := func() *net.UnixConn {
				c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}
			reader := listen()
			cmd := prepare(t, "log: {output: "+output+", level: debug}\n"+one("echo", "builtin: echo"))
			cmd.Env = append(cmd.Env, logSocket+"="+path)
			stderr := stderrFile(t, cmd)
			d := startSilent(t, cmd, "echo")
			ask := func(n int) {
				t.Helper()
				for range n {
					if got := d.ask("echo", "hello"); got != "hello" {
						t.Fatalf("the echo of hello is %q", got)
					}
				}
			}
			wanted := func(sign string) {
				t.Helper()
				b := make([]byte, 1<<16)
				reader.SetReadDeadline(time.Now().Add(patience))
				for {
					n, err := reader.Read(b)
					if err != nil {
						t.Fatalf("%q does not come: %v", sign, err)
					}
					if strings.Contains(string(b[:n]), sign) {
						return
					}
				}
			}
			ask(100) // more than the socket holds
			wanted("echo exited")
			reader.Close()
			eventually(t, func() error {
				ask(1)
				return wantCount(len(recordsIn(t, stderr)), 1)
			})
			os.Remove(path)
			ask(10)
			reader = listen()
			d.signal(syscall.SIGHUP)
			wanted("log lines were dropped because the log cannot be written")
			wanted("reloaded")
			if list := recordsIn(t, stderr); len(list) != 1 || list[0].text("output") != output || list[0].text("error") == "" {
				t.Errorf("on stderr is %v", list)
			}
		})
	}
}

// A flood of one service's stderr takes no record from another service, nor
// its own, while the log is read more slowly than it is written.
func TestFloodOfStderr(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := prepare(t, `
services:
  quiet: {listen: "127.0.0.1:0", `+shell("echo a word >&2; exec cat")+`}
  noise: {listen: "127.0.0.2:0", `+shell(`read x; exec yes "a line of the same noise again and again" >&2`)+`}
`)
	cmd.Stderr = w
	d := launch(t, cmd)
	w.Close()
	lines := make(chan record)
	go func() { // ends with superd
		defer close(lines)
		for s := json.NewDecoder(r); ; {
			var line record
			if s.Decode(&line) != nil {
				break
			}
			lines <- line
		}
		cmd.Wait()
		close(d.wait)
	}()
	next := func() record {
		select {
		case line := <-lines:
			return line
		case <-time.After(patience):
			t.Fatal("the log ends")
			return nil
		}
	}
	for ready := false; !ready; {
		line := next()
		d.records = append(d.records, line)
		ready = line.is("ready")
	}
	d.idle = d.descriptors()
	noise := d.dial("noise")
	io.WriteString(noise, "go\n")
	eventually(t, func() error { // more than the pipe and the queue hold together
		if n := d.hasRead(); n < 8<<20 {
			return fmt.Errorf("superd has read only %d bytes", n)
		}
		return nil
	})
	const n = 100
	d.many("quiet", n, 10, askFor("hello", "hello"))
	for range 4 { // and the flood goes on
		d.ask("quiet", "")
	}
	eventually(t, func() error { return wantCount(len(d.children()), 1) })
	syscall.Kill(d.child(), syscall.SIGKILL)
	counts := map[string]int{}
	for counts["quiet exited"] < n+4 || counts["noise exited"] < 1 || counts["noise gap"] < 1 {
		line := next()
		message := line.text("message")
		if strings.HasSuffix(message, " lines of stderr were dropped") {
			message = "gap"
		}
		counts[line.text("service")+" "+message]++
		if strings.Contains(message, "nobody reads the log") {
			t.Fatalf("records are lost: %v", line)
		}
	}
	if counts["quiet stderr"] != n+4 || counts["quiet gap"] > 0 || counts["noise stderr"] == 0 {
		t.Errorf("the log has %v", counts)
	}
	go func() { // ends with the channel
		for range lines {
		}
	}()
}

// hasRead is how many bytes superd has read, proc(5).
func (d *process) hasRead() (n int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", d.pid()))
	if err != nil {
		d.t.Fatal(err)
	}
	fmt.Sscanf(string(text), "rchar: %d", &n)
	return n
}

// What log.address leaves of a client's address is in every record that had
// it; the program is told the whole.
func TestLogAddress(t *testing.T) {
	t.Parallel()
	for word, form := range map[string]string{"full": `127\.0\.0\.1:\d+`, "prefix": `127\.0\.0\.0/24`, "hash": `[0-9a-f]{16}`, "none": ``} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			dir := publicDir(t)
			d := startAsked(t, "log: {level: debug, address: "+word+"}\n"+`
services:
  held:  {listen: "127.0.0.1:0", builtin: echo}
  local: {listen: "unix:`+dir+`/local", builtin: echo}
  told:  {listen: "127.0.0.1:0", `+shell("echo $TCPREMOTEIP; echo a word >&2")+`}
  wrong: {listen: "127.0.0.1:0", run: /nonexistent}
`)
			if got := d.ask("told", ""); got != "127.0.0.1\n" {
				t.Errorf("the program is told %q", got)
			}
			d.exited("told", 1)
			d.ask("wrong", "")
			d.refused("wrong")
			c := d.held("held")
			if list := d.connections(); len(list) != 1 || list[0].Peer != c.LocalAddr().String() {
				t.Errorf("an administrator is shown %v", list)
			}
			c.Close()
			d.exited("held", 1)
			d.askUnix("local", "", "hello")
			if r := d.exited("local", 1)[0]; !strings.HasPrefix(r.text("peer"), "unix:") {
				t.Errorf("who has no address is %v", r)
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			peers, kinds := map[string]bool{}, 0
			for _, r := range d.records {
				if r.text("conn") == "" || r.text("service") == "local" {
					continue
				}
				kinds++
				peer, is := r["peer"].(string)
				peers[peer] = true
				if is != (word != "none") || !matches(form, peer) {
					t.Errorf("the peer is %q in %v", peer, r)
				}
				if line, _ := json.Marshal(withoutLocal(r)); word != "full" && strings.Contains(string(line), "127.0.0.1") {
					t.Errorf("the address is in %s", line)
				}
			}
			if kinds < 9 || word != "full" && len(peers) != 1 {
				t.Errorf("%d records have the peers %v", kinds, peers)
			}
		})
	}
}

func TestLogLevelOfAService(t *testing.T) {
	t.Parallel()
	services := ""
	for _, level := range []string{"debug", "info", "warn", "error"} {
		services += fmt.Sprintf("  %s: {listen: '127.0.0.1:0', log_level: %[1]s, %s}\n", level, shell("echo a word >&2"))
		services += fmt.Sprintf("  %s-wrong: {listen: '127.0.0.1:0', log_level: %[1]s, run: /nonexistent}\n", level)
	}
	d := startLogged(t, "log: {output: %s}\nservices:\n"+services+"  log: {listen: '127.0.0.1:0', builtin: echo}\n")
	ports := d.portsOf("tcp")
	for _, port := range ports {
		c, err := dialAddress("127.0.0.1:" + port)
		if err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		io.Copy(io.Discard, c)
		c.Close()
	}
	d.signal(syscall.SIGTERM)
	d.ended()
	got := map[string][]string{}
	for _, r := range d.in("superd.log") {
		if s := r.text("service"); s != "" && !r.is("listening") {
			got[s] = append(got[s], r.text("message"))
		}
	}
	for service, want := range map[string]string{
		"debug": "accepted started stderr exited", "info": "stderr exited", "warn": "", "error": "", "log": "exited",
		"debug-wrong": "accepted started refused", "info-wrong": "refused", "warn-wrong": "refused", "error-wrong": "",
	} {
		if words := strings.Join(got[service], " "); words != want {
			t.Errorf("%s has %q, want %q", service, words, want)
		}
	}
	if len(ports) != 9 {
		t.Errorf("superd listens on %v", slices.Sorted(slices.Values(ports)))
	}
}

func matches(form, text string) bool { return regexp.MustCompile("^" + form + "$").MatchString(text) }

func withoutLocal(r record) record {
	r = maps.Clone(r)
	delete(r, "local")
	return r
}

// The level of the log, and of a service, is what the file says after a reload,
// and what it was where that has failed.
func TestLogLevelIsReloaded(t *testing.T) {
	t.Parallel()
	file := func(log, service string) string {
		return "log: {" + log + "}\nservices: {echo: {listen: '127.0.0.1:0', builtin: echo" + service + "}}\n"
	}
	d := start(t, file("level: info", ""))
	exits := 0
	ask := func(accepted int) {
		t.Helper()
		d.ask("echo", "hello")
		exits++
		d.exited("echo", exits)
		d.mu.Lock()
		defer d.mu.Unlock()
		n := 0
		for _, r := range d.records {
			if r.is("accepted") {
				n++
			}
		}
		if n != accepted {
			t.Errorf("after %d connections, %d records are of the level debug, not %d", exits, n, accepted)
		}
	}
	ask(0)
	d.rewrite(1, file("level: debug", ", log_level: info"))
	ask(0)
	d.rewrite(2, file("level: debug", ""))
	ask(1)
	d.rewrite(3, file("level: info", ", log_level: debug"))
	ask(2)
	os.WriteFile(d.config(), []byte(file("level: error, address: none", ", log_level: warn, user: nobody-at-all")), 0o644)
	d.signal(syscall.SIGHUP)
	d.await(func(r record) bool { return r.is(notReloaded) })
	ask(3)
	d.rewrite(4, file("level: info", ""))
	ask(3)
}
