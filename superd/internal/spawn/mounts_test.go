package spawn

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// privateTmp is a sandbox with no other wall.
func privateTmp() config.Sandbox {
	return config.Sandbox{Preset: "basic", NoNewPrivs: true, PrivateTmp: true, Network: true}
}

// ownMounts counts those of this process's namespace.
func ownMounts(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(text, []byte("\n"))
}

// dialogue starts p's program and gives the test the other end of its
// connection.
func dialogue(t testing.TB, e *Engine, p *Plan) (*bufio.Reader, *os.File, Child) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Start(p, Streams{Connection: ends[1], Stderr: -1}, &someFacts)
	if err != nil {
		t.Fatal(err)
	}
	for e.Settle() > 0 {
		unix.Nanosleep(&unix.Timespec{Nsec: 1e5}, nil)
	}
	f := os.NewFile(uintptr(ends[0]), "connection")
	t.Cleanup(func() { f.Close() })
	return bufio.NewReader(f), f, c
}

func TestTmpIsPrivate(t *testing.T) {
	needRoot(t)
	mark := "superd-test-" + strconv.Itoa(os.Getpid())
	planted, err := os.CreateTemp("/tmp", mark)
	if err != nil {
		t.Fatal(err)
	}
	planted.Close()
	defer os.Remove(planted.Name())
	for name, s := range map[string]config.Sandbox{
		"private":  privateTmp(),
		"confined": {Preset: "strict", NoNewPrivs: true, Confined: true, PrivateTmp: true, Network: true, Exec: []string{"/bin/ls", "/bin/mkdir", "/bin/mv", "/bin/rm"}},
	} {
		eachWay(t, name, func(t *testing.T, prepare func(testing.TB, *Engine, *Plan)) {
			if s.Confined {
				needLandlock(t, 3)
			}
			mounts := ownMounts(t)
			e := NewEngine()
			spec := walled(`ls -A /tmp /var/tmp && echo x > /tmp/`+mark+` && cd /var/tmp && mkdir d && mv `+mark+` d && ls -A /tmp /tmp/d
				read go && ls -A /tmp && rm -r d && echo empty`, s)
			spec.Identity = &Identity{UID: 4001, GID: 4002}
			p := compile(t, e, spec)
			prepare(t, e, p)
			want := "/tmp:\n\n/var/tmp:\n/tmp:\nd\n\n/tmp/d:\n" + mark + "\n"
			first, connection, c := dialogue(t, e, p)
			defer unix.Close(c.PIDFD)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(first, got); err != nil || string(got) != want {
				t.Fatalf("got %q, %v", got, err)
			}
			// While the first lives, the next sees nothing of its files, and
			// neither does superd.
			second, other, c2 := dialogue(t, e, p)
			defer unix.Close(c2.PIDFD)
			if _, err := io.ReadFull(second, got); err != nil || string(got) != want {
				t.Errorf("the second got %q, %v", got, err)
			}
			if _, err := os.Stat("/tmp/" + mark); err == nil {
				t.Error("a program's file is in superd's /tmp")
			}
			io.WriteString(connection, "go\n")
			io.WriteString(other, "go\n")
			for _, r := range []io.Reader{first, second} {
				if rest, err := io.ReadAll(r); string(rest) != "d\nempty\n" {
					t.Errorf("then %q, %v", rest, err)
				}
			}
			for _, c := range []Child{c, c2} {
				if end, err := Wait(c.PIDFD); err != nil || end.Status != 0 {
					t.Errorf("ended with %+v, %v, %v", end, err, e.Failure(c))
				}
				e.Release(c, false)
			}
			if now := ownMounts(t); now != mounts {
				t.Errorf("%d mounts of superd's own were %d", now, mounts)
			}
		})
	}
}

