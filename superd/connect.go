package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
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
	net.Conn
	CloseWrite() error
}

// dial understands what a service's listen key does: host:port, a port alone
// (of this machine), unix:PATH.
func dial(address string) (duplex, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
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
