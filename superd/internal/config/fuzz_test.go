package config

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzParse wants an answer to every text: a Config, or Problems with places.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			f.Add(contents(f, path))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data, fakeSystem{})
		if err == nil {
			checkComplete(t, c)
			return
		}
		var problems Problems
		if !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("error is %#v", err)
		}
		for _, p := range problems {
			if p.At.Line < 1 || p.At.Column < 1 || p.What == "" {
				t.Errorf("incomplete: %#v", p)
			}
		}
	})
}

// checkComplete looks for what a Config without an error always has.
func checkComplete(t *testing.T, c *Config) {
	for _, s := range c.Services {
		if len(s.Listen) == 0 && s.Mux == "" || (len(s.Run) == 0) == (s.Builtin == "") || s.Timeout.Stop <= 0 {
			t.Errorf("incomplete: %+v", s)
		}
		checkWalls(t, s)
		checkAccess(t, s)
		for i := range s.Listen {
			checkListener(t, &s.Listen[i])
		}
	}
}

// checkListener looks for what no socket can be opened as.
func checkListener(t *testing.T, l *Listener) {
	internet := l.Addr.IsValid() && l.Type == "" && l.TOS&3 == 0 && l.RcvBuf <= largestBuffer && len(l.Device) <= longestDevice
	possible := map[Family]bool{
		TCP:       internet,
		UDP:       internet && !l.MPTCP && l.DeferAccept == 0 && l.Backlog == 0,
		Unix:      checkSocketName(l.Name) == nil && l.Type != "" && l.Mode <= 0o777,
		VSock:     l.Port != AnyCID && l.Type != "" && l.Type != Datagram,
		Inherited: checkDescriptorName(l.Name) == nil && l.Type == "",
	}
	if !possible[l.Family] || l.Place() == "" || l.At.Line < 1 || l.Family != Unix && (l.Mode != 0 || l.Owner+l.Group != "") {
		t.Errorf("impossible: %+v", l)
	}
}

// checkAccess looks for what the admission to a service can never be.
func checkAccess(t *testing.T, s *Service) {
	for _, r := range s.Rules {
		if r.Spec.Kind == NoSpec || r.At.Line < 1 || r.Path == "" || r.Deny && r.Override != nil || !r.Deny && !s.Restricted {
			t.Errorf("impossible: %+v", r)
		}
	}
	if s.Queue.Length < 1 || s.Queue.Timeout <= 0 || s.SourcePrefix.IPv4 < 1 || s.SourcePrefix.IPv6 < 1 || s.OnLimit == "" {
		t.Errorf("impossible: %+v", s)
	}
	if (s.Proxy.Timeout > 0) != (len(s.Proxy.From) > 0) || (s.Ban.After > 0) != (s.Ban.For > 0) || (s.Failures.After > 0) != (s.Failures.Pause > 0) {
		t.Errorf("impossible: %+v", s)
	}
	for reason, text := range s.RefuseText {
		if !slices.Contains(reasons, reason) || text == "" || len(text) > longestRefusal {
			t.Errorf("impossible: %s: %q", reason, text)
		}
	}
}

// checkWalls looks for what the walls of a service can never be.
func checkWalls(t *testing.T, s *Service) {
	for _, l := range s.Rlimits {
		if l.Name == "" || l.Soft > l.Hard || l.Name == "nofile" && l.Soft < 3 {
			t.Errorf("impossible: %+v", l)
		}
	}
	for _, p := range slices.Concat(s.Sandbox.Read, s.Sandbox.Write, s.Sandbox.Exec) {
		if !strings.HasPrefix(p, "/") || !s.Sandbox.Confined {
			t.Errorf("impossible path %q: %+v", p, s.Sandbox)
		}
	}
	if w := s.Sandbox; w.Preset == "" || w.SystemCalls == "" || !w.NoNewPrivs && (w.Confined || w.SystemCalls != "all") {
		t.Errorf("impossible: %+v", w)
	}
	if c := s.Cgroup; c.On != (c.Memory > 0 || c.Tasks > 0 || c.CPU > 0) || c.PerConnection && !c.On {
		t.Errorf("impossible: %+v", c)
	}
}

