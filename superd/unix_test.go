package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Services of unix sockets.

// dialUnix connects to the first unix socket of a service, from the name bound
// where that is not empty.
func (d *process) dialUnix(service, bound string) *net.UnixConn {
	d.t.Helper()
	list := d.addresses(service)
	i := slices.IndexFunc(list, func(address string) bool { return strings.HasPrefix(address, "unix:") })
	if i < 0 {
		d.t.Fatalf("%s listens on %q", service, list)
	}
	path := strings.TrimPrefix(list[i], "unix:")
	dialer := net.Dialer{Timeout: patience}
	if bound != "" {
		dialer.LocalAddr = &net.UnixAddr{Name: bound, Net: "unix"}
	}
	c, err := dialer.Dial("unix", path)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.UnixConn)
}

// askUnix is ask for a service of a unix socket.
func (d *process) askUnix(service, bound, input string) string {
	d.t.Helper()
	c := d.dialUnix(service, bound)
	defer c.Close()
	if input != "" { // even nothing cannot be written to who has closed
		if _, err := io.WriteString(c, input); err != nil {
			d.t.Fatal(err)
		}
	}
	c.CloseWrite()
	answer, err := readAll(c)
	if err != nil {
		d.t.Fatalf("after %q: %v", answer, err)
	}
	return string(answer)
}

// localOne is a file with one service, at a path of its own.
func localOne(t testing.TB, name, keys string) (yaml, path string) {
	t.Helper()
	path = filepath.Join(publicDir(t), "socket")
	return fmt.Sprintf("services: {%s: {listen: 'unix:%s', %s}}", name, path, keys), path
}

func isSocket(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSocket != 0
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	d := start(t, fmt.Sprintf(`
services:
  path:     {listen: "unix:%[1]s/path", run: /bin/cat}
  abstract: {listen: "unix:@%[1]s", run: /bin/cat}
  both:     {listen: ["unix:%[1]s/both", "127.0.0.1:0"], builtin: echo}
`, dir))
	for service, where := range map[string]string{"path": dir + "/path", "abstract": "@" + dir, "both": dir + "/both"} {
		if got := d.askUnix(service, "", "hello\n"); got != "hello\n" {
			t.Errorf("%s: it answers %q", service, got)
		}
		r := d.exited(service, 1)[0]
		if want := fmt.Sprintf("unix:pid=%d,uid=%d,gid=%d", os.Getpid(), os.Getuid(), os.Getgid()); r.text("peer") != want {
			t.Errorf("%s: the client is %q, not %q", service, r.text("peer"), want)
		}
		if r.text("local") != "unix:"+where || d.address(service) != "unix:"+where {
			t.Errorf("%s: it came in at %q, the service is at %q", service, r.text("local"), d.address(service))
		}
		if r.number("bytes_in") != -1 || r.number("bytes_out") != -1 || r.number("status") != 0 {
			t.Errorf("%s: it is recorded as %v", service, r)
		}
	}
	// One service, two kinds of sockets.
	if err := visitOnce(d.addresses("both")[1], askFor("hello", "hello")); err != nil {
		t.Error(err)
	}
	if r := d.exited("both", 2)[1]; r.number("bytes_in") != 5 {
		t.Errorf("the connection of TCP is recorded as %v", r)
	}
	d.settled()
	d.ends()
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("superd leaves %q behind", left)
	}
}

// Records stay apart, in both directions.
func TestSeqpacket(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	d := start(t, several("cat", fmt.Sprintf("listen: {address: 'unix:%s/cat', type: seqpacket}, run: /bin/cat, timeout: {idle: 1h}", dir),
		"brief", fmt.Sprintf("listen: {address: 'unix:%s/brief', type: seqpacket}, builtin: greeting", dir)))
	c, err := net.Dial("unixpacket", dir+"/cat")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	sent := []string{"one", strings.Repeat("x", 50_000), "three\n", "4"}
	for _, record := range sent {
		if _, err := io.WriteString(c, record); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, 100_000)
	for _, record := range sent {
		if n, err := c.Read(b); err != nil || string(b[:n]) != record {
			t.Errorf("a record of %d bytes came back as %d: %v", len(record), n, err)
		}
	}
	c.(*net.UnixConn).CloseWrite()
	d.closed(c)
	if r := d.exited("cat", 1)[0]; r.number("status") != 0 || r.text("local") != "unix:"+dir+"/cat" {
		t.Errorf("it is recorded as %v", r)
	}
	// superd's own client finds out what it has to speak. Input that nobody reads
	// does no harm here either.
	cmd := superd("connect", d.address("brief"))
	cmd.Stdin = strings.NewReader("unread")
	if code, out, complaints := finished(t, cmd); code != 0 || out != "hi client" {
		t.Errorf("it says %d %q %s", code, out, complaints)
	}
	if _, err := net.Dial("unix", dir+"/cat"); err == nil {
		t.Error("a stream can connect to it")
	}
	// What kind it is cannot be changed while it is open.
	os.WriteFile(d.config(), []byte(several("cat", fmt.Sprintf("listen: {address: 'unix:%s/cat', type: stream}, run: /bin/cat", dir))), 0o644)
	d.signal(unix.SIGHUP)
	d.await(func(r record) bool {
		return strings.HasSuffix(r.text("message"), "services.cat.listen.type: type of unix:"+dir+"/cat cannot be changed while superd listens there (take the address out, reload, and add it again)")
	})
}

