package event

import (
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

// A logFile is a log on a file in a directory of its own.
type logFile struct {
	*Log
	t      *testing.T
	path   string
	clock  *clock
	stderr *os.File
}

func onFile(t *testing.T) *logFile {
	t.Helper()
	f := &logFile{t: t, path: filepath.Join(t.TempDir(), "superd.log"), clock: newClock()}
	f.Log, f.stderr = opened(t, f.path, Options{Now: f.clock.Now})
	return f
}

// say has a record written, and returns when it is in the file of that name.
func (f *logFile) say(text, name string) {
	f.t.Helper()
	f.Info(text)
	until(f.t, fmt.Sprintf("%q is in %s", text, name), func() bool { return strings.Contains(f.text(name), `"`+text+`"`) })
}

func (f *logFile) text(name string) string {
	text, _ := os.ReadFile(filepath.Join(filepath.Dir(f.path), name))
	return string(text)
}

func (f *logFile) move(from, to string) {
	f.t.Helper()
	dir := filepath.Dir(f.path)
	if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
		f.t.Fatal(err)
	}
}

// messages are those of a file of the log, in order.
func (f *logFile) messages(name string) string {
	f.t.Helper()
	var all []string
	for _, record := range records(f.t, f.text(name)) {
		all = append(all, record["message"].(string))
	}
	return strings.Join(all, "; ")
}

func (f *logFile) want(name, messages string) {
	f.t.Helper()
	if got := f.messages(name); got != messages {
		f.t.Errorf("%s has %q, want %q", name, got, messages)
	}
}

// TestFile: it is made with few permissions, and later starts write behind what is there.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "superd.log")
	defer syscall.Umask(syscall.Umask(0))
	for _, word := range []string{"first", "second"} {
		l, err := OpenOutput(path, os.Stderr, Options{})
		if err != nil {
			t.Fatal(err)
		}
		l.Info(word)
		l.Close(patience)
	}
	text, err := os.ReadFile(path)
	if got := records(t, string(text)); err != nil || len(got) != 2 || got[0]["message"] != "first" || got[1]["message"] != "second" {
		t.Errorf("%v, %s", err, text)
	}
	if s, err := os.Stat(path); err != nil || s.Mode() != 0o640 {
		t.Errorf("%v, %v", s.Mode(), err)
	}
}

// TestFileIsMoved: who moves the file away, and says nothing, is followed at the next look.
func TestFileIsMoved(t *testing.T) {
	f := onFile(t)
	f.say("one", "superd.log")
	f.move("superd.log", "old")
	f.say("two", "old")
	f.clock.advance(lookEvery - time.Millisecond)
	f.say("three", "old")
	f.clock.advance(time.Millisecond)
	f.say("four", "superd.log")
	f.move("superd.log", "older")
	f.clock.advance(lookEvery)
	f.say("five", "superd.log")
	f.want("old", "one; two; three")
	f.want("older", "four")
	f.want("superd.log", "five")
}

// TestFileIsReplaced: where another file is there already, the first look finds it.
func TestFileIsReplaced(t *testing.T) {
	f := onFile(t)
	f.say("one", "superd.log")
	f.move("superd.log", "old")
	os.WriteFile(f.path, nil, 0o600)
	f.say("two", "old")
	f.clock.advance(lookEvery)
	f.say("three", "superd.log")
	f.move("superd.log", "older")
	f.move("old", "superd.log") // what it was before
	f.clock.advance(lookEvery)
	f.say("four", "superd.log")
	f.want("older", "three")
	f.want("superd.log", "one; two; four")
}

// TestFileStays: a file that nobody has moved is not opened again.
func TestFileStays(t *testing.T) {
	opens := 0
	count := func(fd int) (int, error) { opens++; return fd, nil }
	now := newClock()
	l, _ := opened(t, filepath.Join(t.TempDir(), "superd.log"), Options{Now: now.Now, Above: count})
	for range 3 {
		now.advance(lookEvery)
		l.Info("line")
		until(t, "it is written", l.queueEmpty)
	}
	l.Close(patience)
	<-l.writer.Load().done
	if opens != 1 {
		t.Errorf("it was opened %d times", opens)
	}
}

