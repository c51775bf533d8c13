package config

import (
	"fmt"
	"slices"
	"time"

	"gopkg.in/yaml.v3"
)

// rlimitNames are the resources of setrlimit(2) by their numbers, which amd64
// and arm64 share (asm-generic/resource.h).
var rlimitNames = []string{
	"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "memory", "locks", "sigpending",
	"msgqueue", "nice", "rtprio", "rttime",
}

// rlimits reads the limits that the file names.
func (s section) rlimits() []Rlimit {
	var limits []Rlimit
	for resource, name := range rlimitNames {
		if key := "rlimits." + name; s.written(key) {
			soft, hard := s.d.rlimit(s.get(key))
			limits = append(limits, Rlimit{name, resource, soft, hard})
			s.warnIgnored(name)
		}
	}
	return limits
}

// warnIgnored warns of limits that Linux no longer enforces (setrlimit(2)).
func (s section) warnIgnored(name string) {
	hint, ignored := map[string]string{"rss": "cgroup.memory bounds memory", "locks": ""}[name]
	if v := s.get("rlimits." + name); ignored {
		s.d.warnings = append(s.d.warnings, Problem{v.at, v.path, "has no effect: Linux ignores this limit", hint})
	}
}

// rlimit reads one value, which is soft and hard, or a mapping of both.
func (d *decoder) rlimit(v value) (soft, hard uint64) {
	if v.node.Kind == yaml.MappingNode {
		return d.softAndHard(v)
	}
	n := d.limit(v, v.key, v.key.Accepts())
	return n, n
}

func (d *decoder) softAndHard(v value) (soft, hard uint64) {
	s := d.section(v, "services.*.rlimits.*")
	before := len(d.problems)
	soft, hard = s.limit("soft", v.key), s.limit("hard", v.key)
	if len(d.problems) == before && soft > hard {
		d.bad(s.get("soft"), fmt.Sprintf("%s is more than hard, %s", s.get("soft").node.Value, s.get("hard").node.Value), "")
	}
	return soft, hard
}

// limit reads one half of the limit of.
func (s section) limit(name string, of *Key) uint64 {
	if !s.written(name) {
		s.d.bad(s.self, "has no "+name, "soft and hard go together")
		return 0
	}
	return s.d.limit(s.get(name), of, of.limitForms())
}

// limit reads a value of the limit of, in the kernel's unit. The forms are
// what a message says is accepted.
func (d *decoder) limit(v value, of *Key, forms string) uint64 {
	v.key = &Key{Kind: of.Of, Min: of.Min, Max: of.Max, Forms: forms}
	near := nearest(v.node.Value, of.Words)
	switch {
	case v.node.Kind == yaml.ScalarNode && slices.Contains(of.Words, v.node.Value):
		return Unlimited
	case near != "":
		d.wrong(v, didYouMean(near))
		return 0
	}
	switch of.Of {
	case Size:
		return d.size(v)
	case Seconds:
		return uint64(d.duration(v) / time.Second)
	case Duration:
		return d.microseconds(v)
	}
	return uint64(d.integer(v))
}

func (d *decoder) microseconds(v value) uint64 {
	length := d.duration(v)
	if length%time.Microsecond != 0 {
		d.bad(v, quote(v.node.Value)+" is not whole microseconds", "")
	}
	return uint64(length / time.Microsecond)
}