// Many bytes, many clients, in both directions.
func TestUnixSocketUnderLoad(t *testing.T) {
	t.Parallel()
	yaml, path := localOne(t, "cat", "run: /bin/cat, max: 20")
	d := start(t, yaml)
	n := fewer(500, 100)
	sent := noise(5, 300_000)
	crowd(t, n, 50, func(i int) error {
		c, err := net.DialTimeout("unix", path, patience)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		part := sent[:(i*7919)%len(sent)]
		go func() { // ends with the connection
			c.Write(part)
			c.(*net.UnixConn).CloseWrite()
		}()
		got, err := readAll(c)
		if err == nil {
			err = checkSame(got, part)
		}
		return err
	})
	checkStatus(t, d.allExited("cat", n))
}

// connectionsVariables are what env(1) says beside what all programs have.
func connectionsVariables(env string) (list []string) {
	for v := range strings.Lines(env) {
		name, _, _ := strings.Cut(v, "=")
		if !slices.Contains([]string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "SUPERD_SERVICE", "SUPERD_CONNECTION"}, name) {
			list = append(list, strings.TrimSpace(v))
		}
	}
	slices.Sort(list)
	return list
}

// Every style tells what it can of a client without an address, and nothing of
// what a client could do harm with.
func TestEnvironmentOfAUnixSocket(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	yaml := "services:\n"
	for _, style := range []string{"ucspi", "systemd", "xinetd", "ncat", "cgi"} {
		yaml += fmt.Sprintf("  %[1]s: {listen: 'unix:%[2]s/%[1]s', run: %[3]s, env_style: [%[1]s]}\n", style, dir, installed(t, "env"))
	}
	d := start(t, yaml)
	const ucspi = "IPCCONNNUM=1 IPCLOCALPATH=$path IPCREMOTEEGID=$gid IPCREMOTEEUID=$uid PROTO=IPC " +
		"UNIXLOCALPATH=$path UNIXREMOTEEGID=$gid UNIXREMOTEEUID=$uid UNIXREMOTEPID=$pid"
	plain, abstract, odd := dir+"/client_1.x", "@"+dir+"/c:2", dir+"/$(reboot)"
	for _, c := range []struct{ style, bound, want string }{
		{"ucspi", "", ucspi},
		{"ucspi", plain, "IPCREMOTEPATH=" + plain + " " + ucspi},
		{"ucspi", abstract, "IPCREMOTEPATH=" + abstract + " " + ucspi},
		{"ucspi", odd, ucspi},
		{"systemd", "", ""},
		{"systemd", plain, "REMOTE_ADDR=" + plain},
		{"systemd", odd, ""},
		{"xinetd", plain, ""},
		{"ncat", plain, "NCAT_LOCAL_ADDR=localhost NCAT_PROTO=TCP NCAT_REMOTE_ADDR=localhost"},
		{"cgi", plain, "GATEWAY_INTERFACE=CGI/1.1 SERVER_PROTOCOL=UNIX"},
	} {
		want := strings.Fields(strings.NewReplacer("$path", dir+"/"+c.style, "$pid", strconv.Itoa(os.Getpid()),
			"$uid", strconv.Itoa(os.Getuid()), "$gid", strconv.Itoa(os.Getgid())).Replace(c.want))
		slices.Sort(want)
		eventually(t, func() error { // the one before is counted for a moment
			got := connectionsVariables(d.askUnix(c.style, c.bound, ""))
			os.Remove(c.bound)
			if !slices.Equal(got, want) {
				return fmt.Errorf("%s, from %q:\n got %q\nwant %q", c.style, c.bound, got, want)
			}
			return nil
		})
	}
}

