package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// servicePattern is the path of a service in the table, and commonPath that of
// defaults in the file.
const (
	servicePattern = "services.*"
	commonPath     = "defaults"
)

// mostCommon bounds the values that defaults add to all services (superd.yaml(5)).
const mostCommon = 200_000

// A common is what services have that do not say otherwise.
type common struct {
	node  *yaml.Node // the mapping; nil for none
	size  int        // values in it
	added int        // to all services so far
	told  map[remark]bool
}

// A remark is a mistake or a warning, whatever it is said of.
type remark struct {
	at   Position
	what string
}

// common tells the section of defaults.
func (s section) common() bool { return s.self.path == commonPath && s.pattern == servicePattern }

// readCommon reads defaults as a service that has nothing else. What is wrong with
// them is told here, and not of each service again.
func (d *decoder) readCommon(v value) {
	if v.node.Kind != yaml.MappingNode {
		d.wrong(v, "")
		return
	}
	problems, warnings := len(d.problems), len(d.warnings)
	s := d.section(v, servicePattern)
	s.warnUnkept()
	s.service("")
	d.common = common{node: v.node, size: sizeOf(v.node), told: map[remark]bool{}}
	for _, p := range slices.Concat(d.problems[problems:], d.warnings[warnings:]) {
		d.common.told[remark{p.At, p.What}] = true
	}
	d.belongs(v.node)
}

func sizeOf(n *yaml.Node) int {
	size := 1
	for _, child := range followed(n).Content {
		size += sizeOf(child)
	}
	return size
}

// belongs notes that a node, and all that is in it, is of the file that is being
// read, wherever it comes to be used.
func (d *decoder) belongs(n *yaml.Node) {
	if _, known := d.origin[n]; known {
		return
	}
	d.origin[n] = d.file
	if n.Alias != nil {
		d.belongs(n.Alias)
	}
	for _, child := range n.Content {
		d.belongs(child)
	}
}

// service reads a service with what it has from defaults. Of that, the keys that
// yield are left out where they have no meaning, and the service is read anew.
func (d *decoder) service(e entry) *Service {
	if !serviceName.MatchString(e.name) {
		d.report(e.at, e.path, "a service's name must be 1 to 64 letters, digits, _, . and -, and not begin with . or -", "")
	}
	defer func(where map[string]Position) { d.where, d.lent = where, nil }(d.where)
	without := idleKeys(e)
	for {
		problems, warnings := len(d.problems), len(d.warnings)
		d.where, d.lent = map[string]Position{e.path: e.at}, map[string]bool{}
		c := d.decode(d.completed(e, without))
		yielding := map[string]bool{}
		for _, p := range slices.Concat(d.problems[problems:], d.warnings[warnings:]) {
			if key := d.lentKey(e, p); key != "" && yields(key) {
				yielding[key] = true
			}
		}
		if len(yielding) == 0 {
			d.judge(e, problems, warnings)
			return c
		}
		d.problems, d.warnings = d.problems[:problems], d.warnings[:warnings]
		maps.Copy(without, yielding)
	}
}

// idleKeys are those that a service has no use for from defaults, since it starts
// no program.
func idleKeys(e entry) map[string]bool {
	idle := map[string]bool{}
	own := followed(e.node)
	if at, is := placesOf(own)["builtin"]; is && own.Kind == yaml.MappingNode && followed(own.Content[at+1]).Value == BuiltinMux {
		for _, key := range idleAtMux {
			idle[key] = true
		}
	}
	return idle
}

// decode reads one service.
func (d *decoder) decode(e entry) *Service {
	v := d.value(e.node, e.path, index.byPath[servicePattern])
	v.at = e.at
	d.where[e.path] = e.at
	s := d.section(v, servicePattern)
	s.crossCheck()
	c := s.service(e.name)
	c.lent = d.lent
	return c
}

