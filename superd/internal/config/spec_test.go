package config

import "testing"

func TestParseSpec(t *testing.T) {
	for _, x := range []struct{ text, want, canonical string }{
		{"10.0.0.0/8", "10.0.0.0/8", ""},
		{"192.0.2.1", "192.0.2.1", ""},
		{"192.0.2.1/32", "192.0.2.1", ""},
		{"0.0.0.0/0", "0.0.0.0/0", ""},
		{"::/0", "::/0", ""},
		{"2001:db8::/32", "2001:db8::/32", ""},
		{"2001:0DB8::1", "2001:db8::1", ""},
		{"::ffff:192.0.2.0/120", "192.0.2.0/24", ""},
		{"::ffff:192.0.2.1", "192.0.2.1", ""},
		{"::ffff:0:0/96", "0.0.0.0/0", ""},
		{"10.1.2.3/8", "10.0.0.0/8", "10.0.0.0/8"},
		{"2001:db8::1/32", "2001:db8::/32", "2001:db8::/32"},
		{"::ffff:10.1.2.3/104", "10.0.0.0/8", "10.0.0.0/8"},
		{"uid:1000", "uid:1000", ""},
		{"uid:alice", "uid:alice", ""},
		{"gid:adm", "gid:adm", ""},
		{"gid:4294967294", "gid:4294967294", ""},
	} {
		s, canonical, err := ParseSpec(x.text)
		if err != nil || s.String() != x.want || canonical != x.canonical {
			t.Errorf("%s: %s, %q, %v; want %s, %q", x.text, s, canonical, err, x.want, x.canonical)
		}
		if again, _, err := ParseSpec(s.String()); again != s || err != nil {
			t.Errorf("%s: %s is read as %s, %v", x.text, s, again, err)
		}
	}
}

// hinted is what the file's messages make of an error.
func hinted(err error) string {
	if err == nil {
		return "no error"
	}
	p := problemOf(Position{}, "", err)
	if p.Hint == "" {
		return p.What
	}
	return p.What + " (" + p.Hint + ")"
}

func TestParseSpecErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                     `is empty (write it like 10.0.0.0/8)`,
		"1.2.3.4/33":           `in "1.2.3.4/33", the length 33 is more than 32`,
		"/+24":                 `"/+24" has no address before the / (write it like 10.0.0.0/8)`,
		"//24":                 `"//24" has no address before the / (write it like 10.0.0.0/8)`,
		"01.2.3.4":             `in "01.2.3.4", "01" has a leading zero (some programs would take it for octal)`,
		"1.2.3.00":             `in "1.2.3.00", "00" has a leading zero (some programs would take it for octal)`,
		"+1.2.3.4":             `in "+1.2.3.4", "+1" is not a number`,
		"-1.2.3.4":             `in "-1.2.3.4", "-1" is not a number`,
		"ff::ff/129":           `in "ff::ff/129", the length 129 is more than 128`,
		"256.1.1.1":            `in "256.1.1.1", 256 is more than 255`,
		"1.1.1.99999999999999": `in "1.1.1.99999999999999", 99999999999999 is more than 255`,
		"1.2.3":                `"1.2.3" does not have the four numbers of an IPv4 address (write networks like 10.0.0.0/8)`,
		"10.":                  `"10." does not have the four numbers of an IPv4 address (write networks like 10.0.0.0/8)`,
		"1.2.3.4.5":            `"1.2.3.4.5" does not have the four numbers of an IPv4 address (write networks like 10.0.0.0/8)`,
		"10/8":                 `"10/8" does not have the four numbers of an IPv4 address (write networks like 10.0.0.0/8)`,
		"10.0.0.0/":            `"10.0.0.0/" has no length after the /`,
		"10.0.0.0/+8":          `in "10.0.0.0/+8", the length "+8" is not a number`,
		"10.0.0.0/08":          `in "10.0.0.0/08", the length "08" has a leading zero`,
		"10.0.0.0/8/8":         `in "10.0.0.0/8/8", the length "8/8" is not a number`,
		"10.0.0.0/8 ":          `"10.0.0.0/8 " is more than one rule (write each on a line or in quotes of its own)`,
		"10.0.0.0/255.0.0.0":   `"10.0.0.0/255.0.0.0" has a mask where a length is expected (write /8)`,
		"10.0.0.0/255.0.255.0": `"10.0.0.0/255.0.255.0" has a mask where a length is expected`,
		"localhost":            `"localhost" is not an address (names of hosts are not accepted: they change)`,
		"10.0.0.1-10.0.0.5":    `"10.0.0.1-10.0.0.5" does not have the four numbers of an IPv4 address (write networks like 10.0.0.0/8)`,
		"fe80::1%eth0":         `"fe80::1%eth0" has a zone, which no rule looks at (leave the zone out)`,
		"[::1]":                `"[::1]" has brackets (leave the brackets out)`,
		":::":                  `":::" is not an IPv6 address`,
		"1::2::3/64":           `"1::2::3/64" is not an IPv6 address`,
		"uid:":                 `"uid:" names nobody (write uid:1000, or gid:adm)`,
		"uid:4294967295":       `"uid:4294967295" is more than the highest number, 4294967294`,
		"uid:-1":               `"-1" cannot be a name`,
		"gid:a b":              `"gid:a b" is more than one rule (write each on a line or in quotes of its own)`,
	} {
		_, _, err := ParseSpec(text)
		if got := hinted(err); got != want {
			t.Errorf("%q: %v\nwant    %s", text, got, want)
		}
	}
}
