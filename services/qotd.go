package services

import (
	"fmt"
	"strings"
)

// qotd is the Quote of the Day Protocol, RFC 865: one short message, then the
// connection is closed. The RFC asks for fewer than 512 characters and for
// lines that end in CR LF; the first is checked, the second is seen to here,
// since nobody writes CR into a configuration file.
var qotd = service{
	takesText: true,
	steps: func(o Options) (program, error) {
		quote := lines(o.text("Simplicity is prerequisite for reliability.\n    -- Edsger W. Dijkstra"))
		if len(quote) > maxQuote {
			return nil, fmt.Errorf("text has %d bytes with its line ends, RFC 865 allows %d", len(quote), maxQuote)
		}
		return o.tell(quote), nil
	},
}

const maxQuote = 511 // RFC 865: "less than 512 characters"

// lines ends each line of s, the last one too, with CR LF. No text has no lines.
func lines(s string) string {
	if s == "" {
		return ""
	}
	s = strings.TrimSuffix(strings.ReplaceAll(s, "\r\n", "\n"), "\n")
	return strings.ReplaceAll(s, "\n", "\r\n") + "\r\n"
}
