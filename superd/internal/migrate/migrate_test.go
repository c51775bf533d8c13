package migrate

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"superd/superd/internal/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// disk is a machine with the files of this directory, and a few ports.
type disk struct{}

func (disk) ReadFile(name string) ([]byte, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read %s: no such file", name)
	}
	return data, err
}

func (disk) ReadDir(name string) (names []string, err error) {
	list, err := os.ReadDir(name)
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names, err
}

var ports = map[string]int{
	"tcpmux": 1, "echo": 7, "discard": 9, "daytime": 13, "chargen": 19, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "time": 37, "tftp": 69, "finger": 79,
	"pop3": 110, "auth": 113, "ident": 113, "nntp": 119, "imap2": 143, "talk": 517, "rsync": 873, "git": 9418, "amanda": 10080,
}

func (disk) LookupPort(_, name string) (int, error) {
	if n, is := ports[name]; is {
		return n, nil
	}
	return 0, errors.New("no such service")
}

// loads wants a file that superd takes.
func loads(t *testing.T, text []byte) *config.Config {
	t.Helper()
	c, err := config.Parse("out", text, &names{})
	if err != nil {
		t.Errorf("what comes out cannot be loaded: %v\n%s", err, text)
	}
	return c
}

func TestImport(t *testing.T) {
	for _, c := range []struct{ format, name string }{
		{"inetd", "debian.conf"},
		{"inetd", "freebsd.conf"},
		{"xinetd", "xinetd.conf"},
		{"systemd", "ssh.socket ssh@.service"},
		{"systemd", "gpsd.service gpsd.socket lonely.service"},
		{"systemd", "check.socket check@.service"},
		{"systemd", "udp.socket tftpd.service"},
	} {
		t.Run(c.format+"/"+c.name, func(t *testing.T) {
			var files []string
			for name := range strings.FieldsSeq(c.name) {
				files = append(files, filepath.Join("testdata", c.format, name))
			}
			r, err := Import(c.format, files, disk{})
			if err != nil {
				t.Fatal(err, r.Notes)
			}
			loads(t, r.Text)
			var all strings.Builder
			for _, n := range r.Notes {
				fmt.Fprintln(&all, n)
			}
			golden(t, filepath.Join("testdata", c.format, strings.Fields(c.name)[0]+".golden"), all.String()+"\n"+string(r.Text))
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: what comes out is\n%s", path, got)
	}
}

// everything is what a fuzz target wants of any text: an answer, a file that
// loads where there is one, and notes that fit on a line.
func everything(t *testing.T, format string, data string) {
	t.Helper()
	files := []string{"f"}
	if format == "systemd" {
		files = []string{"f.socket", "f.service", "f@.service"}
	}
	r, err := Import(format, files, one(data))
	for _, n := range r.Notes {
		if n.At.Line < 1 || n.What == "" || strings.ContainsAny(n.String(), "\n\r\x00\x1b") {
			t.Errorf("not a note: %q", n)
		}
	}
	if err == nil {
		loads(t, r.Text)
	} else if r.Text != nil || err.Error() == "" {
		t.Errorf("%v, and %q", err, r.Text)
	}
}

// one is a machine with one file, under any name.
type one string

func (o one) ReadFile(string) ([]byte, error)      { return []byte(o), nil }
func (o one) ReadDir(string) ([]string, error)     { return []string{"a", "b"}, nil }
func (one) LookupPort(n, name string) (int, error) { return disk{}.LookupPort(n, name) }

// seed adds the files of a format, whole and by their lines.
func seed(f *testing.F, format string) {
	paths, _ := filepath.Glob("testdata/" + format + "/*")
	more, _ := filepath.Glob("testdata/" + format + "/*/*")
	for _, path := range append(paths, more...) {
		data, err := os.ReadFile(path)
		if err == nil && !strings.HasSuffix(path, ".golden") {
			f.Add(string(data))
		}
	}
}

func FuzzInetd(f *testing.F) {
	seed(f, "inetd")
	for _, text := range []string{
		"", "\n", ":", "*:\n", "a", "x:y stream tcp nowait root internal", "#<off>#", "#<off># 7 stream tcp nowait root internal", "7 stream tcp nowait root internal\n7 stream tcp nowait root internal",
		"7 dgram udp nowait root internal\n7 stream tcp wait root internal", "7 stream tcp nowait/////a root /x", "7 stream tcp nowait.999999999 ro:ot /x", "7 stream tcp nowait -x x", "/s seqpacket unix wait root /x",
		":::9:/s stream unix nowait root /x", "tcpmux/help stream tcp nowait root /x", "tcpmux/ stream tcp wait root /x", "7 stream tcp nowait root \"/a b\" 'c d", "[::1:7 stream tcp nowait root /x", "\xff stream tcp nowait \xff /\xff \xff",
		"fe80::1:7 stream tcp nowait root /x", "a:7 stream tcp nowait root /x\nb:7 stream tcp nowait root /x", "0 stream tcp nowait 4294967295 /x", "a.b 7", "\x00", "7 stream tcp nowait root /x\n y", "7 stream tcp,sndbuf=,rcvbuf=9e9,x nowait root /usr/sbin/tcpd",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { everything(t, "inetd", text) })
}

func FuzzSystemd(f *testing.F) {
	seed(f, "systemd")
	both := ""
	for _, name := range []string{"check.socket", "check@.service"} {
		data, err := os.ReadFile(filepath.Join("testdata/systemd", name))
		if err != nil {
			f.Fatal(err)
		}
		both += string(data) + "\n"
	}
	f.Add(both)
	for _, text := range []string{
		"", "[Socket]", "[]", "[Socket]\nListenStream=1\n[Service]\nExecStart=/x", "[Socket]\nListenStream=\\\n", "a=b", "[Socket]\n=b", "[Socket]\nListenStream=vsock:1:2\nListenStream=@\nListenStream=/\n[Service]\nExecStart=x",
		"[Socket]\nListenStream=1\nAccept=yes\n[Service]\nExecStart=@/x \\xff \\u12 '\nMemoryMax=1\nTasksMax=0\nCPUQuota=nan%\nLimitNICE=+99\nNice=x\nUser=%i\nCapabilityBoundingSet=CAP_X",
		"[Socket]\nListenStream=1\nIPAddressDeny=x 1.2.3.4/8 any\nIPAddressAllow=1.2.3.4%x ::ffff:1.2.3.4/96\nAccept=1\n[Service]\nExecStart=/x ${A} $B $$ ; y\nStandardInput=socket\nRuntimeMaxSec=1e9y 5\nProtectSystem=strict\nReadWritePaths=x //y/../z",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { everything(t, "systemd", text) })
}

func FuzzXinetd(f *testing.F) {
	seed(f, "xinetd")
	for _, text := range []string{
		"service a {\n}", "service a\n{\n}", "defaults\n{\n}\n", "service a", "}", "{", "include f", "includedir f", "service a\n{\nx\n}", "service a\n{\n=\n+=\n-= a\n}",
		"service 7\n{\nserver = /x\nonly_from = {} 1.{2} 1.2.3.{4,5} 0.0.0.0 1 1.2 ::/0 ::1%eth0 1.2.3.4/33\nno_access = a\naccess_times = 1:1-1:1 2:2-3:3\nuser = a:b\ngroups=yes\n}",
		"service 7\n{\nserver = x\nenv = A=1 A=2 =3 B\numask = 9\nnice = 99\ninstances = 0\ncps = 0 0\nmax_load = -1\nrlimit_as = 1\nrlimit_cpu = x\nrlimit_files = 1\n}",
		"service 7\n{\ntype = TCPMUX\nid = help\nserver = /x\nwait = yes\n}", "service 7\n{\nbind = a/b\nserver = /x\nflags = KEEPALIVE X\nsocket_type = dgram\n}",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { everything(t, "xinetd", text) })
}
