package config

import (
	"fmt"
	"strings"
	"testing"
)

// nestedAnchors is a file of about size bytes that stands for 2 to the power
// of its lines.
func nestedAnchors(size int) string {
	var b strings.Builder
	b.WriteString("services: &a0 {listen: 7}\n")
	for i := 1; b.Len() < size; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d, *a%d]\n", i, i, i-1, i-1)
	}
	return b.String()
}

// TestHostileFiles has no clock: the test's own timeout is the guard, which a
// decoder that follows aliases or nesting blindly runs into.
func TestHostileFiles(t *testing.T) {
	const size = 1 << 18
	for name, test := range map[string]struct{ text, want string }{
		"nested anchors":   {nestedAnchors(1 << 20), "aliases stand for more than 100000 values"},
		"wide aliases":     {"a: &a [" + strings.Repeat("1, ", 50_000) + "]\nb: [*a, *a, *a]\n", "aliases stand for more than 100000 values"},
		"deep lists":       {strings.Repeat("[", size), "nested more than 64 deep"},
		"deep mappings":    {strings.Repeat("{a: ", size/4), "nested more than 64 deep"},
		"deep dashes":      {strings.Repeat("- ", size/2), "nested more than 64 deep"},
		"deep anchors":     {strings.Repeat("[&a ", size/4), "nested more than 64 deep"},
		"deep indentation": {deepIndentation(size), "nested more than 64 deep"},
		"directives":       {strings.Repeat("%TAG !a! b\n", size/10), "YAML directives are not accepted"},
		"open bracket":     {"a: [\n" + strings.Repeat("x,\n", size/3), "ends inside brackets"},
		"late directives":  {"a: b\n...\n" + strings.Repeat("%TAG !a! b\n", size/10), "YAML directives are not accepted"},
		"open quote":       {"a: \"\n" + strings.Repeat("x\n", size/2), "does not end"},
		"comments":         {strings.Repeat("# x\n", size/4), "only comments"},
		"unknown keys":     {manyKeys(size), "and "},
		"too large":        {strings.Repeat("# x\n", 3<<20), "larger than 8 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := problemsOf(t, test.text); !strings.Contains(got, test.want) {
				t.Errorf("got %.200s\nwant %s", got, test.want)
			}
		})
	}
}

func deepIndentation(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func manyKeys(size int) string {
	var b strings.Builder
	b.WriteString("services:\n  a:\n")
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "    lis%d: 1\n", i)
	}
	return b.String()
}

func TestLongValues(t *testing.T) {
	long := strings.Repeat("x", longestText)
	many := strings.Repeat("g, ", longestList)
	parse(t, with("services.*.description", long))
	for name, test := range map[string]struct{ path, value, want string }{
		"text":     {"services.*.description", long + "x", "services.echo.description: is longer than 131071 bytes"},
		"argument": {"services.*.run", "[/bin/cat, " + long + "x]", "services.echo.run[1]: is longer than 131071 bytes"},
		"list":     {"services.*.groups", "[" + many + "g]", "services.echo.groups: has more than 10000 items"},
		"name":     {"services.*." + long[:300], "1", "services.echo.\"xxx"},
	} {
		if got := problemsOf(t, with(test.path, test.value)); !strings.Contains(got, test.want) || len(got) > 1000 {
			t.Errorf("%s: got %.200s\nwant %s", name, got, test.want)
		}
	}
}
