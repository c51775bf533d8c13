package config

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Draft is a mapping on its way into a file, in the order that the file will
// have. Values are texts, Quoted, numbers, bool, lists of them, and Drafts.
type Draft []Pair

// A Pair is one key of a Draft, with its value.
type Pair struct {
	Key     string
	Value   any      // string, Quoted, int, float64, bool, []string, []any, Draft
	Comment []string // lines above the key; "" is an empty one
}

// Quoted is a text that the file must have in quotes, as a mode.
type Quoted string

// widest is how long a mapping on one line gets, in bytes.
const widest = 100

// spacious is how deep mappings have a line for each key in any case: the
// services, and the keys of each.
const spacious = 2

// Write returns the text of a file. What it writes is read as it was, whatever
// the texts are, but for bytes that are not UTF-8: U+FFFD stands for those.
// Neither the keys, which YAML wants to be short, nor the values are checked:
// Parse does that.
func Write(d Draft) []byte {
	var w draftWriter
	w.mapping(d, 0)
	return w.Bytes()
}

type draftWriter struct{ bytes.Buffer }

func (w *draftWriter) indent(depth int) { w.WriteString(strings.Repeat("  ", depth)) }

func (w *draftWriter) mapping(d Draft, depth int) {
	for _, p := range d {
		w.comment(p.Comment, depth)
		w.indent(depth)
		w.WriteString(plainOrQuoted(p.Key) + ":")
		w.value(p.Value, depth)
	}
}

func (w *draftWriter) comment(lines []string, depth int) {
	for _, line := range lines {
		if line == "" {
			w.WriteByte('\n')
			continue
		}
		w.indent(depth)
		w.WriteString(strings.TrimRight("# "+oneLine(line), " ") + "\n")
	}
}

// oneLine replaces what would end a comment, or not be read.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if control(r) || r == '\n' || r == '\r' || r == 0 {
			return utf8.RuneError
		}
		return r
	}, text)
}

// value writes what stands behind a key: on its line where it fits there.
func (w *draftWriter) value(v any, depth int) {
	d, isMapping := v.(Draft)
	list, isList := v.([]any)
	switch text := flow(v); {
	case isMapping && (len(text) > widest || depth < spacious || commented(d)) && len(d) > 0:
		w.WriteByte('\n')
		w.mapping(d, depth+1)
	case isList && len(text) > widest:
		w.WriteByte('\n')
		for _, item := range list {
			w.indent(depth + 1)
			w.WriteString("- " + flow(item) + "\n")
		}
	default:
		w.WriteString(" " + text + "\n")
	}
}

// commented tells whether a mapping, or one in it, has comments, which need
// lines of their own.
func commented(d Draft) bool {
	for _, p := range d {
		if in, is := p.Value.(Draft); len(p.Comment) > 0 || is && commented(in) {
			return true
		}
	}
	return false
}

// flow writes a value on one line.
func flow(v any) string {
	switch v := v.(type) {
	case Draft:
		items := make([]string, len(v))
		for i, p := range v {
			items[i] = plainOrQuoted(p.Key) + ": " + flow(p.Value)
		}
		return "{" + strings.Join(items, ", ") + "}"
	case []any:
		return flowList(v)
	case []string:
		return flowList(v)
	case Quoted:
		return quoted(string(v))
	case string:
		return plainOrQuoted(v)
	}
	return fmt.Sprint(v)
}

func flowList[T any](list []T) string {
	items := make([]string, len(list))
	for i, item := range list {
		items[i] = flow(item)
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// safe are texts that mean themselves without quotes, between brackets too.
var safe = regexp.MustCompile(`^(-{0,2}[A-Za-z0-9_/.]|[A-Za-z0-9_/.])[A-Za-z0-9_/.@%+=~^-]*(:[A-Za-z0-9_/.@%+=~^-]+)*$`)

// special are words that are more than texts to YAML, or to who reads it.
var special = regexp.MustCompile(`^(?i:null|true|false|yes|no|on|off|y|n|\.nan|[-+]?\.inf)$`)

// plainOrQuoted writes a text without quotes where that is as clear.
func plainOrQuoted(text string) string {
	if safe.MatchString(text) && !special.MatchString(text) {
		return text
	}
	return quoted(text)
}

// quoted writes a text in double quotes, whose escapes are YAML's own (YAML
// 1.2, 5.7).
func quoted(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case strconv.IsPrint(r):
			b.WriteRune(r)
		case r > 0xFFFF:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
