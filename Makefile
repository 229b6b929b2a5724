# Everything a person or CI does here. `make` alone lists it.
#
#   make demo KEEP=1          leaves the demo up
#   make test-net FILTER=leak only some of the network tests
#   make cluster              a Kubernetes of two nodes on this machine, left up for you

CARGO  ?= cargo
KEEP   ?=
FILTER ?=
# Integration tests that need neither a lab nor a Kubernetes: a file or a folder in tests/ each.
PLAIN  := $(filter-out netns apiserver controller cluster chart,$(notdir $(basename $(wildcard tests/*.rs)) $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs))))

.DEFAULT_GOAL := help
.PHONY: $(shell awk -F: '/^[a-z-]+:/ { print $$1 }' $(firstword $(MAKEFILE_LIST)))

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Install the tools that labs need (iptables, iproute2, curl, …), only what is missing
	@deploy/install-deps

deps-cluster: ## The same for clusters (etcd, containerd, CNI plugins, …)
	@deploy/install-deps cluster

demo: deps ## The whole main job on this machine, without a cluster (KEEP=1 leaves it up)
	@echo "Building (some minutes the first time, seconds afterwards)"
	@$(CARGO) build --bin lanyard
	@$(CARGO) run --quiet --bin lanyard -- demo $(if $(KEEP),--keep)

programs: deps-cluster ## Build Kubernetes and Helm for tests, where they are not cached yet (~/.cache/lanyard)
	@$(CARGO) test --quiet --test cluster -- programs

cluster: deps-cluster ## A real Kubernetes on this machine, with simulated Azure; it stays up
	@echo "Building (some minutes the first time, seconds afterwards)"
	@$(CARGO) test --quiet --test cluster -- up

cluster-down: ## Removes the cluster and every trace of it
	@$(CARGO) test --quiet --test cluster -- down

test: deps deps-cluster check test-unit ## Everything that must pass before a change lands
	@echo "== the image is built beside what needs none (target/image.log)"
	@$(MAKE) --no-print-directory image >target/image.log 2>&1 & \
	$(MAKE) --no-print-directory test-net test-api; status=$$?; wait; exit $$status
	@$(MAKE) --no-print-directory test-cluster

check: ## Formatting and lints
	@echo "== formatting and lints"
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

test-unit: ## Tests that need no network namespaces
	@echo "== unit and wire tests"
	$(CARGO) test --no-fail-fast --lib --bins $(addprefix --test ,$(PLAIN))
	$(CARGO) test --doc

test-net: programs ## Tests in network namespaces, both iptables backends (FILTER=… for some)
	@echo "== network tests: agents and pods in network namespaces, usually some minutes"
	$(CARGO) test --test netns -- $(FILTER)

test-api: programs ## Tests on an API server without nodes: rights, webhooks, the controller (FILTER=… for some)
	@echo "== tests on an API server, usually a quarter of an hour"
	$(CARGO) test --test apiserver -- $(FILTER)
	$(CARGO) test --test controller -- $(FILTER)

test-cluster: programs image ## Tests on a Kubernetes of their own (FILTER=… for some)
	@echo "== cluster tests: Kubernetes in namespaces, usually half an hour"
	$(CARGO) test --test cluster -- $(FILTER)
	$(CARGO) test --test chart -- $(FILTER)

test-az: programs image ## The Azure CLI in pods of that Kubernetes (its image is 600 MB: not part of `make test`)
	$(CARGO) test --test cluster -- az:: --nocapture

bench: programs ## What the agent costs, side by side with a bare server, and the controller; see BENCHMARKS.md
	$(CARGO) bench --bench path
	$(CARGO) bench --bench path -- --inside
	$(CARGO) bench --bench path -- --hosts
	$(CARGO) bench --bench obtain
	$(CARGO) bench --bench controller

image: ## The container image for amd64, without a container engine: target/image/lanyard-amd64.tar
	@deploy/install-deps image-amd64
	@deploy/image/build amd64

image-all: ## … and for arm64, cross-built
	@deploy/install-deps image-amd64
	@deploy/install-deps image-arm64
	@deploy/image/build amd64 arm64

crds: ## Write the chart's CustomResourceDefinitions anew from the types in src/api
	@$(CARGO) run --quiet --bin lanyard -- crds --dir charts/lanyard/files/crds

HELM ?= $(or $(LANYARD_CACHE),$(HOME)/.cache/lanyard)/helm-4.3.1/bin/helm

manifests: ## Render deploy/lanyard.yaml from the chart, for those without Helm
	@deploy/render $(HELM) > deploy/lanyard.yaml.new && mv deploy/lanyard.yaml.new deploy/lanyard.yaml
