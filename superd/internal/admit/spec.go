package admit

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A Spec is whom a rule is about: the addresses of a network, or one user or
// group at the other end of unix sockets.
type Spec struct {
	kind    specKind
	network netip.Prefix // masked; of no v4-mapped addresses
	id      uint32
}

type specKind uint8

const (
	noSpec specKind = iota
	networkSpec
	userSpec
	groupSpec
)

// Network is the Spec of a network. The network of v4-mapped addresses is the
// IPv4 one, and the network of an address with host bits the one around it.
func Network(p netip.Prefix) Spec {
	if p.Addr().Is4In6() && p.Bits() >= mappedBits {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits)
	}
	return Spec{kind: networkSpec, network: p.Masked()}
}

// mappedBits is how many bits say that an address is a v4-mapped one.
const mappedBits = 96

// User is the Spec of one user.
func User(uid uint32) Spec { return Spec{kind: userSpec, id: uid} }

// Group is the Spec of one group.
func Group(gid uint32) Spec { return Spec{kind: groupSpec, id: gid} }

// Prefix is the Spec's network; it is not valid for users and groups.
func (s Spec) Prefix() netip.Prefix { return s.network }

// String is the canonical form: 10.0.0.0/8, 192.0.2.1, uid:1000.
func (s Spec) String() string {
	switch s.kind {
	case networkSpec:
		if s.network.IsSingleIP() {
			return s.network.Addr().String()
		}
		return s.network.String()
	case userSpec:
		return "uid:" + strconv.FormatUint(uint64(s.id), 10)
	case groupSpec:
		return "gid:" + strconv.FormatUint(uint64(s.id), 10)
	}
	return "nobody"
}

// Names finds the numbers of users and groups.
type Names interface {
	User(name string) (uid uint32, err error)
	Group(name string) (gid uint32, err error)
}

// ParseSpec reads an address, a network or uid: and gid: with a number or a
// name. Where an address has bits beyond the length of its network, canonical
// is the network that is meant; else it is "". Names may be nil: then only
// numbers are known. Its errors are of type *Mistake.
func ParseSpec(text string, names Names) (s Spec, canonical string, err error) {
	if names == nil {
		names = noNames{}
	}
	kind, name, found := strings.Cut(text, ":")
	switch {
	case text == "":
		return Spec{}, "", mistake("", "is empty")
	case found && kind == "uid":
		s.kind = userSpec
		s.id, err = account(text, name, names.User)
	case found && kind == "gid":
		s.kind = groupSpec
		s.id, err = account(text, name, names.Group)
	default:
		return parseNetwork(text)
	}
	return s, "", err
}

type noNames struct{}

func (noNames) User(string) (uint32, error)  { return 0, mistake("write its number", "is not known") }
func (noNames) Group(string) (uint32, error) { return 0, mistake("write its number", "is not known") }

// mostAccount is the highest number of a user or group: the next one is -1,
// nobody, to the kernel.
const mostAccount = 1<<32 - 2

func account(text, name string, find func(string) (uint32, error)) (uint32, error) {
	n, number := digits(name)
	switch {
	case name == "":
		return 0, mistake("write uid:1000, or gid:adm", "%s names nobody", quote(text))
	case !number:
		id, err := find(name)
		if err != nil {
			return 0, mistake("", "%s: %v", quote(text), err)
		}
		return id, nil
	case n > mostAccount:
		return 0, mistake("", "%s is more than the highest number, %d", quote(text), mostAccount)
	}
	return uint32(n), nil
}

func parseNetwork(text string) (Spec, string, error) {
	address, length, cut := strings.Cut(text, "/")
	addr, err := parseAddress(text, address)
	if err != nil {
		return Spec{}, "", err
	}
	bits := addr.BitLen()
	if cut {
		if bits, err = parseLength(text, length, addr); err != nil {
			return Spec{}, "", err
		}
	}
	p := netip.PrefixFrom(addr, bits)
	s := Network(p)
	if p.Masked() == p {
		return s, "", nil
	}
	return s, s.String(), nil
}

func parseAddress(text, address string) (netip.Addr, error) {
	switch {
	case address == "":
		return netip.Addr{}, mistake("write it like 10.0.0.0/8", "%s has no address before the /", quote(text))
	case strings.Contains(address, "%"):
		return netip.Addr{}, mistake("leave the zone out", "%s has a zone, which no rule looks at", quote(text))
	case strings.HasPrefix(address, "["):
		return netip.Addr{}, mistake("leave the brackets out", "%s has brackets", quote(text))
	case !strings.Contains(address, ":"):
		return parseIPv4(text, address)
	}
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}, mistake("", "%s is not an IPv6 address", quote(text))
	}
	return addr, nil
}

// parseIPv4 says what is wrong with an address where the library would only
// say that something is.
func parseIPv4(text, address string) (netip.Addr, error) {
	parts := strings.Split(address, ".")
	if strings.Trim(address, "0123456789.+-") != "" {
		return netip.Addr{}, mistake("names of hosts are not accepted: they change", "%s is not an address", quote(text))
	}
	var bytes [4]byte
	for i, part := range parts {
		n, ok := digits(part)
		switch {
		case part == "" || len(parts) != len(bytes):
			return netip.Addr{}, mistake("write networks like 10.0.0.0/8", "%s does not have the four numbers of an IPv4 address", quote(text))
		case !ok:
			return netip.Addr{}, mistake("", "in %s, %s is not a number", quote(text), quote(part))
		case len(part) > 1 && part[0] == '0':
			return netip.Addr{}, mistake("some programs would take it for octal", "in %s, %s has a leading zero", quote(text), quote(part))
		case n > 255:
			return netip.Addr{}, mistake("", "in %s, %s is more than 255", quote(text), part)
		}
		bytes[i] = byte(n)
	}
	return netip.AddrFrom4(bytes), nil
}

func parseLength(text, length string, addr netip.Addr) (int, error) {
	n, ok := digits(length)
	switch {
	case length == "":
		return 0, mistake("", "%s has no length after the /", quote(text))
	case strings.ContainsAny(length, ".:"):
		return 0, maskMistake(text, length)
	case !ok:
		return 0, mistake("", "in %s, the length %s is not a number", quote(text), quote(length))
	case len(length) > 1 && length[0] == '0':
		return 0, mistake("", "in %s, the length %s has a leading zero", quote(text), quote(length))
	case n > addr.BitLen():
		return 0, mistake("", "in %s, the length %s is more than %d", quote(text), length, addr.BitLen())
	}
	return n, nil
}

// maskMistake knows what length a mask such as 255.255.0.0 stands for.
func maskMistake(text, mask string) error {
	hint := ""
	if m, err := netip.ParseAddr(mask); err == nil && m.Is4() {
		b := m.As4()
		bits := 0
		for bits < 32 && b[bits/8]&(0x80>>(bits%8)) != 0 {
			bits++
		}
		if netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), bits).Masked().Addr() == m {
			hint = fmt.Sprintf("write /%d", bits)
		}
	}
	return mistake(hint, "%s has a mask where a length is expected", quote(text))
}
