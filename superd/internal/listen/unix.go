package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
)

// Owners are the numbers of the accounts that unix sockets are given to, by
// their names in the file; who opens sockets looks them up before.
type Owners struct{ Users, Groups map[string]uint32 }

// A file is a name of ours in the file system.
type file struct {
	path string // "" for none
	dev  uint64
	ino  uint64
}

// A hindrance is what keeps a socket from being opened, where the system's
// error alone would not say it.
type hindrance struct {
	what, hint string
	key        string // of the file that it is about; "" for the address
}

func (h *hindrance) Error() string { return h.what }

// socketTypes are the kinds of unix sockets.
var socketTypes = map[string]int{"stream": unix.SOCK_STREAM, "seqpacket": unix.SOCK_SEQPACKET, config.Datagram: unix.SOCK_DGRAM}

// openUnix makes one listening unix socket.
func (s *Set) openUnix(l *config.Listener, owners Owners, door Door) (*Socket, error) {
	fd, err := s.newSocket(unix.AF_UNIX, socketTypes[l.Type], 0)
	if err != nil {
		return nil, err
	}
	k := &Socket{fd: fd, door: door, listener: l, self: peer.Peer{Kind: peer.Unix, Path: l.Name}}
	if l.Datagrams() {
		err = tellSenders(fd, netip.Addr{}, false)
	}
	switch {
	case err != nil:
	case l.Name[0] == '@':
		err = k.bindAbstract(l)
	default:
		err = k.bindPath(l, owners)
	}
	if err == nil {
		err = listenOn(fd, l)
	}
	if err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

func (k *Socket) bindAbstract(l *config.Listener) error {
	return os.NewSyscallError("bind", unix.Bind(k.fd, &unix.SockaddrUnix{Name: l.Name}))
}

// bindPath makes the socket's file. Nobody can connect before listen(2), and by
// then the file has its final rights; until then it has none but for superd's
// own user, whatever the umask is: the mode of the socket itself is what
// bind(2) makes the file with.
func (k *Socket) bindPath(l *config.Listener, owners Owners) error {
	unlock := lockDirectory(filepath.Dir(l.Name))
	defer unlock()
	err := clearStale(l.Name)
	if err == nil {
		err = k.makeFile(l.Name)
	}
	if err == nil {
		err = k.giveAway(l, owners)
	}
	return err
}

func (k *Socket) makeFile(path string) error {
	if err := unix.Fchmod(k.fd, 0o600); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	if err := unix.Bind(k.fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return directoryTrouble(path, err)
	}
	return nil
}

// giveAway gives the socket's file its owner and its mode, and no rights between
// that it has neither before nor after. The file is reached by a descriptor, so
// that what somebody puts in its place meanwhile is not.
func (k *Socket) giveAway(l *config.Listener, owners Owners) error {
	fd, err := unix.Open(l.Name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if !k.isOurs(&st) {
		return &hindrance{what: "something else was put in its place", hint: "let nobody else write to " + filepath.Dir(l.Name)}
	}
	k.file = file{l.Name, uint64(st.Dev), st.Ino}
	mode := st.Mode & 0o7777
	if uid, gid := ownersOf(l, owners); st.Uid != uid || st.Gid != gid {
		mode &= uint32(l.Mode)
		err = errors.Join(changeMode(fd, mode), changeOwner(fd, l, uid, gid))
	}
	if err == nil && mode != uint32(l.Mode) {
		err = changeMode(fd, uint32(l.Mode))
	}
	return err
}

// isOurs tells whether st is of the socket's own file, which is not known yet
// when it has just been made.
func (k *Socket) isOurs(st *unix.Stat_t) bool {
	if k.file.path != "" {
		return uint64(st.Dev) == k.file.dev && st.Ino == k.file.ino
	}
	return st.Mode&unix.S_IFMT == unix.S_IFSOCK && int(st.Uid) == os.Geteuid()
}

func ownersOf(l *config.Listener, owners Owners) (uid, gid uint32) {
	uid, gid = uint32(os.Geteuid()), uint32(os.Getegid())
	if l.Owner != "" {
		uid = owners.Users[l.Owner]
	}
	if l.Group != "" {
		gid = owners.Groups[l.Group]
	}
	return uid, gid
}

func changeOwner(fd int, l *config.Listener, uid, gid uint32) error {
	err := unix.Fchownat(fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH)
	if err != unix.EPERM {
		return os.NewSyscallError("chown", err)
	}
	key := "group"
	if l.Owner != "" {
		key = "owner"
	}
	return &hindrance{key: key, what: "chown: " + symbolic(err),
		hint: "only root can give a socket to another user, or to a group that superd is not in"}
}

// changeMode goes by way of /proc: chmod(2) by a descriptor that stands for a
// path needs fchmodat2 otherwise (Linux 6.6).
func changeMode(fd int, mode uint32) error {
	return os.NewSyscallError("chmod", unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode))
}

// lockPatience is how long another superd may hold a directory's lock: it takes
// as long as opening a socket. Who else holds it, for whatever reason, must not
// keep superd from starting. Tests wait longer.
var lockPatience = 200 * time.Millisecond

// lockDirectory keeps other superds from clearing and taking a name in the
// directory at the same time, as far as that can be had.
func lockDirectory(dir string) (unlock func()) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return func() {} // what is wrong with it will be told by bind
	}
	const pause = 5 * time.Millisecond
	for waited := time.Duration(0); waited < lockPatience; waited += pause {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != unix.EWOULDBLOCK {
			break
		}
		time.Sleep(pause)
	}
	return func() { unix.Close(fd) } // and with it the lock
}

