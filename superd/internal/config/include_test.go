package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A tree is a System with files of its own. A text that is an error's is that
// error, for a path that ends in / that of a directory.
type tree struct {
	fakeSystem
	files map[string]string
}

var treeErrors = map[string]error{"EACCES": syscall.EACCES, "EIO": syscall.EIO, "directory": errDirectory}

func (t tree) ReadFile(path string, most int64) ([]byte, error) {
	text, is := t.files[path]
	switch err := treeErrors[text]; {
	case !is:
		return nil, fs.ErrNotExist
	case err != nil:
		return nil, err
	}
	return []byte(text[:min(len(text), int(most)+1)]), nil
}

func (t tree) ReadDir(dir string) (names []string, err error) {
	dir = strings.TrimPrefix(dir+"/", "./")
	if err := treeErrors[t.files[dir]]; err != nil {
		return nil, err
	}
	_, is := t.files[dir]
	is = is || dir == "etc/"
	for path := range t.files {
		if rest, below := strings.CutPrefix(path, dir); below && rest != "" {
			name, _, _ := strings.Cut(rest, "/")
			names, is = append(names, name), true
		}
	}
	if _, file := t.files[strings.TrimSuffix(dir, "/")]; file {
		return nil, syscall.ENOTDIR
	}
	if !is {
		return nil, fs.ErrNotExist
	}
	slices.Sort(names)
	names = slices.Compact(names)
	slices.Reverse(names) // no directory has an order
	return names, nil
}

// one is a file with one service.
func one(name, keys string) string { return "services: {" + name + ": {" + keys + "}}\n" }

const some = "listen: 0, builtin: echo"

func parseTree(main string, files map[string]string) (*Config, error) {
	return Parse("etc/main.yaml", []byte(main), tree{files: files})
}

func TestInclude(t *testing.T) {
	for name, test := range map[string]struct {
		include string
		files   map[string]string
		want    string // what is read, in that order
	}{
		"the order of bytes": {"[conf.d/*.yaml]", map[string]string{
			"etc/conf.d/b.yaml": one("b", some), "etc/conf.d/a.yaml": one("a", some), "etc/conf.d/B.yaml": one("B", some), "etc/conf.d/10.yaml": one("ten", some),
			"etc/conf.d/9.yaml": one("nine", some), "etc/conf.d/é.yaml": one("e", some)}, "10 9 B a b é"},
		"the order of patterns": {"[b*, a*]", map[string]string{"etc/a.yaml": one("a", some), "etc/b.yaml": one("b", some)}, "b a"},
		"what editors and packages leave": {"[conf.d/*.yaml]", map[string]string{
			"etc/conf.d/a.yaml": one("a", some), "etc/conf.d/.a.yaml": "x", "etc/conf.d/a.yaml~": "x", "etc/conf.d/a.yaml.rpmsave": "x", "etc/conf.d/a.yaml.dpkg-old": "x"}, "a"},
		"hidden ones of all":     {"[conf.d/*]", map[string]string{"etc/conf.d/a.yaml": one("a", some), "etc/conf.d/.b.yaml": "x", "etc/conf.d/a.yaml~": "x"}, "a"},
		"a hidden one by name":   {"[.a.yaml]", map[string]string{"etc/.a.yaml": one("a", some)}, ".a"},
		"twice":                  {"[conf.d/a.yaml, conf.d/*.yaml, ./conf.d//a.yaml]", map[string]string{"etc/conf.d/a.yaml": one("a", some), "etc/conf.d/b.yaml": one("b", some)}, "a b"},
		"itself":                 {`["*.yaml"]`, map[string]string{"etc/main.yaml": "x", "etc/z.yaml": one("z", some)}, "z"},
		"absolute":               {"[/srv/*/x.yaml]", map[string]string{"/srv/b/x.yaml": one("b", some), "/srv/a/x.yaml": one("a", some), "/srv/c/y.yaml": "x", "/srv/f": "x"}, "x x"},
		"above":                  {"['../more/?.yaml']", map[string]string{"more/a.yaml": one("a", some), "more/bb.yaml": "x"}, "a"},
		"several directories":    {"['*.d/[ab].yaml']", map[string]string{"etc/2.d/a.yaml": one("a", some), "etc/1.d/b.yaml": one("b", some), "etc/1.d/c.yaml": "x", "etc/.d/a.yaml": "x"}, "b a"},
		"an empty directory":     {"[conf.d/*.yaml]", map[string]string{"etc/conf.d/": ""}, ""},
		"nothing of that name":   {"[conf.d/*.yaml]", map[string]string{"etc/conf.d/README": ""}, ""},
		"a guess":                {"['*/x.yaml']", map[string]string{"etc/a/y.yaml": "x", "etc/f": "x"}, ""},
		"a file without content": {"[a.yaml, b.yaml, c.yaml, d.yaml]", map[string]string{"etc/a.yaml": "", "etc/b.yaml": "# later\n", "etc/c.yaml": "---\n", "etc/d.yaml": "services: {}"}, "a b c d"},
	} {
		c, err := parseTree("include: "+test.include+"\n"+one("own", some), test.files)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var read []string
		for _, in := range c.Files.Included {
			read = append(read, strings.TrimSuffix(filepath.Base(in.Path), ".yaml"))
		}
		if got := strings.Join(read, " "); got != test.want {
			t.Errorf("%s: %q is read, not %q", name, got, test.want)
		}
		if len(c.Warnings) > 0 {
			t.Errorf("%s: %v", name, c.Warnings)
		}
	}
}

