package listen

import (
	"os"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// Reconfigure gives an open socket the options that l has, as far as they can
// be changed while it listens; its queue stays as it is. What is wrong is told
// after all the rest was done.
func (k *Socket) Reconfigure(l *config.Listener) error {
	return os.NewSyscallError("listen", unix.Listen(k.fd, backlogOf(l)))
}
