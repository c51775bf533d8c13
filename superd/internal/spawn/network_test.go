package spawn

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"superd/superd/internal/config"
)

// offline is a sandbox with no other wall.
func offline() config.Sandbox {
	return config.Sandbox{Preset: "offline", NoNewPrivs: true}
}

// dialer is a service that tries to reach the address by TCP and UDP. It is
// not sh's but bash's to have /dev/tcp.
func dialer(t *testing.T, port int, s config.Sandbox) Spec {
	t.Helper()
	if _, err := os.Stat("/bin/bash"); err != nil {
		t.Skip("SKIPPED: this needs bash")
	}
	at := "127.0.0.1/" + strconv.Itoa(port)
	spec := walled("LC_ALL=C; { true > /dev/tcp/"+at+"; } 2>&1 || echo no tcp; { echo x > /dev/udp/"+at+"; } 2>&1 || echo no udp; echo end", s)
	spec.Path, spec.Argv[0] = "/bin/bash", "bash"
	return spec
}

// listener is a port of 127.0.0.1 where somebody answers.
func listener(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func TestClosedNetworkReachesNothing(t *testing.T) {
	needRoot(t)
	port := listener(t)
	open := offline()
	open.Network = true
	if got := mustAnswer(t, dialer(t, port, open)); got != "end\n" {
		t.Errorf("with network: %q", got)
	}
	got := mustAnswer(t, dialer(t, port, offline()))
	if strings.Count(got, "Network is unreachable") < 2 || !strings.HasSuffix(got, "no udp\nend\n") || !strings.Contains(got, "no tcp\n") {
		t.Errorf("without network: %q", got)
	}
	got = mustAnswer(t, walled("tail -n +3 /proc/net/dev | cut -d: -f1; tail -n +2 /proc/net/route; grep -c @ /proc/net/unix; true", offline()))
	if strings.TrimSpace(got) != "lo\n0" {
		t.Errorf("interfaces, routes, sockets: %q", got)
	}
}

// TestConfinedProgramHasTwoWallsToTheNetwork, of which one is enough.
func TestConfinedProgramHasTwoWallsToTheNetwork(t *testing.T) {
	needRoot(t)
	needLandlock(t, 4)
	s := confined()
	s.Network = false
	p := compile(t, NewEngine(), walled("true", s))
	if p.walls.network == nil || p.walls.rules.attr.Handled_access_net == 0 {
		t.Errorf("%+v", p.walls)
	}
}

// TestZeroSandboxIsNone: what no file has filled in builds no wall.
func TestZeroSandboxIsNone(t *testing.T) {
	p := compile(t, NewEngine(), script("true"))
	if p.walls.network != nil || p.walls.mounts != nil || p.walls.landlock != nil || len(p.loans) != 0 {
		t.Errorf("%+v", p.walls)
	}
}

func TestLandlockClosesTCPToOrdinaryUsers(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("SKIPPED: root has a namespace for it; this needs an ordinary user")
	}
	needLandlock(t, 4)
	port := listener(t)
	want := "cannot build the network namespace: it takes root: CAP_SYS_ADMIN (start superd as root, or do without it by best_effort: true)"
	if _, err := NewEngine().Compile(dialer(t, port, offline())); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	s := offline()
	s.BestEffort = true
	got := mustAnswer(t, dialer(t, port, s))
	if !strings.Contains(got, "Permission denied") || !strings.HasSuffix(got, "no tcp\nend\n") {
		t.Errorf("got %q", got)
	}
}

// TestConfinedProgramSignalsNobodyElse, be it root.
func TestConfinedProgramSignalsNobodyElse(t *testing.T) {
	needLandlock(t, 6)
	me := strconv.Itoa(os.Getpid())
	if got := mustAnswer(t, walled("kill -0 "+me+" && echo yes; true", script("").Sandbox)); got != "yes\n" {
		t.Errorf("without a sandbox: %q", got)
	}
	if got := mustAnswer(t, walled("kill -0 $$ && echo own; kill -0 "+me+" 2>/dev/null || echo no", confined())); got != "own\nno\n" {
		t.Errorf("confined: %q", got)
	}
}
