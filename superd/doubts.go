package main

import (
	"fmt"
	"slices"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
)

// mostShadowed is how many rules without effect are named for one service.
const mostShadowed = 20

// warnings are what of a service's admission is probably not meant.
func (a *admission) warnings() (list config.Problems) {
	list = append(list, a.emptyList()...)
	list = append(list, a.reflects()...)
	list = append(list, a.unreachable()...)
	list = append(list, a.shadowed()...)
	list = append(list, a.withoutEffect()...)
	return append(list, a.unspoken()...)
}

// emptyList warns of an allow list that lets nobody in.
func (a *admission) emptyList() (list config.Problems) {
	allows := func(r config.Rule) bool { return !r.Deny }
	if a.service.Restricted && !slices.ContainsFunc(a.service.Rules, allows) {
		list = append(list, a.service.Problem("allow", "the list is empty: nobody may come in", "leave it out to let everybody in, or say enabled: false"))
	}
	return list
}

// reflects warns of built-ins that answer the datagrams of everybody: whoever
// sends one can have written another's address on it.
func (a *admission) reflects() (list config.Problems) {
	c := a.service
	if c.Builtin == "" || c.Builtin == "discard" || c.Restricted || c.Wait != "" {
		return nil
	}
	for i := range c.Listen {
		if l := &c.Listen[i]; l.Family == config.UDP && !l.Optional && !l.Addr.Addr().IsLoopback() {
			list = append(list, l.Problem("address", c.Builtin+" answers datagrams of everybody, who can make it answer others",
				"name with allow whom it is for, or listen on 127.0.0.1"))
		}
	}
	return list
}

// unreachable warns of rules about clients that cannot come by the service's
// sockets. A file of rules may have been made for several services.
func (a *admission) unreachable() (list config.Problems) {
	c := a.service
	addressed := slices.ContainsFunc(c.Listen, func(l config.Listener) bool { return l.Family != config.Unix }) || len(c.Proxy.From) > 0 || c.Mux != ""
	others := slices.ContainsFunc(c.Listen, func(l config.Listener) bool { return !l.Internet() }) || c.Mux != ""
	for _, r := range c.Rules {
		p := config.Problem{At: r.At, Path: r.Path}
		switch network := r.Spec.Kind == config.NetworkSpec; {
		case r.At.File != c.Where("").File || c.FromDefaults("allow") && !r.Deny || c.FromDefaults("deny") && r.Deny || addressed && others:
			continue
		case !network && !others:
			p.What = r.Spec.String() + " has no effect: only clients of unix sockets have a user"
		case network && !addressed:
			p.What = r.Spec.String() + " has no effect: clients of unix sockets have no address"
		default:
			continue
		}
		list = append(list, p)
	}
	return list
}

// shadowed warns of rules that could be left out.
func (a *admission) shadowed() (list config.Problems) {
	for n, f := range a.findings {
		p := config.Problem{At: f.Rule.At, Path: a.service.Rules[f.Index].Path}
		if n == mostShadowed {
			p.What = fmt.Sprintf("%d more rules have no effect", len(a.findings)-n)
			return append(list, p)
		}
		p.What = f.Rule.Words() + " has no effect: " + f.Why
		if f.Other != nil {
			p.Hint = fmt.Sprintf("%s at %s", f.Other.Words(), f.Other.At)
		}
		list = append(list, p)
	}
	return list
}

// withoutEffect warns of settings that others leave nothing to. Those that are of
// defaults have their effect elsewhere.
func (a *admission) withoutEffect() (list config.Problems) {
	c := a.service
	for _, x := range []struct {
		is        bool
		key, what string
		hint      string
	}{
		{c.Queue.Named && a.rules.Refuse, "queue", "has no effect with on_limit: refuse", ""},
		{c.Max > 0 && c.MaxPerSource > c.Max, "max_per_source", fmt.Sprintf("has no effect: max is %d", c.Max), ""},
		{slower(c.Rate, c.RatePerSource), "rate_per_source", "has no effect: rate is " + c.Rate.String(), ""},
		{c.Ban.After > 0 && !a.blames(), "ban", "has no effect: no client is refused for what it does itself, and a built-in does not fail",
			"set max_per_source or rate_per_source"},
		{c.Failures.After > 0 && c.Builtin != "" && !a.runs(), "failures", "has no effect: a built-in does not fail", ""},
	} {
		if x.is && !c.FromDefaults(x.key) {
			list = append(list, a.service.Problem(x.key, x.what, x.hint))
		}
	}
	return list
}

