package event

import (
	"bytes"
	"fmt"
	"os"
	"syscall"

	"github.com/rs/zerolog"
)

// mostSent bounds one datagram. The records of a program's lines are smaller: of a line there are 8 KiB, of which
// a byte is at most six in the longest form, \u0000.
const mostSent = 64 << 10

// A socket sends each record as one datagram to a unix socket in the file system. It is not connected: whoever
// listens there may end and be started again, and nothing has to notice that.
type socket struct {
	fd     int
	to     syscall.SockaddrUnix
	letter letter
	buffer []byte
}

// A letter makes a record into what one datagram says, in the memory of b, mostSent bytes of it at most.
type letter func(b, line []byte) []byte

// openSocket makes one, where somebody listens; who that is to be is for the error.
func openSocket(who, path string, o Options, l letter) (*socket, error) {
	s := &socket{to: syscall.SockaddrUnix{Name: path}, letter: l}
	fd, err := unixSocket()
	if err == nil {
		s.fd, err = o.own(fd)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open a socket for the log: %w", err)
	}
	if err := s.listened(); err != nil {
		s.close()
		return nil, fmt.Errorf("cannot reach %s at %s: %w", who, path, err)
	}
	return s, nil
}

func unixSocket() (int, error) {
	return syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
}

// listened asks whether somebody listens, without a word to them.
func (s *socket) listened() error {
	fd, err := unixSocket()
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	return syscall.Connect(fd, &s.to)
}

func (s *socket) close() { syscall.Close(s.fd) }

// write sends lines until one cannot be sent. One that is too long for the socket is lost by itself.
func (s *socket) write(lines []byte, w *writer) (missing []byte, err error) {
	for len(lines) > 0 {
		line, rest, _ := bytes.Cut(lines, []byte{'\n'})
		s.buffer = s.letter(s.buffer[:0], line)
		switch err := s.send(w); {
		case err == syscall.EMSGSIZE:
			w.lose(lines[:len(line)+1], err)
		case err != nil:
			return lines, err
		}
		lines = rest
	}
	return nil, nil
}

// send waits where the other side has no room.
func (s *socket) send(w *writer) error {
	pause := retryMin
	for {
		err := syscall.Sendto(s.fd, s.buffer, syscall.MSG_NOSIGNAL, &s.to)
		if err != syscall.EAGAIN {
			return err
		}
		if w.abandoned() {
			return errAbandoned
		}
		pause = w.wait(pause)
	}
}

// The severities of RFC 5424, table 2, that records have, and the facility of daemons of its table 1.
const (
	severityError   = 3
	severityWarning = 4
	severityInfo    = 6
	severityDebug   = 7

	facilityDaemon = 3
)

func severityOf(line []byte) int {
	switch string(field(line, zerolog.LevelFieldName)) {
	case "error":
		return severityError
	case "warn":
		return severityWarning
	case "debug":
		return severityDebug
	}
	return severityInfo
}

// programName is what syslog and the journal know superd's records by.
const programName = "superd"

var pid = os.Getpid()
