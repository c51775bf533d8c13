package listen

import (
	"errors"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
)

// openVSock makes one listening socket for virtual machines (vsock(7)).
func (s *Set) openVSock(l *config.Listener, door Door) (*Socket, error) {
	fd, err := s.newSocket(unix.AF_VSOCK, socketTypes[l.Type], 0)
	if err != nil {
		return nil, vsockTrouble(l, err)
	}
	k := &Socket{fd: fd, door: door, listener: l, self: peer.Peer{Kind: peer.VSock}}
	if err = k.bindVSock(l); err == nil {
		err = listenOn(fd, l)
	}
	if err == nil {
		k.self.LocalVM, err = boundVM(fd)
	}
	if err != nil {
		k.close()
		return nil, vsockTrouble(l, err)
	}
	return k, nil
}

// anyPort has the kernel choose one (VMADDR_PORT_ANY); port 0 is one to it.
const anyPort = 1<<32 - 1

func (k *Socket) bindVSock(l *config.Listener) error {
	a := &unix.SockaddrVM{CID: l.CID, Port: l.Port}
	if l.Port == 0 {
		a.Port = anyPort
	}
	return os.NewSyscallError("bind", unix.Bind(k.fd, a))
}

// vsockTrouble explains what is wrong with an address of vsock.
func vsockTrouble(l *config.Listener, err error) error {
	var errno unix.Errno
	errors.As(err, &errno)
	h := &hindrance{what: symbolic(errno)}
	switch errno {
	case unix.EAFNOSUPPORT:
		h.hint = "this kernel has no vsock: modprobe vsock"
	case unix.ESOCKTNOSUPPORT, unix.EPROTONOSUPPORT:
		h.key, h.hint = "type", "this kernel has no vsock of the type "+l.Type
	case unix.EADDRNOTAVAIL:
		h.hint = "this machine has not that CID" + ownCID()
	case unix.EADDRINUSE:
		h.hint = "another process listens there"
	case unix.EACCES:
		h.hint = "ports below 1024 need root, or CAP_NET_BIND_SERVICE"
	default:
		return err
	}
	return h
}

// ownCID says which one the machine has, where it has one.
func ownCID() string {
	fd, err := unix.Open("/dev/vsock", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "; 1, for itself, takes the module vsock_loopback"
	}
	defer unix.Close(fd)
	cid, err := unix.IoctlGetUint32(fd, unix.IOCTL_VM_SOCKETS_GET_LOCAL_CID)
	if err != nil || cid == config.AnyCID {
		return "; 1, for itself, takes the module vsock_loopback"
	}
	return ", it has " + strconv.FormatUint(uint64(cid), 10)
}

// boundVM is the local address of a vsock socket.
func boundVM(fd int) (peer.VM, error) {
	var own unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(own))
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&own)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return peer.VM{}, errno
	}
	return vmOf(&own), nil
}

func vmOf(a *unix.RawSockaddrAny) peer.VM {
	vm := (*unix.RawSockaddrVM)(unsafe.Pointer(a))
	return peer.VM{CID: vm.Cid, Port: vm.Port}
}
