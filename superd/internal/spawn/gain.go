package spawn

import (
	"encoding/binary"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tellLost tells, for a check, of what the program's file is to give it and
// no_new_privs keeps from it: it would start, and fail in its own way. Many a
// program can do without the capabilities of its file, so that these are a note.
// Nothing is lost of what the service has anyway.
func (p *Plan) tellLost() {
	if !p.spec.Check || !p.spec.Sandbox.NoNewPrivs || p.spec.Image != nil {
		return
	}
	t, err := openTree(p.spec.Chroot)
	if err != nil {
		return // that has been told
	}
	defer t.close()
	fd, err := t.open(p.spec.Path, unix.O_PATH)
	if err != nil {
		return // check says so
	}
	defer unix.Close(fd)
	if p.losesUser(fd) {
		p.faults = append(p.faults, Fault{"run", "the program " + p.spec.Path + " is set-user-ID or set-group-ID, which no_new_privs makes ineffective",
			"name the user that it needs with user, or write sandbox: {no_new_privs: false, system_calls: all}"})
	}
	if lost := namesOf(p.losesOfFile(fd)); len(lost) > 0 {
		p.walls.notes = append(p.walls.notes, Fault{"run", "the program " + p.spec.Path + " has the file capabilities " + strings.Join(lost, ", ") + ", which no_new_privs makes ineffective",
			"write sandbox: {capabilities: [" + strings.Join(lost, ", ") + "]}, or {no_new_privs: false, system_calls: all}"})
	}
}

// losesUser tells whether a file would run as another user or group.
func (p *Plan) losesUser(fd int) bool {
	var s unix.Stat_t
	if unix.Fstat(fd, &s) != nil || s.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	uid, gid := uint32(unix.Geteuid()), uint32(unix.Getegid())
	if id := p.spec.Identity; id != nil {
		uid, gid = id.UID, id.GID
	}
	return s.Mode&unix.S_ISUID != 0 && s.Uid != uid || s.Mode&unix.S_ISGID != 0 && s.Gid != gid
}

// losesOfFile is the capabilities that a file would give and the service does
// not have.
func (p *Plan) losesOfFile(fd int) uint64 {
	if !p.spec.losesCapabilities() {
		return 0
	}
	data := make([]byte, 32)
	n, err := unix.Getxattr("/proc/thread-self/fd/"+strconv.Itoa(fd), "security.capability", data)
	if err != nil {
		return 0
	}
	return permitted(data[:n]) &^ p.capabilitySet()
}

// permitted is the permitted set of a file's attribute, struct vfs_cap_data of
// linux/capability.h: a word for revision and flags, and then for each 32
// capabilities those that are permitted and those that are inheritable.
func permitted(data []byte) (set uint64) {
	for i := 0; i < 2 && len(data) >= 12+8*i; i++ {
		set |= uint64(binary.LittleEndian.Uint32(data[4+8*i:])) << (32 * i)
	}
	return set
}

// namesOf are the names of a set of capabilities, in the order of their numbers.
func namesOf(set uint64) (names []string) {
	for number, name := range capabilityNames {
		if set&(1<<number) != 0 {
			names = append(names, name)
		}
	}
	return names
}
