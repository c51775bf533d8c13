package spawn

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// An opening is a path that a confined program may use, and for what.
type opening struct {
	path     string
	access   uint64 // LANDLOCK_ACCESS_FS_*, of which a file takes what applies to files
	optional bool   // nothing is wrong where it does not exist
	key      string // of the file, where that lists it
}

// openings are all that the program of a confined service may open: what the
// file lists, and what a program needs to start. A built-in needs nothing.
func (p *Plan) openings() []opening {
	list := p.listed()
	if p.spec.Image != nil {
		return list
	}
	list = append(list, opened(p.starters(), executing)...)
	list = append(list, opened(loaders, executing)...)
	list = append(list, opened(libraries, reading)...)
	list = append(list, opened(texts, reading)...)
	list = append(list, opened(sinks, reading|unix.LANDLOCK_ACCESS_FS_WRITE_FILE)...)
	if dir := filepath.Clean(p.spec.Dir); dir != "/" { // the default, and no word about what the program reads
		list = append(list, opening{path: dir, access: reading, optional: true})
	}
	return list
}

// listed is what the file lists.
func (p *Plan) listed() []opening {
	s := &p.spec.Sandbox
	return slices.Concat(listed("sandbox.read", s.Read, reading), listed("sandbox.write", s.Write, writing), listed("sandbox.exec", s.Exec, executing))
}

// listed are the paths of a list in the file.
func listed(key string, paths []string, access uint64) (list []opening) {
	for i, path := range paths {
		list = append(list, opening{path: path, access: access, key: fmt.Sprintf("%s[%d]", key, i)})
	}
	return list
}

// opened are paths that are open unasked, as far as they exist.
func opened(paths []string, access uint64) (list []opening) {
	for _, path := range paths {
		list = append(list, opening{path: path, access: access, optional: true})
	}
	return list
}

// What dynamically linked programs need, from ld.so(8), and what C libraries
// open unasked. /proc is not among it: it shows what others run. Neither is a
// right to execute what lies in the libraries' directories: to map a library
// takes none (landlock(7)).
var (
	loaders = []string{
		"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1",
		"/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-aarch64.so.1",
	}
	libraries = []string{
		"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib",
		"/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ld-musl-x86_64.path", "/etc/ld-musl-aarch64.path",
	}
	texts = []string{"/usr/share/zoneinfo", "/etc/localtime", "/usr/share/locale", "/dev/urandom", "/dev/random"}
	sinks = []string{"/dev/null", "/dev/zero", "/dev/full"}
)

// starters are the files that execve(2) itself opens for the program and for
// the files in Exec: the file, the interpreters of a script, and the loader of
// each.
func (p *Plan) starters() (list []string) {
	t, err := openTree(p.spec.Chroot)
	if err != nil {
		return nil // whoever opens the list says so
	}
	defer t.close()
	for _, path := range append([]string{p.spec.Path}, p.spec.Sandbox.Exec...) {
		list = append(list, t.chain(path, p.spec.Env)...)
	}
	return list
}

// longestChain bounds what is followed: the kernel goes five interpreters deep
// (execve(2)).
const longestChain = 12

// chain is path, the interpreter that it names, that one's loader, and so on.
// What cannot be read ends it: the kernel will say what is wrong.
func (t tree) chain(path string, env []string) []string {
	list := []string{path}
	for i := 0; i < len(list) && i < longestChain; i++ {
		for _, path := range t.next(list[i], env) {
			if !slices.Contains(list, path) {
				list = append(list, path)
			}
		}
	}
	return list
}

// next is what is opened to start path: a script's interpreter, and what that
// one will start where it is env(1); a program's loader.
func (t tree) next(path string, env []string) []string {
	head, loader := t.inspect(path)
	if loader != "" {
		return []string{loader}
	}
	words := strings.Fields(strings.TrimPrefix(head, "#!"))
	if !strings.HasPrefix(head, "#!") || len(words) == 0 {
		return nil
	}
	if filepath.Base(words[0]) == "env" {
		return append(words[:1:1], t.search(words[1:], env)...)
	}
	return words[:1]
}

// longestHead is how much of a #! line the kernel reads.
const longestHead = 256

// inspect reads the first line of a file, and of an ELF program which loader
// it names.
func (t tree) inspect(path string) (head, loader string) {
	fd, err := t.open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return "", ""
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", ""
	}
	start := make([]byte, longestHead)
	n, _ := f.ReadAt(start, 0)
	head, _, _ = strings.Cut(string(start[:n]), "\n")
	return head, loaderOf(f)
}

// loaderOf is the path in PT_INTERP (elf(5)).
func loaderOf(f io.ReaderAt) string {
	program, err := elf.NewFile(f)
	if err != nil {
		return ""
	}
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP && segment.Filesz <= unix.PathMax {
			name := make([]byte, segment.Filesz)
			segment.ReadAt(name, 0)
			return string(bytes.TrimRight(name, "\x00"))
		}
	}
	return ""
}

// search finds what env(1) will start: the first word that is no option and no
// variable, along the PATH of the program's environment.
func (t tree) search(words, env []string) []string {
	for _, word := range words {
		if strings.HasPrefix(word, "-") || strings.Contains(word, "=") {
			continue
		}
		if strings.Contains(word, "/") {
			return []string{word}
		}
		for _, dir := range filepath.SplitList(valueOf("PATH", env)) {
			path := filepath.Join(dir, word)
			if fd, err := t.open(path, unix.O_PATH); err == nil {
				unix.Close(fd)
				return []string{path}
			}
		}
		break
	}
	return nil
}

func valueOf(name string, env []string) string {
	for _, variable := range env {
		if value, is := strings.CutPrefix(variable, name+"="); is {
			return value
		}
	}
	return ""
}
