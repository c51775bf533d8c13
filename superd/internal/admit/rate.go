package admit

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
// where none is given. Its errors are of type *Mistake.
func ParseRate(text string) (Rate, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return Rate{}, mistake(rateHint, "a rate is empty")
	}
	count, unit, found := strings.Cut(words[0], "/")
	per, known := rateUnits[unit]
	switch {
	case !found:
		return Rate{}, mistake(rateHint, "%s has no unit", quote(text))
	case !known:
		return Rate{}, mistake("the units are s, m and h", "%s is per %s", quote(text), quote(unit))
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
		return 0, mistake(rateHint, "what follows the rate in %s is not a burst", quote(text))
	}
	return parseCount(words[1], "burst")
}

// parseCount reads a number from 1 to mostRate.
func parseCount(text, what string) (int, error) {
	n, ok := digits(text)
	switch {
	case !ok && strings.ContainsAny(text, "."):
		return 0, mistake("take a longer unit: 30/m is one in two seconds", "the %s %s is not a whole number", what, quote(text))
	case !ok:
		return 0, mistake("", "the %s %s is not a number", what, quote(text))
	case n == 0:
		return 0, mistake("leave it out, or say enabled: false", "a %s of 0 lets nobody in", what)
	case text[0] == '0':
		return 0, mistake("leave out the leading zero", "the %s %s looks octal", what, quote(text))
	case n > mostRate:
		return 0, mistake("", "the %s %s is more than %d", what, quote(text), mostRate)
	}
	return n, nil
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

// pace is a Rate in the terms of a bucket; its zero value is no limit.
type pace struct {
	every time.Duration // a token comes
	depth time.Duration // until an empty bucket is full
}

// pace rounds up, so that never more come in than the file says.
func (r Rate) pace() pace {
	if r.Count <= 0 || r.Per <= 0 {
		return pace{}
	}
	every := (r.Per + time.Duration(r.Count) - 1) / time.Duration(r.Count)
	return pace{every, every * time.Duration(max(r.Burst, 1))}
}

// A bucket of tokens is one time: when it is full if nobody comes before. One
// that is full by now is like a new one, and may be forgotten.
type bucket struct{ full time.Duration }

// next is the earliest time at which there is a token: not after now, if there
// is one now.
func (b bucket) next(p pace) time.Duration { return b.full - p.depth + p.every }

// take takes a token, which need not be there yet.
func (b *bucket) take(p pace, now time.Duration) {
	if p.every > 0 {
		b.full = max(b.full, now) + p.every
	}
}

// fit makes a bucket that was emptied at a slower pace empty, and no more than
// that. It is for when the pace changes.
func (b *bucket) fit(p pace, now time.Duration) {
	if p.every > 0 {
		b.full = min(b.full, now+p.depth)
	}
}

// tokens is how many the bucket has.
func (b bucket) tokens(p pace, now time.Duration) int {
	if p.every == 0 {
		return 0
	}
	return int(max(p.depth-max(b.full-now, 0), 0) / p.every)
}
