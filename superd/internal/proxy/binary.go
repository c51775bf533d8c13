package proxy

import (
	"encoding/binary"
	"net/netip"
)

// The head of version 2: what is where behind its signature.
const (
	atCommand = 12
	atFamily  = 13
	atLength  = 14
	headBytes = 16
)

// The version and the commands in the byte at atCommand.
const (
	localCommand = 0x20
	proxyCommand = 0x21
)

// The families and transports in the byte at atFamily.
const (
	unspecified = 0x00
	inetStream  = 0x11
	inetDgram   = 0x12
	inet6Stream = 0x21
	inet6Dgram  = 0x22
	unixStream  = 0x31
	unixDgram   = 0x32
)

// readBinary reads version 2.
func (h *Header) readBinary(b []byte) (n int, err error) {
	h.Version = 2
	addresses, n, err := readHead(b)
	switch {
	case err != nil:
		return n, err
	case len(b) < n:
		return n, ErrMore
	case b[atCommand] == localCommand:
		h.Local = true
		return n, nil
	}
	h.readAddresses(b)
	return n, h.readExtras(b[:n], headBytes+addresses)
}

// readHead reads what stands before the addresses: how many bytes these have,
// and the whole header.
func readHead(b []byte) (addresses, n int, err error) {
	if len(b) > atCommand && b[atCommand] != localCommand && b[atCommand] != proxyCommand {
		return 0, 0, wrong(atCommand, "version and command are 0x%02x, not 0x20 or 0x21", b[atCommand])
	}
	if len(b) > atFamily && b[atCommand] == proxyCommand { // LOCAL: the family is to be ignored
		if addresses, err = addressBytes(b[atFamily]); err != nil {
			return 0, 0, err
		}
	}
	if len(b) < atLength {
		return 0, len(b) + 1, ErrMore
	}
	if len(b) < headBytes {
		return 0, headBytes, ErrMore
	}
	length := int(binary.BigEndian.Uint16(b[atLength:]))
	switch n = headBytes + length; {
	case n > MostBytes:
		return 0, 0, wrong(atLength, "the header has %d bytes, more than %d", n, MostBytes)
	case length < addresses:
		return 0, 0, wrong(atLength, "%d bytes have no room for two addresses, which are %d", length, addresses)
	}
	return addresses, n, nil
}

// addressBytes is how long the addresses of a family are, of which those
// that the specification does not name must be refused.
func addressBytes(family byte) (int, error) {
	switch family {
	case unspecified:
		return 0, nil
	case inetStream:
		return 2*4 + 2*2, nil
	case inet6Stream:
		return 2*16 + 2*2, nil
	case unixStream:
		return 2 * 108, nil
	case inetDgram, inet6Dgram, unixDgram:
		return 0, wrong(atFamily, "the header is about datagrams (0x%02x), on a stream", family)
	}
	return 0, wrong(atFamily, "address family and transport 0x%02x are unknown", family)
}

// readAddresses reads the addresses, all of which are there.
func (h *Header) readAddresses(b []byte) {
	a := b[headBytes:]
	switch b[atFamily] {
	case inetStream:
		h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(a)), binary.BigEndian.Uint16(a[8:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(a[4:])), binary.BigEndian.Uint16(a[10:]))
	case inet6Stream:
		h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(a)).Unmap(), binary.BigEndian.Uint16(a[32:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom16([16]byte(a[16:])).Unmap(), binary.BigEndian.Uint16(a[34:]))
	default:
		h.Local = true
	}
}
