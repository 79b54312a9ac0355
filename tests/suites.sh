#!/usr/bin/env bash
# `make suites`: other people's client suites against Keelson, each on a broker of its own; results under target/suites.
# Arguments pick suites: kcat kgo librdkafka librdkafka-idempotent (none given means all). Each is held against what Apache Kafka
# passes (tests/kafka/results) less what tests/kafka/left-out.tsv lists; a test that is missing is run once more, alone. Ends with
# 1 if any is missing then.
# KEELSON_SUITES_KEEP=NAME keeps the tables of results in tests/kafka/results/keelson/NAME.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- kcat kgo librdkafka librdkafka-idempotent
tests/setup.sh apt java
tests/kafka/setup.sh apt
cargo build --release --workspace --bins
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$target/suites
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

# What the suites expect of a broker, and what Apache Kafka was measured with.
start() { # name of the log
  run=$(mktemp -d "$target/suite-XXXXXX")
  "$target/release/keelson-broker" start --data-dir "$run/data" --ready-file "$run/ready" \
    --set listeners=PLAINTEXT://127.0.0.1:0 --set http.listen=127.0.0.1:0 \
    --set auto.create.topics.enable=true --set num.partitions=4 --set group.initial.rebalance.delay.ms=0 > "$1" 2>&1 &
  broker=$!
  until [ -e "$run/ready" ]; do
    kill -0 "$broker" 2> /dev/null || { tail -n 20 "$1" >&2; exit 1; }
    sleep 0.05
  done
  bootstrap=$(jq -r '.kafka[0]' "$run/ready")
}

sweep() { # suite, folder: one run of it; ONLY picks tests of librdkafka
  case $1 in
    kcat) tests/kafka/smoke-kcat.sh "$bootstrap" "$2" ;;
    kgo) tests/kafka/sweep-kgo.sh "$bootstrap" "$2" ;;
    librdkafka) tests/kafka/sweep-librdkafka.sh "$bootstrap" "$2" ;;
    librdkafka-idempotent) IDEMPOTENT=1 tests/kafka/sweep-librdkafka.sh "$bootstrap" "$2" ;;
  esac
}

failed=no
for suite in "$@"; do
  case $suite in
    kcat) ;;
    kgo) tests/kafka/setup.sh kgo ;;
    librdkafka | librdkafka-idempotent) tests/kafka/setup.sh librdkafka ;;
    *) echo "no such suite: $suite" >&2; exit 2 ;;
  esac
  rm -rf "${out:?}/$suite" && mkdir -p "$out/$suite/whole"
  start "$out/$suite/broker.log"
  sweep "$suite" "$out/$suite/whole" > "$out/$suite/whole.log" 2>&1 || true
  missing=$(python3 tests/kafka/judge.py "$suite" "$out/$suite" --again)
  if [ -n "$missing" ] && [[ $suite = librdkafka* ]]; then
    ONLY=$missing sweep "$suite" "$out/$suite/again" > "$out/$suite/again.log" 2>&1 || true
  fi
  stop
  printf '%-22s %s\n' "$suite" "$(grep -h '^TOTAL' "$out/$suite/whole.log" | tail -n 1 || echo 'no total; see the log')"
  python3 tests/kafka/judge.py "$suite" "$out/$suite" || failed=yes
  if [ -n "${KEELSON_SUITES_KEEP:-}" ]; then
    kept=tests/kafka/results/keelson/$KEELSON_SUITES_KEEP
    mkdir -p "$kept"
    keep() { [ ! -e "$1" ] || sed "s|${KAFKA_BENCH_HOME:-$HOME/.cache/kafka-bench}|BENCH|g" "$1" > "$kept/$2.tsv"; }
    keep "$out/$suite/whole/${suite%%-*}.tsv" "$suite"
    keep "$out/$suite/again/librdkafka.tsv" "$suite-again"
  fi
done
[ $failed = no ] || { echo "suites: FAILED" >&2; exit 1; }
