package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// connect is a plain client: stdin goes to the service, and when stdin ends
// our side of the connection is closed and no more; the answer goes to stdout
// until the service closes.
func connect(address string, in io.Reader, out io.Writer) error {
	c, err := dial(address)
	if err != nil {
		return fmt.Errorf("cannot connect to %s: %w", address, cause(err))
	}
	defer c.Close()
	go send(c, in) // ends with stdin, with the connection, or with this process
	if _, err := io.Copy(out, c); err != nil {
		return fmt.Errorf("%s: the answer broke off: %w", address, cause(err))
	}
	return nil
}

// duplex is a connection whose two directions close apart.
type duplex interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// dial understands what a service's listen key does: host:port, a port alone
// (of this machine), unix:PATH, unix:@NAME, vsock:CID:PORT, vsock:PORT (of this
// machine).
func dial(address string) (duplex, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	} else if place, ok := strings.CutPrefix(address, "vsock:"); ok {
		return dialVSock(place)
	} else if _, err := strconv.ParseUint(address, 10, 16); err == nil {
		address = net.JoinHostPort("localhost", address)
	}
	c, err := net.Dial(network, address)
	if errors.Is(err, syscall.EPROTOTYPE) {
		c, err = net.Dial("unixpacket", address) // type: seqpacket
	}
	if err != nil {
		return nil, err
	}
	return c.(duplex), nil
}

// vsockConn is a connection of vsock(7), which package net does not know.
type vsockConn struct{ *os.File }

// dialVSock connects to CID:PORT, or to a PORT of this machine.
func dialVSock(place string) (duplex, error) {
	cid, port, named := strings.Cut(place, ":")
	if !named {
		cid, port = strconv.Itoa(unix.VMADDR_CID_LOCAL), place
	}
	c, err := strconv.ParseUint(cid, 10, 32)
	p, wrong := strconv.ParseUint(port, 10, 32)
	if err != nil || wrong != nil {
		return nil, errors.New("it is not vsock:PORT or vsock:CID:PORT")
	}
	fd, err := connectVSock(unix.SOCK_STREAM, uint32(c), uint32(p))
	if err == unix.ECONNRESET { // nobody listens there, or for type: seqpacket
		if other, wrong := connectVSock(unix.SOCK_SEQPACKET, uint32(c), uint32(p)); wrong == nil {
			fd, err = other, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return vsockConn{os.NewFile(uintptr(fd), "vsock:"+place)}, nil
}

func connectVSock(kind int, cid, port uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: cid, Port: port}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// CloseWrite ends our side.
func (c vsockConn) CloseWrite() error { return unix.Shutdown(int(c.Fd()), unix.SHUT_WR) }

// send copies what in has. A service that no longer reads does not end the
// client: its answer may still be coming.
func send(c duplex, in io.Reader) {
	io.Copy(c, in)
	c.CloseWrite()
}

// cause is the error without the words that package net puts around it.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
