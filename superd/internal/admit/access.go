package admit

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"superd/superd/internal/config"
)

// access is who may come in at all: rules compiled for look-ups. It never
// changes.
type access struct {
	restricted bool // an allow list is there: whom no rule allows is refused
	rules      []entry
	networks   bart.Fast[held]
	users      map[uint32]held
	groups     map[uint32]held
}

// An entry is a rule and the limits of those that it lets in.
type entry struct {
	Rule
	quota quota
}

// quota is what one source may have.
type quota struct {
	max  int // live connections; 0 for no limit
	pace pace
}

// held is the index of the rule that holds, and what a decision needs to know
// of it, so that most need not look at the rule itself: of 100,000 it would
// not be in the cache.
type held int32

const (
	denies   held = 1 << iota
	differs       // its quota is not the usual one
	heldBits = iota
)

func newAccess(restricted bool, rules []Rule, usual quota) *access {
	a := &access{restricted: restricted, users: map[uint32]held{}, groups: map[uint32]held{}}
	a.rules = make([]entry, len(rules))
	for i, r := range rules {
		a.rules[i] = entry{r, usual.overridden(&r)}
		a.add(r.Spec, a.held(i, usual))
	}
	return a
}

func (q quota) overridden(r *Rule) quota {
	if r.MaxPerSource > 0 {
		q.max = r.MaxPerSource
	}
	if p := paceOf(r.RatePerSource); p.every > 0 {
		q.pace = p
	}
	return q
}

func (a *access) held(i int, usual quota) held {
	h := held(i << heldBits)
	if a.rules[i].Deny {
		h |= denies
	}
	if a.rules[i].quota != usual {
		h |= differs
	}
	return h
}

// add enters a rule under its Spec.
func (a *access) add(s config.Spec, h held) {
	switch s.Kind {
	case config.NetworkSpec:
		a.networks.Modify(s.Network, func(there held, taken bool) (held, bool) {
			return stronger(there, taken, h), false
		})
	case config.UserSpec:
		there, taken := a.users[s.ID]
		a.users[s.ID] = stronger(there, taken, h)
	case config.GroupSpec:
		there, taken := a.groups[s.ID]
		a.groups[s.ID] = stronger(there, taken, h)
	}
}

// stronger is the one of two that holds for one Spec: a denial, and else the
// first.
func stronger(there held, taken bool, h held) held {
	if !taken || h&denies > there&denies {
		return h
	}
	return there
}

// of is the rule that holds for a client, nil if none does, its quota, and
// whether the client may come in.
func (a *access) of(c *Client, usual *quota) (e *entry, q *quota, allowed bool) {
	h, found := a.lookUp(c)
	if !found {
		return nil, usual, !a.restricted
	}
	e = &a.rules[h>>heldBits]
	if h&differs != 0 {
		return e, &e.quota, h&denies == 0
	}
	return e, usual, h&denies == 0
}

func (a *access) lookUp(c *Client) (held, bool) {
	switch {
	case len(a.rules) == 0:
	case c.Addr.IsValid():
		return a.networks.Lookup(c.Addr)
	case c.Unix:
		return a.process(c)
	}
	return 0, false
}

// process looks for a user first, who is more specific than any group.
func (a *access) process(c *Client) (held, bool) {
	if h, found := a.users[c.UID]; found || len(a.groups) == 0 {
		return h, found
	}
	best, found := a.groups[c.GID]
	for _, gid := range c.Groups {
		if h, is := a.groups[gid]; is {
			best, found = stronger(best, found, h), true
		}
	}
	return best, found
}

// matches are all rules about a client, in the order of the file, for explain.
func (a *access) matches(c *Client) (list []*Rule) {
	for i := range a.rules {
		if matches(a.rules[i].Spec, c) {
			list = append(list, &a.rules[i].Rule)
		}
	}
	return list
}

// matches tells whether a client is among those that s is about.
func matches(s config.Spec, c *Client) bool {
	switch s.Kind {
	case config.NetworkSpec:
		return s.Network.Contains(c.plain().Addr)
	case config.UserSpec:
		return c.Unix && c.UID == s.ID
	case config.GroupSpec:
		return c.Unix && (c.GID == s.ID || contains(c.Groups, s.ID))
	}
	return false
}

func contains(groups []uint32, gid uint32) bool {
	for _, g := range groups {
		if g == gid {
			return true
		}
	}
	return false
}

// within tells whether an address is in one of a few networks.
func within(list []netip.Prefix, addr netip.Addr) bool {
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
