package event

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/rs/zerolog"
)

// A form turns whole JSON lines into what is written, line by line. The writer's goroutine calls it, so
// its price is not the producers'. The result is valid until the next call. In every form, what a client or
// a program wrote reaches the reader's terminal as visible characters only.
type form func(lines []byte) []byte

func formOf(terminal bool, format string) form {
	if format == "json" || format != "console" && !terminal {
		return jsonForm
	}
	return consoleForm(terminal && os.Getenv("TERM") != "dumb") // ConsoleWriter itself heeds NO_COLOR
}

// jsonForm is the lines as they are, but for the control characters that JSON may hold as they are: U+007F, and
// U+0080 to U+009F, of which U+009B begins an escape sequence on some terminals. In a line of JSON they can only
// be inside a string, where \u009b is the same.
func jsonForm(lines []byte) []byte {
	const lead = 0xC2 // the first byte in UTF-8 of U+0080 to U+00BF
	if bytes.IndexByte(lines, lead) < 0 && bytes.IndexByte(lines, 0x7F) < 0 {
		return lines
	}
	safe := make([]byte, 0, len(lines)+len(lines)/8)
	for i := 0; i < len(lines); i++ {
		if lines[i] == lead && i+1 < len(lines) && lines[i+1] < 0xA0 {
			i++
		} else if lines[i] != 0x7F {
			safe = append(safe, lines[i])
			continue
		}
		safe = fmt.Appendf(safe, `\u00%02x`, lines[i])
	}
	return safe
}

// consoleForm is for people: local time, level, service, message, then the fields.
func consoleForm(color bool) form {
	var text bytes.Buffer
	console := zerolog.ConsoleWriter{
		Out:        &text,
		NoColor:    !color,
		TimeFormat: "15:04:05",
		PartsOrder: []string{fieldTime, zerolog.LevelFieldName, fieldService, zerolog.MessageFieldName},
		FieldsOrder: []string{
			fieldConn, fieldPeer, fieldLocal, fieldPid, fieldStatus, fieldSignal, fieldCall, fieldReason,
			fieldDuration, fieldUser, fieldSystem, fieldMaxRSS, fieldBytesIn, fieldBytesOut,
			fieldLeftovers, fieldDropped, fieldSuppressed, fieldText, fieldCut, fieldSeconds, fieldAgain, fieldSourceOnly,
		},
		FieldsExclude: []string{fieldService},
		FormatPrepare: prepare,
	}
	return func(lines []byte) []byte {
		text.Reset()
		for line := range bytes.Lines(lines) {
			if _, err := console.Write(line); err != nil { // not JSON: show it rather than lose it
				fmt.Fprintf(&text, "%q\n", line)
			}
		}
		return text.Bytes()
	}
}

// The widths of the columns; accepted is the longest word for what happens to a connection.
const (
	serviceWidth = 10
	messageWidth = len("accepted")
)

// prepare makes a record safe and even. ConsoleWriter quotes the values of fields that are text; it writes
// as they are the parts before the fields, and the insides of lists and objects.
func prepare(record map[string]any) error {
	for name, value := range record {
		switch value.(type) {
		case map[string]any, []any:
			inside, err := zerolog.InterfaceMarshalFunc(value)
			if err != nil {
				return err
			}
			if text := string(inside); text != visible(text) {
				record[name] = text // from here on a text, to be quoted
			}
		}
	}
	message, _ := record[zerolog.MessageFieldName].(string)
	message = visible(message)
	service, ok := record[fieldService].(string)
	if ok {
		message = fmt.Sprintf("%-*s", messageWidth, message)
	} else {
		service = "superd"
	}
	record[zerolog.MessageFieldName] = message
	record[fieldService] = fmt.Sprintf("%-*s", serviceWidth, visible(service))
	return nil
}

// visible writes what cannot be printed as an escape of Go: \x1b, \n, \u009b.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// isTerminal asks for the settings that only a terminal has (tcgetattr(3)).
func isTerminal(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	terminal := false
	err = conn.Control(func(fd uintptr) { terminal = isTerminalFD(fd) })
	return err == nil && terminal
}

func isTerminalFD(fd uintptr) bool {
	var settings syscall.Termios
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TCGETS, uintptr(unsafe.Pointer(&settings)))
	return errno == 0
}
