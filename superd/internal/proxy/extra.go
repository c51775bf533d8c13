package proxy

import (
	"encoding/binary"
	"hash/crc32"
)

// An extra is one of the type-length-value fields behind the addresses.
type extra struct {
	kind  byte
	at    int // its index in the header
	value []byte
}

// extraHead is the size of a field's type and length.
const extraHead = 3

// The kinds that are read. All others are skipped, NOOP (0x04) among them; none
// of these may come twice, since two could say different things.
const (
	alpn      = 0x01
	authority = 0x02
	checksum  = 0x03
	uniqueID  = 0x05
	ssl       = 0x20
	namespace = 0x30
)

// The kinds within ssl.
const (
	sslVersion            = 0x21
	sslCommonName         = 0x22
	sslCipher             = 0x23
	sslSignatureAlgorithm = 0x24
	sslKeyAlgorithm       = 0x25
)

// mostUniqueID is how many bytes the specification gives a unique id.
const mostUniqueID = 128

// kinds are a set of those that are read, which are all below 64.
type kinds uint64

// readExtras reads the fields that fill the header from at to its end.
func (h *Header) readExtras(header []byte, at int) error {
	var seen kinds
	for at < len(header) {
		x, err := nextExtra(header, at)
		if err != nil {
			return err
		}
		if err := h.read(x, header, &seen); err != nil {
			return err
		}
		at = x.end()
	}
	return nil
}

// nextExtra is the field that begins at that index and ends before the end of
// what it is within.
func nextExtra(within []byte, at int) (extra, error) {
	rest := within[at:]
	if len(rest) < extraHead {
		return extra{}, wrong(at, "what is left is too short for a field: %d", len(rest))
	}
	length := int(binary.BigEndian.Uint16(rest[1:]))
	if left := len(rest) - extraHead; length > left {
		return extra{}, wrong(at, "a field of type 0x%02x does not fit: its length is %d, and %d is left", rest[0], length, left)
	}
	return extra{rest[0], at, rest[extraHead:][:length]}, nil
}

func (x *extra) end() int { return x.at + extraHead + len(x.value) }

// once refuses the second field of a kind.
func (seen *kinds) once(x extra) error {
	if *seen&(1<<x.kind) != 0 {
		return wrong(x.at, "the %s comes a second time", names[x.kind])
	}
	*seen |= 1 << x.kind
	return nil
}

// names are those of the kinds in messages.
var names = map[byte]string{
	alpn: "ALPN", authority: "authority", checksum: "checksum", uniqueID: "unique id", ssl: "SSL field", namespace: "network namespace",
	sslVersion: "SSL version", sslCommonName: "SSL common name", sslCipher: "SSL cipher",
	sslSignatureAlgorithm: "SSL signature algorithm", sslKeyAlgorithm: "SSL key algorithm",
}

// read reads one field of the header.
func (h *Header) read(x extra, header []byte, seen *kinds) error {
	if h.place(x.kind) == nil && x.kind != checksum && x.kind != ssl {
		return nil
	}
	if err := seen.once(x); err != nil {
		return err
	}
	switch {
	case x.kind == checksum:
		return verify(x, header)
	case x.kind == ssl:
		return h.SSL.readExtras(x, header, seen)
	case x.kind == uniqueID && len(x.value) > mostUniqueID:
		return wrong(x.at, "the unique id has %d bytes, more than %d", len(x.value), mostUniqueID)
	}
	*h.place(x.kind) = x.value
	return nil
}

// place is where the value of a kind is kept; nil where there is none.
func (h *Header) place(kind byte) *[]byte {
	switch kind {
	case alpn:
		return &h.ALPN
	case authority:
		return &h.Authority
	case uniqueID:
		return &h.UniqueID
	case namespace:
		return &h.Namespace
	}
	return nil
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	noChecksum [4]byte
)

// verify compares the checksum with that of the header in which it is zero.
func verify(x extra, header []byte) error {
	if len(x.value) != len(noChecksum) {
		return wrong(x.at, "the checksum has %d bytes, not %d", len(x.value), len(noChecksum))
	}
	sum := crc32.Update(0, castagnoli, header[:x.at+extraHead])
	sum = crc32.Update(sum, castagnoli, noChecksum[:])
	sum = crc32.Update(sum, castagnoli, header[x.end():])
	if said := binary.BigEndian.Uint32(x.value); said != sum {
		return wrong(x.at, "the checksum is 0x%08x, and that of the header 0x%08x", said, sum)
	}
	return nil
}

// The bits of the byte that the value of ssl begins with; four more bytes are
// the result of verifying a certificate, and fields follow.
const (
	overSSL           = 0x01
	withCertificate   = 0x02 // on this connection
	hadCertificate    = 0x04 // at least once in its session
	sslHead           = 5
	certificateIsGood = 0
)

// readExtras reads the value of ssl.
func (s *SSL) readExtras(x extra, header []byte, seen *kinds) error {
	if len(x.value) < sslHead {
		return wrong(x.at, "the SSL field has %d bytes, less than %d", len(x.value), sslHead)
	}
	s.set(x.value[0], binary.BigEndian.Uint32(x.value[1:]))
	within := header[:x.end()]
	for at := x.at + extraHead + sslHead; at < len(within); {
		sub, err := nextExtra(within, at)
		if err != nil {
			return err
		}
		if to := s.place(sub.kind); to != nil {
			if err := seen.once(sub); err != nil {
				return err
			}
			*to = sub.value
		}
		at = sub.end()
	}
	return nil
}

// set believes a good result only where there is a certificate: without one,
// proxies send that too.
func (s *SSL) set(client byte, result uint32) {
	s.On = client&overSSL != 0
	s.Certificate = s.On && client&(withCertificate|hadCertificate) != 0
	s.Verified = s.Certificate && result == certificateIsGood
}

func (s *SSL) place(kind byte) *[]byte {
	switch kind {
	case sslVersion:
		return &s.Version
	case sslCommonName:
		return &s.CommonName
	case sslCipher:
		return &s.Cipher
	case sslSignatureAlgorithm:
		return &s.SignatureAlgorithm
	case sslKeyAlgorithm:
		return &s.KeyAlgorithm
	}
	return nil
}
