package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSocketRights(t *testing.T) {
	dir := t.TempDir()
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		for _, mode := range []os.FileMode{0o600, 0o660, 0o666, 0o640, 0} {
			before := unix.Umask(umask)
			o := options(t, filepath.Join(dir, "socket"))
			o.Rights.Mode = mode
			s, err := Open(o)
			unix.Umask(before)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(s.Path())
			if err != nil || info.Mode() != os.ModeSocket|mode {
				t.Errorf("with umask %03o and mode %03o it has %v, %v", umask, mode, info.Mode(), err)
			}
			s.Close()
		}
	}
}

func TestDirectoryIsMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "superd")
	o := options(t, filepath.Join(dir, "socket"))
	if _, err := Open(o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without its directory it is opened: %v", err)
	}
	o.MakeDirectory = true
	before := unix.Umask(0o077)
	s, err := Open(o)
	unix.Umask(before)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if info, err := os.Stat(dir); err != nil || info.Mode() != os.ModeDir|0o755 {
		t.Errorf("the directory is %v, %v", info, err)
	}
	o.Path = filepath.Join(dir, "no/further/socket")
	if _, err := Open(o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the directory's directory it is opened: %v", err)
	}
}

// dead leaves a socket at path that nobody listens on any more.
func dead(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestDeadSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	dead(t, path)
	s := patientServer(t, options(t, path))
	defer s.Close()
	s.Serve(&fake{})
	if status, _ := say(t, s, get("/v1/status")); status != 200 {
		t.Errorf("the answer is %d", status)
	}
}

// TestLiveSocketIsLeft: also where its owner is too busy to accept.
func TestLiveSocketIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	first := patientServer(t, options(t, path))
	defer first.Close()
	comm, _ := os.ReadFile("/proc/self/comm")
	want := fmt.Sprintf("cannot open the administrative socket %s: it is in use by %s, process %d", path, strings.TrimSpace(string(comm)), os.Getpid())
	if _, err := Open(options(t, path)); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %v", err, want)
	}
	first.Serve(&fake{})
	if status, _ := say(t, first, get("/v1/status")); status != 200 {
		t.Errorf("the first one answers with %d", status)
	}
}

func TestFullSocketIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := Open(options(t, path)); err == nil || !strings.HasSuffix(err.Error(), "it is in use by a process that does not answer") {
		t.Error(err)
	}
}

// TestOtherFilesStay: only a socket is ever removed.
func TestOtherFilesStay(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(at("file"), []byte("mine"), 0o600), os.Mkdir(at("directory"), 0o700), unix.Mkfifo(at("fifo"), 0o600),
		os.Symlink("file", at("link")), os.Symlink("nowhere", at("dangling"))); err != nil {
		t.Fatal(err)
	}
	dead(t, at("dead"))
	if err := os.Symlink("dead", at("link to a socket")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "directory", "fifo", "link", "dangling", "link to a socket"} {
		before, _ := identify(at(name))
		_, err := Open(options(t, at(name)))
		if err == nil || !strings.HasSuffix(err.Error(), ": what is there is not a socket, and stays") {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := identify(at(name)); err != nil || after != before {
			t.Errorf("%s is touched: %v", name, err)
		}
	}
	if _, err := os.Lstat(at("dead")); err != nil {
		t.Error(err)
	}
}

func TestLongPath(t *testing.T) {
	dir := t.TempDir()
	fits := filepath.Join(dir, strings.Repeat("x", longestPath-len(dir)-1))
	s, err := Open(options(t, fits))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(options(t, fits+"x")); err == nil || !strings.Contains(err.Error(), "the path has 108 bytes, at most 107 fit") {
		t.Error(err)
	}
}

