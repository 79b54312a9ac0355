# What the scenarios are made of: one line per check, waiting with a deadline, and the objects that they all need. Sourced by
# cluster-test.sh. Every function here speaks to the namespace $ns and the release $release.
pass=0 fail=0 not_run=0
report="$work/report.md"

k() { kubectl -n "$ns" "$@"; }

section() { # TITLE [SENTENCE]: a heading of the report, with a table below
  printf '\n== %s\n' "$1"
  printf '\n## %s\n\n%s| Check | Result | Time | Measured |\n|---|---|---:|---|\n' "$1" "${2:+$2$'\n\n'}" >>"$report"
}
ok() { # NAME CMD...: one check. A line "measured: ..." of its output goes into the report.
  local name="$1" start took measured status=ok file; shift
  file="$work/$((pass + fail + 1)).log"
  start=$(date +%s%N)
  if ( "$@" ) >"$file" 2>&1; then pass=$((pass + 1)); else fail=$((fail + 1)) status=FAIL; fi
  took=$(( ($(date +%s%N) - start) / 100000000 ))
  cut -d' ' -f1 /proc/loadavg >>"$work/load"
  measured="$(sed -n 's/^measured: //p' "$file" | paste -sd'; ')"
  printf '%-4s %4d.%ds %s%s\n' "$status" $((took / 10)) $((took % 10)) "$name" "${measured:+ [$measured]}"
  printf '| %s | %s | %d.%d s | %s |\n' "$name" "$status" $((took / 10)) $((took % 10)) "$measured" >>"$report"
  [[ $status == ok ]] || { tail -n 15 "$file" | sed 's/^/       /'; diagnose >>"$file" 2>&1; say "       more in $file"; }
}
absent() { # NAME WHY: a check that this cluster has no means for
  not_run=$((not_run + 1))
  printf '%-4s         %s: %s\n' "-" "$1" "$2"
  printf '| %s | not run | | %s |\n' "$1" "$2" >>"$report"
}
diagnose() {
  echo "---- $ns"
  k get pods,statefulsets,pvc,topics.keelson.dev,consumergroups.keelson.dev -o wide
  k get events --sort-by=.lastTimestamp | tail -n 40
  k logs "$release-broker-0" --tail=40
  k logs -l app.kubernetes.io/component=operator --tail=80
}

load_average() { sort -n "$work/load" | awk '{ it[NR] = $1 } END { printf "%s in the middle, %s at most", it[int((NR + 1) / 2)], it[NR] }'; } # of this machine, while checks ran

# ---- waiting
has() { local want="$1" out; shift; out="$("$@" 2>&1)"; echo "$out"; grep -qE -- "$want" <<<"$out"; }
until_ok() { # SECONDS CMD...: until the command succeeds
  local end=$(( $(date +%s) + $1 )); shift
  until "$@" >"$work/last" 2>&1; do [[ $(date +%s) -lt $end ]] || { cat "$work/last"; return 1; }; sleep 0.3; done
}
until_has() { local want="$1" seconds="$2"; shift 2; until_ok "$seconds" has "$want" "$@"; } # PATTERN SECONDS CMD...
until_gone() { local seconds="$1"; shift; until_ok "$seconds" fails "$@"; }                  # SECONDS CMD...
until_empty() { local seconds="$1"; shift; until_ok "$seconds" prints_nothing "$@"; }        # SECONDS CMD...
fails() { ! "$@"; }
prints_nothing() { local out; out="$("$@" 2>&1)"; echo "$out"; [[ -z "$out" ]]; }
seconds_since() { awk -v n="$(date +%s%N)" -v t="$1" 'BEGIN { printf "%.1f", (n - t) / 1e9 }'; } # since a `date +%s%N`