// TestIncludedServices: they are as if the main file had them, but for their places.
func TestIncludedServices(t *testing.T) {
	c, err := parseTree("include: [b.yaml, a.yaml]\n"+one("own", some), map[string]string{
		"etc/a.yaml": "# a\n" + one("a", "listen: 0, builtin: echo, max: 7"), "etc/b.yaml": one("b", some)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range c.Services {
		got = append(got, s.Name+" "+s.Where("").String())
	}
	equal(t, got, []string{"own etc/main.yaml:2:12", "b etc/b.yaml:1:12", "a etc/a.yaml:2:12"})
	equal(t, c.Services[2].Problem("max", "is wrong", "").Error(), "etc/a.yaml:2:47: services.a.max: is wrong")
	alone, err := parseTree("include: [a.yaml]", map[string]string{"etc/a.yaml": one("a", some)})
	if err != nil || len(alone.Services) != 1 {
		t.Error("a main file without services does not load: ", err)
	}
}

func TestBadIncludes(t *testing.T) {
	many := map[string]string{}
	for i := range mostIncluded + 1 {
		many[fmt.Sprintf("etc/d/%04d.yaml", i)] = ""
		many[fmt.Sprintf("etc/e/%04d.yaml", i%mostIncluded)] = ""
	}
	own := one("own", some)
	for name, test := range map[string]struct {
		main  string
		files map[string]string
		want  string
	}{
		"a missing file":         {"include: [a.yaml]\n" + own, nil, "etc/main.yaml:1:11: include[0]: cannot read etc/a.yaml: file does not exist"},
		"a missing directory":    {"include: ['*.yaml', conf.d/*.yaml]\n" + own, nil, "etc/main.yaml:1:21: include[1]: cannot read etc/conf.d: file does not exist (create it: it may be empty)"},
		"a closed directory":     {"include: [conf.d/*.yaml]\n" + own, map[string]string{"etc/conf.d/": "EACCES"}, "etc/main.yaml:1:11: include[0]: cannot read etc/conf.d: permission denied"},
		"a closed guess":         {"include: ['*/*.yaml']\n" + own, map[string]string{"etc/a/": "EACCES"}, "etc/main.yaml:1:11: include[0]: cannot read etc/a: permission denied"},
		"a closed file":          {"include: [conf.d/*.yaml]\n" + own, map[string]string{"etc/conf.d/a.yaml": "EACCES"}, "etc/main.yaml:1:11: include[0]: cannot read etc/conf.d/a.yaml: permission denied"},
		"a link that leads away": {"include: ['*.yaml']\n" + own, map[string]string{"etc/a.yaml": "EIO"}, "etc/main.yaml:1:11: include[0]: cannot read etc/a.yaml: input/output error"},
		"a directory":            {"include: [conf.d]\n" + own, map[string]string{"etc/conf.d": "directory"}, "etc/main.yaml:1:11: include[0]: cannot read etc/conf.d: it is a directory (write etc/conf.d/*.yaml)"},
		"no list":                {"include: a.yaml\n" + own, nil, "etc/main.yaml:1:10: include: must be a list of file patterns, not \"a.yaml\" (write [a.yaml])"},
		"an empty list":          {"include: []\n" + own, nil, "etc/main.yaml:1:10: include: is empty (leave it out)"},
		"an empty pattern":       {"include: ['']\n" + own, nil, "etc/main.yaml:1:11: include[0]: is empty"},
		"no text":                {"include: [[a]]\n" + own, nil, "etc/main.yaml:1:11: include[0]: must be a text, not a list"},
		"no pattern":             {"include: ['[a.yaml']\n" + own, nil, `etc/main.yaml:1:11: include[0]: "[a.yaml" is not a pattern (close the [, or write \[)`},
		"braces":                 {"include: ['*.{yaml,yml}']\n" + own, nil, `etc/main.yaml:1:11: include[0]: "*.{yaml,yml}" has braces, which no pattern knows (write a pattern for each, or [ and ])`},
		"a strange name":         {"include: ['*.yaml']\n" + own, map[string]string{"etc/a\nb.yaml": ""}, `etc/main.yaml:1:11: include[0]: the file "etc/a\nb.yaml" has a control character in its name (rename it)`},
		"too many names":         {"include: [d/*.yaml]\n" + own, many, `etc/main.yaml:1:11: include[0]: "*.yaml" stands for more than 1000 names`},
		"too many files":         {"include: [e/*.yaml, d/0001.yaml]\n" + own, many, `etc/main.yaml:1:21: include[1]: more than 1000 files are included`},
		"too much": {"include: [a.yaml, b.yaml, c.yaml]\n" + own, map[string]string{"etc/a.yaml": strings.Repeat("\x00", 6<<20), "etc/b.yaml": strings.Repeat("\x00", 2<<20), "etc/c.yaml": "x"},
			"etc/main.yaml:1:19: include[1]: with etc/b.yaml the files are larger than 8 MiB together\n" +
				"etc/a.yaml:1:1: the file holds a NUL byte (is it a text file?)"},
		"no service anywhere":   {"include: [a.yaml]\n", map[string]string{"etc/a.yaml": ""}, "etc/main.yaml:1:1: services: missing, here and in what is included (name at least one service)"},
		"only empty services":   {"services: {}\ninclude: [a.yaml]\n", map[string]string{"etc/a.yaml": "services: {}"}, "etc/main.yaml:1:1: services: missing, here and in what is included (name at least one service)"},
		"no services, a broken": {"include: [a.yaml]\n", map[string]string{"etc/a.yaml": "x"}, `etc/a.yaml:1:1: the file must be a mapping, not "x"`},
		"what is the main file's": {"include: [a.yaml]\n" + own, map[string]string{"etc/a.yaml": "log: {level: debug}\ninclude: [b.yaml]\ndefaults: {max: 1}\nservice: {}\nweb: {listen: 80}"},
			"etc/a.yaml:1:1: log: belongs to the main file (an included one holds services)\n" +
				"etc/a.yaml:2:1: include: belongs to the main file (an included one holds services)\n" +
				"etc/a.yaml:3:1: defaults: belongs to the main file (an included one holds services)\n" +
				"etc/a.yaml:4:1: service: unknown key (did you mean services?)\n" +
				"etc/a.yaml:5:1: web: unknown key (an included file holds services)"},
		"a name twice": {"include: ['*.yaml']\n" + own, map[string]string{"etc/a.yaml": one("own", some), "etc/b.yaml": one("b", some), "etc/c.yaml": "\n" + one("b", some)},
			"etc/a.yaml:1:12: services.own: repeated, already at etc/main.yaml:2\netc/c.yaml:2:12: services.b: repeated, already at etc/b.yaml:1"},
		"an address twice": {"include: ['*.yaml']\n" + one("own", "listen: 7, builtin: echo"), map[string]string{"etc/a.yaml": one("a", "listen: [8, 8], builtin: echo"), "etc/b.yaml": one("b", "listen: '127.0.0.1:7', builtin: echo")},
			"etc/a.yaml:1:28: services.a.listen[1]: 8 clashes with 8 on line 1\netc/b.yaml:1:24: services.b.listen: 127.0.0.1:7 clashes with 7 of service own at etc/main.yaml:2"},
		"a name by tcpmux twice": {"include: ['*.yaml']\n" + one("mux", "listen: 1, builtin: tcpmux"), map[string]string{"etc/a.yaml": one("a", "tcpmux: true, builtin: echo"), "etc/b.yaml": one("A", "tcpmux: true, builtin: echo")},
			"etc/b.yaml:1:24: services.A.tcpmux: its clients cannot tell it from a at etc/a.yaml:1: tcpmux takes capital and small letters for the same (give it another name)"},
		"all of all, in the order of reading": {"drain: 5\ninclude: [z.yaml, y.yaml, a.yaml]\n" + one("own", "listen: 0"), map[string]string{
			"etc/z.yaml": "services: [", "etc/y.yaml": one("y", "lisen: 0") + "a: \xff", "etc/a.yaml": "services:\n  a: {listen: x/y, max: 0}\n  b: {builtin: ecko}"},
			"etc/main.yaml:1:8: drain: must be a duration such as 10s, 500ms or 1h30m, not \"5\" (write 5s)\n" +
				"etc/main.yaml:3:12: services.own: runs nothing (add run: /path/to/program or builtin: echo)\n" +
				"etc/z.yaml:1:11: the file ends inside brackets (close them)\n" +
				"etc/y.yaml:2:4: the file is not UTF-8\n" +
				"etc/a.yaml:2:3: services.a: runs nothing (add run: /path/to/program or builtin: echo)\n" +
				"etc/a.yaml:2:15: services.a.listen: \"x/y\" is neither a port number nor a service name (write PORT, HOST:PORT or \"[IPV6]:PORT\")\n" +
				"etc/a.yaml:2:25: services.a.max: must be a whole number from 1 to 4194304, not \"0\" (leave it out, or say enabled: false)\n" +
				"etc/a.yaml:3:3: services.b: listens on nothing (add listen: PORT)\n" +
				"etc/a.yaml:3:16: services.b.builtin: must be echo, greeting, discard, chargen, daytime, time, qotd or tcpmux, not \"ecko\" (did you mean echo?)"},
		"aliases of all files": {"a: &a [" + strings.Repeat("1, ", 60_000) + "]\nb: *a\ninclude: [a.yaml]", map[string]string{"etc/a.yaml": "a: &a [" + strings.Repeat("1, ", 60_000) + "]\nb: *a\n"},
			"etc/main.yaml:1:1: a: unknown key (accepted: include, log, control, http, limits, drain, defaults, services)\n" +
				"etc/main.yaml:2:1: b: unknown key (accepted: include, log, control, http, limits, drain, defaults, services)\n" +
				"etc/a.yaml:2:4: aliases stand for more than 100000 values (write the values out)"},
	} {
		if _, err := parseTree(test.main, test.files); err == nil || err.Error() != test.want {
			t.Errorf("%s: got\n%v\nwant\n%s", name, err, test.want)
		}
	}
}

// TestFilesAreReadOnce: what was read is what is parsed, however often, and
// whatever has become of the files.
func TestFilesAreReadOnce(t *testing.T) {
	dir := t.TempDir()
	main, more := filepath.Join(dir, "superd.yaml"), filepath.Join(dir, "more.yaml")
	write(t, main, "include: ['m*.yaml', gone.yaml]\n")
	write(t, more, one("a", some))
	f, err := Read(main, Machine)
	if err != nil {
		t.Fatal(err)
	}
	want := main + ":1:22: include[1]: cannot read " + dir + "/gone.yaml: no such file or directory"
	os.Remove(more)
	write(t, filepath.Join(dir, "gone.yaml"), one("b", some))
	if _, err := f.Parse(Machine); err == nil || err.Error() != want {
		t.Errorf("it says %v", err)
	}
	if f, err = Read(main, Machine); err != nil {
		t.Fatal(err)
	}
	again, err := Read(main, Machine)
	if err != nil || !f.Same(again) {
		t.Error("the same files are not the same: ", err)
	}
	os.Remove(filepath.Join(dir, "gone.yaml"))
	c, err := f.Parse(nil)
	if err != nil || len(c.Services) != 1 || !c.Files.Same(f) {
		t.Errorf("it is %+v, %v", c, err)
	}
	write(t, filepath.Join(dir, "gone.yaml"), one("c", some))
	if again, err = Read(main, Machine); err != nil || f.Same(again) {
		t.Error("other files are the same: ", err)
	}
	// Whoever knows of no included files leaves them to be read.
	c, err = (&Files{Path: main, Text: f.Text}).Parse(Machine)
	if err != nil || len(c.Services) != 1 || c.Services[0].Name != "c" {
		t.Errorf("it is %+v, %v", c, err)
	}
}

// TestIncludesOfAMachine: what no tree of a test has.
func TestIncludesOfAMachine(t *testing.T) {
	dir := t.TempDir()
	main := filepath.Join(dir, "superd.yaml")
	write(t, main, "include: [conf.d/*]\n"+one("a", some))
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(main, Machine); err != nil {
		t.Error(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "conf.d/pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "conf.d/link")); err != nil {
		t.Fatal(err)
	}
	_, err := Load(main, Machine)
	want := fmt.Sprintf("%[1]s:1:11: include[0]: cannot read %[2]s/conf.d/link: no such file or directory\n%[1]s:1:11: include[0]: cannot read %[2]s/conf.d/pipe: it is not a regular file", main, dir)
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	// Who only wants to ask superd is not held up.
	if _, err := LoadControl(main); err != nil {
		t.Error(err)
	}
}

// FuzzInclude wants an end, and files in the order of their bytes, for every
// pattern.
func FuzzInclude(f *testing.F) {
	for _, seed := range []string{"*.yaml", "/*/*", "a/../b", "[a-", `\*`, "", "/", "*/", "**", "{a,b}", "é/?", "./.*", "conf.d/*.yaml"} {
		f.Add(seed)
	}
	files := tree{files: map[string]string{"etc/a.yaml": one("a", some), "etc/conf.d/b.yaml": one("b", some), "etc/conf.d/.c.yaml": "x", "/etc/d.yaml": one("d", some)}}
	f.Fuzz(func(t *testing.T, pattern string) {
		if checkPattern(pattern) != nil {
			return
		}
		r := &Files{Path: "etc/main.yaml"}
		r.follow([]string{pattern, pattern}, files)
		var names []string
		for _, in := range r.Included {
			if (in.Path == "") == (in.Fault == "") {
				t.Errorf("impossible: %+v", in)
			}
			if in.Path != "" {
				names = append(names, in.Path)
			}
		}
		if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Errorf("%q: %q", pattern, names)
		}
	})
}
