# Verbs of this checkout. Recipes stay thin: what is more than one command lives in xtask/.
#
#   make demo    the main job, on a real cluster on this machine
#   make test    every test that CI runs

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo demo-down test test-unit test-netns test-lab e2e e2e-faults conformance bench bench-policy image install \
        lab-up lab-down lint fmt gen gen-check clean tools

NODES ?= 3
LAB ?=
BENCH ?=
FAULTS ?=
CARGO ?= cargo
XTASK := $(CARGO) xtask

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: tools ## Build weft, start a cluster, install weft by helm, show it at work
	$(XTASK) demo

demo-down: tools ## Remove what the demo made, the cluster with it
	$(XTASK) demo-down

test: tools ## Every test that CI runs: test-unit, test-netns, test-lab, e2e
	$(XTASK) test all

test-unit: tools ## Tests without root, kernel or cluster
	$(XTASK) test unit

test-netns: tools ## Tests against this kernel, in network namespaces of their own (root)
	$(XTASK) test netns

test-lab: tools ## Tests of the lab itself (root; no lab may be up)
	$(XTASK) test lab

e2e: tools ## Tests against a running cluster (KUBECONFIG; default: the lab)
	$(XTASK) test e2e

e2e-faults: tools ## Fault experiments on npc in the lab (FAULTS="--only E2,E24", --short)
	$(XTASK) e2e-faults $(FAULTS)

conformance: tools ## NetworkPolicy suite of upstream Kubernetes against the lab
	$(XTASK) conformance

bench: tools ## Speed and footprint on the lab, as ratios with a noise control
	$(XTASK) bench

bench-policy: tools ## What policies cost and how soon they are in force (root; BENCH="--quick", "--lab")
	$(XTASK) bench-policy -- $(BENCH)

image: tools ## One OCI image, made offline: target/image/weft.tar
	$(XTASK) image

install: tools ## helm install of the built image into the lab
	$(XTASK) install

lab-up: tools ## Start the cluster (NODES=3, LAB="--proxy-mode nftables --families dual")
	$(XTASK) lab up --nodes $(NODES) $(LAB)

lab-down: tools ## Remove the cluster and everything it made
	$(XTASK) lab down

lint: tools ## Format, clippy, tidy, licences, generated files
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(XTASK) tidy
	$(XTASK) gen --check

fmt: ## Format the sources
	$(CARGO) fmt --all

gen: tools ## Write the generated files: CRDs, charts, manifest
	$(XTASK) gen

gen-check: tools ## Fail if a generated file is not fresh
	$(XTASK) gen --check

clean: ## Remove target/ (not the cache of the lab)
	$(CARGO) clean

# What must exist before xtask can be built. The Debian packages of a single task are installed by
# that task (xtask/src/packages.rs).
tools:
	@command -v cc >/dev/null || { echo "no C compiler: installing gcc by apt"; apt-get install -y -q gcc libc6-dev; }
	@command -v $(CARGO) >/dev/null || { echo "no cargo: install rustup from https://rustup.rs, then call make again"; exit 1; }
