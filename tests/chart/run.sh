#!/usr/bin/env bash
# Tests of the chart, the dashboards and the alerts: tests/chart/run.sh [--static | --live | --faults | --update | --pictures]
#   (nothing)  everything
#   --static   what needs no broker: lint, schemas, goldens, Pod Security, promtool, dashboards
#   --live     a real broker, operator, API server and Prometheus (binaries in KEELSON_BINARIES, default target/debug), and --faults
#   --faults   a fault of the disk for each panel of the dashboard Log health; needs root, for small volumes and strace
#   --pictures draws docs/pictures anew from four minutes of a cluster at work and of bad disks (KEELSON_PICTURES: another folder)
#   --update   rewrites what is generated: goldens, dashboards, the table in the chart's README, the copies of the CRDs
# Installs what it needs: a venv, Helm from its Go module, Debian's prometheus.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"
cache="${KEELSON_CACHE:-$HOME/.cache/keelson}"
# A virtual environment with what the files list, made anew when one of them changes.
environment() {
  local venv
  venv="$cache/venv-chart-$(cat "$@" | sha256sum | cut -c1-12)"
  if [[ ! -x "$venv/ready" ]]; then
    mkdir -p "$cache"
    (
      flock 9
      [[ -x "$venv/ready" ]] && exit 0
      # One chain: a command substitution does not end at the first failure.
      rm -rf "$venv" && python3 -m venv "$venv" >&2 &&
        "$venv/bin/pip" install --quiet --disable-pip-version-check "${@/#/-r}" >&2 &&
        ln -s /bin/true "$venv/ready"
    ) 9>"$cache/venv-chart.lock" || return
  fi
  echo "$venv"
}
requirements=("$root/tests/chart/requirements.txt")
if [[ "${1:-}" == --pictures ]]; then
  requirements+=("$root/tests/chart/requirements-pictures.txt")
fi
venv="$(environment "${requirements[@]}")"
if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null
fi
export PATH="${KUBE_BENCH_HOME:-$HOME/.cache/kube-bench}/bin:$PATH"
if [[ "${1:-}" != --live ]] && ! command -v helm >/dev/null; then
  tests/kube/tools/build.sh helm >&2
fi
# The tests read answers, not languages; and no one's Helm or cluster settings.
export LC_ALL=C.UTF-8 HELM_CONFIG_HOME="$cache/helm" HELM_CACHE_HOME="$cache/helm" HELM_DATA_HOME="$cache/helm"
unset KUBECONFIG
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$root/tests/chart"
run=("$venv/bin/python" -W ignore::ResourceWarning -m unittest -v)
# promtool syncs a database for each of some hundred cases: in memory, where there is room, that costs nothing.
scratch="${TMPDIR:-/tmp}"
if [[ -w /dev/shm ]] && (($(df --output=avail -k /dev/shm | tail -n 1) > 262144)); then
  scratch=/dev/shm
fi
# Helm and promtool run for moments, on every core: with garbage collected seldom and on one thread they cost a third less.
static=(env GOGC=400 GOMAXPROCS=1 TMPDIR="$scratch" "$venv/bin/python" -W ignore::ResourceWarning tests/chart/static.py
  test_rules test_effects test_render test_values test_upgrade test_metadata test_security test_dashboards test_image)
live=("${run[@]}" test_live)
# Volumes are mounted where nobody else sees them, and are gone with the process.
faults=(unshare --mount --propagation private "${run[@]}" test_faults)

# Two of the commands above beside each other: they mostly wait for programs, and for Prometheus to look again.
both() {
  local -n first="$1" second="$2"
  local told failed=0 pid
  told="$(mktemp)"
  "${second[@]}" >"$told" 2>&1 &
  pid=$!
  "${first[@]}" || failed=1
  wait "$pid" || failed=1
  cat "$told" >&2
  rm -f "$told"
  return "$failed"
}

case "${1:-}" in
  --update) exec "$venv/bin/python" tests/chart/update.py ;;
  --live) both live faults ;;
  --faults) exec "${faults[@]}" ;;
  --pictures) exec unshare --mount --propagation private "$venv/bin/python" -W ignore::ResourceWarning tests/chart/pictures.py ;;
  --static) exec "${static[@]}" ;;
  "")
    "${static[@]}"
    both live faults
    ;;
  *) sed -n '2,9s/^# //p' "$0"; exit 2 ;;
esac
