package proxy

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strings"
)

// Headers, built with nothing of the package's own but its constants.

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// v2 is a header of version 2.
func v2(command, family byte, rest ...string) string {
	all := strings.Join(rest, "")
	return signature + string([]byte{command, family, byte(len(all) >> 8), byte(len(all))}) + all
}

// tcp is one about TCP over IPv4, from 192.0.2.1:258 to 192.0.2.2:772.
func tcp(rest ...string) string {
	return v2(proxyCommand, inetStream, append([]string{"\xc0\x00\x02\x01\xc0\x00\x02\x02\x01\x02\x03\x04"}, rest...)...)
}

// field is a type-length-value field.
func field(kind byte, value ...string) string {
	all := strings.Join(value, "")
	return string([]byte{kind, byte(len(all) >> 8), byte(len(all))}) + all
}

// sslField is one whose certificate was verified with that result.
func sslField(client byte, result uint32, fields ...string) string {
	return field(ssl, string(binary.BigEndian.AppendUint32([]byte{client}, result)), strings.Join(fields, ""))
}

// unsummed is a checksum field whose value summed fills in.
var unsummed = field(checksum, "\x00\x00\x00\x00")

func summed(header string) string {
	sum := crc32.Checksum([]byte(header), crc32.MakeTable(crc32.Castagnoli))
	return strings.Replace(header, unsummed, field(checksum, string(binary.BigEndian.AppendUint32(nil, sum))), 1)
}

// encode is a header that says what h says.
func encode(h *Header) string {
	switch {
	case h.Version == 2:
		return encodeBinary(h)
	case h.Local:
		return "PROXY UNKNOWN\r\n"
	}
	return "PROXY " + encodeAddresses(h)
}

func encodeAddresses(h *Header) string {
	from, to := h.Source.Addr(), h.Destination.Addr()
	form := "TCP4"
	if from.Is6() || to.Is6() {
		form, from, to = "TCP6", netip.AddrFrom16(from.As16()), netip.AddrFrom16(to.As16())
	}
	return fmt.Sprintf("%s %s %s %d %d\r\n", form, from, to, h.Source.Port(), h.Destination.Port())
}

func encodeBinary(h *Header) string {
	family, addresses := byte(unspecified), ""
	switch from, to := h.Source, h.Destination; {
	case h.Local:
	case from.Addr().Is4() && to.Addr().Is4():
		family, addresses = inetStream, string(from.Addr().AsSlice())+string(to.Addr().AsSlice())+ports(from, to)
	default:
		a, b := from.Addr().As16(), to.Addr().As16()
		family, addresses = inet6Stream, string(a[:])+string(b[:])+ports(from, to)
	}
	return summed(v2(proxyCommand, family, addresses, encodeFields(h), unsummed))
}

func ports(from, to netip.AddrPort) string {
	return string(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from.Port()), to.Port()))
}

func encodeFields(h *Header) string {
	s := &h.SSL
	client, result := byte(0), uint32(1)
	if s.On {
		client |= overSSL
	}
	if s.Certificate {
		client |= hadCertificate
	}
	if s.Verified {
		result = certificateIsGood
	}
	return optional(alpn, h.ALPN) + optional(authority, h.Authority) + optional(uniqueID, h.UniqueID) + optional(namespace, h.Namespace) +
		sslField(client, result, optional(sslVersion, s.Version), optional(sslCommonName, s.CommonName), optional(sslCipher, s.Cipher),
			optional(sslSignatureAlgorithm, s.SignatureAlgorithm), optional(sslKeyAlgorithm, s.KeyAlgorithm))
}

func optional(kind byte, value []byte) string {
	if value == nil {
		return ""
	}
	return field(kind, string(value))
}
