// Package services holds the built-in services: each is a table of a few
// system calls, complete on one screen, and Image writes such a table, with
// the machine instructions, some thirty, that walk it, as an ELF program that
// needs nothing else. The package makes bytes; it opens, starts and serves
// nothing.
//
// What such a program expects: descriptors 0 and 1, blocking; sockets, pipes,
// terminals and files will all do. Arguments and environment are ignored. It
// makes the system calls prctl, rt_sigaction, read, write, recvfrom (chargen,
// and for datagrams), shutdown (for datagrams) and exit_group, and no other. It ends with status 0, also where the client
// went away in the middle: no client can make a built-in look as if it failed.
package services

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"
)

// Options are what an administrator may set.
type Options struct {
	Text *string   // greeting, qotd; nil: the service's default
	Now  time.Time // daytime, time: the second that the image tells

	// Datagrams makes a program for one end of a pair of SOCK_SEQPACKET: each
	// record is a datagram of one peer, and each that is written the answer to
	// one. Amplify lets answers have more bytes than what they answer.
	Datagrams, Amplify bool
}

// A service is one built-in, before it is a program.
type service struct {
	clocked   bool
	takesText bool
	steps     func(Options) (program, error)
}

// all has each service under its name; the file of a service is NAME.go.
var all = map[string]service{
	"chargen":  chargen,
	"daytime":  daytime,
	"discard":  discard,
	"echo":     echo,
	"greeting": greeting,
	"qotd":     qotd,
	"time":     timeProtocol,
}

// Names lists the built-in services, sorted.
func Names() []string { return slices.Sorted(maps.Keys(all)) }

// Clocked says whether the service's image tells one second (daytime, time),
// and must be made anew when the second has changed.
func Clocked(name string) bool { return all[name].clocked }

// TakesText says whether the service has a text to set (greeting, qotd).
func TakesText(name string) bool { return all[name].takesText }

// Image is the service as a static ELF program for this machine. The same
// name and options give the same bytes.
func Image(name string, o Options) ([]byte, error) {
	return imageFor(runtime.GOARCH, name, o)
}

// maxText keeps a text, in the image's data, well below the buffer.
const maxText = 1 << 20 // bytes

func imageFor(arch, name string, o Options) ([]byte, error) {
	a, ok := architectures[arch]
	if !ok {
		return nil, fmt.Errorf("cannot make built-ins for %s: no walker", arch)
	}
	s, ok := all[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("no built-in named %q (there are %v)", name, Names())
	case o.Text != nil && !s.takesText:
		return nil, fmt.Errorf("%s: takes no text", name)
	case o.Text != nil && len(*o.Text) > maxText:
		return nil, fmt.Errorf("%s: text has %d bytes, more than %d", name, len(*o.Text), maxText)
	case s.clocked && o.Now.IsZero():
		return nil, fmt.Errorf("%s: needs to know the time", name)
	}
	p, err := s.steps(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a.image(p.named(name)), nil
}

// text is what the administrator set, or else the service's own.
func (o Options) text(deflt string) string {
	if o.Text != nil {
		return *o.Text
	}
	return deflt
}
