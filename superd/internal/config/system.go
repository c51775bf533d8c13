package config

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// System is what a file's meaning depends on outside the file.
type System interface {
	// LookupHost returns all addresses of a host name.
	LookupHost(name string) ([]netip.Addr, error)
	// LookupPort returns the port of a service name on "tcp" or "udp".
	LookupPort(network, service string) (int, error)
	// ReadFile returns the content of a file, or more than most bytes of it.
	ReadFile(path string, most int64) ([]byte, error)
	// ReadDir returns the names in a directory.
	ReadDir(path string) ([]string, error)
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

var errDirectory = errors.New("it is a directory")

// ReadFile does not wait for the other end of a pipe: it takes nothing but
// regular files.
func (machine) ReadFile(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, bareError(err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, bareError(err)
	case info.IsDir():
		return nil, errDirectory
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	}
	return readAll(f, most)
}

func (machine) ReadDir(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, bareError(err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	return names, bareError(err)
}
