package config

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
