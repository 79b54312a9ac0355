#!/usr/bin/env bash
# `make bench`: Keelson and Apache Kafka alternating in one run; medians go to docs/performance.md.
# KEELSON_BENCH_ROUNDS (5), KEELSON_BENCH_SECONDS (10 per measurement), KEELSON_BENCH_PARTITIONS ("12 1000").
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh apt java
cargo build --release --workspace --bins
exec python3 tests/python/bench.py "$@"
