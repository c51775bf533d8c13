package proxy

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// split makes addresses of "FROM > TO".
func split(t *testing.T, addresses string) (from, to netip.AddrPort) {
	t.Helper()
	a, b, _ := strings.Cut(addresses, " > ")
	from, err := netip.ParseAddrPort(a)
	if err != nil {
		t.Fatal(err)
	}
	to, err = netip.ParseAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	return from, to
}

func TestAddresses(t *testing.T) {
	inet6 := strings.Repeat("\x20\x01\x0d\xb8\x00\x00\x00\x00", 2) + strings.Repeat("\x20\x02\x0d\xb8\x00\x00\x00\x00", 2) + "\x01\x02\x03\x04"
	mapped := strings.Repeat("\x00", 10) + "\xff\xff\x7f\x00\x00\x01"
	for header, want := range map[string]string{
		"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n":                "192.0.2.1:56324 > 192.0.2.2:443",
		"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n":                          "0.0.0.0:0 > 0.0.0.0:0",
		"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n":  "255.255.255.255:65535 > 255.255.255.255:65535",
		"PROXY TCP6 :: ::1 0 1\r\n":                                   "[::]:0 > [::1]:1",
		"PROXY TCP6 2001:DB8::a 2001:0db8:0:0:0:0:0:000B 1 65535\r\n": "[2001:db8::a]:1 > [2001:db8::b]:65535",
		"PROXY TCP6 ::ffff:192.0.2.1 ::FFFF:c000:0202 1 2\r\n":        "192.0.2.1:1 > 192.0.2.2:2", // nginx, HAProxy
		"PROXY TCP6 2001:db8::7 ::ffff:192.0.2.1 1 2\r\n":             "[2001:db8::7]:1 > 192.0.2.1:2",
		"PROXY TCP6 ::192.0.2.1 64:ff9b::192.0.2.1 1 2\r\n":           "[::c000:201]:1 > [64:ff9b::c000:201]:2",
		"PROXY TCP6 " + strings.Repeat(strings.Repeat("ffff:", 7)+"ffff ", 2) + "65535 65535\r\n": strings.Replace(
			"[X]:65535 > [X]:65535", "X", strings.Repeat("ffff:", 7)+"ffff", 2),
		tcp():                                "192.0.2.1:258 > 192.0.2.2:772",
		v2(proxyCommand, inet6Stream, inet6): "[2001:db8::2001:db8:0:0]:258 > [2002:db8::2002:db8:0:0]:772",
		v2(proxyCommand, inet6Stream, mapped, mapped, "\x00\x01\x00\x02"):     "127.0.0.1:1 > 127.0.0.1:2",
		v2(proxyCommand, inet6Stream, inet6[:16], mapped, "\x00\x01\x00\x02"): "[2001:db8::2001:db8:0:0]:1 > 127.0.0.1:2",
	} {
		h, n, err := Parse([]byte(header + "rest"))
		from, to := split(t, want)
		version := 1 + strings.Count(header[:1], "\r")
		if err != nil || n != len(header) || !reflect.DeepEqual(h, Header{Version: version, Source: from, Destination: to}) {
			t.Errorf("%q: %+v, %d, %v", header, h, n, err)
		}
	}
}

// TestLocal: the connection's own addresses count.
func TestLocal(t *testing.T) {
	longest := "PROXY UNKNOWN " + strings.Repeat(strings.Repeat("ffff:", 7)+"ffff ", 2) + "65535 65535\r\n"
	for header, want := range map[string]Header{
		"PROXY UNKNOWN\r\n":                            {Version: 1},
		"PROXY UNKNOWN \r\n":                           {Version: 1},
		"PROXY UNKNOWN any \x00\xff thing  at all\r\n": {Version: 1},
		longest:                                          {Version: 1},
		v2(localCommand, unspecified):                    {Version: 2},
		v2(localCommand, unspecified, "ignored"):         {Version: 2},
		v2(localCommand, inetStream):                     {Version: 2}, // its family does not matter
		v2(localCommand, 0xff, "\xff\xff"):               {Version: 2},
		v2(proxyCommand, unspecified):                    {Version: 2},
		v2(proxyCommand, unspecified, field(alpn, "h2")): {Version: 2, ALPN: []byte("h2")},
		v2(proxyCommand, unixStream, strings.Repeat("/", 216), field(uniqueID, "1")): {Version: 2, UniqueID: []byte("1")},
	} {
		want.Local = true
		h, n, err := Parse([]byte(header + "\r\nrest"))
		if err != nil || n != len(header) || !reflect.DeepEqual(h, want) {
			t.Errorf("%q: %+v, %d, %v", header, h, n, err)
		}
	}
	if len(longest) != mostLine {
		t.Errorf("the longest line has %d bytes", len(longest))
	}
}

