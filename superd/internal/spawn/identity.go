package spawn

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// An Identity is the user that a program runs as, in numbers.
type Identity struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups; none is an empty list, never superd's own

	Name, Group string // as known to the system; "" where it knows only the number
	Home, Shell string // "" where there is no entry in the user database
}

// UserName is the name, or the number where there is no name.
func (id *Identity) UserName() string { return nameOr(id.Name, id.UID) }

// GroupName is the name, or the number where there is no name.
func (id *Identity) GroupName() string { return nameOr(id.Group, id.GID) }

func nameOr(name string, number uint32) string {
	if name != "" {
		return name
	}
	return strconv.FormatUint(uint64(number), 10)
}

// Variables is what a program's environment says of its user: HOME USER
// LOGNAME SHELL, those that are known.
func (id *Identity) Variables() (list []string) {
	for _, v := range []struct{ name, value string }{
		{"HOME", id.Home}, {"USER", id.Name}, {"LOGNAME", id.Name}, {"SHELL", id.Shell},
	} {
		if v.value != "" {
			list = append(list, v.name+"="+v.value)
		}
	}
	return list
}

// Databases are where names of users and groups come from: the files first,
// then getent(1), which asks what else the machine is configured for (LDAP),
// so that a static binary knows the same users as the rest of the system.
type Databases struct {
	Passwd, Group string                                     // paths
	Getent        func(database, key string) (string, error) // one line, or "" where there is no entry
}

// System is the machine's own databases; e runs getent.
func (e *Engine) System() Databases {
	return Databases{Passwd: "/etc/passwd", Group: "/etc/group", Getent: e.getent}
}

// Errors of a look-up; the caller knows which key of the file they belong to.
var (
	ErrNoUser  = errors.New("no such user")
	ErrNoGroup = errors.New("no such group")
)

// User finds a user by name or number. A number without an entry is allowed:
// it has no name, no home and the group of the same number.
func (d Databases) User(name string) (*Identity, error) {
	line, err := d.entry(d.Passwd, "passwd", name, 7)
	if err != nil {
		return nil, err
	}
	number, numeric := parseID(name)
	if line == nil {
		if !numeric {
			return nil, fmt.Errorf("%w: %s", ErrNoUser, name)
		}
		return &Identity{UID: number, GID: number, Groups: []uint32{}}, nil
	}
	return d.identity(line)
}

// identity reads a passwd(5) entry, and the groups that list its user.
func (d Databases) identity(line []string) (*Identity, error) {
	uid, ok := parseID(line[2])
	gid, ok2 := parseID(line[3])
	if !ok || !ok2 {
		return nil, fmt.Errorf("the entry of user %s is malformed", line[0])
	}
	id := &Identity{UID: uid, GID: gid, Name: line[0], Home: line[5], Shell: line[6]}
	var err error
	if id.Group, err = d.groupName(gid); err != nil {
		return nil, err
	}
	id.Groups, err = d.groupsOf(id.Name, gid)
	return id, err
}

// GroupID finds a group by name or number.
func (d Databases) GroupID(name string) (gid uint32, known string, err error) {
	line, err := d.entry(d.Group, "group", name, 4)
	if err != nil {
		return 0, "", err
	}
	number, numeric := parseID(name)
	switch {
	case line != nil:
		number, numeric = parseID(line[2])
		known = line[0]
		if !numeric {
			return 0, "", fmt.Errorf("the entry of group %s is malformed", name)
		}
	case !numeric:
		return 0, "", fmt.Errorf("%w: %s", ErrNoGroup, name)
	}
	return number, known, nil
}

func (d Databases) groupName(gid uint32) (string, error) {
	_, name, err := d.GroupID(strconv.FormatUint(uint64(gid), 10))
	return name, err
}

// groupsOf lists gid and the groups that name user as a member, as
// initgroups(3) does.
func (d Databases) groupsOf(user string, gid uint32) ([]uint32, error) {
	list := []uint32{gid}
	err := eachEntry(d.Group, 4, func(line []string) bool {
		if id, ok := parseID(line[2]); ok && slices.Contains(strings.Split(line[3], ","), user) {
			list = append(list, id)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	line, err := d.Getent("initgroups", user)
	if err != nil {
		return nil, err
	}
	for _, word := range strings.Fields(line) {
		if id, ok := parseID(word); ok && word != user {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// entry finds the line of a database whose first or third field is key; nil
// where there is none.
func (d Databases) entry(path, database, key string, fields int) (found []string, err error) {
	_, numeric := parseID(key)
	err = eachEntry(path, fields, func(line []string) bool {
		if line[0] == key || numeric && line[2] == key {
			found = line
		}
		return found == nil
	})
	if err != nil || found != nil {
		return found, err
	}
	text, err := d.Getent(database, key)
	if line := strings.Split(strings.TrimSpace(text), ":"); err == nil && len(line) >= fields {
		return line, nil
	}
	return nil, err
}

// eachEntry calls visit for the lines of a passwd(5) or group(5) file that
// have enough fields, until it returns false.
func eachEntry(path string, fields int, visit func([]string) bool) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20) // a group may list many members
	for lines.Scan() {
		if line := strings.Split(lines.Text(), ":"); len(line) >= fields && !visit(line) {
			return nil
		}
	}
	return lines.Err()
}

// parseID reads a user or group number. The highest one means "no change" to
// the kernel (setresuid(2)) and is none.
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && uint32(n) != ^uint32(0)
}
