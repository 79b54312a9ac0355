#!/usr/bin/env bash
# `make sim`: long simulated crashes of the log on a simulated disk, in an optimised build with assertions. Prints the seeds, the
# progress, and the number of crash points at the end.
# Variables: KEELSON_SIM_POINTS (100000) random points, the scripts come on top; KEELSON_SEED replays one life instead.
set -euo pipefail
cd "$(dirname "$0")/.."
export KEELSON_SIM_POINTS=${KEELSON_SIM_POINTS:-100000}
started=$SECONDS
cargo test --profile sim -p keelson-log --lib --no-run
cargo test --profile sim -p keelson-log --lib -- --nocapture --test-threads 1 tests::sim::points tests::sim::damage
echo "sim: passed in $((SECONDS - started)) s"
