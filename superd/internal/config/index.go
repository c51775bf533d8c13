package config

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// index is the table arranged for the decoder; it never changes.
var index = newIndex(table)

type keyIndex struct {
	byPath   map[string]*Key
	children map[string][]string   // names of the keys right below a path
	defaults map[string]*yaml.Node // what a key that was not written says
}

func newIndex(keys []Key) keyIndex {
	x := keyIndex{map[string]*Key{}, map[string][]string{}, map[string]*yaml.Node{}}
	for i := range keys {
		k := &keys[i]
		x.byPath[k.Path] = k
		if parent, name := cutLast(k.Path); name != "*" {
			x.children[parent] = append(x.children[parent], name)
		}
		x.defaults[k.Path] = parseDefault(k.Default)
	}
	return x
}

// parseDefault reads a default as the file would be read, so that a default
// and the same words in the file cannot mean different things.
func parseDefault(text string) *yaml.Node {
	var document yaml.Node
	if text == "" || yaml.Unmarshal([]byte(text), &document) != nil {
		return nil
	}
	return document.Content[0]
}

// elsewhere finds the least deep key of that name inside the pattern, as
// a user would write it: the pattern's own part left out, NAME for *.
func (x keyIndex) elsewhere(pattern, name string) string {
	found := ""
	for _, k := range table {
		inside := strings.HasPrefix(k.Path, pattern) && strings.HasSuffix(k.Path, "."+name)
		if inside && name != "*" && (found == "" || depth(k.Path) < depth(found)) {
			found = k.Path
		}
	}
	return strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(found, pattern), "."), "*", "NAME")
}

func depth(path string) int { return strings.Count(path, ".") }

func cutLast(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

func join(path, name string) string {
	if path == "" || name == "" {
		return path + name
	}
	return path + "." + name
}
