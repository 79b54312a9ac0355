#!/usr/bin/env bash
# setup.sh [part ...]: installs what the tests need beyond Rust, Go, Python and a C compiler. Parts: apt python java go kube;
# none given means all. What is already there is left alone, so that a second run costs under a second.
set -euo pipefail
cd "$(dirname "$0")/.."
TARGET=${CARGO_TARGET_DIR:-target}
say() { printf 'setup: %s\n' "$*" >&2; }

part_apt() {
  local missing=() pair
  for pair in kcat:kcat strace:strace prometheus:prometheus promtool:prometheus jq:jq mvn:maven java:default-jdk-headless \
    pgrep:procps c++:g++ curl:curl openssl:openssl setpriv:util-linux; do
    command -v "${pair%%:*}" > /dev/null || missing+=("${pair##*:}")
  done
  python3 -c 'import ensurepip, venv' 2> /dev/null || missing+=(python3-venv)
  [ ${#missing[@]} -gt 0 ] || return 0
  say "apt: ${missing[*]}"
  if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    say "cannot install them here; as root run: apt-get install -y ${missing[*]}"
    return 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > "$TARGET/setup-apt.log" 2>&1 || {
    tail -n 20 "$TARGET/setup-apt.log" >&2
    return 1
  }
  # Debian's package starts a Prometheus of its own, which nothing here asked for.
  if [ -d /run/systemd/system ]; then systemctl disable --quiet --now prometheus 2> /dev/null || true; fi
}

part_python() { # a virtual environment under target/, made anew when the list of packages changes
  local want=tests/python/requirements.txt venv=$TARGET/python
  cmp -s "$want" "$venv/.installed" && return 0
  say "python: $(grep -v '^#' "$want" | paste -sd' ')"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$want"
  cp "$want" "$venv/.installed"
}

part_java() { tests/kafka/setup.sh apache; } # Apache Kafka's console tools, from its published jars

part_go() { tests/kafka/setup.sh kgo; } # franz-go's own tests, of which clients.rs runs some

part_kube() { # etcd and the API server for the operator's tests, helm for the chart's
  [ -x tests/kube/tools/build.sh ] || return 0
  tests/kube/tools/build.sh etcd kube-apiserver kube-controller-manager helm kubectl | { grep -v '^have ' || true; }
}

mkdir -p "$TARGET"
[ $# -gt 0 ] || set -- apt python java go kube
for part in "$@"; do
  case $part in apt | python | java | go | kube) "part_$part" ;; *) say "no such part: $part"; exit 2 ;; esac
done
