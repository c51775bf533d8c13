package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/event"
	"superd/superd/internal/proxy"
)

// The manual is the specification, so these tests hold it against the code,
// in both directions where there is a list.

const root = ".." // of the repository

func document(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// An mdoc is the source of a manual page, or of a part of one.
type mdoc []string

func manual(t *testing.T, page string) mdoc {
	t.Helper()
	return strings.Split(document(t, "man/"+page), "\n")
}

// section is what stands under a heading, up to the next one of its rank.
func (m mdoc) section(t *testing.T, heading string) mdoc {
	t.Helper()
	for _, macro := range []string{".Sh ", ".Ss "} {
		start := slices.Index(m, macro+heading)
		if start < 0 {
			continue
		}
		rest := m[start+1:]
		end := slices.IndexFunc(rest, func(line string) bool {
			return strings.HasPrefix(line, ".Sh ") || strings.HasPrefix(line, macro)
		})
		if end < 0 {
			end = len(rest)
		}
		return rest[:end]
	}
	t.Fatalf("the manual has no section %q", heading)
	return nil
}

// An mdocItem is an entry of a list: what its head names, and its body.
type mdocItem struct {
	names []string
	body  mdoc
}

// items are the entries of the outermost lists whose heads begin with macro;
// lists inside them belong to their bodies.
func (m mdoc) items(macro string) (list []mdocItem) {
	depth := 0
	for _, line := range m {
		switch {
		case strings.HasPrefix(line, ".Bl "):
			depth++
		case strings.HasPrefix(line, ".El"):
			depth--
		case depth == 1 && strings.HasPrefix(line, ".It "):
			list = append(list, mdocItem{names: marked(line, macro)})
			continue
		}
		if len(list) > 0 && depth > 0 {
			list[len(list)-1].body = append(list[len(list)-1].body, line)
		}
	}
	return slices.DeleteFunc(list, func(i mdocItem) bool { return len(i.names) == 0 })
}

func namesOf(items []mdocItem) (names []string) {
	for _, i := range items {
		names = append(names, i.names...)
	}
	return names
}

// words are those that macro marks anywhere in m.
func (m mdoc) words(macro string) (list []string) {
	for _, line := range m {
		list = append(list, marked(line, macro)...)
	}
	return list
}

var mdocMacros = []string{"It", "Cm", "Va", "Ev", "Fl", "Ar", "Xr", "Pa", "Dv", "Er", "Ql", "Op", "No", "Ns", "Sy", "Em", "Sx", "Nm", "Pq", "Dl", "Ic"}

// marked is what macro marks in one line: ".It Va user_ms , Va system_ms".
func marked(line, macro string) (list []string) {
	if !strings.HasPrefix(line, ".") {
		return nil
	}
	current := ""
	for _, word := range strings.Fields(line[1:]) {
		switch {
		case slices.Contains(mdocMacros, word):
			current = word
		case len(word) == 1 && strings.Contains(".,;:()", word):
		case current == macro:
			list = append(list, printed(word))
		}
	}
	return list
}

// printed is what mandoc makes of the escapes that our pages use.
func printed(text string) string {
	return strings.NewReplacer(`\(dq`, `"`, `\(aq`, `'`, `\&`, "", `\-`, "-", `\e`, `\`).Replace(text)
}

// prose is m as one line without macros, for looking phrases up.
func (m mdoc) prose() string {
	var words []string
	for _, line := range m {
		for i, word := range strings.Fields(line) {
			isMacro := strings.HasPrefix(line, ".") && (i == 0 || slices.Contains(mdocMacros, word))
			if !isMacro {
				words = append(words, strings.Trim(printed(word), `"`))
			}
		}
	}
	return strings.Join(words, " ")
}

func TestManualHasEveryKey(t *testing.T) {
	page := manual(t, "superd.yaml.5")
	entries := map[string]mdoc{}
	var described []string
	for _, part := range []struct{ heading, prefix string }{
		{"KEYS OF THE FILE", ""},
		{"KEYS OF A SERVICE", "services.*."},
	} {
		for _, i := range page.section(t, part.heading).items("Cm") {
			path := part.prefix + i.names[0]
			described = append(described, path)
			entries[path] = i.body
		}
	}
	var working []string
	for _, k := range config.Keys() {
		working = append(working, k.Path)
		checkEntry(t, k, entries[k.Path])
	}
	compareLists(t, "keys of superd.yaml(5)", described, working)
}

