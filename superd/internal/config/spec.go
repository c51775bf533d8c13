package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A Spec is whom a rule is about: the addresses of a network, or one user or
// group at the other end of unix sockets. The zero Spec is nobody.
type Spec struct {
	Kind    SpecKind
	Network netip.Prefix // of a NetworkSpec: masked; of no v4-mapped addresses
	ID      uint32       // of the user or group, where Name is ""
	Name    string       // as the file has it, where it is none of a number: somebody else looks it up
}

// SpecKind tells what a Spec names.
type SpecKind uint8

// The kinds of Specs.
const (
	NoSpec SpecKind = iota
	NetworkSpec
	UserSpec
	GroupSpec
)

// Network is the Spec of a network. The network of v4-mapped addresses is the
// IPv4 one, and the network of an address with host bits the one around it.
func Network(p netip.Prefix) Spec {
	if p.Addr().Is4In6() && p.Bits() >= mappedBits {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits)
	}
	return Spec{Kind: NetworkSpec, Network: p.Masked()}
}

// mappedBits is how many bits say that an address is a v4-mapped one.
const mappedBits = 96

// User is the Spec of one user.
func User(uid uint32) Spec { return Spec{Kind: UserSpec, ID: uid} }

// Group is the Spec of one group.
func Group(gid uint32) Spec { return Spec{Kind: GroupSpec, ID: gid} }

// String is the canonical form: 10.0.0.0/8, 192.0.2.1, uid:1000, gid:adm.
func (s Spec) String() string {
	switch s.Kind {
	case NetworkSpec:
		if s.Network.IsSingleIP() {
			return s.Network.Addr().String()
		}
		return s.Network.String()
	case UserSpec:
		return "uid:" + s.account()
	case GroupSpec:
		return "gid:" + s.account()
	}
	return "nobody"
}

func (s Spec) account() string {
	if s.Name != "" {
		return s.Name
	}
	return strconv.FormatUint(uint64(s.ID), 10)
}

// ParseSpec reads an address, a network, or uid: and gid: with a number or a
// name. Where an address has bits beyond the length of its network, canonical
// is the network that is meant; else it is "".
func ParseSpec(text string) (s Spec, canonical string, err error) {
	kind, name, found := strings.Cut(text, ":")
	switch {
	case text == "":
		return Spec{}, "", mistakef("write it like 10.0.0.0/8", "is empty")
	case strings.ContainsAny(text, " \t,"):
		return Spec{}, "", mistakef("write each on a line or in quotes of its own", "%s is more than one rule", quote(text))
	case found && kind == "uid":
		s.Kind = UserSpec
	case found && kind == "gid":
		s.Kind = GroupSpec
	default:
		return parseNetwork(text)
	}
	s.ID, s.Name, err = parseAccount(text, name)
	return s, "", err
}

// parseAccount returns a number, or else a name.
func parseAccount(text, account string) (id uint32, name string, err error) {
	n, number := digits(account)
	switch {
	case account == "":
		return 0, "", mistakef("write uid:1000, or gid:adm", "%s names nobody", quote(text))
	case !number:
		return 0, account, checkAccount(account)
	case n > mostAccount:
		return 0, "", mistakef("", "%s is more than the highest number, %d", quote(text), mostAccount)
	}
	return uint32(n), "", nil
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
		return netip.Addr{}, mistakef("write it like 10.0.0.0/8", "%s has no address before the /", quote(text))
	case strings.Contains(address, "%"):
		return netip.Addr{}, mistakef("leave the zone out", "%s has a zone, which no rule looks at", quote(text))
	case strings.HasPrefix(address, "["):
		return netip.Addr{}, mistakef("leave the brackets out", "%s has brackets", quote(text))
	case !strings.Contains(address, ":"):
		return parseIPv4(text, address)
	}
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}, mistakef("", "%s is not an IPv6 address", quote(text))
	}
	return addr, nil
}

// parseIPv4 says what is wrong with an address where the library would only
// say that something is.
func parseIPv4(text, address string) (netip.Addr, error) {
	parts := strings.Split(address, ".")
	if strings.Trim(address, "0123456789.+-") != "" {
		return netip.Addr{}, mistakef("names of hosts are not accepted: they change", "%s is not an address", quote(text))
	}
	var bytes [4]byte
	for i, part := range parts {
		n, ok := digits(part)
		switch {
		case part == "" || len(parts) != len(bytes):
			return netip.Addr{}, mistakef("write networks like 10.0.0.0/8", "%s does not have the four numbers of an IPv4 address", quote(text))
		case !ok:
			return netip.Addr{}, mistakef("", "in %s, %s is not a number", quote(text), quote(part))
		case len(part) > 1 && part[0] == '0':
			return netip.Addr{}, mistakef("some programs would take it for octal", "in %s, %s has a leading zero", quote(text), quote(part))
		case n > 255:
			return netip.Addr{}, mistakef("", "in %s, %s is more than 255", quote(text), part)
		}
		bytes[i] = byte(n)
	}
	return netip.AddrFrom4(bytes), nil
}

func parseLength(text, length string, addr netip.Addr) (int, error) {
	n, ok := digits(length)
	switch {
	case length == "":
		return 0, mistakef("", "%s has no length after the /", quote(text))
	case strings.ContainsAny(length, ".:"):
		return 0, maskMistake(text, length)
	case !ok:
		return 0, mistakef("", "in %s, the length %s is not a number", quote(text), quote(length))
	case len(length) > 1 && length[0] == '0':
		return 0, mistakef("", "in %s, the length %s has a leading zero", quote(text), quote(length))
	case n > addr.BitLen():
		return 0, mistakef("", "in %s, the length %s is more than %d", quote(text), length, addr.BitLen())
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
	return mistakef(hint, "%s has a mask where a length is expected", quote(text))
}
