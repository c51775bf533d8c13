package event

import (
	"errors"
	"path/filepath"
	"syscall"
	"time"
)

// lookEvery is the least time between two looks at where the path of a log file leads. Somebody who moves the
// file away and gives no signal has what was written meanwhile in the file that was moved.
const lookEvery = time.Second

// timeToMake is how long whoever has moved the file away has to make the next one.
const timeToMake = 50 * time.Millisecond

// A file is a log file that is known by its path, and follows it: the stream of what the path led to when it
// was opened last.
type file struct {
	stream
	path   string
	format string
	own    func(fd int) (int, error)

	fd     int
	is     identity
	looked time.Time // at the path
	stuck  bool      // it could not be opened anew, and that was said
}

// An identity tells one file from another, whatever its name.
type identity struct{ device, inode uint64 }

// openFile opens a log file, or makes it, readable by the group of who runs superd and writable by them alone. A
// symbolic link in the path's last place is refused: superd runs as root, and whoever may put one there would
// have it write wherever they like.
func openFile(path string, o Options) (*file, error) {
	f := &file{path: path, format: o.Format, own: o.own, fd: -1}
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

const (
	openFlags = syscall.O_WRONLY | syscall.O_APPEND | syscall.O_CLOEXEC | syscall.O_NOFOLLOW | syscall.O_NONBLOCK | syscall.O_NOCTTY
	openMode  = 0o640
)

var (
	errSymbolicLink = errors.New("it is a symbolic link; name what it leads to")
	errNoReader     = errors.New("it is a named pipe, and nobody reads it") // fifo(7)
)

// open opens what the path leads to now, and closes what was open before when that has worked. Nothing waits:
// not for a reader, where it is a named pipe, and not for a terminal.
func (f *file) open() error {
	fd, err := openPath(f.path, syscall.O_CREAT)
	if err != nil {
		return err
	}
	if fd, err = f.own(fd); err != nil {
		return err
	}
	var s syscall.Stat_t
	if err := syscall.Fstat(fd, &s); err != nil {
		syscall.Close(fd)
		return err
	}
	f.close()
	torn := f.torn && f.is == identityOf(&s)
	f.fd, f.is = fd, identityOf(&s)
	f.stream = stream{
		form: formOf(isTerminalFD(uintptr(fd)), f.format),
		torn: torn,
		look: func() bool { return endsTorn(f.path, fd) },
		once: func(p []byte) (int, error) { return writeOnce(fd, p) },
	}
	return nil
}

func openPath(path string, more int) (fd int, err error) {
	fd, err = syscall.Open(path, openFlags|more, openMode)
	switch err {
	case syscall.ELOOP:
		err = errSymbolicLink
	case syscall.ENXIO:
		var s syscall.Stat_t
		if syscall.Lstat(path, &s) == nil && s.Mode&syscall.S_IFMT == syscall.S_IFIFO {
			err = errNoReader
		}
	}
	return fd, err
}

// endsTorn tells whether somebody has left half a line at the end of a file: a superd before, whose disk was full.
// Where superd itself still writes to it by another descriptor, it is too early to ask. Fd is open for writing alone.
func endsTorn(path string, fd int) bool {
	var s syscall.Stat_t
	if syscall.Fstat(fd, &s) != nil || s.Mode&syscall.S_IFMT != syscall.S_IFREG || s.Size == 0 {
		return false
	}
	again, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(again)
	var same syscall.Stat_t
	if syscall.Fstat(again, &same) != nil || identityOf(&same) != identityOf(&s) {
		return false
	}
	var last [1]byte
	n, err := syscall.Pread(again, last[:], s.Size-1)
	return err == nil && n == 1 && last[0] != '\n'
}

// checkFile says why a file cannot be opened, or made.
func checkFile(path string) error {
	fd, err := openPath(path, 0)
	switch {
	case err == nil:
		return syscall.Close(fd)
	case err == syscall.ENOENT:
		const mayMakeFiles = 0x2 | 0x1 // W_OK and X_OK of access(2)
		return syscall.Access(filepath.Dir(path), mayMakeFiles)
	}
	return err
}

func (f *file) close() {
	if f.fd >= 0 {
		syscall.Close(f.fd)
	}
	f.fd = -1
}

// follow opens the file anew if the path leads elsewhere, or if asked. An error says why the old file is still
// written on; where nobody has asked, it is said once.
func (f *file) follow(now time.Time, asked bool, w *writer) error {
	if !asked && !f.isToBeOpened(now, w) {
		return nil
	}
	err := f.open()
	said := f.stuck && !asked
	f.stuck = err != nil
	if said {
		return nil
	}
	return err
}

func (f *file) isToBeOpened(now time.Time, w *writer) bool {
	if now.Sub(f.looked) < lookEvery {
		return false
	}
	f.looked = now
	return f.moved(w)
}

// moved looks whether the path leads to another file or to none. Whoever has moved the file away may be about to
// make the next one, and could be in each other's way with us: logrotate(8) moves ours away again then.
func (f *file) moved(w *writer) bool {
	var s syscall.Stat_t
	err := syscall.Lstat(f.path, &s)
	if err == syscall.ENOENT && !f.stuck {
		w.pause(timeToMake)
		err = syscall.Lstat(f.path, &s)
	}
	if err == nil && identityOf(&s) == f.is {
		f.stuck = false
		return false
	}
	return err == nil || err == syscall.ENOENT
}

func identityOf(s *syscall.Stat_t) identity { return identity{uint64(s.Dev), s.Ino} }
