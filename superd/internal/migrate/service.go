package migrate

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"superd/superd/internal/config"
)

// A service is one of superd's, on its way into the file.
type service struct {
	im       *importer
	name     string
	at       Place            // where it begins
	keys     map[string]value // by path: user, timeout.idle
	listen   []any            // addresses, and mappings with one
	comments []string
}

// A value is what a key has, and the line that it comes from.
type value struct {
	is any
	at Place
}

// paths are the keys of a service in the order of superd.yaml(5), but for those
// in lists.
var paths = func() (list []string) {
	for _, k := range config.Keys() {
		p, of := strings.CutPrefix(k.Path, "services.*.")
		first, _, _ := strings.Cut(p, ".")
		if of && !strings.Contains(p, "*") && (p == first || !slices.Contains([]string{"listen", "allow", "deny"}, first)) {
			list = append(list, p)
		}
	}
	return list
}()

func (s *service) set(key string, at Place, v any) { s.keys[key] = value{v, at} }

func (s *service) has(key string) bool {
	_, is := s.keys[key]
	return is
}

// note says something about the service, on a line of its own and in a comment
// above it.
func (s *service) note(at Place, format string, args ...any) {
	s.im.note(at, format, args...)
	if line := printable(fmt.Sprintf(format, args...)); len(s.comments) < mostPrinted && !slices.Contains(s.comments, line) {
		s.comments = append(s.comments, line)
	}
}

// off switches the service off, since what it is kept in by cannot be carried
// over.
func (s *service) off(at Place, format string, args ...any) {
	s.note(at, format+"; the service is off until you have decided", args...)
	s.set("enabled", at, false)
}

// drop leaves the service out.
func (s *service) drop(at Place, format string, args ...any) {
	s.im.note(at, "the service "+s.name+" is left out: "+format, args...)
	delete(s.im.names, s.name)
	s.im.services = slices.DeleteFunc(s.im.services, func(t *service) bool { return t == s })
}

// pair is the service as the file has it.
func (s *service) pair() config.Pair {
	s.setListen()
	var d config.Draft
	for _, p := range paths {
		v, is := s.keys[p]
		if !is {
			continue
		}
		parent, leaf, nested := strings.Cut(p, ".")
		last := len(d) - 1
		switch {
		case !nested:
			d = append(d, config.Pair{Key: p, Value: v.is})
		case last >= 0 && d[last].Key == parent:
			d[last].Value = append(d[last].Value.(config.Draft), config.Pair{Key: leaf, Value: v.is})
		default:
			d = append(d, config.Pair{Key: parent, Value: config.Draft{{Key: leaf, Value: v.is}}})
		}
	}
	comments := append([]string{fmt.Sprintf("%s:%d", s.at.File, s.at.Line)}, s.comments...)
	return config.Pair{Key: s.name, Value: d, Comment: comments}
}

func (s *service) setListen() {
	switch {
	case len(s.listen) == 1:
		s.set("listen", s.at, s.listen[0])
	case len(s.listen) > 1:
		s.set("listen", s.at, s.listen)
	}
}

// listenOn adds an address, with further keys of listen.
func (s *service) listenOn(address string, more config.Draft) {
	if len(more) == 0 {
		s.listen = append(s.listen, address)
		return
	}
	s.listen = append(s.listen, append(config.Draft{{Key: "address", Value: address}}, more...))
}

// internet is an address of "tcp" or "udp". Without a host it is every address
// of the machine.
func internet(network, host string, port int) string {
	text := strconv.Itoa(port)
	if strings.Contains(host, ":") {
		text = "[" + host + "]:" + text
	} else if host != "" {
		text = host + ":" + text
	}
	if network == "udp" {
		return "udp:" + text
	}
	return text
}

// run sets the program and its arguments; argv[0] is what it is told as its
// name. What it would be told by superd, its path, or usually is, the last part
// of that, needs no key.
func (s *service) run(at Place, program string, argv []string) {
	if argv[0] != program && argv[0] != path.Base(program) {
		s.set("argv0", at, argv[0])
	}
	s.set("run", at, append([]string{program}, argv[1:]...))
	if slices.Contains(lettingIn, path.Base(program)) {
		s.note(at, "%s lets people log in: what needs set-user-ID programs there, such as sudo, needs sandbox: none, and what shall outlive a session, leftovers: leave",
			path.Base(program))
	}
}

// lettingIn are programs that give people sessions.
var lettingIn = []string{
	"sshd", "dropbear", "login", "telnetd", "in.telnetd", "rlogind", "in.rlogind", "rshd", "in.rshd", "rexecd", "in.rexecd", "klogind", "kshd", "ssh.daemon",
}

// builtins are superd's own, by their usual ports.
var builtins = map[int]string{1: "tcpmux", 7: "echo", 9: "discard", 13: "daytime", 17: "qotd", 19: "chargen", 37: "time"}

// builtin has the service be one of superd's own, by its name or its port.
func (s *service) builtin(at Place, name string, port int) bool {
	for usual, own := range builtins {
		if name == own || name == strconv.Itoa(usual) || usual == port {
			s.set("builtin", at, own)
			return true
		}
	}
	return false
}

// wrapper is tcp_wrappers' program, which looks at who comes in and then becomes
// another one.
const wrapper = "tcpd"

// wrapped is where tcpd looks for programs that are named without a path.
const wrapped = "/usr/sbin/"

// unwrap has the program run that tcpd would run.
func (s *service) unwrap(at Place, program string, argv []string) (string, []string) {
	if path.Base(program) != wrapper || argv[0] == wrapper || argv[0] == program {
		return program, argv
	}
	program = argv[0]
	if !strings.HasPrefix(program, "/") {
		program = wrapped + program
	}
	s.note(at, "tcpd is left out: write what hosts.allow and hosts.deny say of %s as allow and deny", path.Base(program))
	return program, append([]string{program}, argv[1:]...)
}

// rules writes networks as rules, each once.
func rules(list []netip.Prefix) []string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = config.Network(p).String()
	}
	return distinct(texts)
}

// distinct is a list with each text once; it is never nil.
func distinct(list []string) []string {
	kept, seen := []string{}, map[string]bool{}
	for _, text := range list {
		if !seen[text] {
			kept, seen[text] = append(kept, text), true
		}
	}
	return kept
}

// size is a number of bytes as the file has it, rounded up to whole K.
func size(bytes uint64) string {
	if bytes == 0 {
		return "0"
	}
	units := []string{"K", "M", "G", "T"}
	n, unit := (bytes-1)/1024+1, 0
	for n%1024 == 0 && unit < len(units)-1 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatUint(n, 10) + units[unit]
}

// octal is a mode as the file has it.
func octal(text string) config.Quoted {
	if n, err := strconv.ParseUint(text, 8, 32); err == nil {
		return config.Quoted(fmt.Sprintf("%03o", n))
	}
	return config.Quoted(text)
}