# ---- objects
namespace() { # NAME: one that enforces restricted Pod Security
  kubectl create namespace "$1" && kubectl label namespace "$1" pod-security.kubernetes.io/enforce=restricted
}
image_values() { # IMAGE -> the chart's values for it
  local image="$1" path tag
  tag="${image##*:}"; path="${image%:*}"
  echo "image.registry=${path%%/*},image.repository=${path#*/},image.tag=$tag,image.pullPolicy=IfNotPresent"
}
install() { # [helm arguments]
  helm -n "$ns" install "$release" charts/keelson --set "$(image_values "$image"),broker.persistence.size=2Gi" "$@"
}
crds_missing() { if kubectl get crd topics.keelson.dev >/dev/null 2>&1; then echo false; else echo true; fi; }
topic() { # NAME PARTITIONS DELETIONPOLICY, and waits for it
  topic_only "$@" && k wait --for=condition=Ready "topic.keelson.dev/$1" --timeout=60s
}
topic_only() {
  k apply -f - <<T
apiVersion: keelson.dev/v1alpha1
kind: Topic
metadata: {name: $1}
spec: {clusterRef: {name: $release}, partitions: $2, deletionPolicy: $3}
T
}
client_pod() { # a shell with kcat, Python, librdkafka and what client/ holds, in the namespace of the release
  k create configmap client --from-file="$here/client/"
  k apply -f - <<T
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: client
      image: $client_image
      imagePullPolicy: IfNotPresent
      command: [sleep, infinity]
      volumeMounts: [{name: client, mountPath: /client}]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  volumes: [{name: client, configMap: {name: client}}]
T
  k wait --for=condition=Ready pod/client --timeout=120s
}
on_volume() { # PROGRAM ARGUMENT...: in a pod with the broker's volume, while the broker does not run
  k apply -f - <<T
apiVersion: v1
kind: Pod
metadata: {name: surgeon}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, fsGroupChangePolicy: OnRootMismatch, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: surgeon
      image: $client_image
      imagePullPolicy: IfNotPresent
      command: $(jq -cn '$ARGS.positional' --args -- "$@")
      volumeMounts: [{name: data, mountPath: /var/lib/keelson}, {name: client, mountPath: /client}]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  volumes: [{name: client, configMap: {name: client}}, {name: data, persistentVolumeClaim: {claimName: data-$release-broker-0}}]
T
  k wait --for=jsonpath='{.status.phase}'=Succeeded pod/surgeon --timeout=60s; local result=$?
  k logs surgeon; k delete pod surgeon --timeout=60s
  return $result
}
in_client() { k exec client -- bash -c "$1"; }
condition() { k get "$1" -o "jsonpath={.status.conditions[?(@.type==\"$2\")].status} {.status.conditions[?(@.type==\"$2\")].reason}: {.status.conditions[?(@.type==\"$2\")].message}"; }
pod_http() { kubectl get --raw "/api/v1/namespaces/$ns/pods/$1/proxy$2"; } # POD:PORT PATH
operator_pod() { k get pod -l app.kubernetes.io/component=operator -o jsonpath='{.items[0].metadata.name}'; }
broker_uid() { k get pod "$release-broker-0" -o jsonpath='{.metadata.uid}'; }
broker_back() { # UID: until another pod than that one is ready
  until_ok 120 other_broker "$1" && k rollout status "statefulset/$release-broker" --timeout=120s
}
broker_stops() { k scale "statefulset/$release-broker" --replicas=0 && k wait --for=delete "pod/$release-broker-0" --timeout=90s; }
broker_starts() {
  k scale "statefulset/$release-broker" --replicas=1 && until_ok 60 k get pod "$release-broker-0" && k rollout status "statefulset/$release-broker" --timeout=120s
}
other_broker() { local uid; uid="$(broker_uid)" && [[ -n "$uid" && "$uid" != "$1" ]]; }
on_broker() { in_client "kcat -L -b $release-bootstrap:9092 -J" | grep -q "\"topic\":\"$1\""; } # TOPIC
records() { in_client "timeout 60 kcat -C -b $release-bootstrap:9092 -t $1 -o beginning -e -q | sort -un | wc -l"; }
has_records() { until_has "^$1\$" 60 records "$2"; } # NUMBER TOPIC: tried again, since a client may still know an old address
left() { # of the release, but for the pod of `helm test`, which Helm keeps on purpose, and what is known of the volume, which stays as that does
  kubectl get all,configmaps,roles,rolebindings,serviceaccounts,networkpolicies,poddisruptionbudgets,clusterroles,clusterrolebindings \
    -A -l "app.kubernetes.io/instance=$release" -o name | grep -vE "^(pod/$release-test|configmap/$release-broker-identity)$"
}

# ---- a load that runs through an event and is judged afterwards (client/load.py)
load_start() { # NAME: the topic and the group have this name
  topic "$1" 3 Retain &&
    in_client "nohup python3 /client/load.py run --bootstrap $release-bootstrap:9092 --topic $1 --name $1 >/tmp/$1.json 2>/tmp/$1.err </dev/null &" &&
    until_ok 120 in_client "test -e /tmp/$1.ready" && sleep 3
}
load_stop() { # NAME [SECONDS]: the longest pause allowed; "unnoticed" allows no error of a connection, and what a busy machine takes
  local result most="${2:-60}"
  in_client "touch /tmp/$1.stop" && until_ok 300 in_client "test -s /tmp/$1.json" || { in_client "tail -n 20 /tmp/$1.err"; return 1; }
  result="$(in_client "cat /tmp/$1.json")"
  echo "$result"
  echo "measured: $(jq -r '"\(.acknowledged) records acknowledged in \(.seconds) s, \(.lost + .changed) lost, \(.twice) twice, \(.refused) refused; longest pause: producer \(.produce_pause_s) s, group \(.consume_pause_s) s"' <<<"$result")"
  jq -e --argjson most "${most/unnoticed/15}" --arg unnoticed "$most" '.sound and ($unnoticed != "unnoticed" or .client_errors == [])
    and .produce_pause_s <= $most and .consume_pause_s <= $most' <<<"$result" >/dev/null || { in_client "tail -n 20 /tmp/$1.err"; return 1; }
}
under_load() { # NAME LONGEST_PAUSE EVENT...: the load before, during and after
  local name="$1" most="$2"; shift 2
  load_start "$name" || return 1
  "$@" || { in_client "touch /tmp/$name.stop"; return 1; }
  load_calm "$name" && load_stop "$name" "$most"
}
load_calm() { # NAME: until records go through, and for five more seconds
  until_ok 120 in_client "test -e /tmp/$1.alive" && sleep 5
}
