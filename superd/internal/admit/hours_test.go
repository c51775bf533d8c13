package admit

import (
	"testing"
	"time"
	_ "time/tzdata" // the test knows zones wherever it runs
)

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
		h, err := ParseHours(x.hours, time.UTC)
		if err != nil {
			t.Errorf("%s: %v", x.hours, err)
			continue
		}
		at, err := time.Parse(time.DateTime, x.at)
		if err != nil {
			t.Fatal(err)
		}
		if h.Open(at) != x.want || h.Open(at.In(berlin)) != x.want {
			t.Errorf("%s at %s UTC: want %v", x.hours, x.at, x.want)
		}
	}
}

func TestHoursErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "the hours are empty (" + hoursHint + ")",
		"Mo-Fri":                  `in "Mo-Fri", "Mo" is not a day (days are Mon Tue Wed Thu Fri Sat Sun)`,
		"Mon-":                    `in "Mon-", "" is not a day (days are Mon Tue Wed Thu Fri Sat Sun)`,
		"Mon,,Fri":                `in "Mon,,Fri", "" is not a day (days are Mon Tue Wed Thu Fri Sat Sun)`,
		"Mon-Fri 8-18":            `"8" is not a time of day (write it like 08:00)`,
		"Mon 08:00":               `"08:00" has no end (` + hoursHint + ")",
		"08:60-09:00":             `there is no time "08:60" (the last is 24:00)`,
		"08:00-24:01":             `there is no time "24:01" (the last is 24:00)`,
		"24:00-08:00":             `"24:00-08:00" begins when the day ends (write 00:00)`,
		"08:00-08:00":             `"08:00-08:00" begins when it ends (leave the time out for the whole day)`,
		"08:00-+9:00":             `"+9:00" is not a time of day (write it like 08:00)`,
		"Mon 08:00-18:00 Nowhere": `"Nowhere" is neither a time nor a known time zone (zones have names like Europe/Berlin)`,
		"Mon 08:00-18:00 UTC Mon": `"UTC Mon" are more words than days, times and a zone (` + hoursHint + ")",
		"Mon 08:00 - 18:00":       `"08:00" has no end (` + hoursHint + ")",
		"Mon ../../etc/passwd":    `"../../etc/passwd" is neither a time nor a known time zone (zones have names like Europe/Berlin)`,
	} {
		if _, err := ParseHours(text, time.UTC); err == nil || err.Error() != want {
			t.Errorf("%q: %v\nwant    %s", text, err, want)
		}
	}
}

func TestNextOpening(t *testing.T) {
	h, _ := ParseHours("Mon-Fri 08:00-18:00 Europe/Berlin", time.UTC)
	friday := time.Date(2026, 3, 27, 18, 0, 30, 0, time.UTC) // the clocks change on Sunday
	if at, ok := NextOpening([]*Hours{h}, friday); !ok || !at.Equal(time.Date(2026, 3, 30, 6, 0, 0, 0, time.UTC)) {
		t.Errorf("%v, %v", at, ok)
	}
}

func TestAskHours(t *testing.T) {
	day, _ := ParseHours("08:00-18:00", time.UTC)
	night, _ := ParseHours("22:00-23:00", time.UTC)
	g := NewHouse(Limits{}, nil).Gate("s", NewPolicy(Rules{Hours: []*Hours{day, night}}), nil)
	for hour, want := range map[int]Verdict{7: Refused, 8: Entered, 20: Refused, 22: Entered} {
		d := g.Ask(Client{}, Moment{Wall: time.Date(2026, 1, 2, hour, 0, 0, 0, time.UTC)})
		if d.Verdict != want || want == Refused && d.Reason != ReasonHours {
			t.Errorf("at %d: %v, %v", hour, d.Verdict, d.Reason)
		}
	}
}
