#!/usr/bin/env bash
# build.sh [NAME:TAG]: the image of the clients, as an OCI archive in $KUBE_BENCH_HOME/images: Debian's kcat, Python and
# confluent-kafka (librdkafka). load.py and flip.py come into the pod through a ConfigMap. What is there already is kept.
set -euo pipefail
name="${1:-bench.local/client:1}"
archive="${KUBE_BENCH_HOME:-$HOME/.cache/kube-bench}/images/$(tr '/:' '__' <<<"$name").tar"
[[ -f "$archive" ]] || KUBE_BENCH_NO_IMPORT=1 "$(dirname "${BASH_SOURCE[0]}")/../image.sh" debian:kcat,python3-confluent-kafka "$name"
echo "$archive"
