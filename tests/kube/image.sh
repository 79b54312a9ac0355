#!/usr/bin/env bash
# image.sh SOURCE NAME:TAG [--add SRC:DST]... [--entrypoint A,B] [--cmd A,B] [--user U] [--env K=V]...
# SOURCE: a static binary, a root file system (directory or .tar), "scratch", or "debian[:PKG,PKG...]" (made once with mmdebstrap).
# Makes an OCI archive in $KUBE_BENCH_HOME/images (loaded by every up.sh) and loads it into the running nodes.
# In the pod: image: NAME:TAG with imagePullPolicy: Never or IfNotPresent. A name without a domain gets bench.local/ in front.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$here/nodes.sh"
src="${1:?source}"; name="${2:?name:tag}"; shift 2
[[ "${name%%/*}" == *.* ]] || name="bench.local/$name"
[[ "${name##*/}" == *:* ]] || name="$name:latest"
mkdir -p "$IMAGES"
case "$src" in
debian|debian:*)
  pk="${src#debian}"; pk="${pk#:}"
  tar="$KUBE_BENCH_HOME/rootfs-debian${pk:+-${pk//,/-}}.tar"
  if [[ ! -f "$tar" ]]; then
    command -v mmdebstrap >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mmdebstrap; } >&2
    mmdebstrap --variant=essential ${pk:+--include="$pk"} --quiet \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
      "$(. /etc/os-release; echo "$VERSION_CODENAME")" "$tar.new.tar" $(ls /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null) >&2
    mv "$tar.new.tar" "$tar"
  fi
  src="$tar";;
esac
out="$IMAGES/$(echo "$name" | tr '/:' '__').tar"
python3 "$here/../../charts/image/oci.py" "$src" "$name" "$out" "$@"
[[ -n "${KUBE_BENCH_NO_IMPORT:-}" ]] && exit 0
for i in $(nodes_up); do ctr_n "$i" images import "$out" >/dev/null; done
