package config

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// endpoints is what one address in the file stands for.
type endpoints struct {
	family     Family
	addrs      []netip.Addr
	port       uint16
	everywhere bool   // a bare port: every address of the machine
	datagrams  bool   // nobody connects there
	name       string // of a unix socket, or an inherited one
	cid, vport uint32 // of a vsock one
}

// resolve reads an address. Names of hosts and ports are looked up.
func (d *decoder) resolve(text string) (endpoints, error) {
	if rest, is := strings.CutPrefix(text, "unix:"); is {
		return endpoints{family: Unix, name: rest}, checkSocketName(rest)
	}
	if rest, is := strings.CutPrefix(text, "vsock:"); is {
		return vsockEndpoint(rest)
	}
	if rest, is := strings.CutPrefix(text, "fd:"); is {
		return endpoints{family: Inherited, name: rest}, checkDescriptorName(rest)
	}
	if rest, is := strings.CutPrefix(text, "udp:"); is {
		e, err := d.resolveInternet(rest, "udp")
		e.family, e.datagrams = UDP, true
		return e, err
	}
	if strings.HasPrefix(text, "/") || strings.HasPrefix(text, "@") {
		return endpoints{}, mistakef("write unix:"+text, "%s is no address", quote(text))
	}
	e, err := d.resolveInternet(text, "tcp")
	if err != nil && strings.HasPrefix(text, "tcp:") {
		err = mistakef("leave out tcp:", "%s is no address: TCP is what has nothing in front", quote(text))
	}
	return e, err
}

// resolveInternet reads an address of a protocol that ports have names for.
func (d *decoder) resolveInternet(text, protocol string) (endpoints, error) {
	host, port, err := splitAddress(text)
	if err != nil {
		return endpoints{}, err
	}
	n, err := d.port(port, protocol)
	if err != nil {
		return endpoints{}, err
	}
	if host == "*" {
		return endpoints{addrs: []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, port: n, everywhere: true}, nil
	}
	addrs, err := d.host(host)
	return endpoints{addrs: addrs, port: n}, err
}

// longestSocketName is what struct sockaddr_un has room for, a byte less than
// its whole length: before an abstract name stands a zero byte, and not every
// program finds the end of a path that fills it (unix(7)).
const longestSocketName = 107

// checkSocketName looks at what stands behind "unix:".
func checkSocketName(name string) error {
	bare := strings.TrimPrefix(name, "@")
	switch {
	case name == "":
		return mistakef("write unix:/PATH or unix:@NAME", `"unix:" has no path`)
	case bare == "":
		return mistakef("write unix:@NAME", `"unix:@" has no name`)
	case len(bare) > longestSocketName:
		return mistakef("", "the name of a unix socket has at most %d bytes, this one has %d", longestSocketName, len(bare))
	case bare != name:
		return nil
	case name[0] != '/':
		return mistakef("begin it with /, or with @ for a name without a file", "%s is not an absolute path", quote(name))
	case strings.HasSuffix(name, "/"):
		return mistakef("", "%s is a directory", quote(name))
	}
	return nil
}

// vsockEndpoint reads what stands behind "vsock:".
func vsockEndpoint(text string) (endpoints, error) {
	e := endpoints{family: VSock, cid: AnyCID}
	cid, port, named := strings.Cut(text, ":")
	if !named {
		cid, port = "", text
	}
	var err error
	switch {
	case strings.Contains(port, ":"):
		return e, mistakef("write vsock:PORT or vsock:CID:PORT", "%s has too many colons", quote("vsock:"+text))
	case port == "":
		return e, mistakef("write vsock:PORT or vsock:CID:PORT", "%s has no port", quote("vsock:"+text))
	case named:
		e.cid, err = vsockNumber(cid, "CID")
	}
	if err != nil {
		return e, err
	}
	e.vport, err = vsockNumber(port, "port")
	return e, err
}

// vsockNumber reads one of the two numbers of an address; the highest stands for
// any.
func vsockNumber(text, what string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	switch {
	case leadingZero.MatchString(text):
		return 0, mistakef("it looks octal: leave out the leading zero", "%s is not a vsock %s", quote(text), what)
	case err != nil || n == AnyCID:
		return 0, mistakef("", "%s is not a vsock %s, must be 0 to 4294967294", quote(text), what)
	}
	return uint32(n), nil
}

// longestDescriptorName is the most that sd_listen_fds(3) allows.
const longestDescriptorName = 255

// checkDescriptorName looks at what stands behind "fd:".
func checkDescriptorName(name string) error {
	switch {
	case name == "":
		return mistakef("write fd:NAME, as FileDescriptorName= of the socket unit has it", `"fd:" has no name`)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == ':' }):
		return mistakef("", "%s cannot name a descriptor: it has other characters than printable ones of ASCII without the colon", quote(name))
	case len(name) > longestDescriptorName:
		return mistakef("", "the name of a descriptor has at most %d bytes, this one has %d", longestDescriptorName, len(name))
	}
	return nil
}

// splitAddress parts host and port; the host of a bare port is *.
func splitAddress(text string) (host, port string, err error) {
	switch {
	case strings.HasPrefix(text, "["):
		return splitBracketed(text)
	case strings.Contains(text, ":"):
		return splitColon(text)
	case text == "*" || strings.Contains(text, "."):
		return "", "", noPort(text)
	}
	return "*", text, nil
}