// TestTmpIsBounded by size, and holds no device and no set-user-ID program.
func TestTmpIsBounded(t *testing.T) {
	needRoot(t)
	got := mustAnswer(t, walled(`grep -c ' \(/tmp\|/var/tmp\) tmpfs rw,nosuid,nodev,[a-z]*,size=65536k,nr_inodes=16384' /proc/self/mounts
		head -c 80M /dev/zero > /tmp/big || wc -c < /tmp/big; stat -c %a /tmp; rm /tmp/big; cp /bin/true /tmp && /tmp/true && echo executed`, privateTmp()))
	lines := strings.Split(got, "\n")
	if len(lines) < 4 || lines[0] != "2" || !strings.Contains(got, "\n67108864\n1777\nexecuted\n") {
		t.Errorf("got %q", got)
	}
}

// TestTmpWithoutNetwork: the rules for TCP know no files, and none is added.
func TestTmpWithoutNetwork(t *testing.T) {
	needRoot(t)
	s := privateTmp()
	s.Preset, s.Network = "offline", false
	if got := mustAnswer(t, walled("echo x > /tmp/file && cat /tmp/file", s)); got != "x\n" {
		t.Errorf("got %q", got)
	}
}

// TestConfinedTmpExecutesNothing: what a confined program writes it may not run.
func TestConfinedTmpExecutesNothing(t *testing.T) {
	needRoot(t)
	needLandlock(t, 3)
	s := confined()
	s.PrivateTmp, s.Read, s.Exec = true, []string{"/bin/true"}, []string{"/bin/cp"}
	got := mustAnswer(t, walled("cp /bin/true /tmp && test -x /tmp/true && { /tmp/true || echo no; }", s))
	if !strings.HasSuffix(got, "no\n") {
		t.Errorf("got %q", got)
	}
}

