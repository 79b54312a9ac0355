#!/usr/bin/env bash
# `make suites`: other people's client suites against Keelson, each on a broker of its own; results under target/suites.
# Arguments pick suites: kcat kgo librdkafka (none given means all). Prints one TOTAL line for each.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- kcat kgo librdkafka
tests/setup.sh apt java
cargo build --release --workspace --bins
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$target/suites
mkdir -p "$out"
broker=
run=
stop() {
  if [ -n "$broker" ]; then
    kill -TERM "$broker" 2> /dev/null || true
    wait "$broker" 2> /dev/null || true
    broker=
  fi
  [ -z "$run" ] || rm -rf "$run"
}
trap stop EXIT
for suite in "$@"; do
  case $suite in
    kcat) script=smoke-kcat.sh ;;
    kgo) script=sweep-kgo.sh; tests/kafka/setup.sh kgo ;;
    librdkafka) script=sweep-librdkafka.sh; tests/kafka/setup.sh librdkafka ;;
    *) echo "no such suite: $suite" >&2; exit 2 ;;
  esac
  run=$(mktemp -d "$target/suite-XXXXXX")
  "$target/release/keelson-broker" start --data-dir "$run/data" --ready-file "$run/ready" \
    --set listeners=PLAINTEXT://127.0.0.1:0 --set http.listen=127.0.0.1:0 \
    --set auto.create.topics.enable=true --set num.partitions=4 > "$out/$suite-broker.log" 2>&1 &
  broker=$!
  until [ -e "$run/ready" ]; do
    kill -0 "$broker" 2> /dev/null || { tail -n 20 "$out/$suite-broker.log" >&2; exit 1; }
    sleep 0.05
  done
  bootstrap=$(jq -r '.kafka[0]' "$run/ready")
  tests/kafka/$script "$bootstrap" "$out/$suite" > "$out/$suite.log" 2>&1 || true
  printf '%-12s %s\n' "$suite" "$(grep -h '^TOTAL' "$out/$suite.log" | tail -n 1 || echo 'no total; see the log')"
  stop
done