// TestCloseLeavesAnothersFile: who has come in the place of this one keeps it.
func TestCloseLeavesAnothersFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	first, err := Open(options(t, path))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Open(options(t, path))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestClient(t *testing.T) {
	f := &fake{rows: 1000}
	s := serve(t, f)
	c := Client{Path: s.Path(), Timeout: patience}
	if text, err := c.Ask("status", nil); err != nil || !strings.Contains(string(text), `"state":"serving"`) {
		t.Errorf("%s, %v", text, err)
	}
	if text, err := c.Ask("connections", map[string][]string{"service": {"a&b"}}); err != nil || len(text) < 1000 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if text, err := c.Order("kill", map[string]string{"id": "1"}); err != nil || strings.TrimSpace(string(text)) != `{"killed":2}` {
		t.Errorf("%s, %v", text, err)
	}
	if _, err := c.Order("kill", map[string]string{}); err == nil || err.Error() != "kill needs an id, a service or a source" {
		t.Error(err)
	}
	if got := f.heard(); got[0] != `connections "" "a&b" invalid Prefix` {
		t.Errorf("the daemon heard %q", got)
	}
}

func TestClientOfNobody(t *testing.T) {
	dir := t.TempDir()
	none := Client{Path: filepath.Join(dir, "none")}
	_, err := none.Ask("status", nil)
	if want := "no superd answers at " + none.Path + ": no such file or directory"; !errors.Is(err, ErrNobody) || err.Error() != want {
		t.Error(err)
	}
	left := Client{Path: filepath.Join(dir, "left")}
	dead(t, left.Path)
	if _, err := left.Ask("status", nil); !errors.Is(err, ErrNobody) || !strings.HasSuffix(err.Error(), ": connection refused") {
		t.Error(err)
	}
	silent := Client{Path: filepath.Join(dir, "silent"), Timeout: 50 * time.Millisecond}
	l, err := net.Listen("unix", silent.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := silent.Ask("status", nil); !errors.Is(err, ErrNobody) || !strings.HasSuffix(err.Error(), "within 50ms") {
		t.Error(err)
	}
}

// TestClientOfSomethingElse: what answers need not be superd.
func TestClientOfSomethingElse(t *testing.T) {
	for answer, want := range map[string]string{
		"hello\n": "no superd answers at PATH: the conversation broke off",
		"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno":      "cannot understand what answers at PATH: 500 Oops",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}": "cannot understand what answers at PATH: 404 Not Found",
		"": "no superd answers at PATH: the conversation broke off",
	} {
		path := filepath.Join(t.TempDir(), "socket")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() { // ends with the listener
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				c.Read(make([]byte, 1000))
				c.Write([]byte(answer))
				c.Close()
			}
		}()
		c := Client{Path: path, Timeout: patience}
		if _, err := c.Ask("status", nil); err == nil || strings.ReplaceAll(err.Error(), path, "PATH") != want {
			t.Errorf("%q: %v", answer, err)
		}
		l.Close()
	}
}

// The socket has its group before anybody of it may enter, and gets another
// while it is open. Only root can give it to a group that it is not in.
func TestSocketGroup(t *testing.T) {
	const other = 54321
	o := options(t, filepath.Join(t.TempDir(), "socket"))
	o.Rights = Rights{0o660, other}
	if os.Geteuid() != 0 {
		if _, err := Open(o); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "superd is not in group 54321") {
			t.Error(err)
		}
		if _, err := os.Lstat(o.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is left there: %v", err)
		}
		return
	}
	s := patientServer(t, o)
	defer s.Close()
	has := func(want identity) {
		t.Helper()
		if got, err := identify(o.Path); err != nil || got.mode != unix.S_IFSOCK|want.mode || got.group != want.group {
			t.Errorf("it has %o and group %d, %v", got.mode, got.group, err)
		}
	}
	has(identity{mode: 0o660, group: other})
	for _, r := range []Rights{{0o660, other + 1}, {0o600, -1}, {0o640, 0}} {
		if err := s.SetRights(r); err != nil {
			t.Error(err)
		}
		if r.Group < 0 {
			r.Group = other + 1
		}
		has(identity{mode: uint32(r.Mode), group: uint32(r.Group)})
	}
}
