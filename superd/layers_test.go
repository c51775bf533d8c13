package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// module is what the import paths of this repository begin with.
const module = "superd/"

// floors is the house, from the ground up: what a package of this repository
// may import of the others. A new package needs a line here, and so a place.
var floors = map[string][]string{
	"superd/etc":      {},
	"superd/services": {},

	"superd/superd/internal/config":       {},
	"superd/superd/internal/control":      {},
	"superd/superd/internal/event":        {},
	"superd/superd/internal/peer":         {},
	"superd/superd/internal/proxy":        {},
	"superd/superd/internal/tcpmux":       {},
	"superd/superd/internal/spawn/origin": {}, // of spawn alone; imports nothing at all

	"superd/superd/internal/listen": {"superd/superd/internal/config", "superd/superd/internal/peer"},
	"superd/superd/internal/admit":  {"superd/superd/internal/config"},
	"superd/superd/internal/spawn": {
		"superd/superd/internal/config", "superd/superd/internal/peer", "superd/superd/internal/spawn/origin",
	},

	"superd/superd/internal/lobby": {},

	"superd/superd/internal/migrate": {"superd/superd/internal/config"},

	"superd/superd/internal/conn": {"superd/superd/internal/spawn", "superd/superd/internal/event", "superd/superd/internal/peer"},

	"superd/superd": {
		"superd/etc", "superd/services",
		"superd/superd/internal/config", "superd/superd/internal/control", "superd/superd/internal/event",
		"superd/superd/internal/listen", "superd/superd/internal/admit", "superd/superd/internal/spawn",
		"superd/superd/internal/conn", "superd/superd/internal/peer", "superd/superd/internal/lobby", "superd/superd/internal/proxy",
		"superd/superd/internal/tcpmux", "superd/superd/internal/migrate",
	},
	"superd/superd/bench": {"superd/services"}, // a client, and no part of the daemon
}

// libraries are the packages from elsewhere, and who may import them. What is
// not in the standard library and not here is imported by nobody.
var libraries = map[string][]string{
	"gopkg.in/yaml.v3":                  {"superd/superd/internal/config"},
	"github.com/gaissmai/bart":          {"superd/superd/internal/admit"},
	"github.com/kballard/go-shellquote": {"superd/superd/internal/config"},
	"github.com/rs/zerolog":             {"superd/superd/internal/event", "superd/superd"},
	"github.com/urfave/cli/v3":          {"superd/superd"},
	"golang.org/x/sys/unix": {
		"superd/superd/internal/listen", "superd/superd/internal/spawn", "superd/superd/internal/conn",
		"superd/superd/internal/control", "superd/superd/internal/lobby", "superd/superd", "superd/superd/bench",
	},
}

// banned are packages of the standard library that a part of the tree must do
// without: there is one way to start a program, and it is spawn's.
var banned = map[string]string{"os/exec": "superd/superd"}

func TestImportsPointDown(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		for _, wrong := range misplaced(importsOf(t, arch)) {
			t.Errorf("%s: %s", arch, wrong)
		}
	}
}

// importsOf lists the packages of this repository with what their files, but
// for the tests, import.
func importsOf(t *testing.T, arch string) map[string][]string {
	t.Helper()
	list := exec.Command(program(t, "go"), "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, module+"...")
	list.Env = append(os.Environ(), "GOARCH="+arch, "CGO_ENABLED=0")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		packages[words[0]] = words[1:]
	}
	if len(packages["superd/superd"]) == 0 {
		t.Fatalf("go list does not know the daemon: %s", out)
	}
	return packages
}

// misplaced lists the imports that are against the house rules.
func misplaced(packages map[string][]string) (list []string) {
	for name, imports := range packages {
		below, known := floors[name]
		if !known {
			list = append(list, name+" has no floor: give it one in this file")
			continue
		}
		for _, i := range imports {
			if why := forbidden(name, i, below); why != "" {
				list = append(list, fmt.Sprintf("%s imports %s, %s", name, i, why))
			}
		}
	}
	slices.Sort(list)
	return list
}

// forbidden says why a package may not import i; "" where it may.
func forbidden(name, i string, below []string) string {
	first, _, _ := strings.Cut(i, "/")
	under, isBanned := banned[i]
	switch {
	case isBanned && within(name, under):
		return "which nothing in " + under + " does"
	case strings.HasPrefix(i, module):
		if !slices.Contains(below, i) {
			return "which is not below it"
		}
	case strings.Contains(first, ".") || i == "C":
		users, known := libraries[i]
		switch {
		case !known:
			return "which is no library of this project"
		case !slices.Contains(users, name):
			return "which belongs to " + strings.Join(users, ", ")
		}
	}
	return ""
}

func within(name, tree string) bool { return name == tree || strings.HasPrefix(name, tree+"/") }

func TestAMisplacedImportIsFound(t *testing.T) {
	for _, c := range []struct{ name, imports string }{
		{"superd/superd/internal/event", "superd/superd/internal/config"},      // its own floor
		{"superd/superd/internal/config", "superd/superd/internal/conn"},       // upwards
		{"superd/superd/internal/listen", "superd/superd/internal/spawn"},      // its own floor
		{"superd/superd/internal/conn", "superd/superd/internal/spawn/origin"}, // another's room
		{"superd/services", "superd/superd/internal/event"},
		{"superd/superd/internal/event", "superd/superd"},
		{"superd/superd/bench", "superd/superd/internal/spawn"},
		{"superd/superd", "gopkg.in/yaml.v3"},
		{"superd/superd/internal/conn", "github.com/rs/zerolog"},
		{"superd/superd/internal/admit", "golang.org/x/sys/unix"},
		{"superd/superd/internal/config", "github.com/nobody/library"},
		{"superd/superd", "os/exec"},
		{"superd/superd/internal/spawn", "os/exec"},
		{"superd/superd", "C"},
		{"superd/superd/internal/util", "fmt"},
	} {
		if len(misplaced(map[string][]string{c.name: {c.imports}})) == 0 {
			t.Errorf("%s may import %s", c.name, c.imports)
		}
	}
	allowed := map[string][]string{"superd/superd/internal/conn": {"fmt", "superd/superd/internal/event", "golang.org/x/sys/unix"}}
	if list := misplaced(allowed); len(list) > 0 {
		t.Errorf("what is in order is not: %v", list)
	}
}