func TestFields(t *testing.T) {
	header := summed(tcp(field(0x04), field(alpn, "http/1.1"), field(0xea, "\x01vpce-1"), unsummed, field(authority, "www.example.org"),
		field(uniqueID, "\x00\xff"), sslField(overSSL|withCertificate, 0, field(sslVersion, "TLSv1.3"), field(0x28, "certificate"), field(sslCipher, "C"),
			field(sslCommonName, "alice"), field(sslSignatureAlgorithm, "RSA-SHA256"), field(sslKeyAlgorithm, "RSA2048"), field(alpn, "not this one")),
		field(namespace, "blue"), field(0xea), field(sslVersion, "nor this"), field(0x04, "\x00\x00")))
	from, to := split(t, "192.0.2.1:258 > 192.0.2.2:772")
	want := Header{
		Version: 2, Source: from, Destination: to,
		ALPN: []byte("http/1.1"), Authority: []byte("www.example.org"), UniqueID: []byte("\x00\xff"), Namespace: []byte("blue"),
		SSL: SSL{
			On: true, Certificate: true, Verified: true,
			Version: []byte("TLSv1.3"), Cipher: []byte("C"), CommonName: []byte("alice"),
			SignatureAlgorithm: []byte("RSA-SHA256"), KeyAlgorithm: []byte("RSA2048"),
		},
	}
	if h, n, err := Parse([]byte(header)); err != nil || n != len(header) || !reflect.DeepEqual(h, want) {
		t.Errorf("%+v, %d, %v", h, n, err)
	}
}