// slower tells whether nobody who keeps to a can exceed b.
func slower(a, b config.Rate) bool {
	return a.Count > 0 && b.Count > 0 && a.Burst <= b.Burst &&
		int64(a.Count)*int64(b.Per) <= int64(b.Count)*int64(a.Per)
}

// runs tells whether programs are started that are no built-ins.
func (a *admission) runs() bool {
	return a.service.Builtin == "" || slices.ContainsFunc(a.overrides, func(o *override) bool { return o.service.Builtin == "" })
}

// blames tells whether a client can do anything that counts towards a ban.
func (a *admission) blames() bool {
	c := a.service
	return a.runs() || c.Builtin == config.BuiltinMux || a.perSource() || len(c.Rules) > 0 || c.Restricted || len(c.Proxy.From) > 0
}

// perSource tells whether any source has a limit of its own.
func (a *admission) perSource() bool {
	c := a.service
	return c.MaxPerSource > 0 || c.RatePerSource.Count > 0 ||
		slices.ContainsFunc(c.Rules, func(r config.Rule) bool { return r.MaxPerSource > 0 || r.RatePerSource.Count > 0 })
}

// unspoken warns of texts for refusals that do not come.
func (a *admission) unspoken() (list config.Problems) {
	written := a.service.Where("refuse_text")
	for r := range admit.Reason(admit.NumReasons) {
		key := "refuse_text." + r.String()
		if why := a.never(r); why != "" && a.texts[r] != nil && a.service.Where(key) != written && !a.service.FromDefaults(key) {
			list = append(list, a.service.Problem(key, "is never said: "+why, ""))
		}
	}
	return list
}

const (
	waitFirst    = "clients wait for room, the refusals are queue-full and queue-timeout"
	waitInKernel = "all who wait for room do so in the kernel's queue"
)

// never is why a connection cannot be refused for a reason; "" where it can.
func (a *admission) never(r admit.Reason) string {
	c := a.service
	deny := slices.ContainsFunc(c.Rules, func(r config.Rule) bool { return r.Deny })
	sourceMax := slices.ContainsFunc(c.Rules, func(r config.Rule) bool { return r.MaxPerSource > 0 })
	sourceRate := slices.ContainsFunc(c.Rules, func(r config.Rule) bool { return r.RatePerSource.Count > 0 })
	for _, x := range []struct {
		reason admit.Reason
		is     bool
		why    string
	}{
		{admit.ReasonAddress, !c.Restricted && !deny && c.Builtin != config.BuiltinMux, "there is neither allow nor deny"},
		{admit.ReasonHours, len(c.Hours) == 0, "there are no hours"},
		{admit.ReasonTotalLimit, !a.rules.Refuse, waitFirst},
		{admit.ReasonLimit, c.Max == 0, "there is no max"},
		{admit.ReasonLimit, !a.rules.Refuse, waitFirst},
		{admit.ReasonSourceLimit, c.MaxPerSource == 0 && !sourceMax, "there is no max_per_source"},
		{admit.ReasonSourceLimit, !a.rules.Refuse, waitFirst},
		{admit.ReasonRate, c.Rate.Count == 0, "there is no rate"},
		{admit.ReasonRate, !a.rules.Refuse, waitFirst},
		{admit.ReasonSourceRate, c.RatePerSource.Count == 0 && !sourceRate, "there is no rate_per_source"},
		{admit.ReasonSourceRate, !a.rules.Refuse, waitFirst},
		{admit.ReasonLoad, !a.rules.Refuse, waitFirst},
		{admit.ReasonProxy, len(c.Proxy.From) == 0, "there is no proxy_protocol"},
		{admit.ReasonQueueFull, a.rules.Refuse, "with on_limit: refuse nobody waits"},
		{admit.ReasonQueueTimeout, a.rules.Refuse, "with on_limit: refuse nobody waits"},
		{admit.ReasonQueueFull, a.inKernel(), waitInKernel},
		{admit.ReasonQueueTimeout, a.inKernel(), waitInKernel},
		{admit.ReasonFailing, c.Failures.After == 0, "there is no failures"},
		{admit.ReasonSpawn, c.Builtin == config.BuiltinMux, "no program is started"},
		{admit.ReasonSpawn, !c.Keep, "with keep: false superd has the connection no more by then"},
	} {
		if x.reason == r && x.is {
			return x.why
		}
	}
	return ""
}
