package config

import (
	"reflect"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestWrite(t *testing.T) {
	d := Draft{{Key: "services", Comment: []string{"two lines", "of comment\nin one"}, Value: Draft{
		{Key: "echo", Comment: []string{"", "inetd.conf:3"}, Value: Draft{
			{Key: "listen", Value: []any{"7", "[::1]:8", Draft{{Key: "address", Value: "unix:/run/x"}, {Key: "mode", Value: Quoted("0666")}}}},
			{Key: "run", Value: []string{"/bin/sh", "-c", "echo \"hi\"; sleep 1", "--", "null", "", "-x", "a:b", "a:", "x, y", "é"}},
			{Key: "max", Value: 5},
			{Key: "enabled", Value: false},
			{Key: "env", Value: Draft{{Key: "A", Value: strings.Repeat("x", widest)}, {Key: "B", Value: "true"}}},
			{Key: "timeout", Value: Draft{{Key: "idle", Value: "10s"}}},
			{Key: "groups", Value: []string{}},
		}},
	}}}
	const want = `# two lines
# of comment` + "\uFFFD" + `in one
services:

  # inetd.conf:3
  echo:
    listen: [7, "[::1]:8", {address: unix:/run/x, mode: "0666"}]
    run: [/bin/sh, -c, "echo \"hi\"; sleep 1", "--", "null", "", -x, a:b, "a:", "x, y", "é"]
    max: 5
    enabled: false
    env:
      A: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
      B: "true"
    timeout: {idle: 10s}
    groups: []
`
	if got := string(Write(d)); got != want {
		t.Errorf("written is\n%s\nand not\n%s", got, want)
	}
	if _, err := Parse("f", Write(d), fakeSystem{}); err != nil {
		t.Error(err)
	}
}

// FuzzWrite: YAML reads any text as it was, wherever it stands.
func FuzzWrite(f *testing.F) {
	for _, seed := range []string{
		"", " ", "a", "-", "--", "---", "-x", "- x", "? x", ": x", "a: b", "a #b", "#", "@/x", "%x", "*:7", "&a", "!x", "|", ">", "'", "\"", "\\", "~", "null", "Null",
		"[x]", "{x}", "a,b", "a]", "a\nb", "\r", "\t", "\x00", "\x01", "\x7f", "\u0085", "\u2028", "\ufeff", "\U0001F600", "\xff", "<<", "=", "0x1F", "1_0", "1:30", "a:",
		"...", "....", "`", "2001-01-01", ".inf", "x ", "é", "\U0010ffff", strings.Repeat("x", 2000),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 100 {
			text = text[:100] // YAML wants a key within 1024 characters, with its escapes
		}
		text = strings.ToValidUTF8(text, "\uFFFD")
		d := Draft{{Key: "top", Comment: []string{text}, Value: Draft{
			{Key: text, Value: text, Comment: []string{text}},
			{Key: "in" + text, Value: Draft{{Key: text, Value: []string{text, text}}, {Key: "q" + text, Value: Quoted(text)}}},
			{Key: "list", Value: []any{text, Draft{{Key: text, Value: text}}, strings.Repeat("long ", 30)}},
		}}}
		if text == "list" {
			return
		}
		want := map[string]any{"top": map[string]any{
			text:        text,
			"in" + text: map[string]any{text: []any{text, text}, "q" + text: text},
			"list":      []any{text, map[string]any{text: text}, strings.Repeat("long ", 30)},
		}}
		var n yaml.Node
		if err := yaml.Unmarshal(Write(d), &n); err != nil {
			t.Fatalf("%q: %v\n%s", text, err, Write(d))
		}
		if got := texts(&n); !reflect.DeepEqual(got, want) {
			t.Errorf("%q is read as %q\n%s", text, got, Write(d))
		}
		if !newDecoder("f", fakeSystem{}).readable(Write(d)) {
			t.Errorf("%q is not readable:\n%s", text, Write(d))
		}
	})
}

// texts is a document with all its scalars as they are written.
func texts(n *yaml.Node) any {
	switch n.Kind {
	case yaml.DocumentNode:
		return texts(n.Content[0])
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			m[n.Content[i].Value] = texts(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, texts(item))
		}
		return list
	}
	if n.ShortTag() == "!!null" {
		return nil
	}
	return n.Value
}
