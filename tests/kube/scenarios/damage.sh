# One byte on the broker's disk is flipped while no broker runs. Uses the release of first-day.sh.
ns=streams release=keelson
on_volume() { # PYTHON: a pod with the broker's volume, while the broker does not run
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
      command: [python3, /client/flip.py, /var/lib/keelson/data, to-be-damaged-]
      volumeMounts: [{name: data, mountPath: /var/lib/keelson}, {name: client, mountPath: /client}]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  volumes: [{name: client, configMap: {name: client}}, {name: data, persistentVolumeClaim: {claimName: data-$release-broker-0}}]
T
  k wait --for=jsonpath='{.status.phase}'=Succeeded pod/surgeon --timeout=60s; local result=$?
  k logs surgeon; k delete pod surgeon --timeout=60s
  return $result
}
break_a_byte() {
  k scale "statefulset/$release-broker" --replicas=0 && k wait --for=delete "pod/$release-broker-0" --timeout=90s && on_volume; local result=$?
  k scale "statefulset/$release-broker" --replicas=1 && until_ok 60 k get pod "$release-broker-0" && k rollout status "statefulset/$release-broker" --timeout=120s || return 1
  return $result
}
decode_errors() { pod_http "$release-broker-0:9080" /metrics | awk '/^keelson_wal_decode_errors_total/ {s += $NF} END {print s}'; }
others_are_well() { until_has '^True' 30 condition topic.keelson.dev/orders LogHealthy && has_records 1055 orders; }

section "Damage on disk"
ok "twenty records in a topic" eval 'topic broken 1 Retain && in_client "seq -f to-be-damaged-%g 20 | kcat -P -b $release-bootstrap:9092 -t broken -X acks=all -X linger.ms=0 -X batch.num.messages=1"'
ok "one byte of it is flipped on the disk of a stopped broker" break_a_byte
ok "a reader gets an error at it, not silence" has 'Invalid message|[Cc]orrupt|CRC' in_client "timeout 90 kcat -C -b $release-bootstrap:9092 -t broken -o beginning -c 20 -X check.crcs=false 2>&1"
ok "the Topic says so, with the place" until_has '^False .+: .+' 60 condition topic.keelson.dev/broken LogHealthy
ok "the other Topics are healthy, and their records are all there" others_are_well
ok "the broker's metrics count it once" has '^1$' decode_errors
ok "the operator's metrics have the same state" until_has 'keelson_operator_cluster_wal_health\{.*state="corrupt".*\} 1' 30 eval 'pod_http "$(operator_pod):9081" /metrics'
