package services

// discard is the Discard Protocol, RFC 863: what the client sends is thrown
// away and nothing is said, until the client has closed its side.
var discard = service{
	steps: func(Options) (program, error) {
		return program{
			0: read(0, buffer).endWhen0().backTo(0),
		}, nil
	},
}
