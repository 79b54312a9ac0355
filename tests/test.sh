#!/usr/bin/env bash
# `make test`: setup, build, every Rust test, the chart's tests, and a closing summary. Nothing is skipped: what is missing is
# installed by setup.sh or fails. Nothing is left running: brokers die with the test that started them, and the end looks for some.
set -euo pipefail
cd "$(dirname "$0")/.."
TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
# Most tests wait for a process of their own; more than four of them at once only make each other late.
cores=$(nproc)
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((cores < 2 ? 2 : cores > 4 ? 4 : cores))}
host=$(rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)
export "CARGO_TARGET_${host}_RUNNER=$PWD/tests/runner.sh"
started=$SECONDS
step() { printf '\n== %s (at %d s)\n' "$1" "$((SECONDS - started))"; }

step setup
tests/setup.sh
step build
cargo build --workspace --bins
step "cargo test"
log=$TARGET/cargo-test.log
cargo test --workspace --no-fail-fast 2>&1 | tee "$log"
read -r passed ignored < <(awk '/^test result:/ { p += $4; i += $8 } END { print p + 0, i + 0 }' "$log")
if [ "$ignored" != 0 ]; then
  echo "FAILED: $ignored ignored tests; a test either runs or goes" >&2
  exit 1
fi
step "the judge of the cluster test"
python3 -B tests/kube/test_judge.py
if [ -x tests/chart/run.sh ]; then
  step chart
  tests/chart/run.sh --static
  step "dashboards and alerts against a live broker"
  tests/chart/run.sh --live
fi
step "left running"
left=$(pgrep -f "^$TARGET/[a-z]*/keelson-" || true)
if [ -n "$left" ]; then
  echo "FAILED: processes left running: $(tr '\n' ' ' <<< "$left")" >&2
  exit 1
fi
printf '\nPASSED: %d Rust tests, 0 ignored, and the chart, in %d s\n' "$passed" "$((SECONDS - started))"
