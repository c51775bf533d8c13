package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// The YAML library knows no column and names the line of what surrounds an
// error, or none at all. So the text is parsed once more, given to the library
// byte by byte: where it stops reading is where it stumbled.

// lookahead is how many characters the library reads beyond the one it
// decides on.
const lookahead = 4

// syntaxMessage is one of the library's messages: in our words, and how to
// find its place.
type syntaxMessage struct {
	theirs     string
	what, hint string
	place      func(stumble) int // an offset into the text
}

const noContent = "did not find expected node content"

var syntaxMessages = []syntaxMessage{
	{"mapping values are not allowed", `":" is not possible here`, "check the indentation, or quote the value", stumble.exact},
	{"block sequence entries are not allowed", `"-" is not possible here`, "begin the list on a line of its own", stumble.exact},
	{"tab character", "a tab is not possible here", "indent with spaces", stumble.tab},
	{"found character that cannot start any token", "a value cannot begin like this", "quote it", stumble.exact},
	{"could not find expected ':'", "neither a key nor a value belongs here", "write KEY: VALUE", stumble.contextLine},
	{"found unexpected end of stream", "a quoted text that begins on this line does not end", "", stumble.openQuote},
	{"did not find expected ',' or", "a list or mapping in brackets goes wrong on this line or does not end", "", stumble.openBracket},
	{"did not find expected key", "a key was expected", "check the indentation and the quotes", stumble.firstLine},
	{"did not find expected '-'", `"- " was expected`, "check the indentation", stumble.firstLine},
	{noContent, "a value was expected", "quote it if it begins with a special character", stumble.exact},
	{"did not find expected alphabetic", `"*" and "&" have a meaning of their own`, "quote the value", stumble.exact},
	{"unknown anchor", "there is no anchor of this name", `quote a value that begins with "*"`, stumble.alias},
	{"unknown escape", "an unknown escape in a quoted text", `write \\ for a backslash, or use single quotes`, stumble.backslash},
	{"exceeded max depth", "nested more than 64 deep", "", stumble.exact},
}

// syntax reports that a file is not YAML.
func (d *decoder) syntax(data []byte, err error) {
	s := stumbleOver(data, err)
	m := s.message()
	at := s.placeOf(m)
	d.fileProblem(d.position(data, at), m.what, cmpHint(quoteHint(lineAround(data, at)), m.hint))
}

func cmpHint(special, usual string) string {
	if special != "" {
		return special
	}
	return usual
}

// stumble is what is known about a syntax error.
type stumble struct {
	data []byte
	text string // the library's message, without its line
	line int    // its line for the surrounding construct, from 1; 0 for none
	read int    // how much of data had been read
}

// The library takes line 0, where a text begins, for no line: a line in front
// makes that line a real one. What follows gives it enough to look ahead to.
const (
	before = "#\n"
	after  = "\n\n\n\n\n\n"
)

var lineInMessage = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func stumbleOver(data []byte, err error) stumble {
	padded := before + string(data) + after
	feed := &feed{text: padded}
	if again := firstError(feed); again != nil {
		err = again
	}
	found := lineInMessage.FindStringSubmatch(err.Error())
	s := stumble{data: data, text: lineInMessage.ReplaceAllString(err.Error(), "")}
	if len(found) == 2 {
		s.line, _ = strconv.Atoi(found[1])
	}
	s.read = max(0, feed.at-len(before))
	return s
}

// feed gives its text one byte at a time.
type feed struct {
	text string
	at   int
}

func (f *feed) Read(p []byte) (int, error) {
	if f.at == len(f.text) {
		return 0, io.EOF
	}
	p[0] = f.text[f.at]
	f.at++
	return 1, nil
}

