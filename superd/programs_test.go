package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Programs that people run under a superserver, each with its own client.

// A gitClient runs git with a home of its own.
type gitClient struct {
	t    *testing.T
	path string
	home string
}

// gitConfig is read by both ends, each as its own user: repositories may belong
// to the other one, and the daemon lets clients push.
const gitConfig = `
[safe]
	directory = *
[user]
	name = A
	email = a@example.org
[init]
	defaultBranch = main
[daemon]
	receivepack = true
`

// newGitClient leaves out a git that comes without its daemon.
func newGitClient(t *testing.T, home string) gitClient {
	g := gitClient{t, installed(t, "git"), home}
	daemon := filepath.Join(strings.TrimSpace(g.run("--exec-path")), "git-daemon")
	if _, err := os.Stat(daemon); err != nil {
		skip(t, "this needs git-daemon")
	}
	writeFile(t, home, ".gitconfig", gitConfig, 0o644)
	return g
}

func (g gitClient) run(args ...string) string {
	g.t.Helper()
	cmd := client(g.t, g.path, args...)
	cmd.Dir = g.home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + g.home, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C"}
	return strings.TrimSpace(output(g.t, cmd))
}

// commit adds n files to a work tree, the first of them large.
func (g gitClient) commit(tree, prefix string, n int) {
	g.t.Helper()
	writeFile(g.t, tree, prefix+"large", string(noise(uint64(n), 4<<20)), 0o644)
	for i := range n {
		writeFile(g.t, tree, fmt.Sprint(prefix, i), strings.Repeat(fmt.Sprintln("line", i), i), 0o644)
	}
	g.run("-C", tree, "add", ".")
	g.run("-C", tree, "commit", "-q", "-m", prefix)
}

func TestGit(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	g := newGitClient(t, dir)
	g.run("init", "-q", "first")
	g.commit(filepath.Join(dir, "first"), "a", 200)
	bases := filepath.Join(dir, "bases")
	g.run("clone", "-q", "--bare", "first", filepath.Join(bases, "work.git"))
	giveAway(t, bases)
	d := start(t, fmt.Sprintf(`
services:
  git:
    listen: "127.0.0.1:0"
    run: %s
    env: {HOME: %q}
`, yamlList(g.path, "daemon", "--inetd", "--export-all", "--base-path="+bases, bases), dir))

	url := "git://" + d.address("git") + "/work.git"
	head := func(repository string) string { return g.run("-C", repository, "rev-parse", "HEAD") }
	g.run("clone", "-q", url, "second")
	g.run("-C", "second", "fsck", "--full", "--strict")
	if got, want := head("second"), head("first"); got != want {
		t.Errorf("the clone is at %s, the original at %s", got, want)
	}
	g.commit(filepath.Join(dir, "second"), "b", 50)
	g.run("-C", "second", "push", "-q", "origin", "HEAD")
	g.run("-C", filepath.Join(bases, "work.git"), "fsck", "--full", "--strict")
	if got, want := head(filepath.Join(bases, "work.git")), head("second"); got != want {
		t.Errorf("after the push the base is at %s, the work tree at %s", got, want)
	}
	g.run("clone", "-q", url, "third")
	if got, want := g.run("-C", "third", "rev-parse", "HEAD^{tree}"), g.run("-C", "second", "rev-parse", "HEAD^{tree}"); got != want {
		t.Errorf("the second clone has the tree %s, not %s", got, want)
	}
	checkStatus(t, d.allExited("git", 3))
}