// checkEntry holds a key's entry against its row of the table.
func checkEntry(t *testing.T, k config.Key, entry mdoc) {
	t.Helper()
	deflt := ""
	if i := slices.Index(entry, "Default:"); i >= 0 {
		deflt = strings.Join(marked(entry[i+1], "Cm"), " ")
	}
	if deflt != k.Default {
		t.Errorf("%s: the default is %q in the manual, %q in the code", k.Path, deflt, k.Default)
	}
	words := entry.words("Cm")
	wanted := k.Words
	kind := k.Kind
	if kind == config.Limit {
		kind = k.Of
	}
	switch kind {
	case config.Percent:
		wanted = []string{fmt.Sprintf("%d%%", k.Min), fmt.Sprintf("%d%%", k.Max)}
	case config.Seconds:
		wanted = append([]string{fmt.Sprintf("%ds", k.Min), fmt.Sprintf("%ds", k.Max)}, k.Words...)
	case config.Integer:
		if r := fmt.Sprintf("from %d to %d", k.Min, k.Max); !strings.Contains(entry.prose(), r) {
			t.Errorf("%s: the manual does not say %q", k.Path, r)
		}
	}
	for _, w := range wanted {
		if !slices.Contains(words, w) && !slices.Contains(words, "["+w+"]") {
			t.Errorf("%s: the manual does not know the value %s", k.Path, w)
		}
	}
}

// TestManualHasPresets holds the table of presets against what the code makes of
// each word.
func TestManualHasPresets(t *testing.T) {
	presets := []string{"none", "basic", "offline", "strict"}
	want := map[string][]string{}
	add := func(key string, value any) { want[key] = append(want[key], fmt.Sprint(value)) }
	for _, preset := range presets {
		c, err := config.Parse("x.yaml", []byte("services: {x: {listen: 7, builtin: echo, sandbox: "+preset+"}}"), documentedNames{})
		if err != nil {
			t.Fatal(err)
		}
		s := c.Services[0].Sandbox
		add("no_new_privs", s.NoNewPrivs)
		add("system_calls", s.SystemCalls)
		add("network", s.Network)
		add("private_tmp", s.PrivateTmp)
		add("file system", map[bool]string{false: "open", true: "closed"}[s.Confined])
		add("capabilities", map[bool]string{false: "user's", true: "none"}[s.NoNewPrivs])
	}
	rows := 0
	for _, line := range manual(t, "superd.yaml.5").section(t, "PRESETS") {
		cells := strings.Split(line, " Ta ")
		if len(cells) != len(presets)+1 {
			continue
		}
		key := strings.TrimPrefix(strings.TrimPrefix(cells[0], ".It "), "Cm ")
		if key == "Sy key" {
			key, want["Sy key"] = "Sy key", []string{"Cm none", "Cm basic", "Cm offline", "Cm strict"}
		}
		if !slices.Equal(cells[1:], want[key]) {
			t.Errorf("%s: the manual says %q, the code %q", key, cells[1:], want[key])
		}
		rows++
	}
	if rows != len(want) {
		t.Errorf("the table has %d rows, not %d", rows, len(want))
	}
}

// inPolicy is a family of system calls that are not let through.
var inPolicy = regexp.MustCompile("purpose: \"([^\"]+)\",(?: verdict: ([^,]+),)?\\s+calls: (?:`([^`]+)`|\"([^\"]+)\")")

// TestManualHasSystemCalls: each family that a filter refuses is listed, under
// what becomes of it.
func TestManualHasSystemCalls(t *testing.T) {
	source := document(t, "superd/internal/spawn/policy.go")
	page := manual(t, "superd.yaml.5").section(t, "SYSTEM CALLS")
	found := 0
	for _, m := range inPolicy.FindAllStringSubmatch(source, -1) {
		if m[2] == "" {
			continue
		}
		found++
		heading := slices.Index(page, ".It "+m[1])
		if heading < 0 {
			t.Errorf("the manual has no %q", m[1])
			continue
		}
		rest := page[heading+1:]
		end := slices.IndexFunc(rest, func(line string) bool { return strings.HasPrefix(line, ".") })
		listed := strings.FieldsFunc(strings.Join(rest[:end], " "), func(r rune) bool { return r == ' ' || r == ',' || r == ':' })
		for _, call := range strings.Fields(m[3] + m[4]) {
			if !slices.Contains(listed, call) {
				t.Errorf("%s: the manual does not list %s", m[1], call)
			}
		}
		above := ""
		for _, line := range page[:heading] {
			if line == "These kill:" {
				above = "kill"
			} else if strings.HasPrefix(line, ".Er E") {
				above = "fails(unix." + strings.Trim(line[len(".Er "):], " :") + ")"
			}
		}
		if above != m[2] {
			t.Errorf("%s: the manual lists it under %q, the code has %q", m[1], above, m[2])
		}
	}
	if found < 20 {
		t.Errorf("only %d families were found: this test looks in the wrong way", found)
	}
}

