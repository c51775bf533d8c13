package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"superd/services"
)

// A bench is a folder with what the servers need, and a free port for each.
type bench struct {
	superd, dir, program string
}

// A peer is one server: how it is told to run the program on a port.
type peer struct {
	name string
	argv func(port int) []string
}

const answer = "hi client"

func newBench(superd string) (*bench, error) {
	dir, err := os.MkdirTemp("", "superd-bench")
	if err != nil {
		return nil, err
	}
	// Programs run as nobody under superd when it is root.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	content, err := services.Image("greeting", services.Options{Now: time.Now()})
	if err != nil {
		return nil, err
	}
	b := &bench{superd: superd, dir: dir, program: filepath.Join(dir, "hi")}
	return b, os.WriteFile(b.program, content, 0o755)
}

func (b *bench) close() { os.RemoveAll(b.dir) }

// file writes a configuration and returns its name.
func (b *bench) file(name, format string, args ...any) string {
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o644); err != nil {
		panic(err)
	}
	return path
}

func (b *bench) peers() []peer {
	superd := func(format string) func(int) []string {
		return func(port int) []string {
			return []string{b.superd, "run", "-c", b.file("superd.yaml", format, port, b.program)}
		}
	}
	return []peer{
		{"superd", superd("services: {hi: {listen: 127.0.0.1:%d, run: %s}}\n")},
		{"superd, sandbox: none", superd("services: {hi: {listen: 127.0.0.1:%d, run: %s, sandbox: none}}\n")},
		{"superd, sandbox: strict", superd("services: {hi: {listen: 127.0.0.1:%d, run: %s, sandbox: strict}}\n")},
		{"superd, builtin", superd("services: {hi: {listen: 127.0.0.1:%d, builtin: greeting}} # %s\n")},
		{"superd, no stderr", superd("services: {hi: {listen: 127.0.0.1:%d, run: %s, stderr: 'null'}}\n")},
		{"superd, keep: false", superd("services: {hi: {listen: 127.0.0.1:%d, run: %s, keep: false}}\n")},
		{"tcpserver", func(port int) []string {
			return []string{"tcpserver", "-HRl0", "-c", "1000", "-b", "1024", "127.0.0.1", strconv.Itoa(port), b.program}
		}},
		{"tcpsvd", func(port int) []string {
			return []string{"tcpsvd", "-c", "1000", "-b", "1024", "127.0.0.1", strconv.Itoa(port), b.program}
		}},
		{"s6-tcpserver", func(port int) []string {
			return []string{"s6-tcpserver", "-c", "1000", "-b", "1024", "127.0.0.1", strconv.Itoa(port), b.program}
		}},
		{"xinetd", func(port int) []string {
			return []string{"xinetd", "-dontfork", "-f", b.file("xinetd.conf",
				"service hi\n{\n type = UNLISTED\n socket_type = stream\n protocol = tcp\n wait = no\n user = nobody\n bind = 127.0.0.1\n port = %d\n server = %s\n cps = 1000000 1\n instances = UNLIMITED\n}\n",
				port, b.program)}
		}},
		{"socat", func(port int) []string {
			return []string{"socat", fmt.Sprintf("TCP-LISTEN:%d,bind=127.0.0.1,reuseaddr,fork,backlog=1024", port), "EXEC:" + b.program}
		}},
		{"ncat", func(port int) []string {
			return []string{"ncat", "-l", "-k", "-m", "1000", "127.0.0.1", strconv.Itoa(port), "-e", b.program}
		}},
	}
}

// find looks for a program where administrators' programs are.
func find(name string) string {
	if filepath.Base(name) != name {
		return name
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	return ""
}

func (p peer) installed() bool { return find(p.argv(1)[0]) != "" }

// round starts p, waits until it answers, puts one load on it and ends it.
func (b *bench) round(p peer, connections, atOnce int) (result, error) {
	port, err := freePort()
	if err != nil {
		return result{}, err
	}
	argv := p.argv(port)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return result{}, err
	}
	defer null.Close()
	server, err := os.StartProcess(find(argv[0]), argv, &os.ProcAttr{Files: []*os.File{null, null, null}, Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		return result{}, err
	}
	defer func() {
		syscall.Kill(-server.Pid, syscall.SIGTERM)
		server.Wait()
	}()
	if err := awaitAnswer(port); err != nil {
		return result{}, err
	}
	l := load{port: port, connections: connections, atOnce: atOnce, want: answer}
	return l.run()
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// awaitAnswer tries until the server listens.
func awaitAnswer(port int) error {
	var err error
	for range 500 {
		l := load{port: port, connections: 1, atOnce: 1, want: answer}
		var r result
		if r, err = l.run(); err == nil && r.wrong == 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("the server does not answer (%v)", err)
}
