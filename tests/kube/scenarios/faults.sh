# What happens to a running release, each under a load that is judged afterwards. Uses the release of first-day.sh.
ns=streams release=keelson
# Longest pause of a producer and of a group while one pod stops and the next one starts, on a machine that does other things too.
restart_pause_max=30
# "unnoticed" (checks.sh): no connection was lost. How long a pause was, is measured, and not judged by a machine that may be busy.

pod_deletion() { local uid; uid="$(broker_uid)" && k delete pod "$release-broker-0" && broker_back "$uid"; }
pod_killed() { local uid; uid="$(broker_uid)" && k delete pod "$release-broker-0" --grace-period=0 --force && broker_back "$uid"; }
eviction() { # by the API that `kubectl drain` uses, so that the PodDisruptionBudget is asked
  local uid; uid="$(broker_uid)" && kubectl create --raw "/api/v1/namespaces/$ns/pods/$release-broker-0/eviction" -f - \
    <<<"{\"apiVersion\":\"policy/v1\",\"kind\":\"Eviction\",\"metadata\":{\"name\":\"$release-broker-0\",\"namespace\":\"$ns\"}}" && broker_back "$uid"
}
operator_deletion() { local pod; pod="$(operator_pod)" && k delete pod "$pod" && k rollout status "deployment/$release-operator" --timeout=120s; }
upgrade() { # another image and another property: both pods are replaced
  local uid; uid="$(broker_uid)"
  helm -n "$ns" upgrade "$release" charts/keelson --reuse-values --set "$(image_values "$next_image")" --set 'broker.config.num\.partitions=3' --wait --timeout 180s || return 1
  other_broker "$uid" && [[ "$(k get pod "$release-broker-0" -o jsonpath='{.spec.containers[0].image}')" == "$next_image" ]]
}
rollback() {
  local uid; uid="$(broker_uid)"
  helm -n "$ns" rollback "$release" --wait --timeout 180s || return 1
  other_broker "$uid" && [[ "$(k get pod "$release-broker-0" -o jsonpath='{.spec.containers[0].image}')" == "$image" ]]
}
api_away() { # SECONDS STOP START
  eval "$2" || return 1
  sleep "$1"
  fails kubectl get --raw /readyz --request-timeout=2s && eval "$3" && until_ok 120 kubectl get --raw /readyz
}
operator_recovered() { # a Topic that nobody could apply a moment ago
  local begun; begun=$(date +%s%N)
  topic "$1" 2 Delete && echo "measured: Ready $(seconds_since "$begun") s after it was applied" && on_broker "$1"
}
same_pods() { # as before the API server went away
  [[ "$(k get pods -l app.kubernetes.io/component=broker -o jsonpath='{.items[*].metadata.uid} {.items[*].status.containerStatuses[0].restartCount}')" == "$pods_before" ]]
}

section "Faults under load" "200 records/s by an idempotent producer of librdkafka with \`acks=all\` and a consumer group, both with its defaults but
for \`reconnect.backoff.max.ms=1000\` (Java's default). Every acknowledged record is looked for afterwards, by place and content."
ok "no fault, for comparison: what this machine does by itself" under_load calm unnoticed sleep 20
ok "the broker's pod is deleted" under_load deletion $restart_pause_max pod_deletion
ok "the broker's pod is evicted: its PodDisruptionBudget lets it through" under_load eviction $restart_pause_max eviction
ok "the broker's pod is killed at once (--grace-period=0 --force)" under_load kill 60 pod_killed
ok "helm upgrade to another image, with a changed property" under_load upgrade $restart_pause_max upgrade
ok "helm rollback" under_load rollback $restart_pause_max rollback
ok "the operator's pod is deleted: clients notice nothing" under_load operator unnoticed operator_deletion
ok "a Topic is Ready at the new operator" operator_recovered after-operator
if [[ -n "$api_stop" ]]; then
  pods_before="$(k get pods -l app.kubernetes.io/component=broker -o jsonpath='{.items[*].metadata.uid} {.items[*].status.containerStatuses[0].restartCount}')"
  ok "the API server is away for two minutes: clients notice nothing" under_load api-stopped unnoticed api_away 120 "$api_stop" "$api_start"
  ok "the broker was not restarted" same_pods
  ok "the operator goes on by itself: a Topic is Ready" operator_recovered after-api
else
  absent "the API server is away for two minutes" "KEELSON_API_STOP and KEELSON_API_START are not set"
fi
if [[ -n "$api_pause" ]]; then
  ok "the API server hangs for 30 s, connections open: clients notice nothing" under_load api-hangs unnoticed api_away 30 "$api_pause" "$api_resume"
  ok "the operator goes on by itself, again" operator_recovered after-hang
fi
ok "all 1,055 records of the first day are still there" has_records 1055 orders
