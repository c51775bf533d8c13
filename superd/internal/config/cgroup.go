package config

import "gopkg.in/yaml.v3"

// cgroup reads the limits that a service's programs share.
func (s section) cgroup() Cgroup {
	if !s.written("cgroup") {
		return Cgroup{}
	}
	v := s.get("cgroup")
	limits := s.written("cgroup.memory") || s.written("cgroup.tasks") || s.written("cgroup.cpu")
	if v.node.Kind == yaml.MappingNode && !limits {
		s.d.bad(v, "limits nothing", "add memory, tasks or cpu")
	}
	return Cgroup{
		On:            true,
		Memory:        s.size("cgroup.memory"),
		Tasks:         uint64(s.integer("cgroup.tasks")),
		CPU:           s.percent("cgroup.cpu"),
		PerConnection: s.boolean("cgroup.per_connection"),
	}
}
