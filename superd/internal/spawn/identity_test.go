package spawn

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// databases are files of a test's own, and what getent would say.
func databases(t *testing.T, passwd, group string, getent map[string]string) Databases {
	dir := t.TempDir()
	d := Databases{
		Passwd: filepath.Join(dir, "passwd"),
		Group:  filepath.Join(dir, "group"),
		Getent: func(database, key string) (string, error) {
			if key == "down" {
				return "", errors.New("the directory does not answer")
			}
			return getent[database+" "+key], nil
		},
	}
	for path, content := range map[string]string{d.Passwd: passwd, d.Group: group} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestUserLookUp(t *testing.T) {
	d := databases(t,
		"root:x:0:0:root:/root:/bin/bash\n# a comment\nshort:line\ngit:x:200:200::/srv/git:/bin/sh\nbad:x:many:1::/:/bin/sh\n",
		"root:x:0:\ngit:x:200:\nadm:x:4:root,git\nwheel:x:10:git2\n",
		map[string]string{
			"passwd ldap":     "ldap:*:70000:70001:L:/home/ldap:/bin/zsh\n",
			"group 70001":     "people:*:70001:\n",
			"initgroups ldap": "ldap   70001 4 70005\n",
			"initgroups git":  "git  4 200\n",
		})
	for name, want := range map[string]*Identity{
		"root": {UID: 0, GID: 0, Groups: []uint32{0, 4}, Name: "root", Group: "root", Home: "/root", Shell: "/bin/bash"},
		"git":  {UID: 200, GID: 200, Groups: []uint32{4, 200}, Name: "git", Group: "git", Home: "/srv/git", Shell: "/bin/sh"},
		"200":  {UID: 200, GID: 200, Groups: []uint32{4, 200}, Name: "git", Group: "git", Home: "/srv/git", Shell: "/bin/sh"},
		"ldap": {UID: 70000, GID: 70001, Groups: []uint32{4, 70001, 70005}, Name: "ldap", Group: "people", Home: "/home/ldap", Shell: "/bin/zsh"},
		"4711": {UID: 4711, GID: 4711, Groups: []uint32{}},
	} {
		if got, err := d.User(name); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"alice":      "no such user: alice",
		"4294967295": "no such user: 4294967295", // (uid_t)-1: no change
		"-1":         "no such user: -1",
		"bad":        "the entry of user bad is malformed",
		"down":       "the directory does not answer",
	} {
		if _, err := d.User(name); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

func TestGroupLookUp(t *testing.T) {
	d := databases(t, "", "adm:x:4:\nodd:x:none:\n", map[string]string{"group people": "people:*:70001:a,b\n"})
	for name, want := range map[string]struct {
		gid   uint32
		known string
	}{"adm": {4, "adm"}, "4": {4, "adm"}, "people": {70001, "people"}, "99": {99, ""}} {
		if gid, known, err := d.GroupID(name); err != nil || gid != want.gid || known != want.known {
			t.Errorf("%s: got %d %q, %v", name, gid, known, err)
		}
	}
	for name, want := range map[string]string{"none": "no such group: none", "odd": "the entry of group odd is malformed"} {
		if _, _, err := d.GroupID(name); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

func TestMissingDatabasesAreEmpty(t *testing.T) {
	d := Databases{Passwd: "/none/passwd", Group: "/none/group", Getent: func(string, string) (string, error) { return "", nil }}
	if _, err := d.User("alice"); !errors.Is(err, ErrNoUser) {
		t.Errorf("got %v", err)
	}
}

func TestVariablesAreThoseThatAreKnown(t *testing.T) {
	id := Identity{Name: "git", Home: "/srv/git"}
	if got, want := id.Variables(), []string{"HOME=/srv/git", "USER=git", "LOGNAME=git"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (&Identity{UID: 12}).Variables(); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}
