package config

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// System is what a file's meaning depends on outside the file.
type System interface {
	// LookupHost returns all addresses of a host name.
	LookupHost(name string) ([]netip.Addr, error)
	// LookupPort returns the port of a service name on "tcp" or "udp".
	LookupPort(network, service string) (int, error)
}

// Machine is the machine that superd runs on.
var Machine System = machine{}

// lookupTimeout bounds one question to the name service (superd.yaml(5)).
const lookupTimeout = 5 * time.Second

type machine struct{}

func (machine) LookupHost(name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

func (machine) LookupPort(network, service string) (int, error) {
	return net.LookupPort(network, service)
}
