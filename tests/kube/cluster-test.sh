#!/usr/bin/env bash
# `make cluster-test`: the chart on a real cluster: installed by Helm, used by clients in pods, hurt, upgraded, uninstalled. One line
# per check; docs/cluster-test.md is written when everything ran. Exit code 0 only if all checks passed.
#   KUBECONFIG            the cluster to use; without it one is brought up on this machine (up.sh), and taken down at the end
#   KEELSON_IMAGE         with KUBECONFIG: the image, REGISTRY/NAME:TAG, which that cluster can pull (`make image` makes an archive)
#   KEELSON_NEXT_IMAGE    the image to upgrade to (default: the same one)
#   KEELSON_CLIENT_IMAGE  with KUBECONFIG: the clients' image (tests/kube/client/build.sh makes an archive)
#   KEELSON_API_STOP, KEELSON_API_START  with KUBECONFIG: commands that stop and start its API server; without them that is left out
#   KEELSON_BINARIES      without KUBECONFIG: a folder with release binaries, instead of building them
#   KEELSON_SCENARIOS     some of: first-day faults second-name damage uninstall namespaces rendering (then no report is written)
#   KEEP_CLUSTER=1        leaves everything as it is at the end
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
root="$(cd "$here/../.." && pwd)"
cd "$root" || exit 2
export PATH="$BIN:$PATH" HELM_CACHE_HOME="$KUBE_BENCH_HOME/helm" HELM_CONFIG_HOME="$KUBE_BENCH_HOME/helm" HELM_DATA_HOME="$KUBE_BENCH_HOME/helm"
all="first-day faults second-name damage uninstall namespaces rendering"
scenarios="${KEELSON_SCENARIOS:-$all}"
version="$(sed -n 's/^appVersion: "\(.*\)"/\1/p' charts/keelson/Chart.yaml)"
work="${CARGO_TARGET_DIR:-target}/cluster-test"
rm -rf "$work" && mkdir -p "$work" || exit 2
work="$(realpath "$work")"
api_stop="${KEELSON_API_STOP:-}" api_start="${KEELSON_API_START:-}" api_pause="" api_resume="" dns_ttl="as long as this cluster has it"

own_cluster() { # images from the binaries of this machine, one node
  "$here/tools/build.sh" >&2 || return 1
  image="bench.local/keelson:$version" next_image="bench.local/keelson:next" client_image=bench.local/client:1
  mkdir -p "$IMAGES"
  # The same binaries under a second name: an upgrade to Kubernetes, and no change of what is on disk.
  local name
  for name in "$next_image" "$image"; do
    charts/image/build.sh "$name" >&2 && cp "${CARGO_TARGET_DIR:-target}/image/keelson.tar" "$IMAGES/$(tr '/:' '__' <<<"$name").tar" || return 1
  done
  "$here/client/build.sh" >&2 || return 1
  api_stop="$here/node.sh api-kill" api_start="$here/node.sh api-start"
  api_pause="$here/node.sh api-pause" api_resume="$here/node.sh api-resume"
  dns_ttl="${KUBE_BENCH_DNS_TTL:-30} s, as kubeadm sets it"
  KUBECONFIG="$("$here/up.sh" 1)" || return 1
  export KUBECONFIG
}
given_cluster() {
  image="${KEELSON_IMAGE:?KUBECONFIG is set: name an image that the cluster can pull}" client_image="${KEELSON_CLIENT_IMAGE:?KUBECONFIG is set: name the image of the clients}"
  next_image="${KEELSON_NEXT_IMAGE:-$image}"
  kubectl get --raw /readyz >/dev/null
}
finish() { [[ -n "${KEEP_CLUSTER:-}" ]] || "$here/down.sh"; }
description() {
  echo "Kubernetes $(kubectl version -o json | jq -r .serverVersion.gitVersion), $(kubectl get nodes -o json | jq -r '[.items[].status.nodeInfo | "\(.containerRuntimeVersion), kernel \(.kernelVersion)"] | unique | join("; ")'),"
  echo "$(kubectl get nodes -o name | wc -l) node(s) of $(kubectl get nodes -o jsonpath='{.items[0].status.capacity.cpu}') CPUs, Helm $(helm version --template '{{.Version}}')."
}

for tool in kubectl helm jq; do command -v $tool >/dev/null || [[ -z "${KUBECONFIG:-}" ]] || die "$tool is missing"; done
if [[ -n "${KUBECONFIG:-}" ]]; then given_cluster || exit 2; else trap finish EXIT; own_cluster || exit 2; fi
. "$here/checks.sh"
started=$(date +%s)
for scenario in $scenarios; do . "$here/scenarios/$scenario.sh" || exit 2; done

if [[ "$scenarios" == "$all" ]]; then
  {
    echo "# A run on a real cluster"
    echo
    echo "Written by \`make cluster-test\` (tests/kube/cluster-test.sh) on $(date -u +%F), chart $version: $pass of $((pass + fail)) checks passed$( ((not_run)) && echo ", $not_run could not be run"),"
    echo "in $(( ($(date +%s) - started) / 60 )) minutes after the cluster was up."
    description
    cat "$report"
  } >docs/cluster-test.md
fi
printf '\n%d passed, %d failed, %d not run\n' "$pass" "$fail" "$not_run"
[[ $fail == 0 ]]
