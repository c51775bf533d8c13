package event

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// An output is where a log goes. The writer's goroutine alone uses it.
type output interface {
	// write brings whole lines of JSON there, in the output's own form, and returns those, at their end, that
	// did not get there entirely, and why. Where there is no room now it tries again for as long as w lets it.
	write(lines []byte, w *writer) (missing []byte, err error)
	// close frees what the output has opened itself.
	close()
}

// OpenOutput starts a log on what log.output of the file names: stderr, syslog, journald, or the absolute path
// of a file, where /dev/stdout and /dev/stderr stand for the descriptors. What it opens, Close closes. Stderr
// stays the caller's, and must stay open until Close has returned; where the log goes elsewhere, stderr is told
// once when the log cannot be written, as long as that needs no waiting.
func OpenOutput(name string, stderr *os.File, o Options) (*Log, error) {
	l := quiet(nil, o)
	w, err := openWriter(l, name, stderr, o)
	if err != nil {
		return nil, err
	}
	l.queue.writer = w
	l.writer.Store(w)
	go w.run() // ends after Close has closed its stop
	return l, nil
}

// openWriter makes the writer of an output, which does not run yet.
func openWriter(l *Log, name string, stderr *os.File, o Options) (*writer, error) {
	out, err := openOutput(name, stderr, o)
	if err != nil {
		return nil, err
	}
	w := newWriter(l, out)
	if name != "stderr" && name != nameStderr {
		w.complaints = &complaints{out: stderr, form: formOf(isTerminal(stderr), o.Format), about: name}
	}
	return w, nil
}

// CheckOutput says why OpenOutput would fail. It makes no file and writes nothing.
func CheckOutput(name string, o Options) error {
	if strings.HasPrefix(name, "/") && !lends(name) {
		if err := checkFile(name); err != nil {
			return fmt.Errorf("cannot open the log %s: %w", name, err)
		}
		return nil
	}
	out, err := openOutput(name, os.Stderr, o)
	if err == nil {
		out.close()
	}
	return err
}

const (
	nameStdout = "/dev/stdout"
	nameStderr = "/dev/stderr"
)

// lends tells the outputs that superd was started with.
func lends(name string) bool { return name == "stderr" || name == nameStderr || name == nameStdout }

func openOutput(name string, stderr *os.File, o Options) (output, error) {
	switch name {
	case "stderr", nameStderr:
		return lent(stderr, o.Format), nil
	case nameStdout:
		return lent(os.Stdout, o.Format), nil
	case "syslog":
		return openSyslog(o)
	case "journald":
		return openJournal(o)
	}
	f, err := openFile(name, o)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log %s: %w", name, err)
	}
	return f, nil
}

// own takes a descriptor that this package has opened to where the caller wants those that stay open. The old
// number is closed in any case.
func (o *Options) own(fd int) (int, error) {
	if o.Above == nil {
		return fd, nil
	}
	return o.Above(fd)
}

var errAbandoned = errors.New("the log is closed")

// errBefore is why lines are missing that another superd would have told of.
var errBefore = errors.New("before the upgrade")