// firstError parses all documents of a text.
func firstError(text io.Reader) error {
	stream := yaml.NewDecoder(text)
	for {
		var n yaml.Node
		if err := stream.Decode(&n); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (s stumble) message() syntaxMessage {
	for _, m := range syntaxMessages {
		if strings.Contains(s.text, m.theirs) {
			return s.refined(m)
		}
	}
	return syntaxMessage{s.text, "not YAML: " + s.text, "", stumble.exact}
}

// refined says more than the library where the text shows more.
func (s stumble) refined(m syntaxMessage) syntaxMessage {
	switch {
	case s.data[s.placeOf(m)] == '\t':
		m.what, m.hint = "a tab is not possible here", "indent with spaces"
	case m.theirs == noContent && s.read > len(s.data):
		m.what, m.hint = "the file ends inside brackets", "close them"
	}
	return m
}

// placeOf keeps inside the text, whatever the library's count of lines was.
func (s stumble) placeOf(m syntaxMessage) int { return min(m.place(s), len(s.data)-1) }

// exact is the character that the library could not go on from.
func (s stumble) exact() int {
	at := min(s.read, len(s.data))
	ahead := lookahead - (s.read - at)
	for ; at > 0 && ahead > 0; ahead-- {
		_, size := utf8.DecodeLastRune(s.data[:at])
		at -= size
	}
	return s.backFromEnd(at)
}

// backFromEnd moves a place behind the last line into it, where an editor
// can go.
func (s stumble) backFromEnd(at int) int {
	if at < len(s.data) {
		return at
	}
	return max(0, len(bytes.TrimRight(s.data, "\r\n"))-1)
}

// last finds the last occurrence of a text in what was read.
func (s stumble) last(text string) int {
	if at := bytes.LastIndex(s.data[:min(s.read, len(s.data))], []byte(text)); at >= 0 {
		return at
	}
	return s.exact()
}

func (s stumble) tab() int       { return s.last("\t") }
func (s stumble) backslash() int { return s.last(`\`) }

func (s stumble) alias() int {
	_, rest, _ := strings.Cut(s.text, "'")
	name, _, _ := strings.Cut(rest, "'")
	return s.last("*" + name)
}

// contextLine is the line that a scanner's message names: its count of lines
// from 0, made one from 1, less the line that was put in front.
func (s stumble) contextLine() int { return s.lineStart(s.line - 1) }

// openBracket: a parser's message names a line less than a scanner's does.
func (s stumble) openBracket() int { return s.firstOf("[{", s.lineStart(s.line)) }

func (s stumble) openQuote() int { return s.firstOf(`"'`, s.contextLine()) }

// lineStart is where a line's text begins.
func (s stumble) lineStart(line int) int {
	at := 0
	for ; line > 1; line-- {
		next := bytes.IndexByte(s.data[at:], '\n')
		if next < 0 {
			break
		}
		at += next + 1
	}
	return s.pastBlanks(at)
}

func (s stumble) pastBlanks(at int) int {
	return at + len(s.data[at:]) - len(bytes.TrimLeft(s.data[at:], " \t"))
}

// firstOf finds one of some characters in the rest of a line.
func (s stumble) firstOf(chars string, at int) int {
	line, _, _ := bytes.Cut(s.data[at:], []byte("\n"))
	if i := bytes.IndexAny(line, chars); i >= 0 {
		return at + i
	}
	return at
}

// mostSteps bounds the search for the first line: each step parses anew.
const mostSteps = 8

// firstLine goes back from where the library stumbled while the text before
// that line has the same error: the mistake is on the last line it needs.
func (s stumble) firstLine() int {
	at := startOfLine(s.data, s.exact())
	for range mostSteps {
		err := firstError(bytes.NewReader(s.data[:at]))
		if at == 0 || err == nil || !strings.HasSuffix(err.Error(), s.text) {
			break
		}
		at = startOfLine(s.data, at-1)
	}
	return s.pastBlanks(at)
}

func startOfLine(data []byte, at int) int {
	return bytes.LastIndexByte(data[:at], '\n') + 1
}

func lineAround(data []byte, at int) []byte {
	line, _, _ := bytes.Cut(data[startOfLine(data, at):], []byte("\n"))
	return line
}

// Addresses that YAML takes for a list or an alias when they are not quoted.
var bareAddress = regexp.MustCompile(`(?:^|[\s,\[])(\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%\w+)?\]:\w+|\*:\w+)`)

// A file of rules, whose @ cannot begin a value of YAML without quotes.
var bareFile = regexp.MustCompile(`(?:^|[\s,\[])(@/[^\s,\]}]*)`)

// quoteHint knows what of ours YAML takes for something else.
func quoteHint(line []byte) string {
	if found := bareAddress.FindSubmatch(line); found != nil {
		return `quote the address: "` + string(found[1]) + `"`
	}
	if found := bareFile.FindSubmatch(line); found != nil {
		return `quote the file of rules: "` + string(found[1]) + `"`
	}
	return ""
}
