#!/usr/bin/env bash
# `make bench-requests`: what each kind of request costs, as allocations and instructions; the table goes to docs/performance.md.
# Both are counts, which other work on the machine does not change.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind > /dev/null || { echo "valgrind is missing: apt-get install -y --no-install-recommends valgrind libc6-dbg" >&2; exit 1; }
exec python3 tests/python/request_bench.py
