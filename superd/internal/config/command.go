package config

import (
	"errors"
	"strings"

	"github.com/kballard/go-shellquote"
)

// splitWords splits a command line as a shell would, without anything else
// that a shell does.
func (d *decoder) splitWords(v value) []string {
	words, err := shellquote.Split(d.text(v))
	switch {
	case errors.Is(err, shellquote.UnterminatedSingleQuoteError):
		d.bad(v, "a ' has no partner", "close it, or write run as a list")
	case errors.Is(err, shellquote.UnterminatedDoubleQuoteError):
		d.bad(v, `a " has no partner`, "close it, or write run as a list")
	case err != nil:
		d.bad(v, `ends in a \ with nothing after it`, "write run as a list")
	}
	return words
}

func checkProgram(argv []string) error {
	switch {
	case len(argv) == 0:
		return mistakef("write /path/to/program", "no program is named")
	case !strings.HasPrefix(argv[0], "/"):
		return mistakef("no shell and no PATH search is involved", "the program %s is not an absolute path", quote(argv[0]))
	}
	return nil
}
