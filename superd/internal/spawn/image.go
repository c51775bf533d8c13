package spawn

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// An Image is a built-in program in memory: a sealed memfd that children
// execute by descriptor. Where the content changes (daytime), Replace makes a
// new memfd, so that a program that runs keeps the pages it started from.
type Image struct {
	name   string
	engine *Engine
	fd     atomic.Int32 // above the window
}

// NewImage puts content, a static ELF program, into memory. The caller closes
// the image when no plan uses it any more.
func (e *Engine) NewImage(name string, content []byte) (*Image, error) {
	i := &Image{name: name, engine: e}
	i.fd.Store(-1)
	if err := i.Replace(content); err != nil {
		return nil, err
	}
	return i, nil
}

// Replace gives connections from now on other content. It must not run beside
// a Start that uses the image.
func (i *Image) Replace(content []byte) error {
	fd, err := i.engine.sealedFile(i.name, content)
	if err != nil {
		return err
	}
	if old := i.fd.Swap(int32(fd)); old >= 0 {
		unix.Close(int(old))
	}
	return nil
}

// Close frees the image; programs that run keep theirs.
func (i *Image) Close() {
	if old := i.fd.Swap(-1); old >= 0 {
		unix.Close(int(old))
	}
}

const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL

// sealedFile puts a built-in above the window: into a memfd that nobody can
// change, or into a file where the kernel forbids to execute memfds.
func (e *Engine) sealedFile(name string, content []byte) (int, error) {
	low, err := executableMemfd("superd:" + name)
	if err == unix.EACCES { // vm.memfd_noexec is 2 (Linux 6.3)
		return e.imageFile(name, content)
	}
	if err != nil {
		return -1, &Failure{Words: "keep the built-in " + name + " in memory", Errno: errnoOf(err)}
	}
	fd, err := e.window.above(low)
	if err != nil {
		return -1, &Failure{Words: "keep the built-in " + name + " in memory", Errno: errnoOf(err)}
	}
	if err := fill(fd, content); err != nil {
		unix.Close(fd)
		return -1, &Failure{Words: "write the built-in " + name, Errno: errnoOf(err)}
	}
	return fd, nil
}

// executableMemfd asks for execution by name, which kernels before 6.3 do not
// know and do not need (memfd_create(2), MFD_EXEC).
func executableMemfd(name string) (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if err == unix.EINVAL {
		return unix.MemfdCreate(name, flags)
	}
	return fd, err
}

func fill(fd int, content []byte) error {
	for len(content) > 0 {
		n, err := unix.Write(fd, content)
		if err != nil {
			return err
		}
		content = content[n:]
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	return err
}

// imageDirs is where a built-in's file is tried; a directory mounted noexec is
// of no use.
var imageDirs = []string{"/run/superd", "/run", os.TempDir(), "/var/tmp"}

// imageFile is an executable file without a name, open for reading: one that
// is open for writing could not be executed.
func (e *Engine) imageFile(name string, content []byte) (int, error) {
	for _, dir := range imageDirs {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) != nil || fs.Flags&unix.ST_NOEXEC != 0 {
			continue
		}
		if fd, err := e.unnamedFile(dir, content); err == nil {
			return fd, nil
		}
	}
	return -1, &Failure{Words: "keep the built-in " + name, Errno: unix.EACCES,
		Hint: "vm.memfd_noexec forbids programs in memory, and no directory of " + strings.Join(imageDirs, " ") + " is writable and mounted exec"}
}

func (e *Engine) unnamedFile(dir string, content []byte) (int, error) {
	f, err := os.CreateTemp(dir, "superd-*")
	if err != nil {
		return -1, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(0o555), f.Close()); err != nil {
		return -1, err
	}
	return e.openAbove(f.Name(), unix.O_RDONLY)
}