// TestRulesForOneTmpAreOneProgramsOwn: what a child adds to its set is in no
// other's.
func TestRulesForOneTmpAreOneProgramsOwn(t *testing.T) {
	needRoot(t)
	needLandlock(t, 3)
	dir, err := os.MkdirTemp("/run", "superd-test") // not below /tmp
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	plant(t, dir, map[string]string{"file": "x\n"})
	s := confined()
	s.PrivateTmp = true
	e := NewEngine()
	p := compile(t, e, walled("read x < "+dir+"/file && echo $x; true", s))
	set, err := p.walls.rules.lend()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(set)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := addRule(set, rule{fd: int(f.Fd()), access: reading}); err != nil {
		t.Fatal(err)
	}
	if out, _, err := answer(t, e, p); strings.HasSuffix(out, "x\n") || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestUnbuiltNamespaceLeavesNothing: its descriptor goes with the error.
func TestUnbuiltNamespaceLeavesNothing(t *testing.T) {
	needRoot(t)
	e := NewEngine()
	spec := walled("true", privateTmp())
	spec.Chroot = t.TempDir() + "/none"
	before := openDescriptors(t)
	want := "cannot open " + spec.Chroot + ": no such file or directory"
	if _, err := e.Compile(spec); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if after := openDescriptors(t); len(after) != len(before) {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
}

// TestConfinedProgramSeesFewMounts, all read-only but what is its own.
func TestConfinedProgramSeesFewMounts(t *testing.T) {
	needRoot(t)
	needLandlock(t, 3)
	dir := t.TempDir()
	s := confined()
	s.Read, s.Write = []string{"/proc"}, []string{dir}
	spec := walled(`while read a b c d point options rest; do echo "$point ${options%%,*}"; done < /proc/self/mountinfo`, s)
	got := map[string]string{}
	for line := range strings.Lines(mustAnswer(t, spec)) {
		point, mode, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[point] = mode
	}
	if got["/"] != "ro" || got["/proc"] != "ro" || got[dir] != "rw" {
		t.Errorf("got %v", got)
	}
	for point, mode := range got {
		if beneath(point, "/sys") || mode != "ro" && point != dir {
			t.Errorf("%s is there, %s", point, mode)
		}
	}
}

// TestTmpTakesItsMemoryAlong: what 30 programs leave in theirs is gone.
func TestTmpTakesItsMemoryAlong(t *testing.T) {
	needRoot(t)
	shared := func() (kilobytes int) {
		text, err := os.ReadFile("/proc/meminfo")
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(text), "\nShmem:")
		fmt.Sscan(after, &kilobytes)
		return kilobytes
	}
	eachWay(t, "tmp", func(t *testing.T, prepare func(testing.TB, *Engine, *Plan)) {
		before := shared()
		e := NewEngine()
		p := compile(t, e, walled("head -c 8M /dev/zero > /tmp/left && wc -c < /var/tmp/left", privateTmp()))
		prepare(t, e, p)
		for range 30 {
			if out, _, err := answer(t, e, p); out != "8388608\n" || err != nil {
				t.Fatalf("got %q, %v", out, err)
			}
		}
		await(t, func() bool { return shared()-before < 100<<10 }) // the kernel frees a namespace a moment after its last process
	})
}

func TestManyWalledSpawnsLeaveNothing(t *testing.T) {
	needRoot(t)
	needLandlock(t, 3)
	s := confined()
	s.PrivateTmp, s.Network = true, false
	eachWay(t, "tmp", func(t *testing.T, prepare func(testing.TB, *Engine, *Plan)) {
		e := NewEngine()
		before, mounts := openDescriptors(t), ownMounts(t)
		p := compile(t, e, walled("echo x > /tmp/x", s))
		prepare(t, e, p)
		for range 200 {
			if out, _, err := answer(t, e, p); out != "" || err != nil {
				t.Fatalf("got %q, %v", out, err)
			}
		}
		if err := p.Refresh(); err != nil {
			t.Error(err)
		}
		p.Close()
		e.StopKeeping()
		if after := openDescriptors(t); len(after) != len(before) {
			t.Errorf("descriptors before %v, after %v", before, after)
		}
		if now := ownMounts(t); now != mounts {
			t.Errorf("%d mounts of superd's own were %d", now, mounts)
		}
	})
}

// TestPrivateTmpWithoutANetwork: its rules are about TCP alone, and so none is
// added for the new /tmp.
func TestPrivateTmpWithoutANetwork(t *testing.T) {
	needRoot(t)
	s := privateTmp()
	s.Network = false
	if got := mustAnswer(t, walled("echo mine > /tmp/x; cat /var/tmp/x", s)); got != "mine\n" {
		t.Errorf("got %q", got)
	}
}

// TestNamespacesAreNotSuperds: no thread that stays is in one, least of all
// the main thread, which /proc/PID shows.
func TestNamespacesAreNotSuperds(t *testing.T) {
	needRoot(t)
	e := NewEngine()
	s := privateTmp()
	s.Network = false
	spaces := func() map[string]bool {
		found := map[string]bool{}
		links, _ := filepath.Glob("/proc/self/task/*/ns/[mn][ne]t")
		for _, l := range links {
			if to, err := os.Readlink(l); err == nil {
				found[to] = true
			}
		}
		return found
	}
	for range 40 {
		compile(t, e, walled("true", s))
	}
	await(t, func() bool { return len(spaces()) == 2 }) // a thread ends a moment after its goroutine
}

// inMountNamespace runs f in a mount namespace of its own.
func inMountNamespace(t *testing.T, f func() error) (err error) {
	t.Helper()
	OnThreadOfItsOwn(func() {
		if err = unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return
		}
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err == nil {
			err = f()
		}
	})
	return err
}

// isMounted tells whether dir is on another file system than the directory
// that it is in.
func isMounted(t *testing.T, dir string) bool {
	t.Helper()
	var inside, outside unix.Stat_t
	if err := errors.Join(unix.Stat(dir, &inside), unix.Stat(filepath.Dir(dir), &outside)); err != nil {
		t.Error(err)
	}
	return inside.Dev != outside.Dev
}

