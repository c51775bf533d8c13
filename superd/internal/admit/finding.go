package admit

import (
	"cmp"
	"net/netip"
	"slices"

	"superd/superd/internal/config"
)

// A Finding is a rule that could be left out: the client that it is about
// would be told the same.
type Finding struct {
	Rule  *Rule
	Other *Rule // that makes it so; nil when it takes several, or the lack of one
	Why   string
}

// Shadowed finds rules without effect, in the order of rules. Restricted says
// that an allow list is present.
func Shadowed(restricted bool, rules []Rule) (findings []Finding) {
	k := inspector{rules: rules, holds: map[config.Spec]int{}, restricted: restricted}
	findings = k.repeated()
	k.nest()
	for i := range rules {
		if f, is := k.useless(i); is {
			findings = append(findings, f)
		}
	}
	slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(k.indexOf(a.Rule), k.indexOf(b.Rule)) })
	return findings
}

// inspector knows how the networks of rules lie in one another.
type inspector struct {
	rules      []Rule
	restricted bool
	holds      map[config.Spec]int // the rule that holds for a Spec
	around     map[int]int         // the smallest network around a rule's
	filled     map[int]bool        // networks that smaller ones fill up
	overrules  map[int]bool        // that hold against another rule for the same
	index      map[*Rule]int
}

func (k *inspector) indexOf(r *Rule) int { return k.index[r] }

// repeated finds rules whose very Spec another rule decides.
func (k *inspector) repeated() (findings []Finding) {
	k.index, k.overrules = map[*Rule]int{}, map[int]bool{}
	for i := range k.rules {
		r := &k.rules[i]
		k.index[r] = i
		j, taken := k.holds[r.Spec]
		other := &k.rules[j]
		switch {
		case !taken:
			k.holds[r.Spec] = i
		case r.Deny && !other.Deny:
			k.holds[r.Spec], k.overrules[i] = i, true
			findings = append(findings, Finding{other, r, "the same is denied"})
		case !r.Deny && other.Deny:
			k.overrules[j] = true
			findings = append(findings, Finding{r, other, "the same is denied"})
		default:
			k.overrules[j] = k.overrules[j] || !r.sameEffect(other)
			findings = append(findings, Finding{r, other, "it repeats another rule"})
		}
	}
	return findings
}

// nest finds around and filled in one walk over the networks in order, which
// is such that those inside follow the one that they are in.
func (k *inspector) nest() {
	k.around, k.filled = map[int]int{}, map[int]bool{}
	var open []enclosure
	for _, i := range k.inOrder() {
		p := k.rules[i].Spec.Network
		for len(open) > 0 && !k.rules[open[len(open)-1].rule].Spec.Network.Overlaps(p) {
			open = k.closeLast(open)
		}
		if len(open) > 0 {
			k.around[i] = open[len(open)-1].rule
		}
		open = append(open, enclosure{rule: i})
	}
	for len(open) > 0 {
		open = k.closeLast(open)
	}
}

// An enclosure is a network on the way, and what has been found inside,
// adjacent halves put together.
type enclosure struct {
	rule   int
	inside []netip.Prefix
}

// closeLast ends the last network, and tells the one around it.
func (k *inspector) closeLast(open []enclosure) []enclosure {
	last := open[len(open)-1]
	open = open[:len(open)-1]
	p := k.rules[last.rule].Spec.Network
	if len(last.inside) == 1 && last.inside[0] == p {
		k.filled[last.rule] = true
	}
	if len(open) > 0 {
		around := &open[len(open)-1]
		around.inside = joined(append(around.inside, p))
	}
	return open
}

// joined makes one of the last two networks while they are halves of it.
func joined(list []netip.Prefix) []netip.Prefix {
	for len(list) >= 2 {
		a, b := list[len(list)-2], list[len(list)-1]
		if a.Bits() != b.Bits() || a.Bits() == 0 {
			break
		}
		whole := netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked()
		if !whole.Contains(b.Addr()) {
			break
		}
		list = append(list[:len(list)-2], whole)
	}
	return list
}

// inOrder are the rules that hold for a network, by address and then by size.
func (k *inspector) inOrder() (list []int) {
	for s, i := range k.holds {
		if s.Kind == config.NetworkSpec {
			list = append(list, i)
		}
	}
	slices.SortFunc(list, func(i, j int) int {
		p, q := k.rules[i].Spec.Network, k.rules[j].Spec.Network
		return cmp.Or(p.Addr().Compare(q.Addr()), cmp.Compare(p.Bits(), q.Bits()))
	})
	return list
}

// useless finds a rule that holds for its Spec but decides nothing.
func (k *inspector) useless(i int) (Finding, bool) {
	r := &k.rules[i]
	j, inside := k.around[i]
	switch {
	case k.holds[r.Spec] != i || k.overrules[i]:
	case k.filled[i]:
		return Finding{r, nil, "more specific rules leave nobody to it"}, true
	case inside && !k.filled[j] && r.sameEffect(&k.rules[j]):
		return Finding{r, &k.rules[j], "it says what a wider rule says"}, true
	case r.Deny && k.restricted && !inside && !k.exempts(r):
		return Finding{r, nil, "whom no rule allows is refused anyway"}, true
	}
	return Finding{}, false
}

// exempts tells whether a denied user or group may be of a group that is
// allowed.
func (k *inspector) exempts(r *Rule) bool {
	return r.Spec.Kind != config.NetworkSpec && slices.ContainsFunc(k.rules, func(other Rule) bool {
		return !other.Deny && other.Spec.Kind != config.NetworkSpec
	})
}

// sameEffect tells rules that treat a client alike. Data cannot be compared:
// two rules with any are taken to differ.
func (r *Rule) sameEffect(s *Rule) bool {
	return r.Deny == s.Deny && (r.Deny || r.MaxPerSource == s.MaxPerSource &&
		r.RatePerSource == s.RatePerSource && r.Data == nil && s.Data == nil)
}
