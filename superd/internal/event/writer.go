package event

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

const (
	// breath is how long the writer leaves lines to gather after each write. A line that comes alone is
	// written at once, those that follow within a millisecond travel together. Measured with 16,000 lines a
	// second into a pipe: the writer takes 2% of a processor, and 22% without the pause; a record takes its
	// producer 0.6 µs, and 4.3 µs without, because it then wakes the writer each time.
	breath = time.Millisecond

	// An output without room is tried again after retryMin, then after twice as long, up to retryMax.
	retryMin = time.Millisecond
	retryMax = 50 * time.Millisecond
)

// A writer brings the queue to the output. Its goroutine is started by Open, or by who comes after another
// one; it alone touches what is here, but for the channels and anew.
type writer struct {
	log        *Log
	out        output      // closed by the goroutine at its end
	complaints *complaints // nil where the log itself is on stderr

	batch batch  // what is being written; its memory is the queue's next
	lost  uint64 // lines dropped that no line of the log has told
	why   error  // why the last of them were; nil where the queue was full
	cause error  // of the last write; nil if it was well
	gaps  []gap  // missing lines of stderr that no line of the log has told

	anew    atomic.Bool        // open the file anew, whatever its path leads to
	asked   chan chan struct{} // by Flush: write what is queued, and close the channel
	stop    chan struct{}      // closed by end, once: write what is queued, then end
	abandon chan struct{}      // closed by end when its patience has ended: end now
	done    chan struct{}      // closed when the goroutine ends
	last    bool               // nobody comes after it; set before stop is closed
	rest    batch              // of one that others come after: what is its still; guarded by the queue's mu
}

func newWriter(l *Log, out output) *writer {
	return &writer{
		log: l, out: out,
		asked:   make(chan chan struct{}),
		stop:    make(chan struct{}),
		abandon: make(chan struct{}),
		done:    make(chan struct{}),
	}
}

// run is the goroutine. Nothing wakes it while nothing happens: the clock for held refusals runs only
// while there are some.
func (w *writer) run() {
	defer close(w.done)
	defer w.out.close()
	clock := stopped()
	rest := stopped()
	defer clock.Stop()
	defer rest.Stop()
	running := false
	for {
		select {
		case <-w.log.queue.wake:
		case <-clock.C:
			running = false
			w.log.flush(false)
		case written := <-w.asked:
			w.deliver()
			close(written)
		case <-w.stop:
			w.deliver()
			if w.last {
				w.lastWords()
			}
			return
		}
		w.deliver()
		if !running && w.log.holding.Load() {
			clock.Reset(refusalEvery)
			running = true
		}
		rest.Reset(breath)
		select {
		case <-rest.C:
		case <-w.log.queue.much:
		case <-w.stop: // the loop sees it too, and delivers
		}
	}
}

// end has the writer write what is queued, for at most wait, and end; it is for the log's last one.
func (w *writer) end(wait time.Duration) {
	w.last = true
	w.finish(wait)
}

// finish has the goroutine end once it has written what is queued, or after that long; false where it could not
// be ended, since it is in a system call.
func (w *writer) finish(wait time.Duration) bool {
	close(w.stop)
	patience := time.NewTimer(wait)
	defer patience.Stop()
	select {
	case <-w.done:
		return true
	case <-patience.C:
	}
	close(w.abandon)
	patience.Reset(2 * retryMax)
	select {
	case <-w.done:
		return true
	case <-patience.C:
		return false
	}
}

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// deliver writes what is queued. Lines are lost for two reasons, a queue that was full behind this batch
// and an output that takes nothing; the log tells each gap where it is, before a line that comes after it.
func (w *writer) deliver() {
	w.follow()
	if n := w.log.queue.owed.Swap(0); n > 0 {
		w.lost, w.why = w.lost+n, errBefore
	}
	w.log.queue.takeFor(w)
	if w.confess() {
		w.lose(w.write(w.batch.lines), w.cause)
	} else {
		w.lose(w.batch.lines, w.cause)
	}
	w.miss()
	if w.cause == nil && w.confess() {
		w.complaints.end()
	}
}

