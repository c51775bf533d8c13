package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// config reads the whole file from its top mapping, and what it includes.
func (d *decoder) config(root *yaml.Node, f *Files) *Config {
	top := d.top(root)
	return &Config{
		Path:     f.Path,
		Files:    f,
		Log:      top.log(),
		Control:  top.control(),
		HTTP:     top.http(),
		Limits:   Limits{top.integer("limits.max"), top.decimal("limits.max_load")},
		Drain:    top.duration("drain"),
		Services: top.services(f),
		where:    d.where,
		written:  settings(root),
	}
}

func (s section) log() Log {
	return Log{
		Level:   s.word("log.level"),
		Format:  s.word("log.format"),
		Output:  s.wordOrPath("log.output"),
		Address: s.word("log.address"),
	}
}

// services reads those of the file, and then those of each file that it includes.
func (s section) services(f *Files) []*Service {
	if s.written(commonPath) {
		s.d.readCommon(s.get(commonPath))
	}
	all := &roll{first: map[string]Position{}}
	before := len(s.d.problems)
	patterns := s.patterns()
	if !f.Followed {
		f.follow(patterns, s.d.sys)
	}
	if s.written("services") {
		s.d.enlist(s.get("services"), all)
	}
	if s.written("include") {
		s.d.included(f, s.get("include"), all)
	}
	if len(all.first) == 0 && len(s.d.problems) == before {
		s.noServices()
	}
	s.d.clashes(all.services)
	s.d.namesClash(all.services)
	return all.services
}

func (s section) noServices() {
	switch {
	case s.written("include"):
		s.d.report(s.self.at, "services", "missing, here and in what is included", "name at least one service")
	case s.written("services"):
		s.d.bad(s.get("services"), "no service is named", "")
	default:
		s.d.report(s.self.at, "services", "missing", "name at least one service")
	}
}

var serviceName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)

// service reads the values, in the order of the manual page.
func (s section) service(name string) *Service {
	c := &Service{
		Name:        name,
		Description: s.text("description"),
		Enabled:     s.boolean("enabled"),
		Listen:      s.listen(),
		Wait:        s.wait(),
		Mux:         s.tcpmux(),
		Run:         s.run(),
		Builtin:     s.word("builtin"),
		Text:        s.spokenText(),
		Argv0:       s.nonEmpty("argv0"),
		Stderr:      s.word("stderr"),
		LogLevel:    s.word("log_level"),
		Dir:         s.filePath("dir"),
		Umask:       s.mode("umask"),
		Nice:        s.integer("nice"),
		OOMScore:    s.optional("oom_score_adj"),
		Env:         s.env(),
		EnvPass:     s.names("env_pass", checkVariable),
		EnvStyle:    s.envStyle(),
		Keep:        s.boolean("keep"),
		Linger:      s.duration("linger"),
		Leftover:    s.word("leftovers"),
		User:        s.account("user"),
		Group:       s.account("group"),
		Groups:      s.names("groups", checkAccount),
		GroupsSet:   s.written("groups"),
		Chroot:      s.filePath("chroot"),
		Rlimits:     s.rlimits(),
		Sandbox:     s.sandbox(),
		Cgroup:      s.cgroup(),

		Restricted:    s.written("allow"),
		Rules:         s.rules(),
		Hours:         s.hours(),
		Max:           s.positive("max"),
		MaxPerSource:  s.positive("max_per_source"),
		Rate:          s.rate("rate"),
		RatePerSource: s.rate("rate_per_source"),
		MaxLoad:       s.decimal("max_load"),
		SourcePrefix:  Prefixes{s.integer("source_prefix.ipv4"), s.integer("source_prefix.ipv6")},
		OnLimit:       s.word("on_limit"),
		Queue:         Queue{s.integer("queue.length"), s.duration("queue.timeout"), s.written("queue")},
		RefuseText:    s.refuseText(),
		Ban:           s.ban(),
		Proxy:         s.proxy(),
		Failures:      s.failures(),

		Timeout: Timeouts{
			Session:   s.duration("timeout.session"),
			Idle:      s.duration("timeout.idle"),
			FirstByte: s.duration("timeout.first_byte"),
			Stop:      s.duration("timeout.stop"),
		},
		where:   s.d.where,
		written: writtenIn(s.self.node, "", written{}),
	}
	c.Amplify = s.amplify(c)
	switch {
	case c.Wait != "":
		s.handOver(c)
	case c.Datagrams():
		s.converse(c)
	}
	s.checkIdle(c)
	s.checkFirstByte(c)
	if c.Mux != "" {
		s.reachByName(c)
	}
	if c.Builtin == BuiltinMux {
		s.lead(c)
	}
	return c
}

