package config

import (
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// fakeSystem knows the same names on every machine.
type fakeSystem struct{}

var (
	fakeHosts = map[string][]netip.Addr{
		"localhost":    {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")},
		"good.example": {netip.MustParseAddr("192.0.2.7")},
	}
	fakePorts = map[string]int{"tftp/udp": 7000, "http": 80, "echo": 7, "ssh": 22}
	fakeFiles = map[string]string{
		"/rules/office": "10.0.0.0/8 # all of it\n\n2001:db8::/32\nuid:alice\n",
		"/rules/wrong":  "10.0.0.0/8\n  1.2.3.4/33\n10.1.2.3/16\n",
		"/rules/empty":  "# nobody yet\n",
	}
)

func (fakeSystem) LookupHost(name string) ([]netip.Addr, error) {
	if addrs, is := fakeHosts[name]; is {
		return addrs, nil
	}
	return nil, errors.New("no such host")
}

func (fakeSystem) LookupPort(network, service string) (int, error) {
	if network == "udp" {
		service += "/udp"
	}
	if port, is := fakePorts[service]; is {
		return port, nil
	}
	return 0, errors.New("unknown port")
}

func (fakeSystem) ReadFile(path string, _ int64) ([]byte, error) {
	if text, is := fakeFiles[path]; is {
		return []byte(text), nil
	}
	return nil, fs.ErrNotExist
}

func (fakeSystem) ReadDir(string) ([]string, error) { return nil, fs.ErrNotExist }

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("test.yaml", []byte(text), fakeSystem{})
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return c
}

// problemsOf returns the message of a text that must not parse.
func problemsOf(t *testing.T, text string) string {
	t.Helper()
	_, err := Parse("test.yaml", []byte(text), fakeSystem{})
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("error is %v, want Problems\n%s", err, text)
	}
	return err.Error()
}

func TestBadFiles(t *testing.T) {
	for _, path := range glob(t, "testdata/bad/*.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			_, err := Parse(filepath.Base(path), contents(t, path), fakeSystem{})
			if err == nil {
				t.Fatal("no error")
			}
			compareGolden(t, strings.TrimSuffix(path, ".yaml")+".err", err.Error()+"\n")
		})
	}
}

func compareGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if want := string(contents(t, path)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatal(pattern, err)
	}
	return paths
}

func contents(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
