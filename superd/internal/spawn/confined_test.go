package spawn

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"superd/services"
	"superd/superd/internal/config"
)

// confined is a sandbox that opens nothing by itself.
func confined() config.Sandbox {
	return config.Sandbox{Preset: "strict", NoNewPrivs: true, Confined: true, Network: true}
}

// walled is script(text) behind s.
func walled(text string, s config.Sandbox) Spec {
	spec := script(text)
	spec.Sandbox = s
	return spec
}

// needLandlock skips where the kernel has none, or an older one.
func needLandlock(t testing.TB, abi int) {
	t.Helper()
	got, err := landlockABI()
	if err != nil || got < abi {
		t.Skipf("SKIPPED: this needs Landlock ABI %d; the kernel has %d, %v", abi, got, err)
	}
}

// plant makes the files of a test, those that end in / as directories and
// those that begin with #! as programs.
func plant(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		if strings.HasSuffix(name, "/") {
			os.MkdirAll(path, 0o755)
		} else if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// open lets everybody into dir, which t made.
func open(t testing.TB, dir string) {
	t.Helper()
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
}

// TestConfinedProgramOpensWhatIsListed tries each deed in a program of its own.
// Where the test is root, so is the program: no file mode is in its way.
func TestConfinedProgramOpensWhatIsListed(t *testing.T) {
	needLandlock(t, 3)
	dir := t.TempDir()
	plant(t, dir, map[string]string{
		"read/file": "r\n", "read/sub/file": "r\n", "read/tool": "#!/bin/sh\n",
		"one/file": "1\n", "one/other": "2\n",
		"closed/file": "c\n", "closed/tool": "#!/bin/sh\nexit 0\n",
		"write/file": "w\n", "write/doomed": "w\n", "write/moved": "w\n", "write/sub/": "",
		"exec/tool": "#!/bin/sh\nexit 0\n",
		"log":       "",
	})
	for name, target := range map[string]string{"read/link": "../closed/file", "write/link": "../closed/file", "way": "read"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := confined()
	s.Read = []string{dir + "/read", dir + "/one/file"}
	s.Write = []string{dir + "/write", dir + "/log"}
	s.Exec = []string{dir + "/exec", "/bin/mkdir", "/bin/mv", "/bin/rm", "/bin/ln", "/bin/ls", "/bin/mkfifo", "/bin/mknod"}
	e := NewEngine()
	for _, c := range []struct {
		deed string
		want bool
	}{
		{"read x < read/file", true},
		{"read x < read/sub/file", true},
		{"read x < read/sub/../file", true},
		{"read x < way/file", true},
		{"ls read >/dev/null", true},
		{"read x < one/file", true},
		{"read x < one/other", false},
		{"ls one", false},
		{"read x < closed/file", false},
		{"read x < read/../closed/file", false},
		{"read x < read/link", false},
		{"read x < write/link", false},
		{"ls closed", false},
		{"ls .", false},
		{"ls /", false},
		{"ls /etc", false},
		{"read x < /etc/passwd", false},
		{"read x < /proc/self/status", false},
		{"read x < /proc/self/root/" + dir + "/closed/file", false},
		{"cd closed && read x < file", false},

		{"echo x >> read/file", false},
		{"echo x > read/new", false},
		{"echo x > closed/new", false},
		{"echo x > write/file", true},
		{"echo x > write/new", true},
		{"read x < write/file", true},
		{"echo x > log", true},
		{"echo x >> write/link", false},
		{"mkdir write/directory", true},
		{"mkdir read/directory", false},
		{"rm write/doomed", true},
		{"rm read/file", false},
		{"mkfifo write/fifo", true},
		{"mkfifo closed/fifo", false},
		{"mknod write/null c 1 3", false},
		{"mv write/moved write/sub/moved", true},
		{"ln write/new write/sub/linked", true},
		{"mv write/file closed/file", false},
		{"ln write/file read/linked", false},
		{"ln read/file write/linked", false}, // would become writable

		{"exec/tool", true},
		{"read/tool", false},
		{"closed/tool", false},
		{"cd exec && ../closed/tool", false},
		{"/bin/cat /dev/null", false},
		{". read/tool", true}, // text, to a shell that may read it

		{"echo x > /dev/null", true},
		{"true < /dev/zero", true},
		{"true < /dev/urandom", true},
		{"true < /dev/mem", false},
		{"echo x > /dev/shm/superd-test", false},
		{"true < /usr/lib", true},
	} {
		spec := walled("cd "+dir+"; if { "+c.deed+"; } 2>/dev/null; then echo yes; else echo no; fi", s)
		p := compile(t, e, spec)
		out, _, err := answer(t, e, p)
		p.Close()
		if want := map[bool]string{true: "yes\n", false: "no\n"}[c.want]; out != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", c.deed, out, err, want)
		}
	}
}

// TestProcIsNoWayOut: a service that lists /proc still opens nothing through it.
func TestProcIsNoWayOut(t *testing.T) {
	needLandlock(t, 3)
	dir := t.TempDir()
	plant(t, dir, map[string]string{"closed": "c\n"})
	s := confined()
	s.Read = []string{"/proc"}
	s.Exec = []string{"/bin/readlink"}
	me := strconv.Itoa(os.Getpid())
	for deed, want := range map[string]string{
		"read x < /proc/self/root/etc/passwd":                      "no\n",
		"read x < /proc/self/cwd/etc/passwd":                       "no\n",
		"read x < /proc/self/root/" + dir + "/closed":              "no\n",
		"read x < /proc/self/status":                               "yes\n",
		"read x < /proc/" + me + "/environ":                        "no\n", // Landlock denies to trace what is outside
		"readlink /proc/" + me + "/fd/0 || readlink /proc/1/root":  "no\n",
		"true < /proc/" + me + "/ns/mnt || true < /proc/1/ns/mnt":  "no\n",
		"echo 1 > /proc/sys/kernel/core_pattern":                   "no\n",
		"read x < /proc/sys/kernel/osrelease && test -n \"$x\"":    "yes\n",
		"read x < /proc/1/root/etc/hosts || read x < /proc/1/maps": "no\n",
	} {
		got := mustAnswer(t, walled("if { "+deed+"; } >/dev/null 2>&1; then echo yes; else echo no; fi", s))
		if got != want {
			t.Errorf("%s: %q, want %q", deed, got, want)
		}
	}
}

// TestChmodTakesTheReadOnlyTree: Landlock does not see chmod, the mount does.
func TestChmodTakesTheReadOnlyTree(t *testing.T) {
	needLandlock(t, 3)
	dir := t.TempDir()
	plant(t, dir, map[string]string{"read/file": "", "write/file": "", "closed/file": ""})
	s := confined()
	s.Read, s.Write = []string{dir + "/read"}, []string{dir + "/write"}
	s.Exec = []string{"/bin/chmod", "/bin/touch"}
	p := compile(t, NewEngine(), walled("cd "+dir+`; for f in read/file closed/file write/file; do
		chmod 600 $f 2>/dev/null && echo changed $f; done; true`, s))
	want := "changed write/file\n"
	if os.Geteuid() != 0 {
		want = "changed read/file\nchanged closed/file\nchanged write/file\n"
		if notes := p.Notes(); len(notes) != 1 || !strings.Contains(notes[0].What, "does not see chmod") {
			t.Errorf("notes %q", notes)
		}
	} else if len(p.Notes()) != 0 {
		t.Errorf("notes %q", p.Notes())
	}
	if out, _, err := answer(t, p.engine, p); out != want || err != nil {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
}

// TestWritableRootStaysWritable: / in the list makes nothing read-only.
func TestWritableRootStaysWritable(t *testing.T) {
	needLandlock(t, 3)
	dir := t.TempDir()
	s := confined()
	s.Write = []string{"/"}
	s.Network = true
	if got := mustAnswer(t, walled("echo x > "+dir+"/new && read x < /etc/passwd && echo done", s)); got != "done\n" {
		t.Errorf("got %q", got)
	}
}

func TestListedPathMustExist(t *testing.T) {
	needLandlock(t, 3)
	dir := t.TempDir()
	s := confined()
	s.Read = []string{dir + "/none"}
	e := NewEngine()
	before := openDescriptors(t)
	_, err := e.Compile(walled("true", s))
	want := "cannot open " + dir + "/none: no such file or directory"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if after := openDescriptors(t); len(after) != len(before) {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
	s.BestEffort = true
	p := compile(t, e, walled("read x < /etc/passwd || echo closed", s))
	if notes := Faults(p.Notes()).Error(); !strings.Contains(notes, "cannot open "+dir+"/none: no such file or directory; left out, as best_effort allows") {
		t.Errorf("notes %q", notes)
	}
	if out, _, err := answer(t, e, p); !strings.HasSuffix(out, "closed\n") || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestWorkingDirectoryIsReadable, but the default, /, opens nothing: the table
// above shows that.
func TestWorkingDirectoryIsReadable(t *testing.T) {
	needLandlock(t, 3)
	dir := t.TempDir()
	plant(t, dir, map[string]string{"file": "here\n"})
	spec := walled("read x < file && echo $x; echo x 2>/dev/null > file || echo no", confined())
	spec.Dir = dir
	if got := mustAnswer(t, spec); got != "here\nno\n" && !strings.HasSuffix(got, "no\n") {
		t.Errorf("got %q", got)
	}
}

// TestScriptsStart: of a script, its interpreter may be executed too, also the
// one that env finds.
func TestScriptsStart(t *testing.T) {
	needLandlock(t, 3)
	dir := t.TempDir()
	plant(t, dir, map[string]string{
		"sh":     "#!/bin/sh\necho $0\n",
		"env":    "#!/usr/bin/env -S A=b sh\necho $0\n",
		"nested": "#!" + dir + "/sh\n",
		"tool":   "#!/usr/bin/env cat\ntext\n",
	})
	for name, want := range map[string]string{
		"sh": dir + "/sh\n", "env": dir + "/env\n", "nested": dir + "/sh\n", "tool": "#!/usr/bin/env cat\ntext\n",
	} {
		spec := walled("", confined())
		spec.Path, spec.Argv = dir+"/"+name, []string{name}
		if got := mustAnswer(t, spec); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestChainEndsWhereItIsRound(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, map[string]string{
		"env": "#!" + dir + "/env env\n", "empty": "#!\n", "gone": "#!/none\n",
	})
	tr, err := openTree("")
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	env := []string{"PATH=/none:" + dir}
	for name, want := range map[string]int{"env": 1, "empty": 1, "gone": 2, "missing": 1} {
		list := tr.chain(dir+"/"+name, env)
		if len(list) != want || list[0] != dir+"/"+name {
			t.Errorf("%s: %q", name, list)
		}
	}
}

// TestChainHasTheLoader of a program that is linked dynamically.
func TestChainHasTheLoader(t *testing.T) {
	tr, err := openTree("")
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	list := tr.chain("/bin/sh", nil)
	if len(list) == 1 && !slices.ContainsFunc(loaders, func(l string) bool { _, err := os.Stat(l); return err == nil }) {
		t.Skip("SKIPPED: this machine has no loader")
	}
	if len(list) != 2 || !strings.HasPrefix(filepath.Base(list[1]), "ld") {
		t.Errorf("got %q", list)
	}
}

// TestMissingProgramIsTheConnectionsTrouble, as it is without a sandbox.
func TestMissingProgramIsTheConnectionsTrouble(t *testing.T) {
	needLandlock(t, 3)
	spec := walled("", confined())
	spec.Path = "/none"
	e := NewEngine()
	if _, _, err := answer(t, e, compile(t, e, spec)); err == nil || !strings.HasPrefix(err.Error(), "cannot execute /none: ENOENT") {
		t.Errorf("got %v", err)
	}
}

func TestRefreshFollowsReplacedFiles(t *testing.T) {
	needLandlock(t, 3)
	dir := t.TempDir()
	plant(t, dir, map[string]string{"file": "old\n", "prog": "#!/bin/sh\nread x < " + dir + "/file && echo $x\nexit 0\n"})
	s := confined()
	s.Read = []string{dir + "/file"}
	spec := walled("", s)
	spec.Path, spec.Argv = dir+"/prog", []string{"prog"}
	e := NewEngine()
	p := compile(t, e, spec)
	replace := func(name, content string) {
		plant(t, dir, map[string]string{"new": content})
		if err := os.Rename(dir+"/new", dir+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want string) {
		t.Helper()
		if out, _, err := answer(t, e, p); !strings.HasPrefix(out, want) || err != nil {
			t.Errorf("got %q, %v; want %q", out, err, want)
		}
	}
	expect("old\n")
	before := openDescriptors(t)
	if err := p.Refresh(); err != nil { // nothing has changed
		t.Error(err)
	}
	replace("file", "new\n")
	if err := p.Refresh(); err != nil {
		t.Error(err)
	}
	expect("new\n")
	replace("prog", "#!/bin/sh\necho upgraded\n")
	_, _, err := answer(t, e, p) // it is another file
	if err == nil || !strings.Contains(err.Error(), "EACCES") || !strings.Contains(err.Error(), "the sandbox does not let") {
		t.Errorf("got %v", err)
	}
	if err := p.Refresh(); err != nil {
		t.Error(err)
	}
	expect("upgraded\n")
	if err := os.Remove(dir + "/file"); err != nil {
		t.Fatal(err)
	}
	if err := p.Refresh(); err == nil || !strings.Contains(err.Error(), "cannot open "+dir+"/file: no such file") {
		t.Errorf("got %v", err)
	}
	expect("upgraded\n")
	if after := openDescriptors(t); len(after) != len(before) {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
}

// builtIn is a built-in that answers hi.
func builtIn(t testing.TB, e *Engine) Spec {
	t.Helper()
	text := "hi"
	content, err := services.Image("greeting", services.Options{Text: &text})
	if err != nil {
		t.Fatal(err)
	}
	image, err := e.NewImage("greeting", content)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(image.Close)
	return Spec{Image: image, Argv: []string{"greeting"}, Stderr: StderrNull, Dir: "/"}
}

// TestBuiltInNeedsNoPath: Landlock does not restrict what is executed from a
// memfd, which is below no directory.
func TestBuiltInNeedsNoPath(t *testing.T) {
	needLandlock(t, 3)
	e := NewEngine()
	spec := builtIn(t, e)
	spec.Sandbox = confined()
	spec.Sandbox.PrivateTmp = true
	p := compile(t, e, spec)
	if p.walls.mounts != nil {
		t.Error("a built-in, which opens no file, pays for a mount namespace")
	}
	if out, _, err := answer(t, e, p); out != "hi" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
	if n := len(p.walls.rules.openings); n != 0 {
		t.Errorf("%d paths are open for a built-in", n)
	}
}

func TestBuiltInInAnEmptyRoot(t *testing.T) {
	needRoot(t)
	e := NewEngine()
	spec := builtIn(t, e)
	spec.Chroot, spec.Stderr = t.TempDir(), StderrClient
	spec.Sandbox = confined()
	spec.Sandbox.PrivateTmp, spec.Sandbox.Network = true, false
	spec.Identity = &Identity{UID: 4001, GID: 4002}
	if out, _, err := answer(t, e, compile(t, e, spec)); out != "hi" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestListedPathsAreBelowTheRoot, also those that symbolic links or .. would
// lead out.
func TestListedPathsAreBelowTheRoot(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	plant(t, root, map[string]string{"in/file": "", "out/file": "", "etc/": "", "tmp/": "", "var/": ""})
	for name, target := range map[string]string{"link": "/../../in", "var/tmp": "/tmp"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	e := NewEngine()
	spec := walled("true", confined())
	spec.Chroot = root
	spec.Sandbox.PrivateTmp = true
	spec.Sandbox.Read = []string{"/link", "/etc"}
	p := compile(t, e, spec)
	for i, name := range []string{"in", "etc"} {
		fd, err := os.Open(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		at, _, _ := placeOf(int(fd.Fd()))
		fd.Close()
		if got := p.walls.rules.made[i].at; got != at {
			t.Errorf("%s is not what is open: %v", name, got)
		}
	}
	if got := p.walls.tmps; len(got) != 1 || got[0] != root+"/tmp" {
		t.Errorf("private: %q", got)
	}
	spec.Sandbox.Read = []string{"/in/../../../../../" + root}
	if _, err := e.Compile(spec); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

// TestOneFileIsOneRule: a second name of it, with no other right, adds none.
func TestOneFileIsOneRule(t *testing.T) {
	needRoot(t)
	needLandlock(t, 3)
	dir := t.TempDir()
	if err := os.Symlink(dir, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	s := confined()
	s.Read, s.Write = []string{dir, dir + "/link"}, []string{dir, dir + "/link"}
	s.PrivateTmp = true // so that each program gets a set of its own
	p := compile(t, NewEngine(), walled("true", s))
	at, rights := p.walls.rules.made[0].at, []uint64{}
	for _, r := range p.walls.rules.made {
		if r.at == at && r.fd >= 0 {
			rights = append(rights, r.access)
		}
	}
	if len(rights) != 2 || rights[0]&^rights[1] != 0 {
		t.Errorf("the rules for one directory: %x", rights)
	}
}

func TestLandlockNeedsNoNewPrivs(t *testing.T) {
	s := confined()
	s.NoNewPrivs = false
	spec := walled("true", s)
	if os.Geteuid() == 0 {
		spec.Identity = &Identity{UID: 4001, GID: 4002}
	}
	want := "cannot build the Landlock rules: a program that is not root needs no_new_privs for it"
	if _, err := NewEngine().Compile(spec); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
