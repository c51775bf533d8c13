package listen

import (
	"errors"

	"superd/superd/internal/config"
)

// Reconfigure gives an open socket the options that l has, as far as they can
// be changed while it listens; its queue stays as it is. What is wrong is told
// after all the rest was done.
func (k *Socket) Reconfigure(l *config.Listener, owners Owners) error {
	var err error
	if k.heirloom == nil || l.Backlog > 0 {
		err = listenOn(k.fd, l)
	}
	if k.configurable(l) {
		err = errors.Join(err, configure(k.fd, l, k.listener))
	}
	if k.file.path != "" {
		err = errors.Join(err, k.giveAway(l, owners))
	}
	k.listener = l
	return err
}
