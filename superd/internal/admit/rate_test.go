package admit

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"superd/superd/internal/config"
)

func newRate(count int, per time.Duration, burst int) config.Rate {
	return config.Rate{Count: count, Per: per, Burst: burst}
}

// In no time do more come in than the burst and what comes at the rate, and
// who asks all the time gets all of that.
func TestBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRate(rapid.IntRange(1, 2000).Draw(t, "count"),
			rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(t, "per"), rapid.IntRange(1, 100).Draw(t, "burst"))
		p := paceOf(r)
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
	p := paceOf(newRate(10, time.Second, 50))
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
	slow, fast := paceOf(newRate(1, time.Hour, 10)), paceOf(newRate(10, time.Second, 10))
	for range 10 {
		b.take(slow, 0)
	}
	b.fit(pace{}, time.Second)
	b.fit(fast, time.Second)
	if at := b.next(fast); at != time.Second+fast.every {
		t.Errorf("the bucket is empty for the fast pace until %v", at)
	}
}
