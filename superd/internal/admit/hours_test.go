package admit

import (
	"testing"
	"time"

	"superd/superd/internal/config"
)

// opening is the timetable that a text stands for.
func opening(t *testing.T, text string) (h config.Hours, table timetable) {
	t.Helper()
	h, err := config.ParseHours(text, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return h, newTimetable(&h)
}

func TestHours(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		hours string
		at    string // in UTC; 2026-03-02 is a Monday
		want  bool
	}{
		{"Mon-Fri 08:00-18:00", "2026-03-02 08:00:00", true},
		{"Mon-Fri 08:00-18:00", "2026-03-02 07:59:59", false},
		{"Mon-Fri 08:00-18:00", "2026-03-02 17:59:59", true},
		{"Mon-Fri 08:00-18:00", "2026-03-02 18:00:00", false},
		{"Mon-Fri 08:00-18:00", "2026-03-07 12:00:00", false},
		{"monday,Wed-Thursday 8:00-12:00,13:00-24:00", "2026-03-02 12:30:00", false},
		{"monday,Wed-Thursday 8:00-12:00,13:00-24:00", "2026-03-05 23:59:59", true},
		{"monday,Wed-Thursday 8:00-12:00,13:00-24:00", "2026-03-03 13:00:00", false},
		{"Sat-Sun", "2026-03-08 23:59:59", true},
		{"Sat-Mon", "2026-03-02 00:00:00", true},
		{"Sat-Mon", "2026-03-03 00:00:00", false},
		{"22:00-06:00", "2026-03-03 05:59:00", true},
		{"22:00-06:00", "2026-03-03 06:00:00", false},
		{"Fri 22:00-06:00", "2026-03-07 05:59:00", true},  // Friday's night is Saturday's morning
		{"Fri 22:00-06:00", "2026-03-06 05:59:00", false}, // but not Friday's
		{"Sat 22:00-06:00", "2026-03-08 05:59:00", true},  // over the week's end
		{"Mon-Fri 08:00-18:00 Europe/Berlin", "2026-03-02 07:00:00", true},
		{"Mon-Fri 08:00-18:00 Europe/Berlin", "2026-03-02 17:00:00", false},
		{"Mon-Fri 08:00-18:00 Europe/Berlin", "2026-03-30 06:00:00", true}, // summer time since the 29th
		{"Mon-Fri 08:00-18:00 Europe/Berlin", "2026-03-30 16:00:00", false},
		{"Sun 02:00-03:00 Europe/Berlin", "2026-03-29 01:00:00", false}, // it is 03:00 there: the hour is left out
		{"Sun 02:00-03:00 Europe/Berlin", "2026-03-29 00:59:59", false},
		{"Sun 02:00-03:00 Europe/Berlin", "2026-10-25 00:30:00", true}, // it comes twice
		{"Sun 02:00-03:00 Europe/Berlin", "2026-10-25 01:30:00", true},
		{"Sun 02:00-03:00 Europe/Berlin", "2026-10-25 02:00:00", false},
		{"Sat 22:00-06:00 Europe/Berlin", "2026-10-25 04:30:00", true}, // 05:30 there, in a night of nine hours
	} {
		_, h := opening(t, x.hours)
		at, err := time.Parse(time.DateTime, x.at)
		if err != nil {
			t.Fatal(err)
		}
		if h.open(at) != x.want || h.open(at.In(berlin)) != x.want {
			t.Errorf("%s at %s UTC: want %v", x.hours, x.at, x.want)
		}
	}
}

func TestNextOpening(t *testing.T) {
	_, h := opening(t, "Mon-Fri 08:00-18:00 Europe/Berlin")
	friday := time.Date(2026, 3, 27, 18, 0, 30, 0, time.UTC) // the clocks change on Sunday
	if at, ok := nextOpening([]timetable{h}, friday); !ok || !at.Equal(time.Date(2026, 3, 30, 6, 0, 0, 0, time.UTC)) {
		t.Errorf("%v, %v", at, ok)
	}
}

func TestAskHours(t *testing.T) {
	day, _ := opening(t, "08:00-18:00")
	night, _ := opening(t, "22:00-23:00")
	g := NewHouse(Limits{}, nil).Gate("s", NewPolicy(Rules{Hours: []config.Hours{day, night}}), nil)
	for hour, want := range map[int]Verdict{7: Refused, 8: Entered, 20: Refused, 22: Entered} {
		d := g.Ask(Client{}, Moment{Wall: time.Date(2026, 1, 2, hour, 0, 0, 0, time.UTC)})
		if d.Verdict != want || want == Refused && d.Reason != ReasonHours {
			t.Errorf("at %d: %v, %v", hour, d.Verdict, d.Reason)
		}
	}
}
