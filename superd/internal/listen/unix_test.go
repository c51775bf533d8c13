package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
)

// local is a listener as a file would ask for it.
func local(name string) []config.Listener {
	return []config.Listener{{Spec: "unix:" + name, Family: config.Unix, Name: name, Type: "stream", Mode: 0o660}}
}

// shortDir is a temporary directory whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "listen")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func dialUnix(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UnixConn)
}

// leaveSocket makes what a process leaves behind that was killed.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func isSocket(t *testing.T, path string) bool {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil && info.Mode()&fs.ModeSocket != 0
}

func TestUnixVisitor(t *testing.T) {
	dir := shortDir(t)
	s := newSet(t)
	r := newRoom(10)
	path, abstract := dir+"/socket", "@"+dir+"/abstract"
	records := local("@" + dir + "/records")
	records[0].Type = "seqpacket"
	if got := open(t, s, local(path), r)[0].String(); got != "unix:"+path {
		t.Errorf("it listens on %s", got)
	}
	if got := open(t, s, local(abstract), r)[0].String(); got != "unix:"+abstract {
		t.Errorf("it listens on %s", got)
	}
	open(t, s, records, r)
	serve(t, s)
	for name, network := range map[string]string{path: "unix", abstract: "unix", records[0].Name: "unixpacket"} {
		for _, bound := range []string{"", dir + "/client" + strings.Repeat("x", 80-len(dir)), "@client of " + name} {
			d := net.Dialer{LocalAddr: &net.UnixAddr{Name: bound, Net: network}}
			if bound == "" {
				d.LocalAddr = nil
			}
			c, err := d.Dial(network, name)
			if err != nil {
				t.Fatal(err)
			}
			want := peer.Peer{Kind: peer.Unix, Path: name, Bound: bound,
				PID: int32(os.Getpid()), UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
			if got := r.next(t).peer; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got\n%+v, want\n%+v", got, want)
			}
			c.Close()
			os.Remove(bound)
		}
	}
}

// The address of a client can be of any length that the system allows.
func TestBoundName(t *testing.T) {
	for _, c := range []struct {
		path string
		size int
		want string
	}{
		{"", 0, ""},
		{"", 2, ""},
		{"/a\x00", 5, "/a"},
		{"/a\x00rest", 5, "/a"},
		{"/ab", 5, "/ab"},
		{"\x00", 3, "@"},
		{"\x00ab", 5, "@ab"},
		{"\x00a\x00b", 6, "@a\x00b"},
		{strings.Repeat("x", 108), 110, strings.Repeat("x", 108)},
		{strings.Repeat("x", 108), 111, strings.Repeat("x", 108)}, // as the system counts the end that it adds
	} {
		var a unix.RawSockaddrAny
		own := (*unix.RawSockaddrUnix)(unsafe.Pointer(&a))
		for i := range c.path {
			own.Path[i] = int8(c.path[i])
		}
		if got := boundName(&a, uint32(c.size)); got != c.want {
			t.Errorf("of %d bytes %q the name is %q, not %q", c.size, c.path, got, c.want)
		}
	}
}

func TestGroups(t *testing.T) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	want, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Groups(ends[0])
	if err != nil || len(got) != len(want) {
		t.Fatalf("the groups are %v, not %v: %v", got, want, err)
	}
	for i, g := range got {
		if int(g) != want[i] {
			t.Errorf("the groups are %v, not %v", got, want)
		}
	}
	tcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tcp)
	if got, err := Groups(tcp); err == nil {
		t.Errorf("the groups of nobody are %v", got)
	}
}

