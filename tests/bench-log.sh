#!/usr/bin/env bash
# `make bench-log`: what the log costs beside the disk itself; medians go to docs/performance.md.
# KEELSON_BENCH_ROUNDS (5), KEELSON_BENCH_SECONDS (5 per measurement of commits). Words choose measurements and write nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh apt
cargo build --release --workspace --bins
exec python3 tests/python/log_bench.py "$@"