// TestManualListsDefaults: which keys defaults may not have, and which yield.
func TestManualListsDefaults(t *testing.T) {
	var own, yielding []string
	for _, k := range config.Keys() {
		switch name := strings.TrimPrefix(k.Path, "services.*."); k.Common {
		case config.Own:
			own = append(own, name)
		case config.Yields:
			yielding = append(yielding, name)
		}
	}
	var entry mdoc
	for _, i := range manual(t, "superd.yaml.5").section(t, "KEYS OF THE FILE").items("Cm") {
		if i.names[0] == "defaults" {
			entry = i.body
		}
	}
	between := func(first, last string) []string {
		from, to := slices.Index(entry, first), slices.Index(entry, last)
		if from < 0 || to < from {
			t.Fatalf("the manual has nothing between %q and %q", first, last)
		}
		return entry[from:to].words("Cm")
	}
	sameNames(t, "keys that have no default", between("Not for defaults are", "which make a service what it is."), own)
	sameNames(t, "keys that yield", between("Without", "nothing is more open than the file says, and there these are left out."), yielding)
}

// compareLists wants the document to have what the code has, in its order.
func compareLists(t *testing.T, what string, document, code []string) {
	t.Helper()
	if slices.Equal(document, code) {
		return
	}
	for _, name := range code {
		if !slices.Contains(document, name) {
			t.Errorf("%s: %s is missing in the document", what, name)
		}
	}
	for _, name := range document {
		if !slices.Contains(code, name) {
			t.Errorf("%s: %s is not in the code", what, name)
		}
	}
	if !t.Failed() {
		t.Errorf("%s: the order is\n%v\nand not\n%v", what, document, code)
	}
}

// sameNames compares two lists as sets.
func sameNames(t *testing.T, what string, document, code []string) {
	t.Helper()
	compareLists(t, what, slices.Compact(slices.Sorted(slices.Values(document))), slices.Compact(slices.Sorted(slices.Values(code))))
}

func TestManualHasEveryCommand(t *testing.T) {
	page := manual(t, "superd.8")
	var verbs []string
	flags := []string{"h", "-help", "v", "-version"}
	for _, c := range command().Commands {
		verbs = append(verbs, c.Name)
		for _, f := range c.Flags {
			for _, name := range f.Names() {
				if len(name) > 1 {
					name = "-" + name
				}
				flags = append(flags, name)
			}
		}
	}
	var described []string
	for _, i := range page.section(t, "COMMANDS").items("Cm") {
		described = append(described, i.names[0])
	}
	compareLists(t, "COMMANDS of superd(8)", described, verbs)
	compareLists(t, "SYNOPSIS of superd(8)", page.section(t, "SYNOPSIS").words("Cm"), verbs)
	sameNames(t, "options of superd(8)", namesOf(page.section(t, "DESCRIPTION").items("Fl")), flags)
}

func TestManualHasEveryReason(t *testing.T) {
	page := manual(t, "superd.8")
	var words []string
	for _, r := range event.Reasons() {
		words = append(words, r.String())
	}
	compareLists(t, "reasons of a refusal", namesOf(page.section(t, "Reasons of a refusal").items("Cm")), words)
	compareLists(t, "reasons of an end", namesOf(page.section(t, "Reasons of an end").items("Cm")),
		[]string{conn.ReasonSession, conn.ReasonIdle, reasonDrain, reasonStop, reasonKill})
}

// common are the fields that every record has.
var common = []string{"time", "level", "message"}

