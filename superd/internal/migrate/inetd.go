package migrate

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"superd/superd/internal/config"
)

// The files of inetd(8): of OpenBSD's with the Debian port's, of FreeBSD's and
// of GNU inetutils'. A line is a service:
//
//	[address:]service type protocol wait user program argv[0] argument...

// An entry is one line of inetd.conf, taken apart. In the fields of FreeBSD and
// of OpenBSD the same things stand in the same order.
type entry struct {
	at        Place
	fields    []string
	off       bool   // commented out, as update-inetd(8) does it
	addresses string // of a line with an address alone, above this one
}

// The fields of an entry.
const (
	nameField = iota
	typeField
	protocolField
	waitField
	userField
	programField
	argvField
)

// disabledMark is how update-inetd(8) comments lines out.
const disabledMark = "#<off>#"

func (im *importer) inetd(files []file) {
	var all []entry
	for _, f := range files {
		all = append(all, im.entries(f)...)
	}
	if len(im.mistakes) > 0 {
		return
	}
	siblings := map[string]bool{} // services that IPv6 has lines of its own for
	for _, e := range all {
		if p := e.fields[protocolField]; strings.HasPrefix(p, "tcp6") || strings.HasPrefix(p, "udp6") {
			siblings[e.fields[nameField]+"/"+p[:3]] = true
		}
	}
	for _, e := range all {
		im.entry(e, siblings)
	}
}

// entries are the lines of a file that mean something, with those that go on in
// the next.
func (im *importer) entries(f file) (list []entry) {
	addresses, goesOn := "", false
	for i, line := range f.lines {
		at := Place{f.name, i + 1}
		fields, closed := splitFields(line)
		switch rest, marked := strings.CutPrefix(line, disabledMark); {
		case marked:
			if e := (entry{at: at, addresses: addresses, off: true}); e.read(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(rest), "#"))) {
				list = append(list, e)
			}
			goesOn = false
			continue
		case strings.HasPrefix(line, "#@"):
			if len(strings.TrimSpace(line)) > len("#@") {
				im.note(at, "an IPsec policy is not carried over: set it with ip xfrm, or in the key exchange's own file")
			}
			goesOn = false
			continue
		case len(fields) == 0 || strings.HasPrefix(fields[0], "#"):
			goesOn = false
			continue
		case !closed:
			im.mistake(at, "a quotation mark has no partner")
			continue
		case goesOn && strings.IndexAny(line, " \t") == 0 && !looksLikeEntry(fields):
			last := &list[len(list)-1]
			last.fields = append(last.fields, fields...)
			continue
		case len(fields) == 1 && strings.HasSuffix(fields[0], ":"):
			addresses, goesOn = strings.TrimSuffix(fields[0], ":"), false
			continue
		}
		if strings.HasPrefix(fields[0], ".") && strings.TrimPrefix(fields[0], ".") == "include" {
			im.note(at, "%s is not followed: name the file to import as well", quote(strings.TrimSpace(line)))
			continue
		}
		goesOn = true
		list = append(list, entry{at: at, fields: fields, addresses: addresses})
	}
	for _, e := range list {
		im.checkEntry(e)
	}
	return list
}

// read takes apart what was commented out, where it is an entry.
func (e *entry) read(line string) bool {
	fields, closed := splitFields(line)
	e.fields = fields
	return closed && looksLikeEntry(fields)
}

// socketTypes are the words that the second field can be.
var socketTypes = []string{"stream", "dgram", "raw", "rdm", "seqpacket"}

func looksLikeEntry(fields []string) bool {
	return len(fields) > programField && slices.Contains(socketTypes, fields[typeField])
}

func (im *importer) checkEntry(e entry) {
	switch {
	case len(e.fields) > typeField && (e.fields[typeField] == "on" || e.fields[typeField] == "off"):
		im.mistake(e.at, "it is in the form key = value of NetBSD, which is not understood: write it in one line")
	case len(e.fields) <= programField:
		im.mistake(e.at, "the line has %d of the 6 fields that it needs: service, type, protocol, wait, user and program", len(e.fields))
	case !slices.Contains(socketTypes, e.fields[typeField]):
		im.mistake(e.at, "%s is no type of socket, it must be stream, dgram, raw, rdm or seqpacket", quote(e.fields[typeField]))
	}
}

