package migrate

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The files of systemd's units: systemd.syntax(7).

// A unit is a file with the drop-ins that belong to it.
type unit struct {
	name     string // sshd@.service
	at       Place
	settings []setting
}

// A setting is one line of a unit, or several that are one.
type setting struct {
	section, name, value string
	at                   Place
}

// systemd pairs the sockets with their services.
func (im *importer) systemd(files []file) {
	var units []*unit
	for _, f := range files {
		im.unit(&units, f)
	}
	if len(im.mistakes) > 0 {
		return
	}
	used := map[string]bool{}
	for _, socket := range units {
		if path.Ext(socket.name) != ".socket" {
			continue
		}
		name := socket.service()
		i := slices.IndexFunc(units, func(u *unit) bool { return u.name == name })
		if i < 0 {
			im.note(socket.at, "%s is left out: its service, %s, is not among the files; name it as well", socket.name, name)
			continue
		}
		used[name] = true
		im.activated(socket, units[i])
	}
	for _, u := range units {
		if path.Ext(u.name) == ".service" && !used[u.name] {
			im.note(u.at, "%s is left out: no socket among the files is for it", u.name)
		}
	}
}

// unit reads a file: foo.socket, foo.service, or a drop-in in a directory whose
// name is that of a unit with .d behind it.
func (im *importer) unit(units *[]*unit, f file) {
	name := path.Base(f.name)
	if in := path.Base(path.Dir(f.name)); strings.HasSuffix(name, ".conf") && strings.HasSuffix(in, ".d") {
		name = strings.TrimSuffix(in, ".d")
	}
	at := Place{f.name, 1}
	kind := path.Ext(name)
	before := len(im.mistakes)
	settings := im.settings(f)
	if kind != ".socket" && kind != ".service" {
		kind = kindOf(settings)
		name += kind
	}
	if len(im.mistakes) > before {
		return
	}
	if kind == "" {
		im.mistake(at, "it is neither a socket unit nor a service: it has no section [Socket] or [Service]")
		return
	}
	i := slices.IndexFunc(*units, func(u *unit) bool { return u.name == name })
	if i >= 0 {
		(*units)[i].settings = append((*units)[i].settings, settings...)
		return
	}
	*units = append(*units, &unit{name, at, settings})
}

// kindOf tells by its sections what a file with an odd name is.
func kindOf(settings []setting) string {
	for _, s := range settings {
		switch s.section {
		case "Socket":
			return ".socket"
		case "Service":
			return ".service"
		}
	}
	return ""
}

