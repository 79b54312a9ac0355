# A release named like the chart, and what its first user does: install, describe topics and a group, produce, consume.
ns=streams release=keelson
first_message() { # the install returns, a Topic is applied, and a client waits until a record has come back
  local begun installed; begun=$(date +%s%N)
  install && installed="$(seconds_since "$begun")" && topic_only first 1 Retain && k apply -f examples/orders.yaml -f examples/events.yaml || return 1
  in_client "python3 /client/load.py first --bootstrap $release-bootstrap:9092 --topic first" || return 1
  echo "measured: helm returned after $installed s, the first record was read back after $(seconds_since "$begun") s"
}
examples_ready() { k wait --for=condition=Ready topic.keelson.dev/orders topic.keelson.dev/events --timeout=60s && until_has '^True' 30 condition topic.keelson.dev/orders LogHealthy; }
groups() {
  k apply -f - <<T
apiVersion: keelson.dev/v1alpha1
kind: ConsumerGroup
metadata: {name: readers}
spec: {clusterRef: {name: $release}, topics: [{name: orders}], lagObjective: {maxRecords: 10}}
---
apiVersion: keelson.dev/v1alpha1
kind: ConsumerGroup
metadata: {name: nobody}
spec: {clusterRef: {name: $release}}
T
  until_has '^True Observed' 60 condition consumergroup.keelson.dev/readers Ready && until_has '^True' 30 condition consumergroup.keelson.dev/readers LagWithinObjective &&
    until_has 'GroupAbsent' 30 condition consumergroup.keelson.dev/nobody Ready
}
lag_is_seen() {
  in_client "seq 1006 1055 | kcat -P -b $release-bootstrap:9092 -t orders -X acks=all" && until_has '^False LagAboveObjective' 60 condition consumergroup.keelson.dev/readers LagWithinObjective
}
refused_at_admission() { # what the API server can know, it refuses
  fails topic_only orders 1 Retain && has 'partition' topic_only orders 1 Retain
}
grows() { k patch topic.keelson.dev/orders --type=merge -p '{"spec":{"partitions":5}}' && k wait --for=jsonpath='{.status.partitions}'=5 topic.keelson.dev/orders --timeout=60s; }
deletes() { topic passing 1 Delete && on_broker passing && k delete topic.keelson.dev/passing --timeout=60s && fails on_broker passing; }

section "A release named keelson" "Namespace \`$ns\`, which enforces restricted Pod Security. DNS answers live for $dns_ttl."
ok "a namespace that enforces restricted Pod Security, and a client in it" eval 'namespace $ns && client_pod'
ok "helm install, a Topic from a manifest, and the first record of an in-cluster client" first_message
ok "everything is Ready" k rollout status "statefulset/$release-broker" --timeout=60s
ok "helm test: a client writes records, reads them back and compares them" helm -n "$ns" test "$release" --timeout 120s
ok "the Topics of examples/ are Ready, and their logs healthy" examples_ready
ok "kcat is told the broker's stable name" has "$release-broker-0\..*$ns\.svc\.cluster\.local:9092" in_client "kcat -L -b $release-bootstrap:9092"
ok "kcat produces 1,005 records" in_client "seq 1005 | kcat -P -b $release-bootstrap:9092 -t orders -X acks=all"
ok "a consumer group of kcat receives all 1,005" \
  has '^1005$' in_client "timeout 60 kcat -b $release-bootstrap:9092 -G readers -X auto.offset.reset=earliest -c 1005 orders 2>/dev/null | sort -un | wc -l"
ok "ConsumerGroups: one is observed and within its objective, one does not exist yet" groups
ok "fifty records that nobody reads break the objective" lag_is_seen
ok "fewer partitions are refused at admission" refused_at_admission
ok "more partitions are added" grows
ok "a Topic with deletionPolicy Delete goes, and the topic with it" deletes
ok "kubectl exec: log verify finds nothing wrong beside the running broker" k exec "$release-broker-0" -- keelson-broker log verify --data-dir /var/lib/keelson/data
ok "/metrics of the broker" has 'keelson_wal_health\{.*state="ok".*\} 1' pod_http "$release-broker-0:9080" /metrics
ok "/metrics of the operator, which leads" has 'keelson_operator_leader\S* 1' eval 'pod_http "$(operator_pod):9081" /metrics'