// splitFields parts a line at blanks, with quotes as FreeBSD's inetd knows them.
func splitFields(line string) (fields []string, closed bool) {
	line = strings.TrimRight(line, " \t")
	for line = strings.TrimLeft(line, " \t"); line != ""; line = strings.TrimLeft(line, " \t") {
		var field string
		if q := line[0]; (q == '"' || q == '\'') && strings.IndexByte(line[1:], q) >= 0 {
			field, line, _ = strings.Cut(line[1:], string(q))
		} else if q == '"' || q == '\'' {
			return fields, false
		} else if end := strings.IndexAny(line, " \t"); end >= 0 {
			field, line = line[:end], line[end:]
		} else {
			field, line = line, ""
		}
		fields = append(fields, field)
	}
	return fields, true
}

// entry makes a service of an entry.
func (im *importer) entry(e entry, siblings map[string]bool) {
	spec := e.fields[nameField]
	kind, protocol := e.fields[typeField], e.fields[protocolField]
	base, _, _ := strings.Cut(protocol, ",")
	switch {
	case kind == "raw" || kind == "rdm":
		im.note(e.at, "%s is left out: superd has no sockets of the type %s", quote(spec), kind)
		return
	case strings.HasPrefix(base, "rpc/"):
		im.note(e.at, "%s is left out: superd does not register RPC services; run it as a daemon", quote(spec))
		return
	}
	s := im.add(entryName(spec, base), e.at)
	if e.off {
		s.set("enabled", e.at, false)
	}
	e.listen(s, siblings)
	if len(s.listen) == 0 && !s.has("tcpmux") {
		s.drop(e.at, "nothing is left to listen on")
		return
	}
	e.wait(s)
	e.program(s)
}

// entryName is what a service is called by: its own name, without an address,
// and the protocol where that is none of TCP.
func entryName(spec, protocol string) string {
	name := strings.TrimPrefix(strings.TrimPrefix(spec, "tcpmux/"), "+")
	if _, service, found := cutLast(name, ":"); found {
		name = service
	}
	if strings.Contains(name, "/") {
		name = path.Base(name)
	}
	if strings.HasPrefix(protocol, "udp") {
		name += "-udp"
	}
	return name
}

func cutLast(text, separator string) (before, after string, found bool) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(separator):], true
}

// listen reads the first field, in the light of the second and third.
func (e *entry) listen(s *service, siblings map[string]bool) {
	spec := e.fields[nameField]
	protocol, options, _ := strings.Cut(e.fields[protocolField], ",")
	switch {
	case strings.HasPrefix(spec, "tcpmux/+"):
		s.set("tcpmux", e.at, true)
		return
	case strings.HasPrefix(spec, "tcpmux/"):
		s.set("tcpmux", e.at, "plain")
		return
	case protocol == "unix" || strings.HasPrefix(spec, "/") || strings.HasPrefix(spec, ":") && strings.Contains(spec, "/"):
		e.listenUnix(s, spec)
		return
	}
	network := "tcp"
	if strings.HasPrefix(protocol, "udp") {
		network = "udp"
	}
	if protocol != "ttcp" && !strings.HasPrefix(protocol, network) {
		s.note(e.at, "superd does not know the protocol %s", quote(protocol))
		return
	}
	hosts, name, found := cutLast(spec, ":")
	if !found {
		hosts, name = e.addresses, spec
	}
	port, known := s.im.port(network, name)
	if !known {
		s.note(e.at, "no port is known for %s: write its number", quote(name))
		return
	}
	more := s.buffers(e.at, options)
	for host := range strings.SplitSeq(hosts, ",") {
		e.listenInternet(s, network, strings.Trim(host, "[]"), port, more, siblings[e.fields[nameField]+"/"+network])
	}
}

// listenInternet listens on one address; "" and * are all of the families that
// the protocol has.
func (e *entry) listenInternet(s *service, network, host string, port int, more config.Draft, sibling bool) {
	protocol, _, _ := strings.Cut(e.fields[protocolField], ",")
	version := strings.TrimSuffix(strings.TrimPrefix(protocol, network), "/faith")
	if host != "" && host != "*" {
		s.listenOn(internet(network, host, port), more)
		return
	}
	switch {
	case version == "4" || version == "" && sibling:
		host = "0.0.0.0"
	case strings.HasPrefix(version, "6"):
		host = "::"
	default:
		host = ""
	}
	s.listenOn(internet(network, host, port), more)
}

