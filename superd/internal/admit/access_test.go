package admit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"superd/superd/internal/config"
)

func specs(deny bool, texts ...string) (rules []Rule) {
	for _, text := range texts {
		rules = append(rules, Rule{Spec: mustSpec(text), Deny: deny, Text: text})
	}
	return rules
}

func addressClient(text string) Client { return Client{Addr: netip.MustParseAddr(text)} }

func TestAccess(t *testing.T) {
	inNet := specs(false, "10.0.0.0/8", "2001:db8::/32", "uid:7", "gid:4", "gid:6")
	out := specs(true, "10.1.0.0/16", "10.0.0.0/8", "gid:5", "gid:6")
	both := append(append(specs(false, "10.1.2.0/24"), inNet[1:]...), out...)
	for _, x := range []struct {
		name       string
		restricted bool
		rules      []Rule
		client     Client
		want       bool
		rule       string
	}{
		{"no list", false, nil, addressClient("192.0.2.1"), true, ""},
		{"an empty allow list", true, nil, addressClient("192.0.2.1"), false, ""},
		{"allowed", true, inNet, addressClient("10.1.2.3"), true, "allow 10.0.0.0/8"},
		{"v4-mapped is v4", true, inNet, addressClient("::ffff:10.1.2.3"), true, "allow 10.0.0.0/8"},
		{"a zone does not matter", true, inNet, addressClient("2001:db8::1%x"), true, "allow 2001:db8::/32"},
		{"not allowed", true, inNet, addressClient("11.0.0.1"), false, ""},
		{"not denied", false, out, addressClient("11.0.0.1"), true, ""},
		{"the most specific allows", true, both, addressClient("10.1.2.3"), true, "allow 10.1.2.0/24"},
		{"the most specific denies", true, both, addressClient("10.1.3.3"), false, "deny 10.1.0.0/16"},
		{"equal: deny", true, append(inNet[:1:1], out[1]), addressClient("10.2.0.1"), false, "deny 10.0.0.0/8"},
		{"equal, the other order: deny", true, append(out[1:2:2], inNet[0]), addressClient("10.2.0.1"), false, "deny 10.0.0.0/8"},
		{"/0 is all of its family", true, specs(false, "0.0.0.0/0"), addressClient("203.0.113.9"), true, "allow 0.0.0.0/0"},
		{"/0 is not the other family", true, specs(false, "0.0.0.0/0"), addressClient("2001:db8::1"), false, ""},
		{"::/0 is not v4-mapped", true, specs(false, "::/0"), addressClient("::ffff:10.1.2.3"), false, ""},
		{"a user", true, inNet, Client{Unix: true, UID: 7, GID: 9}, true, "allow uid:7"},
		{"a group", true, inNet, Client{Unix: true, UID: 8, GID: 4}, true, "allow gid:4"},
		{"a supplementary group", true, inNet, Client{Unix: true, UID: 8, GID: 9, Groups: []uint32{1, 4}}, true, "allow gid:4"},
		{"of groups, deny", true, both, Client{Unix: true, UID: 8, GID: 4, Groups: []uint32{5}}, false, "deny gid:5"},
		{"one group both ways", true, both, Client{Unix: true, UID: 8, GID: 6}, false, "deny gid:6"},
		{"a user is more than a group", true, both, Client{Unix: true, UID: 7, GID: 5}, true, "allow uid:7"},
		{"uid 0 is not nobody", true, inNet, Client{}, false, ""},
		{"a process is no address", true, specs(false, "0.0.0.0/0", "::/0"), Client{Unix: true}, false, ""},
		{"an address is no process", true, specs(false, "uid:0", "gid:0"), addressClient("10.0.0.1"), false, ""},
	} {
		g := NewHouse(Limits{}, nil).Gate("s", NewPolicy(Rules{Restricted: x.restricted, Access: x.rules}), nil)
		d := g.Ask(x.client, Moment{})
		rule := ""
		if d.Rule != nil {
			rule = d.Rule.String()
		}
		if (d.Verdict == Entered) != x.want || d.Verdict == Refused && d.Reason != ReasonAddress || rule != x.rule {
			t.Errorf("%s: %v for %s by %q, want %v by %q", x.name, d.Verdict, d.Reason, rule, x.want, x.rule)
		}
	}
}

