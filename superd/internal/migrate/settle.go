package migrate

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"superd/superd/internal/config"
)

// settle writes the file, and takes out of it what superd would not take: keys,
// and services where that is not enough. So what comes out can always be loaded.
func (im *importer) settle(head string) ([]byte, error) {
	for len(im.services) > 0 {
		text := im.write(head)
		_, err := config.Parse("file", text, &names{})
		var problems config.Problems
		switch {
		case err == nil:
			return text, nil
		case !errors.As(err, &problems):
			return nil, err
		}
		for _, p := range problems {
			if !im.mend(p) {
				return nil, errors.New(p.What)
			}
		}
	}
	return nil, errors.New("there is no service in it that superd could have")
}

// mend takes out what a problem is about.
func (im *importer) mend(p config.Problem) bool {
	rest, is := strings.CutPrefix(p.Path, "services.")
	name, rest, _ := strings.Cut(rest, ".")
	if !is {
		return false
	}
	if i := slices.IndexFunc(im.services, func(s *service) bool { return s.name == name }); i >= 0 {
		im.services[i].mend(rest, p)
	}
	return true // it may be gone for another problem
}

func (s *service) mend(path string, p config.Problem) {
	key := s.keyOf(path)
	v, is := s.keys[key]
	what := p.What
	if p.Hint != "" {
		what += " (" + p.Hint + ")"
	}
	switch {
	case !is || key == "run" || key == "builtin" || key == "enabled" || key == "listen" && (s.has("enabled") || !strings.Contains(p.What, "clashes")):
		s.drop(s.at, "%s: %s", path, what)
	case key == "listen":
		s.off(v.at, "%s", what)
	case guards(key):
		delete(s.keys, key)
		s.off(v.at, "%s is not carried over: %s", key, what)
	default:
		delete(s.keys, key)
		s.note(v.at, "%s is not carried over: %s", key, what)
	}
}

// keyOf is the key that a path is in: allow of allow[2].
func (s *service) keyOf(path string) string {
	for key := range s.keys {
		if rest, is := strings.CutPrefix(path, key); is && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return key
		}
	}
	return ""
}

// guards tells the keys that keep somebody out, or a program in.
func guards(key string) bool {
	return slices.Contains([]string{"allow", "deny", "hours", "chroot"}, key) || strings.HasPrefix(key, "sandbox")
}

// names knows every host, each by an address of its own, and no port by its
// name: the file has numbers. Whether hosts are known is for who loads the file.
type names struct{ hosts int }

func (n *names) LookupHost(string) ([]netip.Addr, error) {
	n.hosts++
	return []netip.Addr{netip.AddrFrom4([4]byte{198, 18 + byte(n.hosts>>16&1), byte(n.hosts >> 8), byte(n.hosts)})}, nil
}

func (*names) LookupPort(_, service string) (int, error) {
	return 0, fmt.Errorf("the port %s has no number", service)
}

func (*names) ReadFile(path string, _ int64) ([]byte, error) {
	return nil, fmt.Errorf("the file %s is not read", path)
}

func (*names) ReadDir(path string) ([]string, error) {
	return nil, fmt.Errorf("the directory %s is not read", path)
}
