package listen

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// prepare sets the options that have to be there before bind(2).
func prepare(fd int, l *config.Listener, addr netip.AddrPort) error {
	var err error
	if l.Family == config.TCP { // of UDP, others could take the port as well, and the datagrams with it
		err = setOption(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR")
	}
	freebind, transparent := setting{unix.IPPROTO_IP, unix.IP_FREEBIND}, setting{unix.IPPROTO_IP, unix.IP_TRANSPARENT}
	if addr.Addr().Is6() {
		freebind, transparent = setting{unix.IPPROTO_IPV6, unix.IPV6_FREEBIND}, setting{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT}
		err = errors.Join(err, setOption(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, number(!l.Dual), "IPV6_V6ONLY"))
	}
	return errors.Join(err, setDevice(fd, l.Device),
		freebind.set(fd, number(l.FreeBind), "freebind", ""),
		transparent.set(fd, number(l.Transparent), "transparent", "CAP_NET_ADMIN or CAP_NET_RAW"))
}

func setDevice(fd int, name string) error {
	if name == "" {
		return nil
	}
	return refused("device", unix.BindToDevice(fd, name), "CAP_NET_RAW")
}

// configure sets the options of a TCP or UDP socket that can be changed at any
// time; connections inherit those that are theirs, so that accepting one costs no
// further call (tcp(7)). Before is what was set until now, nil for nothing.
func configure(fd int, l, before *config.Listener) error {
	err := errors.Join(
		setBuffer(fd, l.RcvBuf, "rcvbuf", "rmem_max", unix.SO_RCVBUF, unix.SO_RCVBUFFORCE),
		setBuffer(fd, l.SndBuf, "sndbuf", "wmem_max", unix.SO_SNDBUF, unix.SO_SNDBUFFORCE),
		setting{unix.SOL_SOCKET, unix.SO_MARK}.set(fd, int(l.Mark), "mark", "CAP_NET_ADMIN"),
		setTOS(fd, l.TOS))
	if l.Datagrams() {
		return err
	}
	return errors.Join(err,
		setOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, number(l.NoDelay), "TCP_NODELAY"),
		setKeepAlive(fd, l, before),
		setting{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT}.set(fd, int(l.DeferAccept.Seconds()), "defer_accept", ""))
}

// setTOS is for both families where a socket serves both.
func setTOS(fd, tos int) error {
	var err error
	if domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); domain == unix.AF_INET6 {
		err = setting{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}.set(fd, tos, "tos", "")
		if only, no := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); no == nil && only != 0 {
			return err
		}
	}
	return errors.Join(err, setting{unix.IPPROTO_IP, unix.IP_TOS}.set(fd, tos, "tos", ""))
}

func setKeepAlive(fd int, l, before *config.Listener) error {
	err := setOption(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, number(l.KeepAlive.On), "SO_KEEPALIVE")
	for _, o := range []struct {
		option int
		value  func(*config.Listener) int
		usual  string
		name   string
	}{
		{unix.TCP_KEEPIDLE, func(l *config.Listener) int { return int(l.KeepAlive.Idle.Seconds()) }, "time", "TCP_KEEPIDLE"},
		{unix.TCP_KEEPINTVL, func(l *config.Listener) int { return int(l.KeepAlive.Interval.Seconds()) }, "intvl", "TCP_KEEPINTVL"},
		{unix.TCP_KEEPCNT, func(l *config.Listener) int { return l.KeepAlive.Count }, "probes", "TCP_KEEPCNT"},
	} {
		value := o.value(l)
		if value == 0 && before != nil && o.value(before) > 0 {
			value = usualKeepAlive(o.usual)
		}
		if value > 0 {
			err = errors.Join(err, setOption(fd, unix.IPPROTO_TCP, o.option, value, o.name))
		}
	}
	return err
}

// usualKeepAlive is the system's value, 0 where that cannot be read.
func usualKeepAlive(name string) int {
	text, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_keepalive_" + name)
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}

// setBuffer asks for a buffer of that size, 0 for the system's. The kernel
// doubles what it is told, for its own bookkeeping (socket(7)), and lowers it in
// silence to the sysctl's value, which superd does not.
func setBuffer(fd, size int, key, sysctl string, plain, force int) error {
	if size == 0 {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size); err != nil {
		return refused(key, err, "")
	}
	if now, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, plain); err != nil || now/2 >= size {
		return refused(key, err, "")
	}
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size)
	if err != unix.EPERM {
		return refused(key, err, "")
	}
	most, _ := os.ReadFile("/proc/sys/net/core/" + sysctl)
	return &hindrance{key: key, what: fmt.Sprintf("%s: the sysctl net.core.%s allows %s bytes at most", key, sysctl, strings.TrimSpace(string(most))),
		hint: "raise it, or give superd CAP_NET_ADMIN"}
}

// A setting is a number that a socket has.
type setting struct{ level, name int }

// set gives fd the option that a key of the file is about. What is so already
// takes no right, and nobody minds that what is off cannot be switched on.
func (o setting) set(fd, value int, key, takes string) error {
	if now, err := unix.GetsockoptInt(fd, o.level, o.name); err == nil && uint32(now) == uint32(value) || err != nil && value == 0 {
		return nil
	}
	return refused(key, unix.SetsockoptInt(fd, o.level, o.name, value), takes)
}

// refused says which key the kernel refuses, and the capability that it takes.
func refused(key string, err error, takes string) error {
	if err == nil {
		return nil
	}
	h := &hindrance{key: key, what: key + ": " + symbolic(err)}
	switch {
	case err == unix.EPERM && takes != "":
		h.hint = "superd lacks " + takes
	case err == unix.EOPNOTSUPP: // IPV6_TCLASS in Linux 6.18
		h.hint = "this kernel does not have it together with mptcp for this family"
	case err == unix.ENODEV:
		h.hint = "this machine has no such interface now"
	}
	return h
}

func setOption(fd, level, option, value int, name string) error {
	return os.NewSyscallError("setsockopt "+name, unix.SetsockoptInt(fd, level, option, value))
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}
