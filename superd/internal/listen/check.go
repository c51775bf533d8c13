package listen

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// Check says what of a service's listeners could not be opened on this machine,
// as far as that can be told without opening them: whether another process has
// the address is not looked at.
func Check(list []config.Listener) (problems config.Problems) {
	var s *Set
	told := false // of this address
	for i := range list {
		l := &list[i]
		if told = told && l.Optional; told {
			continue
		}
		if err := check(l); err != nil && !(l.Optional && noFamily(err)) {
			problems = append(problems, s.problem(l, l.Addr, err))
			told = aboutKey(err)
		}
	}
	return problems
}

func check(l *config.Listener) error {
	switch {
	case l.Internet():
		return checkOptions(l)
	case l.Family == config.VSock:
		return checkVSock(l)
	case l.Family == config.Unix && l.Name[0] == '/':
		return checkPath(l)
	}
	return nil
}

// checkOptions sets the options of a socket that is never bound.
func checkOptions(l *config.Listener) error {
	kind := unix.SOCK_STREAM
	if l.Datagrams() {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(familyOf(l.Addr), kind|unix.SOCK_CLOEXEC, protocolOf(l))
	if err != nil {
		return withoutMPTCP(l, os.NewSyscallError("socket", err))
	}
	defer unix.Close(fd)
	return errors.Join(prepare(fd, l, l.Addr), configure(fd, l, nil))
}

// checkVSock finds out whether the kernel has such sockets at all.
func checkVSock(l *config.Listener) error {
	fd, err := unix.Socket(unix.AF_VSOCK, socketTypes[l.Type]|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return vsockTrouble(l, err)
	}
	return unix.Close(fd)
}

func checkPath(l *config.Listener) error {
	if err := checkDirectory(filepath.Dir(l.Name)); err != nil {
		return directoryTrouble(l.Name, err)
	}
	info, err := os.Lstat(l.Name)
	if err != nil {
		return nil // it will be made
	}
	return checkSocket(info)
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
