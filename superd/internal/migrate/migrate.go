// Package migrate reads what other superservers are configured by, and says the
// same in superd's words: a file for superd.yaml(5), and a list of what could
// not be carried over. It opens the files that it is told to and those that
// they include, starts nothing and changes nothing.
//
// What restricts who comes in, or what a program may do, and cannot be said in
// superd's words switches the service off: somebody has to decide.
package migrate

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"superd/superd/internal/config"
)

// Machine is what an import may ask for. Errors are whole sentences, with the
// name.
type Machine interface {
	// ReadFile returns the content of a file that the import is about.
	ReadFile(name string) ([]byte, error)
	// Include returns the content of a file that such a file names.
	Include(name string) ([]byte, error)
	// ReadDir returns the names in a directory, in the order of the C locale.
	ReadDir(name string) ([]string, error)
	// LookupPort returns the port of a service name on "tcp" or "udp".
	LookupPort(network, service string) (int, error)
}

// Largest is how many bytes a file may have, or all that are included together.
const Largest = 8 << 20

// A Place is a line of a file; lines count from 1.
type Place struct {
	File string
	Line int
}

// A Note is something about a line that who reads the file has to know.
type Note struct {
	At   Place
	What string
}

// String is the note as one line: FILE:LINE: what.
func (n Note) String() string { return fmt.Sprintf("%s:%d: %s", n.At.File, n.At.Line, n.What) }

// Mistakes are why files are not of the format that they are said to be.
type Mistakes []Note

// mostPrinted bounds what one file can put on a terminal.
const mostPrinted = 100

// Error has one line for each mistake, of at most the first hundred.
func (m Mistakes) Error() string {
	var lines []string
	for _, n := range m[:min(len(m), mostPrinted)] {
		lines = append(lines, n.String())
	}
	if more := len(m) - mostPrinted; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// A Result is what superd would have of the files.
type Result struct {
	Text  []byte // a file that config.Parse takes
	Notes []Note // what is not carried over, in the order of the files
}

// formats are what can be read, with their readers.
var formats = map[string]func(*importer, []file){
	"inetd":     (*importer).inetd,
	"xinetd":    (*importer).xinetd,
	"systemd":   (*importer).systemd,
	"tcpserver": (*importer).tcpserver,
}

// Formats lists the names of the formats.
func Formats() []string { return []string{"inetd", "xinetd", "systemd", "tcpserver"} }

// Import reads files of a format. The error is Mistakes where a file is not of
// the format, or says why a file cannot be read, or that there is nothing in it;
// the Result has the notes even then.
func Import(format string, names []string, m Machine) (*Result, error) {
	im := newImporter(m)
	var files []file
	for _, name := range names {
		data, err := m.ReadFile(name)
		if err != nil {
			return &Result{}, err
		}
		files = append(files, im.file(name, data))
	}
	if len(im.mistakes) == 0 {
		formats[format](im, files)
	}
	return im.result(format, strings.Join(names, ", "))
}

// CommandLine reads the arguments of a tcpserver, from its own name on.
func CommandLine(argv []string, m Machine) (*Result, error) {
	im := newImporter(m)
	im.commandLine(literal(argv), Place{commandLineName, 1})
	return im.result("tcpserver", "its command line")
}

// commandLineName stands for the file of a command line.
const commandLineName = "(command line)"

type importer struct {
	machine  Machine
	services []*service
	names    map[string]int // those taken, with the highest number behind each
	added    int            // services, of which some may be gone again
	notes    []Note
	said     map[Note]bool
	topics   map[string]bool // those of noteOnce
	mistakes Mistakes
}

func newImporter(m Machine) *importer {
	return &importer{machine: m, names: map[string]int{}, said: map[Note]bool{}, topics: map[string]bool{}}
}

// A file is text, by its lines.
type file struct {
	name  string
	lines []string
}

// file takes a text apart. What is no text is a mistake.
func (im *importer) file(name string, data []byte) file {
	f := file{name: name}
	for i, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		if strings.ContainsRune(line, 0) {
			im.mistake(Place{name, i + 1}, "the file holds a NUL byte: it is no text file")
			return f
		}
		valid := strings.ToValidUTF8(strings.TrimSuffix(line, "\r"), "\uFFFD")
		if valid != strings.TrimSuffix(line, "\r") && !strings.HasPrefix(strings.TrimSpace(line), "#") {
			im.note(Place{name, i + 1}, "bytes that are not UTF-8 have become \uFFFD: write them anew")
		}
		f.lines = append(f.lines, valid)
	}
	return f
}

