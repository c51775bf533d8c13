package spawn

import (
	"fmt"
	"path/filepath"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// temporary are the directories that PrivateTmp replaces.
var temporary = []string{"/tmp", "/var/tmp"}

// tmpfsOptions bound what a program can keep there: memory by size, and the
// kernel's own, about a kilobyte per file, by nr_inodes (tmpfs(5)).
const (
	tmpfsOptions = "mode=1777,size=64M,nr_inodes=16k"
	tmpfsFlags   = unix.MS_NOSUID | unix.MS_NODEV
)

// temporaryDirectories finds them in the calling thread's mount namespace,
// below the program's root directory. What does not exist there, as in an
// empty root directory, is nothing that programs could share.
func (p *Plan) temporaryDirectories() (list []string, err error) {
	t, err := openTree(p.spec.Chroot)
	if err != nil {
		return nil, err
	}
	defer t.close()
	for _, name := range temporary {
		fd, err := t.open(name, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			continue
		}
		path, err := pathOf(fd)
		unix.Close(fd)
		if err != nil {
			return nil, fmt.Errorf("cannot find out where %s leads: %w", name, err)
		}
		if !slices.Contains(list, path) { // one may be a link to the other
			list = append(list, path)
		}
	}
	return list, nil
}

// tellHidden tells of what the file names and the program does not find, since
// it lies where each has an empty directory of its own. A program that is not
// there is like one that does not exist: an error of a check, and when superd
// runs the trouble of each connection.
func (p *Plan) tellHidden() {
	if p.walls.mounts == nil || len(p.walls.tmps) == 0 {
		return
	}
	t, err := openTree(p.spec.Chroot)
	if err != nil {
		return // that has been told
	}
	defer t.close()
	tell := func(key, what, path string, list *[]Fault) {
		if p.hides(t, path) {
			*list = append(*list, Fault{key, what + path + " does not exist in a /tmp of the program's own",
				"put it elsewhere, or write sandbox: {private_tmp: false}"})
		}
	}
	serious := &p.walls.notes
	if p.spec.Check {
		serious = (*[]Fault)(&p.faults)
	}
	tell("run", "the program ", p.spec.Path, serious)
	tell("dir", "the directory ", p.spec.Dir, serious)
	for _, o := range p.listed() {
		tell(o.key, "", o.path, &p.walls.notes)
	}
}

// hides tells whether path exists, and lies below one of the directories that
// PrivateTmp replaces, or is a name there of what lies elsewhere.
func (p *Plan) hides(t tree, path string) bool {
	fd, err := t.open(path, unix.O_PATH)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	real, err := pathOf(fd)
	below := func(path string, directories []string) bool {
		return slices.ContainsFunc(directories, func(d string) bool { return path != d && beneath(path, d) })
	}
	return err == nil && below(real, p.walls.tmps) || below(filepath.Clean(path), temporary)
}

// addPrivateTmp gives the child a copy of the service's mount namespace, and
// in it a new tmpfs as /tmp and /var/tmp. Nothing else refers to the copy, so
// that it, the tmpfs and the files in it end with the last process inside. A
// child that gets a cell finds all that in it.
func (p *Plan) addPrivateTmp() {
	list := p.walls.tmps
	if len(list) == 0 {
		return
	}
	begin := len(p.steps)
	p.add("copy the mount namespace", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
	first, tmpfs := p.string(list[0]), p.string("tmpfs")
	p.add("mount a tmpfs on "+list[0], unix.SYS_MOUNT, tmpfs, first, tmpfs, tmpfsFlags, p.string(tmpfsOptions))
	for _, other := range list[1:] {
		p.add("mount the tmpfs on "+other, unix.SYS_MOUNT, first, p.string(other), 0, unix.MS_BIND)
	}
	if p.needsTmpRule() {
		p.allowPrivateTmp(first)
	}
	for i := begin; i < len(p.steps); i++ {
		p.walls.furnishing = append(p.walls.furnishing, i)
	}
}

// needsTmpRule tells whether a program of p must be allowed its own /tmp.
func (p *Plan) needsTmpRule() bool { return p.walls.landlock != nil && p.walls.rules.fresh }

// allowPrivateTmp adds the new directory to the child's set of Landlock rules.
// A rule made at load cannot stand for it: rules are tied to an inode, of the
// file or of a directory above it; the directory that a mount covers is not
// asked, and the next above it is the root directory.
//
// The child does not know which number openat returns unless it is the lowest,
// so 0 is free for that moment.
func (p *Plan) allowPrivateTmp(path uintptr) {
	rule := &unix.LandlockPathBeneathAttr{Allowed_access: writing & p.walls.rules.attr.Handled_access_fs, Parent_fd: 0}
	p.keep = append(p.keep, rule)
	here := unix.AT_FDCWD
	p.add("free descriptor 0", unix.SYS_CLOSE, 0)
	p.add("open the new tmpfs", unix.SYS_OPENAT, uintptr(here), path, unix.O_PATH|unix.O_CLOEXEC)
	p.walls.landlock.use(p.add("allow the new tmpfs", unix.SYS_LANDLOCK_ADD_RULE, 0, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(rule)), 0), 0)
	p.restoreStdin()
}
