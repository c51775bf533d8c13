package config

import (
	"testing"
	"time"
)

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
		_, err := ParseHours(text, time.UTC)
		if got := hinted(err); got != want {
			t.Errorf("%q: %v\nwant    %s", text, got, want)
		}
	}
}