func TestManualHasEveryField(t *testing.T) {
	page := manual(t, "superd.8")
	said := everyRecord(t)
	all := append([]string{"dropped"}, common...)
	for message, fields := range said {
		all = append(all, fields...)
		said[message] = slices.DeleteFunc(fields, func(f string) bool { return slices.Contains(common, f) })
	}
	sameNames(t, "fields", namesOf(page.section(t, "Fields").items("Va")), all)
	maps.Copy(said, lifeRecords(t))
	var messages []string
	for _, i := range page.section(t, "Records").items("Cm") {
		messages = append(messages, i.names[0])
		fields := slices.IndexFunc(i.body, func(line string) bool { return strings.HasPrefix(line, "Fields:") })
		if fields < 0 {
			t.Errorf("%s: the manual lists no fields", i.names[0])
			continue
		}
		sameNames(t, "fields of "+i.names[0], i.body[fields:].words("Va"), said[i.names[0]])
	}
	sameNames(t, "messages", messages, slices.Collect(maps.Keys(said)))
}

// everyRecord has each record of a connection written, in all its forms, and
// returns the names of their fields.
func everyRecord(t *testing.T) map[string][]string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	log := event.Open(file, event.Options{Level: "debug", Format: "json"})
	s, c := log.Service("x"), &event.Conn{ID: []byte("1"), Peer: []byte("p"), Local: []byte("l")}
	s.Listening("l")
	s.Accepted(c)
	c.Pid = 1
	s.Started(c)
	s.Stderr(c, []byte("line"), true)
	s.Exited(c, &event.Exit{Call: "mount", Reason: "r", Leftovers: 1, Dropped: 1})
	s.Exited(c, &event.Exit{Signaled: true, Signal: syscall.SIGTERM})
	s.Refused(c, event.ReasonSpawn, errors.New("why"))
	for range 100 { // not all of them a second apart: one is held back, and told by Close
		s.Refused(c, event.ReasonSpawn, nil)
	}
	c.Pid = 0 // of no program, or of one that is over
	s.Silent([]byte("p"))
	s.Listed([]byte("p"))
	s.Trying(c)
	s.Paused(c, &event.Pause{Last: errors.New("why"), Length: time.Second, Again: true, Narrow: true})
	s.Recovered()
	log.Close(patience)
	lines, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	said := map[string][]string{}
	for line := range bytes.Lines(lines) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		said[r.text("message")] = append(said[r.text("message")], slices.Collect(maps.Keys(r))...)
	}
	return said
}

// lifeRecords are superd's own records, from its start to its end.
func lifeRecords(t *testing.T) map[string][]string {
	t.Helper()
	d := startAsked(t, "http: {listen: '127.0.0.1:0'}\nservices: {echo: {listen: \"127.0.0.1:0\", builtin: echo}}")
	d.rewrite(1, "http: {listen: '127.0.0.1:0'}\nservices: {echo: {listen: \"127.0.0.1:0\", builtin: echo, max: 7}}")
	d.signal(syscall.SIGUSR1)
	d.awaitMany(2, func(r record) bool { return r.is("status") })
	d.told("drain", "echo")
	d.signal(syscall.SIGUSR2)
	d.await(func(r record) bool { return r.is("upgraded") })
	d.signal(syscall.SIGTERM)
	d.ended()
	said := map[string][]string{}
	for _, message := range []string{"ready", "http", "changed", "reloaded", "draining", "ordered", "status", "upgrading", "upgraded", "stopped"} {
		for _, r := range d.awaitMany(1, func(r record) bool { return r.is(message) }) {
			said[message] = append(said[message], slices.Collect(maps.Keys(r))...)
		}
		said[message] = slices.DeleteFunc(said[message], func(f string) bool { return slices.Contains(common, f) })
	}
	return said
}

func TestManualHasEveryVariable(t *testing.T) {
	env := program(t, "env")
	page := manual(t, "superd-program.7").section(t, "ENVIRONMENT")
	styles := stylesOfTheFile(t)
	yaml, dir := "services:\n", publicDir(t)
	for _, style := range append(styles, "none") {
		yaml += fmt.Sprintf("  %[1]s: {listen: ['127.0.0.1:0', 'unix:%[2]s/%[1]s'], run: %[3]s, env_style: [%[1]s]}\n", style, dir, env)
	}
	d := start(t, yaml)
	always := variableNames(d.ask("none", ""))
	ofUser := []string{"HOME", "USER", "LOGNAME", "SHELL"} // of a user that the machine knows
	documented := namesOf(page.section(t, "For every program").items("Ev"))
	sameNames(t, "variables of every program", documented, append(always, ofUser...))
	for _, style := range styles {
		streams := variableNames(d.ask(style, ""))
		udp := slices.DeleteFunc(variablesOf(t, "UDP", style), func(n string) bool { return slices.Contains(streams, n) })
		all := slices.Concat(streams, udp, variableNames(d.askUnix(style, "@"+dir+"/client", "")))
		own := slices.DeleteFunc(all, func(n string) bool { return slices.Contains(always, n) })
		own = append(own, variablesOf(t, "VSock", style)...)
		compareLists(t, "variables of "+style, namesOf(page.section(t, "With the style "+style).items("Ev")), own)
	}
	compareLists(t, "variables of a PROXY header", namesOf(page.section(t, "Of a PROXY header").items("Ev")), proxy.Names())
}

