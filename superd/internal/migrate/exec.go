package migrate

import (
	"path"
	"strings"

	"superd/superd/internal/config"
)

// variables reads Environment=, in which nothing is expanded but specifiers.
func (a *activation) variables() (vars config.Draft) {
	for _, s := range a.unit.each("Service", "Environment") {
		words, closed := unitWords(s.value)
		if !closed {
			a.note(s.at, "Environment is not carried over as a whole: a quotation mark has no partner")
		}
		for _, word := range words {
			text, ok := a.expand(word)
			name, value, found := strings.Cut(text, "=")
			if !found || !ok {
				a.note(s.at, "%s of Environment is not carried over", quote(word))
				continue
			}
			vars = a.variable(vars, s.at, name, value)
		}
		if len(vars) > 0 {
			a.set("env", s.at, vars)
		}
	}
	return vars
}

// exec reads ExecStart=.
func (a *activation) exec() bool {
	list := a.unit.each("Service", "ExecStart")
	if len(list) == 0 {
		a.drop(a.unit.at, "%s starts nothing (ExecStart)", a.unit.name)
		return false
	}
	s := list[0]
	if len(list) > 1 {
		a.note(list[1].at, "only the first ExecStart is carried over: superd runs one program")
	}
	text, marks := cutMarks(s.value)
	words, closed := unitWords(text)
	if !closed || len(words) == 0 {
		a.drop(s.at, "ExecStart cannot be understood: %s", quote(s.value))
		return false
	}
	a.marks(s, marks)
	argv := a.arguments(s, words, strings.Contains(marks, ":"))
	program := argv[0]
	if strings.Contains(marks, "@") && len(argv) > 1 {
		argv = argv[1:]
	}
	if !strings.HasPrefix(program, "/") {
		program = a.guess(s.at, program)
	}
	if !strings.Contains(marks, "@") {
		argv[0] = program
	}
	program, argv = a.unwrap(s.at, program, argv)
	a.run(s.at, program, argv)
	return true
}

// guess is where a program is that a search would find.
func (s *service) guess(at Place, program string) string {
	found := "/usr/bin/" + path.Base(program)
	s.note(at, "the program %s was searched for, and superd needs its path: %s is a guess", quote(program), found)
	return found
}

// cutMarks parts what stands before the program: @ - : + ! and |.
func cutMarks(text string) (rest, marks string) {
	rest = strings.TrimLeft(text, "@-:+!|")
	return rest, text[:len(text)-len(rest)]
}

func (a *activation) marks(s setting, marks string) {
	if strings.Contains(marks, "+") || strings.Contains(marks, "!") {
		a.note(s.at, "the + or ! of ExecStart is not carried over: the program is the user's, and inside its walls, from the beginning")
	}
	if strings.Contains(marks, "|") {
		a.note(s.at, "the | of ExecStart is not carried over: no shell is involved")
	}
}

// arguments replaces specifiers and variables.
func (a *activation) arguments(s setting, words []string, plain bool) (argv []string) {
	for i, word := range words {
		if word == ";" {
			a.note(s.at, "only the first command of ExecStart is carried over: superd runs one program")
			break
		}
		text, ok := a.expand(word)
		if !ok {
			a.off(s.at, "%s of ExecStart has a specifier that only systemd knows; SUPERD_CONNECTION, TCPREMOTEIP and the like tell a program about its connection",
				quote(word))
		}
		name, bare := strings.CutPrefix(text, "$")
		switch {
		case plain || i == 0:
			argv = append(argv, text)
		case bare && isVariable(name):
			argv = append(argv, strings.Fields(a.valueOf(s, name))...)
		default:
			argv = append(argv, a.replaced(s, text))
		}
	}
	return argv
}

// replaced has ${NAME} replaced, and $$ by $.
func (a *activation) replaced(s setting, text string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		inner, behind, closed := strings.Cut(strings.TrimPrefix(rest, "{"), "}")
		switch {
		case strings.HasPrefix(rest, "$"):
			b.WriteByte('$')
			text = rest[1:]
		case strings.HasPrefix(rest, "{") && closed && isVariable(inner):
			b.WriteString(a.valueOf(s, inner))
			text = behind
		default:
			b.WriteByte('$')
			text = rest
		}
	}
}

// valueOf is what Environment= says; what else may say so is not read.
func (a *activation) valueOf(s setting, name string) string {
	for _, p := range a.environment {
		if p.Key == name {
			return p.Value.(string)
		}
	}
	a.note(s.at, "the variable %s of ExecStart is taken for empty: only Environment is looked at", name)
	return ""
}
