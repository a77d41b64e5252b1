# darkmirror: make help lists the targets.
SHELL := /bin/sh
GO ?= go
export GOFLAGS := -mod=readonly -buildvcs=false

# Tools are pinned here and built beside the project; none enters go.mod.
TOOLS := .cache/tools
GOFUMPT := $(TOOLS)/gofumpt-v0.12.0
STATICCHECK := $(TOOLS)/staticcheck-v0.8.2
GOLANGCI := $(TOOLS)/golangci-lint-v2.15.0
FUZZTIME ?= 10s

.PHONY: help build check lint test demo crash clients pypi crosscheck packaging clients-models conformance registries s3 scan report link fuzz bench bench-oci bench-models bench-scan bench-pypi bench-pypi-serve bench-devpi bench-diode clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

build: ## build bin/darkmirror and bin/darkdiode
	@$(GO) version >/dev/null 2>&1 || { echo "make: Go is missing: install Go $$(sed -n 's/^go //p' go.mod) or newer" >&2; exit 1; }
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags=-buildid= -o bin/darkmirror ./cmd/darkmirror
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags=-buildid= -o bin/darkdiode ./cmd/darkdiode

check: $(GOFUMPT) $(STATICCHECK) $(GOLANGCI) ## formatting, vet, staticcheck, golangci-lint, registry names
	@files=$$($(GOFUMPT) -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$files" || { echo "gofumpt: $$files" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags failpoint ./...
	$(GO) vet -tags s3server ./models/s3
	$(STATICCHECK) ./...
	$(GOLANGCI) run --allow-parallel-runners ./...
	sh testdata/no-upstreams.sh

test: ## all tests with the race detector, then the kill -9 tests in their short form
	sh testdata/need.sh test
	CGO_ENABLED=1 DARKMIRROR_NEED_CLAMD=1 $(GO) test -race -count=1 -timeout=20m ./...
	$(GO) test -tags failpoint -count=1 -timeout=20m -run 'TestKill|TestCrash' ./mirror/store ./mirror/files ./mirror/translog ./bundle ./bundle/root ./bundle/carry ./bundle/recovery ./pypi ./apt ./oci/... ./models/... ./cmd/darkmirror

crash: ## kill -9 at every fail point and every passage of it (slow)
	DARKMIRROR_KILL=all $(GO) test -tags failpoint -count=1 -timeout=80m -v -run TestKill ./cmd/darkmirror

demo: build ## the main job, with real packages from this host's own upstreams
	sh testdata/need.sh demo
	bash testdata/demo/run.sh

clients: build ## real pip (old and new), uv, containerd and skopeo against the inside server
	sh testdata/need.sh clients
	bash testdata/clients/run.sh
	@if [ "$$(id -u)" = 0 ]; then bash testdata/clients/containerd.sh; else echo "containerd and skopeo: NOT RUN, they need root"; fi

pypi: build ## real uv, pip, devpi-server, pypiserver and pypi-attestations (3 minutes)
	sh testdata/need.sh clients
	bash testdata/clients/inputs.sh
	bash testdata/devpi/run.sh
	sh pypi/provenance/testdata/peers.sh

crosscheck: ## 40 sets of requirements for 4 targets each, beside uv and pip (an hour)
	bash testdata/resolve/crosscheck.sh

packaging: ## versions, markers and tags against all of pypa/packaging's own tests (8 minutes)
	sh testdata/packaging/run.sh

clients-models: build ## huggingface_hub (new and old), hf, @huggingface/hub, transformers, sentence-transformers
	sh testdata/need.sh clients-models
	bash testdata/clients/models.sh

conformance: build ## the specification's own program against the embedded registry
	bash testdata/conformance/run.sh

registries: build ## docker-registry and distribution as upstream and targets; a killed 1 GiB pull and push
	bash testdata/registries/run.sh
	sh testdata/registries/modelpack.sh

s3: build ## a real S3 server as a target of models, read back by boto3
	sh testdata/s3/run.sh

scan: build ## a real clamd: what is found, what is refused, no network, judged again inside
	sh testdata/need.sh scan
	bash testdata/scan/run.sh

link: ## the one-way link in network namespaces: a bad line, kills, garbage, and no frame from the inside
	sh testdata/need.sh link
	bash bench/diode/run.sh short

report: ## the report in Chromium: light, dark, a phone, print
	sh testdata/need.sh report
	sh testdata/report/screenshot.sh

fuzz: ## every fuzz test for FUZZTIME each
	sh testdata/fuzz.sh $(FUZZTIME)

bench: build ## figures of bench/, beside pip download and aptly
	bash bench/run.sh

bench-oci: build ## figures for images, beside crane, regctl, skopeo and oras
	bash bench/oci/run.sh

bench-models: build ## figures for models, beside hf download and nginx
	bash bench/models/run.sh

bench-scan: build ## figures of the scanners, beside clamscan, Trivy's own engine, picklescan, modelscan and fickling
	sh testdata/need.sh scan
	bash bench/scan/run.sh

bench-pypi: build ## figures of resolving and fetching, beside pip, uv and bandersnatch
	bash bench/pypi/run.sh

bench-pypi-serve: ## figures of the index server, beside nginx
	bash bench/pypi-serve/run.sh

bench-devpi: build ## figures of uploads into a real devpi-server, beside a bare loop, devpi upload and twine
	bash bench/devpi/run.sh

bench-diode: ## figures of the link, 10 GB a case, beside udpcast and a plain copy
	sh testdata/need.sh link
	bash bench/diode/run.sh

clean: ## remove what was built
	rm -rf bin .cache .demo .venv bench/results

$(GOFUMPT):
	@mkdir -p $(TOOLS)
	GOFLAGS=-mod=mod GOBIN=$(CURDIR)/$(TOOLS) $(GO) install mvdan.cc/gofumpt@v0.12.0
	mv $(TOOLS)/gofumpt $@

$(STATICCHECK):
	@mkdir -p $(TOOLS)
	GOFLAGS=-mod=mod GOBIN=$(CURDIR)/$(TOOLS) $(GO) install honnef.co/go/tools/cmd/staticcheck@v0.8.2
	mv $(TOOLS)/staticcheck $@

$(GOLANGCI):
	@mkdir -p $(TOOLS)
	GOFLAGS=-mod=mod GOBIN=$(CURDIR)/$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	mv $(TOOLS)/golangci-lint $@
