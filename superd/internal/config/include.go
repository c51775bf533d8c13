package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"gopkg.in/yaml.v3"
)

// mostIncluded bounds how many files a file can include, and how many names a
// pattern can stand for on its way to them (superd.yaml(5)).
const mostIncluded = 1000

// Included is a file that another one includes, or the reason why there is none.
type Included struct {
	Item  int    // of include, that names it; from 0
	Path  string // "" where there is a Fault
	Text  []byte
	Fault string // why nothing was read; "" where it was
	Hint  string // what to do about that
}

// patterns reads include; "" stands for an item that is none.
func (s section) patterns() []string {
	items := s.items("include", "leave it out")
	patterns := make([]string, len(items))
	for i, item := range items {
		text, ok := s.d.item(item)
		if err := checkPattern(text); ok && err != nil {
			s.d.fault(item, err)
		} else if ok {
			patterns[i] = text
		}
	}
	return patterns
}

func checkPattern(text string) error {
	_, err := path.Match(text, "")
	switch {
	case text == "":
		return mistakef("", "is empty")
	case err != nil:
		return mistakef(`close the [, or write \[`, "%s is not a pattern", quote(text))
	case strings.ContainsAny(text, "{}"):
		return mistakef("write a pattern for each, or [ and ]", "%s has braces, which no pattern knows", quote(text))
	}
	return nil
}

// A follower reads what a file includes.
type follower struct {
	sys  System
	dir  string // of the file
	left int    // bytes that may still be read; below 0 nothing is read any more
	seen map[string]bool
	list []Included
}

// follow reads what the patterns of f name, each file once, and f itself not again.
func (f *Files) follow(patterns []string, sys System) {
	r := follower{sys: sys, dir: path.Dir(f.Path), left: largestFile - len(f.Text), seen: map[string]bool{path.Clean(f.Path): true}}
	for i, pattern := range patterns {
		if pattern != "" && r.left >= 0 {
			r.pattern(i, pattern)
		}
	}
	f.Included, f.Followed = r.list, true
}

func (r *follower) pattern(item int, pattern string) {
	names, guessed, err := matches(r.sys, r.dir, pattern)
	if err != nil {
		r.fault(item, err)
		return
	}
	for _, name := range names {
		switch {
		case r.left < 0:
			return
		case r.seen[name]:
			continue
		case len(r.seen) > mostIncluded:
			r.left = -1
			r.fault(item, mistakef("", "more than %d files are included", mostIncluded))
			return
		}
		r.seen[name] = true
		r.read(item, name, guessed)
	}
}

// read takes up one file. What a pattern only guesses need not be there.
func (r *follower) read(item int, name string, guessed bool) {
	if strings.ContainsFunc(name, unicode.IsControl) {
		r.fault(item, mistakef("rename it", "the file %s has a control character in its name", quote(name)))
		return
	}
	text, err := r.sys.ReadFile(name, int64(r.left))
	switch {
	case guessed && absent(err):
	case errors.Is(err, errDirectory):
		r.fault(item, mistakef("write "+path.Join(name, "*.yaml"), "cannot read %s: %s", name, err))
	case err != nil:
		r.fault(item, mistakef("", "cannot read %s: %s", name, err))
	case len(text) > r.left:
		r.left = -1
		r.fault(item, mistakef("", "with %s the files are larger than 8 MiB together", name))
	default:
		r.left -= len(text)
		r.list = append(r.list, Included{Item: item, Path: name, Text: text})
	}
}

func (r *follower) fault(item int, err error) {
	m, _ := err.(mistake)
	r.list = append(r.list, Included{Item: item, Fault: err.Error(), Hint: m.hint})
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }

// wildcards are what makes a part of a pattern stand for several names.
const wildcards = `*?[\`

// matches are the paths that a pattern stands for, in the order of their bytes.
// A directory that the pattern writes out must be there. Of a path that is
// guessed, the last part is written out behind one that stands for several names.
func matches(sys System, dir, pattern string) (list []string, guessed bool, err error) {
	if strings.HasPrefix(pattern, "/") {
		dir = "/"
	}
	list = []string{dir}
	several := false
	for part := range strings.SplitSeq(pattern, "/") {
		if !strings.ContainsAny(part, wildcards) {
			for i := range list {
				list[i] = path.Join(list[i], part)
			}
			guessed = several
			continue
		}
		if list, err = below(sys, list, part, several); err != nil {
			return nil, false, err
		}
		several, guessed = true, false
	}
	slices.Sort(list)
	return list, guessed, nil
}

// below are the entries of some directories that a part of a pattern stands for.
func below(sys System, dirs []string, part string, guessed bool) (list []string, err error) {
	for _, dir := range dirs {
		names, err := sys.ReadDir(dir)
		switch {
		case guessed && absent(err):
			continue
		case errors.Is(err, fs.ErrNotExist):
			return nil, mistakef("create it: it may be empty", "cannot read %s: %s", dir, err)
		case err != nil:
			return nil, mistakef("", "cannot read %s: %s", dir, err)
		}
		for _, name := range names {
			if matched, _ := path.Match(part, name); matched && !passedOver(name) {
				list = append(list, path.Join(dir, name))
			}
		}
		if len(list) > mostIncluded {
			return nil, mistakef("", "%s stands for more than %d names", quote(part), mostIncluded)
		}
	}
	return list, nil
}

// passedOver tells the names that no pattern stands for: of hidden files, and of
// those that editors leave.
func passedOver(name string) bool { return name[0] == '.' || name[len(name)-1] == '~' }

// included reads the services of the files that f includes into all.
func (d *decoder) included(f *Files, include value, all *roll) {
	for _, in := range f.Included {
		if in.Fault != "" {
			item := include
			if in.Item < len(include.node.Content) {
				item = d.value(include.node.Content[in.Item], include.path+"["+strconv.Itoa(in.Item)+"]", include.key)
			}
			d.bad(item, in.Fault, in.Hint)
			continue
		}
		d.file, d.within = in.Path, true
		if root := d.document(in.Text); root != nil {
			d.includedServices(root, all)
		}
		d.file, d.within = f.Path, false
	}
}

// includedServices reads a file that holds services and nothing else.
func (d *decoder) includedServices(root *yaml.Node, all *roll) {
	for _, e := range d.entries(value{node: root, at: d.at(root), key: &Key{Kind: Mapping}}) {
		switch {
		case e.name == "services":
			d.enlist(value{node: followed(e.node), at: d.at(e.node), path: e.path, key: index.byPath[e.name]}, all)
		case slices.Contains(index.children[""], e.name):
			d.report(e.at, e.path, "belongs to the main file", "an included one holds services")
		default:
			d.report(e.at, e.path, "unknown key", cmpHint(didYouMean(nearest(e.name, []string{"services"})), "an included file holds services"))
		}
	}
}

// A roll is the services of all files.
type roll struct {
	services []*Service
	first    map[string]Position // of each name
}

// enlist reads a mapping of services.
func (d *decoder) enlist(v value, all *roll) {
	for _, e := range d.entries(v) {
		if first, is := all.first[e.name]; is {
			d.report(e.at, e.path, "repeated, already "+first.from(e.at), "")
			continue
		}
		all.first[e.name] = e.at
		all.services = append(all.services, d.service(e))
	}
}

// from is a place as one says it at another.
func (p Position) from(at Position) string {
	if p.File == at.File {
		return fmt.Sprintf("on line %d", p.Line)
	}
	return fmt.Sprintf("at %s:%d", p.File, p.Line)
}