// variablesOf are those of a style for a kind of peer, as the source has them:
// not every machine can try each.
func variablesOf(t *testing.T, kind, style string) (names []string) {
	t.Helper()
	source := document(t, "superd/internal/spawn/environment.go")
	_, table, found := strings.Cut(source, "\n\tpeer."+kind+": {\n")
	if !found {
		t.Fatalf("there is no table for %s: this test looks in the wrong way", kind)
	}
	table, _, _ = strings.Cut(table, "\n\t},\n")
	_, list, _ := strings.Cut(table, "\t\t\""+style+"\": {\n")
	list, _, _ = strings.Cut(list, "\n\t\t},\n")
	for _, m := range regexp.MustCompile(`\{"([A-Z_]+)=",`).FindAllStringSubmatch(list, -1) {
		names = append(names, m[1])
	}
	return names
}

// stylesOfTheFile are the values of env_style that stand for variables.
func stylesOfTheFile(t *testing.T) (styles []string) {
	t.Helper()
	for _, k := range config.Keys() {
		if k.Path == "services.*.env_style" {
			styles = slices.DeleteFunc(slices.Clone(k.Words), func(w string) bool { return w == "none" })
		}
	}
	if len(styles) == 0 {
		t.Fatal("there is no env_style")
	}
	return styles
}

func variableNames(env string) (names []string) {
	for line := range strings.Lines(env) {
		name, _, _ := strings.Cut(line, "=")
		names = append(names, name)
	}
	return names
}

// Where the code says what it could not do.
var (
	inMessages = regexp.MustCompile(`"(cannot [^"]*)"`)
	comment    = regexp.MustCompile(`(?m)^\s*//.*$`)
	inWords    = regexp.MustCompile(`(?:\.add\(|Words: |failure\()"([^"]*)"`)
)

// unseen are words of steps whose errors are ignored, and of what no command
// asks for yet.
var unseen = []string{"cannot close descriptor 2", "cannot tell superd", "cannot keep the built-in's image", "cannot block: not a network", "cannot open sockets:"}

