package migrate

import (
	"path"
	"slices"
	"strings"
)

// The files of xinetd(8): blocks of attributes, with those of defaults under
// those of each service.

// A block is a service, or the defaults.
type block struct {
	name       string // "" of the defaults
	at         Place
	attributes []attribute
}

// An attribute is one line of a block. There are no quotes: a value ends at a
// blank.
type attribute struct {
	name, operator string
	values         []string
	at             Place
}

// Bounds of what files include, against those that include themselves.
const (
	mostIncluded = 1000
	deepest      = 10
)

// xinetdFiles reads files, and those that they include.
type xinetdFiles struct {
	im       *importer
	defaults block
	services []block
	included int // files
	bytes    int // of these
}

func (im *importer) xinetd(files []file) {
	x := &xinetdFiles{im: im}
	for _, f := range files {
		x.read(f, 0)
	}
	if len(im.mistakes) > 0 {
		return
	}
	defaults := x.defaults.over(nil)
	for _, b := range x.services {
		x.service(b, defaults, choice(defaults))
	}
}

// read takes a file apart. The brace of a block stands on a line of its own, or
// behind the name.
func (x *xinetdFiles) read(f file, depth int) {
	var open *block // whose braces are open, or are about to
	braced := false
	for i, line := range f.lines {
		at := Place{f.name, i + 1}
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || strings.HasPrefix(words[0], "#"):
		case open != nil && !braced && words[0] == "{" && len(words) == 1:
			braced = true
		case open != nil && !braced:
			x.im.mistake(at, "expected { after the name of a service, not %s", quote(line))
			return
		case open != nil && words[0] == "}":
			x.close(open)
			open, braced = nil, false
		case open != nil:
			x.attribute(open, at, line)
		case words[0] == "service" && len(words) >= 2 && len(words) <= 3 || words[0] == "defaults" && len(words) <= 2:
			open = &block{at: at}
			rest := words[1:]
			if words[0] == "service" {
				open.name, rest = words[1], words[2:]
			}
			if braced = len(rest) > 0 && rest[0] == "{"; len(rest) > 0 && !braced {
				x.im.mistake(at, "expected { and not %s", quote(rest[0]))
				return
			}
		case (words[0] == "include" || words[0] == "includedir") && len(words) == 2:
			x.include(at, words[0], words[1], depth)
		default:
			x.im.mistake(at, "expected service, defaults, include or includedir, not %s", quote(strings.TrimSpace(line)))
			return
		}
	}
	if open != nil {
		x.im.mistake(open.at, "the block does not end")
	}
}

func (x *xinetdFiles) close(b *block) {
	if b.name != "" {
		x.services = append(x.services, *b)
		return
	}
	x.defaults.at = b.at
	x.defaults.attributes = append(x.defaults.attributes, b.attributes...)
}

// attribute reads NAME OPERATOR VALUE..., where the operator needs no blanks
// around it.
func (x *xinetdFiles) attribute(b *block, at Place, line string) {
	i := strings.IndexByte(line, '=')
	if i < 0 {
		x.im.mistake(at, "expected attribute = value, not %s", quote(strings.TrimSpace(line)))
		return
	}
	name, operator := strings.TrimSpace(line[:i]), "="
	if last := len(name) - 1; last >= 0 && (name[last] == '+' || name[last] == '-') {
		name, operator = strings.TrimSpace(name[:last]), name[last:]+"="
	}
	if name == "" || strings.ContainsAny(name, " \t") {
		x.im.mistake(at, "expected attribute = value, not %s", quote(strings.TrimSpace(line)))
		return
	}
	if len(b.attributes) == most {
		x.im.mistake(at, "the block has more than %d lines", most)
	}
	b.attributes = append(b.attributes, attribute{strings.ToLower(name), operator, strings.Fields(line[i+1:]), at})
}

// include reads a file, or those of a directory whose names have no dot and do
// not end in ~, in the order of the C locale.
func (x *xinetdFiles) include(at Place, word, name string, depth int) {
	names := []string{name}
	if word == "includedir" {
		found, err := x.im.machine.ReadDir(name)
		if err != nil {
			x.im.mistake(at, "%v", err)
			return
		}
		names = nil
		for _, n := range found {
			if !strings.Contains(n, ".") && !strings.HasSuffix(n, "~") {
				names = append(names, path.Join(name, n))
			}
		}
	}
	for _, n := range names {
		if x.included++; x.included > mostIncluded || depth >= deepest {
			x.im.mistake(at, "too many files include one another")
			return
		}
		data, err := x.im.machine.Include(n)
		if err != nil {
			x.im.mistake(at, "%v", err)
			return
		}
		if x.bytes += len(data); x.bytes > Largest {
			x.im.mistake(at, "the included files are larger than 8 MiB together")
			return
		}
		x.read(x.im.file(n, data), depth+1)
	}
}

// settings are the attributes of a service, after all operators.
type settings map[string]attribute

// over applies the attributes of a block. Where += or -= comes first, it is
// about what the defaults have.
func (b block) over(defaults settings) settings {
	all := settings{}
	for _, a := range b.attributes {
		before, is := all[a.name]
		if !is {
			before = defaults[a.name]
		}
		switch a.operator {
		case "+=":
			a.values = distinct(slices.Concat(before.values, a.values))
		case "-=":
			gone := map[string]bool{}
			for _, v := range a.values {
				gone[v] = true
			}
			a.values = slices.DeleteFunc(slices.Clone(before.values), func(v string) bool { return gone[v] })
		}
		all[a.name] = a
	}
	for name, a := range defaults {
		if _, is := all[name]; !is {
			all[name] = a
		}
	}
	return all
}

// word is the first value of an attribute, or "".
func (s settings) word(name string) string {
	if a := s[name]; len(a.values) > 0 {
		return a.values[0]
	}
	return ""
}

// holds tells whether a value of an attribute is the word, in capitals or not.
func (s settings) holds(name, word string) bool {
	return slices.ContainsFunc(s[name].values, func(v string) bool { return strings.EqualFold(v, word) })
}

// choice tells which services the defaults switch on and off, by their ids.
func choice(d settings) func(id string) bool {
	enabled, chosen := d["enabled"]
	disabled := d["disabled"]
	return func(id string) bool {
		return (!chosen || slices.Contains(enabled.values, id)) && !slices.Contains(disabled.values, id)
	}
}
