package event

import (
	"os"
	"time"
)

// A Change is other options for a log, which are ready to hold: what can fail has been done.
type Change struct {
	log     *Log
	options Options
	writer  *writer // of another output; nil where that stays as it is
}

// Prepare makes ready what Apply changes: the level, how addresses are written, and where other is set the output
// as well, by the words of [OpenOutput]. Nothing changes yet.
func (l *Log) Prepare(name string, stderr *os.File, o Options, other bool) (*Change, error) {
	c := &Change{log: l, options: o}
	if !other {
		return c, nil
	}
	var err error
	c.writer, err = openWriter(l, name, stderr, o)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Abandon frees what is not to be.
func (c *Change) Abandon() {
	if c.writer != nil {
		c.writer.out.close()
	}
}

// lastPatience is how long an output that is left has to take what was meant for it. Tests wait longer.
var lastPatience = time.Second

// Apply makes the change. What was said before is written to the output of before, what comes from now on to the
// other one; meanwhile it waits. Where the output of before takes nothing, that is dropped and told in the other
// one. The services whose level is the log's own have to be told, with SetLevel. It does not wait.
func (c *Change) Apply() {
	l := c.log
	l.level.Store(int32(level(c.options.Level)))
	if l.peer.Load().word != c.options.Address { // else a key would change
		l.peer.Store(addressingOf(c.options.Address))
	}
	if next := c.writer; next != nil {
		before := l.writer.Swap(next)
		l.queue.give(next)
		go next.runAfter(before) // ends after Close has closed its stop
	}
}

// runAfter is run once the writer of before has ended.
func (w *writer) runAfter(before *writer) {
	if before.finish(lastPatience) {
		w.lost, w.why, w.gaps = before.lost, before.why, before.gaps
	}
	w.log.queue.ring() // what the other one has heard of, and not done
	w.run()
}
