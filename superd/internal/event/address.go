package event

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
)

// What log.address: prefix keeps of an address: the network that one site usually has, at the least, and no
// longer one host of it.
const (
	prefixIPv4 = 24
	prefixIPv6 = 48
)

// hashSize is how many bytes of a hash are written. Among a million clients, two have the same with a chance
// of 1 in 37 million.
const hashSize = 8

// An addressing is how log.address has clients' addresses written.
type addressing struct {
	word   string
	append peerForm
	key    [sha256.Size]byte // of hashes
}

// addressingOf has a key of its own, which nobody can read or guess: of a hash without a key, trying all four
// thousand million addresses would find the one.
func addressingOf(word string) *addressing {
	a := &addressing{word: word}
	rand.Read(a.key[:]) // never fails
	a.append = peerFormOf(word, a.key)
	return a
}

// resume goes on with the key of another superd, so that who has one hash keeps it.
func (a *addressing) resume(key []byte) *addressing {
	if len(key) != len(a.key) {
		return a
	}
	b := &addressing{word: a.word, key: [sha256.Size]byte(key)}
	b.append = peerFormOf(b.word, b.key)
	return b
}

// A peerForm appends a client's address as log.address has it. It does not allocate.
type peerForm func(b []byte, peer netip.AddrPort) []byte

func peerFormOf(word string, key [sha256.Size]byte) peerForm {
	switch word {
	case "prefix":
		return appendPrefix
	case "hash":
		return hashing(key)
	case "none":
		return func(b []byte, _ netip.AddrPort) []byte { return b }
	}
	return func(b []byte, peer netip.AddrPort) []byte { return peer.AppendTo(b) }
}

// appendPrefix leaves the port out: of a network it says nothing.
func appendPrefix(b []byte, peer netip.AddrPort) []byte {
	addr, bits := peer.Addr().Unmap(), prefixIPv6
	if addr.Is4() {
		bits = prefixIPv4
	}
	network, err := addr.Prefix(bits)
	if err != nil {
		return b
	}
	return network.AppendTo(b)
}

// hashing makes a form under a key. A hash of key and text is good for this because all texts have one length
// and most of the sum is kept back (the extension of RFC 2104, 6, needs neither).
func hashing(key [sha256.Size]byte) peerForm {
	return func(b []byte, peer netip.AddrPort) []byte {
		addr := peer.Addr().As16() // IPv4 as ::ffff:a.b.c.d, and no zone
		var text [len(key) + len(addr)]byte
		copy(text[:], key[:])
		copy(text[len(key):], addr[:])
		sum := sha256.Sum256(text[:])
		return hex.AppendEncode(b, sum[:hashSize])
	}
}