// TestVerified: a result alone proves nothing.
func TestVerified(t *testing.T) {
	for _, c := range []struct {
		client byte
		result uint32
		want   SSL
	}{
		{0, 0, SSL{}},
		{withCertificate, 0, SSL{}},
		{overSSL, 0, SSL{On: true}},
		{overSSL | 0xf8, 0, SSL{On: true}},
		{overSSL | withCertificate, 0, SSL{On: true, Certificate: true, Verified: true}},
		{overSSL | hadCertificate, 0, SSL{On: true, Certificate: true, Verified: true}},
		{overSSL | withCertificate, 1, SSL{On: true, Certificate: true}},
		{overSSL | hadCertificate, 1 << 31, SSL{On: true, Certificate: true}},
	} {
		h, _, err := Parse([]byte(tcp(sslField(c.client, c.result))))
		if err != nil || !reflect.DeepEqual(h.SSL, c.want) {
			t.Errorf("%#x, %#x: %+v, %v", c.client, c.result, h.SSL, err)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, header := range []string{
		tcp(field(uniqueID, strings.Repeat("x", mostUniqueID))),
		tcp(field(uniqueID)),
		tcp(field(0xf8, strings.Repeat("x", MostBytes-len(tcp())-extraHead))),
		v2(localCommand, unspecified, strings.Repeat("x", MostBytes-headBytes)),
	} {
		if _, n, err := Parse([]byte(header)); err != nil || n != len(header) {
			t.Errorf("%d bytes: %d, %v", len(header), n, err)
		}
	}
}

// TestRefused has the words for every mistake, and bytes that show it at once:
// without the last of them there is no answer yet.
func TestRefused(t *testing.T) {
	long := strings.Repeat("x", mostLine)
	sub := func(fields ...string) string { return tcp(sslField(overSSL, 0, fields...)) }
	for _, c := range []struct{ bytes, want string }{
		{"G", "byte 1: this is not the beginning of a PROXY header"},
		{"\x16", "byte 1: this is not the beginning of a PROXY header"},
		{"\x00", "byte 1: this is not the beginning of a PROXY header"},
		{"p", "byte 1: this is not the beginning of a PROXY header"},
		{"PROXy", "byte 5: this is not the beginning of a PROXY header"},
		{"PROXY\t", "byte 6: this is not the beginning of a PROXY header"},
		{"\r\n\r\n\r", "byte 5: this is not the beginning of a PROXY header"},
		{"\r\n\r\n\x00\r\nq", "byte 8: this is not the beginning of a PROXY header"},
		{"PROXY  ", "byte 7: the protocol is none of TCP4, TCP6 and UNKNOWN"},
		{"PROXY TCP5", "byte 10: the protocol is none of TCP4, TCP6 and UNKNOWN"},
		{"PROXY TCP4\r", "byte 11: the protocol is none of TCP4, TCP6 and UNKNOWN"},
		{"PROXY UD", "byte 8: the protocol is none of TCP4, TCP6 and UNKNOWN"},
		{"PROXY UNKNOWNS", "byte 14: the protocol is none of TCP4, TCP6 and UNKNOWN"},
		{"PROXY UNKNOWN\n", "byte 14: the protocol is none of TCP4, TCP6 and UNKNOWN"},

		{"PROXY UNKNOWN\r\r", "byte 15: the CR before it has no LF"},
		{"PROXY UNKNOWN \r ", "byte 16: the CR before it has no LF"},
		{"PROXY UNKNOWN \n", "byte 15: an LF without a CR"},
		{("PROXY UNKNOWN " + long)[:mostLine], "byte 107: the line does not end within 107 bytes"},
		{("PROXY UNKNOWN " + long)[:mostLine-1] + "\r", "byte 107: the line does not end within 107 bytes"},
		{"PROXY TCP6 " + strings.Repeat(":", mostLine-11), "byte 107: the line does not end within 107 bytes"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", "byte 35: an LF without a CR"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r2", "byte 36: the CR before it has no LF"},
		{"PROXY TCP4 a", "byte 12: neither an address nor a port has this"},
		{"PROXY TCP4 :", "byte 12: neither an address nor a port has this"},
		{"PROXY TCP4 192.0.2.1\t", "byte 21: neither an address nor a port has this"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 +", "byte 32: neither an address nor a port has this"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 -", "byte 32: neither an address nor a port has this"},
		{"PROXY TCP6 fe80::1%", "byte 19: neither an address nor a port has this"},
		{"PROXY TCP6 [", "byte 12: neither an address nor a port has this"},

		{"PROXY TCP4 \r\n", "byte 12: there are not two addresses and two ports, with one space between"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "byte 12: there are not two addresses and two ports, with one space between"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", "byte 12: there are not two addresses and two ports, with one space between"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", "byte 12: there are not two addresses and two ports, with one space between"},
		{"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", "byte 12: there are not two addresses and two ports, with one space between"},
		{"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", "byte 12: there are not two addresses and two ports, with one space between"},
		{"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", `byte 12: the source "192.0.2.256" is not an IPv4 address`},
		{"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n", `byte 12: the source "192.0.2" is not an IPv4 address`},
		{"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", `byte 12: the source "192.0.2.01" is not an IPv4 address`},
		{"PROXY TCP4 3221225985 192.0.2.2 1 2\r\n", `byte 12: the source "3221225985" is not an IPv4 address`},
		{"PROXY TCP4 192.0.2.1 .0.2.2 1 2\r\n", `byte 22: the destination ".0.2.2" is not an IPv4 address`},
		{"PROXY TCP4   1 2\r\n", `byte 12: the source "" is not an IPv4 address`},
		{"PROXY TCP6 192.0.2.1 ::1 1 2\r\n", `byte 12: the source "192.0.2.1" is not an IPv6 address`},
		{"PROXY TCP6 ::1 192.0.2.1 1 2\r\n", `byte 16: the destination "192.0.2.1" is not an IPv6 address`},
		{"PROXY TCP6 1::2::3 ::1 1 2\r\n", `byte 12: the source "1::2::3" is not an IPv6 address`},
		{"PROXY TCP6 00001::1 ::1 1 2\r\n", `byte 12: the source "00001::1" is not an IPv6 address`},
		{"PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n", `byte 12: the source "1:2:3:4:5:6:7" is not an IPv6 address`},
		{"PROXY TCP4 192.0.2.1 192.0.2.2  2\r\n", "byte 32: the source port is missing"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n", "byte 34: the destination port is missing"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", `byte 32: the source port "65536" is not a number from 0 to 65535`},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 1 18446744073709551617\r\n", `byte 34: the destination port "18446744073709551617" is not a number from 0 to 65535`},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 1.5 2\r\n", `byte 32: the source port "1.5" is not a number from 0 to 65535`},
		{"PROXY TCP6 ::1 ::1 f 2\r\n", `byte 20: the source port "f" is not a number from 0 to 65535`},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", `byte 32: the source port "01" has a leading zero`},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 1 00\r\n", `byte 34: the destination port "00" has a leading zero`},

		{signature + "\x11", "byte 13: version and command are 0x11, not 0x20 or 0x21"},
		{signature + "\x22", "byte 13: version and command are 0x22, not 0x20 or 0x21"},
		{signature + "\x21\x12", "byte 14: the header is about datagrams (0x12), on a stream"},
		{signature + "\x21\x22", "byte 14: the header is about datagrams (0x22), on a stream"},
		{signature + "\x21\x32", "byte 14: the header is about datagrams (0x32), on a stream"},
		{signature + "\x21\x10", "byte 14: address family and transport 0x10 are unknown"},
		{signature + "\x21\x01", "byte 14: address family and transport 0x01 are unknown"},
		{signature + "\x21\x41", "byte 14: address family and transport 0x41 are unknown"},
		{signature + "\x21\x11\x0f\xf1", "byte 15: the header has 4097 bytes, more than 4096"},
		{signature + "\x20\x00\xff\xff", "byte 15: the header has 65551 bytes, more than 4096"},
		{signature + "\x21\x11\x00\x0b", "byte 15: 11 bytes have no room for two addresses, which are 12"},
		{signature + "\x21\x21\x00\x23", "byte 15: 35 bytes have no room for two addresses, which are 36"},
		{signature + "\x21\x31\x00\xd7", "byte 15: 215 bytes have no room for two addresses, which are 216"},

		{tcp("\x04"), "byte 29: what is left is too short for a field: 1"},
		{tcp("\x04\x00"), "byte 29: what is left is too short for a field: 2"},
		{tcp(field(4), "\x04\x00\x01"), "byte 32: a field of type 0x04 does not fit: its length is 1, and 0 is left"},
		{tcp("\x04\xff\xffx"), "byte 29: a field of type 0x04 does not fit: its length is 65535, and 1 is left"},
		{v2(proxyCommand, unspecified, "address"), "byte 17: a field of type 0x61 does not fit: its length is 25700, and 4 is left"},
		{tcp(field(alpn), field(alpn)), "byte 32: the ALPN comes a second time"},
		{tcp(field(authority, "a"), field(authority, "a")), "byte 33: the authority comes a second time"},
		{summed(tcp(unsummed, field(checksum, "\x00\x00\x00\x01"))), "byte 36: the checksum comes a second time"},
		{tcp(field(uniqueID), field(uniqueID)), "byte 32: the unique id comes a second time"},
		{tcp(sslField(0, 0), sslField(0, 0)), "byte 37: the SSL field comes a second time"},
		{tcp(field(namespace), field(namespace)), "byte 32: the network namespace comes a second time"},
		{tcp(field(uniqueID, strings.Repeat("x", mostUniqueID+1))), "byte 29: the unique id has 129 bytes, more than 128"},
		{tcp(field(checksum, "\x00\x00\x00")), "byte 29: the checksum has 3 bytes, not 4"},
		{tcp(field(checksum, "\x01\x02\x03\x04")), "byte 29: the checksum is 0x01020304, and that of the header 0x2a528ae8"},
		{tcp(field(ssl, "\x01\x00\x00\x00")), "byte 29: the SSL field has 4 bytes, less than 5"},
		{sub("\x21"), "byte 37: what is left is too short for a field: 1"},
		{tcp(sslField(overSSL, 0, "\x21\x00\x01"), field(4)), "byte 37: a field of type 0x21 does not fit: its length is 1, and 0 is left"},
		{sub(field(sslVersion), field(sslVersion)), "byte 40: the SSL version comes a second time"},
		{sub(field(sslCommonName), field(sslCommonName)), "byte 40: the SSL common name comes a second time"},
		{sub(field(sslCipher), field(sslCipher)), "byte 40: the SSL cipher comes a second time"},
		{sub(field(sslSignatureAlgorithm), field(sslSignatureAlgorithm)), "byte 40: the SSL signature algorithm comes a second time"},
		{sub(field(sslKeyAlgorithm), field(sslKeyAlgorithm)), "byte 40: the SSL key algorithm comes a second time"},
	} {
		checkRefusal(t, c.bytes, c.want)
	}
}

func checkRefusal(t *testing.T, bytes, want string) {
	t.Helper()
	if _, _, err := Parse([]byte(bytes[:len(bytes)-1])); err != ErrMore {
		t.Errorf("%q: an answer comes too early: %v", bytes, err)
	}
	h, n, err := Parse([]byte(bytes))
	got := ""
	if err != nil {
		got = err.Error()
	}
	var e *Error
	if got != want || err != nil && (!errors.As(err, &e) || n != 0 || !reflect.DeepEqual(h, Header{})) {
		t.Errorf("%q:\n got %q, %d\nwant %q", bytes, got, n, want)
	}
}
