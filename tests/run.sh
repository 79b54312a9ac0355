#!/usr/bin/env bash
# `make run`: builds and starts one broker in the foreground, applies the manifests of examples/, and stops at Ctrl-C.
# Variables: PROFILE (release), KAFKA (127.0.0.1:9092), HTTP (127.0.0.1:9080), DATA (./data).
set -euo pipefail
cd "$(dirname "$0")/.."
PROFILE=${PROFILE:-release} KAFKA=${KAFKA:-127.0.0.1:9092} HTTP=${HTTP:-127.0.0.1:9080} DATA=${DATA:-data}
bin=${CARGO_TARGET_DIR:-target}/$([ "$PROFILE" = dev ] && echo debug || echo "$PROFILE")
cargo build --profile "$PROFILE" -p keelson-broker -p keelson-operator --bins
run=$(mktemp -d)
broker=
finish() {
  trap - EXIT INT TERM
  if [ -n "$broker" ] && kill -TERM "$broker" 2> /dev/null; then wait "$broker" || true; fi
  rm -rf "$run"
}
trap finish EXIT
trap 'echo; echo "stopping"; finish; exit 0' INT TERM

# In a session of its own, so that Ctrl-C reaches this script alone, which then stops the broker in order.
setsid "$bin/keelson-broker" start --data-dir "$DATA" --ready-file "$run/ready" \
  --set "listeners=PLAINTEXT://$KAFKA" --set "http.listen=$HTTP" &
broker=$!
until [ -e "$run/ready" ]; do
  kill -0 "$broker" 2> /dev/null || { wait "$broker" || exit $?; exit 1; }
  sleep 0.05
done
"$bin/keelson-operator" apply -f examples --bootstrap "$KAFKA"

cat <<TEXT

Keelson serves Kafka clients on $KAFKA, HTTP (metrics, health) on http://$HTTP, data in $DATA
Try, in another terminal:
  kcat -b $KAFKA -L
  echo hello | kcat -b $KAFKA -P -t orders
  kcat -b $KAFKA -G readers orders
  python3 -c 'import kafka; p = kafka.KafkaProducer(bootstrap_servers="$KAFKA"); print(p.send("orders", b"hello").get(10))'
  curl -s http://$HTTP/metrics | grep keelson_wal_health
  $bin/keelson-broker log verify --data-dir $DATA
Ctrl-C stops it.
TEXT
wait "$broker" && status=0 || status=$?
broker=
echo "the broker ended by itself (exit code $status)" >&2
exit "$((status == 0 ? 1 : status))"
