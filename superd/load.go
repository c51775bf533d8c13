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
// else the embedded default, and what it includes.
func load(path string) (*config.Config, error) {
	f, err := readFiles(path)
	if err != nil {
		return nil, err
	}
	return f.Parse(config.Machine)
}

// readFiles reads what load checks.
func readFiles(path string) (*config.Files, error) {
	if path == "" {
		path = systemFile
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return builtIn(), nil
		}
	}
	return config.Read(path, config.Machine)
}

// builtIn is the embedded default.
func builtIn() *config.Files {
	return &config.Files{Path: builtInName, Text: etc.Default, Followed: true}
}
