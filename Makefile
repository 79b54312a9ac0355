# The one place for names that people and CI run. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help run test check bench bench-log suites kill-loop image cluster-test setup

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and start one broker on 127.0.0.1:9092 with the topics of examples/, until Ctrl-C
	@tests/run.sh

test: ## Build and run every test (what CI runs)
	@tests/test.sh

check: ## Format, lints, dependency rules, generated files
	@tests/check.sh

setup: ## Install what the tests need beyond Rust, Go, Python and a C compiler
	@tests/setup.sh

bench: ## Keelson beside Apache Kafka, alternating in one run; writes docs/performance.md
	@tests/bench.sh

bench-log: ## What the log costs beside the disk itself; writes docs/performance.md
	@tests/bench-log.sh

kill-loop: ## kill -9 under load, 50 rounds, every acknowledged record recounted
	@cargo build --workspace --bins
	@KEELSON_KILL_ROUNDS=$${KEELSON_KILL_ROUNDS:-50} cargo test -p keelson-tests --test durability -- kill_under_load --nocapture

suites: ## Other people's client suites (kcat, franz-go, librdkafka) against Keelson
	@tests/suites.sh

image: ## An OCI archive with all three binaries, without a daemon
	@charts/image/build.sh

cluster-test: ## A real Kubernetes with the chart installed by Helm
	@tests/kube/cluster-test.sh
