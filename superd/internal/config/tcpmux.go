package config

import (
	"fmt"
	"slices"
	"strings"
)

// BuiltinMux is the built-in by which clients reach services by their names.
const BuiltinMux = "tcpmux"

// Who tells a client that has come by a service's name that it can go on.
const (
	MuxAnswered = "true"  // superd, before the program is started
	MuxPlain    = "plain" // the program
)

// muxHelp is the name that a client gets a list for (RFC 1078).
const muxHelp = "help"

// tcpmux reads whether the service is reached by its name; "" is no.
func (s section) tcpmux() string {
	if word := s.word("tcpmux"); word != "false" {
		return word
	}
	return ""
}

// named tells whether the file has the service be reached by its name.
func (s section) named() bool {
	return s.written("tcpmux") && s.get("tcpmux").node.Value != "false"
}

// strayWithName are the keys that cannot be together with tcpmux, and why.
var strayWithName = []struct{ key, why, hint string }{
	{"wait", "has no meaning with wait: the program accepts its clients itself", "leave one of them out"},
	{"proxy_protocol", "has no meaning with proxy_protocol: who comes by a name has sent its line first",
		"write proxy_protocol at the service that has builtin: tcpmux"},
}

// reachByName checks a service that clients reach by its name.
func (s section) reachByName(c *Service) {
	v := s.get("tcpmux")
	if c.Builtin == BuiltinMux {
		s.d.bad(v, "has no meaning with builtin: tcpmux, which itself leads to others", "leave it out")
		return
	}
	for _, m := range strayWithName {
		switch {
		case !s.written(m.key) || m.key == "wait" && c.Wait == "":
		case s.d.lent[m.key]:
			s.d.bad(s.get(m.key), "has no meaning with tcpmux", "")
		default:
			s.d.bad(v, m.why, m.hint)
		}
	}
	if strings.EqualFold(c.Name, muxHelp) {
		s.d.bad(v, "nobody can reach a service that is called help: that word asks for the list of services", "give it another name")
	}
	if _, speaks := longestSpoken[c.Builtin]; c.Mux == MuxPlain && c.Builtin != "" && !speaks {
		s.d.warn(v, mistakef("write true", "%s does not say the line with + that the client waits for", c.Builtin))
	}
	s.onlyStreams(c, "a program that is reached by tcpmux gets a stream, and no %s")
}

// onlyStreams reports each address of a service at which there are none.
func (s section) onlyStreams(c *Service, why string) {
	var reported Position
	for _, l := range c.Listen {
		kind := ""
		switch {
		case l.At == reported:
		case l.Datagrams():
			kind = "datagrams"
		case l.Type == "seqpacket":
			kind = "records"
		}
		if kind != "" {
			reported = l.At
			s.d.report(l.At, l.Path, fmt.Sprintf(why, kind), "")
		}
	}
}

// idleAtMux are the keys that do nothing at a service that starts no program.
var idleAtMux = []string{"user", "group", "groups", "chroot", "rlimits", "sandbox", "cgroup", "dir", "umask", "nice", "oom_score_adj",
	"env", "env_pass", "env_style", "stderr", "keep", "linger", "leftovers", "max", "max_per_source", "failures",
	"timeout.session", "timeout.idle", "timeout.stop"}

// lead checks and completes a service that leads to others: what concerns
// programs and their number is theirs.
func (s section) lead(c *Service) {
	for _, key := range idleAtMux {
		if s.written(key) {
			s.d.warn(s.get(key), mistakef("write it at the services that it leads to", "has no effect with builtin: tcpmux, which starts no program"))
		}
	}
	for _, r := range c.Rules {
		if r.Override != nil {
			s.d.report(r.At, r.Path, "env and run have no meaning with builtin: tcpmux, which starts no program", "write the rule at the services that it leads to")
		}
	}
	s.onlyStreams(c, "tcpmux reads a line from a stream, and no %s")
	c.Max, c.MaxPerSource, c.Failures = 0, 0, Failures{}
}

// namesClash reports services whose names clients cannot tell apart.
func (d *decoder) namesClash(services []*Service) {
	first := map[string]*Service{}
	for _, s := range services {
		if !s.Enabled || s.Mux == "" {
			continue
		}
		key := strings.ToLower(s.Name)
		if other := first[key]; other != nil {
			p := s.Problem("tcpmux", fmt.Sprintf("its clients cannot tell it from %s %s: tcpmux takes capital and small letters for the same",
				other.Name, other.Where("").from(s.Where(""))), "give it another name")
			d.problems = append(d.problems, p)
			continue
		}
		first[key] = s
	}
	d.leadsNowhere(services, len(first) == 0)
}

// leadsNowhere warns where nobody can come by a name, and refuses what would not
// hold for who does.
func (d *decoder) leadsNowhere(services []*Service, nowhere bool) {
	leads := func(s *Service) bool { return s.Enabled && s.Builtin == BuiltinMux }
	vsock := func(l Listener) bool { return l.Family == VSock }
	lead := slices.ContainsFunc(services, leads)
	byVSock := slices.ContainsFunc(services, func(s *Service) bool { return leads(s) && slices.ContainsFunc(s.Listen, vsock) })
	for _, s := range services {
		switch named := s.Enabled && s.Mux != ""; {
		case leads(s) && nowhere:
			d.warnings = append(d.warnings, s.Problem("builtin", "leads to nothing: no service has tcpmux: true", ""))
		case named && !lead:
			d.warnings = append(d.warnings, s.Problem("tcpmux", "has no effect: no service has builtin: tcpmux", ""))
		case named && byVSock && s.Timeout.Idle > 0:
			d.problems = append(d.problems, s.Problem("timeout.idle", "has no effect for who comes through a tcpmux at a vsock address: the kernel does not tell when its bytes move",
				"write timeout.session"))
		}
	}
}