// Whoever has more groups than most is not cut short.
func TestManyGroups(t *testing.T) {
	needRoot(t)
	own, err := syscall.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	var many []int
	for g := range 100 {
		many = append(many, 5000+g)
	}
	if err := syscall.Setgroups(many); err != nil {
		t.Fatal(err)
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if again := syscall.Setgroups(own); again != nil {
		t.Fatal(again)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	got, err := Groups(ends[0])
	if err != nil || len(got) != 100 || got[99] != 5099 {
		t.Errorf("the groups are %v, %v", got, err)
	}
}

// The file of a socket has the rights that the listener asks for, whatever the
// umask is, and never more before.
func TestRightsOfTheFile(t *testing.T) {
	needRoot(t) // a umask that takes everything leaves others no socket to bind
	for _, mask := range []int{0, 0o77, 0o777} {
		defer unix.Umask(unix.Umask(mask))
		for _, mode := range []int{0o660, 0o600, 0o666, 0o777, 0o420, 0} {
			dir := shortDir(t)
			path := dir + "/socket"
			l := local(path)
			l[0].Mode = mode
			half := &Socket{fd: -1}
			var err error
			if half.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
				t.Fatal(err)
			}
			if err := half.makeFile(path); err != nil {
				t.Fatal(err)
			}
			if got := rights(t, path); got&^0o600 != 0 {
				t.Errorf("with the umask %#o, the file is made with the mode %#o", mask, got)
			}
			if err := half.giveAway(&l[0], Owners{}); err != nil {
				t.Fatal(err)
			}
			if got := rights(t, path); got != mode {
				t.Errorf("with the umask %#o, the file's mode is %#o, not %#o", mask, got, mode)
			}
			half.close()
			s := newSet(t)
			open(t, s, l, newRoom(0))
			if got := rights(t, path); got != mode {
				t.Errorf("with the umask %#o, the mode is %#o, not %#o", mask, got, mode)
			}
			s.Abandon()
		}
	}
}

func rights(t *testing.T, path string) int {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return int(st.Mode) & 0o7777
}

func TestOwnersOfTheFile(t *testing.T) {
	needRoot(t)
	dir := shortDir(t)
	s := newSet(t)
	defer s.Abandon()
	owners := Owners{Users: map[string]uint32{"ann": 4711}, Groups: map[string]uint32{"staff": 4712}}
	for i, c := range []struct {
		owner, group string
		uid, gid     uint32
	}{
		{"", "", 0, 0},
		{"ann", "", 4711, 0},
		{"", "staff", 0, 4712},
		{"ann", "staff", 4711, 4712},
	} {
		path := fmt.Sprint(dir, "/", i)
		l := local(path)
		l[0].Owner, l[0].Group = c.owner, c.group
		if _, problems := s.Open(l, owners, newRoom(0)); len(problems) > 0 {
			t.Fatal(problems)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || st.Uid != c.uid || st.Gid != c.gid || st.Mode&0o7777 != 0o660 {
			t.Errorf("%+v: it belongs to %d:%d, with the mode %#o, %v", c, st.Uid, st.Gid, st.Mode, err)
		}
	}
}

// A socket that stays open gets new rights, and keeps its file.
func TestReconfigureUnix(t *testing.T) {
	path := shortDir(t) + "/socket"
	s := newSet(t)
	defer s.Abandon()
	k := open(t, s, local(path), newRoom(0))[0]
	before := listing(t, filepath.Dir(path))
	owners := Owners{Users: map[string]uint32{"ann": uint32(os.Getuid())}, Groups: map[string]uint32{"staff": uint32(os.Getgid())}}
	if os.Getuid() == 0 {
		owners.Users["ann"], owners.Groups["staff"] = 4711, 4712
	}
	for _, c := range []config.Listener{
		{Mode: 0o600},
		{Mode: 0o666, Owner: "ann"},
		{Mode: 0o620, Owner: "ann", Group: "staff"},
		{Mode: 0o620, Group: "staff"},
		{Mode: 0o660},
	} {
		l := local(path)[0]
		l.Mode, l.Owner, l.Group = c.Mode, c.Owner, c.Group
		if err := k.Reconfigure(&l, owners); err != nil {
			t.Fatal(err)
		}
		uid, gid := ownersOf(&l, owners)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || st.Uid != uid || st.Gid != gid || int(st.Mode)&0o7777 != c.Mode {
			t.Errorf("%+v: it belongs to %d:%d, with the mode %#o, %v", c, st.Uid, st.Gid, st.Mode, err)
		}
	}
	if after := listing(t, filepath.Dir(path)); after != before {
		t.Errorf("the directory was\n%s and is\n%s", before, after)
	}
	os.Remove(path)
	leaveSocket(t, path)
	var h *hindrance
	l := local(path)[0]
	if err := k.Reconfigure(&l, owners); !errors.As(err, &h) || h.what != "something else was put in its place" {
		t.Errorf("got %v", err)
	}
}

// What somebody has put in the place of the new file is given to nobody.
func TestReplacedFile(t *testing.T) {
	dir := shortDir(t)
	path := dir + "/socket"
	k := &Socket{}
	var err error
	if k.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	defer k.close()
	for name, put := range map[string]func() error{
		"a file": func() error { return os.WriteFile(path, []byte("mine"), 0o600) },
		"a link": func() error { return os.Symlink(dir, path) },
	} {
		os.Remove(path)
		if err := put(); err != nil {
			t.Fatal(err)
		}
		l := local(path)
		l[0].Mode = 0o666
		var h *hindrance
		if err := k.giveAway(&l[0], Owners{}); !errors.As(err, &h) || h.what != "something else was put in its place" {
			t.Errorf("%s: got %v", name, err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode().IsRegular() && info.Mode().Perm() != 0o600 || k.file.path != "" {
			t.Errorf("%s: it is %v now, %v", name, info, err)
		}
	}
}

// A socket that nobody has any more is in nobody's way.
func TestStaleSocketIsReplaced(t *testing.T) {
	path := shortDir(t) + "/socket"
	leaveSocket(t, path)
	s := newSet(t)
	r := newRoom(1)
	open(t, s, local(path), r)
	serve(t, s)
	dialUnix(t, path)
	r.next(t)
}

// What is in use, and what is no socket, stays as it is, and who has it is told.
func TestWhatIsInTheWayStays(t *testing.T) {
	dir := shortDir(t)
	listening, err := net.Listen("unix", dir+"/listening")
	if err != nil {
		t.Fatal(err)
	}
	defer listening.Close()
	datagrams, err := net.ListenPacket("unixgram", dir+"/data grams")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	abstract, err := net.Listen("unix", "@"+dir)
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	leaveSocket(t, dir+"/stale")
	for name, make := range map[string]func(string) error{
		"file":      func(p string) error { return os.WriteFile(p, []byte("content"), 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o600) },
		"link":      func(p string) error { return os.Symlink("stale", p) },
		"broken":    func(p string) error { return os.Symlink("nothing", p) },
	} {
		if err := make(dir + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
	mine := "it is held by " + itself
	const taken, alone = "address already in use (EADDRINUSE)", "it is left alone; name another path"
	for name, want := range map[string][2]string{
		dir + "/listening":   {taken, mine},
		dir + "/data grams":  {taken, mine},
		"@" + dir:            {taken, mine},
		dir + "/file":        {"there is a file in its place", alone},
		dir + "/directory":   {"there is a directory in its place", alone},
		dir + "/fifo":        {"there is something that is no socket in its place", alone},
		dir + "/link":        {"there is a symbolic link in its place", alone},
		dir + "/broken":      {"there is a symbolic link in its place", alone},
		dir + "/none/socket": {"no such file or directory (ENOENT)", "the directory " + dir + "/none does not exist: make it, or have systemd make it with RuntimeDirectory="},
		dir + "/file/socket": {"not a directory (ENOTDIR)", "a part of " + dir + "/file is no directory"},
	} {
		before := listing(t, dir)
		s := newSet(t)
		opened, problems := s.Open(local(name), Owners{}, newRoom(0))
		s.Abandon()
		if len(opened) > 0 || len(problems) != 1 {
			t.Fatalf("%s: opened are %v, problems %v", name, opened, problems)
		}
		if p := problems[0]; p.What != "cannot listen on unix:"+name+": "+want[0] || p.Hint != want[1] {
			t.Errorf("%s: got %q (%q), want %q", name, p.What, p.Hint, want)
		}
		if after := listing(t, dir); after != before {
			t.Errorf("%s: the directory was\n%s and is\n%s", name, before, after)
		}
		if found, _ := new(Checker).Check(local(name), Owners{}); len(found) != 1 || found[0] != problems[0] {
			t.Errorf("%s: beforehand it is %v", name, found)
		}
		of := Checker{Running: os.Getpid()}
		if found, _ := of.Check(local(name), Owners{}); (len(found) > 0) != (want[0] != taken) {
			t.Errorf("%s: of the superd that runs it is %v", name, found)
		}
	}
	if found, _ := new(Checker).Check(append(local(dir+"/stale"), local(dir+"/new")...), Owners{}); len(found) > 0 {
		t.Errorf("what is in order is not: %v", found)
	}
}

// listing is what is in a directory, by name, kind and number.
func listing(t *testing.T, dir string) (text string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintln(e.Name(), info.Mode(), info.Sys().(*syscall.Stat_t).Ino)
	}
	return text
}

// The file goes with its socket, and nothing else does.
func TestFileGoesWithItsSocket(t *testing.T) {
	dir := shortDir(t)
	kept, replaced, gone := dir+"/kept", dir+"/replaced", dir+"/gone"
	for name, end := range map[string]func(s *Set){
		"served": func(s *Set) {
			go s.Serve(func() int { return -1 })
			s.Close()
		},
		"never served": func(s *Set) { s.Abandon() },
	} {
		s := newSet(t)
		open(t, s, slices.Concat(local(kept), local(replaced), local(gone), local("@"+dir)), newRoom(0))
		os.Remove(replaced)
		leaveSocket(t, replaced)
		os.Remove(gone)
		end(s)
		if isSocket(t, kept) || !isSocket(t, replaced) || isSocket(t, gone) {
			t.Errorf("%s: left is\n%s", name, listing(t, dir))
		}
		os.Remove(replaced)
	}
}

// Who connects before the end is served; who comes later finds nobody.
func TestConnectedBeforeTheEnd(t *testing.T) {
	path := shortDir(t) + "/socket"
	s := newSet(t)
	r := newRoom(0)
	open(t, s, local(path), r)
	go s.Serve(func() int { return -1 }) // ends with Close
	for range 3 {
		dialUnix(t, path)
	}
	receive(t, r.full)
	for range 3 {
		r.Leave()
	}
	s.Resume(r)
	s.ShutAll()
	s.Close()
	for range 3 {
		r.next(t)
	}
	if isSocket(t, path) {
		t.Error("the file is still there")
	}
}

// Of many who want to take the place of a stale socket at the same time, one
// gets it, and is who clients reach.
func TestRaceForAStaleSocket(t *testing.T) {
	defer func(usual time.Duration) { lockPatience = usual }(lockPatience)
	lockPatience = patience
	path := shortDir(t) + "/socket"
	for range 5 {
		leaveSocket(t, path)
		sets := make([]*Set, 8)
		won := make([]bool, len(sets))
		for i := range sets {
			sets[i] = newSet(t)
		}
		var all sync.WaitGroup
		for i, s := range sets {
			all.Go(func() {
				opened, problems := s.Open(local(path), Owners{}, newRoom(0))
				won[i] = len(opened) == 1
				if len(opened)+len(problems) != 1 {
					t.Errorf("opened are %v, problems %v", opened, problems)
				}
			})
		}
		all.Wait()
		winners := 0
		for i := range sets {
			if won[i] {
				winners++
			}
		}
		if winners != 1 {
			t.Errorf("%d have the socket", winners)
		}
		dialUnix(t, path)
		for _, s := range sets {
			s.Abandon()
		}
		if isSocket(t, path) {
			t.Fatal("the file is still there")
		}
	}
}

// Whoever holds the lock of the directory, and for how long, superd starts.
func TestLockedDirectory(t *testing.T) {
	dir := shortDir(t)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	s := newSet(t)
	defer s.Abandon()
	begun := time.Now()
	open(t, s, local(filepath.Join(dir, "socket")), newRoom(0))
	if waited := time.Since(begun); waited < lockPatience/2 {
		t.Errorf("it waited %v for the lock", waited)
	}
}

func TestHolderOfAName(t *testing.T) {
	h := &holders{sockets: map[string][]string{}, processes: map[string][]string{}}
	table := filepath.Join(t.TempDir(), "unix")
	text := `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000001: 00000002 00000000 00010000 0001 01    11 /run/a socket  of mine
0000000000000002: 00000003 00000000 00000000 0001 03    12 /run/a socket  of mine
0000000000000003: 00000002 00000000 00000000 0001 01 35414 @abstract
0000000000000004: 00000002 00000000 00000000 0001 01 35415
0000000000000005: 00000002 00000000 00000000 0002 03 35416 /run/log
`
	if err := os.WriteFile(table, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.addNamed(table)
	want := map[string][]string{"/run/a socket  of mine": {"socket:[11]"}, "@abstract": {"socket:[35414]"}, "/run/log": {"socket:[35416]"}}
	if fmt.Sprint(h.sockets) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", h.sockets, want)
	}
	if got := h.of("/run/nobody"); got != "a process that superd does not see" {
		t.Errorf("what nobody is seen to have is held by %s", got)
	}
}
