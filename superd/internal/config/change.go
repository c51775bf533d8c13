package config

import (
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// written is what the file says of a service, or of all but those, by the path of
// each key: as it is written where that is one value, else in the form of a list.
type written map[string]string

// settings is what is written beside services.
func settings(root *yaml.Node) written {
	w := written{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if followed(root.Content[i]).Value != "services" {
			writtenIn(&yaml.Node{Kind: yaml.MappingNode, Content: root.Content[i : i+2]}, "", w)
		}
	}
	return w
}

// writtenIn adds the values of a mapping to w; the paths begin with prefix.
func writtenIn(n *yaml.Node, prefix string, w written) written {
	for i := 0; i+1 < len(n.Content); i += 2 {
		path := join(prefix, segment(followed(n.Content[i]).Value))
		content := followed(n.Content[i+1])
		if content.Kind == yaml.MappingNode {
			writtenIn(content, path, w)
		} else {
			w[path] = flat(content)
		}
	}
	return w
}

// flat is a value on one line, whatever line it was written on.
func flat(n *yaml.Node) string {
	n = followed(n)
	if n.Kind == yaml.ScalarNode {
		return n.Value
	}
	items := make([]string, 0, len(n.Content))
	for i, content := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 {
			items[i/2] += ": " + flat(content)
			continue
		}
		items = append(items, flat(content))
	}
	if n.Kind == yaml.MappingNode {
		return "{" + strings.Join(items, ", ") + "}"
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// longestValue is how much of a value a change shows.
const longestValue = 60

// Changes says what the file says otherwise of a service than it did in old:
// "max: 10 -> 20", by the paths of the keys. The values of variables, which may
// be secrets, are not shown.
func (s *Service) Changes(old *Service) []string { return s.written.changes(old.written) }

// Changes says what the file says otherwise than old beside services, in the
// same way: "log.level: info -> debug".
func (c *Config) Changes(old *Config) []string { return c.written.changes(old.written) }

func (w written) changes(old written) (list []string) {
	both := maps.Clone(w)
	maps.Copy(both, old)
	for _, path := range slices.Sorted(maps.Keys(both)) {
		is, now := w[path]
		was, before := old[path]
		switch {
		case is == was && now == before:
		case strings.HasPrefix(strings.TrimPrefix(path, "defaults."), "env."):
			list = append(list, path)
		default:
			list = append(list, path+": "+shown(was, before)+" -> "+shown(is, now))
		}
	}
	return list
}

func shown(value string, there bool) string {
	switch {
	case !there:
		return "nothing"
	case len(value) > longestValue || value == "":
		return quote(value)
	}
	return value
}
