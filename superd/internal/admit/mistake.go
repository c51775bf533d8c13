package admit

import (
	"fmt"
	"strconv"
)

// A Mistake is what is wrong with a text of the file, and what to do about it.
type Mistake struct {
	What string
	Hint string // may be ""
	Line int    // in a file of rules, from 1; else 0
}

// Error is the mistake without its line.
func (m *Mistake) Error() string {
	if m.Hint == "" {
		return m.What
	}
	return m.What + " (" + m.Hint + ")"
}

func mistake(hint, format string, args ...any) error {
	return &Mistake{What: fmt.Sprintf(format, args...), Hint: hint}
}

// longestQuote is how much of a text a message repeats, in bytes.
const longestQuote = 60

func quote(text string) string {
	if len(text) > longestQuote {
		return strconv.Quote(text[:longestQuote]) + "..."
	}
	return strconv.Quote(text)
}
