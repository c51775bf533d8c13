# superd: `make run` serves echo and greeting on this machine, `make test` tests.

GO         = go
PREFIX     = /usr/local
BINDIR     = $(PREFIX)/sbin
MANDIR     = $(PREFIX)/share/man
SYSCONFDIR = /etc
DESTDIR    =

VERSION = 0.1.0
LDFLAGS = -s -w -X main.version=$(VERSION) -X main.systemFile=$(SYSCONFDIR)/superd/superd.yaml
PAGES   = superd.8 superd.yaml.5 superd-program.7 superd-services.8

all: bin/superd

# Go knows best what has changed.
.PHONY: all bin/superd run test race lint install uninstall clean

bin/superd:
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $@ ./superd

run: bin/superd
	bin/superd run -c etc/superd.yaml

test: race
	CGO_ENABLED=0 $(GO) test ./...

# The race detector needs cgo, and so a C compiler.
race:
	@if command -v $${CC:-cc} >/dev/null; then \
		echo 'CGO_ENABLED=1 $(GO) test -race -short ./...'; \
		CGO_ENABLED=1 $(GO) test -race -short ./...; \
	elif [ -n "$$SUPERD_TEST_STRICT" ]; then \
		echo 'the race detector needs a C compiler' >&2; exit 1; \
	else \
		echo 'SKIPPED: the race detector needs a C compiler'; \
	fi

lint:
	test -z "$$(gofmt -l .)"
	CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=0 GOARCH=arm64 $(GO) vet ./...
	cd man && mandoc -T lint -W style $(PAGES)
	shellcheck .ci/run

install: bin/superd
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(SYSCONFDIR)/superd
	install -m 755 bin/superd $(DESTDIR)$(BINDIR)/superd
	for page in $(PAGES); do \
		section=$(DESTDIR)$(MANDIR)/man$${page##*.}; \
		install -d $$section && install -m 644 man/$$page $$section/$$page || exit 1; \
	done
	test -e $(DESTDIR)$(SYSCONFDIR)/superd/superd.yaml || \
		install -m 644 etc/superd.yaml $(DESTDIR)$(SYSCONFDIR)/superd/superd.yaml

# The configuration stays: it is the administrator's.
uninstall:
	rm -f $(DESTDIR)$(BINDIR)/superd
	for page in $(PAGES); do rm -f $(DESTDIR)$(MANDIR)/man$${page##*.}/$$page; done

clean:
	rm -rf bin
