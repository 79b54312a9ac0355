#!/usr/bin/env bash
# `make differential`: starts Apache Kafka, runs the scripts of tests/src/differential against it and records its answers under
# tests/differential/recordings; then compares Keelson's with them. Arguments pick families (topics data groups …; none: all).
# Recorded twice: an answer that Apache Kafka does not give every time is no answer to compare with.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh apt java
cargo build --workspace --bins
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export PEER_NAME=differential PEER_PORT=${PEER_PORT:-19292} PEER_HEAP=512m PEER_ID=1 PEER_PARTITIONS=1 PEER_RACKS=0
peer=tests/kafka/apache/peer.sh
trap '$peer wipe' EXIT
again=$(mktemp -d "$target/differential-XXXXXX")
for folder in tests/differential/recordings "$again"; do
  $peer wipe
  $peer up
  "$target/debug/keelson-differential" "127.0.0.1:$PEER_PORT" "$folder" "$@"
done
for file in "$again"/*; do
  diff "tests/differential/recordings/$(basename "$file")" "$file" || { echo "FAILED: not the same answers twice: $file" >&2; exit 1; }
done
rm -r "$again"
cargo test --workspace --test differential
