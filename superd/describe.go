package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
)

// describe is who may come in, and how many, for people: the rules that decide
// something, the more specific ones first, and then what else the file says.
func (a *admission) describe() (lines []string) {
	lines = a.describeRules()
	add := func(is bool, format string, args ...any) {
		if is {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	c := a.service
	add(len(c.Hours) > 0, "hours %s", joined(c.Hours, func(h config.Hours) string { return h.Text }, "; "))
	add(c.Max > 0, "max %d", c.Max)
	add(c.MaxPerSource > 0, "max_per_source %d", c.MaxPerSource)
	add(c.Rate.Count > 0, "rate %s", c.Rate)
	add(c.RatePerSource.Count > 0, "rate_per_source %s", c.RatePerSource)
	add(a.perSource() || c.Ban.After > 0, "a source is /%d of IPv4, /%d of IPv6", c.SourcePrefix.IPv4, c.SourcePrefix.IPv6)
	add(c.MaxLoad > 0, "max_load %g", c.MaxLoad)
	add(true, "where there is no room: %s", a.withoutRoom())
	add(c.Ban.After > 0, "ban after %d within %s, for %s", c.Ban.After, span(c.Ban.Within), span(c.Ban.For))
	add(c.Failures.After > 0, "failures %d within %s, pause %s", c.Failures.After, span(c.Failures.Within), span(c.Failures.Pause))
	add(len(c.Proxy.From) > 0, "proxy_protocol from %s, within %s", joined(c.Proxy.From, asRule, " "), span(c.Proxy.Timeout))
	add(c.Timeout.FirstByte > 0, "first byte within %s", span(c.Timeout.FirstByte))
	add(len(c.RefuseText) > 0, "a text for %s", a.reasonsWithText())
	return lines
}

// span leaves out what time.Duration says of nothing: 10m, not 10m0s.
func span(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

func joined[T any](list []T, text func(T) string, between string) string {
	texts := make([]string, len(list))
	for i, x := range list {
		texts[i] = text(x)
	}
	return strings.Join(texts, between)
}

func asRule(p netip.Prefix) string { return config.Network(p).String() }

// withoutRoom is what becomes of a client that finds none.
func (a *admission) withoutRoom() string {
	switch q := a.service.Queue; {
	case a.rules.Refuse:
		return "refuse"
	case a.inKernel():
		return "wait in the kernel's queue"
	default:
		return fmt.Sprintf("wait, at most %d clients for %s", q.Length, span(q.Timeout))
	}
}

// inKernel tells that a client is not accepted before there is room: datagrams
// are taken as they come, and who comes by tcpmux is there already.
func (a *admission) inKernel() bool {
	return a.policy.Direct() && !converses(a.service) && len(a.service.Listen) > 0
}

func (a *admission) reasonsWithText() string {
	if len(a.service.RefuseText) == len(a.texts) {
		return "every refusal"
	}
	var words []string
	for r, text := range a.texts {
		if text != nil {
			words = append(words, admit.Reason(r).String())
		}
	}
	return strings.Join(words, ", ")
}

// mostDescribed is how many rules are shown of one service.
const mostDescribed = 100

func (a *admission) describeRules() (lines []string) {
	if len(a.rules.Access) == 0 {
		return []string{a.everybodyElse("everybody")}
	}
	useless := map[*admit.Rule]bool{}
	for _, f := range a.findings {
		useless[f.Rule] = true
	}
	var rules []*admit.Rule
	for i := range a.rules.Access {
		if r := &a.rules.Access[i]; !useless[r] {
			rules = append(rules, r)
		}
	}
	slices.SortStableFunc(rules, moreSpecific)
	for _, r := range rules[:min(len(rules), mostDescribed)] {
		lines = append(lines, describeRule(r))
	}
	if more := len(rules) - mostDescribed; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more rules", more))
	}
	if n := len(useless); n > 0 {
		lines = append(lines, fmt.Sprintf("rules without effect: %d", n))
	}
	return append(lines, a.everybodyElse("everybody else"))
}

func (a *admission) everybodyElse(who string) string {
	if a.rules.Restricted {
		return "deny " + who
	}
	return "allow " + who
}

// moreSpecific puts what is looked at first in front: IPv4 and then IPv6
// networks, the longest first, users, groups.
func moreSpecific(a, b *admit.Rule) int {
	s, t := a.Spec, b.Spec
	return cmp.Or(
		cmp.Compare(s.Kind, t.Kind),
		cmp.Compare(s.Network.Addr().BitLen(), t.Network.Addr().BitLen()),
		cmp.Compare(t.Network.Bits(), s.Network.Bits()),
		s.Network.Addr().Compare(t.Network.Addr()),
		cmp.Compare(s.ID, t.ID))
}

// describeRule is one line: allow 10.0.0.0/8, max_per_source 100 (FILE:LINE:COLUMN).
func describeRule(r *admit.Rule) string {
	text := ruleText(r)
	if o, is := r.Data.(*override); is {
		text += o.describe()
	}
	return text + " (" + r.At.String() + ")"
}

// ruleText is a rule with its limits.
func ruleText(r *admit.Rule) string {
	text := r.Words()
	if r.Text != "" && r.Text != r.Spec.String() {
		text += ", that is " + r.Spec.String()
	}
	if r.MaxPerSource > 0 {
		text += fmt.Sprintf(", max_per_source %d", r.MaxPerSource)
	}
	if r.RatePerSource.Count > 0 {
		text += ", rate_per_source " + r.RatePerSource.String()
	}
	return text
}

// describe names variables only: their values may be nobody's business.
func (o *override) describe() (text string) {
	if names := o.rule.Env; len(names) > 0 {
		text += ", env " + joined(names, func(v config.EnvVar) string { return v.Name }, " ")
	}
	if o.rule.Run != nil {
		text += ", run " + strings.Join(o.rule.Run, " ")
	}
	return text
}
