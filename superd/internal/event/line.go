package event

import (
	"bytes"
	"encoding/json"
	"iter"
	"strconv"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// fields gives the names and the values of a record, one line of JSON, in their order and as they are written
// there. It is for the lines that this package has made; of others it gives what comes before the first thing
// that is no field.
func fields(line []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		rest, more := bytes.CutPrefix(line, []byte{'{'})
		for more {
			end := endOfValue(rest)
			if end < 2 || rest[0] != '"' || end >= len(rest) || rest[end] != ':' {
				return
			}
			name := rest[1 : end-1]
			rest = rest[end+1:]
			if end = endOfValue(rest); end == 0 || !yield(name, rest[:end]) {
				return
			}
			rest, more = bytes.CutPrefix(rest[end:], []byte{','})
		}
	}
}

// endOfValue is the length of the JSON value that b begins with; 0 where it has no end.
func endOfValue(b []byte) int {
	depth, inText := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			if inText = !inText; !inText && depth == 0 {
				return i + 1
			}
		case inText:
		case c == '{' || c == '[':
			depth++
		case (c == '}' || c == ']') && depth > 0:
			if depth--; depth == 0 {
				return i + 1
			}
		case depth == 0 && (c == ',' || c == '}' || c == ']' || c == '\n'):
			return i
		}
	}
	return 0
}

// plain is a value as text: of a text what it says, of anything else its JSON.
func plain(value []byte) []byte {
	if len(value) < 2 || value[0] != '"' {
		return value
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1]
	}
	var text string
	if json.Unmarshal(value, &text) != nil {
		return value
	}
	return []byte(text)
}

// field is the text of one field of a record, nil where there is none.
func field(line []byte, wanted string) []byte {
	for name, value := range fields(line) {
		if string(name) == wanted {
			return plain(value)
		}
	}
	return nil
}

// appendSentence appends a record as one line of text for those who have the time and the level elsewhere:
//
//	echo exited conn=1f peer=192.0.2.7:40000 status=0
//
// What a client or a program wrote is in it as visible characters only.
func appendSentence(b, line []byte) []byte {
	if service := field(line, fieldService); service != nil {
		b = append(b, visible(string(service))...)
		b = append(b, ' ')
	}
	b = append(b, visible(string(field(line, zerolog.MessageFieldName)))...)
	for name, value := range fields(line) {
		switch string(name) {
		case fieldTime, zerolog.LevelFieldName, fieldService, zerolog.MessageFieldName:
			continue
		}
		b = append(b, ' ')
		b = append(b, visible(string(name))...)
		b = append(b, '=')
		b = appendWord(b, plain(value))
	}
	return b
}

// appendWord appends a text as it is where it is one visible word, and else in quotes.
func appendWord(b, text []byte) []byte {
	isPart := func(c byte) bool { return c > ' ' && c < 0x7F && c != '"' && c != '\\' && c != '=' }
	for _, c := range text {
		if !isPart(c) {
			return strconv.AppendQuote(b, string(text))
		}
	}
	if len(text) == 0 {
		return append(b, `""`...)
	}
	return append(b, text...)
}

// cutMark is at the end of what was cut.
const cutMark = "..."

// cut shortens b to at most size bytes, of which the mark is a part.
func cut(b []byte, size int) []byte {
	if len(b) <= size {
		return b
	}
	return append(upTo(b, size-len(cutMark)), cutMark...)
}

// upTo is the beginning of b, of whole characters, that has at most size bytes.
func upTo(b []byte, size int) []byte {
	if len(b) <= size {
		return b
	}
	for size > 0 && !utf8.RuneStart(b[size]) {
		size--
	}
	return b[:size]
}
