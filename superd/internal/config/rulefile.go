package config

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// Bounds of a file of rules (superd.yaml(5)). A rule takes some 500 bytes of
// memory in all, and a file may be read while superd serves.
const (
	largestRuleFile = 32 << 20
	mostRules       = 250_000 // of one file
	longestLine     = 1000    // bytes

	mostWrong  = mostPrinted // lines, and no more are looked at
	mostWarned = 10          // lines of one file
)

// RuleFile is what a file of rules says.
type RuleFile struct {
	Rules    []Rule // of nobody's list yet: all allow
	Warnings []Problem
	Problems []Problem // all that is wrong, up to a bound
}

// ParseRules reads a file of rules: one Spec a line, and comments that begin
// with #. The file's name is only written into the rules and problems.
func ParseRules(name string, data []byte) RuleFile {
	r := ruleReader{at: Position{File: name}}
	for line := range bytes.Lines(bytes.TrimPrefix(data, byteOrderMark)) {
		r.at.Line++
		if !r.line(line) {
			break
		}
	}
	if more := r.unmasked - mostWarned; more > 0 {
		r.file.Warnings = append(r.file.Warnings, Problem{At: r.at, What: fmt.Sprintf("%d more addresses have bits beyond their network", more)})
	}
	return r.file
}

type ruleReader struct {
	file     RuleFile
	at       Position
	unmasked int // addresses with bits beyond their network
}

// line reads one line, and tells whether to go on.
func (r *ruleReader) line(line []byte) bool {
	text, before := uncommented(line)
	r.at.Column = 1 + utf8.RuneCount(before)
	spec, canonical, err := parseLine(line, text)
	switch {
	case err != nil:
		return r.wrong(err)
	case spec.Kind == NoSpec:
		return true
	case len(r.file.Rules) == mostRules:
		r.file.Problems = append(r.file.Problems, Problem{At: r.at, What: fmt.Sprintf("a file has at most %d rules", mostRules), Hint: "take wider networks, or several files"})
		return false
	}
	r.file.Rules = append(r.file.Rules, Rule{Spec: spec, Text: unlessCanonical(text, spec), At: r.at})
	if canonical != "" {
		r.warn(beyondNetwork(text, canonical))
	}
	return true
}

func (r *ruleReader) wrong(err error) (more bool) {
	r.file.Problems = append(r.file.Problems, problemOf(r.at, "", err))
	if len(r.file.Problems) < mostWrong {
		return true
	}
	r.at.Line++
	r.file.Problems = append(r.file.Problems, Problem{At: r.at, What: "the rest of the file is not looked at"})
	return false
}

func (r *ruleReader) warn(err error) {
	if r.unmasked++; r.unmasked <= mostWarned {
		r.file.Warnings = append(r.file.Warnings, problemOf(r.at, "", err))
	}
}

// parseLine returns the zero Spec for a line that is empty.
func parseLine(line []byte, text string) (Spec, string, error) {
	switch {
	case len(line) > longestLine:
		return Spec{}, "", mistakef("", "the line has more than %d bytes", longestLine)
	case text == "":
		return Spec{}, "", nil
	case text[0] == '@':
		return Spec{}, "", mistakef("name it in the list itself", "a file of rules cannot name another one")
	}
	return ParseSpec(text)
}

// uncommented is what a line says, and what stands before that.
func uncommented(line []byte) (text string, before []byte) {
	said, _, _ := bytes.Cut(line, []byte{'#'})
	trimmed := bytes.TrimSpace(said)
	return string(trimmed), said[:bytes.Index(said, trimmed)]
}

// unlessCanonical spares the memory of a text that can be made anew.
func unlessCanonical(text string, s Spec) string {
	if text == s.String() {
		return ""
	}
	return text
}

func beyondNetwork(text, canonical string) error {
	return mistakef("write "+canonical, "%s has bits beyond its network", quote(text))
}
