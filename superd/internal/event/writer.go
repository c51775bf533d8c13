package event

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
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

	// A full non-blocking file is tried again after retryMin, then after twice as long, up to retryMax.
	retryMin = time.Millisecond
	retryMax = 50 * time.Millisecond
)

// A writer brings the queue to the file. Its goroutine is started by Open; it alone touches what is here,
// but for the channels.
type writer struct {
	log  *Log
	out  *os.File // lent by Open's caller
	form form

	spare []byte // the buffer that the queue gets next
	lost  uint64 // lines dropped that no line of the log has told
	cause error  // of the last write; nil if it was well
	torn  bool   // the file ends in the middle of a line

	asked   chan chan struct{} // by Flush: write what is queued, and close the channel
	stop    chan struct{}      // closed by Close, once: write what is queued, then end
	abandon chan struct{}      // closed by Close when its patience has ended: end now
	done    chan struct{}      // closed when the goroutine ends
}

func newWriter(l *Log, out *os.File, f form) *writer {
	return &writer{
		log: l, out: out, form: f,
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
		case <-w.stop: // the loop sees it too, and delivers
		}
	}
}

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// deliver writes what is queued. Lines are lost for two reasons, a queue that was full behind this batch
// and a file that takes nothing; the log tells each gap where it is, before a line that comes after it.
func (w *writer) deliver() {
	batch, dropped := w.log.queue.take(w.spare)
	w.spare = batch
	if w.confess() {
		w.lose(w.write(w.form(batch)))
	} else {
		w.lose(countLines(batch))
	}
	w.lost += dropped // counted in the total when they were dropped
	if w.cause == nil {
		w.confess()
	}
}

func (w *writer) lose(lines int) {
	w.lost += uint64(lines)
	w.log.queue.total.Add(uint64(lines))
}

// confess tells how many lines are missing here. It is false when even that cannot be written; then the
// number stays, for the next time.
func (w *writer) confess() bool {
	if w.lost == 0 {
		return true
	}
	why := "nobody reads the log"
	var line bytes.Buffer
	logger := zerolog.New(&line)
	e := stamp(logger.Warn(), w.log.now()).Uint64(fieldDropped, w.lost)
	if w.cause != nil && !errors.Is(w.cause, syscall.EPIPE) {
		why = "the log cannot be written"
		e = e.AnErr(fieldError, w.cause)
	}
	e.Msg(fmt.Sprintf("%d log lines were dropped because %s", w.lost, why))
	if w.write(w.form(line.Bytes())) > 0 {
		return false
	}
	w.lost = 0
	return true
}

// write puts whole lines on the file and says how many of them are not on it entirely.
func (w *writer) write(lines []byte) (missing int) {
	if len(lines) == 0 {
		return 0
	}
	if w.torn { // what follows must not be glued to half a line
		if _, w.cause = w.put([]byte{'\n'}); w.cause != nil {
			return countLines(lines)
		}
		w.torn = false
	}
	var n int
	n, w.cause = w.put(lines)
	w.torn = n > 0 && lines[n-1] != '\n'
	return countLines(lines[n:])
}

// put writes all of p, if it takes long, and says how much it wrote. No error is tried again but one that
// says "later": the lines are lost, the next ones try anew.
func (w *writer) put(p []byte) (n int, err error) {
	pause := retryMin
	for n < len(p) {
		if w.abandoned() {
			return n, errAbandoned
		}
		var k int
		k, err = w.systemWrite(p[n:])
		n += k
		switch {
		case k > 0:
			pause = retryMin
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			w.wait(pause)
			pause = min(2*pause, retryMax)
		default:
			return n, err
		}
	}
	return n, nil
}

var errAbandoned = errors.New("the log is closed")

func (w *writer) abandoned() bool {
	select {
	case <-w.abandon:
		return true
	default:
		return false
	}
}

func (w *writer) wait(pause time.Duration) {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.abandon:
	}
}

// systemWrite is one write(2). It is not os.File.Write, which raises SIGPIPE against the own process when
// the file is stdout or stderr and has no reader, and which may not wait for a file that somebody else
// has made non-blocking after the start.
func (w *writer) systemWrite(p []byte) (n int, err error) {
	file, err := w.out.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := file.Control(func(fd uintptr) { n, err = syscall.Write(int(fd), p) })
	if failed != nil {
		return 0, failed
	}
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	return max(n, 0), err
}

func countLines(p []byte) int { return bytes.Count(p, []byte{'\n'}) }
