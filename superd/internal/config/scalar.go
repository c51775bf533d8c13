package config

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// What follows reads a section's values, each into its final type. A value
// that was not written is the key's default, and zero where it has none.

// longestText is the longest argument or variable that Linux passes to a
// program (MAX_ARG_STRLEN less the closing NUL), in bytes.
const longestText = 128<<10 - 1

func (s section) text(name string) string {
	v := s.get(name)
	if v.node == nil {
		return ""
	}
	return s.d.text(v)
}

// text takes any scalar as it is written: 8080 and true are texts too.
func (d *decoder) text(v value) string {
	text := v.node.Value
	switch {
	case !hasText(v.node):
		d.wrong(v, "")
	case strings.ContainsRune(text, 0):
		d.bad(v, "holds a NUL byte", "")
	case len(text) > longestText:
		d.bad(v, "is longer than 131071 bytes", "")
	}
	return text
}

func (s section) filePath(name string) string {
	v := s.get(name)
	if v.node == nil {
		return ""
	}
	path := s.d.text(v)
	if hasText(v.node) && !strings.HasPrefix(path, "/") {
		s.d.wrong(v, "begin it with /")
	}
	return path
}

// wordOrPath reads one of the key's words, or an absolute path.
func (s section) wordOrPath(name string) string {
	v := s.get(name)
	text := s.d.text(v)
	if hasText(v.node) && !slices.Contains(v.key.Words, text) && !strings.HasPrefix(text, "/") {
		s.d.wrong(v, cmp.Or(didYouMean(nearest(text, v.key.Words)), "begin a path with /"))
	}
	return text
}

// word reads one of the key's words. The word null is written like no value.
func (s section) word(name string) string {
	v := s.get(name)
	if v.node == nil {
		return ""
	}
	return s.d.word(v)
}

func (d *decoder) word(v value) string {
	if v.node.Kind != yaml.ScalarNode || !slices.Contains(v.key.Words, v.node.Value) {
		d.wrong(v, didYouMean(nearest(v.node.Value, v.key.Words)))
	}
	return v.node.Value
}

func didYouMean(word string) string {
	if word == "" {
		return ""
	}
	return "did you mean " + word + "?"
}

func (s section) boolean(name string) bool {
	v := s.get(name)
	if v.node == nil {
		return false
	}
	return s.d.boolean(v)
}

func (d *decoder) boolean(v value) bool {
	switch {
	case v.node.ShortTag() == "!!bool":
		return strings.EqualFold(v.node.Value, "true")
	case hasText(v.node):
		d.bad(v, quote(v.node.Value)+" is neither true nor false", booleanHint(v.node))
	default:
		d.wrong(v, "")
	}
	return false
}

func booleanHint(n *yaml.Node) string {
	if n.Value == "true" || n.Value == "false" {
		return "remove the quotes"
	}
	return "write true or false"
}

var (
	decimal     = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	leadingZero = regexp.MustCompile(`^-?0[0-9]+$`)
)

func (s section) integer(name string) int {
	v := s.get(name)
	if v.node == nil {
		return 0
	}
	return s.d.integer(v)
}

// optional is an integer that is nil where it is not written.
func (s section) optional(name string) *int {
	if !s.written(name) {
		return nil
	}
	n := s.integer(name)
	return &n
}

func (d *decoder) integer(v value) int {
	n, err := strconv.Atoi(v.node.Value)
	switch {
	case !isPlain(v.node) || !decimal.MatchString(v.node.Value):
		d.wrong(v, integerHint(v.node))
	case err != nil || n < v.key.Min || n > v.key.Max:
		d.wrong(v, "")
	}
	return n
}

func integerHint(n *yaml.Node) string {
	switch {
	case n.Kind != yaml.ScalarNode:
		return ""
	case leadingZero.MatchString(n.Value):
		return "it looks octal: leave out the leading zero"
	case decimal.MatchString(n.Value):
		return "remove the quotes"
	}
	return ""
}

func (s section) duration(name string) time.Duration {
	v := s.get(name)
	if v.node == nil {
		return 0
	}
	return s.d.duration(v)
}

var (
	duration = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(h|m|s|ms))+$`)
	number   = regexp.MustCompile(`^[0-9]+$`)
)

func (d *decoder) duration(v value) time.Duration {
	text := v.node.Value
	length, err := time.ParseDuration(text)
	switch {
	case v.node.Kind != yaml.ScalarNode || text != "0" && !duration.MatchString(text):
		d.wrong(v, durationHint(v.node))
	case err != nil:
		d.bad(v, quote(text)+" is too long", "")
	case v.key.Kind == Duration && length < time.Duration(v.key.Min):
		d.wrong(v, "")
	case v.key.Kind == Seconds && !wholeSeconds(length, v.key):
		d.wrong(v, "")
	}
	return length
}

func wholeSeconds(length time.Duration, key *Key) bool {
	seconds := int(length / time.Second)
	return length%time.Second == 0 && key.Min <= seconds && seconds <= key.Max
}

func durationHint(n *yaml.Node) string {
	switch {
	case !hasText(n):
		return ""
	case number.MatchString(n.Value):
		return "write " + n.Value + "s"
	case strings.HasPrefix(n.Value, "-"):
		return "it cannot be negative"
	}
	return "the units are h, m, s and ms"
}

var octal = regexp.MustCompile(`^[0-7]{1,4}$`)

func (s section) mode(name string) int {
	v := s.get(name)
	text := v.node.Value
	mode, err := strconv.ParseInt(text, 8, 32)
	switch {
	case err != nil || !octal.MatchString(text) || mode > 0o777:
		s.d.wrong(v, "")
	case isPlain(v.node):
		s.d.bad(v, "the octal mode "+text+" needs quotes", `write "`+text+`"`)
	}
	return int(mode)
}

// longestList bounds the work for one list; no program takes as many arguments
// and no user is in as many groups.
const longestList = 10_000

// list returns the items of a list, which is what v must be.
func (d *decoder) list(v value) []value {
	switch {
	case v.node.Kind != yaml.SequenceNode:
		d.wrong(v, listHint(v.node))
		return nil
	case len(v.node.Content) > longestList:
		d.bad(v, "has more than 10000 items", "")
		return nil
	}
	items := make([]value, len(v.node.Content))
	for i, n := range v.node.Content {
		items[i] = d.value(n, v.path+"["+strconv.Itoa(i)+"]", v.key)
	}
	return items
}

func listHint(n *yaml.Node) string {
	if !hasText(n) || segment(n.Value) != n.Value {
		return ""
	}
	return "write [" + n.Value + "]"
}

// names reads a list whose items are checked by check, and differ.
func (s section) names(name string, check func(text string) error) []string {
	return s.namesIn(name, func(text string) (string, error) { return text, check(text) })
}

// namesIn reads a list whose items differ in the final form that form gives them.
func (s section) namesIn(name string, form func(text string) (string, error)) []string {
	v := s.get(name)
	if v.node == nil {
		return nil
	}
	var names []string
	seen := map[string]bool{}
	for _, item := range s.d.list(v) {
		text, ok := s.d.item(item)
		final, err := form(text)
		switch {
		case !ok:
		case seen[final]:
			s.d.bad(item, quote(text)+" is repeated", "")
		default:
			s.d.fault(item, err)
			names, seen[final] = append(names, final), true
		}
	}
	return names
}

// item reads a text of a list.
func (d *decoder) item(v value) (string, bool) {
	if hasText(v.node) {
		return d.text(v), true
	}
	d.bad(v, "must be a text, not "+describe(v.node), "")
	return "", false
}
