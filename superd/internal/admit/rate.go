package admit

import (
	"time"

	"superd/superd/internal/config"
)

// pace is a rate in the terms of a bucket; its zero value is no limit.
type pace struct {
	every time.Duration // a token comes
	depth time.Duration // until an empty bucket is full
}

// paceOf rounds up, so that never more come in than the file says.
func paceOf(r config.Rate) pace {
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
