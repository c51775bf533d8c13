package admit

import (
	"testing"
	"time"

	"pgregory.net/rapid"
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
		if _, err := ParseRate(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v\nwant    %s", text, err, want)
		}
	}
}

// In no time do more come in than the burst and what comes at the rate, and
// who asks all the time gets all of that.
func TestBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rate{rapid.IntRange(1, 2000).Draw(t, "count"),
			rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(t, "per"), rapid.IntRange(1, 100).Draw(t, "burst")}
		p := r.pace()
		var b bucket
		var now time.Duration
		var entered []time.Duration
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(2*p.every)).Draw(t, "pause"))
			if b.next(p) <= now {
				b.take(p, now)
				entered = append(entered, now)
			}
		}
		for i := range entered {
			for j := i; j < len(entered); j++ {
				most := r.Burst + int(int64(entered[j]-entered[i])*int64(r.Count)/int64(r.Per))
				if j-i+1 > most {
					t.Fatalf("%s: %d from %v to %v", r, j-i+1, entered[i], entered[j])
				}
			}
		}
		if n := b.tokens(p, now); n < 0 || n > r.Burst || n > 0 != (b.next(p) <= now) {
			t.Fatalf("%d tokens", n)
		}
	})
}

func TestBucketAsksAllTheTime(t *testing.T) {
	p := Rate{10, time.Second, 50}.pace()
	var b bucket
	n := 0
	for now := time.Duration(0); now <= 10*time.Second; now += time.Millisecond {
		if b.next(p) <= now {
			b.take(p, now)
			n++
		}
	}
	if n != 50+100 {
		t.Errorf("%d came in within 10 s, want 150", n)
	}
}

func TestSlowerPaceIsForgottenAtReload(t *testing.T) {
	var b bucket
	slow, fast := Rate{1, time.Hour, 10}.pace(), Rate{10, time.Second, 10}.pace()
	for range 10 {
		b.take(slow, 0)
	}
	b.fit(pace{}, time.Second)
	b.fit(fast, time.Second)
	if at := b.next(fast); at != time.Second+fast.every {
		t.Errorf("the bucket is empty for the fast pace until %v", at)
	}
}
