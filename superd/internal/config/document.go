package config

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Bounds of a file that no sensible one comes near. They are there because a
// few hundred bytes of nested aliases can stand for billions of values.
const (
	deepest      = 64      // mappings and lists inside one another
	mostExpanded = 100_000 // values that aliases add to all files
)

var byteOrderMark = []byte("\ufeff")

// document returns the one mapping that a file holds. When it is nil, the
// problems say why, or an included file holds nothing.
func (d *decoder) document(data []byte) *yaml.Node {
	data = bytes.TrimPrefix(data, byteOrderMark)
	if !d.readable(data) {
		return nil
	}
	root := d.parse(data)
	if root == nil || !d.bounded(root) {
		return nil
	}
	return root
}

// readable checks what can be said about a file without knowing YAML.
func (d *decoder) readable(data []byte) bool {
	switch {
	case len(data) > largestFile:
		d.wholeFile("the file is larger than 8 MiB", "")
	case len(data) == 0:
		d.nothing("the file is empty")
	default:
		return d.legible(data) && d.withoutDirective(data)
	}
	return false
}

// legible refuses binary content, at its first bad byte.
func (d *decoder) legible(data []byte) bool {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			d.fileProblem(d.position(data, i), "the file is not UTF-8", "")
		case r == 0:
			d.fileProblem(d.position(data, i), "the file holds a NUL byte", "is it a text file?")
		case control(r) || r == '\r' && !bytes.HasPrefix(data[i:], []byte("\r\n")):
			d.fileProblem(d.position(data, i), "the file holds a control character", `write it as an escape in double quotes, such as "\e"`)
		default:
			i += size
			continue
		}
		return false
	}
	return true
}

// control tells the characters that YAML forbids, and those that are the end
// of a line to YAML but to no editor.
func control(r rune) bool {
	switch r {
	case '\t', '\n', '\r':
		return false
	case 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF:
		return true
	}
	return r < ' ' || 0x7F <= r && r < 0xA0
}

// withoutDirective refuses a line that begins with %: nobody needs one, and
// the parser's work for them grows with their square.
func (d *decoder) withoutDirective(data []byte) bool {
	i := bytes.Index(append([]byte("\n"), data...), []byte("\n%"))
	if i >= 0 {
		d.fileProblem(d.position(data, i), "YAML directives are not accepted", "leave the line out, or indent it")
	}
	return i < 0
}

// parse returns the content of the only document.
func (d *decoder) parse(data []byte) *yaml.Node {
	var first, second yaml.Node
	stream := yaml.NewDecoder(bytes.NewReader(data))
	err := stream.Decode(&first)
	if errors.Is(err, io.EOF) {
		d.nothing("the file holds only comments")
		return nil
	}
	if err == nil {
		err = stream.Decode(&second)
	}
	switch {
	case err == nil:
		d.fileProblem(d.at(&second), "a second document begins here", "a file holds one")
		return nil
	case !errors.Is(err, io.EOF):
		d.syntax(data, err)
		return nil
	}
	return d.topMapping(first.Content[0])
}

func (d *decoder) topMapping(root *yaml.Node) *yaml.Node {
	switch {
	case root.Kind == yaml.MappingNode:
		return root
	case isNull(root):
		d.nothing("the file is empty")
	default:
		d.fileProblem(d.at(root), "the file must be a mapping, not "+describe(root), "")
	}
	return nil
}

// nothing is wrong with an included file that has no services yet.
func (d *decoder) nothing(what string) {
	if !d.within {
		d.wholeFile(what, "name at least one service")
	}
}

// bounded refuses trees that are more than they look, so that whoever walks
// them need not care. It stops at the first such thing.
func (d *decoder) bounded(root *yaml.Node) bool {
	w := weigher{sizes: map[*yaml.Node]int{}, expanded: d.expanded}
	w.weigh(root, 0)
	d.expanded = w.expanded
	if w.culprit != nil {
		d.fileProblem(d.at(w.culprit), w.what, w.hint)
	}
	return w.culprit == nil
}

// weigher goes once over every node in the order of the file. A node's size is
// known when it is complete, which an alias to it comes after.
type weigher struct {
	sizes      map[*yaml.Node]int // with aliases expanded
	expanded   int                // what aliases have added so far, in files before this one too
	culprit    *yaml.Node
	what, hint string
}

func (w *weigher) weigh(n *yaml.Node, depth int) int {
	size := 1
	switch {
	case w.culprit != nil:
	case depth > deepest:
		w.refuse(n, "nested more than 64 deep", "")
	case n.Style&yaml.TaggedStyle != 0:
		w.refuse(n, "tags such as "+quote(n.Tag)+" are not accepted", "quote a value to make it a text")
	case n.Kind == yaml.AliasNode:
		size = w.alias(n)
	}
	for _, child := range n.Content {
		if w.culprit != nil {
			break
		}
		size += w.weigh(child, depth+1)
	}
	w.sizes[n] = size
	return size
}

func (w *weigher) alias(n *yaml.Node) int {
	size, complete := w.sizes[n.Alias]
	w.expanded += size
	switch {
	case !complete:
		w.refuse(n, "the alias *"+segment(n.Value)+" is inside what it stands for", "")
	case w.expanded > mostExpanded:
		w.refuse(n, "aliases stand for more than 100000 values", "write the values out")
	}
	return size
}

func (w *weigher) refuse(n *yaml.Node, what, hint string) {
	w.culprit, w.what, w.hint = n, what, hint
}
