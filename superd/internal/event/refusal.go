package event

import (
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// refusalEvery is the least time between two lines of one service about one reason: a flood of refused
// connections must not become a flood of lines. Those between are counted and told later.
const refusalEvery = time.Second

// refusals are what a service has told, and what it holds back, by reason.
type refusals struct {
	mu sync.Mutex
	by [NumReasons]struct {
		told time.Time // when the last line was written
		held uint64    // refusals since then that no line has told
	} // guarded by mu
}

// tell says whether a refusal gets a line now, and how many others that line must speak for. One that gets
// none is held; first says that it is the first such.
func (f *refusals) tell(r Reason, now time.Time) (line bool, others uint64, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := &f.by[r]
	if now.Sub(last.told) < refusalEvery {
		last.held++
		return false, 0, last.held == 1
	}
	others = last.held
	last.told, last.held = now, 0
	return true, others, false
}

// release takes those held for a reason when their second has passed, or at once. It says how many it took
// and how many stay.
func (f *refusals) release(r Reason, now time.Time, atOnce bool) (taken, left uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := &f.by[r]
	if !atOnce && now.Sub(last.told) < refusalEvery {
		return 0, last.held
	}
	taken = last.held
	if taken > 0 {
		last.told, last.held = now, 0
	}
	return taken, 0
}

// Refused records a connection that was turned away; cause, if any, is what the reason cannot say.
// Every refusal counts, but of one reason there is at most one line in a second. The field suppressed says
// how many more were refused since the line before.
func (s *Service) Refused(c *Conn, r Reason, cause error) {
	s.refused[r].Add(1)
	if !s.lets(zerolog.WarnLevel) {
		return
	}
	now := s.log.now()
	line, others, first := s.refusals.tell(r, now)
	if first {
		s.log.holding.Store(true)
		s.log.queue.ring() // the writer sets its clock
	}
	if !line {
		return
	}
	e := connection(stamp(s.logger.Warn(), now), c).Str(fieldReason, r.String())
	if cause != nil {
		e = e.AnErr(fieldError, cause)
	}
	if others > 0 {
		e = e.Uint64(fieldSuppressed, others)
	}
	e.Msg("refused")
}

// flush tells what is held, in lines without a connection, and says whether some is left.
func (s *Service) flush(now time.Time, atOnce bool) (some bool) {
	for _, r := range Reasons() {
		taken, left := s.refusals.release(r, now, atOnce)
		some = some || left > 0
		if taken > 0 && s.lets(zerolog.WarnLevel) {
			stamp(s.logger.Warn(), now).Str(fieldReason, r.String()).Uint64(fieldSuppressed, taken).Msg("refused")
		}
	}
	return some
}
