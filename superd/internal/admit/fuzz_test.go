package admit

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func isMistake(t *testing.T, err error) {
	t.Helper()
	var m *Mistake
	if !errors.As(err, &m) || m.What == "" || strings.ContainsAny(m.Error(), "\n\r\x00") {
		t.Errorf("not a mistake that fits on a line: %#v", err)
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, seed := range []string{
		"", "/", "//", "10.0.0.0/8", "1.2.3.4/33", "/+24", "//24", "01.2.3.4", "+1.2.3.4", "ff::ff/129", "256.1.1.1", "::/0", "0.0.0.0/0",
		"::ffff:1.2.3.4/95", "::ffff:1.2.3.4/96", "::ffff:0:0/95", "::1.2.3.4", "fe80::1%eth0/64", "[::1]", "10.0.0.0/255.0.0.0",
		"uid:0", "gid:adm", "uid:4294967295", "uid::1", "1.2.3.4\n", "1.2.3.4/٣", "10.0.0.0/18446744073709551624",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, canonical, err := ParseSpec(text, nil)
		if err != nil {
			isMistake(t, err)
			return
		}
		again, more, err := ParseSpec(s.String(), nil)
		if err != nil || again != s || more != "" {
			t.Errorf("%q is %s, which is read as %s, %q, %v", text, s, again, more, err)
		}
		if canonical != "" && canonical != s.String() {
			t.Errorf("%q: %s, canonical %s", text, s, canonical)
		}
		if p := s.Prefix(); p.IsValid() && (p != p.Masked() || p.Addr().Is4In6() && p.Bits() >= mappedBits) {
			t.Errorf("%q: %v", text, p)
		}
		if p := s.Prefix(); p.IsValid() && !s.Matches(&Client{Addr: p.Addr()}) && !p.Addr().Is4In6() {
			t.Errorf("%s does not match its own address", s)
		}
	})
}

func FuzzParseRules(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "# nobody\n10.0.0.0/8 # office\r\n::1", "10.0.0.0/8 11.0.0.0/8", "10.1.0.0/8\n10.0.0.0/8\n10.0.0.0/9\n10.128.0.0/9",
		"uid:1\ngid:1", "\xff\xfe", "1.2.3.4#", "#\r\n#", "\x00", "::/0\n::/1\n8000::/1\n0.0.0.0/0",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rules, warnings, wrong := ParseRules("f", data, false, nil)
		lines := strings.Count(string(data), "\n") + 1
		if len(rules)+len(wrong) > lines || len(warnings) > len(rules) {
			t.Fatalf("%d rules, %d warnings, %d wrong, on %d lines", len(rules), len(warnings), len(wrong), lines)
		}
		for _, m := range append(wrong, warnings...) {
			isMistake(t, m)
			if m.Line < 1 || m.Line > lines {
				t.Errorf("line %d of %d", m.Line, lines)
			}
		}
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
		p := rules[i].Spec.Prefix()
		if !p.IsValid() || p.Addr().Is4In6() { // as a client, that is an IPv4 address
			continue
		}
		if _, _, allowed := a.of(&Client{Addr: p.Addr()}, &quota{}); !allowed {
			t.Errorf("%s does not let in its first address", &rules[i])
		}
	}
}

func FuzzParseHours(f *testing.F) {
	for _, seed := range []string{
		"", "Mon-Fri 08:00-18:00", "Sat,Sun 22:00-06:00 Europe/Berlin", "00:00-24:00", "24:00-00:00", "mon-MONDAY", "Mon-Fri,Sun 8:00-9:00,10:00-11:00 UTC",
		"Mon,", "-", "08:00", "08:00-", ":-:", "Mon Local", "Mon /etc", "99:99-00:00", "Mon 1:1-2:2",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, err := ParseHours(text, time.UTC)
		if err != nil {
			isMistake(t, err)
			return
		}
		again, err := ParseHours(h.String(), time.UTC)
		if err != nil || again.week != h.week || again.place.String() != h.place.String() {
			t.Errorf("%q is read as %q, %v", text, h, err)
		}
		if h.week == (week{}) {
			t.Errorf("%q is never", text)
		}
		now := time.Date(2026, 10, 24, 12, 0, 0, 0, time.UTC)
		if next, ok := NextOpening([]*Hours{h}, now); !ok || !h.Open(next) {
			t.Errorf("%q opens at %v, %v", text, next, ok)
		}
	})
}

func FuzzParseRate(f *testing.F) {
	for _, seed := range []string{"", "10/s", "10/m burst 50", "1000000/h burst 1000000", "0/s", "1/s burst 0", "-1/s", "1/", "/", "burst", "1/s burst burst", "1.5/s", "00001/s", "9999999999999999999/s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRate(text)
		if err != nil {
			isMistake(t, err)
			return
		}
		if again, err := ParseRate(r.String()); again != r || err != nil {
			t.Errorf("%q is %s, which is read as %s, %v", text, r, again, err)
		}
		p := r.pace()
		if p.every <= 0 || p.depth < p.every || p.depth/p.every != time.Duration(r.Burst) {
			t.Errorf("%s: %+v", r, p)
		}
	})
}
