#!/usr/bin/env bash
# build.sh [NAME:TAG]: the image as an OCI archive in target/image/keelson.tar, without a daemon (`make image`).
# Takes the release binaries from target/release and builds them first. `docker load`, `ctr images import` and
# `skopeo copy oci-archive:…` read it. The same binaries give the same digest.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"
version="$(sed -n 's/^appVersion: "\(.*\)"/\1/p' charts/keelson/Chart.yaml)"
name="${1:-keelson:$version}"
target="${CARGO_TARGET_DIR:-target}"
if [[ -z "${KEELSON_BINARIES:-}" ]]; then
  cargo build --release --locked --bin keelson-broker --bin keelson-operator --bin keelson-bench
fi
mkdir -p "$target/image"
charts/image/rootfs.sh "${KEELSON_BINARIES:-$target/release}" "$target/image/rootfs"
python3 charts/image/oci.py "$target/image/rootfs" "$name" "$target/image/keelson.tar" \
  --user 65532:65532 --workdir / --port 9092 --port 9080 --port 9081 --cmd keelson-broker,--help \
  --label org.opencontainers.image.title=keelson --label "org.opencontainers.image.version=$version" \
  --label org.opencontainers.image.licenses=Apache-2.0
rm -rf "$target/image/rootfs"
echo "$target/image/keelson.tar"
