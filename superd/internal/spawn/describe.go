package spawn

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"superd/superd/internal/config"
)

// Describe says in words for an administrator as whom and inside which walls
// p's program runs, a line for each, in the order in which they are entered.
func (p *Plan) Describe() []string {
	lines := p.spec.describe(&p.walls)
	for _, note := range p.walls.notes {
		lines = append(lines, note.Error())
	}
	return lines
}

// Describe says the same of a plan that is not made, and so not whether the
// walls can be built.
func (s *Spec) Describe() []string { return s.describe(&walls{}) }

func (s *Spec) describe(w *walls) []string {
	lines := []string{"user " + s.describeUser()}
	if s.Chroot != "" {
		lines = append(lines, "root directory "+s.Chroot)
	}
	if s.Sandbox.Preset != "" {
		lines = append(lines, "sandbox "+s.Sandbox.Preset)
	}
	lines = append(lines,
		"capabilities "+s.describeCapabilities(),
		"no_new_privs "+strconv.FormatBool(s.Sandbox.NoNewPrivs),
		"system calls "+w.unlessLeftOut(callFilter, true, s.Sandbox.SystemCalls),
		"network "+w.unlessLeftOut(networkNamespace, true, strconv.FormatBool(s.Sandbox.Network)),
		"private_tmp "+w.unlessLeftOut(mountNamespace, s.Sandbox.PrivateTmp, strconv.FormatBool(s.Sandbox.PrivateTmp)),
		"file system "+w.unlessLeftOut(landlockRules, s.Sandbox.Confined, describeFiles(&s.Sandbox)))
	if w.unguarded != "" {
		lines = append(lines, w.unguarded)
	}
	for _, l := range s.Rlimits {
		lines = append(lines, fmt.Sprintf("limit %s %s, at most %s", l.Name, describeLimit(l.Soft), describeLimit(l.Hard)))
	}
	if c := describeCgroup(&s.Cgroup); c != "" {
		lines = append(lines, "cgroup "+w.unlessLeftOut(controlGroup, true, c))
	}
	return lines
}

// unlessLeftOut is what a wall is, or that it was asked for and is not there.
func (w *walls) unlessLeftOut(wall string, asked bool, what string) string {
	if asked && slices.Contains(w.left, wall) {
		return "left out"
	}
	return what
}

func (s *Spec) describeUser() string {
	id := s.Identity
	if id == nil {
		return "superd's own"
	}
	groups := make([]string, len(id.Groups))
	for i, g := range id.Groups {
		groups[i] = strconv.FormatUint(uint64(g), 10)
	}
	return fmt.Sprintf("%s (%d), group %s (%d), supplementary groups [%s]", id.UserName(), id.UID, id.GroupName(), id.GID, strings.Join(groups, " "))
}

func (s *Spec) describeCapabilities() string {
	switch {
	case !s.losesCapabilities():
		return "those of the user"
	case len(s.Sandbox.Capabilities) == 0:
		return "none"
	}
	return strings.Join(s.Sandbox.Capabilities, " ")
}

func describeFiles(s *config.Sandbox) string {
	if !s.Confined {
		return "as the user may"
	}
	parts := []string{"closed but for the program's own needs"}
	for _, o := range []struct {
		verb  string
		paths []string
	}{{"read", s.Read}, {"write", s.Write}, {"exec", s.Exec}} {
		if len(o.paths) > 0 {
			parts = append(parts, o.verb+" "+strings.Join(o.paths, " "))
		}
	}
	return strings.Join(parts, "; ")
}

func describeLimit(n uint64) string {
	if n == config.Unlimited {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

func describeCgroup(c *config.Cgroup) string {
	if !c.On {
		return ""
	}
	var parts []string
	if c.Memory > 0 {
		parts = append(parts, fmt.Sprintf("memory %d bytes", c.Memory))
	}
	if c.Tasks > 0 {
		parts = append(parts, fmt.Sprintf("tasks %d", c.Tasks))
	}
	if c.CPU > 0 {
		parts = append(parts, fmt.Sprintf("cpu %d%%", c.CPU))
	}
	if c.PerConnection {
		parts = append(parts, "for each connection")
	}
	return strings.Join(parts, ", ")
}