// checkIdle refuses an idle timeout where it could not hold: of a vsock
// connection the kernel tells neither when a byte moved nor that one did.
func (s section) checkIdle(c *Service) {
	for _, l := range c.Listen {
		if l.Family == VSock && c.Timeout.Idle > 0 {
			s.d.bad(s.get("timeout.idle"), "has no effect at "+l.Spec+": the kernel does not tell when its bytes move", "write timeout.session, or a service of its own for it")
			return
		}
	}
}

// speakFirst are the built-ins whose clients send nothing.
var speakFirst = []string{"greeting", "chargen", "daytime", "time", "qotd"}

// checkFirstByte warns of a service that waits for its clients as they for it.
func (s section) checkFirstByte(c *Service) {
	if c.Timeout.FirstByte > 0 && slices.Contains(speakFirst, c.Builtin) {
		s.d.warn(s.get("timeout.first_byte"), mistakef("leave it out", "%s speaks first: its clients wait for it, and it for them", c.Builtin))
	}
}

// crossCheck looks at keys that need or exclude one another.
func (s section) crossCheck() {
	if s.self.node.Kind != yaml.MappingNode {
		return
	}
	if !s.written("listen") && !s.named() {
		s.d.bad(s.self, "listens on nothing", "add listen: PORT")
	}
	switch run, builtin := s.written("run"), s.written("builtin"); {
	case run && builtin:
		s.both()
	case !run && !builtin:
		s.d.bad(s.self, "runs nothing", "add run: /path/to/program or builtin: echo")
	}
	if s.written("argv0") && !s.written("run") {
		s.d.bad(s.get("argv0"), "has a meaning only with run", "leave it out")
	}
	s.warnUnkept()
}

// both reports run and builtin at the one that comes later.
func (s section) both() {
	run, builtin := s.get("run"), s.get("builtin")
	later := run
	if run.at.compare(builtin.at) < 0 {
		later = builtin
	}
	s.d.bad(later, fmt.Sprintf("run on line %d and builtin on line %d exclude each other", run.at.Line, builtin.at.Line), "keep one of them")
}

// warnUnkept warns of keys that work on the connection that keep: false gives up.
func (s section) warnUnkept() {
	if !s.written("keep") || s.get("keep").node.Value != "false" {
		return
	}
	for _, name := range []string{"linger", "timeout.idle"} {
		if v := s.get(name); s.written(name) {
			s.d.warnings = append(s.d.warnings, Problem{v.at, v.path, "has no effect with keep: false", ""})
		}
	}
}

// run reads the program and its arguments.
func (s section) run() []string {
	if !s.written("run") {
		return nil
	}
	v := s.get("run")
	program, argv := v, []string(nil)
	switch {
	case v.node.Kind == yaml.SequenceNode:
		if items := s.d.list(v); len(items) > 0 {
			program, argv = items[0], s.d.arguments(items)
		}
	case hasText(v.node):
		argv = s.d.splitWords(v)
	default:
		s.d.wrong(v, "")
		return nil
	}
	s.d.fault(program, checkProgram(argv))
	return argv
}

func (d *decoder) arguments(items []value) []string {
	argv := make([]string, len(items))
	for i, item := range items {
		argv[i], _ = d.item(item)
	}
	return argv
}

