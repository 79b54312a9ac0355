#!/usr/bin/env bash
# `make cluster-test`: the chart on a real cluster: installed by Helm, used by clients in pods, hurt, upgraded, uninstalled. One line
# per check; docs/cluster-test.md is written when everything ran. Exit code 0 only if all checks passed.
#   KUBECONFIG            the cluster to use; without it one is brought up on this machine (up.sh), and taken down at the end
#   KEELSON_IMAGE         with KUBECONFIG: the image, REGISTRY/NAME:TAG, which that cluster can pull (`make image` makes an archive)
#   KEELSON_NEXT_IMAGE    the image to upgrade to (default: the same one)
#   KEELSON_CLIENT_IMAGE  with KUBECONFIG: the clients' image (tests/kube/client/build.sh makes an archive)
#   KEELSON_API_STOP, KEELSON_API_START  with KUBECONFIG: commands that stop and start its API server; without them that is left out
#   KEELSON_GROWING_CLASS  with KUBECONFIG: a storage class whose volumes grow while they are mounted; without it that is left out
#   KEELSON_BINARIES      without KUBECONFIG: a folder with release binaries, instead of building them
#   KEELSON_SCENARIOS     some of: first-day faults second-name damage uninstall listeners volumes namespaces rendering (then no report is written)
#   KEEP_CLUSTER=1        leaves everything as it is at the end
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
root="$(cd "$here/../.." && pwd)"
cd "$root" || exit 2
export PATH="$BIN:$PATH" HELM_CACHE_HOME="$KUBE_BENCH_HOME/helm" HELM_CONFIG_HOME="$KUBE_BENCH_HOME/helm" HELM_DATA_HOME="$KUBE_BENCH_HOME/helm"
all="first-day faults second-name damage uninstall listeners volumes namespaces rendering"
scenarios="${KEELSON_SCENARIOS:-$all}"
namespaces=(streams second edges home-{a..e} home-{a..e}-team rendering)
version="$(sed -n 's/^appVersion: "\(.*\)"/\1/p' charts/keelson/Chart.yaml)"
work="${CARGO_TARGET_DIR:-target}/cluster-test"
rm -rf "$work" && mkdir -p "$work" || exit 2
work="$(realpath "$work")"
code="$(git describe --always --dirty --exclude '*' 2>/dev/null || echo "not from git")" # before the report changes
own="" growing_class="${KEELSON_GROWING_CLASS:-}"
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
  dns_ttl="${KUBE_BENCH_DNS_TTL:-30} s, as kubeadm sets it" own=1 growing_class=bench-xfs
  KUBECONFIG="$("$here/up.sh" 1)" || return 1
  export KUBECONFIG
}
given_cluster() {
  image="${KEELSON_IMAGE:-}" client_image="${KEELSON_CLIENT_IMAGE:-}" next_image="${KEELSON_NEXT_IMAGE:-${KEELSON_IMAGE:-}}"
  if [[ -z "$image" || -z "$client_image" ]]; then
    say "KUBECONFIG is set, so the test runs on that cluster, which has to be able to pull two images. \`make image\` and"
    say "tests/kube/client/build.sh print the path of an archive of each; push them to a registry of that cluster, or load them into its nodes. Then:"
    say "  KEELSON_IMAGE=REGISTRY/NAME:TAG KEELSON_CLIENT_IMAGE=REGISTRY/NAME:TAG make cluster-test"
    say "Without KUBECONFIG a cluster is brought up on this machine."
    return 1
  fi
  kubectl get --raw /readyz >/dev/null || return 1
  local found
  found="$(kubectl get namespaces --ignore-not-found -o name "${namespaces[@]}" | cut -d/ -f2 | paste -sd' ')"
  [[ -z "$found" ]] || { say "an earlier run left namespaces of this test: kubectl delete namespace $found"; return 1; }
}
finish() {
  if [[ -z "${KEEP_CLUSTER:-}" ]]; then "$here/down.sh"; return; fi
  say "The cluster goes on. Once more on it, if no namespace of the test is left:"
  say "  KUBECONFIG=$KUBECONFIG KEELSON_IMAGE=$image KEELSON_NEXT_IMAGE=$next_image KEELSON_CLIENT_IMAGE=$client_image \\"
  say "    KEELSON_API_STOP='$api_stop' KEELSON_API_START='$api_start' KEELSON_GROWING_CLASS=$growing_class make cluster-test"
  say "Its end: tests/kube/down.sh"
}
description() {
  echo "Kubernetes $(kubectl version -o json | jq -r .serverVersion.gitVersion), $(kubectl get nodes -o json | jq -r '[.items[].status.nodeInfo | "\(.containerRuntimeVersion), kernel \(.kernelVersion)"] | unique | join("; ")'),"
  echo "$(kubectl get nodes -o name | wc -l) node(s) of $(kubectl get nodes -o jsonpath='{.items[0].status.capacity.cpu}') CPUs, Helm $(helm version --template '{{.Version}}')."
  echo "Code: $code${own:+, binaries: $(basename "${KEELSON_BINARIES:-release}")}."
  if [[ -n "$own" ]]; then echo "Load average of the machine, after each check: $(load_average)."; fi
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
