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
	if path != "" {
		return config.Load(path, config.Machine)
	}
	if _, err := os.Stat(systemFile); errors.Is(err, os.ErrNotExist) {
		return config.Parse(builtInName, etc.Default, config.Machine)
	}
	return config.Load(systemFile, config.Machine)
}
