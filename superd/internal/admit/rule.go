package admit

import (
	"bytes"
	"strings"

	"superd/superd/internal/config"
)

// A Rule lets somebody in or keeps him out, and says what else is different
// for him.
type Rule struct {
	Spec          Spec
	Deny          bool
	Text          string          // as the file has it; "" for the canonical form
	At            config.Position // where; the zero Position if nowhere
	MaxPerSource  int             // instead of the service's; 0 for none of its own
	RatePerSource Rate            // instead of the service's; the zero Rate for none of its own
	Data          any             // what else the rule carries: env, run; not looked at
}

// String is the rule in words: deny 10.0.0.0/8 (FILE:LINE:COLUMN).
func (r *Rule) String() string {
	text := r.Text
	if text == "" {
		text = r.Spec.String()
	}
	if r.At.File != "" {
		text += " (" + r.At.String() + ")"
	}
	return r.verb() + " " + text
}

func (r *Rule) verb() string {
	if r.Deny {
		return "deny"
	}
	return "allow"
}

// longestLine is how long a line of a file of rules may be, in bytes.
const longestLine = 1000

// ParseRules reads a file of rules: one Spec a line, and comments that begin
// with #. All that is wrong is returned together, and so are the rules that
// are right; warnings say where an address has bits beyond its network. The
// file's name is only written into the rules.
func ParseRules(name string, data []byte, deny bool, names Names) (rules []Rule, warnings, wrong []*Mistake) {
	line := 0
	for text := range bytes.Lines(data) {
		line++
		spec, canonical, err := parseLine(text, names)
		if err != nil {
			wrong = append(wrong, lineMistake(err, line))
			continue
		}
		if spec.kind == noSpec {
			continue
		}
		written := uncommented(text)
		if canonical != "" {
			warnings = append(warnings, &Mistake{What: quote(written) + " has bits beyond its network", Hint: "write " + canonical, Line: line})
		}
		rules = append(rules, Rule{Spec: spec, Deny: deny, Text: written, At: config.Position{File: name, Line: line, Column: 1 + bytes.Index(text, []byte(written))}})
	}
	return rules, warnings, wrong
}

// parseLine returns the zero Spec for a line that is empty.
func parseLine(line []byte, names Names) (Spec, string, error) {
	text := uncommented(line)
	switch {
	case len(line) > longestLine:
		return Spec{}, "", mistake("", "the line has more than %d bytes", longestLine)
	case text == "":
		return Spec{}, "", nil
	case strings.ContainsAny(text, " \t,"):
		return Spec{}, "", mistake("write one rule a line", "%s is more than one rule", quote(text))
	}
	return ParseSpec(text, names)
}

func uncommented(line []byte) string {
	text, _, _ := bytes.Cut(line, []byte{'#'})
	return string(bytes.TrimSpace(text))
}

func lineMistake(err error, line int) *Mistake {
	m := *err.(*Mistake)
	m.Line = line
	return &m
}
