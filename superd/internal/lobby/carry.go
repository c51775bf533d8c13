package lobby

import "time"

// Each calls f for every guest that is inside, with its deadline.
func (l *Lobby) Each(f func(host Host, due time.Duration)) {
	for _, s := range l.guests {
		switch g := s.guest; {
		case g == nil:
		case g.heap < 0:
			f(g.host, Forever)
		default:
			f(g.host, g.due)
		}
	}
}
