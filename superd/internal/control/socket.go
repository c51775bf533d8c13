package control

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// longestPath is what fits into a socket address with its closing NUL
// (sockaddr_un, unix(7)).
const longestPath = 107

// openSocket makes a listening unix socket at path with exactly the rights
// that are asked for. A socket at which nobody answers any more is replaced. Anything else
// that is there stays. The descriptor is the caller's.
func openSocket(path string, r Rights) (fd int, err error) {
	if len(path) > longestPath {
		return -1, fmt.Errorf("the path has %d bytes, at most %d fit into a socket's address", len(path), longestPath)
	}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err = bindSocket(fd, path, r); err == nil {
		err = unix.Listen(fd, math.MaxInt32) // the kernel makes it net.core.somaxconn
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// bindSocket binds fd, once more where a dead socket was in the way. The mode
// that fd has before is the most that the file gets: the umask takes from it,
// so that there is no moment in which the file has wider rights.
func bindSocket(fd int, path string, r Rights) error {
	if err := unix.Fchmod(fd, uint32(r.Mode.Perm()&^ofGroup)); err != nil {
		return err
	}
	err := unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	if err == unix.EADDRINUSE {
		if err = removeDead(path); err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		}
	}
	if err != nil {
		return err
	}
	if err = r.apply(path); err != nil {
		unix.Unlink(path)
	}
	return err
}

// ofGroup are the rights that are given when the file has its group.
const ofGroup = 0o070

func (r Rights) apply(path string) error {
	if r.Group >= 0 {
		err := unix.Chmod(path, uint32(r.Mode.Perm()&^ofGroup))
		if err == nil {
			err = unix.Chown(path, -1, r.Group)
		}
		if err == unix.EPERM {
			return fmt.Errorf("superd is not in group %d, and only root can give it to another: %w", r.Group, err)
		} else if err != nil {
			return err
		}
	}
	return unix.Chmod(path, uint32(r.Mode.Perm())) // what the umask has taken, too
}

// removeDead removes the socket at path unless somebody answers there.
func removeDead(path string) error {
	found, err := identify(path)
	switch {
	case err != nil:
		return err
	case found.replaceable() != nil:
		return found.replaceable()
	}
	if holder, alive := answers(path); alive {
		return errors.New("it is in use by " + holder)
	}
	if again, err := identify(path); err != nil || again != found {
		return errors.New("somebody else has just opened it")
	}
	return unix.Unlink(path)
}

// An identity tells whether a path leads to the same file as before.
type identity struct {
	device, inode uint64
	mode          uint32
	group         uint32
}

// same tells whether a file is the same, whatever its rights are by now.
func (i identity) same(other identity) bool {
	return i.device == other.device && i.inode == other.inode && i.mode&unix.S_IFMT == other.mode&unix.S_IFMT
}

// replaceable refuses what is not a socket.
func (i identity) replaceable() error {
	if i.mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("what is there is not a socket, and stays")
	}
	return nil
}

func identify(path string) (identity, error) {
	var s unix.Stat_t
	if err := unix.Lstat(path, &s); err != nil {
		return identity{}, err
	}
	return identity{s.Dev, s.Ino, s.Mode, s.Gid}, nil
}

// answers tells whether anybody listens at path, and who. It does not wait: a
// full queue is an answer as well.
func answers(path string) (who string, alive bool) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return "a process that cannot be asked: " + err.Error(), true
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err {
	case nil:
		return holder(fd), true
	case unix.ECONNREFUSED, unix.ENOENT:
		return "", false
	}
	return "a process that does not answer", true
}

// holder is who listens at the other end of fd.
func holder(fd int) string {
	p, err := peerOf(fd)
	if err != nil || p.PID == 0 {
		return "a process of another container"
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID))
	if err != nil {
		return fmt.Sprintf("process %d", p.PID)
	}
	return fmt.Sprintf("%s, process %d", bytes.TrimSpace(name), p.PID)
}

// makeDirectory makes the directory of path where it is missing, open to all
// to enter; only the last one.
func makeDirectory(path string) error {
	dir := filepath.Dir(path)
	err := unix.Mkdir(dir, 0o755)
	if err == unix.EEXIST {
		return nil
	}
	if err != nil {
		return err
	}
	return unix.Chmod(dir, 0o755) // what the umask has taken
}
