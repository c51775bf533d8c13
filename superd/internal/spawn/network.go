package spawn

import (
	"errors"

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
	if errors.Is(err, errNeedsRoot) {
		return errors.New("it takes root (CAP_SYS_ADMIN); an ordinary user's program can be kept from TCP alone, by Landlock, but not from UDP")
	}
	if err != nil {
		return err
	}
	p.walls.network = p.own("the network namespace", fd)
	return nil
}
