package proxy

import "testing"

// usual are headers as they come, by what they have.
var usual = map[string]string{
	"tcp4":    "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n",
	"tcp6":    "PROXY TCP6 2001:db8:1:2:3:4:5:6 2001:db8:1:2:3:4:5:7 56324 443\r\n",
	"unknown": "PROXY UNKNOWN\r\n",
	"local":   v2(localCommand, unspecified),
	"v2":      tcp(),
	"ssl": summed(tcp(unsummed, field(authority, "www.example.org"), field(uniqueID, "7F000001:AA54_7F000001:D207_6B018529_000D"), sslField(7, 0,
		field(sslVersion, "TLSv1.3"), field(sslCommonName, "alice.example"), field(sslCipher, "TLS_AES_256_GCM_SHA384")))),
}

func TestNothingIsAllocated(t *testing.T) {
	variables := make([]byte, 0, MostVariables)
	for name, header := range usual {
		b := []byte(header)
		for _, part := range [][]byte{b, b[:len(b)-1], b[:1]} {
			if n := testing.AllocsPerRun(100, func() {
				h, _, err := Parse(part)
				if err != nil && err != ErrMore {
					t.Fatal(err)
				}
				variables = h.AppendVariables(variables[:0])
			}); n != 0 {
				t.Errorf("%s, %d bytes: %v allocations", name, len(part), n)
			}
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for name, header := range usual {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			text := []byte(header)
			for b.Loop() {
				if _, _, err := Parse(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVariables(b *testing.B) {
	h, _, err := Parse([]byte(usual["ssl"]))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	variables := make([]byte, 0, MostVariables)
	for b.Loop() {
		variables = h.AppendVariables(variables[:0])
	}
}
