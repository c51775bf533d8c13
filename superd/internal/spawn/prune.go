package spawn

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errMissed: with mounts left out, a path leads elsewhere.
var errMissed = errors.New("a mount that was left out is needed")

// prune unmounts, in the calling thread's namespace, what leads to nothing
// that the confined program may open; so it goes without /proc. Where a
// symbolic link leads through such a mount, the paths are no longer the same,
// and errMissed says so.
func (p *Plan) prune() error {
	paths := p.paths()
	before, err := p.places(paths)
	if err != nil {
		return err
	}
	ways, err := p.ways(paths)
	if err != nil {
		return err
	}
	mounts, err := mountPoints()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if !slices.ContainsFunc(ways, func(w way) bool { return w.needs(m) }) {
			unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // EINVAL: it went with the one above it
		}
	}
	after, err := p.places(paths)
	if err != nil {
		return err
	}
	if !maps.Equal(before, after) {
		return errMissed
	}
	return nil
}

// paths are those that p's confined program uses, and whether with all below.
func (p *Plan) paths() map[string]bool {
	list := map[string]bool{"/": false, p.spec.Dir: false}
	for _, path := range temporary {
		list[path] = false
	}
	for _, o := range p.openings() {
		list[o.path] = true
	}
	return list
}

// places is where paths lead, those that lead anywhere.
func (p *Plan) places(paths map[string]bool) (map[string]place, error) {
	t, err := openTree(p.spec.Chroot)
	if err != nil {
		return nil, err
	}
	defer t.close()
	found := map[string]place{}
	for path := range paths {
		if fd, err := t.open(path, unix.O_PATH); err == nil {
			found[path], _, err = placeOf(fd)
			unix.Close(fd)
			if err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// A way is a path in superd's own terms, and whether all below it is used too.
type way struct {
	path  string
	whole bool
}

// needs tells whether the program on its way w sees what is mounted at point.
func (w way) needs(point string) bool {
	return beneath(w.path, point) || w.whole && beneath(point, w.path)
}

// ways are those that paths go as they are written, and to where they lead.
func (p *Plan) ways(paths map[string]bool) (list []way, err error) {
	t, err := openTree(p.spec.Chroot)
	if err != nil {
		return nil, err
	}
	defer t.close()
	for path, whole := range paths {
		list = append(list, way{filepath.Join("/", p.spec.Chroot, path), false})
		fd, err := t.open(path, unix.O_PATH)
		if err != nil {
			continue
		}
		real, err := pathOf(fd)
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
		list = append(list, way{real, whole})
	}
	return list, nil
}

// pathOf is the path of an open file in the calling thread's mount namespace.
func pathOf(fd int) (string, error) {
	return os.Readlink("/proc/thread-self/fd/" + strconv.Itoa(fd))
}

// mountPoints lists those of the calling thread's namespace, outer ones first
// (proc_pid_mountinfo(5)).
func mountPoints() (list []string, err error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot list the mounts: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			list = append(list, unescape(fields[4]))
		}
	}
	slices.Sort(list)
	return list, nil
}

// unescape undoes the octal escapes \040, \011, \012 and \134 of mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace
