# Everything a person or CI does here. `make` alone lists it.
#
#   make demo KEEP=1          leaves the demo up
#   make test-net FILTER=leak only some of the network tests

CARGO  ?= cargo
KEEP   ?=
FILTER ?=
# Integration tests that need neither a lab nor an API server: a file or a folder in tests/ each.
PLAIN  := $(filter-out netns apiserver,$(notdir $(basename $(wildcard tests/*.rs)) $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs))))

.DEFAULT_GOAL := help
.PHONY: help deps demo test check test-unit test-net bench crds

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

crds: ## Write the chart's CustomResourceDefinitions anew from the types in src/api
	@$(CARGO) run --quiet --bin lanyard -- crds --dir charts/lanyard/files/crds
