package spawn

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"superd/superd/internal/peer"
)

// Facts are what a program may learn of its connection. The byte slices are
// valid only during the call they are handed to.
type Facts struct {
	ID         []byte // the connection's name in the log
	Peer       *peer.Peer
	FromSource int      // live connections of this source and service, this one included
	Names      []string // of the listening sockets that the program gets; none has more than LongestSocketName bytes
}

// A variable is one entry of the environment that differs by connection. One
// to whose value nothing is appended is left out.
type variable struct {
	name  string // with the '='
	value func([]byte, *Facts) []byte
}

// longestVariable bounds one variable: the longest name, an IPv6 address with
// its zone or the name of a unix socket, '=' and the terminator.
const longestVariable = 128

var (
	remoteIP   = ofClient(func(b []byte, f *Facts) []byte { return f.Peer.Remote.Addr().AppendTo(b) })
	remotePort = ofClient(func(b []byte, f *Facts) []byte { return strconv.AppendUint(b, uint64(f.Peer.Remote.Port()), 10) })
	localIP    = func(b []byte, f *Facts) []byte { return f.Peer.Local.Addr().AppendTo(b) }
	localPort  = func(b []byte, f *Facts) []byte { return strconv.AppendUint(b, uint64(f.Peer.Local.Port()), 10) }
	fromSource = func(b []byte, f *Facts) []byte { return appendUnlessZero(b, int64(f.FromSource)) }

	remotePID  = func(b []byte, f *Facts) []byte { return appendUnlessZero(b, int64(f.Peer.PID)) }
	remoteUID  = ofClient(func(b []byte, f *Facts) []byte { return strconv.AppendUint(b, uint64(f.Peer.UID), 10) })
	remoteGID  = ofClient(func(b []byte, f *Facts) []byte { return strconv.AppendUint(b, uint64(f.Peer.GID), 10) })
	remotePath = func(b []byte, f *Facts) []byte { return appendHarmless(b, f.Peer.Bound) }
	localPath  = func(b []byte, f *Facts) []byte { return append(b, f.Peer.Path...) }

	remoteCID    = ofClient(func(b []byte, f *Facts) []byte { return strconv.AppendUint(b, uint64(f.Peer.RemoteVM.CID), 10) })
	remoteVMPort = ofClient(func(b []byte, f *Facts) []byte { return strconv.AppendUint(b, uint64(f.Peer.RemoteVM.Port), 10) })
	localCID     = func(b []byte, f *Facts) []byte { return appendCID(b, f.Peer.LocalVM.CID) }
	localVMPort  = func(b []byte, f *Facts) []byte { return strconv.AppendUint(b, uint64(f.Peer.LocalVM.Port), 10) }
	vsockAddress = ofClient(func(b []byte, f *Facts) []byte { return remoteCID(append(b, "vsock:"...), f) })
)

// ofClient is a value that is not known where the program finds its clients
// itself.
func ofClient(value func([]byte, *Facts) []byte) func([]byte, *Facts) []byte {
	return func(b []byte, f *Facts) []byte {
		if f.Peer.Listening {
			return b
		}
		return value(b, f)
	}
}

func constant(s string) func([]byte, *Facts) []byte {
	return func(b []byte, _ *Facts) []byte { return append(b, s...) }
}

// appendCID leaves out that of a socket for all addresses, which is none.
func appendCID(b []byte, cid uint32) []byte {
	if cid == peer.AnyCID {
		return b
	}
	return strconv.AppendUint(b, uint64(cid), 10)
}

// appendUnlessZero leaves out what is not known.
func appendUnlessZero(b []byte, n int64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(b, n, 10)
}

// appendHarmless leaves out a text of a client's choice that a careless script
// could stumble over.
func appendHarmless(b []byte, text string) []byte {
	if strings.ContainsFunc(text, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune("/@._:-", r)
	}) {
		return b
	}
	return append(b, text...)
}

// always is added to every program's environment.
var always = []variable{
	{"SUPERD_CONNECTION=", func(b []byte, f *Facts) []byte { return append(b, f.ID...) }},
}

