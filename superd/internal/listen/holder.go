package listen

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// holder tells in words which process listens on a TCP port, as far as superd
// may see that.
func holder(port uint16) string {
	inodes := listeningInodes(port)
	if len(inodes) == 0 {
		return "a socket that is bound but does not listen"
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		target, err := os.Readlink(link)
		if err == nil && inodes[target] {
			pid := strings.Split(link, "/")[2]
			name, _ := os.ReadFile("/proc/" + pid + "/comm")
			return fmt.Sprintf("%s, process %s", bytes.TrimSpace(name), pid)
		}
	}
	return "a process of another user"
}

// listeningInodes finds the sockets that listen on port, written as /proc
// links to them (proc(5), /proc/net/tcp).
func listeningInodes(port uint16) map[string]bool {
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(table)
		for _, line := range strings.Split(string(text), "\n") {
			const local, state, inode, listening = 1, 3, 9, "0A"
			f := strings.Fields(line)
			if len(f) > inode && strings.HasSuffix(f[local], fmt.Sprintf(":%04X", port)) && f[state] == listening {
				inodes["socket:["+f[inode]+"]"] = true
			}
		}
	}
	return inodes
}
