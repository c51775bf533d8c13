package event

import (
	"bytes"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/rs/zerolog"
)

// complainEvery is the least time between two complaints: an output that fails every other line is one trouble,
// not many.
const complainEvery = time.Minute

// A complaints is where it is told that a log, which goes elsewhere, cannot be written: once for each such time.
// A nil one tells nobody.
type complaints struct {
	out   *os.File // lent
	form  form
	about string // the output
	told  bool   // this time
	last  time.Time
}

// complain tells what keeps the log from being written.
func (w *writer) complain(cause error) {
	c, now := w.complaints, w.log.now()
	if c == nil || c.told || now.Sub(c.last) < complainEvery {
		return
	}
	c.told, c.last = true, now
	var line bytes.Buffer
	logger := zerolog.New(&line)
	stamp(logger.Error(), now).Str(fieldOutput, c.about).AnErr(fieldError, cause).Msg("cannot write the log, lines are dropped")
	c.say(line.Bytes())
}

// end is called when the output takes lines again.
func (c *complaints) end() {
	if c != nil {
		c.told = false
	}
}

// lastWords tells what the log will never tell.
func (w *writer) lastWords() {
	if w.complaints != nil && w.lost > 0 {
		w.complaints.say(w.lossLine())
	}
}

// say writes a line if that needs no waiting.
func (c *complaints) say(line []byte) {
	if hasRoom(c.out) {
		writeLent(c.out, c.form(line))
	}
}

// hasRoom asks poll(2). A pipe that has any takes 4096 bytes, pipe(7).
func hasRoom(f *os.File) (room bool) {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	conn.Control(func(fd uintptr) {
		const writable = 4 // POLLOUT
		ask := struct {
			fd              int32
			events, revents int16
		}{int32(fd), writable, 0}
		var atOnce syscall.Timespec
		n, _, _ := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&ask)), 1, uintptr(unsafe.Pointer(&atOnce)), 0, 0, 0)
		room = n == 1 && ask.revents&writable != 0
	})
	return room
}
