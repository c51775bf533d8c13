package listen

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holders knows which processes listen on TCP ports. It is made from one look
// at the whole machine: where one port is taken, thousands may be.
type holders struct {
	sockets   map[uint16][]string // that listen on a port, as /proc links to them
	processes map[string]string   // by socket, as far as superd may see that
}

func findHolders() *holders {
	h := &holders{map[uint16][]string{}, map[string]string{}}
	h.addListening("/proc/net/tcp")
	h.addListening("/proc/net/tcp6")
	h.addProcesses()
	return h
}

// addListening reads a table of proc(5) for the sockets that listen.
func (h *holders) addListening(table string) {
	text, _ := os.ReadFile(table)
	for line := range strings.Lines(string(text)) {
		const local, state, inode, listening = 1, 3, 9, "0A"
		f := strings.Fields(line)
		if len(f) <= inode || f[state] != listening {
			continue
		}
		_, digits, _ := strings.Cut(f[local], ":")
		if port, err := strconv.ParseUint(digits, 16, 16); err == nil {
			socket := "socket:[" + f[inode] + "]"
			h.sockets[uint16(port)] = append(h.sockets[uint16(port)], socket)
			h.processes[socket] = ""
		}
	}
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
			h.processes[target] = strings.Split(link, "/")[2]
		}
	}
}

// of tells in words which process listens on a port: another one rather than
// superd, which may have the port on another address.
func (h *holders) of(port uint16) string {
	sockets := h.sockets[port]
	if len(sockets) == 0 {
		return "a socket that is bound but does not listen"
	}
	found := ""
	for _, socket := range sockets {
		pid := h.processes[socket]
		if pid != "" && (found == "" || pid != strconv.Itoa(os.Getpid())) {
			found = pid
		}
	}
	if found == "" {
		return "a process of another user"
	}
	name, _ := os.ReadFile("/proc/" + found + "/comm")
	return fmt.Sprintf("%s, process %s", bytes.TrimSpace(name), found)
}