// isMistake wants an error that fits on a line, in the terms of the file.
func isMistake(t *testing.T, err error) {
	t.Helper()
	if _, is := err.(mistake); !is || strings.ContainsAny(hinted(err), "\n\r\x00") {
		t.Errorf("not a mistake that fits on a line: %#v", err)
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, seed := range []string{
		"", "/", "//", "10.0.0.0/8", "1.2.3.4/33", "/+24", "//24", "01.2.3.4", "+1.2.3.4", "ff::ff/129", "256.1.1.1", "::/0", "0.0.0.0/0",
		"::ffff:1.2.3.4/95", "::ffff:1.2.3.4/96", "::ffff:0:0/95", "::1.2.3.4", "fe80::1%eth0/64", "[::1]", "10.0.0.0/255.0.0.0",
		"uid:0", "gid:adm", "uid:4294967295", "uid::1", "1.2.3.4\n", "1.2.3.4/٣", "10.0.0.0/18446744073709551624", "uid:\x00", "gid:00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, canonical, err := ParseSpec(text)
		if err != nil {
			isMistake(t, err)
			return
		}
		again, more, err := ParseSpec(s.String())
		if err != nil || again != s || more != "" {
			t.Errorf("%q is %s, which is read as %s, %q, %v", text, s, again, more, err)
		}
		if canonical != "" && canonical != s.String() {
			t.Errorf("%q: %s, canonical %s", text, s, canonical)
		}
		if p := s.Network; p.IsValid() && (p != p.Masked() || p.Addr().Is4In6() && p.Bits() >= mappedBits) {
			t.Errorf("%q: %v", text, p)
		}
	})
}

func FuzzParseRules(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "# nobody\n10.0.0.0/8 # office\r\n::1", "10.0.0.0/8 11.0.0.0/8", "10.1.0.0/8\n10.0.0.0/8\n10.0.0.0/9\n10.128.0.0/9",
		"uid:1\ngid:1", "\xff\xfe", "1.2.3.4#", "#\r\n#", "\x00", "@/etc/more", "\ufeff::1", "\u00a0::1\u2028", strings.Repeat("x\n", 200),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := ParseRules("f", data)
		lines := strings.Count(string(data), "\n") + 1
		if len(r.Rules)+len(r.Problems) > lines+1 || len(r.Warnings) > mostWarned+1 || len(r.Problems) > mostWrong+1 {
			t.Fatalf("%d rules, %d warnings, %d wrong, on %d lines", len(r.Rules), len(r.Warnings), len(r.Problems), lines)
		}
		for _, p := range append(r.Problems, r.Warnings...) {
			if p.At.Line < 1 || p.At.Line > lines+1 || p.At.Column < 1 || strings.ContainsAny(p.Error(), "\n\r\x00") {
				t.Errorf("a problem nowhere: %#v", p)
			}
		}
		for _, rule := range r.Rules {
			if rule.Spec.Kind == NoSpec || rule.At.Line < 1 || rule.At.Line > lines {
				t.Errorf("a rule about nobody: %#v", rule)
			}
		}
	})
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
		again, err := ParseHours(h.Text, time.UTC)
		if err != nil || again.Days != h.Days || !slices.Equal(again.Spans, h.Spans) || again.Place.String() != h.Place.String() {
			t.Errorf("%q is read as %v, %v", text, again, err)
		}
		for _, s := range h.Spans {
			if s.From < 0 || s.From >= minutesPerDay || s.To <= s.From || s.To >= 2*minutesPerDay {
				t.Errorf("%q: %v", text, s)
			}
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
		if r.Count < 1 || r.Count > mostRate || r.Burst < 1 || r.Burst > mostRate || r.Per < time.Second {
			t.Errorf("%q: %+v", text, r)
		}
	})
}
