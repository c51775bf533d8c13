package spawn

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatIsEnforcedByABI(t *testing.T) {
	const (
		first    = 1<<13 - 1
		refer    = first | unix.LANDLOCK_ACCESS_FS_REFER
		truncate = refer | unix.LANDLOCK_ACCESS_FS_TRUNCATE
		ioctl    = truncate | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
		tcp      = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		scopes   = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	)
	all := demand{files: true, truncate: true, tcp: true, tcpAlone: true}
	for _, c := range []struct {
		demand            demand
		abi               int
		files, net, scope uint64
		lacking           []string
	}{
		{all, 0, 0, 0, 0, []string{
			"the kernel offers Landlock ABI 0, ABI 1 is needed for file rules",
			"the kernel offers Landlock ABI 0, ABI 3 is needed for keeping files from being truncated",
			"the kernel offers Landlock ABI 0, ABI 4 is needed for network rules"}},
		{all, 1, first, 0, 0, []string{
			"the kernel offers Landlock ABI 1, ABI 3 is needed for keeping files from being truncated",
			"the kernel offers Landlock ABI 1, ABI 4 is needed for network rules"}},
		{all, 2, refer, 0, 0, []string{
			"the kernel offers Landlock ABI 2, ABI 3 is needed for keeping files from being truncated",
			"the kernel offers Landlock ABI 2, ABI 4 is needed for network rules"}},
		{all, 3, truncate, 0, 0, []string{
			"the kernel offers Landlock ABI 3, ABI 4 is needed for network rules"}},
		{all, 4, truncate, tcp, 0, nil},
		{all, 5, ioctl, tcp, 0, nil},
		{all, 6, ioctl, tcp, scopes, nil},
		{all, 7, ioctl, tcp, scopes, nil},
		{all, 99, ioctl, tcp, scopes, nil},

		// A second wall that the kernel cannot build is nobody's loss.
		{demand{files: true, tcp: true}, 1, first, 0, 0, nil},
		{demand{files: true, tcp: true}, 4, truncate, tcp, 0, nil},
		{demand{files: true}, 7, ioctl, 0, scopes, nil},
		{demand{tcpAlone: true}, 3, 0, 0, 0, []string{
			"the kernel offers Landlock ABI 3, ABI 4 is needed for network rules"}},
		{demand{tcpAlone: true}, 7, 0, tcp, 0, nil},
		{demand{}, 7, 0, 0, 0, nil},
	} {
		attr, lacking := enforceable(c.demand, c.abi)
		want := unix.LandlockRulesetAttr{Handled_access_fs: c.files, Handled_access_net: c.net, Scoped: c.scope}
		if attr != want || !slices.Equal(lacking, c.lacking) {
			t.Errorf("%+v, ABI %d:\n got %+v, %q\nwant %+v, %q", c.demand, c.abi, attr, lacking, want, c.lacking)
		}
	}
}

// What a kernel leaves open that a newer one would guard is told where anybody is
// confined, and nowhere else.
func TestUnguardedIsTold(t *testing.T) {
	const scopes = "signals to others and their abstract unix sockets"
	has, err := landlockABI()
	for abi, want := range map[int]string{
		1: "Landlock ABI 1: does not guard ioctl on devices, " + scopes,
		4: "Landlock ABI 4: does not guard ioctl on devices, " + scopes,
		5: "Landlock ABI 5: does not guard " + scopes,
		6: "",
	} {
		if got := unguarded(demand{files: true, truncate: true, tcp: true}, abi); got != want {
			t.Errorf("ABI %d: %q, not %q", abi, got, want)
		}
		if got := unguarded(demand{tcp: true, tcpAlone: true}, abi); got != "" {
			t.Errorf("ABI %d without files: %q", abi, got)
		}
		if err != nil || has < abi || abi < 3 {
			continue // a plan cannot be made of it here
		}
		e := NewEngine()
		e.landlockABI = func() (int, error) { return abi, nil }
		p := compile(t, e, walled("true", confined()))
		told := slices.ContainsFunc(p.Describe(), func(line string) bool { return line == want })
		if p.Unguarded() != want || told != (want != "") {
			t.Errorf("ABI %d: the plan says %q, %q", abi, p.Unguarded(), p.Describe())
		}
	}
}

func TestMissingLandlockHasWords(t *testing.T) {
	for errno, want := range map[unix.Errno]string{
		unix.EOPNOTSUPP: "the kernel's boot parameter lsm= leaves Landlock out",
		unix.ENOSYS:     "was built without Landlock",
		unix.EPERM:      "the kernel refuses Landlock: operation not permitted (EPERM)",
	} {
		if err := unavailable(errno); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
