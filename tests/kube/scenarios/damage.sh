# One byte on the broker's disk is flipped while no broker runs. Uses the release of first-day.sh.
ns=streams release=keelson
break_a_byte() {
  broker_stops && on_volume python3 /client/flip.py /var/lib/keelson/data to-be-damaged-; local result=$?
  broker_starts || return 1
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
