package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/proxy"
)

// Why a guest of a service that is reached through proxies is turned away,
// beside what is wrong with its header.
var (
	errNotTrusted = errors.New("it comes from no address of proxy_protocol.from")
	errCutHeader  = errors.New("it closed before the PROXY header was complete")
	errNoHeader   = errors.New("the PROXY header was not complete in proxy_protocol.timeout")
	errManySilent = errors.New("too many others have not sent a PROXY header either")
)

// awaitHeader has a trusted proxy say who its client is. Nobody else may say
// so, or come in at all: whoever reaches the service past its proxies reaches
// it past what they are there for.
func (g *guest) awaitHeader() {
	g.client = clientOf(&g.visitor.Peer)
	if !g.service.gate.Trusts(g.client.Addr) {
		g.refuseHeader(errNotTrusted)
		return
	}
	g.stage = awaitsHeader
	g.readHeader(0)
}

// readHeader looks at what a proxy has sent. It is taken from the socket when
// the header is complete, and not a byte more: what follows is the program's.
func (g *guest) readHeader(events uint32) {
	buffer := g.hall.buffer[:proxy.MostBytes]
	n, err := peek(g.fd, buffer)
	switch {
	case err == unix.EAGAIN:
		g.listen(g.service.config.Proxy.Timeout)
		return
	case n <= 0:
		g.refuseHeader(errCutHeader)
		return
	}
	h, length, err := proxy.Parse(buffer[:n])
	switch {
	case err == nil:
		g.spokenFor(&h, length)
	case err != proxy.ErrMore:
		g.refuseHeader(fmt.Errorf("the PROXY header is wrong: %w", err))
	case events&unix.EPOLLRDHUP != 0:
		g.refuseHeader(errCutHeader)
	default:
		g.listen(g.service.config.Proxy.Timeout)
	}
}

// spokenFor goes on with a guest whose proxy has said who it is.
func (g *guest) spokenFor(h *proxy.Header, length int) {
	g.heard()
	p := &g.visitor.Peer
	p.Extra = h.AppendVariables(g.extra[:0])
	g.extra = p.Extra
	if !h.Local {
		p.Via, p.Remote, p.Local = p.Remote, h.Source, h.Destination
	}
	if err := g.swallow(length); err != nil {
		g.refuseHeader(err)
		return
	}
	g.known()
}

// refuseHeader turns g away for what it said of itself, or did not.
func (g *guest) refuseHeader(cause error) {
	s := g.service
	s.gate.Refused(g.client, admit.ReasonProxy, s.daemon.now())
	g.refuse(admit.ReasonProxy, cause)
}
