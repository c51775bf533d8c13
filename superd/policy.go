package main

import (
	"time"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/conn"
)

// An admission is what the file says about who may come in to a service, in
// the terms of those who decide, and of those who act on it.
type admission struct {
	service   *config.Service
	rules     admit.Rules
	policy    *admit.Policy            // the rules compiled
	findings  []admit.Finding          // rules without effect
	groups    bool                     // a rule is about a group
	overrides []*override              // that rules carry as their Data
	texts     [admit.NumReasons][]byte // what refused clients are told; nil for nothing
}

// An override is what differs for the clients of some rules. All rules that
// one item of allow stands for carry the same.
type override struct {
	rule     *config.Override // what the item says
	service  *config.Service  // as it is for them: its Env and Run are what their programs get
	owner    *service         // whose it is
	conn     conn.Service     // the owner's own but for the plan, once that is compiled
	sessions conn.Service     // the same for datagrams
}

// admissionOf looks the users and groups up that rules name. Its problems are
// those that nobody knows.
func admissionOf(c *config.Service, who *identities) (*admission, config.Problems) {
	a := &admission{service: c, rules: admit.Rules{
		Restricted:    c.Restricted,
		Hours:         c.Hours,
		Max:           c.Max,
		MaxPerSource:  c.MaxPerSource,
		Rate:          c.Rate,
		RatePerSource: c.RatePerSource,
		MaxLoad:       c.MaxLoad,
		SourcePrefix:  admit.Prefixes(c.SourcePrefix),
		Refuse:        c.OnLimit == "refuse",
		Queue:         admit.Queue{Length: c.Queue.Length, Timeout: bounded(c.Queue.Timeout)},
		Parks:         c.Queue.Named || len(c.Proxy.From) > 0 || c.Timeout.FirstByte > 0 || c.Builtin == config.BuiltinMux, // who has not shown anything takes no place
		Ban:           admit.Penalty{After: c.Ban.After, Within: bounded(c.Ban.Within), For: bounded(c.Ban.For)},
		Failures:      admit.Failures{After: c.Failures.After, Within: bounded(c.Failures.Within), Pause: bounded(c.Failures.Pause)},
		Trusted:       c.Proxy.From,
	}}
	for r := range a.texts {
		if text := c.RefuseText[admit.Reason(r).String()]; text != "" {
			a.texts[r] = []byte(text)
		}
	}
	if problems := a.addRules(who); len(problems) > 0 {
		return nil, problems
	}
	a.policy = admit.NewPolicy(a.rules)
	a.findings = admit.Shadowed(c.Restricted, a.rules.Access)
	return a, nil
}

// bounded keeps times that are added up from overflowing.
func bounded(d time.Duration) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	return min(d, century)
}

// mostUnknown bounds how many names are asked for in vain: the directory
// service may take its time for each.
const mostUnknown = 20

func (a *admission) addRules(who *identities) (problems config.Problems) {
	accounts := accounts{who, map[config.Spec]config.Spec{}}
	overrides := map[*config.Override]*override{}
	a.rules.Access = make([]admit.Rule, 0, len(a.service.Rules))
	for i := range a.service.Rules {
		r := &a.service.Rules[i]
		spec, err := accounts.numbered(r.Spec)
		if err != nil {
			problems = append(problems, config.Problem{At: r.At, Path: r.Path, What: err.Error(), Hint: "create it, or write its number"})
		}
		if len(problems) == mostUnknown {
			break
		}
		a.groups = a.groups || spec.Kind == config.GroupSpec
		rule := admit.Rule{Spec: spec, Deny: r.Deny, Text: asWritten(r), At: r.At, MaxPerSource: r.MaxPerSource, RatePerSource: r.RatePerSource}
		if o := r.Override; o != nil {
			if overrides[o] == nil {
				overrides[o] = &override{rule: o, service: a.service.Overridden(o)}
				a.overrides = append(a.overrides, overrides[o])
			}
			rule.Data = overrides[o]
		}
		a.rules.Access = append(a.rules.Access, rule)
	}
	return problems
}

// asWritten is a rule's text, which a number of an account cannot be made of.
func asWritten(r *config.Rule) string {
	if r.Spec.Name != "" && r.Text == "" {
		return r.Spec.String()
	}
	return r.Text
}

// accounts finds the numbers of users and groups, each once.
type accounts struct {
	who   *identities
	known map[config.Spec]config.Spec
}

// numbered is s with a number in place of a name.
func (a *accounts) numbered(s config.Spec) (config.Spec, error) {
	if s.Name == "" {
		return s, nil
	}
	if known, is := a.known[s]; is {
		return known, nil
	}
	found, err := a.find(s)
	if err == nil {
		a.known[s] = found
	}
	return found, err
}

func (a *accounts) find(s config.Spec) (config.Spec, error) {
	if s.Kind == config.GroupSpec {
		gid, _, err := a.who.databases.GroupID(s.Name)
		return config.Group(gid), err
	}
	id, err := a.who.lookUp(s.Name)
	if err != nil {
		return config.Spec{}, err
	}
	return config.User(id.UID), nil
}