func noPort(text string) error {
	return mistakef("write "+yamlQuoted(text+":PORT"), "%s has no port", quote(text))
}

// yamlQuoted puts quotes around an address that YAML would not take for a text.
func yamlQuoted(address string) string {
	if strings.ContainsAny(address[:1], "[*") {
		return `"` + address + `"`
	}
	return address
}

func splitBracketed(text string) (host, port string, err error) {
	host, rest, closed := strings.Cut(text[1:], "]")
	switch addr, err := netip.ParseAddr(host); {
	case !closed:
		return "", "", mistakef(`write "[ADDRESS]:PORT"`, `%s has no "]"`, quote(text))
	case err != nil:
		return "", "", mistakef("", "%s in brackets is not an IPv6 address", quote(host))
	case addr.Is4():
		return "", "", mistakef("brackets are for IPv6", "%s in brackets is not an IPv6 address", quote(host))
	case rest == "" || rest == ":":
		return "", "", noPort("[" + host + "]")
	case rest[0] != ':':
		return "", "", mistakef(`write "[ADDRESS]:PORT"`, `%s has no ":" after the "]"`, quote(text))
	}
	return host, rest[1:], nil
}

func splitColon(text string) (host, port string, err error) {
	last := strings.LastIndexByte(text, ':')
	host, port = text[:last], text[last+1:]
	switch {
	case strings.Contains(host, ":"):
		return "", "", withoutBrackets(text, host, port)
	case port == "":
		return "", "", noPort(host)
	case host == "":
		return "", "", mistakef("write "+port+" for every address", "%s has no host", quote(text))
	}
	return host, port, nil
}

// withoutBrackets explains more than one colon.
func withoutBrackets(text, host, port string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		return mistakef(`write "[`+host+`]:`+port+`"`, "%s is not clear, an IPv6 address needs brackets", quote(text))
	}
	if _, err := netip.ParseAddr(text); err == nil {
		return mistakef(`write "[`+text+`]:PORT"`, "%s has no port", quote(text))
	}
	return mistakef(`write HOST:PORT or "[IPV6]:PORT"`, "%s has too many colons", quote(text))
}

var (
	signedNumber = regexp.MustCompile(`^[+-]?[0-9]+$`)
	portName     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_+.-]*$`)
)

// port reads a port's number, or its name in /etc/services.
func (d *decoder) port(text, protocol string) (uint16, error) {
	if signedNumber.MatchString(text) {
		return portNumber(text)
	}
	if portName.MatchString(text) {
		if n, err := d.sys.LookupPort(protocol, text); err == nil && 0 < n && n <= 65535 {
			return uint16(n), nil
		}
	}
	return 0, mistakef(`write PORT, HOST:PORT or "[IPV6]:PORT"`, "%s is neither a port number nor a service name", quote(text))
}

func portNumber(text string) (uint16, error) {
	if leadingZero.MatchString(text) {
		return 0, mistakef("it looks octal: leave out the leading zero", "%s is not a port number", quote(text))
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, mistakef("", "%s is not a port number, must be 0 to 65535", quote(text))
	}
	return uint16(n), nil
}

var (
	digitsAndDots = regexp.MustCompile(`^[0-9.]+$`)
	octalPart     = regexp.MustCompile(`(^|\.)0[0-9]`)
	hostName      = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?$`)
)

// host reads an address, or looks a host name up.
func (d *decoder) host(text string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return []netip.Addr{addr}, checkAddr(addr)
	}
	switch {
	case digitsAndDots.MatchString(text) && octalPart.MatchString(text):
		return nil, mistakef("it looks octal: leave out the leading zeros", "%s is not an IPv4 address", quote(text))
	case digitsAndDots.MatchString(text):
		return nil, mistakef("", "%s is not an IPv4 address", quote(text))
	case !hostName.MatchString(text):
		return nil, mistakef("", "%s is neither an address nor a host name", quote(text))
	}
	return d.lookupHost(text)
}

// checkAddr refuses addresses that no IPv6-only socket can be bound to.
func checkAddr(addr netip.Addr) error {
	switch {
	case addr.Is4In6():
		return mistakef("write "+addr.Unmap().String(), "%s is an IPv4 address written as IPv6", addr)
	case addr.Is6() && addr.IsLinkLocalUnicast() && addr.Zone() == "":
		return mistakef("write "+addr.String()+"%eth0", "the link-local address %s needs its interface", addr)
	}
	return nil
}

// lookupHost asks for each name once. What a resolver says about a failure
// differs between machines, so it is not repeated.
func (d *decoder) lookupHost(name string) ([]netip.Addr, error) {
	addrs, asked := d.hosts[name]
	if !asked {
		addrs = d.askHost(name)
		d.hosts[name] = addrs
	}
	if len(addrs) == 0 {
		return nil, mistakef("", "host %s does not resolve", name)
	}
	return addrs, nil
}

func (d *decoder) askHost(name string) []netip.Addr {
	found, err := d.sys.LookupHost(name)
	if err != nil {
		return nil
	}
	var addrs []netip.Addr
	for _, addr := range found {
		if addr = addr.Unmap(); !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}