func TestShadowed(t *testing.T) {
	for _, x := range []struct {
		name       string
		restricted bool
		rules      []Rule
		want       []string
	}{
		{"nothing", true, append(specs(false, "10.0.0.0/8", "10.1.1.0/24"), specs(true, "10.1.0.0/16")...), nil},
		{"twice", true, specs(false, "10.0.0.0/8", "10.0.0.0/8"), []string{"10.0.0.0/8: it repeats another rule"}},
		{"equal and denied", true, append(specs(false, "10.0.0.0/8"), specs(true, "10.0.0.0/8")...), []string{"10.0.0.0/8: the same is denied"}},
		{"inside a wider one", true, specs(false, "10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "2001:db8:1::/48"), []string{
			"10.1.0.0/16: it says what a wider rule says", "2001:db8:1::/48: it says what a wider rule says"}},
		{"filled up", true, append(specs(false, "10.0.0.0/8"), specs(true, "10.0.0.0/9", "10.128.0.0/10", "10.192.0.0/10")...), []string{
			"10.0.0.0/8: more specific rules leave nobody to it"}},
		{"almost filled up", true, append(specs(false, "10.0.0.0/8"), specs(true, "10.0.0.0/9", "10.128.0.0/10", "10.192.0.0/11")...), nil},
		{"denied anyway", true, append(specs(false, "10.0.0.0/8"), specs(true, "11.0.0.0/8", "uid:5")...), []string{
			"11.0.0.0/8: whom no rule allows is refused anyway", "uid:5: whom no rule allows is refused anyway"}},
		{"not denied anyway", false, specs(true, "11.0.0.0/8"), nil},
		{"a user of an allowed group", true, append(specs(false, "gid:4"), specs(true, "uid:5")...), nil},
		{"other limits", true, []Rule{{Spec: mustSpec("10.0.0.0/8")}, {Spec: mustSpec("10.1.0.0/16"), MaxPerSource: 3}}, nil},
	} {
		var got []string
		for _, f := range Shadowed(x.restricted, x.rules) {
			got = append(got, f.Rule.Text+": "+f.Why)
		}
		if strings.Join(got, "; ") != strings.Join(x.want, "; ") {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
	}
}

// Each finding can be left out, and what is not found can not.
func TestShadowedMeansWhatItSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []Rule
		for range rapid.IntRange(0, 7).Draw(t, "rules") {
			p := netip.PrefixFrom(host(rapid.IntRange(0, 7).Draw(t, "host")).Addr, rapid.IntRange(29, 32).Draw(t, "bits"))
			r := Rule{Spec: config.Network(p), Deny: rapid.Bool().Draw(t, "deny")}
			if !r.Deny {
				r.MaxPerSource = rapid.IntRange(0, 1).Draw(t, "max")
			}
			rules = append(rules, r)
		}
		found := map[*Rule]bool{}
		for _, f := range Shadowed(true, rules) {
			found[f.Rule] = true
		}
		for i := range rules {
			without := slices.Delete(slices.Clone(rules), i, i+1)
			same := decisions(rules) == decisions(without)
			if found[&rules[i]] && !same {
				t.Fatalf("without %s it is another matter", &rules[i])
			}
			alone := !slices.ContainsFunc(without, func(r Rule) bool { return r.Spec == rules[i].Spec })
			if !found[&rules[i]] && same && alone && !insideFilled(rules, found, i) {
				t.Fatalf("%s is not missed", &rules[i])
			}
		}
	})
}

// insideFilled tells a rule that could go only because a wider one stays that
// could go as well.
func insideFilled(rules []Rule, found map[*Rule]bool, i int) bool {
	for j := range rules {
		wider := rules[j].Spec.Network
		if i != j && found[&rules[j]] && wider.Bits() < rules[i].Spec.Network.Bits() && wider.Overlaps(rules[i].Spec.Network) {
			return true
		}
	}
	return false
}

func decisions(rules []Rule) (list [9]string) {
	a := newAccess(true, rules, quota{})
	for i := range list {
		c := host(i)
		_, q, allowed := a.of(&c, &quota{})
		if allowed {
			list[i] = fmt.Sprint("allowed ", *q)
		}
	}
	return list
}
