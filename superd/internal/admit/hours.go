package admit

import (
	"slices"
	"time"

	"superd/superd/internal/config"
)

// A timetable is [config.Hours] compiled. An hour that a change of the clocks
// leaves out does not come, and one that comes twice counts twice.
type timetable struct {
	text  string
	place *time.Location
	week  week
}

func newTimetable(h *config.Hours) timetable {
	t := timetable{text: h.Text, place: h.Place}
	for day, is := range h.Days {
		for _, s := range h.Spans {
			if is {
				t.week.add(day*minutesPerDay+s.From, day*minutesPerDay+s.To)
			}
		}
	}
	return t
}

// open tells whether now is in the hours.
func (t *timetable) open(now time.Time) bool {
	now = now.In(t.place)
	hour, minute, _ := now.Clock()
	return t.week.has(int(now.Weekday())*minutesPerDay + hour*60 + minute)
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

// nextOpening is the first minute after t that is in one of the hours, within
// the week that follows, and whether there is one.
func nextOpening(list []timetable, t time.Time) (time.Time, bool) {
	t = t.Truncate(time.Minute)
	for range minutesPerWeek + 2*60 { // and the hours that a change of the clocks can put in between
		t = t.Add(time.Minute)
		if slices.ContainsFunc(list, func(h timetable) bool { return h.open(t) }) {
			return t, true
		}
	}
	return time.Time{}, false
}
