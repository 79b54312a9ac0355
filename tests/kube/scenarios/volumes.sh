# What the kubelet mounts: a volume that grows, and one that lost what was on it. Uses the release of listeners.sh, and removes it.
ns=edges release=edge
claim="data-$release-broker-0"
disk_total() { pod_http "$release-broker-0:9080" /metrics | awk '/^keelson_disk_total_bytes/ { printf "%.0f", $NF }'; }
larger_by() { local now; now="$(disk_total)" && echo "$1 bytes, now $now" && (( now >= $1 + $2 )); } # BYTES_BEFORE BYTES
claim_grows() { # by a gibibyte, of which a file system may keep some
  local before uid begun; before="$(disk_total)" uid="$(broker_uid)" begun=$(date +%s%N)
  k patch pvc "$claim" --type=merge -p '{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}' && until_ok 180 larger_by "$before" 800000000 || return 1
  echo "measured: $((before / 1000000)) MB before, $(( $(disk_total) / 1000000 )) MB $(seconds_since "$begun") s later"
  [[ "$(broker_uid)" == "$uid" ]]
}
empty_the_volume() {
  broker_stops && on_volume rm -rf /var/lib/keelson/data; local result=$?
  k scale "statefulset/$release-broker" --replicas=1 && return $result
}
refusal() { k get pod "$release-broker-0" -o json | jq -r '.status.containerStatuses[0] | .state.terminated.message, .lastState.terminated.message | strings'; }
said_in_words() {
  until_has 'data directory \S+ is empty, but the data of broker 0 .* is the right volume mounted' 90 k logs "$release-broker-0" || return 1
  until_has 'To accept it for good: kubectl' 60 refusal
}
stays_refused() { until_has '^[1-9]' 60 k get pod "$release-broker-0" -o 'jsonpath={.status.containerStatuses[0].restartCount}' && until_has 'is empty, but' 60 refusal; }
accepted() { # by the line that the message ends with
  local line begun; line="$(refusal | grep -oE "kubectl --namespace [^']*'[^']*'" | head -n 1)"; begun=$(date +%s%N)
  [[ -n "$line" ]] && eval "$line" && until_ok 300 k wait --for=condition=Ready "pod/$release-broker-0" --timeout=1s || return 1
  echo "measured: Ready $(seconds_since "$begun") s later"
}
said_to_replace() { pod_http "$release-broker-0:9080" /admin/v1/identity | jq -e '.. | .replaces? // empty'; }
topics_anew() { k wait --for=condition=Ready topic.keelson.dev/outside --timeout=120s && on_broker outside && has_records 0 outside; }

section "Volumes"
if [[ -n "$growing_class" ]]; then
  ok "the claim grows by a gibibyte: the broker has it, without a restart" claim_grows
else
  absent "the claim grows" "KEELSON_GROWING_CLASS, a storage class whose volumes grow while they are mounted, is not set"
fi
ok "the volume of a stopped broker is emptied" empty_the_volume
ok "the broker refuses it in words: kubectl logs, and the container's last state" said_in_words
ok "it is refused at the next start, too" stays_refused
ok "the line at the end of the message lets it start" accepted
ok "the broker says which directory this one takes the place of" said_to_replace
ok "the operator makes the Topic's topic anew, empty" topics_anew
ok "the namespace is deleted" kubectl delete namespace "$ns" --timeout=90s
