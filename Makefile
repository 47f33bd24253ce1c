# `make help` lists the targets. `make check` is all that CI runs.

GO             ?= go
GOLANGCI_LINT  ?= $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK    ?= $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0
GOVULNDB       ?= https://vuln.go.dev
FUZZTIME       ?= 30s
DIST           ?= dist

.PHONY: help build release deploy-check demo packages test lint examples docs pictures bench bench-spending soak fuzz vuln check

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## build Caddy with tollgate as ./caddy
	$(GO) build -trimpath -o caddy ./cmd/caddy

release: ## write the release VERSION=0.1.0 to DIST: archives, packages, bills of materials, checksums
	GO="$(GO)" deploy/release "$(VERSION)" "$(DIST)" $(PLATFORMS)

deploy-check: ## check the image, the manifests, the chart and the package with the tools of operators (as root)
	GO="$(GO)" deploy/check

demo: ## run the demo: gateway, simulated provider and a small upstream
	$(GO) run ./cmd/caddy tollgate demo

packages: ## install the programs that the tests run, where they are missing
	@.ci/install-packages

test: packages ## run all tests, with the race detector
	$(GO) test -race -timeout 20m ./...

lint: ## vet, and the linters of .golangci.yml
	$(GO) vet ./...
	$(GOLANGCI_LINT) run --allow-parallel-runners ./...

examples: packages ## load every example, and follow the ones that can be followed
	$(GO) test -race -timeout 20m -count=1 -run '^TestExamples?' -v .

docs: ## write the table in docs/options.md from the code
	TOLLGATE_UPDATE_DOCS=1 $(GO) test -count=1 -run '^TestOptionsTable' .

pictures: packages ## take the pictures of the manual anew
	TOLLGATE_UPDATE_PICTURES=1 $(GO) test -count=1 -run '^TestPictures' ./e2e

bench: ## compare with plain Caddy in one run, and print the ratios
	$(GO) run ./bench

bench-spending: packages ## print what an admission and a settlement cost: in the process, and with Redis
	$(GO) test -run '^$$' -bench '^Benchmark(AdmitAndSettle|ManyUsers|Ledger)$$' -benchmem ./internal/spending ./stores/redis

soak: ## use the site while everything around it fails, and count what is lost (about five minutes)
	TOLLGATE_HISTORIES=2000000 $(GO) test -count=1 -run '^TestRandomHistories' ./internal/spending
	$(GO) run ./soak

fuzz: ## run each fuzz target for FUZZTIME
	@set -e; count=0; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
			count=$$((count + 1)); \
		done; \
	done; \
	echo "$$count fuzz targets"; test $$count -gt 0

vuln: ## fail on a known vulnerability that the code reaches (asks vuln.go.dev, so `make check` leaves it out)
	@.ci/vuln $(GOVULNCHECK) -db $(GOVULNDB) ./...

check: lint test examples ## all that CI runs