// completed is the service's entry with what it has from defaults, but for the
// keys that it is to be without.
func (d *decoder) completed(e entry, without map[string]bool) entry {
	own := followed(e.node)
	if d.common.node == nil || own.Kind != yaml.MappingNode {
		return e
	}
	if d.common.added += d.common.size; d.common.added > mostCommon {
		d.report(d.at(d.common.node), commonPath, fmt.Sprintf("adds more than %d values to the services", mostCommon), "")
		d.common.node = nil
		return e
	}
	m := merger{d, without}
	merged := m.mapping(own, d.common.node, servicePattern, "")
	merged.Line, merged.Column = e.node.Line, e.node.Column
	e.node = merged
	return e
}

// A merger completes the mappings of a service.
type merger struct {
	d       *decoder
	without map[string]bool
}

// mapping is own with the entries of common that it lacks. The pattern is the
// mapping's path in the table, and path that inside the service.
func (m merger) mapping(own, common *yaml.Node, pattern, path string) *yaml.Node {
	merged := *own
	merged.Content = slices.Clone(own.Content)
	places := placesOf(own)
	for i := 0; i+1 < len(common.Content); i += 2 {
		name := followed(common.Content[i]).Value
		key, inner := index.byPath[join(pattern, name)], join(path, segment(name))
		at, is := places[name]
		switch {
		case key == nil && !namesKeys(index.byPath[pattern]) || key != nil && key.Common == Own || m.without[inner]:
		case !is:
			m.d.lent[inner], places[name] = true, len(merged.Content)
			merged.Content = append(merged.Content, common.Content[i], m.taken(common.Content[i+1], key, inner))
		case at >= len(own.Content): // a key that defaults repeat
		case renounces(own.Content[at+1], key):
			merged.Content[at], merged.Content[at+1] = nil, nil
		default:
			merged.Content[at+1] = m.combined(own.Content[at+1], common.Content[i+1], key, inner)
		}
	}
	merged.Content = slices.DeleteFunc(merged.Content, func(n *yaml.Node) bool { return n == nil })
	return &merged
}

// namesKeys tells the mappings whose keys are not all in the table.
func namesKeys(key *Key) bool { return key.Kind == Entries || key.Path == "services.*.refuse_text" }

// completes tells the keys whose mappings are completed key by key.
func completes(key *Key) bool {
	return key != nil && (key.Kind == Mapping || namesKeys(key) || key.Path == "services.*.sandbox")
}

// placesOf finds the keys of a mapping.
func placesOf(n *yaml.Node) map[string]int {
	places := map[string]int{}
	for i := len(n.Content) - 2; i >= 0; i -= 2 {
		places[followed(n.Content[i]).Value] = i // the first, where one is repeated
	}
	return places
}

// renounces tells a null, written out, by which a service does without a
// default.
func renounces(n *yaml.Node, key *Key) bool {
	n = followed(n)
	return isNull(n) && n.Value != "" && (key == nil || !slices.Contains(key.Words, n.Value))
}

// taken is a value of defaults as a service has it.
func (m merger) taken(n *yaml.Node, key *Key, path string) *yaml.Node {
	if value := followed(n); completes(key) && value.Kind == yaml.MappingNode {
		empty := m.made(yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}, n)
		taken := m.mapping(empty, value, key.Path, path)
		m.d.origin[taken] = m.d.origin[n]
		return taken
	}
	return n
}

// combined is a service's own value, completed where it is a mapping.
func (m merger) combined(n, common *yaml.Node, key *Key, path string) *yaml.Node {
	own, other := followed(n), followed(common)
	if !completes(key) || own.Kind != yaml.MappingNode {
		return n
	}
	if key.Path == "services.*.sandbox" && hasText(other) {
		word := m.made(yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "preset"}, common)
		other = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{word, common}}
	}
	if other.Kind != yaml.MappingNode {
		return n
	}
	merged := m.mapping(own, other, key.Path, path)
	merged.Line, merged.Column = n.Line, n.Column
	return merged
}

// made is a node that the file does not have, at the place of one that it has.
func (m merger) made(n yaml.Node, like *yaml.Node) *yaml.Node {
	n.Line, n.Column = like.Line, like.Column
	m.d.origin[&n] = m.d.origin[like]
	return &n
}

