package services

// echo is the Echo Protocol, RFC 862: what the client sends goes back to it,
// until the client has closed its side.
var echo = service{
	steps: func(Options) (program, error) {
		return program{
			0: read(0, buffer).endWhen0(), // -> n
			1: write(1, buffer, n).backTo(0),
		}, nil
	},
}