// styles are the names that programs written for other superservers expect, for
// each kind of socket, as their own documentation has them (superd-program(7)).
var styles = [peer.Kinds]map[string][]variable{
	peer.Internet: {
		"ucspi": {
			{"PROTO=", constant("TCP")},
			{"TCPREMOTEIP=", remoteIP},
			{"TCPREMOTEPORT=", remotePort},
			{"TCPLOCALIP=", localIP},
			{"TCPLOCALPORT=", localPort},
			{"TCPCONNNUM=", fromSource},
		},
		"systemd": {
			{"REMOTE_ADDR=", remoteIP},
			{"REMOTE_PORT=", remotePort},
		},
		"xinetd": {
			{"REMOTE_HOST=", remoteIP},
		},
		"ncat": {
			{"NCAT_REMOTE_ADDR=", remoteIP},
			{"NCAT_REMOTE_PORT=", remotePort},
			{"NCAT_LOCAL_ADDR=", localIP},
			{"NCAT_LOCAL_PORT=", localPort},
			{"NCAT_PROTO=", constant("TCP")},
		},
		"cgi": {
			{"GATEWAY_INTERFACE=", constant("CGI/1.1")},
			{"REMOTE_ADDR=", remoteIP},
			{"REMOTE_PORT=", remotePort},
			{"SERVER_NAME=", localIP},
			{"SERVER_PORT=", localPort},
			{"SERVER_PROTOCOL=", constant("TCP")}, // extension-version of RFC 3875, 4.1.16: superd does not know what is spoken
		},
	},
	peer.UDP: {
		"ucspi": {
			{"PROTO=", constant("UDP")},
			{"UDPREMOTEIP=", remoteIP},
			{"UDPREMOTEPORT=", remotePort},
			{"UDPLOCALIP=", localIP},
			{"UDPLOCALPORT=", localPort},
		},
		"systemd": {
			{"REMOTE_ADDR=", remoteIP},
			{"REMOTE_PORT=", remotePort},
		},
		"xinetd": {
			{"REMOTE_HOST=", remoteIP},
		},
		"ncat": {
			{"NCAT_REMOTE_ADDR=", remoteIP},
			{"NCAT_REMOTE_PORT=", remotePort},
			{"NCAT_LOCAL_ADDR=", localIP},
			{"NCAT_LOCAL_PORT=", localPort},
			{"NCAT_PROTO=", constant("UDP")},
		},
		"cgi": {
			{"GATEWAY_INTERFACE=", constant("CGI/1.1")},
			{"REMOTE_ADDR=", remoteIP},
			{"REMOTE_PORT=", remotePort},
			{"SERVER_NAME=", localIP},
			{"SERVER_PORT=", localPort},
			{"SERVER_PROTOCOL=", constant("UDP")},
		},
	},
	peer.Unix: {
		"ucspi": {
			{"PROTO=", constant("IPC")},
			{"IPCREMOTEEUID=", remoteUID},
			{"IPCREMOTEEGID=", remoteGID},
			{"IPCREMOTEPATH=", remotePath},
			{"IPCLOCALPATH=", localPath},
			{"IPCCONNNUM=", fromSource},
			{"UNIXREMOTEPID=", remotePID},
			{"UNIXREMOTEEUID=", remoteUID},
			{"UNIXREMOTEEGID=", remoteGID},
			{"UNIXLOCALPATH=", localPath},
		},
		"systemd": {
			{"REMOTE_ADDR=", remotePath},
		},
		"ncat": {
			{"NCAT_REMOTE_ADDR=", ofClient(constant("localhost"))},
			{"NCAT_LOCAL_ADDR=", constant("localhost")},
			{"NCAT_PROTO=", constant("TCP")},
		},
		"cgi": {
			{"GATEWAY_INTERFACE=", constant("CGI/1.1")},
			{"SERVER_PROTOCOL=", constant("UNIX")},
		},
	},
	peer.VSock: {
		"ucspi": {
			{"PROTO=", constant("VSOCK")},
			{"VSOCKREMOTECID=", remoteCID},
			{"VSOCKREMOTEPORT=", remoteVMPort},
			{"VSOCKLOCALCID=", localCID},
			{"VSOCKLOCALPORT=", localVMPort},
		},
		"systemd": {
			{"REMOTE_ADDR=", vsockAddress},
			{"REMOTE_PORT=", remoteVMPort},
		},
		"ncat": {
			{"NCAT_REMOTE_ADDR=", remoteCID},
			{"NCAT_REMOTE_PORT=", remoteVMPort},
			{"NCAT_LOCAL_ADDR=", localCID},
			{"NCAT_LOCAL_PORT=", localVMPort},
		},
		"cgi": {
			{"GATEWAY_INTERFACE=", constant("CGI/1.1")},
			{"SERVER_PROTOCOL=", constant("VSOCK")},
		},
	},
}

