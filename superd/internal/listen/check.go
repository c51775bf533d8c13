package listen

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// A Checker tells what of listeners could not be opened on this machine,
// without listening on anything.
type Checker struct {
	// Running is the process of a superd that may have them, and keeps them when
	// it reads the file again; 0 for none.
	Running int

	// Unasked says that a superd of the same file may run, and has no socket at
	// which it could be asked: what a process of this program has may be its own.
	Unasked bool

	set Set // for who has what; nothing is ever opened in it
}

// Check looks at the listeners of one service. Owners are as for Set.Open, but
// for those that are unknown. Warnings are about what the service manager has,
// and may hand over.
func (c *Checker) Check(list []config.Listener, owners Owners) (problems, warnings config.Problems) {
	told := false // of this address
	for i := range list {
		l := &list[i]
		if told = told && l.Optional; told {
			continue
		}
		err := check(l)
		if err == nil || errors.Is(err, unix.EADDRINUSE) && c.has(l, c.Running) {
			err = checkOwner(l, owners)
		}
		if err == nil || l.Optional && noFamily(err) {
			continue
		}
		told = aboutKey(err)
		switch p := c.set.problem(l, l.Addr, err); {
		case errors.Is(err, unix.EADDRINUSE) && c.has(l, serviceManager):
			warnings = append(warnings, l.Problem("address", p.What, p.Hint+": superd has it only if that hands it over"))
		case c.Unasked && c.set.whoHas().isOfKin(placeOf(l, l.Addr)):
			warnings = append(warnings, l.Problem("address", p.What, p.Hint+": in order if that serves this file"))
		default:
			problems = append(problems, p)
		}
	}
	return problems, warnings
}

// serviceManager is the process that listens on behalf of others.
const serviceManager = 1

// has tells whether a process has what another socket than l's has taken.
func (c *Checker) has(l *config.Listener, pid int) bool {
	return pid != 0 && c.set.whoHas().isOf(placeOf(l, l.Addr), pid)
}

// CheckTCP is Check for an address of TCP that belongs to no service; the error
// is an errno.
func (c *Checker) CheckTCP(addr netip.AddrPort) error {
	l := config.Listener{Family: config.TCP, Addr: addr}
	err := checkInternet(&l)
	var errno unix.Errno
	if !errors.As(err, &errno) || errno == unix.EADDRINUSE && (c.has(&l, c.Running) || c.Unasked && c.set.whoHas().isOfKin(placeOf(&l, addr))) {
		return nil
	}
	return errno
}

func check(l *config.Listener) error {
	switch {
	case l.Internet():
		return checkInternet(l)
	case l.Family == config.VSock:
		return checkVSock(l)
	case l.Family == config.Unix && l.Name[0] == '/':
		return checkPath(l)
	case l.Family == config.Unix:
		return checkName(l)
	}
	return nil
}

// checkInternet binds a socket that never listens: where another one listens,
// or waits for datagrams, the kernel says so.
func checkInternet(l *config.Listener) error {
	kind := unix.SOCK_STREAM
	if l.Datagrams() {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(familyOf(l.Addr), kind|unix.SOCK_CLOEXEC, protocolOf(l))
	if err != nil {
		return withoutMPTCP(l, os.NewSyscallError("socket", err))
	}
	defer unix.Close(fd)
	if err := errors.Join(prepare(fd, l, l.Addr), configure(fd, l, nil)); err != nil {
		return err
	}
	return os.NewSyscallError("bind", unix.Bind(fd, sockaddr(l.Addr)))
}

// checkVSock finds out whether the kernel has such sockets at all: who has one is
// in no table, so that it could not be told whether that is the running superd.
func checkVSock(l *config.Listener) error {
	fd, err := unix.Socket(unix.AF_VSOCK, socketTypes[l.Type]|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return vsockTrouble(l, err)
	}
	return unix.Close(fd)
}

// checkName binds an abstract name, which is gone again with the socket.
func checkName(l *config.Listener) error {
	fd, err := unix.Socket(unix.AF_UNIX, socketTypes[l.Type]|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return (&Socket{fd: fd}).bindAbstract(l)
}

// checkOwner finds out whether superd may give a unix socket's file away, with a
// file that has no name.
func checkOwner(l *config.Listener, owners Owners) error {
	if l.Owner == "" && l.Group == "" || !owners.know(l) || ownedByPlace(l, owners) {
		return nil
	}
	fd, err := unix.MemfdCreate("owner", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd)
	uid, gid := ownersOf(l, owners)
	return changeOwner(fd, l, uid, gid)
}

// know tells whether both accounts of l are known.
func (o Owners) know(l *config.Listener) bool {
	_, user := o.Users[l.Owner]
	_, group := o.Groups[l.Group]
	return (user || l.Owner == "") && (group || l.Group == "")
}

// ownedByPlace tells that what superd makes in l's directory has l's owners from
// the beginning: the directory gives it its group.
func ownedByPlace(l *config.Listener, owners Owners) bool {
	var st unix.Stat_t
	uid, gid := ownersOf(l, owners)
	return unix.Stat(filepath.Dir(l.Name), &st) == nil && st.Mode&unix.S_ISGID != 0 && st.Gid == gid && uid == uint32(os.Geteuid())
}

func checkPath(l *config.Listener) error {
	if err := checkDirectory(filepath.Dir(l.Name)); err != nil {
		return directoryTrouble(l.Name, err)
	}
	info, err := os.Lstat(l.Name)
	if err != nil {
		return nil // it will be made
	}
	if err := checkSocket(info); err != nil {
		return err
	}
	if err := probe(l.Name); err == nil || err == unix.EPROTOTYPE {
		return unix.EADDRINUSE
	}
	return nil // nobody has it, and it is replaced
}

// checkDirectory tells why superd could make no file in dir.
func checkDirectory(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}
