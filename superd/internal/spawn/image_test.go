package spawn

import (
	"strings"
	"testing"

	"superd/services"
)

// TestImageFileRuns: where memfds cannot be executed, a built-in is a file.
func TestImageFileRuns(t *testing.T) {
	content, err := services.Image("greeting", services.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := NewEngine()
	fd, err := e.imageFile("greeting", content)
	if err != nil {
		t.Fatal(err)
	}
	i := &Image{name: "greeting", engine: e}
	i.fd.Store(int32(fd))
	defer i.Close()
	if got := mustAnswerWith(t, e, Spec{Image: i, Argv: []string{"greeting"}, Stderr: StderrClient, Dir: "/"}); got != "hi client" {
		t.Errorf("got %q", got)
	}
}

func TestNoPlaceForAnImageHasWords(t *testing.T) {
	old := imageDirs
	defer func() { imageDirs = old }()
	imageDirs = []string{"/proc", "/none"}
	_, err := NewEngine().imageFile("echo", nil)
	if err == nil || !strings.HasPrefix(err.Error(), "cannot keep the built-in echo: EACCES (vm.memfd_noexec forbids") {
		t.Errorf("got %v", err)
	}
}
