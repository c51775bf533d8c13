package config

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestKeysAreDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Keys() {
		switch parent, _ := cutLast(k.Path); {
		case seen[k.Path]:
			t.Errorf("%s is there twice", k.Path)
		case k.Doc == "" || k.Accepts() == "" || strings.Contains(k.Doc, "\n"):
			t.Errorf("%s lacks words", k.Path)
		case parent != "" && !seen[parent]:
			t.Errorf("%s comes before %s", k.Path, parent)
		case k.Kind == Word && k.Default != "" && !slices.Contains(k.Words, k.Default):
			t.Errorf("%s has a default that it does not accept", k.Path)
		case k.Default != "" && index.defaults[k.Path] == nil:
			t.Errorf("%s has an unreadable default", k.Path)
		}
		seen[k.Path] = true
	}
}

func TestKeysIsACopy(t *testing.T) {
	Keys()[0].Path = "changed"
	if table[0].Path == "changed" {
		t.Error("a caller can change the table")
	}
}

// with is a good file in which the key at path has the value.
func with(path, value string) string {
	path = strings.Replace(path, "rlimits.*", "rlimits.nofile", 1)
	if path == "services.*.proxy_protocol.timeout" {
		path, value = "services.*.proxy_protocol", "{from: [10.0.0.1], timeout: "+value+"}"
	}
	names := strings.Split(strings.ReplaceAll(path, "*", "echo"), ".")
	if names[0] != "services" {
		return "{" + nested(names, value) + ", services: {echo: {listen: 0, builtin: echo}}}"
	}
	rest := names[2:]
	fill := "builtin: echo, listen: 0"
	switch rest[0] {
	case "listen":
		fill = "builtin: echo"
		if len(rest) > 1 && rest[1] != "address" {
			address := "0"
			if slices.Contains([]string{"type", "mode", "owner", "group"}, rest[1]) {
				address = "unix:/run/echo"
			}
			return "services: {echo: {builtin: echo, listen: {address: " + address + ", " + nested(rest[1:], value) + "}}}"
		}
	case "run", "argv0":
		fill = "run: /bin/cat, listen: 0"
	case "wait":
		if value != "false" {
			fill = "run: /bin/cat, listen: 0"
		}
	case "allow", "deny":
		if len(rest) > 1 && rest[1] != "from" {
			value = "10.0.0.1, " + nested(rest[1:], value)
			rest = append(rest[:1], "from")
		}
		if len(rest) > 1 {
			rest, value = rest[:1], "[{from: "+value+"}]"
		}
	case "cgroup":
		if len(rest) > 1 && rest[1] != "memory" {
			return "services: {echo: {cgroup: {memory: 64M, " + nested(rest[1:], value) + "}, builtin: echo, listen: 0}}"
		}
	case "builtin", "text":
		fill = "listen: 0"
	}
	return "services: {echo: {" + nested(rest, value) + ", " + fill + "}}"
}

func nested(names []string, value string) string {
	return strings.Join(names, ": {") + ": " + value + strings.Repeat("}", len(names)-1)
}

// present are mappings whose very presence says something, as they are with
// defaults only.
var present = map[string]string{
	"services.*.cgroup":         "{memory: 64M}",
	"services.*.queue":          "{}",
	"services.*.ban":            "{}",
	"services.*.proxy_protocol": "{from: [10.0.0.1]}",
	"services.*.failures":       "{}",
}

// TestDefaultsCanBeWritten writes each default out, which changes nothing.
func TestDefaultsCanBeWritten(t *testing.T) {
	unwritten := parse(t, "services: {echo: {listen: 0, builtin: echo}}")
	for _, k := range Keys() {
		if k.Default == "" {
			continue
		}
		got, unwritten := parse(t, with(k.Path, k.Default)), unwritten
		if parent, _ := cutLast(k.Path); present[parent] != "" {
			unwritten = parse(t, with(parent, present[parent]))
		}
		if k.Path == "services.*.listen.mode" || k.Path == "services.*.listen.type" {
			unwritten = parse(t, "services: {echo: {listen: unix:/run/echo, builtin: echo}}")
		}
		for i, s := range got.Services {
			equal(t, bareListen(s), bareListen(unwritten.Services[i]))
		}
		equal(t, []any{got.Log, got.Limits, got.Drain}, []any{unwritten.Log, unwritten.Limits, unwritten.Drain})
	}
}

// bareListen leaves out the path too, which a listen mapping makes longer.
func bareListen(s *Service) Service {
	b := bare(s)
	for i := range b.Listen {
		b.Listen[i].Path = ""
	}
	return b
}

// TestEveryKeyIsLookedInto uses each key with a value that no key accepts.
func TestEveryKeyIsLookedInto(t *testing.T) {
	for _, k := range Keys() {
		if k.Path == "services" || k.Path == "services.*" {
			continue
		}
		if got := problemsOf(t, with(k.Path, `[[""]]`)); strings.Contains(got, "unknown key") {
			t.Errorf("%s: %s", k.Path, got)
		}
	}
}

// TestWordsAreAccepted tries each word that the table lists.
func TestWordsAreAccepted(t *testing.T) {
	for _, k := range Keys() {
		for _, word := range k.Words {
			if k.Kind == List {
				word = "[" + word + "]"
			}
			parse(t, with(k.Path, word))
		}
	}
}

// TestBoundsAreAccepted tries the least and the most that the table lists, and
// one step further. A size's bounds have no such step.
func TestBoundsAreAccepted(t *testing.T) {
	written := map[Kind]func(n int) string{
		Integer: strconv.Itoa,
		Seconds: func(n int) string { return strconv.Itoa(n) + "s" },
		Percent: func(n int) string { return strconv.Itoa(n) + "%" },
		Size:    func(n int) string { return sizeText(uint64(n)) },
	}
	for _, k := range Keys() {
		kind := k.Kind
		if kind == Limit {
			kind = k.Of
		}
		write := written[kind]
		if write == nil {
			continue
		}
		for _, n := range []int{k.Min, max(k.Min, k.Max)} {
			parse(t, with(k.Path, write(n)))
		}
		if kind == Size {
			continue
		}
		for _, n := range []int{k.Min - 1, k.Max + 1} {
			text := with(k.Path, write(n))
			if got := problemsOf(t, text); !strings.Contains(got, "must be "+k.Accepts()) {
				t.Errorf("%s: %s", text, got)
			}
		}
	}
}

func TestNearest(t *testing.T) {
	candidates := []string{"listen", "linger", "max", "max_per_source", "run", "env", "dir"}
	for name, want := range map[string]string{
		"lisen": "listen", "ilsten": "listen", "LISTEN": "listen", "listens": "listen",
		"max-per-source": "max_per_source", "mx": "", "mas": "max", "rnu": "run",
		"wall": "", "x": "", "": "", "lemon": "",
	} {
		if got := nearest(name, candidates); got != want {
			t.Errorf("nearest to %q is %q, want %q", name, got, want)
		}
	}
}
