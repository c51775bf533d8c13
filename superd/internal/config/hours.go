package config

import (
	"strings"
	"time"
	_ "time/tzdata" // zones have their names on machines without a database of them, too
)

// Hours are times of the week, as clocks on the walls of one place show them.
type Hours struct {
	Text  string // as in the file, with single blanks
	Place *time.Location
	Days  [7]bool // from Sunday
	Spans []Span  // of each of these days; at least one
}

// A Span is minutes from the beginning of a day. To is behind the last, and may
// be on the next day.
type Span struct{ From, To int }

const minutesPerDay = 24 * 60

// String is the text that the hours were read from.
func (h *Hours) String() string { return h.Text }

const hoursHint = "write them like Mon-Fri 08:00-18:00 or Sat,Sun 22:00-06:00 Europe/Berlin"

// ParseHours reads days, times or both, and possibly a time zone: the default
// is local. Times that end before they begin reach into the next day.
func ParseHours(text string, local *time.Location) (h Hours, err error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return h, mistakef(hoursHint, "the hours are empty")
	}
	h = Hours{Text: strings.Join(words, " "), Days: allDays, Spans: wholeDay}
	if !startsWithDigit(words[0]) {
		if h.Days, err = parseDays(words[0]); err != nil {
			return h, err
		}
		words = words[1:]
	}
	if len(words) > 0 && startsWithDigit(words[0]) {
		if h.Spans, err = parseSpans(words[0]); err != nil {
			return h, err
		}
		words = words[1:]
	}
	h.Place, err = parseZone(words, local)
	return h, err
}

func startsWithDigit(word string) bool { return word[0] >= '0' && word[0] <= '9' }

var (
	allDays  = [7]bool{true, true, true, true, true, true, true}
	wholeDay = []Span{{0, minutesPerDay}}
	dayNames = []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}
)

// parseDays reads Mon, Mon-Fri and lists of both.
func parseDays(word string) (days [7]bool, err error) {
	for item := range strings.SplitSeq(word, ",") {
		first, last, ranged := strings.Cut(item, "-")
		from, err := parseDay(word, first)
		if err != nil {
			return days, err
		}
		to := from
		if ranged {
			if to, err = parseDay(word, last); err != nil {
				return days, err
			}
		}
		for ; from != to; from = (from + 1) % 7 {
			days[from] = true
		}
		days[to] = true
	}
	return days, nil
}

// parseDay takes a day's first three letters or its whole name.
func parseDay(word, name string) (int, error) {
	lower := strings.ToLower(name)
	for day, full := range dayNames {
		if lower == full || lower == full[:3] {
			return day, nil
		}
	}
	return 0, mistakef("days are Mon Tue Wed Thu Fri Sat Sun", "in %s, %s is not a day", quote(word), quote(name))
}

func parseSpans(word string) (spans []Span, err error) {
	for item := range strings.SplitSeq(word, ",") {
		first, last, ranged := strings.Cut(item, "-")
		if !ranged {
			return nil, mistakef(hoursHint, "%s has no end", quote(item))
		}
		from, err := parseTime(first)
		if err != nil {
			return nil, err
		}
		to, err := parseTime(last)
		if err != nil {
			return nil, err
		}
		switch {
		case from == to:
			return nil, mistakef("leave the time out for the whole day", "%s begins when it ends", quote(item))
		case from == minutesPerDay:
			return nil, mistakef("write 00:00", "%s begins when the day ends", quote(item))
		case to < from:
			to += minutesPerDay
		}
		spans = append(spans, Span{from, to})
	}
	return spans, nil
}

// parseTime reads HH:MM, up to 24:00.
func parseTime(text string) (int, error) {
	hours, minutes, found := strings.Cut(text, ":")
	h, ok1 := digits(hours)
	m, ok2 := digits(minutes)
	switch {
	case !found || !ok1 || !ok2 || len(minutes) != 2 || len(hours) > 2:
		return 0, mistakef("write it like 08:00", "%s is not a time of day", quote(text))
	case m > 59 || h > 24 || h == 24 && m > 0:
		return 0, mistakef("the last is 24:00", "there is no time %s", quote(text))
	}
	return h*60 + m, nil
}

func parseZone(words []string, local *time.Location) (*time.Location, error) {
	switch {
	case len(words) == 0:
		return local, nil
	case len(words) > 1:
		return nil, mistakef(hoursHint, "%s are more words than days, times and a zone", quote(strings.Join(words, " ")))
	}
	place, err := time.LoadLocation(words[0])
	if err != nil {
		return nil, mistakef("zones have names like Europe/Berlin", "%s is neither a time nor a known time zone", quote(words[0]))
	}
	return place, nil
}
