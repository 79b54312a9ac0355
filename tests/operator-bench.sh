#!/usr/bin/env bash
# `make operator-bench`: what the operator costs with 5,000 topics, against a real API server; writes docs/performance.md.
# KEELSON_BENCH_TOPICS (5000), KEELSON_BENCH_SAMPLES (200), KEELSON_BENCH_WATCH_SECONDS (180), KEELSON_BINARIES (no build).
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh kube
[ -n "${KEELSON_BINARIES:-}" ] || cargo build --release --workspace --bins
exec python3 tests/python/operator_bench.py "$@"
