package config

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// written is what the file says of a service, or of all but those, by the path of
// each key.
type written map[string]setting

// A setting is as it is written where it is a single one, else in the form of a
// list, with the items of that.
type setting struct {
	text  string
	items []string
}

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
			w[path] = settingOf(content)
		}
	}
	return w
}

func settingOf(n *yaml.Node) setting {
	v := setting{text: flat(n)}
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			v.items = append(v.items, flat(item))
		}
	}
	return v
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
		case is.text == was.text && now == before:
		case strings.HasPrefix(strings.TrimPrefix(path, "defaults."), "env."):
			list = append(list, path)
		default:
			from, to := differing(was, is)
			list = append(list, path+": "+shown(from, before)+" -> "+shown(to, now))
		}
	}
	return list
}

// differing is of long values what differs: of lists the items that one of them
// lacks, of texts what follows a common beginning.
func differing(was, is setting) (from, to string) {
	from, to = was.text, is.text
	long := func() bool { return len(from) > longestValue || len(to) > longestValue }
	if long() && was.items != nil && is.items != nil {
		if went, came := without(was.items, is.items), without(is.items, was.items); went != came { // else the order differs
			from, to = went, came
		}
	}
	if same := commonBeginning(from, to); long() && same > 0 {
		return "..." + from[same:], "..." + to[same:]
	}
	return from, to
}

// commonBeginning is how many bytes two texts begin with alike, less some that
// are shown all the same.
func commonBeginning(a, b string) int {
	const context = 20
	same := 0
	for same < len(a) && same < len(b) && a[same] == b[same] {
		same++
	}
	for same -= context; same > 0 && !utf8.RuneStart(a[same]); same-- {
	}
	return max(same, 0)
}

// without is a list in which ... stands for the items that the other one has as
// well.
func without(list, other []string) string {
	common := map[string]int{}
	for _, item := range other {
		common[item]++
	}
	var rest []string
	for _, item := range list {
		if common[item]--; common[item] < 0 {
			rest = append(rest, item)
		}
	}
	if len(rest) < len(list) {
		rest = slices.Insert(rest, 0, "...")
	}
	return "[" + strings.Join(rest, ", ") + "]"
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
