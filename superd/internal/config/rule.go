package config

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"gopkg.in/yaml.v3"
)

// A Rule lets somebody in or keeps him out, and says what else is different
// for him.
type Rule struct {
	Spec          Spec
	Deny          bool
	Text          string    // as written; "" for the canonical form
	At            Position  // in the file, or in a file of rules
	Path          string    // services.NAME.allow[0]
	MaxPerSource  int       // instead of the service's; 0 for none of its own
	RatePerSource Rate      // instead of the service's; the zero Rate for none of its own
	Override      *Override // of a list's item, shared by all rules that it stands for; nil for none
}

// An Override is what a program gets for the clients of a rule.
type Override struct {
	Env  []EnvVar // besides the service's own, and instead of those of the same name
	Run  []string // instead of the service's program; nil for that
	path string   // services.NAME.allow[0]
}

// rules reads allow and deny.
func (s section) rules() (list []Rule) {
	for _, name := range []string{"allow", "deny"} {
		if !s.written(name) {
			continue
		}
		for _, item := range s.d.list(s.get(name)) {
			list = append(list, s.d.rules(item, "services.*."+name, name == "deny")...)
		}
	}
	return list
}

// rules reads one item. A text alone is a mapping with that text as from.
func (d *decoder) rules(v value, pattern string, deny bool) []Rule {
	switch {
	case v.node.Kind == yaml.MappingNode:
		s := d.section(v, pattern)
		if !s.written("from") {
			d.bad(v, "names nobody", "add from: 10.0.0.0/8")
			return nil
		}
		return s.rulesOf(deny)
	case hasText(v.node):
		return section{d, pattern, v, map[string]value{"from": v}}.rulesOf(deny)
	}
	d.bad(v, "must be a text or a mapping, not "+describe(v.node), "")
	return nil
}

// rulesOf makes one rule, or one for each line of the file that from names.
func (s section) rulesOf(deny bool) []Rule {
	from := s.get("from")
	r := Rule{
		Deny:          deny,
		At:            from.at,
		Path:          s.self.path,
		MaxPerSource:  s.positive("max_per_source"),
		RatePerSource: s.rate("rate_per_source"),
		Override:      s.ruleOverride(),
	}
	text, ok := s.d.item(from)
	if !ok {
		return nil
	}
	if file, is := strings.CutPrefix(text, "@"); is {
		return r.each(s.d.ruleFile(from, file))
	}
	spec, canonical, err := ParseSpec(text)
	s.d.fault(from, err)
	if canonical != "" {
		s.d.warn(from, beyondNetwork(text, canonical))
	}
	r.Spec, r.Text = spec, unlessCanonical(text, spec)
	return []Rule{r}
}

// each gives all rules of a file what the item says besides.
func (r Rule) each(list []Rule) []Rule {
	all := make([]Rule, len(list))
	for i, line := range list {
		all[i] = r
		all[i].Spec, all[i].Text, all[i].At = line.Spec, line.Text, line.At
	}
	return all
}

// ruleOverride reads env and run of a rule.
func (s section) ruleOverride() *Override {
	if !s.written("env") && !s.written("run") {
		return nil
	}
	return &Override{Env: s.env(), Run: s.run(), path: s.self.path}
}

// ruleFile returns what a file of rules says. It is read, and its mistakes are
// reported, once, however many lists name it.
func (d *decoder) ruleFile(v value, name string) []Rule {
	if known, is := d.ruleFiles[name]; is {
		return known
	}
	data, err := d.readRules(name)
	if err != nil {
		d.fault(v, err)
		return nil
	}
	f := ParseRules(name, data)
	d.ruleProblems = append(d.ruleProblems, at(v.path, f.Problems)...)
	d.ruleWarnings = append(d.ruleWarnings, at(v.path, f.Warnings)...)
	d.ruleFiles[name] = f.Rules
	return f.Rules
}

func (d *decoder) readRules(name string) ([]byte, error) {
	if err := checkPath(name); err != nil {
		return nil, err
	}
	data, err := d.sys.ReadFile(name, largestRuleFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, mistakef("create it: an empty one has no rules", "the file %s does not exist", name)
	case err != nil:
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	case len(data) > largestRuleFile:
		return nil, mistakef("", "the file %s is larger than 32 MiB", name)
	}
	return data, nil
}

// at tells what the problems of a file of rules are a part of.
func at(path string, list []Problem) []Problem {
	for i := range list {
		list[i].Path = path
	}
	return list
}

// Overridden is the service as it is for the clients of a rule with an
// override: with its variables, and with its program in place of the service's.
func (s *Service) Overridden(o *Override) *Service {
	c := *s
	c.override = o
	for _, v := range o.Env {
		c.Env = withVariable(c.Env, v)
	}
	if o.Run != nil {
		c.Run, c.Builtin, c.Text, c.Argv0 = o.Run, "", "", ""
	}
	return &c
}

// withVariable leaves the list that it is given as it is.
func withVariable(env []EnvVar, v EnvVar) []EnvVar {
	list := make([]EnvVar, 0, len(env)+1)
	for _, old := range env {
		if old.Name != v.Name {
			list = append(list, old)
		}
	}
	return append(list, v)
}

// path is the path of a key of the service, which may be one of a rule's.
func (s *Service) path(key string) string {
	if o := s.override; o != nil && (key == "run" && o.Run != nil || key == "env" && o.Env != nil) {
		return join(o.path, key)
	}
	return join("services."+s.Name, key)
}
