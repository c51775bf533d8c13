package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseRules(t *testing.T) {
	const text = "\ufeff# the office\n10.0.0.0/8\t# all of it\r\n\n  192.0.2.1  \n1.2.3.4/33\n10.1.2.3/16\n10.0.0.0/8, 11.0.0.0/8\n@/etc/more\nuid:alice"
	f := ParseRules("office", []byte(text))
	var got []string
	for _, r := range f.Rules {
		got = append(got, fmt.Sprintf("%s %q %s", r.Spec, r.Text, r.At))
	}
	equal(t, strings.Join(got, "\n"), strings.TrimSpace(`
10.0.0.0/8 "" office:2:1
192.0.2.1 "" office:4:3
10.1.0.0/16 "10.1.2.3/16" office:6:1
uid:alice "" office:9:1`))
	equal(t, Problems(f.Warnings).Error(), `office:6:1: "10.1.2.3/16" has bits beyond its network (write 10.1.0.0/16)`)
	equal(t, Problems(f.Problems).Error(), strings.TrimSpace(`
office:5:1: in "1.2.3.4/33", the length 33 is more than 32
office:7:1: "10.0.0.0/8, 11.0.0.0/8" is more than one rule (write each on a line or in quotes of its own)
office:8:1: a file of rules cannot name another one (name it in the list itself)`))
}

// TestRuleFileIsBounded: what one file can bring about in messages and memory.
func TestRuleFileIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		text                      string
		rules, warnings, problems int
		last                      string
	}{
		"a long line":       {strings.Repeat("1", longestLine+1), 0, 0, 1, "f:1:1: the line has more than 1000 bytes"},
		"wrong lines":       {strings.Repeat("x\n", 1000), 0, 0, mostWrong + 1, "f:101:1: the rest of the file is not looked at"},
		"unmasked":          {strings.Repeat("10.1.2.3/8\n", 1000), 1000, mostWarned + 1, 0, "f:1000:1: 990 more addresses have bits beyond their network"},
		"too many":          {strings.Repeat("::\n", mostRules+1), mostRules, 0, 1, "f:250001:1: a file has at most 250000 rules (take wider networks, or several files)"},
		"as many as can be": {strings.Repeat("::\n", mostRules), mostRules, 0, 0, ""},
	} {
		f := ParseRules("f", []byte(test.text))
		equal(t, []int{len(f.Rules), len(f.Warnings), len(f.Problems)}, []int{test.rules, test.warnings, test.problems})
		if all := append(f.Problems, f.Warnings...); test.last != "" && all[len(all)-1].Error() != test.last {
			t.Errorf("%s: %s", name, all[len(all)-1].Error())
		}
	}
}
