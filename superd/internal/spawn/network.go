package spawn

import (
	"golang.org/x/sys/unix"
)

// buildNetwork makes, for a service without network, a network namespace that
// stays empty: its only interface is a loopback that is down, so that connect
// fails with ENETUNREACH (network_namespaces(7)). All programs of the service
// share it. The connection itself belongs to superd's namespace for good and
// is not touched; neither are unix sockets with a path.
func (p *Plan) buildNetwork() error {
	s := &p.spec.Sandbox
	if s.Preset == "" || s.Network {
		return nil
	}
	fd, err := p.engine.newNamespace(unix.CLONE_NEWNET, func() error { return nil })
	if err != nil {
		return err
	}
	p.walls.network = p.own("the network namespace", fd)
	return nil
}

// withoutNetwork says what is open where there is no network namespace.
func (p *Plan) withoutNetwork() string {
	if p.spec.Sandbox.SystemCalls == "tight" {
		return "the filter refuses new sockets of the Internet, but abstract ones of the machine can be reached"
	}
	return "UDP, all other protocols and abstract sockets are open, and TCP where the kernel's Landlock does not close it"
}