// lentKey is the key from defaults that a problem with a service is about; ""
// for none, and for what was told of defaults as such.
func (d *decoder) lentKey(e entry, p Problem) string {
	if d.common.told[remark{p.At, p.What}] {
		return ""
	}
	rest, _ := strings.CutPrefix(p.Path, e.path+".")
	return lender(d.lent, rest)
}

// lender is the key itself, or what it is inside of, that is in lent; or "".
func lender(lent map[string]bool, key string) string {
	for key != "" && !lent[key] {
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return key
}

// yields tells whether a key of defaults is left out where it has no meaning.
func yields(key string) bool {
	for ; key != ""; key, _ = cutLast(key) {
		if k := index.byPath[join(servicePattern, key)]; k != nil && k.Common == Yields {
			return true
		}
	}
	return false
}

// judge tells what of defaults a service cannot have, and would be less guarded
// without, and forgets what was told already. It looks at what was found from
// the nth problem and warning on.
func (d *decoder) judge(e entry, problems, warnings int) {
	found := slices.Concat(d.problems[problems:], d.warnings[warnings:])
	isError := len(d.problems) - problems
	d.problems, d.warnings = d.problems[:problems], d.warnings[:warnings]
	unfit := map[string]bool{}
	for i, p := range found {
		key := d.lentKey(e, p)
		switch {
		case d.common.told[remark{p.At, p.What}] || unfit[key]:
		case key != "":
			unfit[key] = true
			d.report(e.at, p.Path, fmt.Sprintf("the default at %s does not fit here: %s", p.At, p.What), renouncing(key))
		case i < isError:
			d.problems = append(d.problems, p)
		default:
			d.warnings = append(d.warnings, p)
		}
	}
}

// renouncing says how a service does without a default.
func renouncing(key string) string {
	names := strings.Split(key, ".")
	return "write a value of its own, or " + strings.Join(names, ": {") + ": null" + strings.Repeat("}", len(names)-1) + " to do without"
}

// FromDefaults tells whether a key of the service, such as "timeout.idle", has
// its value from defaults.
func (s *Service) FromDefaults(key string) bool { return lender(s.lent, key) != "" }

// Once tells what is the same of many services for the same value of defaults
// once, as a problem of defaults.
func (c *Config) Once(list Problems) Problems {
	type place struct {
		Problem
		key string
	}
	var once Problems
	services := map[place][]string{}
	first := map[place]int{}
	for _, p := range list {
		s, key := c.lent(p.Path)
		if s == nil {
			once = append(once, p)
			continue
		}
		at := place{Problem{At: p.At, What: p.What, Hint: p.Hint}, key}
		if _, is := first[at]; !is {
			first[at] = len(once)
			once = append(once, p)
		}
		if !slices.Contains(services[at], s.Name) {
			services[at] = append(services[at], s.Name)
		}
	}
	for at, names := range services {
		if p := &once[first[at]]; len(names) > 1 {
			p.Path = join(commonPath, at.key)
			if len(names) < c.having(at.key) {
				p.What += ", in the services " + someOf(names)
			}
		}
	}
	return once
}

// lent finds the service of a path, and the key of it that it has from defaults;
// nil for none. A name may have dots, and so the longest is meant.
func (c *Config) lent(path string) (service *Service, key string) {
	for _, s := range c.Services {
		if k, is := strings.CutPrefix(path, "services."+s.Name+"."); is && (service == nil || len(s.Name) > len(service.Name)) {
			service, key = s, k
		}
	}
	if service == nil || !service.FromDefaults(key) {
		return nil, ""
	}
	return service, key
}

// having counts the services that have a key from defaults.
func (c *Config) having(key string) (n int) {
	for _, s := range c.Services {
		if s.FromDefaults(key) {
			n++
		}
	}
	return n
}

// fewNames is how many services one message names.
const fewNames = 3

func someOf(names []string) string {
	if more := len(names) - fewNames; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:fewNames], ", "), more)
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