// listenUnix reads FreeBSD's [:user:group:mode:]/path.
func (e *entry) listenUnix(s *service, spec string) {
	var more config.Draft
	if e.fields[typeField] != "stream" {
		more = config.Draft{{Key: "type", Value: map[string]string{"dgram": "datagram", "seqpacket": "seqpacket"}[e.fields[typeField]]}}
	}
	if parts := strings.SplitN(spec, ":", 5); len(parts) == 5 {
		spec = parts[4]
		for i, key := range []string{"mode", "owner", "group"} {
			if text := []string{parts[3], parts[1], parts[2]}[i]; text != "" && key == "mode" {
				more = append(more, config.Pair{Key: key, Value: octal(text)})
			} else if text != "" {
				more = append(more, config.Pair{Key: key, Value: text})
			}
		}
	}
	s.listenOn("unix:"+spec, more)
}

// buffers reads NetBSD's options behind the protocol.
func (s *service) buffers(at Place, options string) (more config.Draft) {
	for option := range strings.SplitSeq(options, ",") {
		key, text, _ := strings.Cut(option, "=")
		n, err := parseBytes(text)
		switch {
		case option == "":
		case (key == "rcvbuf" || key == "sndbuf") && err == nil && n >= 4<<10:
			more = append(more, config.Pair{Key: key, Value: size(n)})
		default:
			s.note(at, "the option %s of the protocol is not carried over", quote(option))
		}
	}
	return more
}

// wait reads the fourth field: wait or nowait, with .count per minute, or as
// FreeBSD has it /children[/per minute and address[/children per address]].
func (e *entry) wait(s *service) {
	word, limits := e.fields[waitField], ""
	if i := strings.IndexAny(word, "./:"); i >= 0 {
		word, limits = word[:i], word[i:]
	}
	waits := word == "wait"
	if word != "wait" && word != "nowait" {
		s.note(e.at, "%s is taken for nowait", quote(e.fields[waitField]))
	}
	datagrams := e.fields[typeField] == "dgram"
	internal := e.fields[programField] == "internal"
	switch {
	case internal:
	case datagrams && !waits:
		s.note(e.at, "nowait of datagrams is taken for wait: the program gets the socket, and the next one is started when it has ended")
		waits = true
		fallthrough
	case waits:
		s.set("wait", e.at, "stdin")
	}
	e.limits(s, limits, waits && !internal)
}

func (e *entry) limits(s *service, limits string, waits bool) {
	if limits == "" {
		return
	}
	keys := []string{"max", "rate_per_source", "max_per_source"}
	if limits[0] != '/' {
		keys = []string{"rate"}
	}
	for i, text := range strings.Split(limits[1:], string(limits[0])) {
		n, err := strconv.Atoi(text)
		switch {
		case i >= len(keys) || err != nil || n < 0:
			s.note(e.at, "the limit %s is not carried over", quote(text))
		case n == 0 || waits && keys[i] == "max" && n == 1:
		case waits && keys[i] != "rate":
			s.note(e.at, "the limit %d is not carried over: the program accepts its clients itself", n)
		case strings.HasPrefix(keys[i], "rate"):
			s.set(keys[i], e.at, strconv.Itoa(n)+"/m")
		default:
			s.set(keys[i], e.at, n)
		}
	}
}

// program reads the user, the program and its arguments.
func (e *entry) program(s *service) {
	program := e.fields[programField]
	if program == "internal" {
		e.internal(s)
		return
	}
	e.user(s)
	argv := e.fields[argvField:]
	if len(argv) == 0 {
		argv = []string{path.Base(program)}
	}
	program, argv = s.unwrap(e.at, program, argv)
	s.run(e.at, program, argv)
}

// internal is one of inetd's own services.
func (e *entry) internal(s *service) {
	port := -1
	_, name, found := cutLast(e.fields[nameField], ":")
	if !found {
		name = strings.TrimPrefix(strings.TrimPrefix(e.fields[nameField], "tcpmux/"), "+")
	}
	if strings.Contains(name, "/") {
		name = path.Base(name)
	}
	if n, known := s.im.port("tcp", name); known && !s.has("tcpmux") {
		port = n
	}
	if !s.builtin(e.at, name, port) {
		s.drop(e.at, "superd has no built-in service like inetd's %s", quote(name))
		return
	}
	if user := e.fields[userField]; user != "root" {
		e.user(s)
	}
}

// user reads user[.group] or user[:group], with FreeBSD's login class behind a
// slash.
func (e *entry) user(s *service) {
	user, class, found := strings.Cut(e.fields[userField], "/")
	if found {
		s.note(e.at, "the login class %s is not carried over: write its limits as rlimits", quote(class))
	}
	group := ""
	if i := strings.IndexAny(user, ":."); i >= 0 {
		user, group = user[:i], user[i+1:]
	}
	s.set("user", e.at, user)
	if group != "" {
		s.set("group", e.at, group)
	}
}