// variablesOf lists what the styles add for each kind of socket, each name
// once, and what there is further for all kinds; and all those names.
func variablesOf(names []string, further ...variable) (list [peer.Kinds][]variable, all []string) {
	for kind := range list {
		seen := map[string]bool{}
		list[kind] = append(list[kind], always...)
		for _, name := range names {
			for _, v := range styles[kind][name] {
				if !seen[v.name] {
					seen[v.name] = true
					list[kind] = append(list[kind], v)
				}
			}
		}
		list[kind] = append(list[kind], further...)
		for _, v := range list[kind] {
			all = append(all, strings.TrimSuffix(v.name, "="))
		}
	}
	return list, all
}

// withoutVariables drops from env what the connection's own variables replace,
// or could, and those that a connection of another kind would have: of two
// variables of one name, getenv(3) finds the first.
func withoutVariables(env, names []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(names, name)
	})
}

// CountsSource tells whether programs of p are told how many connections their
// source has; nobody need count for the others.
func (p *Plan) CountsSource() bool {
	return slices.Contains(p.spec.EnvStyle, "ucspi")
}

// describe writes the connection's variables into in, which has room for them:
// what a child reads must not move.
func (in *instance) describe(f *Facts) {
	p := in.plan
	in.text = in.text[:0]
	in.envp = in.envp[:len(p.static)-1]
	for _, v := range p.variables[f.Peer.Kind] {
		start := len(in.text)
		in.text = append(in.text, v.name...)
		empty := len(in.text)
		if in.text = v.value(in.text, f); len(in.text) == empty {
			in.text = in.text[:start]
			continue
		}
		in.text = append(in.text, 0)
		in.envp = append(in.envp, address(in.text[start:]))
		if v.name == listenPID.name {
			in.steps[p.session].decimal = address(in.text[start+len(v.name):])
		}
	}
	rest := f.Peer.Extra
	if len(rest) > p.spec.Room {
		rest = nil // it has come by a file in which the service had a proxy before it
	}
	for len(rest) > 0 {
		variable, more, _ := bytes.Cut(rest, []byte{0})
		start := len(in.text)
		in.text = append(append(in.text, variable...), 0)
		in.envp = append(in.envp, address(in.text[start:]))
		rest = more
	}
	in.envp = append(in.envp, 0)
}

// Variables is the environment of a connection's program, without a plan, for
// people: in place of LISTEN_PID's number, which only the program has, it says so.
func (s *Spec) Variables(f *Facts) []string {
	variables, names := variablesOf(s.EnvStyle, s.socketVariables()...)
	list := withoutVariables(s.Env, append(names, s.Further...))
	for _, v := range variables[f.Peer.Kind] {
		value := v.value(nil, f)
		if v.name == listenPID.name {
			value = []byte("(its own number)")
		}
		if len(value) > 0 {
			list = append(list, v.name+string(value))
		}
	}
	return list
}

// DefaultPath is the PATH of a program whose service sets none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Environment is what all connections of a service have alike: PATH, what the
// user's entry says, what is passed on from superd's own environment, and the
// service's own variables, each overriding those before it.
func Environment(service string, id *Identity, passed, own []string) []string {
	list := []string{"PATH=" + DefaultPath}
	if id != nil {
		list = append(list, id.Variables()...)
	}
	list = append(list, passed...)
	list = append(list, own...)
	list = append(list, "SUPERD_SERVICE="+service)
	return lastOfEach(list)
}

// lastOfEach drops the variables that a later one of the same name replaces.
func lastOfEach(list []string) []string {
	last := map[string]int{}
	for i, v := range list {
		name, _, _ := strings.Cut(v, "=")
		last[name] = i
	}
	kept := list[:0]
	for i, v := range list {
		if name, _, _ := strings.Cut(v, "="); last[name] == i {
			kept = append(kept, v)
		}
	}
	return kept
}
