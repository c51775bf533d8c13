package admit

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseSpec(t *testing.T) {
	for _, x := range []struct{ text, want, canonical string }{
		{"10.0.0.0/8", "10.0.0.0/8", ""},
		{"192.0.2.1", "192.0.2.1", ""},
		{"192.0.2.1/32", "192.0.2.1", ""},
		{"0.0.0.0/0", "0.0.0.0/0", ""},
		{"::/0", "::/0", ""},
		{"2001:db8::/32", "2001:db8::/32", ""},
		{"2001:0DB8::1", "2001:db8::1", ""},
		{"::ffff:192.0.2.0/120", "192.0.2.0/24", ""},
		{"::ffff:192.0.2.1", "192.0.2.1", ""},
		{"::ffff:0:0/96", "0.0.0.0/0", ""},
		{"10.1.2.3/8", "10.0.0.0/8", "10.0.0.0/8"},
		{"2001:db8::1/32", "2001:db8::/32", "2001:db8::/32"},
		{"::ffff:10.1.2.3/104", "10.0.0.0/8", "10.0.0.0/8"},
		{"uid:1000", "uid:1000", ""},
		{"uid:alice", "uid:501", ""},
		{"gid:adm", "gid:4", ""},
		{"gid:4294967294", "gid:4294967294", ""},
	} {
		s, canonical, err := ParseSpec(x.text, fakeNames{})
		if err != nil || s.String() != x.want || canonical != x.canonical {
			t.Errorf("%s: %s, %q, %v; want %s, %q", x.text, s, canonical, err, x.want, x.canonical)
		}
		if again, _, err := ParseSpec(s.String(), nil); again != s || err != nil {
			t.Errorf("%s: %s is read as %s, %v", x.text, s, again, err)
		}
	}
}

type fakeNames struct{}

func (fakeNames) User(name string) (uint32, error) {
	if name == "alice" {
		return 501, nil
	}
	return 0, errors.New("there is no such user")
}

func (fakeNames) Group(name string) (uint32, error) {
	if name == "adm" {
		return 4, nil
	}
	return 0, errors.New("there is no such group")
}

func TestParseSpecErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                     `is empty`,
		"1.2.3.4/33":           `in "1.2.3.4/33", the length 33 is more than 32`,
		"/+24":                 `"/+24" has no address before the / (write it like 10.0.0.0/8)`,
		"//24":                 `"//24" has no address before the / (write it like 10.0.0.0/8)`,
		"01.2.3.4":             `in "01.2.3.4", "01" has a leading zero (some programs would take it for octal)`,
		"1.2.3.00":             `in "1.2.3.00", "00" has a leading zero (some programs would take it for octal)`,
		"+1.2.3.4":             `in "+1.2.3.4", "+1" is not a number`,
		"-1.2.3.4":             `in "-1.2.3.4", "-1" is not a number`,
		"ff::ff/129":           `in "ff::ff/129", the length 129 is more than 128`,
		"256.1.1.1":            `in "256.1.1.1", 256 is more than 255`,
		"1.1.1.99999999999999": `in "1.1.1.99999999999999", 99999999999999 is more than 255`,
		"1.2.3":                `"1.2.3" does not have the four numbers of an IPv4 address (write networks like 10.0.0.0/8)`,
		"10.":                  `"10." does not have the four numbers of an IPv4 address (write networks like 10.0.0.0/8)`,
		"1.2.3.4.5":            `"1.2.3.4.5" does not have the four numbers of an IPv4 address (write networks like 10.0.0.0/8)`,
		"10/8":                 `"10/8" does not have the four numbers of an IPv4 address (write networks like 10.0.0.0/8)`,
		"10.0.0.0/":            `"10.0.0.0/" has no length after the /`,
		"10.0.0.0/+8":          `in "10.0.0.0/+8", the length "+8" is not a number`,
		"10.0.0.0/08":          `in "10.0.0.0/08", the length "08" has a leading zero`,
		"10.0.0.0/8/8":         `in "10.0.0.0/8/8", the length "8/8" is not a number`,
		"10.0.0.0/8 ":          `in "10.0.0.0/8 ", the length "8 " is not a number`,
		"10.0.0.0/255.0.0.0":   `"10.0.0.0/255.0.0.0" has a mask where a length is expected (write /8)`,
		"10.0.0.0/255.0.255.0": `"10.0.0.0/255.0.255.0" has a mask where a length is expected`,
		"localhost":            `"localhost" is not an address (names of hosts are not accepted: they change)`,
		"10.0.0.1-10.0.0.5":    `"10.0.0.1-10.0.0.5" does not have the four numbers of an IPv4 address (write networks like 10.0.0.0/8)`,
		"fe80::1%eth0":         `"fe80::1%eth0" has a zone, which no rule looks at (leave the zone out)`,
		"[::1]":                `"[::1]" has brackets (leave the brackets out)`,
		":::":                  `":::" is not an IPv6 address`,
		"1::2::3/64":           `"1::2::3/64" is not an IPv6 address`,
		"uid:":                 `"uid:" names nobody (write uid:1000, or gid:adm)`,
		"uid:4294967295":       `"uid:4294967295" is more than the highest number, 4294967294`,
		"uid:-1":               `"uid:-1": there is no such user`,
		"gid:nope":             `"gid:nope": there is no such group`,
	} {
		_, _, err := ParseSpec(text, fakeNames{})
		var m *Mistake
		if !errors.As(err, &m) || err.Error() != want {
			t.Errorf("%q: %v\nwant    %s", text, err, want)
		}
	}
	if _, _, err := ParseSpec("uid:alice", nil); err == nil || !strings.Contains(err.Error(), "is not known") {
		t.Errorf("a name that nobody can look up: %v", err)
	}
}

