package admit

import (
	"slices"
	"strings"
	"time"
)

// Hours are times of the week, as clocks on the walls of one place show them.
// An hour that a change of the clocks leaves out does not come, and one that
// comes twice counts twice.
type Hours struct {
	text  string
	place *time.Location
	week  week
}

// String is the text that the hours were read from.
func (h *Hours) String() string { return h.text }

// Open tells whether t is in the hours.
func (h *Hours) Open(t time.Time) bool {
	t = t.In(h.place)
	hour, minute, _ := t.Clock()
	return h.week.has(int(t.Weekday())*minutesPerDay + hour*60 + minute)
}

const (
	minutesPerDay  = 24 * 60
	minutesPerWeek = 7 * minutesPerDay
)

// week has a bit for each of its minutes, from Sunday 00:00.
type week [(minutesPerWeek + 63) / 64]uint64

func (w *week) has(minute int) bool { return w[minute/64]&(1<<(minute%64)) != 0 }

// add sets the minutes of one span, which may reach over the week's end.
func (w *week) add(from, to int) {
	for m := from; m < to; m++ {
		minute := m % minutesPerWeek
		w[minute/64] |= 1 << (minute % 64)
	}
}

// NextOpening is the first minute after t that is in one of the hours, within
// the week that follows, and whether there is one.
func NextOpening(list []*Hours, t time.Time) (time.Time, bool) {
	t = t.Truncate(time.Minute)
	for range minutesPerWeek + 2*60 { // and the hours that a change of the clocks can put in between
		t = t.Add(time.Minute)
		if slices.ContainsFunc(list, func(h *Hours) bool { return h.Open(t) }) {
			return t, true
		}
	}
	return time.Time{}, false
}

const hoursHint = "write them like Mon-Fri 08:00-18:00 or Sat,Sun 22:00-06:00 Europe/Berlin"

// ParseHours reads days, times or both, and possibly a time zone: the default
// is local. Times that end before they begin reach into the next day. Its
// errors are of type *Mistake.
func ParseHours(text string, local *time.Location) (*Hours, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return nil, mistake(hoursHint, "the hours are empty")
	}
	h := &Hours{text: strings.Join(words, " ")}
	days, spans := allDays, wholeDay
	var err error
	if !startsWithDigit(words[0]) {
		if days, err = parseDays(words[0]); err != nil {
			return nil, err
		}
		words = words[1:]
	}
	if len(words) > 0 && startsWithDigit(words[0]) {
		if spans, err = parseSpans(words[0]); err != nil {
			return nil, err
		}
		words = words[1:]
	}
	if h.place, err = parseZone(words, local); err != nil {
		return nil, err
	}
	h.fill(days, spans)
	return h, nil
}

func startsWithDigit(word string) bool { return word[0] >= '0' && word[0] <= '9' }

func (h *Hours) fill(days [7]bool, spans []span) {
	for day, is := range days {
		for _, s := range spans {
			if is {
				h.week.add(day*minutesPerDay+s.from, day*minutesPerDay+s.to)
			}
		}
	}
}

// A span is minutes from the day's begin; to is behind the last, and may be on
// the next day.
type span struct{ from, to int }

var (
	allDays  = [7]bool{true, true, true, true, true, true, true}
	wholeDay = []span{{0, minutesPerDay}}
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
	return 0, mistake("days are Mon Tue Wed Thu Fri Sat Sun", "in %s, %s is not a day", quote(word), quote(name))
}

func parseSpans(word string) (spans []span, err error) {
	for item := range strings.SplitSeq(word, ",") {
		first, last, ranged := strings.Cut(item, "-")
		if !ranged {
			return nil, mistake(hoursHint, "%s has no end", quote(item))
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
			return nil, mistake("leave the time out for the whole day", "%s begins when it ends", quote(item))
		case from == minutesPerDay:
			return nil, mistake("write 00:00", "%s begins when the day ends", quote(item))
		case to < from:
			to += minutesPerDay
		}
		spans = append(spans, span{from, to})
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
		return 0, mistake("write it like 08:00", "%s is not a time of day", quote(text))
	case m > 59 || h > 24 || h == 24 && m > 0:
		return 0, mistake("the last is 24:00", "there is no time %s", quote(text))
	}
	return h*60 + m, nil
}

func parseZone(words []string, local *time.Location) (*time.Location, error) {
	switch {
	case len(words) == 0:
		return local, nil
	case len(words) > 1:
		return nil, mistake(hoursHint, "%s are more words than days, times and a zone", quote(strings.Join(words, " ")))
	}
	place, err := time.LoadLocation(words[0])
	if err != nil {
		return nil, mistake("zones have names like Europe/Berlin", "%s is neither a time nor a known time zone", quote(words[0]))
	}
	return place, nil
}
