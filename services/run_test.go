package services

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A machine runs images: this one, or an emulated one of the other kind.
type machine struct {
	arch     string
	emulator string // "" on this machine
}

var emulators = map[string]string{"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}

// onEach runs test once per architecture.
func onEach(t *testing.T, test func(*testing.T, machine)) {
	for arch := range architectures {
		t.Run(arch, func(t *testing.T) {
			m := machine{arch: arch}
			if arch != runtime.GOARCH {
				m.emulator = tool(t, emulators[arch])
			}
			test(t, m)
		})
	}
}

// tool finds a program or skips the test, which SUPERD_TEST_STRICT=1 forbids.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("SUPERD_TEST_STRICT") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}

// someSecond is the time for tests where it does not matter.
var someSecond = time.Date(2026, 11, 21, 8, 33, 0, 0, time.UTC)

// start starts the service, as run does.
func (m machine) start(t *testing.T, name string, o Options, stdin, stdout *os.File) *exec.Cmd {
	t.Helper()
	if o.Now.IsZero() {
		o.Now = someSecond
	}
	content, err := imageFor(m.arch, name, o)
	if err != nil {
		t.Fatal(err)
	}
	return m.run(t, content, stdin, stdout)
}

// run runs an image; stdin and stdout are closed here.
func (m machine) run(t *testing.T, content []byte, stdin, stdout *os.File) *exec.Cmd {
	t.Helper()
	file := sealed(t, content)
	defer file.Close()
	defer stdin.Close()
	defer stdout.Close()

	const image = "/proc/self/fd/3" // the first of ExtraFiles
	cmd := exec.Command(image, "these", "are", "ignored")
	if m.emulator != "" {
		cmd = exec.Command(m.emulator, image)
	}
	cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = stdin, stdout, []*os.File{file}
	complaints := new(bytes.Buffer) // of the emulator; a built-in has none
	cmd.Stderr = complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if complaints.Len() > 0 {
			t.Errorf("descriptor 2 got: %s", complaints)
		}
	})
	return cmd
}

// sealed puts content where the daemon does.
func sealed(t *testing.T, content []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "image")
	if _, err := file.Write(content); err != nil {
		t.Fatal(err)
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return file
}

// ended waits for the end, which must be a good one.
func ended(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended badly: %v", err)
	}
}

// A client is the other side of a program's 0 and 1.
type client struct {
	io.Reader
	io.Writer
	finish func() // close the side it writes to
	gone   func() // close both, rudely where that is possible
}

// connections are the kinds of 0 and 1 that a program may get.
var connections = map[string]func(*testing.T) (c client, stdin, stdout *os.File){
	"tcp":  tcpConnection,
	"unix": unixConnection,
	"pipe": pipeConnection,
}

func tcpConnection(t *testing.T) (client, *os.File, *os.File) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	tcp := conn.(*net.TCPConn)
	return client{conn, conn, func() { tcp.CloseWrite() }, func() {
		tcp.SetLinger(0) // a reset
		tcp.Close()
	}}, blocking(t, server), blocking(t, server)
}

func unixConnection(t *testing.T) (client, *os.File, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := []net.Conn{}
	for _, fd := range fds {
		file := os.NewFile(uintptr(fd), "socket")
		conn, err := net.FileConn(file)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		ends = append(ends, conn)
	}
	near, far := ends[0].(*net.UnixConn), ends[1]
	t.Cleanup(func() { near.Close() })
	defer far.Close()
	return client{near, near, func() { near.CloseWrite() }, func() { near.Close() }}, blocking(t, far), blocking(t, far)
}

// blocking is a descriptor as the daemon hands it over.
func blocking(t *testing.T, conn net.Conn) *os.File {
	t.Helper()
	file, err := conn.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(int(file.Fd()), false); err != nil {
		t.Fatal(err)
	}
	return file
}

func pipeConnection(t *testing.T) (client, *os.File, *os.File) {
	t.Helper()
	stdin, in := pipe(t)
	out, stdout := pipe(t)
	return client{out, in, func() { in.Close() }, func() { in.Close(); out.Close() }}, stdin, stdout
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// onEachConnection runs test for every architecture and kind of connection,
// with a service that has been started.
func onEachConnection(t *testing.T, name string, o Options, test func(*testing.T, client, *exec.Cmd)) {
	onEach(t, func(t *testing.T, m machine) {
		for kind, connect := range connections {
			t.Run(kind, func(t *testing.T) {
				c, stdin, stdout := connect(t)
				test(t, c, m.start(t, name, o, stdin, stdout))
			})
		}
	})
}
