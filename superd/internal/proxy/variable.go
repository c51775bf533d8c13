package proxy

import "encoding/hex"

// A variable is one entry of a program's environment.
type variable struct {
	name   string
	value  []byte // nothing where there is none
	opaque bool   // any bytes, to be written in hexadecimal
}

// variables are what a program may learn of a header beside the addresses,
// with the meanings that superd-program(7) has for them. The common name is
// that of a verified certificate only: a program that lets somebody in by this
// name need look at nothing else.
func (h *Header) variables() [7]variable {
	s := &h.SSL
	return [...]variable{
		{"SUPERD_PROXY_UNIQUE_ID", h.UniqueID, true},
		{"SUPERD_PROXY_AUTHORITY", h.Authority, false},
		{"SUPERD_PROXY_SSL", when(s.On, on), false},
		{"SUPERD_PROXY_SSL_VERSION", when(s.On, s.Version), false},
		{"SUPERD_PROXY_SSL_CIPHER", when(s.On, s.Cipher), false},
		{"SUPERD_PROXY_SSL_VERIFIED", when(s.Certificate, yesOrNo(s.Verified)), false},
		{"SUPERD_PROXY_SSL_CN", when(s.Verified, s.CommonName), false},
	}
}

var (
	on      = []byte("on")
	yes, no = []byte("yes"), []byte("no")
)

func when(it bool, text []byte) []byte {
	if it {
		return text
	}
	return nil
}

func yesOrNo(it bool) []byte {
	if it {
		return yes
	}
	return no
}

// Names are those of the variables, in the order in which they are appended.
func Names() (list []string) {
	for _, v := range new(Header).variables() {
		list = append(list, v.name)
	}
	return list
}

// MostVariables is how many bytes AppendVariables appends at most.
const MostVariables = 1536

// AppendVariables appends to b what a program may learn of the header, as
// environ(7) has it: NAME=value, each with a zero byte behind it. What the
// header does not say is left out, and so is a text that has a byte outside of
// [A-Za-z0-9._:-], does not begin with a letter or a digit, or is longer than
// 255 bytes: mended, it could be the name of somebody else.
func (h *Header) AppendVariables(b []byte) []byte {
	for _, v := range h.variables() {
		if len(v.value) == 0 || !v.opaque && !plain(v.value) {
			continue
		}
		b = append(b, v.name...)
		b = append(b, '=')
		if v.opaque {
			b = hex.AppendEncode(b, v.value)
		} else {
			b = append(b, v.value...)
		}
		b = append(b, 0)
	}
	return b
}

// mostText bounds a value, in bytes: no host name is longer.
const mostText = 255

// plain tells whether a text that a client may have chosen can be handed on.
// Its first byte keeps it from being taken for an option, or for a directory
// above.
func plain(text []byte) bool {
	if len(text) > mostText || !letterOrDigit(text[0]) {
		return false
	}
	for _, c := range text {
		if !letterOrDigit(c) && c != '.' && c != '_' && c != ':' && c != '-' {
			return false
		}
	}
	return true
}

func letterOrDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