func (s section) nonEmpty(name string) string {
	text := s.text(name)
	if v := s.get(name); text == "" && s.written(name) && hasText(v.node) {
		s.d.bad(v, "is empty", "leave it out")
	}
	return text
}

// What may be said at most, in bytes: a quote of the day by RFC 865, a
// greeting by what a socket takes at once.
var longestSpoken = map[string]int{"greeting": 4096, "qotd": 512}

// spokenText reads the text of the services that say one.
func (s section) spokenText() string {
	if !s.written("text") {
		return ""
	}
	text, v := s.nonEmpty("text"), s.get("text")
	builtin := s.builtinName()
	longest, speaks := longestSpoken[builtin]
	switch {
	case !speaks:
		s.d.bad(v, "has a meaning only with builtin greeting or qotd", "leave it out")
	case len(text) > longest:
		s.d.bad(v, fmt.Sprintf("has %d bytes, %s says at most %d", len(text), builtin, longest), "")
	}
	return text
}

// builtinName is the built-in's name without a second report of a wrong one.
func (s section) builtinName() string {
	if n := s.get("builtin").node; n != nil {
		return n.Value
	}
	return ""
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// reserved are the variables that tell a program about its connection.
const reserved = "SUPERD_"

func checkVariable(name string) error {
	switch {
	case !variableName.MatchString(name):
		return mistakef("letters, digits and _, not a digit first", "%s cannot name a variable", quote(name))
	case strings.HasPrefix(name, reserved):
		return mistakef("", "variables %s* are superd's own", reserved)
	}
	return nil
}

func (s section) env() []EnvVar {
	if !s.written("env") {
		return nil
	}
	var env []EnvVar
	for _, e := range s.d.entries(s.get("env")) {
		v := s.d.value(e.node, e.path, &variable)
		s.d.fault(value{at: e.at, path: e.path}, checkVariable(e.name))
		env = append(env, EnvVar{e.name, s.d.variable(v)})
	}
	return env
}

// variable is what the value of a variable is checked as.
var variable = Key{Kind: Text}

func (d *decoder) variable(v value) string {
	if isNull(v.node) {
		d.wrong(v, `write "" for an empty one`)
		return ""
	}
	return d.text(v)
}

// envStyle leaves the list empty for none.
func (s section) envStyle() []string {
	v := s.get("env_style")
	styles := s.names("env_style", func(text string) error { return checkWord(text, v.key.Words) })
	if !slices.Contains(styles, "none") {
		return styles
	}
	if len(styles) > 1 {
		s.d.bad(v, "none excludes all others", "")
	}
	return nil
}

func checkWord(text string, words []string) error {
	if slices.Contains(words, text) {
		return nil
	}
	return mistakef(didYouMean(nearest(text, words)), "must be %s, not %s", either(words), quote(text))
}

func (s section) account(name string) string {
	text := s.text(name)
	if v := s.get(name); s.written(name) && hasText(v.node) {
		s.d.fault(v, checkAccount(text))
	}
	return text
}

// mostAccount is the highest number of a user or group: the next one, -1 to
// the kernel, would leave the program what superd itself is.
const mostAccount = 1<<32 - 2

func checkAccount(name string) error {
	switch n, err := strconv.ParseUint(name, 10, 64); {
	case name == "":
		return mistakef("", "is empty, must be a name or a number")
	case strings.ContainsAny(name, ": \t\r\n") || strings.HasPrefix(name, "-"):
		return mistakef("", "%s cannot be a name", quote(name))
	case number.MatchString(name) && (err != nil || n > mostAccount):
		return mistakef("", "%s is more than the highest number, %d", name, mostAccount)
	}
	return nil
}

// positive has a hint of its own for who writes 0 to close a service, or to
// have no limit.
func (s section) positive(name string) int {
	v := s.get(name)
	if v.node != nil && isPlain(v.node) && v.node.Value == "0" {
		s.d.wrong(v, "leave it out, or say enabled: false")
		return 0
	}
	return s.integer(name)
}
