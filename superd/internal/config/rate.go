package config

import (
	"fmt"
	"strings"
	"time"
)

// A Rate is how many connections may come in in a time, and how many at once
// after a pause. The zero Rate is no limit.
type Rate struct {
	Count int           // 1 to mostRate
	Per   time.Duration // a second, a minute or an hour
	Burst int           // 1 to mostRate
}

// mostRate bounds counts and bursts, so that no time computed from them
// overflows.
const mostRate = 1_000_000

var rateUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

// ParseRate reads "10/s", "10/m burst 50" and the like; the burst is the count
// where none is given.
func ParseRate(text string) (Rate, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return Rate{}, mistakef(rateHint, "a rate is empty")
	}
	count, unit, found := strings.Cut(words[0], "/")
	per, known := rateUnits[unit]
	switch {
	case text == "0":
		return Rate{}, zeroMistake("rate")
	case !found:
		return Rate{}, mistakef(rateHint, "%s has no unit", quote(text))
	case !known:
		return Rate{}, mistakef("the units are s, m and h", "%s is per %s", quote(text), quote(unit))
	}
	n, err := parseCount(count, "rate")
	if err != nil {
		return Rate{}, err
	}
	burst, err := parseBurst(text, words[1:], n)
	return Rate{n, per, burst}, err
}

const rateHint = "write it like 10/s or 10/m burst 50"

func parseBurst(text string, words []string, count int) (int, error) {
	switch {
	case len(words) == 0:
		return count, nil
	case len(words) != 2 || words[0] != "burst":
		return 0, mistakef(rateHint, "what follows the rate in %s is not a burst", quote(text))
	}
	return parseCount(words[1], "burst")
}

// parseCount reads a number from 1 to mostRate.
func parseCount(text, what string) (int, error) {
	n, ok := digits(text)
	switch {
	case !ok && strings.ContainsAny(text, "."):
		return 0, mistakef("take a longer unit: 30/m is one in two seconds", "the %s %s is not a whole number", what, quote(text))
	case !ok:
		return 0, mistakef("", "the %s %s is not a number", what, quote(text))
	case n == 0:
		return 0, zeroMistake(what)
	case text[0] == '0':
		return 0, mistakef("leave out the leading zero", "the %s %s looks octal", what, quote(text))
	case n > mostRate:
		return 0, mistakef("", "the %s %s is more than %d", what, quote(text), mostRate)
	}
	return n, nil
}

// zeroMistake is for who writes 0 to close a service, or to have no limit.
func zeroMistake(what string) error {
	return mistakef("leave it out, or say enabled: false", "a %s of 0 lets nobody in", what)
}

// digits reads a number without a sign. What is too large for anything is a
// large number.
func digits(text string) (n int, ok bool) {
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(n*10+int(c-'0'), 1<<40)
	}
	return n, text != ""
}

// String is the rate as a file has it.
func (r Rate) String() string {
	unit := "s"
	for u, per := range rateUnits {
		if per == r.Per {
			unit = u
		}
	}
	if r.Burst == r.Count {
		return fmt.Sprintf("%d/%s", r.Count, unit)
	}
	return fmt.Sprintf("%d/%s burst %d", r.Count, unit, r.Burst)
}
