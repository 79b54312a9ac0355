# The one place for names that people and CI run. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help run test check bench bench-log operator-bench bench-requests sim suites differential chaos fuzz pictures image cluster-test setup

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

bench-requests: ## Allocations and instructions per request; writes docs/performance.md
	@tests/bench-requests.sh

operator-bench: ## What the operator costs with 5,000 topics, beside a real API server; writes docs/performance.md
	@tests/operator-bench.sh

chaos: ## SIGKILL at named points, 200 rounds, all recounted; 100 runs of clients through kills and pauses, all judged
	@cargo build --workspace --bins
	@KEELSON_CHAOS_ROUNDS=$${KEELSON_CHAOS_ROUNDS:-200} cargo test --workspace --test chaos -- --nocapture
	@KEELSON_CONSISTENCY_RUNS=$${KEELSON_CONSISTENCY_RUNS:-100} cargo test --workspace --test consistency -- --nocapture

fuzz: ## Every fuzz target under libFuzzer, ten minutes and a million executions each
	@tests/fuzz.sh

sim: ## Simulated crashes: 100,000 and more, each recovered twice and read through
	@tests/sim.sh

suites: ## Other people's client suites (kcat, franz-go, librdkafka) held against what Apache Kafka passes there
	@tests/suites.sh

differential: ## Records Apache Kafka's answers to the scripted calls anew, and compares Keelson's with them
	@tests/differential.sh

pictures: ## Draw docs/pictures anew: the dashboards over four minutes of a cluster at work and of bad disks
	@cargo build --workspace --bins
	@tests/chart/run.sh --pictures

image: ## An OCI archive with all three binaries, without a daemon
	@charts/image/build.sh

cluster-test: ## The chart on a real Kubernetes (KUBECONFIG, or one brought up here); writes docs/cluster-test.md
	@tests/kube/cluster-test.sh
