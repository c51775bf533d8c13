package config

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Control says where superd can be asked.
type Control struct {
	Path    string // of the administrative socket; where PathSet is false, root's default
	PathSet bool   // the file names it
	Mode    int    // 0 to 0777
	Group   string // an account name or number; "" for superd's own
	At      Position
}

// LoadControl reads what the file at path says about the administrative
// socket, and nothing else: superd can be asked also while somebody works on
// its file. The errors are as those of Load.
func LoadControl(path string) (Control, error) {
	data, err := read(path)
	if err != nil {
		return Control{}, err
	}
	d := newDecoder(path, nil)
	root := d.document(data)
	if root == nil {
		return Control{}, d.problems.err()
	}
	c := d.top(root).control()
	d.problems = slices.DeleteFunc(d.problems, func(p Problem) bool { return !strings.HasPrefix(p.Path, "control") })
	return c, d.problems.err()
}

// top is the whole file as a section.
func (d *decoder) top(root *yaml.Node) section {
	return d.section(value{node: root, at: d.at(root), key: &Key{Kind: Mapping}}, "")
}

// longestSocketPath is what fits into a socket's address with its closing NUL
// (sockaddr_un, unix(7)).
const longestSocketPath = 107

func (s section) control() Control {
	path, mode := s.get("control.path"), s.get("control.mode")
	c := Control{Path: s.filePath("control.path"), PathSet: s.written("control.path"), Mode: s.mode("control.mode"),
		Group: s.account("control.group"), At: path.at}
	if c.PathSet && strings.HasPrefix(c.Path, "/") {
		s.d.keep(path, Listener{Family: Unix, Name: c.Path})
	}
	if len(c.Path) > longestSocketPath {
		s.d.bad(path, fmt.Sprintf("has %d bytes, at most %d fit into a socket's address", len(c.Path), longestSocketPath), "")
	}
	if c.Mode&0o002 != 0 {
		s.d.warnings = append(s.d.warnings, Problem{mode.at, mode.path, "lets every user of this machine ask superd who is connected", ""})
	}
	return c
}
