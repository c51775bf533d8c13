# superd: `make run` serves echo and greeting on this machine, `make test` tests.

GO         = go
PREFIX     = /usr/local
BINDIR     = $(PREFIX)/sbin
MANDIR     = $(PREFIX)/share/man
SYSCONFDIR = /etc
RUNDIR     = /run
UNITDIR    = $(PREFIX)/lib/systemd/system
DESTDIR    =

VERSION = 0.1.0
LDFLAGS = -s -w -X main.version=$(VERSION) -X main.systemFile=$(SYSCONFDIR)/superd/superd.yaml \
	-X main.rootSocket=$(RUNDIR)/superd/control.sock
PAGES   = superd.8 superd.yaml.5 superd-program.7 superd-services.8

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.1
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.8.0

all: bin/superd

# Go knows best what has changed.
.PHONY: all bin/superd run test race plain soak test-vm bench lint install uninstall clean
.NOTPARALLEL:

bin/superd:
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $@ ./superd

run: bin/superd
	bin/superd run -c etc/superd.yaml

# What is missing on this machine is listed as SKIPPED, unless
# SUPERD_TEST_STRICT is set: then it fails.
test: race plain

# Most tests wait more than they work: twice as many at a time as processors.
PARALLEL := $(shell echo $$((2 * $$(nproc))))

# The race detector needs cgo, and so a C compiler.
race:
	@if command -v $${CC:-cc} >/dev/null; then \
		echo 'CGO_ENABLED=1 $(GO) test -race -short -parallel $(PARALLEL) ./...'; \
		CGO_ENABLED=1 $(GO) test -race -short -parallel $(PARALLEL) ./...; \
	elif [ -n "$$SUPERD_TEST_STRICT" ]; then \
		echo 'the race detector needs a C compiler' >&2; exit 1; \
	else \
		echo 'SKIPPED: the race detector needs a C compiler'; \
	fi

# What takes its time, thousands of connections, a thousand reloads and two
# hundred upgrades, is soak's.
plain: SHORT := -short

# Without -v, go test does not tell what was skipped; with it, it tells too
# much. So awk keeps what was skipped, and everything of a package that failed.
plain soak:
	@echo 'CGO_ENABLED=0 $(GO) test $(SHORT) -parallel $(PARALLEL) ./...'
	@{ CGO_ENABLED=0 $(GO) test -v $(SHORT) -parallel $(PARALLEL) ./... 2>&1; echo "go test: $$?"; } | awk ' \
		/^go test: [0-9]+$$/         { status = $$3; next } \
		/^=== /                      { next } \
		/^(ok|[?])[ \t]/             { printf "%s", skipped; print; skipped = all = ""; next } \
		/^FAIL[ \t]/                 { printf "%s", all; print; skipped = all = ""; next } \
		/^ *--- SKIP: |SKIPPED: /    { skipped = skipped $$0 "\n" } \
		!/^ *(--- PASS: .*|PASS)$$/  { all = all $$0 "\n" } \
		END                          { printf "%s", all; exit status }'

# In an emulated machine: arm64, an older kernel, and all cgroup controllers.
test-vm:
	.ci/arm64

bench: bin/superd
	CGO_ENABLED=0 $(GO) run ./superd/bench bin/superd

# Of staticcheck, U1000 does not see what the kernel and assembly read. Status
# 3 of govulncheck is a finding; any other says that it could not look.
# Manuals that a page refers to are empty files: only ours have to be there.
lint:
	@bad=$$(gofmt -l superd services etc); test -z "$$bad" || { echo "gofmt: $$bad" >&2; exit 1; }
	CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=0 GOARCH=arm64 $(GO) vet ./...
	$(GO) run $(STATICCHECK) -checks inherit,-U1000 ./...
	@tool=$$(mktemp -d); status=2; \
	GOBIN=$$tool $(GO) install $(GOVULNCHECK) && { $$tool/govulncheck ./...; status=$$?; }; \
	rm -rf $$tool; case $$status in \
	0) ;; \
	3) exit 1 ;; \
	*) echo 'SKIPPED: govulncheck cannot have its data here' >&2 ;; \
	esac
	shellcheck .ci/run .ci/arm64
	@echo mandoc -T lint -W style $(PAGES)
	@dir=$$(mktemp -d); trap 'rm -rf $$dir' EXIT; cp man/* $$dir; cd $$dir; \
	sed -n 's/^\..*Xr \([^ ]*\) \([1-9]\).*/\1.\2/p' $(PAGES) | grep -v '^superd' | xargs touch; \
	MANPATH=$$dir mandoc -T lint -W style $(PAGES)

install: bin/superd
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(SYSCONFDIR)/superd/conf.d
	install -m 755 bin/superd $(DESTDIR)$(BINDIR)/superd
	for page in $(PAGES); do \
		section=$(DESTDIR)$(MANDIR)/man$${page##*.}; \
		install -d $$section && install -m 644 man/$$page $$section/$$page || exit 1; \
	done
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|/usr/local/sbin|$(BINDIR)|' etc/superd.service > $(DESTDIR)$(UNITDIR)/superd.service
	chmod 644 $(DESTDIR)$(UNITDIR)/superd.service
	test -e $(DESTDIR)$(SYSCONFDIR)/superd/superd.yaml || \
		install -m 644 etc/superd.yaml $(DESTDIR)$(SYSCONFDIR)/superd/superd.yaml

# The configuration stays: it is the administrator's.
uninstall:
	rm -f $(DESTDIR)$(BINDIR)/superd $(DESTDIR)$(UNITDIR)/superd.service
	for page in $(PAGES); do rm -f $(DESTDIR)$(MANDIR)/man$${page##*.}/$$page; done

clean:
	rm -rf bin