// write brings whole lines to the output and returns those, at their end, that are not on it entirely.
func (w *writer) write(lines []byte) (missing []byte) {
	if len(lines) > 0 {
		missing, w.cause = w.out.write(lines, w)
	}
	return missing
}

// follow has a file that was moved away opened anew.
func (w *writer) follow() {
	asked := w.anew.Swap(false)
	f, isFile := w.out.(*file)
	if !isFile {
		return
	}
	if err := f.follow(w.log.now(), asked, w); err != nil {
		w.log.Warn("cannot open the log anew, the old file is written on", F(fieldOutput, f.path), F(fieldError, err))
	}
}

// lose counts lines that did not get to the output.
func (w *writer) lose(lines []byte, why error) {
	if len(lines) == 0 {
		return
	}
	n := uint64(countLines(lines))
	w.lost, w.why = w.lost+n, why
	w.log.queue.total.Add(n)
	for line := range bytes.Lines(lines) {
		w.log.charge(line)
	}
	if why != errAbandoned {
		w.complain(why)
	}
}

// miss takes note of what found no room in the queue, and was counted then.
func (w *writer) miss() {
	if n := w.batch.dropped; n > 0 {
		w.lost, w.why = w.lost+n, w.cause
	}
	for _, g := range w.batch.gaps {
		same := func(other gap) bool { return other.service == g.service }
		if i := slices.IndexFunc(w.gaps, same); i >= 0 {
			w.gaps[i].lines += g.lines
		} else {
			w.gaps = append(w.gaps, g)
		}
	}
}

// confess tells how many lines are missing here. It is false when even that cannot be written; then the
// numbers stay, for the next time.
func (w *writer) confess() bool {
	if w.lost > 0 {
		if len(w.write(w.lossLine())) > 0 {
			return false
		}
		w.log.queue.told.Add(w.lost)
		w.lost = 0
	}
	for i, g := range w.gaps {
		if len(w.write(w.gapLine(g))) > 0 {
			w.gaps = w.gaps[i:]
			return false
		}
		w.log.queue.told.Add(g.lines)
	}
	w.gaps = nil
	return true
}

// lossLine is the record of lines that were lost whoever said them.
func (w *writer) lossLine() []byte {
	var line bytes.Buffer
	logger := zerolog.New(&line)
	e := stamp(logger.Warn(), w.log.now()).Uint64(fieldDropped, w.lost)
	why := "nobody reads the log"
	if w.why != nil && !errors.Is(w.why, syscall.EPIPE) && w.why != errAbandoned {
		why = "the log cannot be written"
		e = e.AnErr(fieldError, w.why)
	}
	e.Msg(fmt.Sprintf("%d log lines were dropped because %s", w.lost, why))
	return line.Bytes()
}

func (w *writer) gapLine(g gap) []byte {
	var line bytes.Buffer
	logger := zerolog.New(&line).With().Str(fieldService, g.service.name).Logger()
	stamp(logger.Warn(), w.log.now()).Uint64(fieldDropped, g.lines).Msg(fmt.Sprintf("%d lines of stderr were dropped", g.lines))
	return line.Bytes()
}

// wait is for outputs that have no room: it lets a pause pass, or less where the log is closed meanwhile, and
// says how long the next one is.
func (w *writer) wait(pause time.Duration) (next time.Duration) {
	if w.log.queue.full() {
		w.complain(syscall.EAGAIN)
	}
	w.pause(pause)
	return min(2*pause, retryMax)
}

func (w *writer) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.abandon:
	}
}

func (w *writer) abandoned() bool {
	select {
	case <-w.abandon:
		return true
	default:
		return false
	}
}
