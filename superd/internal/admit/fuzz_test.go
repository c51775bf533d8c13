package admit

import (
	"testing"
	"time"

	"superd/superd/internal/config"
)

// rulesOf are the allow rules of a file.
func rulesOf(data []byte) (rules []Rule) {
	for _, r := range config.ParseRules("f", data).Rules {
		rules = append(rules, Rule{Spec: r.Spec, Text: r.Text, At: r.At})
	}
	return rules
}

// FuzzRules wants every file of rules to let in whom it names, and no finding
// about it without its rule.
func FuzzRules(f *testing.F) {
	for _, seed := range []string{
		"", "# nobody\n10.0.0.0/8 # office\r\n::1", "10.1.0.0/8\n10.0.0.0/8\n10.0.0.0/9\n10.128.0.0/9",
		"uid:1\ngid:1", "::/0\n::/1\n8000::/1\n0.0.0.0/0", "::ffff:1.2.3.4/95\n::ffff:1.2.3.4/96\n::ffff:0:0/95",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rules := rulesOf(data)
		for _, x := range Shadowed(true, rules) {
			if x.Rule == nil || x.Why == "" || x.Rule == x.Other {
				t.Errorf("finding: %+v", x)
			}
		}
		seemsAllowed(t, rules)
	})
}

// seemsAllowed asks about the first address of each rule.
func seemsAllowed(t *testing.T, rules []Rule) {
	a := newAccess(true, rules, quota{})
	for i := range rules {
		p := rules[i].Spec.Network
		if !p.IsValid() || p.Addr().Is4In6() { // as a client, that is an IPv4 address
			continue
		}
		if !matches(rules[i].Spec, &Client{Addr: p.Addr()}) {
			t.Errorf("%s does not match its own address", &rules[i])
		}
		if _, _, allowed := a.of(&Client{Addr: p.Addr()}, &quota{}); !allowed {
			t.Errorf("%s does not let in its first address", &rules[i])
		}
	}
}

// FuzzHours wants hours that can be read to come, and to come next week.
func FuzzHours(f *testing.F) {
	for _, seed := range []string{"Mon-Fri 08:00-18:00", "Sat,Sun 22:00-06:00 Europe/Berlin", "00:00-24:00", "mon-MONDAY", "Mon 1:01-1:02"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, err := config.ParseHours(text, time.UTC)
		if err != nil {
			return
		}
		table := newTimetable(&h)
		if table.week == (week{}) {
			t.Errorf("%q is never", text)
		}
		now := time.Date(2026, 10, 24, 12, 0, 0, 0, time.UTC)
		if next, ok := nextOpening([]timetable{table}, now); !ok || !table.open(next) {
			t.Errorf("%q opens at %v, %v", text, next, ok)
		}
	})
}

// FuzzPace wants every rate that can be read to have a pace.
func FuzzPace(f *testing.F) {
	for _, seed := range []string{"10/s", "10/m burst 50", "1000000/h burst 1000000", "1000000/s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := config.ParseRate(text)
		if err != nil {
			return
		}
		if p := paceOf(r); p.every <= 0 || p.depth < p.every || p.depth/p.every != time.Duration(r.Burst) {
			t.Errorf("%s: %+v", r, p)
		}
	})
}
