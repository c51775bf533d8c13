package control

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Check tells what would keep [Open] from opening the socket at the path, and
// makes nothing. A superd that listens there is no hindrance: it keeps it. With
// makeDirectory Open would make a directory that is missing.
func Check(path string, makeDirectory bool) error {
	if err := check(path, makeDirectory); err != nil {
		return fmt.Errorf("cannot open the administrative socket %s: %w", path, err)
	}
	return nil
}

func check(path string, makeDirectory bool) error {
	found, err := identify(path)
	if err == nil {
		return found.replaceable()
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); os.IsNotExist(err) && makeDirectory {
		dir = filepath.Dir(dir)
	}
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

// Running is the process that listens at path, 0 for none, or for one that
// cannot be asked.
func Running(path string) (pid int) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if unix.Connect(fd, &unix.SockaddrUnix{Name: path}) != nil {
		return 0
	}
	p, _ := peerOf(fd)
	return p.PID
}
