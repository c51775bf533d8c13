package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/control"
)

// What would become of somebody who came to a service: asked of a running superd,
// or of one that is only imagined.

// verdicts are the words of an explanation.
var verdicts = map[admit.Verdict]string{admit.Entered: "enters", admit.Waits: "waits", admit.Refused: "refused"}

// disabled is the verdict where nobody can come.
const disabled = "disabled"

// Explain implements control.Daemon.
func (o *operator) Explain(name string, who control.Applicant) (control.Explanation, error) {
	p := o.daemon.present()
	s := find(p.services, name)
	if s == nil {
		return control.Explanation{}, control.Unknown(noService(name, p.config.Services))
	}
	x := s.explain(who, o.daemon.loops.Load(), o.daemon.now())
	x.PID, x.Generation, x.Loaded = os.Getpid(), p.generation, p.loaded
	return x, nil
}

// noService says that there is none of that name, and which one may be meant.
func noService(name string, list []*config.Service) string {
	names := make([]string, len(list))
	for i, s := range list {
		names[i] = s.Name
	}
	text := fmt.Sprintf("there is no service %q", name)
	if near := config.Nearest(name, names); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return text
}

// explain is what would become of a client that came to s now, where superd
// answers no datagrams that l tells of.
func (s *service) explain(who control.Applicant, l *loops, now admit.Moment) control.Explanation {
	who.Datagrams = who.Datagrams || onlyDatagrams(s.config)
	client := s.clientOf(who)
	x := s.gate.Explain(client, now)
	answer := control.Explanation{
		UID:     uint32(os.Geteuid()),
		File:    absolute(s.daemon.config.Path),
		Service: s.config.Name,
		Client:  textOf(who),
		Verdict: verdicts[x.Verdict],
		Source:  x.Source.String(),
		Live:    x.Live,
		Rules:   []control.Rule{},
		Notes:   s.notes(x.Verdict, client.Unseen),
	}
	if x.Verdict != admit.Entered {
		answer.Reason = x.Reason.String()
	}
	if answer.Reason == admit.ReasonQueueFull.String() {
		answer.Cause = x.Cause.String()
	}
	for _, step := range x.Steps {
		answer.Checks = append(answer.Checks, control.Step{Check: step.Check.String(), Passes: step.Passes, Why: step.Text})
	}
	for _, r := range x.Rules {
		answer.Rules = append(answer.Rules, control.Rule{Rule: ruleText(r), At: r.At.String(), Holds: r == x.Rule})
	}
	if who.Datagrams && who.Addr.IsValid() && converses(s.config) {
		reflect(&answer, l.reflection(client.Addr, cmp.Or(who.Port, samplePort), client.Addr))
	}
	if !s.config.Enabled {
		answer.Verdict, answer.Reason, answer.Cause = disabled, "", ""
	}
	return answer
}

// onlyDatagrams tells whether nobody can connect to c.
func onlyDatagrams(c *config.Service) bool {
	return len(c.Listen) > 0 && !slices.ContainsFunc(c.Listen, func(l config.Listener) bool { return !l.Datagrams() })
}

// onlyUnixDatagrams tells whether who comes to c by a unix socket sends datagrams.
func onlyUnixDatagrams(c *config.Service) (is bool) {
	for i := range c.Listen {
		if l := &c.Listen[i]; l.Family == config.Unix {
			if is = l.Datagrams(); !is {
				return false
			}
		}
	}
	return is
}

// clientOf is an applicant as the gate of s would see him. Where programs accept
// themselves, superd sees nobody, or the sender of the first datagram alone.
func (s *service) clientOf(who control.Applicant) admit.Client {
	sends := who.Datagrams && who.Addr.IsValid() || who.Unix && onlyUnixDatagrams(s.config)
	if s.config.Wait != "" && !sends {
		return admit.Client{Unseen: true}
	}
	c := admit.Client{Addr: who.Addr.Unmap(), Unix: who.Unix, UID: who.UID, GID: who.GID, Groups: who.Groups}
	if who.Datagrams || sends {
		c.Groups = nil // of a sender they are not known
	}
	return c
}

// reflect adds that who has sent the datagram is not answered, if that is so:
// it is found before anything else.
func reflect(x *control.Explanation, why error) {
	if why == nil {
		return
	}
	word := admit.ReasonAddress.String()
	x.Verdict, x.Reason, x.Cause = verdicts[admit.Refused], word, ""
	x.Checks = slices.Insert(x.Checks, 0, control.Step{Check: word, Why: why.Error()})
}

// notes are what else there is to know of who comes to s.
func (s *service) notes(v admit.Verdict, unseen bool) []string {
	list, c := []string{}, s.config
	add := func(is bool, format string, args ...any) {
		if is {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	add(!c.Enabled, "the service is disabled: superd does not listen for it")
	add(len(c.Proxy.From) > 0, "the client is the one that the PROXY header names, which has to come within %s from one of %s",
		span(c.Proxy.Timeout), joined(c.Proxy.From, asRule, " "))
	add(c.Timeout.FirstByte > 0 && !s.leads(), "nothing of this is decided before the client's first byte, which has to come within %s", span(c.Timeout.FirstByte))
	add(c.Mux != "", "a client that comes by tcpmux had to pass the checks of that service before")
	add(s.leads(), "the client goes on to the service that it names, and has to pass the checks of that one too")
	add(unseen, "superd does not see the clients, the program accepts them: this is about starting it for somebody")
	switch {
	case v != admit.Waits:
	case c.Wait != "":
		add(true, "until then it waits in the kernel's queue")
	default:
		add(true, "where there is no room: %s", s.admission.withoutRoom())
	}
	return list
}

// absolute is the path of a file wherever it is read about.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil && path != builtInName {
		return abs
	}
	return path
}

// textOf is an applicant as parseStranger has one.
func textOf(who control.Applicant) string {
	kind := ""
	if who.Datagrams {
		kind = "udp:"
	}
	switch {
	case who.Unix:
		text := fmt.Sprintf("uid:%d,gid:%d", who.UID, who.GID)
		for _, gid := range who.Groups {
			text += fmt.Sprintf(",gid:%d", gid)
		}
		return text
	case who.Addr.IsValid() && who.Port > 0:
		return kind + netip.AddrPortFrom(who.Addr, who.Port).String()
	case who.Addr.IsValid():
		return kind + who.Addr.String()
	}
	return "vsock"
}
