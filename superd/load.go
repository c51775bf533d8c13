package main

import (
	"errors"
	"os"

	"superd/etc"
	"superd/superd/internal/config"
)

// systemFile is the configuration of a superd that is told no other; the
// Makefile sets it to where the installation keeps its own.
var systemFile = "/etc/superd/superd.yaml"

// builtInName stands for the path of the embedded default.
const builtInName = "(built-in configuration)"

// load reads the file that an administrator named, or else the system's, or
// else the embedded default.
func load(path string) (*config.Config, error) {
	f, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return f.parse()
}

// A file is what the configuration is read from.
type file struct {
	Path string
	Text []byte
}

// readFile reads what load checks.
func readFile(path string) (f file, err error) {
	if path == "" {
		path = systemFile
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return file{builtInName, etc.Default}, nil
		}
	}
	f.Path = path
	f.Text, err = config.Read(path)
	return f, err
}

func (f *file) parse() (*config.Config, error) { return config.Parse(f.Path, f.Text, config.Machine) }
