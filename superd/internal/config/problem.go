package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// mostPrinted bounds what one broken file can put on a terminal.
const mostPrinted = 100

// Error is the problem as one line: FILE:LINE:COLUMN: PATH: what (hint).
func (p Problem) Error() string {
	line := p.At.String() + ": "
	if p.Path != "" {
		line += p.Path + ": "
	}
	line += p.What
	if p.Hint != "" {
		line += " (" + p.Hint + ")"
	}
	return line
}

// String is FILE:LINE:COLUMN, as compilers write it.
func (p Position) String() string {
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

func (p Position) compare(q Position) int {
	return cmp.Or(cmp.Compare(p.File, q.File), cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column))
}

// Problems is everything that is wrong with a file and what it includes, in the
// order in which they are read.
type Problems []Problem

// Error has one line for each problem, of at most the first hundred.
func (ps Problems) Error() string {
	lines := make([]string, 0, mostPrinted+1)
	for _, p := range ps[:min(len(ps), mostPrinted)] {
		lines = append(lines, p.Error())
	}
	if more := len(ps) - mostPrinted; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// Sort brings problems into the order in which the files are read.
func (c *Config) Sort(ps Problems) {
	order := map[string]int{}
	for i, in := range c.Files.Included {
		order[in.Path] = i + 1
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(order[a.At.File], order[b.At.File]), a.At.compare(b.At))
	})
}

// err is nil, and not an empty list, when there is no problem.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// Problem is a problem with a service's key, such as "user", for those who
// know more about its value than this package does.
func (s *Service) Problem(key, what, hint string) Problem {
	return Problem{At: s.Where(key), Path: s.path(key), What: what, Hint: hint}
}

// Problem is a problem with a key of the listener, such as "mode", for those
// who know more about it than this package does. It is the address's where the
// key was not written.
func (l *Listener) Problem(key, what, hint string) Problem {
	if path := join(l.keys.path, key); l.Written(key) {
		return Problem{At: l.keys.where[path], Path: path, What: what, Hint: hint}
	}
	return Problem{At: l.At, Path: l.Path, What: what, Hint: hint}
}

// Problem is a problem with a key of the file, such as "log.output", for those
// who know more about its value than this package does.
func (c *Config) Problem(key, what, hint string) Problem {
	return Problem{At: nearestPosition(c.where, key), Path: key, What: what, Hint: hint}
}

// Written tells whether the file has a key of the listener, such as "mode".
func (l *Listener) Written(key string) bool {
	_, written := l.keys.where[join(l.keys.path, key)]
	return written
}

// mistake is what is wrong with a value, wherever it was written.
type mistake struct{ what, hint string }

func (m mistake) Error() string { return m.what }

func mistakef(hint, format string, args ...any) error {
	return mistake{fmt.Sprintf(format, args...), hint}
}

// problemOf is an error at a place, with the hint that it may have.
func problemOf(at Position, path string, err error) Problem {
	m, _ := err.(mistake)
	return Problem{at, path, err.Error(), m.hint}
}

// longestQuote is how much of a user's own text a message repeats.
const longestQuote = 60

// quote makes a user's text fit for one line of a terminal.
func quote(text string) string {
	if runes := []rune(text[:min(len(text), 4*longestQuote)]); len(runes) > longestQuote {
		return strconv.Quote(string(runes[:longestQuote])) + "..."
	}
	return strconv.Quote(text)
}

// segment is a key's name as a part of a path: as it is if it is a plain word.
func segment(name string) string {
	if len(name) > longestQuote || name == "" || strings.ContainsFunc(name, notPlain) {
		return quote(name)
	}
	return name
}

func notPlain(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == ':' }