// TestFileIsCut: copytruncate of logrotate(8).
func TestFileIsCut(t *testing.T) {
	f := onFile(t)
	f.say("one", "superd.log")
	if err := os.Truncate(f.path, 0); err != nil {
		t.Fatal(err)
	}
	f.clock.advance(lookEvery)
	f.say("two", "superd.log")
	f.want("superd.log", "two") // and no hole before it
}

// Half a line at the end of a file is nobody's beginning.
func TestFileEndsTorn(t *testing.T) {
	for _, c := range []struct{ before, want string }{
		{"half a li", "half a li\n"},
		{"a line\n", "a line\n"},
		{"", ""},
	} {
		path := filepath.Join(t.TempDir(), "superd.log")
		if err := os.WriteFile(path, []byte(c.before), 0o600); err != nil {
			t.Fatal(err)
		}
		l, _ := opened(t, path, Options{})
		l.Info("x")
		l.Close(patience)
		if text, _ := os.ReadFile(path); !strings.HasPrefix(string(text), c.want+`{"level"`) {
			t.Errorf("after %q the file is %q", c.before, text)
		}
	}
}

// What was dropped and not told goes along to another superd, which tells of it.
func TestCarriedLoss(t *testing.T) {
	path := filepath.Join(t.TempDir(), "superd.log")
	before, _ := opened(t, "/dev/full", Options{})
	for range 3 {
		before.Info("lost")
	}
	before.Flush(patience)
	c := before.Carry()
	if c.Dropped != 3 || c.Untold != 3 {
		t.Fatalf("%d lines were dropped, and %d not told", c.Dropped, c.Untold)
	}
	after, _ := opened(t, path, Options{})
	after.Resume(&c)
	until(t, "the loss is told", func() bool {
		text, _ := os.ReadFile(path)
		return strings.Contains(string(text), `"dropped":3,"error":"before the upgrade"`)
	})
	after.Info("x")
	after.Flush(patience)
	if c := after.Carry(); c.Dropped != 3 || c.Untold != 0 {
		t.Errorf("then %d lines were dropped, and %d not told", c.Dropped, c.Untold)
	}
}

// TestReopen: at once, whatever there is.
func TestReopen(t *testing.T) {
	f := onFile(t)
	f.say("one", "superd.log")
	f.move("superd.log", "old")
	f.Reopen()
	f.say("two", "superd.log")
	f.Reopen() // where nothing was moved
	f.say("three", "superd.log")
	f.want("old", "one")
	f.want("superd.log", "two; three")
}

// TestFileCannotBeReopened: the old one is written on. It is said once, and again to whoever asks; when it can be
// opened again it is.
func TestFileCannotBeReopened(t *testing.T) {
	f := onFile(t)
	const complaint = "cannot open the log anew, the old file is written on"
	f.say("one", "superd.log")
	f.move("superd.log", "old")
	if err := os.Mkdir(f.path, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"two", "three", "four"} {
		f.clock.advance(lookEvery)
		f.say(word, "old")
	}
	f.Reopen()
	f.say("five", "old")
	until(t, "it is said again", func() bool { return strings.Count(f.text("old"), complaint) == 2 })
	os.Remove(f.path)
	f.Reopen()
	f.say("six", "superd.log")
	f.clock.advance(lookEvery)
	f.say("seven", "superd.log")
	f.want("superd.log", "six; seven")
	old := records(t, f.text("old"))
	if got := f.messages("old"); !strings.HasPrefix(got, "one; two; "+complaint) || strings.Count(got, complaint) != 2 {
		t.Errorf("old has %q", got)
	}
	if r := old[2]; r["error"] != "is a directory" || r["output"] != f.path || r["level"] != "warn" {
		t.Errorf("it is said as %v", r)
	}
}

func TestFileCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	place := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.Symlink(place("target"), place("link")), os.Mkdir(place("directory"), 0o700), syscall.Mkfifo(place("pipe"), 0o600),
		os.WriteFile(place("file"), nil, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	for name, cause := range map[string]string{
		"link":         "it is a symbolic link; name what it leads to",
		"directory":    "is a directory",
		"missing/file": "no such file or directory",
		"file/file":    "not a directory",
		"pipe":         "it is a named pipe, and nobody reads it",
	} {
		want := "cannot open the log " + place(name) + ": " + cause
		l, err := OpenOutput(place(name), os.Stderr, Options{})
		if err == nil || err.Error() != want {
			t.Errorf("got %v, %v, want %s", l, err, want)
		}
		if err := CheckOutput(place(name), Options{}); err == nil || err.Error() != want {
			t.Errorf("the check says %v, want %s", err, want)
		}
	}
	if _, err := os.Lstat(place("target")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link was followed: %v", err)
	}
}

// TestCheckOfOutputs: what can be opened is found in order, and nothing is left of it.
func TestCheckOfOutputs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "superd.log")
	reader := listen(t, socketPath(t, "log"))
	for _, name := range []string{path, "stderr", "/dev/stdout", "/dev/null", "syslog", "journald"} {
		if err := CheckOutput(name, Options{Syslog: reader.path, Journal: reader.path}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
	os.WriteFile(path, []byte("before\n"), 0o600)
	if err := CheckOutput(path, Options{}); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(path); string(text) != "before\n" {
		t.Errorf("the file has %q", text)
	}
	if err := CheckOutput("syslog", Options{Syslog: path}); err == nil {
		t.Error("a file is syslog")
	}
}

// TestFileWithoutDescriptors: one that cannot be put where it belongs is not kept.
func TestFileWithoutDescriptors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "superd.log")
	closed := func(fd int) (int, error) { return -1, errors.Join(syscall.EMFILE, syscall.Close(fd)) }
	if l, err := OpenOutput(path, os.Stderr, Options{Above: closed}); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("got %v, %v", l, err)
	}
	const high = 200
	l, err := OpenOutput(path, os.Stderr, Options{Above: above(high)})
	if err != nil {
		t.Fatal(err)
	}
	fd := l.writer.Load().out.(*file).fd
	l.Reopen()
	l.Info("line")
	l.Close(patience)
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); fd < high || errno != syscall.EBADF {
		t.Errorf("descriptor %d is still open: %v", fd, errno)
	}
}

// TestPipeByName: a named pipe that somebody reads is an output like any other.
func TestPipeByName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	l, stderr := opened(t, path, Options{})
	said := 0
	until(t, "stderr is told", func() bool {
		l.Info("line", F("seq", said))
		said++
		return l.Dropped() > 0 && textOf(t, stderr) != ""
	})
	all := reading(reader)
	l.Close(patience)
	<-l.writer.Load().done
	account(t, <-all, said, l.Dropped())
}

// TestStandardOutput: these names are no files.
func TestStandardOutput(t *testing.T) {
	for name, is := range map[string]*os.File{"stderr": os.Stderr, "/dev/stderr": os.Stderr, "/dev/stdout": os.Stdout} {
		out, err := openOutput(name, os.Stderr, Options{})
		if _, isStream := out.(*stream); err != nil || !isStream || !lends(name) {
			t.Errorf("%s: %v, %v, not lent as %s", name, out, err, is.Name())
		}
	}
	if lends("/var/log/superd.log") || lends("syslog") {
		t.Error("a file is lent")
	}
}

// TestComplaints: a full disk is said on stderr once, and not again within a minute though it was better meanwhile.
func TestComplaints(t *testing.T) {
	f := onFile(t)
	w := quiet(f.writer.Load().out, Options{Now: f.clock.Now}).writer.Load()
	w.complaints = f.writer.Load().complaints
	broken, well := &fails{syscall.ENOSPC}, w.out
	try := func(out output) {
		w.out = out
		w.log.Info("line")
		w.deliver()
	}
	for _, c := range []struct {
		out   output
		after time.Duration
		said  int // in all
	}{
		{well, 0, 0}, {broken, 0, 1}, {broken, time.Hour, 1}, {well, 0, 1}, {broken, 0, 2}, {well, 0, 2}, {broken, complainEvery - 1, 2}, {broken, 1, 3},
	} {
		f.clock.advance(c.after)
		try(c.out)
		if got := strings.Count(textOf(t, f.stderr), "cannot write the log, lines are dropped"); got != c.said {
			t.Errorf("%+v: said %d times", c, got)
		}
	}
	w.lastWords()
	if last := records(t, textOf(t, f.stderr)); last[len(last)-1]["dropped"] != 2.0 {
		t.Errorf("the last words are %v", last[len(last)-1])
	}
}

