package config

import (
	"math"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// sizeUnits are powers of 1024, the first being 1024 itself.
const sizeUnits = "KMGT"

var (
	size    = regexp.MustCompile(`^[0-9]+[` + sizeUnits + `]$`)
	percent = regexp.MustCompile(`^[0-9]+%$`)
)

func (s section) size(name string) uint64 {
	v := s.get(name)
	if v.node == nil {
		return 0
	}
	return s.d.size(v)
}

func (d *decoder) size(v value) uint64 {
	text := v.node.Value
	if v.node.Kind != yaml.ScalarNode || text != "0" && !size.MatchString(text) {
		d.wrong(v, sizeHint(v.node))
		return 0
	}
	n, ok := parseSize(text)
	switch {
	case !ok:
		d.bad(v, quote(text)+" is too large", "")
	case n < uint64(v.key.Min):
		d.wrong(v, "")
	}
	return n
}

// parseSize returns the bytes of a size; ok is false where it is more than any
// machine has.
func parseSize(text string) (n uint64, ok bool) {
	digits := strings.TrimRight(text, sizeUnits)
	n, err := strconv.ParseUint(digits, 10, 64)
	shift := 10 * (1 + strings.IndexByte(sizeUnits, text[len(text)-1]))
	return n << shift, err == nil && n <= math.MaxInt64>>shift
}

// sizeText writes n in the largest unit that divides it.
func sizeText(n uint64) string {
	unit := ""
	for i := 0; i < len(sizeUnits) && n > 0 && n%1024 == 0; i++ {
		n, unit = n/1024, sizeUnits[i:i+1]
	}
	return strconv.FormatUint(n, 10) + unit
}

func sizeHint(n *yaml.Node) string {
	if !hasText(n) {
		return ""
	}
	upper := strings.ToUpper(n.Value)
	bare := strings.TrimSuffix(strings.TrimSuffix(upper, "B"), "I")
	count, err := strconv.ParseUint(upper, 10, 64)
	switch {
	case size.MatchString(bare):
		return "write " + bare
	case err == nil && count%1024 == 0:
		return "write " + sizeText(count)
	case strings.HasPrefix(upper, "-"):
		return "it cannot be negative"
	}
	return "the units are K, M, G and T"
}

func (s section) percent(name string) int {
	v := s.get(name)
	if v.node == nil {
		return 0
	}
	text := v.node.Value
	n, err := strconv.Atoi(strings.TrimSuffix(text, "%"))
	switch {
	case !percent.MatchString(text):
		s.d.wrong(v, percentHint(text))
	case err != nil || n < v.key.Min || n > v.key.Max:
		s.d.wrong(v, "")
	}
	return n
}

func percentHint(text string) string {
	if number.MatchString(text) {
		return "write " + text + "%"
	}
	return ""
}
