package spawn

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// mountsKey is the key of the file that asks for a mount namespace.
func (p *Plan) mountsKey() string {
	if p.spec.Sandbox.PrivateTmp {
		return "sandbox.private_tmp"
	}
	return "sandbox"
}

// landlockAlone is what is open in a closed file system that is not mounted
// read-only, and of which no mount is left out (landlock(7)).
const landlockAlone = "Landlock alone guards it, and does not see chmod, chown, utime and setxattr, " +
	"nor stat, access, readlink and chdir, nor connections to sockets in it"

// withoutMounts says what is open where there is no mount namespace.
func (p *Plan) withoutMounts() string {
	s := &p.spec.Sandbox
	switch {
	case !s.Confined:
		return "/tmp and /var/tmp are those of the machine"
	case s.PrivateTmp:
		return "/tmp and /var/tmp are those of the machine, closed as all the rest; the file system is not read-only: " + landlockAlone
	}
	return "the file system is not read-only: " + landlockAlone
}

// buildMounts makes the mount namespace of a service whose programs have a
// /tmp of their own, or a file system that is closed: mount_namespaces(7).
//
// A confined program finds there only the mounts that lead to what it may
// open, all read-only but for Sandbox.Write. That closes what Landlock does
// not see: chmod, chown, utime, setxattr and, on older kernels, truncate. As an
// ordinary user superd can make no namespace, and Landlock stands alone. A
// built-in opens no file and gets none.
func (p *Plan) buildMounts() error {
	s := &p.spec.Sandbox
	if !s.Confined && !s.PrivateTmp || p.spec.Image != nil {
		return nil
	}
	fd, err := p.engine.newNamespace(unix.CLONE_NEWNS, func() error { return p.arrange(true) })
	if errors.Is(err, errMissed) {
		fd, err = p.engine.newNamespace(unix.CLONE_NEWNS, func() error { return p.arrange(false) })
	}
	switch {
	case errors.Is(err, errNeedsRoot) && !s.PrivateTmp:
		p.walls.notes = append(p.walls.notes, Fault{Key: "sandbox", What: "the file system is not read-only, which takes root (CAP_SYS_ADMIN): " + landlockAlone})
		return nil
	case err != nil:
		return err
	}
	p.walls.readOnly = s.Confined
	p.lendMounts(fd)
	return nil
}

// lendMounts gives the namespace fd to p. Children get it, or a copy that is
// ready with a /tmp of their own.
func (p *Plan) lendMounts(fd int) {
	p.walls.template = fd
	p.walls.owned = append(p.walls.owned, fd)
	p.walls.mounts = p.borrow("the mount namespace", func(in *instance) int {
		if in.cell != nil {
			return in.cell.namespace
		}
		return fd
	})
}

// arrange furnishes the calling thread's mount namespace, a copy of superd's;
// with pruned, it leaves out what the program could not open anyway: each
// mount costs a child that copies the namespace some 1.5 µs.
func (p *Plan) arrange(pruned bool) (err error) {
	s := &p.spec.Sandbox
	if err := p.detach(); err != nil {
		return err
	}
	if s.PrivateTmp {
		if p.walls.tmps, err = p.temporaryDirectories(); err != nil {
			return err
		}
	}
	if s.Confined && pruned {
		if err := p.prune(); err != nil {
			return err
		}
	}
	if s.Confined {
		return p.closeForWriting()
	}
	return nil
}

// detach keeps from superd's namespace what happens in this one. A program
// that is not confined goes on seeing what is mounted and unmounted in
// superd's, and so keeps no file system from being unmounted; for one that is,
// a file system that appears later would come writable.
func (p *Plan) detach() error {
	propagation := uintptr(unix.MS_SLAVE)
	if p.spec.Sandbox.Confined {
		propagation = unix.MS_PRIVATE
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|propagation, ""); err != nil {
		return fmt.Errorf("cannot detach the mounts from superd's: %w", err)
	}
	return nil
}

// closeForWriting makes every mount read-only but those of Sandbox.Write,
// which are copied before and put over the others: what is read-only below
// them stays so (mount_setattr(2), Linux 5.12; open_tree(2)).
func (p *Plan) closeForWriting() error {
	t, err := openTree(p.spec.Chroot)
	if err != nil {
		return err
	}
	defer t.close()
	copies, err := t.copyMounts(p.spec.Sandbox.Write)
	defer func() {
		for _, fd := range copies {
			unix.Close(fd)
		}
	}()
	if err != nil {
		return err
	}
	readOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &readOnly); err != nil {
		return fmt.Errorf("cannot make the mounts read-only: %w", err)
	}
	for path, fd := range copies {
		if err := t.mount(fd, path); err != nil {
			return err
		}
	}
	return nil
}

// copyMounts copies the mounts at and below paths. It returns what it has made
// in any case. What does not exist is left out: Landlock's rules, which name
// it too, say so.
func (t tree) copyMounts(paths []string) (map[string]int, error) {
	copies := map[string]int{}
	for _, path := range paths {
		at, err := t.open(path, unix.O_PATH)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return copies, err
		}
		fd, err := unix.OpenTree(at, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
		unix.Close(at)
		if err != nil {
			return copies, fmt.Errorf("cannot copy the mount of %s: %w", path, err)
		}
		copies[path] = fd
	}
	return copies, nil
}

// mount puts the detached mount fd on path.
func (t tree) mount(fd int, path string) error {
	at, err := t.open(path, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if err := unix.MoveMount(fd, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot make %s writable: %w", path, err)
	}
	return nil
}
