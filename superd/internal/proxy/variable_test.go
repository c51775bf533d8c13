package proxy

import (
	"slices"
	"strings"
	"testing"
)

// orderly wants names of ours, each once, with values that cannot be taken
// for anything else.
func orderly(t *testing.T, environment []byte) {
	t.Helper()
	if len(environment) > MostVariables {
		t.Errorf("%d bytes", len(environment))
	}
	var seen []string
	for _, entry := range strings.SplitAfter(string(environment), "\x00") {
		name, value, found := strings.Cut(strings.TrimSuffix(entry, "\x00"), "=")
		switch {
		case entry == "":
		case !found || !strings.HasSuffix(entry, "\x00") || !slices.Contains(Names(), name) || slices.Contains(seen, name):
			t.Errorf("%q", entry)
		case value == "" || strings.Trim(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-") != "" || strings.IndexByte("._:-", value[0]) >= 0:
			t.Errorf("%q", entry)
		}
		seen = append(seen, name)
	}
}

func TestVariables(t *testing.T) {
	full := Header{UniqueID: []byte("\x00\xfe="), Authority: []byte("www.example.org"), SSL: SSL{
		On: true, Certificate: true, Verified: true, Version: []byte("TLSv1.3"), Cipher: []byte("TLS_AES_256_GCM_SHA384"), CommonName: []byte("alice"),
	}}
	plain, anonymous, unverified := full, full, full
	plain.SSL.On, plain.SSL.Certificate, plain.SSL.Verified = false, false, false
	anonymous.SSL.Certificate, anonymous.SSL.Verified = false, false
	unverified.SSL.Verified = false
	const always = "SUPERD_PROXY_UNIQUE_ID=00fe3d SUPERD_PROXY_AUTHORITY=www.example.org"
	const ssl = always + " SUPERD_PROXY_SSL=on SUPERD_PROXY_SSL_VERSION=TLSv1.3 SUPERD_PROXY_SSL_CIPHER=TLS_AES_256_GCM_SHA384"
	for _, c := range []struct {
		h    Header
		want string
	}{
		{Header{}, ""},
		{Header{ALPN: []byte("h2"), Namespace: []byte("blue")}, ""},
		{plain, always},
		{anonymous, ssl},
		{unverified, ssl + " SUPERD_PROXY_SSL_VERIFIED=no"},
		{full, ssl + " SUPERD_PROXY_SSL_VERIFIED=yes SUPERD_PROXY_SSL_CN=alice"},
	} {
		b := c.h.AppendVariables([]byte("A=B\x00"))
		orderly(t, b[len("A=B\x00"):])
		if got := strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " ")); got != strings.TrimSpace("A=B "+c.want) {
			t.Errorf("%+v:\n got %s\nwant %s", c.h, got, c.want)
		}
	}
}

// TestTexts: what could be another name, an option, a path or a line is left
// out, and not mended.
func TestTexts(t *testing.T) {
	host := strings.Repeat("a.", 127)
	for text, kept := range map[string]bool{
		"a": true, "0": true, "A-b_c.d:e": true, "xn--bcher-kva.example": true, "192.0.2.1": true, "2001:db8::1": true, host: true, host + "b": true,
		"": false, ".": false, "..": false, "-rf": false, "_a": false, "::1": false, "[::1]": false, "a b": false, "a/b": false, "*.example.org": false,
		"a\n": false, "a\x00": false, "\x00": false, "b\xc3\xbccher": false, "a@b": false, "a=b": false, "a%b": false, "$a": false, "a;b": false, host + "bc": false,
	} {
		h := Header{Authority: []byte(text)}
		want := ""
		if kept {
			want = "SUPERD_PROXY_AUTHORITY=" + text + "\x00"
		}
		if got := string(h.AppendVariables(nil)); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestMostVariables(t *testing.T) {
	text := []byte(strings.Repeat("x", mostText))
	h := Header{UniqueID: text[:mostUniqueID], Authority: text, SSL: SSL{On: true, Certificate: true, Verified: true, Version: text, Cipher: text, CommonName: text}}
	b := h.AppendVariables(nil)
	orderly(t, b)
	for _, name := range Names() {
		if strings.Count("\x00"+string(b), "\x00"+name+"=") != 1 {
			t.Errorf("%s is not there", name)
		}
	}
}
