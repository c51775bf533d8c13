package services

// greeting says one text and ends. No RFC has it; it is the smallest service
// there is, and an empty text makes it one that only hangs up.
var greeting = service{
	takesText: true,
	steps: func(o Options) (program, error) {
		return say(o.text("hi client")), nil
	},
}

// tell says words to a connection, or answers datagrams with them.
func (o Options) tell(words string) program {
	if o.Datagrams {
		return o.answer(words)
	}
	return say(words)
}

// say is the program of every service that has one thing to tell.
func say(words string) program {
	if words == "" {
		return program{}
	}
	return program{
		0: write(1, text(words), len(words)),
	}
}
