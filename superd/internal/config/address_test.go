package config

import (
	"net/netip"
	"testing"
)

// countingSystem answers like some resolvers do: the same address twice, and
// IPv4 written as IPv6.
type countingSystem struct {
	fakeSystem
	asked *int
}

func (s countingSystem) LookupHost(string) ([]netip.Addr, error) {
	*s.asked++
	return []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("192.0.2.1")}, nil
}

func TestHostsAreAskedOnce(t *testing.T) {
	asked := 0
	text := `services: {a: {builtin: echo, listen: ["many.example:7", "many.example:8"]}}`
	c, err := Parse("test.yaml", []byte(text), countingSystem{asked: &asked})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, asked, 1)
	equal(t, len(c.Services[0].Listen), 2)
	equal(t, c.Services[0].Listen[0].Addr, netip.MustParseAddrPort("192.0.2.1:7"))
}