// What stands in the file cannot pose as what is known of the client, nor as
// what would be known of another kind of client.
func TestForgedEnvironmentOfAUnixSocket(t *testing.T) {
	t.Parallel()
	yaml, _ := localOne(t, "env", "run: "+installed(t, "env")+`, env: {IPCREMOTEEUID: forged, UNIXREMOTEPID: forged, TCPREMOTEIP: forged},
  env_pass: [IPCREMOTEPATH, PROTO]`)
	cmd := prepare(t, yaml)
	cmd.Env = append(cmd.Env, "IPCREMOTEPATH=forged", "PROTO=forged")
	d := startCommand(t, cmd)
	got := d.askUnix("env", "", "")
	if strings.Contains(got, "forged") || !strings.Contains(got, "\nPROTO=IPC\n") || strings.Contains(got, "IPCREMOTEPATH") {
		t.Errorf("the program is told\n%s", got)
	}
}

// Who may connect is who may write to the socket's file.
func TestUnixSocketOfTwoUsers(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := publicDir(t)
	other := someUser + 1
	d := start(t, fmt.Sprintf(`
services:
  root:   {listen: "unix:%[1]s/root", builtin: greeting}
  theirs: {listen: {address: "unix:%[1]s/theirs", owner: %[2]d}, builtin: greeting}
  group:  {listen: {address: "unix:%[1]s/group", group: %[2]d}, builtin: greeting}
  alone:  {listen: {address: "unix:%[1]s/alone", owner: %[2]d, group: %[3]d, mode: "0600"}, builtin: greeting}
  all:    {listen: {address: "unix:%[1]s/all", mode: "0666"}, builtin: greeting}
`, dir, someUser, other))
	for service, may := range map[string]string{"root": "", "theirs": "one", "group": "one", "alone": "one", "all": "one other"} {
		for name, uid := range map[string]int{"one": someUser, "other": other} {
			code, out, complaints := finished(t, asUser(t, superd("connect", d.address(service)), uid))
			allowed := strings.Contains(may, name)
			if allowed && (code != 0 || out != "hi client") {
				t.Errorf("%s says to %s user: %d %q %s", service, name, code, out, complaints)
			}
			if !allowed && (code != 1 || !strings.HasSuffix(complaints, ": permission denied\n")) {
				t.Errorf("%s, closed to %s user, says %d %q %s", service, name, code, out, complaints)
			}
			if want := fmt.Sprintf(",uid=%d,gid=%[1]d", uid); allowed {
				d.await(func(r record) bool {
					return r.is("exited") && r.text("service") == service && strings.HasSuffix(r.text("peer"), want)
				})
			}
		}
	}
}

// Rules about users and groups hold for clients of unix sockets, with all the
// groups that they have, and each user is a source.
func TestRulesOfAUnixSocket(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := publicDir(t)
	one, other := someUser, someUser+1
	yaml := "services:\n"
	for name, keys := range map[string]string{
		"one":     fmt.Sprintf("allow: [uid:%d]", one),
		"others":  fmt.Sprintf("deny: [uid:%d]", one),
		"group":   fmt.Sprintf("allow: [gid:%d]", other),
		"outside": fmt.Sprintf("deny: [gid:%d]", other),
		"network": "allow: [127.0.0.0/8, '::/0']",
	} {
		yaml += fmt.Sprintf("  %[1]s: {listen: {address: 'unix:%[2]s/%[1]s', mode: '0666'}, builtin: greeting, %[3]s}\n", name, dir, keys)
	}
	d := start(t, yaml)
	for _, who := range []struct {
		uid    int
		groups []uint32
		may    string
	}{
		{one, nil, "one outside"},
		{other, nil, "others group"},
		{one, []uint32{1, 2, uint32(other)}, "one group"},
	} {
		for _, service := range []string{"one", "others", "group", "outside", "network"} {
			cmd := asUser(t, superd("connect", d.address(service)), who.uid)
			cmd.SysProcAttr.Credential.Groups = who.groups
			_, out, _ := finished(t, cmd)
			if want := slices.Contains(strings.Fields(who.may), service); (out == "hi client") != want {
				t.Errorf("%s says %q to user %d with the groups %d", service, out, who.uid, who.groups)
			}
		}
	}
	if r := d.refused("network"); r.text("reason") != "address" || !strings.HasPrefix(r.text("peer"), "unix:pid=") {
		t.Errorf("a refusal is recorded as %v", r)
	}
}

