package config

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// section is a mapping whose keys are in the table, with the mappings inside
// it: the value of timeout.idle is found under that name.
type section struct {
	d       *decoder
	pattern string // its path in the table: services.*
	self    value
	values  map[string]value
}

// section checks a mapping's keys. It is empty when v is none.
func (d *decoder) section(v value, pattern string) section {
	s := section{d, pattern, v, map[string]value{}}
	s.read(v, "")
	return s
}

// read takes up the keys of the mapping v, which is the key prefix of s.
func (s section) read(v value, prefix string) {
	for _, e := range s.d.entries(v) {
		name := join(prefix, e.name)
		key := index.byPath[join(s.pattern, name)]
		switch {
		case key == nil || e.name == "" || strings.ContainsAny(e.name, ".*"):
			s.d.unknown(e, join(s.pattern, prefix))
		case key.Common == Own && s.common():
			s.d.report(e.at, e.path, "belongs to one service and has no default", "write it at the services")
		default:
			s.add(name, s.d.value(e.node, e.path, key))
		}
	}
}

func (s section) add(name string, v value) {
	s.values[name] = v
	if v.key.Kind == Mapping {
		s.read(v, name)
	}
}

// written tells a key that is in the file from one with its default.
func (s section) written(name string) bool {
	_, is := s.values[name]
	return is
}

// get returns the written value of a key, or else its default, or else one
// whose node is nil.
func (s section) get(name string) value {
	if v, is := s.values[name]; is {
		return v
	}
	path := join(s.pattern, name)
	return value{node: index.defaults[path], at: s.self.at, path: join(s.self.path, name), key: index.byPath[path]}
}

// entry is one key of a mapping, with the place of the key.
type entry struct {
	name string
	path string
	at   Position
	node *yaml.Node
}

// entries returns a mapping's entries, without those whose key is unusable.
func (d *decoder) entries(v value) []entry {
	if v.node.Kind != yaml.MappingNode {
		d.wrong(v, "")
		return nil
	}
	var entries []entry
	first := map[string]int{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		e, ok := d.entry(v, v.node.Content[i], v.node.Content[i+1])
		line, repeated := first[e.name]
		switch {
		case !ok:
		case repeated:
			d.report(e.at, e.path, fmt.Sprintf("repeated, already on line %d", line), "")
		default:
			first[e.name] = e.at.Line
			entries = append(entries, e)
		}
	}
	return entries
}

func (d *decoder) entry(v value, key, content *yaml.Node) (entry, bool) {
	k := value{node: followed(key), at: d.at(key), path: v.path}
	switch {
	case k.node.Kind != yaml.ScalarNode:
		d.bad(k, "a key must be a word, not "+describe(k.node), "")
	case k.node.ShortTag() == "!!merge":
		d.bad(k, "<< is not accepted", "write the keys out")
	default:
		name := k.node.Value
		return entry{name, join(v.path, segment(name)), k.at, content}, true
	}
	return entry{}, false
}

// fewKeys is how many keys a message may list.
const fewKeys = 16

// unknown reports a key that is not in the table, and what may be meant.
func (d *decoder) unknown(e entry, pattern string) {
	accepted := index.children[pattern]
	hint := ""
	if near := nearest(e.name, accepted); near != "" {
		hint = "did you mean " + near + "?"
	} else if other := index.elsewhere(pattern, e.name); other != "" {
		hint = "did you mean " + other + "?"
	} else if len(accepted) <= fewKeys {
		hint = "accepted: " + strings.Join(accepted, ", ")
	} else {
		hint = "superd.yaml(5) lists them"
	}
	d.report(e.at, e.path, "unknown key", hint)
}
