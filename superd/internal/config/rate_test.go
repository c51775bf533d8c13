package config

import (
	"testing"
	"time"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]Rate{
		"10/s":            {10, time.Second, 10},
		"10/s burst 50":   {10, time.Second, 50},
		" 1/m  burst  2 ": {1, time.Minute, 2},
		"1000000/h":       {1_000_000, time.Hour, 1_000_000},
	} {
		r, err := ParseRate(text)
		if err != nil || r != want {
			t.Errorf("%q: %v, %v", text, r, err)
		}
		if again, err := ParseRate(r.String()); again != r || err != nil {
			t.Errorf("%q: %s is read as %v, %v", text, r, again, err)
		}
	}
}

func TestParseRateErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":               "a rate is empty (" + rateHint + ")",
		"10":             `"10" has no unit (` + rateHint + ")",
		"10/":            `"10/" is per "" (the units are s, m and h)`,
		"10/d":           `"10/d" is per "d" (the units are s, m and h)`,
		"10/5s":          `"10/5s" is per "5s" (the units are s, m and h)`,
		"/s":             `the rate "" is not a number`,
		"-1/s":           `the rate "-1" is not a number`,
		"0.5/s":          `the rate "0.5" is not a whole number (take a longer unit: 30/m is one in two seconds)`,
		"0/s":            `a rate of 0 lets nobody in (leave it out, or say enabled: false)`,
		"010/s":          `the rate "010" looks octal (leave out the leading zero)`,
		"1000001/s":      `the rate "1000001" is more than 1000000`,
		"10/s burst":     `what follows the rate in "10/s burst" is not a burst (` + rateHint + ")",
		"10/s bust 5":    `what follows the rate in "10/s bust 5" is not a burst (` + rateHint + ")",
		"10/s burst 5 6": `what follows the rate in "10/s burst 5 6" is not a burst (` + rateHint + ")",
		"10/s burst 0":   `a burst of 0 lets nobody in (leave it out, or say enabled: false)`,
		"10/s burst x":   `the burst "x" is not a number`,
	} {
		_, err := ParseRate(text)
		if got := hinted(err); got != want {
			t.Errorf("%q: %v\nwant    %s", text, got, want)
		}
	}
}