// note says something, once.
func (im *importer) note(at Place, format string, args ...any) {
	n := Note{at, printable(fmt.Sprintf(format, args...))}
	if !im.said[n] {
		im.said[n] = true
		im.notes = append(im.notes, n)
	}
}

// noteOnce says something about all services, at the first of them.
func (im *importer) noteOnce(topic string, at Place, what string) {
	if !im.topics[topic] {
		im.topics[topic] = true
		im.note(at, "%s", what)
	}
}

func (im *importer) mistake(at Place, format string, args ...any) {
	im.mistakes = append(im.mistakes, Note{at, printable(fmt.Sprintf(format, args...))})
}

// printable keeps a note on its line, and a terminal as it is.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) || r == '\uFFFD' {
			return r
		}
		return '?'
	}, text)
}

// longestQuote is how much of somebody's text a note repeats, in characters.
const longestQuote = 60

func quote(text string) string {
	if runes := []rune(text[:min(len(text), 4*longestQuote)]); len(runes) > longestQuote {
		return strconv.Quote(string(runes[:longestQuote])) + "..."
	}
	return strconv.Quote(text)
}

// result writes what has been found.
func (im *importer) result(format, from string) (*Result, error) {
	if len(im.mistakes) > 0 {
		return &Result{Notes: im.notes}, im.mistakes
	}
	text, err := im.settle(fmt.Sprintf("Imported by superd import %s from %s.", format, from))
	slices.SortStableFunc(im.notes, func(a, b Note) int {
		return cmp.Or(strings.Compare(a.At.File, b.At.File), a.At.Line-b.At.Line)
	})
	if err != nil {
		return &Result{Notes: im.notes}, fmt.Errorf("cannot import %s: %w", from, err)
	}
	return &Result{text, im.notes}, nil
}

// most is how many there can be of anything that is compared with all of its
// kind: services, lines of a block, values of a line. No file comes near.
const most = 10_000

// add gives a service its name, or one like it that is free.
func (im *importer) add(name string, at Place) *service {
	s := &service{im: im, at: at, keys: map[string]value{}}
	if im.added++; im.added >= most {
		im.noteOnce("most", at, fmt.Sprintf("there are more than %d services: this one and the next are left out", most))
		return s
	}
	s.name = im.freeName(plainName(name))
	im.services = append(im.services, s)
	return s
}

// longestName leaves room for a number behind it: 64 are allowed.
const longestName = 56

// plainName has no characters that the name of a service cannot have, and no
// dot, which parts the path of a key.
func plainName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, name)
	name = strings.Trim(name, "-")
	if name == "" {
		return "service"
	}
	return name[:min(len(name), longestName)]
}

// freeName takes a name, or else the first that is free with a number behind it.
func (im *importer) freeName(name string) string {
	free := name
	for im.names[free] > 0 {
		im.names[name]++
		free = name + "-" + strconv.Itoa(im.names[name])
	}
	im.names[free] = 1
	return free
}

// port is the number of a port, or of its name on tcp or udp.
func (im *importer) port(network, text string) (int, bool) {
	n, err := strconv.Atoi(text)
	if err != nil {
		n, err = im.machine.LookupPort(network, text)
	}
	return n, err == nil && n >= 0 && n <= 65535 && text != ""
}

// write puts all services under one another.
func (im *importer) write(head string) []byte {
	var services config.Draft
	for i, s := range im.services {
		p := s.pair()
		if i > 0 {
			p.Comment = append([]string{""}, p.Comment...)
		}
		services = append(services, p)
	}
	return config.Write(config.Draft{{Key: "services", Value: services, Comment: []string{head, "Read it, and what the comments say; then: superd check -c FILE"}}})
}
