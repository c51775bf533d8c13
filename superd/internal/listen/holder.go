package listen

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// holders knows which processes have ports and the names of unix sockets. It
// is made from one look at the whole machine: where one port is taken,
// thousands may be.
type holders struct {
	sockets   map[string][]string  // that have a port, or a name, as /proc links to them
	processes map[string][]string  // by socket, as far as superd may see that
	whose     func(pid int) string // of Set.KnowPrograms; nil for nothing
}

func findHolders() *holders {
	h := &holders{sockets: map[string][]string{}, processes: map[string][]string{}}
	h.addPorts("/proc/net/tcp", "", "0A") // those that listen
	h.addPorts("/proc/net/tcp6", "", "0A")
	h.addPorts("/proc/net/udp", udpPort, "")
	h.addPorts("/proc/net/udp6", udpPort, "")
	h.addNamed("/proc/net/unix")
	h.addProcesses()
	return h
}

// udpPort begins what the holders of a UDP port are found by.
const udpPort = "udp:"

// addPorts reads a table of proc(5) for the sockets in a state, or in any, and
// notes their ports with a prefix.
func (h *holders) addPorts(table, prefix, in string) {
	text, _ := os.ReadFile(table)
	for line := range strings.Lines(string(text)) {
		const local, state, inode = 1, 3, 9
		f := strings.Fields(line)
		if len(f) <= inode || in != "" && f[state] != in {
			continue
		}
		_, digits, _ := strings.Cut(f[local], ":")
		if port, err := strconv.ParseUint(digits, 16, 16); err == nil {
			h.add(prefix+strconv.FormatUint(port, 10), f[inode])
		}
	}
}

// addNamed reads the table of unix sockets for those that have a name, but for
// connections, which have that of the socket that they came by. One for
// datagrams looks connected once anybody has connected to it.
func (h *holders) addNamed(table string) {
	text, _ := os.ReadFile(table)
	for line := range strings.Lines(string(text)) {
		const kind, state, inode, all, datagram, unconnected = 4, 5, 6, 7, "0002", "01"
		f := strings.Fields(line)
		if len(f) <= all || f[kind] != datagram && f[state] != unconnected {
			continue
		}
		_, name, _ := strings.Cut(line, " "+f[inode]+" ") // which can have blanks
		h.add(strings.TrimSuffix(name, "\n"), f[inode])
	}
}

func (h *holders) add(place, inode string) {
	socket := "socket:[" + inode + "]"
	h.sockets[place] = append(h.sockets[place], socket)
	h.processes[socket] = nil
}

// addProcesses looks for the sockets among the open files of all processes.
func (h *holders) addProcesses() {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil {
			continue
		}
		if _, listens := h.processes[target]; listens {
			h.processes[target] = append(h.processes[target], strings.Split(link, "/")[2])
		}
	}
}

// of tells in words which process has a port or a name: another one rather than
// superd, which may have the port on another address.
func (h *holders) of(place string) string {
	sockets := h.sockets[place]
	if len(sockets) == 0 && !isPort(place) {
		return "a process that superd does not see"
	}
	if len(sockets) == 0 {
		return "a socket that is bound but does not listen"
	}
	found := ""
	for _, socket := range sockets {
		for _, pid := range h.processes[socket] {
			if found == "" || pid != strconv.Itoa(os.Getpid()) {
				found = pid
			}
		}
	}
	if found == "" {
		return "a process of another user"
	}
	if found == strconv.Itoa(os.Getpid()) {
		return itself
	}
	name, _ := os.ReadFile("/proc/" + found + "/comm")
	words := fmt.Sprintf("%s, process %s", bytes.TrimSpace(name), found)
	if pid, err := strconv.Atoi(found); err == nil && h.whose != nil {
		words += h.whose(pid)
	}
	return words
}

const itself = "superd itself"

// isOf tells whether a process has a port or a name.
func (h *holders) isOf(place string, pid int) bool {
	return slices.ContainsFunc(h.sockets[place], func(socket string) bool {
		return slices.Contains(h.processes[socket], strconv.Itoa(pid))
	})
}

// isOfKin tells whether a process that runs this very program has a port or a
// name.
func (h *holders) isOfKin(place string) bool {
	own, err := os.Readlink("/proc/self/exe")
	return err == nil && slices.ContainsFunc(h.sockets[place], func(socket string) bool {
		return slices.ContainsFunc(h.processes[socket], func(pid string) bool {
			its, err := os.Readlink("/proc/" + pid + "/exe")
			return err == nil && its == own
		})
	})
}

// HolderOf tells in words who has a TCP port of this machine.
func HolderOf(port uint16) string {
	text := strconv.Itoa(int(port))
	return heldBy(text, findHolders().of(text))
}

func heldBy(port, holder string) string { return "port " + port + " is held by " + holder }

func isPort(place string) bool { return place[0] != '/' && place[0] != '@' }
