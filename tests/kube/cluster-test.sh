#!/usr/bin/env bash
# `make cluster-test`: the chart on a real cluster (kubelet, containerd, Helm): install, Topics, clients, a restart, damage
# on disk, uninstall. Prints one line per check and writes docs/cluster-test.md. Exit code 0 only if all checks passed.
#   KEELSON_IMAGE  an OCI archive from charts/image/build.sh (default: built now from target/release)
#   KEEP_CLUSTER=1 leaves the cluster up at the end
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$here/nodes.sh"
root="$(cd "$here/../.." && pwd)"
cd "$root" || exit 2
export PATH="$BIN:$PATH" HELM_CACHE_HOME="$KUBE_BENCH_HOME/helm" HELM_CONFIG_HOME="$KUBE_BENCH_HOME/helm" HELM_DATA_HOME="$KUBE_BENCH_HOME/helm"
ns=streams release=demo pass=0 fail=0 report="$(mktemp)"
version="$(sed -n 's/^appVersion: "\(.*\)"/\1/p' charts/keelson/Chart.yaml)"
image="bench.local/keelson:$version"
k() { kubectl -n "$ns" "$@"; }

ok() { # NAME CMD...: runs a check, and keeps its line for the report
  local name="$1" out start end status; shift
  start=$(date +%s%N)
  if out="$("$@" 2>&1)"; then pass=$((pass + 1)) status=ok; else fail=$((fail + 1)) status=FAIL; fi
  end=$(( ($(date +%s%N) - start) / 100000000 ))
  printf '%-4s %4d.%ds %s\n' "$status" $((end / 10)) $((end % 10)) "$name"
  printf '| %s | %s | %d.%d s |\n' "$name" "$status" $((end / 10)) $((end % 10)) >>"$report"
  if [[ $status == FAIL ]]; then tail -n 15 <<<"$out" | sed 's/^/       /'; fi
}
has() { local want="$1" out; shift; out="$("$@" 2>&1)"; echo "$out"; grep -qE -- "$want" <<<"$out"; }
until_has() { # PATTERN SECONDS CMD...
  local want="$1" end out; end=$(( $(date +%s) + $2 )); shift 2
  while :; do
    out="$("$@" 2>&1)"; grep -qE -- "$want" <<<"$out" && return 0
    [[ $(date +%s) -lt $end ]] || { echo "$out"; return 1; }
    sleep 0.3
  done
}
until_gone() { # SECONDS CMD...: until the command fails
  local end=$(( $(date +%s) + $1 )); shift
  while "$@" >/dev/null 2>&1; do [[ $(date +%s) -lt $end ]] || return 1; sleep 0.3; done
}
until_empty() { # SECONDS CMD...: until the command prints nothing
  local end=$(( $(date +%s) + $1 )) out; shift
  while out="$("$@" 2>&1)"; [[ -n "$out" ]]; do [[ $(date +%s) -lt $end ]] || { echo "$out"; return 1; }; sleep 0.3; done
}
left() { # of the release: all but the pod of `helm test`, which Helm keeps on purpose
  kubectl get all,configmaps,roles,rolebindings,serviceaccounts,networkpolicies,poddisruptionbudgets,clusterroles,clusterrolebindings \
    -A -l app.kubernetes.io/instance=$release -o name | grep -v "^pod/$release-test$"
}
condition() { k get "$1" -o "jsonpath={.status.conditions[?(@.type==\"$2\")].status}: {.status.conditions[?(@.type==\"$2\")].message}"; }
kcat() { k exec client -- bash -c "$1"; }
broker_http() { curl -sf --max-time 5 "http://$(k get pod $release-broker-0 -o jsonpath='{.status.podIP}'):9080$1"; }