func TestParseRules(t *testing.T) {
	const text = "# the office\n10.0.0.0/8\t# all of it\r\n\n  192.0.2.1  \n1.2.3.4/33\n10.1.2.3/16\n10.0.0.0/8, 11.0.0.0/8\nuid:alice"
	rules, warnings, wrong := ParseRules("office", []byte(text), true, fakeNames{})
	want := []string{
		"deny 10.0.0.0/8 (office:2:1)", "deny 192.0.2.1 (office:4:3)",
		"deny 10.1.2.3/16 (office:6:1)", "deny uid:alice (office:8:1)",
	}
	if len(rules) != len(want) {
		t.Fatalf("%d rules: %v", len(rules), rules)
	}
	for i := range rules {
		if rules[i].String() != want[i] {
			t.Errorf("%s, want %s", &rules[i], want[i])
		}
	}
	if len(warnings) != 1 || warnings[0].Line != 6 || warnings[0].Error() != `"10.1.2.3/16" has bits beyond its network (write 10.1.0.0/16)` {
		t.Errorf("warnings: %v", warnings)
	}
	if len(wrong) != 2 || wrong[0].Line != 5 || wrong[1].Line != 7 || wrong[1].Error() != `"10.0.0.0/8, 11.0.0.0/8" is more than one rule (write one rule a line)` {
		t.Errorf("wrong: %v", wrong)
	}
	if _, _, wrong := ParseRules("long", []byte(strings.Repeat("1", longestLine+1)), false, nil); len(wrong) != 1 {
		t.Errorf("a long line: %v", wrong)
	}
}

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
		{"twice", true, specs(false, "10.0.0.0/8", "10.0.0.0/8"), []string{"10.0.0.0/8: repeats another rule"}},
		{"equal and denied", true, append(specs(false, "10.0.0.0/8"), specs(true, "10.0.0.0/8")...), []string{"10.0.0.0/8: the same is denied"}},
		{"inside a wider one", true, specs(false, "10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "2001:db8:1::/48"), []string{
			"10.1.0.0/16: says what a wider rule says", "2001:db8:1::/48: says what a wider rule says"}},
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
			r := Rule{Spec: Network(p), Deny: rapid.Bool().Draw(t, "deny")}
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
		wider := rules[j].Spec.network
		if i != j && found[&rules[j]] && wider.Bits() < rules[i].Spec.network.Bits() && wider.Overlaps(rules[i].Spec.network) {
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
