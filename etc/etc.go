// Package etc holds the files that an installation of superd starts from.
package etc

import _ "embed"

// Default is the configuration of a superd that finds no file.
//
//go:embed superd.yaml
var Default []byte
