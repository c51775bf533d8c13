package event

import (
	"strconv"
	"time"

	"github.com/rs/zerolog"
)

// millis appends d in milliseconds with three decimals, cut to whole microseconds.
func millis(e *zerolog.Event, name string, d time.Duration) *zerolog.Event {
	var room [24]byte // a Duration in microseconds has at most 16 digits
	return e.RawJSON(name, appendMillis(room[:0], d))
}

func appendMillis(b []byte, d time.Duration) []byte {
	us := max(d, 0).Microseconds() // nothing lasts less than no time: what is negative was a clock that was set
	b = strconv.AppendInt(b, us/1000, 10)
	rest := us % 1000
	return append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}