// aTree fills dir with what file copiers stumble over.
func aTree(t *testing.T, dir string) {
	t.Helper()
	for _, sub := range []string{"a", "a/deep er", "a/deep er/häuser 数", "empty"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i, size := range []int{0, 1, 4095, 4096, 4097, 3 << 20} {
		writeFile(t, dir, fmt.Sprintf("a/%d", size), string(noise(uint64(i), size)), 0o644)
	}
	for name, mode := range map[string]fs.FileMode{
		"a/deep er/häuser 数/ü\u00a0x": 0o600, " leading": 0o755, "-dash": 0o400, "st*r": 0o640, "quo\"te'": 0o711, "back\\slash": 0o664,
	} {
		path := writeFile(t, dir, name, name, 0o644)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"to file": "a/4096", "to dir": "a", "to nowhere": "no such file", "a/up": "../st*r"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(filepath.Join(dir, "a/4097"), time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
}

// describeTree lists everything below dir with what a copy must have alike.
func describeTree(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		line, err := describeFile(path)
		list = append(list, fmt.Sprintf("%q %s", name, line))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func describeFile(path string) (string, error) {
	s, err := os.Lstat(path)
	switch {
	case err != nil:
		return "", err
	case s.Mode().Type() == fs.ModeSymlink:
		target, err := os.Readlink(path)
		return "-> " + target, err
	case s.IsDir():
		return s.Mode().String(), nil
	}
	content, err := os.ReadFile(path)
	return fmt.Sprintf("%s %d bytes, time %d, %x", s.Mode(), len(content), s.ModTime().Unix(), sha256.Sum256(content)), err
}

func checkTrees(t *testing.T, got, want string) {
	t.Helper()
	g, w := describeTree(t, got), describeTree(t, want)
	if !slices.Equal(g, w) {
		t.Errorf("the copy has\n%s\nthe original\n%s", strings.Join(g, "\n"), strings.Join(w, "\n"))
	}
}

func TestRsync(t *testing.T) {
	t.Parallel()
	rsync := installed(t, "rsync")
	dir := publicDir(t)
	original, module, back := filepath.Join(dir, "original"), filepath.Join(dir, "module"), filepath.Join(dir, "back")
	for _, d := range []string{original, module, back} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	aTree(t, original)
	giveAway(t, module)
	config := writeFile(t, dir, "rsyncd.conf", fmt.Sprintf(`
use chroot = no
munge symlinks = no
reverse lookup = no
log file = %s/log
[tree]
path = %s
read only = no
`, module, module+"/tree"), 0o644)
	d := start(t, fmt.Sprintf("services: {rsync: {listen: '127.0.0.1:0', run: %s, umask: '000'}}", yamlList(rsync, "--daemon", "--config="+config)))
	if err := os.Mkdir(filepath.Join(module, "tree"), 0o755); err != nil {
		t.Fatal(err)
	}
	giveAway(t, module)

	remote := "rsync://" + d.address("rsync") + "/tree/"
	copyTree := func(from, to string) { output(t, client(t, rsync, "-rlpt", "--delete", from, to)) }
	copyTree(original+"/", remote)
	checkTrees(t, filepath.Join(module, "tree"), original)
	copyTree(remote, back+"/")
	checkTrees(t, back, original)

	// A difference is sent, not the whole.
	large := noise(5, 3<<20)
	copy(large[1<<20:], "this has changed")
	changed := writeFile(t, original, "a/3145728", string(large), 0o644)
	if err := os.Chtimes(changed, time.Time{}, time.Unix(1e9, 0)); err != nil { // the size is the same
		t.Fatal(err)
	}
	copyTree(original+"/", remote)
	checkTrees(t, filepath.Join(module, "tree"), original)

	list := d.allExited("rsync", 3)
	checkStatus(t, list)
	if sent := list[2].number("bytes_in"); sent > 1<<20 {
		t.Errorf("a change of 16 bytes came in %v bytes", sent)
	}
}

// An ssh is what a client needs to log in at a test's own server.
type ssh struct {
	path, key string
	server    string // the server's configuration
	user      string
}

const sshdConfig = `HostKey %[1]s/host
AuthorizedKeysFile %[1]s/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
PrintLastLog no
LogLevel ERROR
`

// newSSH makes keys for both ends.
func newSSH(t *testing.T) ssh {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := publicDir(t)
	s := ssh{path: installed(t, "ssh"), key: filepath.Join(dir, "user"), user: me.Username}
	for _, name := range []string{"host", "user"} {
		output(t, client(t, installed(t, "ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)))
	}
	s.server = writeFile(t, dir, "config", fmt.Sprintf(sshdConfig, dir), 0o644)
	return s
}

// command is the client, about to run a command at address.
func (s ssh) command(t *testing.T, address string, words ...string) *exec.Cmd {
	port := address[strings.LastIndexByte(address, ':')+1:]
	args := []string{"-F", "/dev/null", "-i", s.key, "-p", port}
	for _, o := range []string{"BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "StrictHostKeyChecking=no",
		"UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null", "LogLevel=ERROR"} {
		args = append(args, "-o", o)
	}
	return client(t, s.path, append(append(args, s.user+"@127.0.0.1"), words...)...)
}

// needLogin leaves out users that cannot log in, and prepares what sshd wants
// of the machine when root runs it.
func needLogin(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if who, err := user.Current(); err != nil || strings.Contains(output(t, client(t, installed(t, "getent"), "passwd", who.Uid)), "nologin") {
			skip(t, "this needs a user who can log in")
		}
		return
	}
	const separation = "/run/sshd" // sshd(8), FILES
	if os.Mkdir(separation, 0o755) == nil {
		t.Cleanup(func() { os.Remove(separation) })
	}
}

func TestSSH(t *testing.T) {
	t.Parallel()
	sshd := installed(t, "sshd")
	needLogin(t)
	s := newSSH(t)
	d := start(t, fmt.Sprintf(`
services:
  ssh:
    listen: "127.0.0.1:0"
    run: %s
    user: %s
`, yamlList(sshd, "-i", "-e", "-f", s.server), s.user))

	connection := strings.Fields(output(t, s.command(t, d.address("ssh"), "echo $SSH_CONNECTION")))
	first := d.exited("ssh", 1)[0]
	if len(connection) != 4 || connection[0]+":"+connection[1] != first.text("peer") || connection[2]+":"+connection[3] != first.text("local") {
		t.Errorf("the session's connection is %q, the log says %s to %s", connection, first.text("peer"), first.text("local"))
	}
	much := noise(1, fewer(50, 5)<<20)
	there := s.command(t, d.address("ssh"), "cat")
	there.Stdin = bytes.NewReader(much)
	back := output(t, there)
	if sha256.Sum256([]byte(back)) != sha256.Sum256(much) {
		t.Error(checkSame([]byte(back), much))
	}
	if r := d.allExited("ssh", 2)[1]; r.number("bytes_in") < float64(len(much)) || r.number("bytes_out") < float64(len(much)) {
		t.Errorf("%d bytes went both ways, the log says %v", len(much), r)
	}
}

const busyboxCGI = `#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n%s %s ' "$REQUEST_METHOD" "$REMOTE_ADDR"
cat
`

func TestBusyboxHTTPD(t *testing.T) {
	t.Parallel()
	busybox, curl := installed(t, "busybox"), installed(t, "curl")
	dir := publicDir(t)
	files := map[string][]byte{"empty": nil, "page.html": []byte("<p>a page</p>\n"), "large": noise(1, 3<<20), "with space": []byte("x")}
	for name, content := range files {
		writeFile(t, dir, name, string(content), 0o644)
	}
	if err := os.Mkdir(filepath.Join(dir, "cgi-bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "cgi-bin/hello", busyboxCGI, 0o755)
	d := start(t, fmt.Sprintf("services: {web: {listen: '127.0.0.1:0', run: %s}}", yamlList(busybox, "httpd", "-i", "-h", dir)))

	root := "http://" + d.address("web") + "/"
	get := func(args ...string) string {
		t.Helper()
		return output(t, client(t, curl, append([]string{"-sS", "--noproxy", "*"}, args...)...))
	}
	for name, content := range files {
		if err := checkSame([]byte(get("--fail", root+strings.ReplaceAll(name, " ", "%20"))), content); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := get("-o", os.DevNull, "-w", "%{http_code}", root+"missing"); got != "404" {
		t.Errorf("a missing file is answered by %s", got)
	}
	if got, want := get(root+"cgi-bin/hello", "--data", "some text"), "POST 127.0.0.1 some text"; got != want {
		t.Errorf("the script answers %q, not %q", got, want)
	}
	requests := fewer(200, 50)
	got := t.TempDir()
	get("--fail", "--parallel", "--parallel-max", "50", "-o", got+"/#1", fmt.Sprintf("%slarge?[1-%d]", root, requests))
	for i := range requests {
		b, err := os.ReadFile(filepath.Join(got, fmt.Sprint(i+1)))
		if err == nil {
			err = checkSame(b, files["large"])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	d.allExited("web", len(files)+2+requests)
}

// A talk is a conversation with a small program: what a client says and what
// it hears before it says more; then it closes its side and hears the rest.
type talk struct {
	name  string
	run   []string // a program's name first
	turns []turn
	rest  string
}

type turn struct{ say, hear string }

var talks = []talk{
	{"cat", []string{"cat"}, []turn{{"one\n", "one\n"}, {"no line's end", "no line's end"}}, ""},
	{"sort waits for the end", []string{"sort", "-n"}, []turn{{"10\n9\n", ""}, {"100\n", ""}}, "9\n10\n100\n"},
	{"bc", []string{"bc", "-q"}, []turn{{"6*7\n", "42\n"}, {"2^100\n", "1267650600228229401496703205376\n"}, {"x=5\nx^2\n", "25\n"}}, ""},
	{"sqlite3", []string{"sqlite3", "-batch", ":memory:"}, []turn{
		{"create table t(a, b); insert into t values (1, 'one'), (2, 'two');\n", ""},
		{"select * from t order by a desc;\n", "2|two\n1|one\n"},
		{"select count(*) from t;\n", "2\n"},
	}, ""},
	{"bash", []string{"bash", "-c", `while read -r a b; do echo $((a+b)); done; echo bye`}, []turn{{"1 2\n", "3\n"}, {"-7 9\n", "2\n"}}, "bye\n"},
	{"python", []string{"python3", "-c", `
import sys
for line in sys.stdin:
    print(line.strip()[::-1], flush=True)
print("bye")`}, []turn{{"abc\n", "cba\n"}, {"12\n", "21\n"}}, "bye\n"},
	{"perl", []string{"perl", "-e", `$| = 1; while (<STDIN>) { print uc } print "bye\n"`}, []turn{{"abc\n", "ABC\n"}, {"x\n", "X\n"}}, "bye\n"},
	{"wc", []string{"wc", "-c"}, []turn{{strings.Repeat("x", 100_000), ""}}, "100000\n"},
}

func TestConversations(t *testing.T) {
	t.Parallel()
	for _, c := range talks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run := append([]string{installed(t, c.run[0])}, c.run[1:]...)
			d := start(t, fmt.Sprintf("services: {talk: {listen: '127.0.0.1:0', run: %s}}", yamlList(run...)))
			if err := c.with(d.address("talk")); err != nil {
				t.Error(err)
			}
			checkStatus(t, d.allExited("talk", 1))
		})
	}
}

// with has the conversation with the program that answers at address.
func (k talk) with(address string) error {
	c, err := dialAddress(address)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, turn := range k.turns {
		if _, err := io.WriteString(c, turn.say); err != nil {
			return err
		}
		heard := make([]byte, len(turn.hear))
		if _, err := io.ReadFull(c, heard); err != nil || string(heard) != turn.hear {
			return fmt.Errorf("to %q it says %q, not %q (%v)", turn.say, heard, turn.hear, err)
		}
	}
	c.CloseWrite()
	if rest, err := readAll(c); err != nil || string(rest) != k.rest {
		return fmt.Errorf("in the end it says %q, not %q (%v)", rest, k.rest, err)
	}
	return nil
}

// The client of the command line closes its side with its input, and then
// waits for an answer that may take long.
func TestConnectWaitsForTheAnswer(t *testing.T) {
	t.Parallel()
	f := newFifo(t, publicDir(t))
	script := fmt.Sprintf("cat; cat %s; echo; echo a late answer", f)
	d := start(t, fmt.Sprintf("services: {late: {listen: '127.0.0.1:0', run: %s}}", yamlList("/bin/sh", "-c", script)))
	c := superd("connect", d.address("late"))
	c.Stdin = strings.NewReader("some input")
	var answer bytes.Buffer
	c.Stdout = &answer
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(patience, func() { c.Process.Kill() }).Stop()
	f.open(t)
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	if got, want := answer.String(), "some input\na late answer\n"; got != want {
		t.Errorf("the answer is %q, not %q", got, want)
	}
	checkStatus(t, d.allExited("late", 1))
}

// A program without a word of its own to say tells what it was given.
func TestEnvIsAService(t *testing.T) {
	t.Parallel()
	d := start(t, fmt.Sprintf(`
services:
  env:
    listen: "127.0.0.1:0"
    run: %s
    env: {COLOUR: "green = good"}
`, yamlList(installed(t, "env"))))
	c := d.dial("env")
	b, err := readAll(c)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	r := d.allExited("env", 1)[0]
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	slices.Sort(lines)
	host, port, _ := strings.Cut(c.LocalAddr().String(), ":")
	for _, want := range []string{
		"COLOUR=green = good", "SUPERD_SERVICE=env", "SUPERD_CONNECTION=" + r.text("conn"),
		"PROTO=TCP", "TCPREMOTEIP=" + host, "TCPREMOTEPORT=" + port,
	} {
		if _, found := slices.BinarySearch(lines, want); !found {
			t.Errorf("the environment has no %s:\n%s", want, b)
		}
	}
	if r.text("peer") != c.LocalAddr().String() {
		t.Errorf("the log calls the client %s, it is %s", r.text("peer"), c.LocalAddr())
	}
}
