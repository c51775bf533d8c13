package spawn

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A tree is the files as a program sees them that has its root as the root
// directory: no symbolic link and no .. leads out of it.
type tree struct{ root int }

// openTree opens the tree below root; "" is the whole. It is closed by the caller.
func openTree(root string) (tree, error) {
	fd, err := unix.Open(root+"/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return tree{}, fmt.Errorf("cannot open %s: %w", root, err)
	}
	return tree{fd}, nil
}

func (t tree) close() { unix.Close(t.root) }

// open finds path as the program would (openat2(2), RESOLVE_IN_ROOT).
func (t tree) open(path string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	for {
		fd, err := unix.Openat2(t.root, path, &how)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR, unix.EAGAIN: // EAGAIN: something was renamed meanwhile
		default:
			return -1, fmt.Errorf("cannot open %s: %w", path, err)
		}
	}
}

// Look tells what a program finds at path that has root as its root directory,
// "" being superd's own.
func Look(root, path string) (os.FileInfo, error) {
	if root == "" {
		return os.Stat(path)
	}
	t, err := openTree(root)
	if err != nil {
		return nil, err
	}
	defer t.close()
	fd, err := t.open(path, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	return f.Stat()
}

// A place is a file or directory, whatever it is called.
type place struct{ device, inode uint64 }

// placeOf also tells whether fd is a directory.
func placeOf(fd int) (at place, directory bool, err error) {
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return place{}, false, err
	}
	return place{s.Dev, s.Ino}, s.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// beneath tells whether path is directory or below it. Both are clean.
func beneath(path, directory string) bool {
	return directory == "/" || path == directory || strings.HasPrefix(path, directory+"/")
}