// Connections are counted by the user at their other end.
func TestUsersOfAUnixSocketAreCounted(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := publicDir(t)
	d := start(t, fmt.Sprintf("services: {count: {listen: {address: 'unix:%s/count', mode: '0666'}, max_per_source: 2, on_limit: refuse, %s}}",
		dir, shell("echo $IPCREMOTEEUID $IPCCONNNUM; read x")))
	for _, uid := range []int{0, someUser} {
		for n := 1; n <= 2; n++ {
			cmd := superd("connect", d.address("count"))
			if uid != 0 {
				asUser(t, cmd, uid)
			}
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer in.Close()
			var gotUID, gotN int
			if _, err := fmt.Fscan(out, &gotUID, &gotN); err != nil || gotUID != uid || gotN != n {
				t.Errorf("user %d is told to be number %d of user %d, not %d: %v", uid, gotN, gotUID, n, err)
			}
		}
	}
	if got := d.askUnix("count", "", ""); got != "" {
		t.Errorf("one too many is told %q", got)
	}
	if r := d.refused("count"); r.text("reason") != "source-limit" {
		t.Errorf("it is recorded as %v", r)
	}
}

// Only root can give sockets away; that is told with the key's place, by check
// as by run, and no file is left.
func TestUnixSocketCannotBeGivenAway(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	grouped := filepath.Join(dir, "grouped") // what is made there is of the directory's group
	if err := errors.Join(os.Mkdir(grouped, 0o777), os.Chmod(grouped, 0o777|fs.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	yaml := fmt.Sprintf(`
services:
  a: {listen: {address: "unix:%[1]s/a", owner: 1}, builtin: echo}
  b: {listen: {address: "unix:%[1]s/b", mode: "0666", group: 1}, builtin: echo}
  c: {listen: {address: "unix:%[1]s/c", owner: no-such-user-here, group: no-such-group-here}, builtin: echo, enabled: false}
  d: {listen: {address: "unix:%[1]s/grouped/d", group: %[2]d}, builtin: echo}
`, dir, os.Getgid())
	const denied = ": chown: operation not permitted (EPERM) (only root can give a socket to another user, or to a group that superd is not in)\n"
	for _, verb := range []string{"check", "run"} {
		code, _, complaints := ordinary(t, yaml, verb)
		for _, want := range []string{
			"services.a.listen.owner: cannot listen on unix:" + dir + "/a" + denied,
			"services.b.listen.group: cannot listen on unix:" + dir + "/b" + denied,
			"services.c.listen.owner: no such user: no-such-user-here",
			"services.c.listen.group: no such group: no-such-group-here",
		} {
			if code != 1 || !strings.Contains(complaints, want) {
				t.Errorf("%s ends with %d and does not tell %s", verb, code, want)
			}
		}
		if strings.Contains(complaints, "services.d") {
			t.Errorf("%s complains of what it can do", verb)
		}
		if left, _ := filepath.Glob(dir + "/[abc]"); len(left) > 0 || t.Failed() {
			t.Errorf("left are %q; it says\n%s", left, complaints)
		}
	}
}

// A superd that was killed is in no other's way; one that lives is, and nothing
// happens to it.
func TestUnixSocketOfAnotherSuperd(t *testing.T) {
	t.Parallel()
	yaml, path := localOne(t, "cat", "run: /bin/cat")
	first := start(t, yaml)
	first.signal(unix.SIGKILL)
	first.ended()
	if !isSocket(path) {
		t.Fatal("nothing is left of a superd that was killed")
	}
	second := start(t, yaml)
	c := second.dialUnix("cat", "")
	second.talk(c, "hello\n")
	code, _, complaints := finished(t, prepare(t, yaml))
	want := fmt.Sprintf("services.cat.listen: cannot listen on unix:%s: address already in use (EADDRINUSE) (it is held by %s, process %d)\n", path, comm(t), second.pid())
	if code != 1 || !strings.HasSuffix(complaints, want) {
		t.Errorf("a third one ends with %d and %s, not %s", code, complaints, want)
	}
	second.talk(c, "hello\n")
	if got := second.askUnix("cat", "", "x"); got != "x" {
		t.Errorf("the second one answers %q", got)
	}
	second.exited("cat", 1)
	if list := second.recordsOf("cat"); len(list) != 2 { // it listens, and one has come and gone
		t.Errorf("the second one has noticed something: %v", list)
	}
}

// As soon as superd is told to stop its socket's file is gone, so that another
// one can take its place while programs go on; and the first one leaves the
// second one's file alone.
func TestUnixSocketOfASuccessor(t *testing.T) {
	t.Parallel()
	yaml, path := localOne(t, "cat", "run: /bin/cat")
	yaml += "\ndrain: 1h"
	first := start(t, yaml)
	c := first.dialUnix("cat", "")
	first.talk(c, "hello\n")
	first.signal(unix.SIGTERM)
	eventually(t, func() error {
		if isSocket(path) {
			return fmt.Errorf("%s is still there", path)
		}
		return nil
	})
	second := start(t, yaml)
	first.talk(c, "hello\n")
	c.Close()
	if code := first.ended(); code != 0 {
		t.Errorf("the first one ends with %d", code)
	}
	if got := second.askUnix("cat", "", "hello"); got != "hello" {
		t.Errorf("the second one answers %q", got)
	}
}

// Input that a program leaves unread costs its client neither the answer nor
// its end.
func TestUnreadInputOfAUnixSocket(t *testing.T) {
	t.Parallel()
	yaml, _ := localOne(t, "brief", shell("echo answer")+", linger: 1h")
	d := start(t, yaml)
	for range 20 {
		if got := d.askUnix("brief", "", strings.Repeat("question", 1000)); got != "answer\n" {
			t.Fatalf("it answers %q", got)
		}
	}
	checkStatus(t, d.exited("brief", 20))
	d.settled()
}

// As TestIdleTime, where the kernel does not note when a byte moved. Where
// something stood still, who is not idle needs more time to show it.
func TestIdleTimeOfAUnixSocket(t *testing.T) {
	t.Parallel()
	for idle := 1500 * time.Millisecond; ; idle *= 2 {
		err := idleTimeOfAUnixSocket(t, idle)
		if err == nil {
			return
		}
		if idle > patience/2 {
			t.Fatal(err)
		}
		t.Logf("with %s: %v", idle, err)
	}
}

func idleTimeOfAUnixSocket(t *testing.T, idle time.Duration) (wrong error) {
	dir := publicDir(t)
	d := start(t, strings.ReplaceAll(fmt.Sprintf(`
services:
  idle: {listen: "unix:%[1]s/idle", run: /bin/cat, timeout: {idle: TIME, stop: 1h}}
  up:   {listen: "unix:%[1]s/up", builtin: discard, timeout: {idle: TIME}}
  down: {listen: "unix:%[1]s/down", %[2]s, timeout: {idle: TIME}}
  lost: {listen: "unix:%[1]s/lost", run: /bin/cat, timeout: {idle: TIME}, keep: false}
`, dir, shell("while echo x; do sleep 0.2; done")), "TIME", idle.String()))
	up, down := d.dialUnix("up", ""), d.dialUnix("down", "")
	go io.Copy(io.Discard, down) // ends with the connection
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	go func() { // ends with the connection
		for _, err := io.WriteString(up, "x"); err == nil; _, err = io.WriteString(up, "x") {
			<-ticker.C
		}
	}()
	lost := d.dialUnix("lost", "")
	d.talk(lost, "hello\n")
	// Two who are idle one after the other show that time enough has passed.
	for n := range 2 {
		d.closed(d.dialUnix("idle", ""))
		checkEnd(t, d.exited("idle", n+1)[n], "TERM", "timeout.idle")
	}
	for _, service := range []string{"up", "down", "lost"} {
		for _, r := range d.recordsOf(service) {
			if r.is("exited") {
				wrong = fmt.Errorf("%s was not idle: %v", service, r)
			}
		}
	}
	for _, c := range []net.Conn{up, down, lost} {
		c.Close()
	}
	d.exited("up", 1)
	return wrong
}

// A socket's file is the same across a reload, with the rights of the new file
// of superd's; those of removed services go, and those of a file that is not
// taken up never stay.
func TestReloadOfUnixSockets(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	unixOne := func(name, keys string) string {
		return fmt.Sprintf("listen: {address: 'unix:%s/%s', %s}, builtin: echo", dir, name, keys)
	}
	d := start(t, several("same", unixOne("same", ""), "old", unixOne("old", ""), "moved", unixOne("moved", "")))
	before, err := os.Lstat(dir + "/same")
	if err != nil {
		t.Fatal(err)
	}
	c := d.dialUnix("old", "")
	d.talk(c, "hello\n")
	d.rewrite(1, several("same", unixOne("same", "mode: '0606'"), "new", unixOne("new", ""), "other", unixOne("moved", "")))
	after, err := os.Lstat(dir + "/same")
	if err != nil || !os.SameFile(before, after) || after.Mode().Perm() != 0o606 {
		t.Errorf("the file was %v and is %v, %v", before, after, err)
	}
	if isSocket(dir + "/old") {
		t.Error("the file of the removed service is still there")
	}
	d.talk(c, "still here\n")
	c.Close()
	d.exited("old", 1)
	for name, service := range map[string]string{"same": "same", "new": "new", "moved": "other"} {
		if code, out, complaints := finished(t, superd("connect", "unix:"+dir+"/"+name)); code != 0 || out != "" {
			t.Errorf("%s: %d %q %s", name, code, out, complaints)
		}
		d.exited(service, 1)
	}
	if err := os.WriteFile(d.config(), []byte(several("same", unixOne("same", ""), "never", unixOne("never", ""), "bad", unixOne("none/bad", ""))), 0o644); err != nil {
		t.Fatal(err)
	}
	d.signal(unix.SIGHUP)
	d.await(func(r record) bool { return r.is(notReloaded) })
	if isSocket(dir+"/never") || !isSocket(dir+"/new") {
		t.Error("a reload that failed has changed something")
	}
	d.settled()
	d.ends()
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("superd leaves %q behind", left)
	}
}

// A socket whose file somebody has removed is opened anew by a reload, and by an
// upgrade; the administrative one as well. Who has come by the old one stays.
func TestSocketFilesAreRemoved(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	a := startAsked(t, several("a", fmt.Sprintf("listen: 'unix:%s/a', builtin: echo", dir)))
	c := a.dialUnix("a", "")
	a.talk(c, "hello\n")
	const anew = "the administrative socket was not there any more, it is opened anew"
	for i, change := range []func(){
		func() { a.signal(unix.SIGHUP); a.await(func(r record) bool { return r.is("reloaded") }) },
		func() { a.upgradeNow(1) },
	} {
		for _, path := range []string{dir + "/a", a.socket} {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		change()
		eventually(t, func() error {
			if !isSocket(dir+"/a") || !isSocket(a.socket) {
				return errors.New("a socket is not there")
			}
			return nil
		})
		if s := a.status(); s.Generation != i+2 || len(s.Services[0].Listen) != 1 {
			t.Errorf("superd says %+v", s)
		}
		next := a.dialUnix("a", "")
		a.talk(next, "anew\n")
		next.Close()
		a.talk(c, "still here\n")
		a.exited("a", i+1)
	}
	if n := a.timesSaid(anew); n != 1 { // by the reload: of the other it is said that it cannot go on
		t.Errorf("that it was not there is said %d times", n)
	}
	c.Close()
}

// What would keep a socket from being opened is found by check, as far as it
// can be without opening it.
func TestCheckOfUnixSockets(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	writeFile(t, dir, "file", "content", 0o644)
	yaml, path := localOne(t, "cat", "run: /bin/cat")
	d := startAsked(t, yaml)
	if code, _, complaints := finished(t, superd("check", "-c", d.config())); code != 0 || !isSocket(path) {
		t.Errorf("of a superd that runs, check says %d %s", code, complaints)
	}
	file := writeFile(t, dir, "superd.yaml", fmt.Sprintf(`services:
  a: {listen: "unix:%[1]s/file", builtin: echo}
  b: {listen: [7007, {address: "unix:%[1]s/none/b"}], builtin: echo, enabled: false}
  c: {listen: "unix:%[1]s/c", builtin: echo}
`, dir), 0o644)
	code, out, complaints := finished(t, superd("check", "-c", file))
	want := fmt.Sprintf(`%[1]s:2:15: services.a.listen: cannot listen on unix:%[2]s/file: there is a file in its place (it is left alone; name another path)
%[1]s:3:32: services.b.listen[1].address: cannot listen on unix:%[2]s/none/b: no such file or directory (ENOENT) (the directory %[2]s/none does not exist: make it, or have systemd make it with RuntimeDirectory=)
`, file, dir)
	if code != 1 || out != "" || complaints != want {
		t.Errorf("check says %d %q\n%s, not\n%s", code, out, complaints, want)
	}
}
