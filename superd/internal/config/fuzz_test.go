package config

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
		if len(s.Listen) == 0 || (len(s.Run) == 0) == (s.Builtin == "") || s.Timeout.Stop <= 0 {
			t.Errorf("incomplete: %+v", s)
		}
		checkWalls(t, s)
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