func TestPruneLeavesWhatIsListed(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	plant(t, dir, map[string]string{"idle mount/": "", "end/below/": "", "around/listed/": ""})
	p := &Plan{spec: Spec{Path: "/none", Dir: "/", Sandbox: config.Sandbox{Read: []string{dir + "/end", dir + "/around/listed"}}}}
	mounts := map[string]bool{"idle mount": false, "end/below": true, "around": true}
	err := inMountNamespace(t, func() error {
		for name := range mounts {
			if err := unix.Mount("tmpfs", dir+"/"+name, "tmpfs", 0, ""); err != nil {
				return err
			}
		}
		os.Mkdir(dir+"/around/listed", 0o755)
		if err := p.prune(); err != nil {
			return err
		}
		for name, want := range mounts {
			if got := isMounted(t, dir+"/"+name); got != want {
				t.Errorf("%s is mounted: %v", name, got)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestNeededMountIsMissed: a link that leads through a mount leads nowhere once
// the mount is gone.
func TestNeededMountIsMissed(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	plant(t, dir, map[string]string{"mount/": "", "end/": ""})
	if err := os.Symlink("mount/way", dir+"/start"); err != nil {
		t.Fatal(err)
	}
	p := &Plan{spec: Spec{Path: "/none", Dir: "/", Sandbox: config.Sandbox{Read: []string{dir + "/start"}}}}
	err := inMountNamespace(t, func() error {
		if err := unix.Mount("tmpfs", dir+"/mount", "tmpfs", 0, ""); err != nil {
			return err
		}
		if err := os.Symlink("../end", dir+"/mount/way"); err != nil {
			return err
		}
		return p.prune()
	})
	if err != errMissed {
		t.Errorf("got %v", err)
	}
}

func TestOrdinaryUserHasNoPrivateTmp(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("SKIPPED: root has one; this needs an ordinary user")
	}
	want := "cannot build the mount namespace: it takes root: CAP_SYS_ADMIN (start superd as root, or do without it by best_effort: true)"
	e := NewEngine()
	if _, err := e.Compile(walled("true", privateTmp())); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	s := privateTmp()
	s.BestEffort = true
	p := compile(t, e, walled("echo done", s))
	if out, _, err := answer(t, e, p); out != "done\n" || err != nil || len(p.Notes()) != 1 {
		t.Errorf("got %q, %v, notes %q", out, err, p.Notes())
	}
}

// TestAsOrdinaryUser runs these tests once more, as an ordinary user, where
// they are root's.
func TestAsOrdinaryUser(t *testing.T) {
	needRoot(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	e := NewEngine()
	image, err := e.NewImage("tests", self)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	home := t.TempDir()
	open(t, home)
	out, end, err := answer(t, e, compile(t, e, Spec{
		Image: image,
		Argv: []string{"tests", "-test.v", "-test.run",
			"Confined|Proc|Chmod|Writable|Listed|Working|Scripts|Missing|Refresh|BuiltInNeeds|Landlock|Ordinary|Unpermitted"},
		Env:    []string{"PATH=" + DefaultPath, "TMPDIR=" + home, "SUPERD_TEST_USER=4001"},
		Stderr: StderrClient, Dir: "/", Identity: &Identity{UID: 4001, GID: 4002},
	}))
	if err != nil || end.Status != 0 || end.Signaled {
		t.Errorf("%v, %+v:\n%s", err, end, out)
	}
	for _, ran := range []string{"TestConfinedProgramOpensWhatIsListed", "TestOrdinaryUserHasNoPrivateTmp", "TestLandlockClosesTCPToOrdinaryUsers", "TestUnpermittedIdentityHasWords"} {
		if !strings.Contains(out, "--- PASS: "+ran) {
			t.Errorf("%s did not run:\n%s", ran, out)
		}
	}
}
