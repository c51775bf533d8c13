package config

import (
	"slices"
	"time"
)

// Datagram is the Type of a unix socket that nobody connects to.
const Datagram = "datagram"

// Datagrams tells whether whatever comes to the socket is one datagram, and no
// connection.
func (l *Listener) Datagrams() bool { return l.Family == UDP || l.Type == Datagram }

// Internet tells whether the socket has an address and a port.
func (l *Listener) Internet() bool { return l.Family == TCP || l.Family == UDP }

// protocol begins an address that is none of TCP.
func (l *Listener) protocol() string {
	if l.Family == UDP {
		return "udp:"
	}
	return ""
}

// Datagrams tells whether some socket of the service is for datagrams.
func (s *Service) Datagrams() bool {
	return slices.ContainsFunc(s.Listen, func(l Listener) bool { return l.Datagrams() })
}

// OnlyDatagrams tells whether the service has peers that send datagrams, each
// with a program of its own, and no connections.
func (s *Service) OnlyDatagrams() bool {
	return s.Wait == "" && len(s.Listen) > 0 && !slices.ContainsFunc(s.Listen, func(l Listener) bool { return !l.Datagrams() })
}

// idlePeer is how long a peer can send nothing, and be sent nothing, before its
// program is told that nothing more comes, where the file does not say.
const idlePeer = 10 * time.Second

// withoutConnection are the keys that mean nothing for datagrams, and why. Of
// the first it is wrong that any socket is for datagrams, of the others that all
// are.
var withoutConnection = []struct{ key, why, hint string }{
	{"proxy_protocol", "has no meaning for datagrams: nobody connects, and who sends one is not the proxy", "leave it out, or give the datagrams a service of their own"},
	{"timeout.first_byte", "has no meaning for datagrams: what starts a program is one", "leave it out"},
	{"keep", "has no meaning for datagrams: there is no connection to keep", "leave it out"},
	{"linger", "has no meaning for datagrams: there is no connection to close", "leave it out"},
	{"refuse_text", "has no meaning for datagrams: who is refused is not answered", "leave it out"},
	{"failures.text", "has no meaning for datagrams: who is refused is not answered", "leave it out"},
}

// converse checks and completes a service whose datagrams, or some sockets of
// which, start a program for each peer.
func (s section) converse(c *Service) {
	c.Timeout.Datagrams = idlePeer
	if s.written("timeout.idle") {
		c.Timeout.Datagrams = c.Timeout.Idle
	}
	only := c.OnlyDatagrams()
	for i, w := range withoutConnection {
		if s.written(w.key) && (only || i == 0) {
			s.d.bad(s.get(w.key), w.why, w.hint)
		}
	}
	if c.Builtin == "greeting" {
		s.d.bad(s.get("builtin"), "greeting is for connections, and answers no datagrams", "write builtin: qotd")
	}
}

// amplifiers are the built-ins whose answers to datagrams are cut.
var amplifiers = []string{"chargen", "daytime", "qotd", "time"}

// amplify reads whether answers to datagrams are whole.
func (s section) amplify(c *Service) bool {
	on := s.boolean("amplify")
	if on && !(slices.Contains(amplifiers, s.builtinName()) && c.Datagrams() && c.Wait == "") {
		s.d.bad(s.get("amplify"), "has a meaning only with builtin "+either(amplifiers)+" and datagrams", "leave it out")
	}
	return on
}