func TestManualHasEveryDiagnostic(t *testing.T) {
	known := manual(t, "superd.8").section(t, "DIAGNOSTICS").prose()
	found := 0
	for _, dir := range []string{".", "internal/listen", "internal/spawn", "internal/conn", "internal/admit", "internal/control", "internal/event", "internal/migrate"} {
		files, _ := filepath.Glob(filepath.Join(dir, "*.go"))
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, words := range complaints(t, file) {
				if words = strings.TrimSpace(words); !slices.Contains(unseen, words) && !strings.Contains(known, words) {
					t.Errorf("%s: the manual does not know %q", file, words)
				}
				found++
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d messages were found in the code: this test looks in the wrong way", found)
	}
}

// complaints are the messages of a file up to their first variable part.
func complaints(t *testing.T, file string) (list []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = comment.ReplaceAll(text, nil)
	for _, m := range inMessages.FindAllSubmatch(text, -1) {
		fixed, _, _ := strings.Cut(string(m[1]), "%")
		if strings.TrimSpace(fixed) != "cannot" { // as in "cannot %s", whose words are found by themselves
			list = append(list, fixed)
		}
	}
	for _, m := range inWords.FindAllSubmatch(text, -1) {
		list = append(list, "cannot "+string(m[1]))
	}
	return list
}

// documentedNames is a System that knows the names of the examples.
type documentedNames struct{}

func (documentedNames) LookupHost(string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
}

func (documentedNames) LookupPort(_, name string) (int, error) {
	return 0, fmt.Errorf("the example uses the port name %s", name)
}

// ReadDir finds nothing that could clash with an example.
func (documentedNames) ReadDir(string) ([]string, error) { return nil, nil }

func (documentedNames) ReadFile(path string, _ int64) ([]byte, error) {
	return []byte("192.0.2.0/24 # " + path + "\n"), nil
}

// isExample: a file always has this key.
var isExample = regexp.MustCompile(`(?m)^services:`)

func TestExamplesLoad(t *testing.T) {
	seen := map[string]int{}
	check := func(name, yaml string) {
		t.Helper()
		seen[strings.Split(name, ":")[0]]++
		if _, err := config.Parse(name, []byte(yaml), documentedNames{}); err != nil {
			t.Errorf("an example does not load:\n%v\n%s", err, yaml)
		}
	}
	pages, _ := filepath.Glob(filepath.Join(root, "man/*"))
	for _, page := range pages {
		for i, display := range manual(t, filepath.Base(page)).displays() {
			if isExample.MatchString(display) {
				check(fmt.Sprintf("%s:%d", filepath.Base(page), i), display)
			}
		}
	}
	files, _ := filepath.Glob(filepath.Join(root, "etc/*.yaml"))
	more, _ := filepath.Glob(filepath.Join(root, "etc/examples/*"))
	for _, file := range append(files, more...) {
		check("etc", document(t, strings.TrimPrefix(file, root)))
	}
	for _, block := range readmeBlocks(t) {
		for _, here := range hereDocument.FindAllStringSubmatch(block, -1) {
			check("README.md", here[1])
		}
	}
	for _, name := range []string{"superd.8", "superd.yaml.5", "superd-program.7", "superd-services.8", "etc", "README.md"} {
		if seen[name] == 0 {
			t.Errorf("no example was found in %s", name)
		}
	}
}

// displays are the literal parts of a page.
func (m mdoc) displays() (list []string) {
	inside := false
	for _, line := range m {
		switch {
		case strings.HasPrefix(line, ".Bd -literal"):
			inside = true
			list = append(list, "")
		case line == ".Ed":
			inside = false
		case inside:
			list[len(list)-1] += printed(line) + "\n"
		}
	}
	return list
}

func TestManualShowsRealErrors(t *testing.T) {
	const file = "services:\n  web:\n    listen: 99999\n    run: /bin/true\n    usr: www\n"
	_, err := config.Parse("web.yaml", []byte(file), documentedNames{})
	shown := slices.DeleteFunc(manual(t, "superd.yaml.5").section(t, "DIAGNOSTICS").displays(), func(d string) bool {
		return !strings.HasPrefix(d, "web.yaml:")
	})
	if len(shown) != 1 || err == nil || strings.TrimSpace(shown[0]) != err.Error() {
		t.Errorf("the manual shows\n%s\nand the code says\n%v", strings.Join(shown, "\n"), err)
	}
}

func TestManualIsWellFormed(t *testing.T) {
	mandoc := program(t, "mandoc")
	pages, _ := filepath.Glob(filepath.Join(root, "man/*"))
	dir := t.TempDir()
	references := regexp.MustCompile(`(?m)^\..*Xr (\S+) ([1-9])`)
	args := []string{"-T", "lint", "-W", "style"}
	for _, page := range pages {
		name := filepath.Base(page)
		text := document(t, "man/"+name)
		writeFile(t, dir, name, text, 0o644)
		args = append(args, name)
		for _, xr := range references.FindAllStringSubmatch(text, -1) {
			if other := xr[1] + "." + xr[2]; !strings.HasPrefix(other, "superd") {
				writeFile(t, dir, other, "", 0o644) // pages of the system are there, but for ours
			}
		}
	}
	lint := exec.Command(mandoc, args...)
	lint.Dir = dir
	lint.Env = append(os.Environ(), "MANPATH="+dir)
	if out, err := lint.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

var (
	hereDocument = regexp.MustCompile(`(?s)<<'EOF'\n(.*?)\nEOF\n`)
	shellBlock   = regexp.MustCompile("(?s)```sh\n(.*?)```\n")
)

// readmeBlocks are the commands of README.md's tour.
func readmeBlocks(t *testing.T) (blocks []string) {
	t.Helper()
	for _, m := range shellBlock.FindAllStringSubmatch(document(t, "README.md"), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatal("README.md has no tour")
	}
	return blocks
}

// TestCheckout tries, in a copy of the repository, what the README promises
// for a fresh clone.
func TestCheckout(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a binary")
	}
	make, shell := program(t, "make"), program(t, "sh")
	c := &checkout{t: t, dir: copyOfRepository(t), make: make, shell: shell}
	t.Run("Tour", c.testTour)
	t.Run("Install", c.testInstall)
}

type checkout struct {
	t           *testing.T
	dir         string
	make, shell string
}

// copyOfRepository copies what a clone would have, and what is new.
func copyOfRepository(t *testing.T) string {
	t.Helper()
	dir := publicDir(t)
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case name == ".git" && !e.IsDir(): // of a further work tree
			return nil
		case name == ".git" || name == "bin":
			return fs.SkipDir
		case e.IsDir():
			return os.MkdirAll(filepath.Join(dir, name), 0o755)
		case !e.Type().IsRegular():
			return nil
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // somebody works here
			return nil
		}
		return errors.Join(err, os.WriteFile(filepath.Join(dir, name), text, 0o644))
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// command is a shell's line in the copy. A make above us must not be heard.
func (c *checkout) command(line string) *exec.Cmd {
	cmd := exec.Command(c.shell, "-euc", line)
	cmd.Dir = c.dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=")
	})
	return cmd
}