// fails is an output that fails.
type fails struct{ err error }

func (f *fails) write(lines []byte, _ *writer) ([]byte, error) { return lines, f.err }
func (f *fails) close()                                        {}

// TestStderrIsFull: what cannot be said there at once is not said.
func TestStderrIsFull(t *testing.T) {
	_, w := pipe(t, true)
	fill := make([]byte, capacityOf(t, w))
	if _, err := writeLent(w, fill); err != nil {
		t.Fatal(err)
	}
	l, err := OpenOutput("/dev/full", w, Options{})
	if err != nil {
		t.Skip(err)
	}
	for range 10 {
		l.Info("line")
	}
	l.Close(patience)
	<-l.writer.Load().done // it has not waited
	if l.Dropped() != 10 {
		t.Errorf("dropped %d", l.Dropped())
	}
}

// child runs the test binary as another process, which does what its word in children says with a file.
func child(t *testing.T, word, path string, attr *syscall.SysProcAttr) {
	t.Helper()
	cmd := exec.Command(os.Args[0], word, path)
	cmd.SysProcAttr = attr
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// children are what the test binary can be for a test. They end the process with a complaint, or well.
var children = map[string]func(path string) error{
	"be-unread":   func(string) error { return beUnread() },
	"be-limited":  beLimited,
	"be-full":     beFull,
	"be-journald": beJournald,
}

// TestFileSizeLimit: RLIMIT_FSIZE is like a full disk; its signal does not end the process.
func TestFileSizeLimit(t *testing.T) {
	child(t, "be-limited", filepath.Join(t.TempDir(), "superd.log"), nil)
}

func beLimited(path string) error {
	limit := syscall.Rlimit{Cur: 10_000, Max: 10_000}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	return fillAndFree(path, syscall.EFBIG, func() error { return os.Truncate(path, 0) })
}

// TestDiskIsFull fills a real file system.
func TestDiskIsFull(t *testing.T) {
	if os.Geteuid() != 0 {
		skip(t, "this needs root")
	}
	child(t, "be-full", t.TempDir(), &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS})
}

func beFull(dir string) error {
	err := errors.Join(
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("small", dir, "tmpfs", 0, "size=64k"),
		os.WriteFile(filepath.Join(dir, "other"), make([]byte, 32<<10), 0o600),
	)
	if err != nil {
		return err
	}
	return fillAndFree(filepath.Join(dir, "superd.log"), syscall.ENOSPC, func() error { return os.Remove(filepath.Join(dir, "other")) })
}

// fillAndFree writes to a file until there is no room, frees some, and reads what is there.
func fillAndFree(path string, cause error, free func() error) error {
	stderr, err := os.CreateTemp("", "stderr")
	if err != nil {
		return err
	}
	defer os.Remove(stderr.Name())
	l, err := OpenOutput(path, stderr, Options{Format: "json"})
	if err != nil {
		return err
	}
	for n := 0; l.Dropped() < 5; n++ {
		if l.Info("line", F("seq", n)); !l.Flush(patience) {
			return errors.New("the line is neither written nor lost")
		}
	}
	dropped := l.Dropped()
	if err := free(); err != nil {
		return err
	}
	l.Info("after")
	l.Close(patience)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	want := fmt.Sprintf(`"dropped":%d,"error":%q,"message":"%[1]d log lines were dropped because the log cannot be written"`, dropped, cause.Error())
	at := strings.Index(string(text), want)
	said, _ := os.ReadFile(stderr.Name())
	switch {
	case at < 0:
		return fmt.Errorf("%s is not in\n%s", want, text)
	case !strings.Contains(string(text[at:]), `"after"`):
		return fmt.Errorf("what came afterwards is not there:\n%s", text[at:])
	case strings.Count(string(said), "\n") != 1 || !strings.Contains(string(said), cause.Error()):
		return fmt.Errorf("on stderr is %q", said)
	case l.Dropped() != dropped:
		return fmt.Errorf("dropped %d, then %d", dropped, l.Dropped())
	}
	return nil
}
