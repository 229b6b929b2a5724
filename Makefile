# Everything a person or CI does here. `make` alone lists it.
#
#   make demo KEEP=1          leaves the demo up
#   make test-net FILTER=leak only some of the network tests

CARGO  ?= cargo
KEEP   ?=
FILTER ?=
# Integration tests that need no lab: a file or a folder in tests/ each.
PLAIN  := $(filter-out netns,$(notdir $(basename $(wildcard tests/*.rs)) $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs))))

.DEFAULT_GOAL := help
.PHONY: $(shell awk -F: '/^[a-z-]+:/ { print $$1 }' $(firstword $(MAKEFILE_LIST)))

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Install the tools that labs need (iptables, iproute2, curl, …), only what is missing
	@deploy/install-deps

demo: deps ## The whole main job on this machine, without a cluster (KEEP=1 leaves it up)
	@echo "Building (some minutes the first time, seconds afterwards)"
	@$(CARGO) build --bin lanyard
	@$(CARGO) run --quiet --bin lanyard -- demo $(if $(KEEP),--keep)

test: deps check test-unit test-net ## Everything that must pass before a change lands

check: ## Formatting and lints
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

test-unit: ## Tests that need no network namespaces
	$(CARGO) test --no-fail-fast --lib --bins $(addprefix --test ,$(PLAIN))
	$(CARGO) test --doc

test-net: deps ## Tests in network namespaces, both iptables backends (FILTER=… for some)
	$(CARGO) test --test netns -- $(FILTER)

bench: deps ## What the agent costs, side by side with a bare server; see BENCHMARKS.md
	$(CARGO) bench --bench path

image: ## The container image for amd64, without a container engine: target/image/lanyard-amd64.tar
	@deploy/install-deps image-amd64
	@deploy/image/build amd64

image-all: ## … and for arm64, cross-built
	@deploy/install-deps image-amd64
	@deploy/install-deps image-arm64
	@deploy/image/build amd64 arm64

crds: ## Write the chart's CustomResourceDefinitions anew from the types in src/api
	@$(CARGO) run --quiet --bin lanyard -- crds --dir charts/lanyard/files/crds
