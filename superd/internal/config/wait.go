package config

import "slices"

// What a program can get instead of a connection.
const (
	WaitStdin     = "stdin"      // a listening socket as descriptor 0: each socket has a program of its own
	WaitListenFDs = "listen-fds" // all listening sockets of the service from descriptor 3 on, sd_listen_fds(3)
)

// wait reads who accepts; "" is superd.
func (s section) wait() string {
	switch word := s.word("wait"); word {
	case "true", WaitStdin:
		return WaitStdin
	case WaitListenFDs:
		return word
	}
	return ""
}

// meaningless are the keys that cannot be together with wait, and why.
var meaningless = []struct{ key, value, why, hint string }{
	{"builtin", "", "has no meaning with wait: a built-in accepts nothing", "run a program that does"},
	{"proxy_protocol", "", "has no meaning with wait: superd reads nothing that clients send", "have the program read the header"},
	{"timeout.first_byte", "", "has no meaning with wait: superd reads nothing that clients send", "leave it out"},
	{"stderr", "client", "client has no meaning with wait: there is none when the program starts", "write log or null"},
}

// idle are the keys that do nothing with wait.
var idle = []string{"max", "max_per_source", "rate_per_source", "source_prefix", "on_limit", "queue", "refuse_text",
	"ban", "keep", "linger", "timeout.idle", "failures.text"}

// handOver checks and completes a service whose program gets the listening
// sockets: what concerns single connections is the program's.
func (s section) handOver(c *Service) {
	for _, m := range meaningless {
		if v := s.get(m.key); s.written(m.key) && (m.value == "" || v.node.Value == m.value) {
			s.d.bad(v, m.why, m.hint)
		}
	}
	for _, key := range idle {
		if s.written(key) {
			s.d.warn(s.get(key), mistakef("", "has no effect with wait"))
		}
	}
	for _, key := range []string{"allow", "deny"} {
		if s.written(key) {
			s.d.warn(s.get(key), seldomAsked(c))
		}
	}
	c.Max, c.MaxPerSource, c.RatePerSource = 0, 0, Rate{}
	c.RefuseText, c.Ban, c.Keep, c.Linger, c.Timeout.Idle = nil, Ban{}, false, 0, 0
	c.Failures = Failures{s.integer("failures.after"), s.duration("failures.within"), s.duration("failures.pause")}
}

// seldomAsked says what rules about clients are worth.
func seldomAsked(c *Service) error {
	if slices.ContainsFunc(c.Listen, func(l Listener) bool { return l.Datagrams() }) {
		return mistakef("", "with wait, superd sees only who has sent the datagram that a program is started for: the program must look at the others")
	}
	return mistakef("", "has no effect with wait: the program accepts, and superd does not see whom")
}

// label reads the name of a socket.
func (s section) label() string {
	if !s.written("name") {
		return ""
	}
	v := s.get("name")
	text := s.d.text(v)
	switch {
	case !hasText(v.node):
	case text == "":
		s.d.bad(v, "is empty", "leave it out")
	default:
		s.d.fault(v, checkDescriptorName(text))
	}
	return text
}
