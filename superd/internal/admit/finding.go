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
	Index int   // of Rule, from 0
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
	slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(a.Index, b.Index) })
	return findings
}

// inspector knows how the networks of rules lie in one another.
type inspector struct {
	rules      []Rule
	restricted bool
	holds      map[config.Spec]int // the rule that holds for a Spec
	around     []int               // by rule, the smallest network around its own, or nothing
	filled     []bool              // by rule, whether smaller networks fill it up
	overrules  []bool              // by rule, whether it holds against another one for the same
}

// nothing is where a rule's index is expected and there is none.
const nothing = -1

// finding is about rule i, and rule j if there is one.
func (k *inspector) finding(i, j int, why string) Finding {
	f := Finding{Rule: &k.rules[i], Index: i, Why: why}
	if j != nothing {
		f.Other = &k.rules[j]
	}
	return f
}

// repeated finds rules whose very Spec another rule decides.
func (k *inspector) repeated() (findings []Finding) {
	k.overrules = make([]bool, len(k.rules))
	for i := range k.rules {
		r := &k.rules[i]
		j, taken := k.holds[r.Spec]
		other := &k.rules[j]
		switch {
		case !taken:
			k.holds[r.Spec] = i
		case r.Deny && !other.Deny:
			k.holds[r.Spec], k.overrules[i] = i, true
			findings = append(findings, k.finding(j, i, "the same is denied"))
		case !r.Deny && other.Deny:
			k.overrules[j] = true
			findings = append(findings, k.finding(i, j, "the same is denied"))
		default:
			k.overrules[j] = k.overrules[j] || !r.sameEffect(other)
			findings = append(findings, k.finding(i, j, "it repeats another rule"))
		}
	}
	return findings
}

// nest finds around and filled in one walk over the networks in order, which
// is such that those inside follow the one that they are in.
func (k *inspector) nest() {
	k.around, k.filled = slices.Repeat([]int{nothing}, len(k.rules)), make([]bool, len(k.rules))
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
	j := k.around[i]
	inside := j != nothing
	switch {
	case k.holds[r.Spec] != i || k.overrules[i]:
	case k.filled[i]:
		return k.finding(i, nothing, "more specific rules leave nobody to it"), true
	case inside && !k.filled[j] && r.sameEffect(&k.rules[j]):
		return k.finding(i, j, "it says what a wider rule says"), true
	case r.Deny && k.restricted && !inside && !k.exempts(r):
		return k.finding(i, nothing, "whom no rule allows is refused anyway"), true
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