// clearStale removes the socket that a superd left behind that was killed. What
// is in use, and what is no socket, is left alone.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return directoryTrouble(path, err)
	}
	if err := checkSocket(info); err != nil {
		return err
	}
	switch err := probe(path); err {
	case unix.ECONNREFUSED:
		return removeStale(path)
	case unix.ENOENT:
		return nil
	case nil, unix.EPROTOTYPE:
		return unix.EADDRINUSE
	default:
		return &hindrance{what: "it cannot be told whether the socket that is there is in use: " + symbolic(err), hint: "remove it if it is not"}
	}
}

func removeStale(path string) error {
	err := unix.Unlink(path)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	return &hindrance{what: "nobody uses the socket that is there, and it cannot be removed: " + symbolic(err), hint: "remove it"}
}

// checkSocket wants what is at a path to be a socket.
func checkSocket(info fs.FileInfo) error {
	if info.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	return &hindrance{what: "there is " + describe(info.Mode()) + " in its place", hint: "it is left alone; name another path"}
}

func describe(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a file"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	}
	return "something that is no socket"
}

// probe asks whether anybody has a socket at path: ECONNREFUSED is nobody. It
// connects a datagram socket, which no program notices: with one that listens
// the kernel says EPROTOTYPE, and to one for datagrams nothing is sent.
func probe(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
}

// directoryTrouble explains why a name cannot be made, or looked at.
func directoryTrouble(path string, err error) error {
	dir := filepath.Dir(path)
	var errno unix.Errno
	errors.As(err, &errno)
	h := &hindrance{what: symbolic(errno)}
	switch errno {
	case unix.ENOENT:
		h.hint = "the directory " + dir + " does not exist: make it, or have systemd make it with RuntimeDirectory="
	case unix.ENOTDIR:
		h.hint = "a part of " + dir + " is no directory"
	case unix.EACCES, unix.EPERM:
		h.hint = "superd may not write to " + dir
	case unix.EADDRINUSE:
		return errno
	}
	return h
}

// symbolic is an error of the system in words and with its name.
func symbolic(err error) string {
	errno, _ := err.(unix.Errno)
	return fmt.Sprintf("%s (%s)", errno.Error(), unix.ErrnoName(errno))
}

// Lost tells whether the socket's file was removed, or is another's by now, so
// that nobody finds the socket any more.
func (k *Socket) Lost() bool { return k.file.path != "" && !k.file.there() }

func (f *file) there() bool {
	var st unix.Stat_t
	return unix.Lstat(f.path, &st) == nil && uint64(st.Dev) == f.dev && st.Ino == f.ino
}

// withdraw removes the socket's file, unless it is another's by now. No lock is
// needed: as long as the socket is open, no superd takes its file for stale.
func (k *Socket) withdraw() {
	if f := k.file; f.path != "" && f.there() {
		unix.Unlink(f.path)
	}
	k.file = file{}
}

// close frees the socket and its file.
func (k *Socket) close() {
	if k.heirloom != nil {
		k.heirloom.giveBack()
		return
	}
	k.withdraw()
	unix.Close(k.fd)
}

// boundName is the name in a unix socket's address of which accept has told
// size bytes; "" where it has none (unix(7), "Address format").
func boundName(a *unix.RawSockaddrAny, size uint32) string {
	const begin = unsafe.Offsetof(unix.RawSockaddrUnix{}.Path)
	if uintptr(size) <= begin {
		return ""
	}
	path := (*unix.RawSockaddrUnix)(unsafe.Pointer(a)).Path
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&path[0])), min(uintptr(size)-begin, uintptr(len(path))))
	if raw[0] == 0 {
		return "@" + string(raw[1:])
	}
	return unix.ByteSliceToString(raw)
}

// identify asks who has connected by a unix socket: what the kernel noted then,
// whoever holds the other end by now.
func identify(fd int, p *peer.Peer) {
	var who unix.Ucred
	size := uint32(unsafe.Sizeof(who))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERCRED,
		uintptr(unsafe.Pointer(&who)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		who = unix.Ucred{Uid: math.MaxUint32, Gid: math.MaxUint32} // nobody's
	}
	p.PID, p.UID, p.GID = who.Pid, who.Uid, who.Gid
}

// Groups are the supplementary groups of the process that has connected by a
// unix socket, beside its own, as they were then (SO_PEERGROUPS, Linux 4.13).
func Groups(fd int) ([]uint32, error) {
	list := make([]uint32, 32)
	for {
		size := uint32(len(list) * 4)
		_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return list[:size/4], nil
		case unix.ERANGE: // size says how many there are
			list = make([]uint32, size/4)
		default:
			return nil, os.NewSyscallError("getsockopt SO_PEERGROUPS", errno)
		}
	}
}
