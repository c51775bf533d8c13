package migrate

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"superd/superd/internal/config"
)

// The command lines of tcpserver(1): of ucspi-tcp, its forms for IPv6, and
// s6-networking. In front of tcpserver and behind it stand programs that change
// something and become the next one; some of these superd can be instead.

// tcpservers are the names of the program.
var tcpservers = []string{"tcpserver", "s6-tcpserver", "s6-tcpserver4", "s6-tcpserver6"}

// tcpserver reads scripts that start one.
func (im *importer) tcpserver(files []file) {
	for _, f := range files {
		found := len(im.services)
		im.script(f)
		if len(im.services) == found && len(im.mistakes) == 0 {
			im.mistake(Place{f.name, 1}, "no command in it starts a tcpserver")
		}
	}
}

// script takes the commands of a shell script one by one. Assignments of plain
// texts are remembered; what else the shell would do is told.
func (im *importer) script(f file) {
	variables := map[string]word{}
	for i := 0; i < len(f.lines); i++ {
		at := Place{f.name, i + 1}
		line := f.lines[i]
		for continued(line) && i+1 < len(f.lines) {
			i++
			line = strings.TrimSuffix(line, `\`) + " " + f.lines[i]
		}
		words, end := shellWords(line, variables)
		switch {
		case end == unclosed:
			im.note(at, "this line of shell is not understood: %s", quote(line))
			continue
		case len(words) == 0 || len(words) == 1 && words[0].text == "exec":
			continue
		}
		if name, text, is := assigned(words); is {
			variables[name] = text
			continue
		}
		if !slices.ContainsFunc(words, isTCPServer) {
			im.note(at, "this line of shell is not carried over: %s", quote(strings.TrimSpace(line)))
			continue
		}
		if end == cut {
			im.note(at, "what stands behind the command is not carried over")
		}
		im.commandLine(words, at)
	}
}

func continued(line string) bool {
	return strings.HasSuffix(line, `\`) && !strings.HasSuffix(line, `\\`) && !strings.HasPrefix(strings.TrimSpace(line), "#")
}

func isTCPServer(w word) bool { return slices.Contains(tcpservers, path.Base(w.text)) }

// assigned tells a command that only sets a variable.
func assigned(words []word) (name string, text word, is bool) {
	name, value, found := strings.Cut(words[0].text, "=")
	return name, word{value, words[0].open}, found && len(words) == 1 && isVariable(name)
}

// chained is what the programs in front of and behind tcpserver have set.
type chained struct {
	*service
	at  Place
	env config.Draft
}

// unnamed is what a service is called until its port is known.
const unnamed = "tcpserver"

// commandLine makes a service of one command.
func (im *importer) commandLine(words []word, at Place) {
	c := &chained{service: im.add(unnamed, at), at: at}
	words = c.before(c.chain(words))
	if len(words) == 0 {
		im.mistake(at, "no tcpserver is in the command")
		return
	}
	o := options{chained: c, limit: 40, bySecure: strings.HasPrefix(path.Base(words[0].text), "s6-")}
	rest, ok := o.read(words[1:])
	if !ok {
		return
	}
	if len(rest) < 3 {
		im.mistake(at, "tcpserver needs a host, a port and a program behind its options")
		return
	}
	o.listenOnHost(rest[0], rest[1])
	rest = c.chain(rest[2:])
	if len(rest) == 0 {
		im.mistake(at, "tcpserver needs a host, a port and a program behind its options")
		return
	}
	c.program(rest)
	if len(c.env) > 0 {
		c.set("env", at, c.env)
	}
	if len(c.listen) == 0 {
		c.drop(at, "nothing is left to listen on")
		return
	}
	if !c.has("user") {
		c.note(at, "no user is named (-u): where superd runs as root the program is nobody's")
	}
	c.rename(rest, o.port)
}

// harmless are programs in front of tcpserver that keep nobody in or out.
var harmless = []string{"envdir", "s6-envdir", "setlock", "s6-setlock", "fghack", "nohup", "setsid", "pgrphack", "argv0"}

// before skips what stands in front of tcpserver and is not understood.
func (c *chained) before(words []word) []word {
	i := slices.IndexFunc(words, isTCPServer)
	switch {
	case i < 0:
		return nil
	case i > 0 && slices.Contains(harmless, path.Base(words[0].text)):
		c.note(c.at, "%s in front of tcpserver is not carried over", quote(text(words[:i])))
	case i > 0:
		c.off(c.at, "%s in front of tcpserver is not understood", quote(text(words[:i])))
	}
	return words[i:]
}

// rename calls the service by its port's name, or else by its program.
func (c *chained) rename(program []word, port string) {
	name := port
	if _, err := strconv.Atoi(port); err == nil {
		name = path.Base(program[0].text)
	}
	delete(c.im.names, c.name)
	c.name = c.im.freeName(plainName(name))
}

// text is a command as it was.
func text(words []word) string {
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = w.text
	}
	return strings.Join(parts, " ")
}

// known is the text of a word that no unknown expansion is in.
func (c *chained) known(w word, what string) (string, bool) {
	if w.open {
		c.note(c.at, "%s is not carried over: the shell would have made something of %s", what, quote(w.text))
	}
	return w.text, !w.open
}

// program reads what is left: the program and its arguments.
func (c *chained) program(words []word) {
	argv := make([]string, len(words))
	for i, w := range words {
		if w.open {
			c.off(c.at, "the shell would have made something of %s in the program's arguments: write what", quote(w.text))
		}
		argv[i] = w.text
	}
	program := argv[0]
	if !strings.HasPrefix(program, "/") {
		program = c.guess(c.at, program)
	}
	argv[0] = program
	program, argv = c.unwrap(c.at, program, argv)
	c.run(c.at, program, argv)
}

// options are those of tcpserver.
type options struct {
	*chained
	limit    int
	more     config.Draft // keys of listen
	port     string
	six      bool
	bySecure bool // s6-tcpserver, some of whose options mean other things
}

// withValue are the options that have one: of ucspi-tcp, for IPv6 (I), and of
// s6-networking (C G i k K).
const (
	withValue = "xtuglbBcICGik"
	alone     = "dDvqQhHrRpPoOUX146wWesSnN"
)

// read takes the options off.
func (o *options) read(words []word) ([]word, bool) {
	rest, ok := eachOption(words, withValue, alone, o.option)
	if !ok {
		o.drop(o.at, "an option of tcpserver is not known: %s", quote(text(words)))
		return nil, false
	}
	o.set("max", o.at, o.limit)
	return rest, true
}

// eachOption calls do for each option as getopt(3) finds them, and returns what
// stands behind them. It is not ok where one is not known, or lacks its value.
func eachOption(words []word, withValue, alone string, do func(letter byte, value word)) ([]word, bool) {
	for len(words) > 0 && len(words[0].text) > 1 && words[0].text[0] == '-' {
		letters := words[0]
		words = words[1:]
		if letters.text == "--" {
			break
		}
		for i := 1; i < len(letters.text); i++ {
			letter, value := letters.text[i], word{letters.text[i+1:], letters.open}
			switch {
			case strings.IndexByte(alone, letter) >= 0:
				do(letter, word{})
				continue
			case strings.IndexByte(withValue, letter) < 0:
				return nil, false
			case value.text == "" && len(words) == 0:
				return nil, false
			case value.text == "" && !letters.open:
				value, words = words[0], words[1:]
			}
			do(letter, value)
			break
		}
	}
	return words, true
}

func (o *options) option(letter byte, value word) {
	switch letter {
	case 'c':
		o.count("max", "-c", value, func(n int) { o.limit = n })
	case 'C':
		o.count("max_per_source", "-C", value, func(n int) { o.set("max_per_source", o.at, n) })
	case 'u', 'g':
		o.account(map[byte]string{'u': "user", 'g': "group"}[letter], value)
	case 'G':
		if text, ok := o.known(value, "-G"); ok {
			o.set("groups", o.at, distinct(strings.FieldsFunc(text, func(r rune) bool { return r == ',' })))
		}
	case 'U':
		if !o.has("user") {
			o.note(o.at, "-U is not carried over: write the user of UID as user")
		}
	case 'b':
		o.count("backlog", "-b", value, func(n int) {
			o.more = append(o.more, config.Pair{Key: "backlog", Value: min(max(n, 1), 65535)})
		})
	case 'x', 'i':
		o.off(o.at, "the rules of %s are not carried over: write what they say, before tcprules made it, as allow and deny (with env where they set variables)", quote(value.text))
	case 'B':
		o.note(o.at, "the banner %s is not carried over: superd says nothing before the program does", quote(value.text))
	case '1':
		o.note(o.at, "-1 is not carried over: the record listening of the log has the port")
	case 'p':
		o.note(o.at, "-p is not carried over: superd looks no names up")
	case 'h':
		o.note(o.at, "-h is not carried over: superd looks no names up, and TCPREMOTEHOST is not set")
	case 'r':
		o.note(o.at, "-r is not carried over: superd asks no identification server, and TCPREMOTEINFO is not set")
	case 'l':
		if value.text != "0" {
			o.note(o.at, "-l is not carried over: TCPLOCALHOST is not set")
		}
	case 'I':
		if text, ok := o.known(value, "-I"); ok && !o.bySecure {
			o.more = append(o.more, config.Pair{Key: "device", Value: text})
		}
	case '6':
		o.six = true
	}
}

func (o *options) count(key, option string, value word, set func(int)) {
	text, ok := o.known(value, option)
	if !ok {
		return
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		o.note(o.at, "%s %s is not carried over: it is no number", option, quote(text))
		return
	}
	set(n)
}

// account sets the user or the group. tcpserver takes all other groups away
// where it is given one.
func (c *chained) account(key string, value word) {
	if key == "group" && !c.has("groups") {
		c.set("groups", c.at, []string{})
	}
	asked := idOf.FindStringSubmatch(value.text)
	switch {
	case asked == nil:
		if text, ok := c.known(value, key); ok {
			c.set(key, c.at, text)
		}
	case key == "user" && asked[1] == "u":
		c.set(key, c.at, asked[2])
	case key == "group" && asked[1] == "g" && c.keys["user"].is == asked[2]:
		// The user's own group is what superd has by itself.
	default:
		c.known(value, key)
	}
}

// idOf is how scripts turn the name of a user into the number that tcpserver
// wants.
var idOf = regexp.MustCompile("^(?:`|\\$\\()(?:/usr/bin/)?id -([ug]) ([A-Za-z_][A-Za-z0-9_-]*)(?:`|\\))$")

// listenOnHost reads the host and the port; 0 is every address.
func (o *options) listenOnHost(host, port word) {
	h, ok1 := o.known(host, "the host")
	p, ok2 := o.known(port, "the port")
	n, is := o.im.port("tcp", p)
	if ok1 && ok2 && !is {
		o.note(o.at, "no port is known for %s: write its number", quote(p))
	}
	if !ok1 || !ok2 || !is {
		return
	}
	o.port = p
	more := o.more
	switch {
	case h == "0" && o.six || h == "::":
		h = ""
		more = append(more, config.Pair{Key: "v6only", Value: false})
	case h == "0":
		h = "0.0.0.0"
	}
	o.listenOn(internet("tcp", h, n), more)
}

// chain takes programs off that superd can be instead, up to one that it cannot.
func (c *chained) chain(words []word) []word {
	for len(words) > 0 {
		rest, is := c.link(path.Base(words[0].text), words[1:])
		if !is {
			break
		}
		words = rest
	}
	return words
}

// link reads one such program. What is left is what it would become.
func (c *chained) link(name string, words []word) ([]word, bool) {
	switch name {
	case "exec":
		return words, true
	case "env":
		return c.envLink(words)
	case "softlimit", "s6-softlimit":
		return c.softlimit(words)
	case "setuidgid", "s6-setuidgid", "envuidgid", "s6-envuidgid":
		if len(words) < 2 || strings.HasPrefix(words[0].text, "-") {
			return nil, false
		}
		c.account("user", words[0])
		return words[1:], true
	case "nice":
		return c.niceLink(words)
	}
	return nil, false
}

func (c *chained) envLink(words []word) ([]word, bool) {
	for len(words) > 0 {
		if strings.HasPrefix(words[0].text, "-") {
			return nil, false
		}
		name, value, found := strings.Cut(words[0].text, "=")
		if !found {
			break
		}
		if _, ok := c.known(words[0], "a variable of env"); ok {
			c.env = c.variable(c.env, c.at, name, value)
		}
		words = words[1:]
	}
	return words, true
}

func (c *chained) niceLink(words []word) ([]word, bool) {
	n := 10
	var err error
	rest, ok := eachOption(words, "n", "", func(_ byte, value word) {
		n, err = strconv.Atoi(value.text)
	})
	if !ok || err != nil {
		return nil, false
	}
	c.set("nice", c.at, max(min(n, 19), -20))
	return rest, true
}

// softLimits are the options of softlimit, and which limits they set. It sets
// soft limits, and here they are hard ones as well.
var softLimits = map[byte][]string{
	'a': {"memory"}, 'c': {"core"}, 'd': {"data"}, 'f': {"fsize"}, 'l': {"memlock"}, 'm': {"data", "stack", "memlock", "memory"}, 'o': {"nofile"}, 'p': {"nproc"},
	'r': {"rss"}, 's': {"stack"}, 't': {"cpu"},
}

func (c *chained) softlimit(words []word) ([]word, bool) {
	return eachOption(words, "acdflmoprst", "hHS", func(letter byte, value word) {
		keys := softLimits[letter]
		if len(keys) == 0 {
			return
		}
		text, ok := c.known(value, "-"+string(letter)+" of softlimit")
		n, err := strconv.ParseUint(text, 10, 63)
		switch {
		case !ok || text == "=":
			return
		case err != nil:
			c.note(c.at, "-%c of softlimit is not carried over: %s is no number", letter, quote(text))
			return
		}
		for _, key := range keys {
			c.set("rlimits."+key, c.at, softLimit(letter, n))
		}
	})
}

func softLimit(letter byte, n uint64) any {
	switch letter {
	case 'o', 'p':
		return int(n)
	case 't':
		return strconv.FormatUint(n, 10) + "s"
	}
	return cmp.Or(size(n), "0")
}
