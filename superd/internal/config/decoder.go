package config

import (
	"bytes"
	"cmp"
	"net/netip"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// decoder reads one file, and then those that it includes. It goes on after a mistake, so that all are reported
// together; what it then returns for the mistaken value is never used.
type decoder struct {
	file     string // that is being read
	within   bool   // it is an included one
	sys      System
	hosts    map[string][]netip.Addr // answers to questions already asked
	where    map[string]Position     // of every value, by its path
	problems Problems
	warnings Problems
	expanded int // values that aliases have added so far

	common common                // what services have that do not say otherwise
	origin map[*yaml.Node]string // the file of what is used beyond it
	lent   map[string]bool       // keys that the service being read has from defaults

	ruleFiles                  map[string][]Rule // those already read
	ruleProblems, ruleWarnings Problems          // that were found in them

	own []Listener // what superd itself listens on, beside services
}

func newDecoder(file string, sys System) *decoder {
	return &decoder{file: file, sys: sys, hosts: map[string][]netip.Addr{}, where: map[string]Position{}, origin: map[*yaml.Node]string{},
		ruleFiles: map[string][]Rule{}}
}

// value is one value of the file, and the key that it belongs to.
type value struct {
	node *yaml.Node // what an alias stands for, not the alias
	at   Position   // where it is used
	path string
	key  *Key
}

// value follows the alias that a node may be. A position is that of its use,
// which is the place to mend; mappings and lists have their own inside.
func (d *decoder) value(n *yaml.Node, path string, key *Key) value {
	at := d.at(n)
	d.where[path] = at
	return value{node: followed(n), at: at, path: path, key: key}
}

func followed(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func (d *decoder) at(n *yaml.Node) Position {
	return Position{cmp.Or(d.origin[n], d.file), max(n.Line, 1), max(n.Column, 1)}
}

// position is the place of a byte of the file.
func (d *decoder) position(data []byte, offset int) Position {
	start := startOfLine(data, offset)
	return Position{d.file, 1 + bytes.Count(data[:start], []byte("\n")), 1 + utf8.RuneCount(data[start:offset])}
}

func (d *decoder) report(at Position, path, what, hint string) {
	d.problems = append(d.problems, Problem{at, path, what, hint})
}

func (d *decoder) fileProblem(at Position, what, hint string) { d.report(at, "", what, hint) }

func (d *decoder) wholeFile(what, hint string) {
	d.fileProblem(Position{d.file, 1, 1}, what, hint)
}

// bad reports what is wrong with a value.
func (d *decoder) bad(v value, what, hint string) { d.report(v.at, v.path, what, hint) }

// fault reports an error of those who read values without their places.
func (d *decoder) fault(v value, err error) {
	if err != nil {
		d.problems = append(d.problems, problemOf(v.at, v.path, err))
	}
}

// warn is for what is allowed but deserves a word.
func (d *decoder) warn(v value, err error) {
	d.warnings = append(d.warnings, problemOf(v.at, v.path, err))
}

// wrong reports a value that is not of the form its key accepts.
func (d *decoder) wrong(v value, hint string) {
	if isNull(v.node) {
		d.bad(v, "has no value, must be "+v.key.Accepts(), hint)
		return
	}
	d.bad(v, "must be "+v.key.Accepts()+", not "+describe(v.node), hint)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// hasText tells a scalar that says something.
func hasText(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && !isNull(n) }

func isPlain(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Style == 0 }

// describe names a node in a message.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	}
	return quote(n.Value)
}