func (c *checkout) run(t *testing.T, line string) string {
	t.Helper()
	out, err := c.command(line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// serverLine is a command of the tour that stays in the foreground.
var serverLine = regexp.MustCompile(`^(make run|bin/superd run .*)$`)

// testTour runs the tour of README.md, on free ports instead of its own: all
// answers that it shows have to come.
func (c *checkout) testTour(t *testing.T) {
	ports := c.freePorts(t)
	stop := func() {}
	defer func() { stop() }()
	answers := 0
	for _, block := range readmeBlocks(t) {
		block = ports.Replace(block)
		lines := strings.Split(strings.TrimSpace(block), "\n")
		if last := lines[len(lines)-1]; serverLine.MatchString(last) {
			stop()
			if before := strings.Join(lines[:len(lines)-1], "\n"); before != "" {
				c.run(t, before)
			}
			stop = c.serve(t, last)
			continue
		}
		for _, line := range lines {
			line, answer, shown := strings.Cut(line, " # ")
			got := strings.TrimSpace(c.run(t, line))
			if shown && got != strings.TrimSpace(answer) {
				t.Errorf("%s says %q, the README %q", line, got, strings.TrimSpace(answer))
			}
			if got == "" {
				t.Errorf("%s says nothing", line)
			}
			answers++
		}
	}
	if answers < 3 {
		t.Errorf("the tour has %d answers: this test looks in the wrong way", answers)
	}
}

// freePorts replaces the ports of the tour, and of the file that it begins
// with, which it changes in the copy.
func (c *checkout) freePorts(t *testing.T) *strings.Replacer {
	t.Helper()
	file := filepath.Join(c.dir, "etc/superd.yaml")
	own, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(own) + strings.Join(readmeBlocks(t), "")
	ports := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?::|connect )(\d{4})\b`).FindAllStringSubmatch(text, -1) {
		ports[m[1]] = true
	}
	var pairs []string
	for port := range ports {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		pairs = append(pairs, port, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	replacer := strings.NewReplacer(pairs...)
	if err := os.WriteFile(file, []byte(replacer.Replace(string(own))), 0o644); err != nil {
		t.Fatal(err)
	}
	return replacer
}

// serve starts a line that stays, and returns, when superd is ready, what
// does as Ctrl-C does.
func (c *checkout) serve(t *testing.T, line string) (stop func()) {
	t.Helper()
	output := filepath.Join(t.TempDir(), "output")
	file, err := os.Create(output)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := c.command(line)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	stop = func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		select {
		case <-ended:
		case <-time.After(patience):
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			t.Errorf("%s does not stop", line)
		}
	}
	deadline := time.Now().Add(5 * time.Minute) // it may have to compile everything
	for {
		text, _ := os.ReadFile(output)
		switch {
		case bytes.Contains(text, []byte(`"message":"ready"`)):
			return stop
		case time.Now().After(deadline) || isClosed(ended):
			stop()
			t.Fatalf("%s was never ready:\n%s", line, text)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestUnit: systemd understands the units. The program that they name need not
// be installed for that.
func TestUnit(t *testing.T) {
	analyze := program(t, "systemd-analyze")
	unit := strings.ReplaceAll(document(t, "etc/superd.service"), "/usr/local/sbin/superd", "/bin/true")
	if strings.Count(unit, "/bin/true") != 2 {
		t.Errorf("the unit does not start superd and have it reload")
	}
	dir := t.TempDir()
	path := writeFile(t, dir, "superd.service", unit, 0o644)
	socket := writeFile(t, dir, "superd.socket", document(t, "etc/superd.socket"), 0o644)
	out, err := exec.Command(analyze, "verify", "--man=no", path, socket).CombinedOutput()
	if text := strings.TrimSpace(string(out)); err != nil || strings.Contains(text, "superd") {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestSocketUnit: superd serves the sockets of the unit, as systemd would open
// them, by the name that the unit says and by their addresses.
func TestSocketUnit(t *testing.T) {
	needIPv6(t)
	unit := document(t, "etc/superd.socket")
	if !strings.Contains(unit, "\nBindIPv6Only=ipv6-only\n") || !strings.Contains(unit, "listen: fd:web\n") {
		t.Errorf("the unit is\n%s", unit)
	}
	dir := publicDir(t)
	var files []*os.File
	var addresses []string
	port := "0"
	for _, l := range regexp.MustCompile(`(?m)^ListenStream=(.*)$`).FindAllStringSubmatch(unit, -1) {
		network, address := "unix", filepath.Join(dir, filepath.Base(l[1]))
		if host, is := strings.CutSuffix(l[1], ":8080"); is {
			network, address = map[bool]string{true: "tcp6", false: "tcp4"}[host[0] == '['], host+":"+port
		}
		f, at := handedSocket(t, network, address)
		files = append(files, f)
		if network == "unix" {
			at = "unix:" + at
		} else {
			_, port, _ = net.SplitHostPort(at)
		}
		addresses = append(addresses, at)
	}
	name := regexp.MustCompile(`(?m)^FileDescriptorName=(.*)$`).FindStringSubmatch(unit)[1]
	names := strings.TrimSuffix(strings.Repeat(name+":", len(files)), ":")
	for _, listen := range []string{"fd:" + name, fmt.Sprintf("[%s, %q]", port, addresses[len(addresses)-1])} {
		d := startCommand(t, handed(t, prepare(t, several("web", "listen: "+listen+", builtin: greeting")), names, files...))
		compareLists(t, "sockets", d.addresses("web"), addresses)
		for _, at := range []string{"127.0.0.1:" + port, "[::1]:" + port, addresses[len(addresses)-1]} {
			if _, out, _ := finished(t, superd("connect", at)); out != "hi client" {
				t.Errorf("by %s, %s says %q", listen, at, out)
			}
		}
		d.settled()
		d.ends()
	}
}

// testInstall: a configuration is never overwritten nor removed.
func (c *checkout) testInstall(t *testing.T) {
	dest := t.TempDir()
	install := c.make + " DESTDIR=" + dest + " PREFIX=/usr SYSCONFDIR=/etc"
	c.run(t, install+" install")
	installed := []string{
		"etc/superd/superd.yaml", "usr/lib/systemd/system/superd.service", "usr/sbin/superd",
		"usr/share/man/man5/superd.yaml.5", "usr/share/man/man7/superd-program.7",
		"usr/share/man/man8/superd-services.8", "usr/share/man/man8/superd.8",
	}
	compareLists(t, "installed files", filesBelow(t, dest), installed)
	if out := c.run(t, dest+"/usr/sbin/superd version"); !strings.Contains(out, version) {
		t.Errorf("the installed superd says %q", out)
	}
	if unit := c.run(t, "cat "+dest+"/usr/lib/systemd/system/superd.service"); !strings.Contains(unit, "ExecStart=/usr/sbin/superd run\n") {
		t.Errorf("the installed unit is\n%s", unit)
	}
	own := filepath.Join(dest, "etc/superd/superd.yaml")
	if err := os.WriteFile(own, []byte("# mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.run(t, install+" install")
	c.run(t, install+" uninstall")
	if text, err := os.ReadFile(own); string(text) != "# mine\n" {
		t.Errorf("the administrator's file is now %q, %v", text, err)
	}
	compareLists(t, "files that uninstall leaves", filesBelow(t, dest), installed[:1])
}

func filesBelow(t *testing.T, dir string) (names []string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	})
	return names
}
