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

func (d disk) Include(name string) ([]byte, error) { return d.ReadFile(name) }

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
		{"tcpserver", "qmail-smtpd"},
		{"tcpserver", "others"},
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
func (o one) Include(string) ([]byte, error)       { return []byte(o), nil }
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

func FuzzTCPServer(f *testing.F) {
	seed(f, "tcpserver")
	for _, text := range []string{
		"", "tcpserver", "tcpserver 0 1 x", "tcpserver -", "tcpserver -- 0 0 /x", "tcpserver -c", "tcpserver -z 0 1 x", "exec tcpserver 0 1 exec exec", "tcpserver 0 1 softlimit -m = -o x /x", "A=\"$B\"\ntcpserver $A ${A} /x '",
		"tcpserver -u 0 -g x:y -G a,a, -b 99999999 -c0 -C1 -I/ :: 1 /x", "env -i tcpserver 0 1 x", "chroot / tcpserver 0 1 x", "tcpserver 0 1 nice -n 99 env A=1 A= B /x | y", "tcpserver 0 1 `x` $(y) ~ * \\", "tcpserver fe80::1 1 /x", "tcpserver a_b 1 /x",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		everything(t, "tcpserver", text)
		if r, err := CommandLine(strings.Fields(text), one("")); err == nil {
			loads(t, r.Text)
		}
	})
}

func TestCommandLine(t *testing.T) {
	argv := strings.Fields("tcpserver -v -u 1000 0 25 /usr/sbin/smtpd -x $HOME")
	r, err := CommandLine(argv, disk{})
	if err != nil {
		t.Fatal(err)
	}
	c := loads(t, r.Text)
	if s := c.Services[0]; s.Name != "smtpd" || s.User != "1000" || s.Max != 40 || strings.Join(s.Run, " ") != "/usr/sbin/smtpd -x $HOME" || len(r.Notes) != 0 {
		t.Errorf("%+v, %v", s, r.Notes)
	}
}

// What is wrong is told with its place, all of it, and nothing is written.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ format, text, want string }{
		{"inetd", "ftp stream tcp\n\nx tcp stream nowait root /x\nfoo on protocol = tcp, x\na stream tcp nowait root \"/x\n",
			"f:5: a quotation mark has no partner\n" +
				"f:1: the line has 3 of the 6 fields that it needs: service, type, protocol, wait, user and program\n" +
				"f:3: \"tcp\" is no type of socket, it must be stream, dgram, raw, rdm or seqpacket\n" +
				"f:4: it is in the form key = value of NetBSD, which is not understood: write it in one line"},
		{"inetd", "a\n\x00", "f:2: the file holds a NUL byte: it is no text file"},
		{"inetd", "# nothing\n", "cannot import f: there is no service in it that superd could have"},
		{"xinetd", "service a\nx\n", "f:2: expected { after the name of a service, not \"x\""},
		{"xinetd", "\nservice a\n{\nserver /x\n}\nuser = x\n",
			"f:4: expected attribute = value, not \"server /x\"\nf:6: expected service, defaults, include or includedir, not \"user = x\""},
		{"xinetd", "service a\n{\n", "f:1: the block does not end"},
		{"xinetd", "include f\n", "f:1: too many files include one another"},
		{"systemd", "ListenStream=7\n", "\"ListenStream=7\" stands before any section"},
		{"systemd", "[Socket]\nnonsense\n", "f.socket:2: expected a [section] or name=value, not \"nonsense\""},
		{"tcpserver", "echo hi\n", "f:1: no command in it starts a tcpserver"},
		{"tcpserver", "\ntcpserver 0 25\n", "f:2: tcpserver needs a host, a port and a program behind its options"},
	} {
		names := []string{"f"}
		if c.format == "systemd" {
			names = []string{"f.socket"}
		}
		r, err := Import(c.format, names, one(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || len(r.Text) > 0 {
			t.Errorf("%s %q: %v\n%s", c.format, c.text, err, r.Text)
		}
	}
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

// TestLarge has no clock: the test's own timeout is the guard, which a reader
// that compares all with all runs into.
func TestLarge(t *testing.T) {
	t.Parallel()
	times := func(text string, size int) string { return strings.Repeat(text, size/len(text)) }
	size := 1 << 18
	if testing.Short() {
		size = 1 << 15
	}
	for _, c := range []struct{ format, text string }{
		{"inetd", times("7 stream tcp nowait root internal\n", size)},
		{"inetd", "7 stream tcp nowait root /x" + times(" x", size)},
		{"xinetd", times("service 7\n{\nserver = /x\n}\n", size)},
		{"xinetd", "service 7\n{\nserver = /x\nonly_from =" + numbered(" 10.%d.0.%d", size) + "\nenv =" + numbered(" A%d=%d", size) + "\nonly_from -= " + numbered(" 10.%d.0.%d", size) + "\n}\n"},
		{"xinetd", "service 7\n{\n" + numbered("a%d = %d\n", size) + "\n}\n"},
		{"systemd", "[Socket]\nListenStream=7\n" + numbered("A%d=%d\n", size)},
		{"systemd", "[Socket]\nListenStream=7\nAccept=1\nIPAddressDeny=" + numbered(" 10.%d.0.%d", size) + "\nIPAddressAllow=" + numbered(" 10.%d.1.%d", size) + "\n[Service]\nExecStart=/x\n"},
		{"tcpserver", times("tcpserver 0 7 /x\n", size)},
		{"tcpserver", "tcpserver 0 7 env" + numbered(" A%d=%d", size) + " /x"},
	} {
		everything(t, c.format, c.text)
	}
}

// numbered repeats a text with two numbers up to a size, the second below 256.
func numbered(format string, size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, format, i, i%256)
	}
	return b.String()
}

// A drop-in changes its unit, and a specifier that only systemd knows switches
// the service off.
func TestDropIn(t *testing.T) {
	const dir = "testdata/systemd/"
	r, err := Import("systemd", []string{dir + "check.socket", dir + "check@.service", dir + "check@.service.d/override.conf"}, disk{})
	if err != nil {
		t.Fatal(err)
	}
	if s := loads(t, r.Text).Services[0]; strings.Join(s.Run, " ") != "/usr/bin/check-agent --instance=%i" || s.Enabled {
		t.Errorf("it runs %q, enabled %v", s.Run, s.Enabled)
	}
}
