package event

import (
	"bytes"
	"io"
	"os"
	"syscall"
)

// A stream is an open file that lines are written to one after another.
type stream struct {
	form form
	torn bool                              // the file ends in the middle of a line
	look func() bool                       // tells whether it does, before the first line; nil where that is known
	once func(p []byte) (n int, err error) // one write(2)
}

// lent is the stream of a file that stays the caller's.
func lent(out *os.File, format string) *stream {
	return &stream{form: formOf(isTerminal(out), format), once: func(p []byte) (int, error) { return writeLent(out, p) }}
}

func (s *stream) close() {}

// write puts whole lines on the file. Each is one line there, too.
func (s *stream) write(lines []byte, w *writer) (missing []byte, err error) {
	if s.look != nil {
		s.torn, s.look = s.torn || s.look(), nil
	}
	if s.torn { // what follows must not be glued to half a line
		if _, err := s.put([]byte{'\n'}, w); err != nil {
			return lines, err
		}
		s.torn = false
	}
	text := s.form(lines)
	n, err := s.put(text, w)
	s.torn = n > 0 && text[n-1] != '\n'
	return lastLines(lines, countLines(text[n:])), err
}

// put writes all of p, if it takes long, and says how much it wrote. No error is tried again but one that
// says "later": the lines are lost, the next ones try anew.
func (s *stream) put(p []byte, w *writer) (n int, err error) {
	pause := retryMin
	for n < len(p) {
		var k int
		k, err = s.once(p[n:])
		n += k
		switch {
		case k > 0:
			pause = retryMin
		case err == syscall.EINTR:
		case err == syscall.EAGAIN && w.abandoned(): // a file that takes lines gets them, however late the writer is
			return n, errAbandoned
		case err == syscall.EAGAIN:
			pause = w.wait(pause)
		default:
			return n, err
		}
	}
	return n, nil
}

// writeLent is one write(2). It is not os.File.Write, which raises SIGPIPE against the own process when
// the file is stdout or stderr and has no reader, and which may not wait for a file that somebody else
// has made non-blocking after the start.
func writeLent(out *os.File, p []byte) (n int, err error) {
	file, err := out.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := file.Control(func(fd uintptr) { n, err = writeOnce(int(fd), p) })
	if failed != nil {
		return 0, failed
	}
	return n, err
}

func writeOnce(fd int, p []byte) (n int, err error) {
	n, err = syscall.Write(fd, p)
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	return max(n, 0), err
}

// lastLines are the last n of several lines.
func lastLines(lines []byte, n int) []byte {
	if n == 0 {
		return nil
	}
	for range countLines(lines) - n {
		lines = lines[bytes.IndexByte(lines, '\n')+1:]
	}
	return lines
}

func countLines(p []byte) int { return bytes.Count(p, []byte{'\n'}) }