// settings takes a file apart, by sections. A backslash at the end of a line
// has the next one go on; comments may stand between.
func (im *importer) settings(f file) (list []setting) {
	section := ""
	for i := 0; i < len(f.lines); i++ {
		at := Place{f.name, i + 1}
		line := strings.TrimSpace(f.lines[i])
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		for strings.HasSuffix(line, `\`) && i+1 < len(f.lines) {
			i++
			next := strings.TrimSpace(f.lines[i])
			if next == "" || next[0] != '#' && next[0] != ';' {
				line = strings.TrimSuffix(line, `\`) + " " + next
			}
		}
		name, text, found := strings.Cut(line, "=")
		switch {
		case line[0] == '[' && line[len(line)-1] == ']':
			section = line[1 : len(line)-1]
		case !found || strings.TrimSpace(name) == "":
			im.mistake(at, "expected a [section] or name=value, not %s", quote(line))
			return list
		case section == "":
			im.mistake(at, "%s stands before any section", quote(line))
			return list
		case len(list) == most:
			im.mistake(at, "the unit has more than %d lines", most)
			return list
		default:
			list = append(list, setting{section, strings.TrimSpace(name), strings.TrimSpace(text), at})
		}
	}
	return list
}

// service is the name of the service that a socket is for.
func (u *unit) service() string {
	name := strings.TrimSuffix(u.name, ".socket")
	if isYes(u.last("Socket", "Accept").value) {
		return name + "@.service"
	}
	return cmp.Or(u.last("Socket", "Service").value, name+".service")
}

// last is what holds of a setting that can be there once.
func (u *unit) last(section, name string) (found setting) {
	for _, s := range u.settings {
		if s.section == section && s.name == name {
			found = s
		}
	}
	return found
}

// each are all that hold of a setting that adds up: an empty one takes back
// those before it.
func (u *unit) each(section, name string) (list []setting) {
	for _, s := range u.settings {
		switch {
		case s.section != section || s.name != name:
		case s.value == "":
			list = nil
		default:
			list = append(list, s)
		}
	}
	return list
}

func isYes(text string) bool {
	return slices.Contains([]string{"1", "yes", "y", "true", "t", "on"}, strings.ToLower(text))
}

func isNo(text string) bool {
	return slices.Contains([]string{"0", "no", "n", "false", "f", "off"}, strings.ToLower(text))
}

// spanUnits are those of systemd.time(7).
var spanUnits = map[string]time.Duration{
	"us": time.Microsecond, "usec": time.Microsecond, "ms": time.Millisecond, "msec": time.Millisecond, "": time.Second, "s": time.Second, "sec": time.Second,
	"second": time.Second, "seconds": time.Second, "m": time.Minute, "min": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"h": time.Hour, "hr": time.Hour, "hour": time.Hour, "hours": time.Hour, "d": 24 * time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour,
	"w": 7 * 24 * time.Hour, "week": 7 * 24 * time.Hour, "weeks": 7 * 24 * time.Hour,
}

// parseSpan reads a time such as 5min 20s; a number alone is seconds.
func parseSpan(text string) (total time.Duration, ok bool) {
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		end := strings.IndexFunc(text+" ", func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		n, err := strconv.ParseFloat(text[:end], 64)
		text = strings.TrimSpace(text[end:])
		end = strings.IndexFunc(text+" ", func(r rune) bool { return r < 'a' || r > 'z' })
		unit, known := spanUnits[text[:end]]
		text = text[end:]
		if err != nil || !known || n*float64(unit) > float64(100*365*24*time.Hour) {
			return 0, false
		}
		total += time.Duration(n * float64(unit))
		ok = true
	}
	return total, ok && total < 100*365*24*time.Hour
}

// duration is a time as the file has it, of whole milliseconds.
func duration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	ms := (d + time.Millisecond - 1) / time.Millisecond
	switch {
	case ms%(3600*1000) == 0:
		return strconv.Itoa(int(ms/(3600*1000))) + "h"
	case ms%(60*1000) == 0:
		return strconv.Itoa(int(ms/(60*1000))) + "m"
	case ms%1000 == 0:
		return strconv.Itoa(int(ms/1000)) + "s"
	}
	return strconv.Itoa(int(ms)) + "ms"
}

// words parts a value as systemd does: at blanks, with quotes around parts of
// words, and escapes of C. It is not ok where a quotation mark has no partner.
func unitWords(text string) (words []string, ok bool) {
	for text = strings.TrimLeft(text, " \t"); text != ""; text = strings.TrimLeft(text, " \t") {
		word, rest, closed := unitWord(text)
		if !closed {
			return words, false
		}
		words, text = append(words, word), rest
	}
	return words, true
}

func unitWord(text string) (word, rest string, closed bool) {
	var b strings.Builder
	inside := byte(0)
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && i+1 < len(text):
			n := unescape(&b, text[i+1:])
			i += n
		case inside != 0 && c == inside:
			inside = 0
		case inside == 0 && (c == '"' || c == '\''):
			inside = c
		case inside == 0 && (c == ' ' || c == '\t'):
			return b.String(), text[i:], true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", inside == 0
}

// unescape writes what an escape stands for, and returns how many bytes of the
// text behind the backslash that takes.
func unescape(b *strings.Builder, text string) int {
	simple := map[byte]byte{'a': 7, 'b': 8, 'f': 12, 'n': '\n', 'r': '\r', 't': '\t', 'v': 11, 's': ' '}
	digits, base := 0, 16
	switch c := text[0]; {
	case simple[c] != 0:
		b.WriteByte(simple[c])
		return 1
	case c == 'x':
		digits = 2
	case c == 'u':
		digits = 4
	case c == 'U':
		digits = 8
	case c >= '0' && c <= '7' && len(text) >= 3:
		if n, err := strconv.ParseUint(text[:3], 8, 8); err == nil && n > 0 {
			b.WriteByte(byte(n))
			return 3
		}
	}
	if digits > 0 && len(text) > digits {
		if n, err := strconv.ParseUint(text[1:1+digits], base, 32); err == nil && n > 0 {
			if digits == 2 {
				b.WriteByte(byte(n))
			} else {
				b.WriteRune(rune(n))
			}
			return 1 + digits
		}
	}
	b.WriteByte(text[0])
	return 1
}