topic() { # NAME PARTITIONS DELETIONPOLICY
  k apply -f - <<T
apiVersion: keelson.dev/v1alpha1
kind: Topic
metadata: {name: $1}
spec: {clusterRef: {name: $release}, partitions: $2, deletionPolicy: $3}
T
}
group() {
  k apply -f - <<T
apiVersion: keelson.dev/v1alpha1
kind: ConsumerGroup
metadata: {name: readers}
spec: {clusterRef: {name: $release}, lagObjective: {maxRecords: 10}}
T
}
client_pod() {
  k apply -f - <<T
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: client
      image: bench.local/kcat:1
      imagePullPolicy: Never
      command: [sleep, infinity]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
T
  k wait --for=condition=Ready pod/client --timeout=60s
}
break_a_byte() { # on the node's disk, while no broker runs
  k scale statefulset/$release-broker --replicas=0
  until_gone 90 k get pod $release-broker-0
  python3 - "$RUN"/n*/volumes/*/data <<'P'
import pathlib, sys
# The last place that holds the marker is flipped: in the write-ahead log, or in a segment if it was flushed.
marker, hits = b"to-be-damaged-", 0
for root in sys.argv[1:]:
    for path in sorted(pathlib.Path(root).rglob("*")):
        if path.is_file() and path.suffix in (".wal", ".log"):
            content = path.read_bytes()
            at = content.find(marker)
            if at >= 0 and path.suffix == ".log" or at >= 0 and not hits:
                with open(path, "r+b") as file:
                    file.seek(at)
                    file.write(bytes([content[at] ^ 1]))
                hits += 1
                print("flipped", path, at)
sys.exit(hits == 0)
P
  local result=$?
  k scale statefulset/$release-broker --replicas=1
  k rollout status statefulset/$release-broker --timeout=90s
  return $result
}
finish() {
  [[ -n "${KEEP_CLUSTER:-}" ]] || "$here/down.sh"
}

"$here/tools/build.sh" >&2 || exit 2
if [[ -z "${KEELSON_IMAGE:-}" ]]; then
  charts/image/build.sh "$image" >&2 || exit 2
  KEELSON_IMAGE="${CARGO_TARGET_DIR:-target}/image/keelson.tar"
fi
mkdir -p "$IMAGES"
cp "$KEELSON_IMAGE" "$IMAGES/bench.local_keelson_$version.tar"
[[ -f "$IMAGES/bench.local_kcat_1.tar" ]] || KUBE_BENCH_NO_IMPORT=1 "$here/image.sh" debian:kcat kcat:1 >&2 || exit 2
# A client that knew the broker's old address waits for its name's time to live. That is not what is tested here.
export KUBE_BENCH_DNS_TTL="${KUBE_BENCH_DNS_TTL:-2}"
KUBECONFIG="$("$here/up.sh" 1)" || { finish; exit 2; }
export KUBECONFIG
trap finish EXIT
kubectl create namespace $ns >/dev/null
kubectl label namespace $ns pod-security.kubernetes.io/enforce=restricted >/dev/null
started=$(date +%s)

ok "helm install --wait, in a namespace that enforces restricted Pod Security" \
  helm -n $ns install $release charts/keelson --set image.registry=bench.local,image.pullPolicy=Never,broker.persistence.size=2Gi --wait --timeout 180s
ok "helm test: a client writes records, reads them back and compares them" helm -n $ns test $release --timeout 120s
ok "a Topic becomes Ready" bash -c "$(declare -f topic k); ns=$ns release=$release; topic orders 3 Delete && k wait --for=condition=Ready topic.keelson.dev/orders --timeout=60s"
ok "its log is healthy" until_has '^True' 30 condition topic.keelson.dev/orders LogHealthy
ok "client pod" client_pod
ok "kcat sees three partitions at the broker's stable name" \
  has "$release-broker-0.$release-broker-headless.$ns.svc.cluster.local:9092" kcat "kcat -L -b $release-bootstrap:9092 -t orders | tee /dev/stderr | grep -q 'with 3 partitions' && kcat -L -b $release-bootstrap:9092"
ok "kcat produces 1,005 records" kcat "seq 1005 | kcat -P -b $release-bootstrap:9092 -t orders -X acks=all"
ok "a consumer group of kcat receives all 1,005" \
  has '^1005$' kcat "timeout 60 kcat -b $release-bootstrap:9092 -G readers -X auto.offset.reset=earliest -c 1005 orders 2>/dev/null | sort -un | wc -l"
ok "a ConsumerGroup resource shows it, with its lag in the objective" bash -c "$(declare -f group k until_has condition); ns=$ns release=$release; group && until_has '^True' 60 condition consumergroup.keelson.dev/readers LagWithinObjective"
ok "kubectl exec: log verify finds nothing wrong beside the running broker" k exec $release-broker-0 -- keelson-broker log verify --data-dir /var/lib/keelson/data
ok "the pod is deleted and comes back with its volume" bash -c "kubectl -n $ns delete pod $release-broker-0 && kubectl -n $ns rollout status statefulset/$release-broker --timeout=90s"
ok "all 1,005 are still there" has '^1005$' kcat "timeout 60 kcat -C -b $release-bootstrap:9092 -t orders -o beginning -e -q | sort -un | wc -l"
ok "an eviction is allowed (one broker may be away), and the broker comes back" bash -c "kubectl create --raw /api/v1/namespaces/$ns/pods/$release-broker-0/eviction -f - <<<'{\"apiVersion\":\"policy/v1\",\"kind\":\"Eviction\",\"metadata\":{\"name\":\"$release-broker-0\",\"namespace\":\"$ns\"}}' && kubectl -n $ns wait --for=delete pod/$release-broker-0 --timeout=5s; kubectl -n $ns rollout status statefulset/$release-broker --timeout=90s"
ok "partitions grow with the Topic" bash -c "$(declare -f topic k); ns=$ns release=$release; topic orders 5 Delete && kubectl -n $ns wait --for=jsonpath='{.status.partitions}'=5 topic.keelson.dev/orders --timeout=60s"
ok "/metrics of the broker through its pod address" has 'keelson_wal_health\{.*state="ok".*\} 1' broker_http /metrics
ok "a Topic for the damage" bash -c "$(declare -f topic k); ns=$ns release=$release; topic broken 1 Retain && k wait --for=condition=Ready topic.keelson.dev/broken --timeout=60s"
ok "twenty records in it" kcat "seq -f 'to-be-damaged-%g' 20 | kcat -P -b $release-bootstrap:9092 -t broken -X acks=all -X linger.ms=0 -X batch.num.messages=1"
ok "one byte of it is flipped on the disk of a stopped broker" break_a_byte
ok "a reader gets an error at it, not silence" has 'Invalid message|[Cc]orrupt|CRC' kcat "timeout 90 kcat -C -b $release-bootstrap:9092 -t broken -o beginning -c 20 -X check.crcs=false 2>&1"
ok "the Topic says so, with the place" until_has '^False: .+' 60 condition topic.keelson.dev/broken LogHealthy
ok "the other Topic is healthy, and its records are all there" bash -c "$(declare -f until_has condition k kcat); ns=$ns; until_has '^True' 30 condition topic.keelson.dev/orders LogHealthy && [[ \$(kcat 'timeout 60 kcat -C -b $release-bootstrap:9092 -t orders -o beginning -e -q | sort -un | wc -l') == 1005 ]]"
ok "the metrics count it once" has '^1$' bash -c "$(declare -f broker_http k); ns=$ns release=$release; broker_http /metrics | awk '/^keelson_wal_decode_errors_total/ {s += \$NF} END {print s}'"
ok "the operator's metrics have the same state" has 'keelson_operator_cluster_wal_health\{.*state="corrupt".*\} 1' bash -c "curl -sf --max-time 5 http://\$(kubectl -n $ns get pod -l app.kubernetes.io/component=operator -o jsonpath='{.items[0].status.podIP}'):9081/metrics"
ok "a deleted Topic with deletionPolicy Delete goes, and the topic with it" bash -c "$(declare -f topic k kcat); ns=$ns release=$release; topic passing 1 Delete && k wait --for=condition=Ready topic.keelson.dev/passing --timeout=60s && k delete topic.keelson.dev/passing --timeout=60s && ! kcat 'kcat -L -b $release-bootstrap:9092' | grep -q '\"passing\"'"
ok "helm upgrade with a changed property restarts the broker" bash -c "helm -n $ns upgrade $release charts/keelson --reuse-values --set broker.config.num\\\\.partitions=3 --wait --timeout 120s && kubectl -n $ns exec $release-broker-0 -- keelson-broker log verify --data-dir /var/lib/keelson/data; [[ \$? == 1 ]]"
ok "helm uninstall --wait" helm -n $ns uninstall $release --wait --timeout 120s
ok "Topics and CRDs are kept, and no finalizer is left on them" bash -c "[[ -n \$(kubectl -n $ns get topics.keelson.dev -o name) && -z \$(kubectl -n $ns get topics.keelson.dev -o jsonpath='{.items[*].metadata.finalizers}') ]]"
ok "the data volume is kept" k get pvc data-$release-broker-0
ok "nothing else of the release is left" until_empty 60 left
ok "the namespace can be deleted" kubectl delete namespace $ns --timeout=90s
ns=gone release=other
kubectl create namespace $ns >/dev/null
kubectl label namespace $ns pod-security.kubernetes.io/enforce=restricted >/dev/null
ok "another release, with the CRDs of the first" \
  helm -n $ns install $release charts/keelson --set crds.install=false,image.registry=bench.local,image.pullPolicy=Never,broker.persistence.size=2Gi --wait --timeout 180s
ok "a Topic with a finalizer in it" bash -c "$(declare -f topic k); ns=$ns release=$release; topic orders 1 Delete && k wait --for=condition=Ready topic.keelson.dev/orders --timeout=60s && [[ -n \$(k get topic.keelson.dev/orders -o jsonpath='{.metadata.finalizers}') ]]"
ok "its namespace is deleted with everything running in it, and goes" kubectl delete namespace $ns --timeout=120s

{
  echo "# A run on a real cluster"
  echo
  echo "Written by \`make cluster-test\` (tests/kube/cluster-test.sh) on $(date -u +%F): $pass of $((pass + fail)) checks passed, in $(( $(date +%s) - started )) s"
  echo "after the cluster was up. One node on a machine with $(nproc) cores. kubelet and API server"
  echo "$("$BIN/kubelet" --version | sed 's/.* //'), etcd $("$BIN/etcd" --version | sed -n 's/^etcd Version: //p'), $(containerd --version | awk '{print $1, $3}'), Helm $(helm version --template '{{.Version}}'), Linux $(uname -r | cut -d- -f1)."
  echo "Image: $(du -m "$IMAGES/bench.local_keelson_$version.tar" | cut -f1) MiB with broker, operator and bench. The client is Debian's kcat. DNS answers live for ${KUBE_BENCH_DNS_TTL} s; with
kubeadm's 30 s a client that knows the old address of a restarted pod waits for as long."
  echo
  echo "| Check | Result | Time |"
  echo "|---|---|---|"
  cat "$report"
} >docs/cluster-test.md
rm -f "$report"
echo "$pass passed, $fail failed"
[[ $fail == 0 ]]
