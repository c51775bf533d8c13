// Package event owns everything that can happen, once: an event is a log line and a counter in one
// call, so that the log, the metrics and the status can never disagree about the words or the numbers.
// It decides nothing and knows no other package of the daemon.
//
// Recording never waits for whoever reads the log: a producer appends its line to a bounded buffer and
// goes on. One goroutine per Log writes. Where nobody reads, lines are dropped, and the log says how many.
package event

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// The field names of the JSON form. They are a contract with those who parse the log.
const (
	fieldTime       = "time"
	fieldService    = "service"
	fieldConn       = "conn"
	fieldPeer       = "peer"
	fieldLocal      = "local"
	fieldPid        = "pid"
	fieldStatus     = "status"
	fieldSignal     = "signal"
	fieldCall       = "syscall"
	fieldDuration   = "duration_ms"
	fieldUser       = "user_ms"
	fieldSystem     = "system_ms"
	fieldMaxRSS     = "maxrss_kb"
	fieldBytesIn    = "bytes_in"
	fieldBytesOut   = "bytes_out"
	fieldReason     = "reason"
	fieldLeftovers  = "leftovers"
	fieldSuppressed = "suppressed"
	fieldDropped    = "dropped"
	fieldError      = "error"
	fieldText       = "text"
	fieldCut        = "cut"
	fieldSeconds    = "seconds"
	fieldAgain      = "again"
	fieldSourceOnly = "source_only"
	fieldOutput     = "output"
)

// Options say what is written, and how.
type Options struct {
	Level   string           // debug, info, warn or error; anything else is info
	Format  string           // auto, json or console; anything else is auto: console when the log goes to a terminal
	Address string           // full, prefix, hash or none: a client's address; anything else is full
	Now     func() time.Time // the clock of the records; nil is time.Now

	// Above takes a descriptor that is to stay open, and returns what stands for it from then on; fd is its own
	// to close. Nil leaves descriptors as they come.
	Above func(fd int) (int, error)

	Syslog, Journal string // the sockets of syslog and journald; "" is where a system has them
}

// A Log writes the records of the daemon to one output. All its methods may be called from any goroutine.
type Log struct {
	now    func() time.Time           // immutable
	level  atomic.Int32               // a zerolog.Level
	peer   atomic.Pointer[addressing] // never nil
	queue  *queue                     // immutable; producers append, the writer's goroutine takes
	writer atomic.Pointer[writer]     // its goroutine owns what is in it; never nil
	logger zerolog.Logger             // immutable; the daemon's own words, of any level

	holding atomic.Bool // some service may hold refusals back: the writer must look in a second

	mu       sync.Mutex
	services []*Service // guarded by mu; grows only
	closing  sync.Once
}

// Open starts a log on out. It starts the one goroutine that writes; Close ends it. The file stays the
// caller's, its flags are not changed, and it must stay open until Close has returned.
func Open(out *os.File, o Options) *Log {
	l := quiet(lent(out, o.Format), o)
	go l.writer.Load().run() // ends after Close has closed its stop
	return l
}

// quiet is a log whose writer does not run yet.
func quiet(out output, o Options) *Log {
	l := &Log{now: o.Now, queue: newQueue()}
	if l.now == nil {
		l.now = time.Now
	}
	l.level.Store(int32(level(o.Level)))
	l.peer.Store(addressingOf(o.Address))
	l.logger = zerolog.New(l.queue)
	l.queue.writer = newWriter(l, out)
	l.writer.Store(l.queue.writer)
	return l
}

// Reopen has a log file opened anew by its path: the next line goes to what is there then. Where that cannot be
// opened the old file is written on, and a record says so. It does not wait, and does nothing where the log goes
// elsewhere.
func (l *Log) Reopen() {
	l.writer.Load().anew.Store(true)
	l.queue.ring()
}

// Close writes what is queued, for at most wait, and stops the writer. Refusals that were held back are
// told. Later records are counted, not written. Where a blocking file has no reader, the goroutine is in a
// system call that nothing can interrupt: Close returns nevertheless, and the goroutine ends with that call.
func (l *Log) Close(wait time.Duration) {
	l.closing.Do(func() {
		l.flush(true)
		l.queue.close()
		l.writer.Load().end(wait)
	})
}

// A Field is one name and value beside a message of the daemon.
type Field struct {
	Name  string
	Value any // text, number, error, duration or anything that JSON can say
}

// F is a Field in one short word.
func F(name string, value any) Field { return Field{Name: name, Value: value} }

// Info records the daemon's own words: starting, listening, stopping.
func (l *Log) Info(message string, fields ...Field) { l.say(zerolog.InfoLevel, message, fields) }

// Warn records what an administrator should look at; the daemon goes on.
func (l *Log) Warn(message string, fields ...Field) { l.say(zerolog.WarnLevel, message, fields) }

// Error records what the daemon could not do.
func (l *Log) Error(message string, fields ...Field) { l.say(zerolog.ErrorLevel, message, fields) }

func (l *Log) say(level zerolog.Level, message string, fields []Field) {
	if level < zerolog.Level(l.level.Load()) {
		return
	}
	e := stamp(l.logger.WithLevel(level), l.now())
	for _, f := range fields {
		e = e.Fields([]any{f.Name, f.Value})
	}
	e.Msg(message)
}

// Service is the recorder of the service of that name. Asked twice it is the same one: the counters of a
// service outlive a reload.
func (l *Log) Service(name string) *Service {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.find(name); s != nil {
		return s
	}
	s := newService(name, l)
	l.services = append(l.services, s)
	return s
}

// find is called under l.mu; nil where there is no such service.
func (l *Log) find(name string) *Service {
	for _, s := range l.services {
		if s.name == name {
			return s
		}
	}
	return nil
}

// charge counts a line that was lost with the service that it speaks of.
func (l *Log) charge(line []byte) {
	name := field(line, fieldService)
	if name == nil {
		return
	}
	l.mu.Lock()
	s := l.find(string(name))
	l.mu.Unlock()
	if s == nil {
		return
	}
	s.lost.Add(1)
	if string(field(line, zerolog.MessageFieldName)) == messageStderr {
		s.lostStderr.Add(1)
	}
}

// Dropped says how many lines never reached the log, since Open.
func (l *Log) Dropped() uint64 { return l.queue.total.Load() }

// flush tells the refusals that were held back: those whose second has passed, or all. It says so to
// the writer when it left some.
func (l *Log) flush(all bool) {
	l.holding.Store(false) // before looking: who holds one back from now on sets it again
	l.mu.Lock()
	services := l.services
	l.mu.Unlock()
	now := l.now()
	for _, s := range services {
		if s.flush(now, all) {
			l.holding.Store(true)
		}
	}
}

func level(word string) zerolog.Level {
	switch word {
	case "debug":
		return zerolog.DebugLevel
	case "warn":
		return zerolog.WarnLevel
	case "error":
		return zerolog.ErrorLevel
	}
	return zerolog.InfoLevel
}

// timeLayout is RFC 3339 with milliseconds. Records are in UTC, so that lines of two machines, or from
// both sides of a change of the clock, compare as text.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// stamp and millis render on the stack: zerolog's own Time and Dur follow variables that are global to
// the program, and those are not this package's to set.
func stamp(e *zerolog.Event, now time.Time) *zerolog.Event {
	var room [len(timeLayout) + 2]byte
	b := append(room[:0], '"')
	b = now.UTC().AppendFormat(b, timeLayout)
	return e.RawJSON(fieldTime, append(b, '"'))
}
