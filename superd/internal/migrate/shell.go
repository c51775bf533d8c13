package migrate

import "strings"

// As much of sh(1) as a script that starts one program is written in.

// A word is one of a command. It is open where the shell would have put
// something into it that is not known here.
type word struct {
	text string
	open bool
}

// literal are words that no shell looks at any more.
func literal(argv []string) []word {
	words := make([]word, len(argv))
	for i, text := range argv {
		words[i] = word{text: text}
	}
	return words
}

// How a line ends.
type ending int

const (
	whole    ending = iota
	cut             // at ; | & or a bracket, with more behind it
	unclosed        // a quotation mark has no partner
)

// shellWords takes the first command of a line. Variables are those whose texts
// are known.
func shellWords(line string, variables map[string]word) (words []word, end ending) {
	l := &shellLine{rest: line, variables: variables}
	for l.rest = strings.TrimLeft(l.rest, " \t"); l.rest != ""; l.rest = strings.TrimLeft(l.rest, " \t") {
		switch {
		case l.rest[0] == '#':
			return words, whole
		case strings.IndexByte(";|&()", l.rest[0]) >= 0:
			if strings.Trim(l.rest, ";& \t") == "" {
				return words, whole
			}
			return words, cut
		case l.redirection():
			continue
		}
		w, closed := l.word()
		if !closed {
			return words, unclosed
		}
		words = append(words, w)
	}
	return words, whole
}

type shellLine struct {
	rest      string
	variables map[string]word
}

// redirection skips one: 2>&1, </dev/null.
func (l *shellLine) redirection() bool {
	rest := strings.TrimLeft(l.rest, "0123456789")
	if rest == "" || rest[0] != '<' && rest[0] != '>' {
		return false
	}
	l.rest = strings.TrimLeft(strings.TrimLeft(rest, "<>&|"), " \t")
	l.word()
	return true
}

// word takes the next one off the line.
func (l *shellLine) word() (w word, closed bool) {
	var b strings.Builder
	for l.rest != "" && strings.IndexByte(" \t;|&()<>", l.rest[0]) < 0 {
		c := l.rest[0]
		l.rest = l.rest[1:]
		switch c {
		case '\'':
			text, rest, found := strings.Cut(l.rest, "'")
			if !found {
				return w, false
			}
			b.WriteString(text)
			l.rest = rest
		case '"':
			if !l.inQuotes(&b, &w.open) {
				return w, false
			}
		case '\\':
			if l.rest != "" {
				b.WriteByte(l.rest[0])
				l.rest = l.rest[1:]
			}
		case '$', '`':
			l.expansion(c, &b, &w.open)
		case '*', '?', '[', '~':
			w.open = w.open || c != '~' || b.Len() == 0
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	w.text = b.String()
	return w, true
}

// inQuotes reads up to the closing quotation mark.
func (l *shellLine) inQuotes(b *strings.Builder, open *bool) bool {
	for l.rest != "" {
		c := l.rest[0]
		l.rest = l.rest[1:]
		switch {
		case c == '"':
			return true
		case c == '\\' && l.rest != "" && strings.IndexByte("$`\"\\", l.rest[0]) >= 0:
			b.WriteByte(l.rest[0])
			l.rest = l.rest[1:]
		case c == '$' || c == '`':
			l.expansion(c, b, open)
		default:
			b.WriteByte(c)
		}
	}
	return false
}

// expansion puts a known variable's text in, and else what was written.
func (l *shellLine) expansion(c byte, b *strings.Builder, open *bool) {
	if c == '`' || strings.HasPrefix(l.rest, "(") {
		closing := map[byte]string{'`': "`", '$': ")"}[c]
		inner, rest, _ := strings.Cut(l.rest, closing)
		b.WriteString(string(c) + inner + closing)
		l.rest, *open = rest, true
		return
	}
	name, rest := l.rest, ""
	if strings.HasPrefix(l.rest, "{") {
		name, rest, _ = strings.Cut(l.rest[1:], "}")
	} else {
		end := strings.IndexFunc(name+" ", func(r rune) bool {
			return !(r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z')
		})
		name, rest = name[:end], name[end:]
	}
	l.rest = rest
	if w, known := l.variables[name]; known {
		b.WriteString(w.text)
		*open = *open || w.open
		return
	}
	b.WriteString("$" + name)
	*open = true
}
