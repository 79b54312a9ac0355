#!/usr/bin/env bash
# Apache Kafka's console tools against a fresh broker of one node, one output file per call, to be held against those of another broker.
#   console-tools.sh run BOOTSTRAP NODE_ID OUT   some 120 calls, about 12 minutes on 2 busy cores; the broker must hold no topics;
#                                                FROM=n leaves out the calls before the nth
#   console-tools.sh diff OUT1 OUT2              what differs, with ids, times, ports, addresses and folders taken out
# Against Apache Kafka, what is left is what each broker is: its keys and versions, its features, SCRAM users and quotas, a rack.
set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
plain() {
  sed -e 's/^\$ .*//; s/\(PLAINTEXT\|CONTROLLER\):\/\/[^"]*/LISTENER/g; s/[0-9.]\{7,\}:[0-9]\{4,5\}/ADDRESS/g; s/^\tat .*//' \
      -e 's/20[0-9-]* [0-9:,]\{8,\}/TIME/; s/\(TopicId\|Cluster ID\|ClusterId\): *[A-Za-z0-9_-]*/\1: ID/; s/"directoryId": "[^"]*"/DIRECTORY/' \
      -e 's/[0-9a-f]\{8\}-[0-9a-f-]\{27\}/UUID/g; s/"\(logDir\|log_dirs\)":\(\["\|"\)\/[^"]*/DIR/g; s/"size":[0-9]*/SIZE/g' \
      -e 's/\b1[0-9]\{12\}\b\([ \t]\+[0-9]\+[ \t]*\)\?/MILLISECONDS/g; s/"avg_throughput":[0-9.E-]*/RATE/; s/"time":"[^"]*"/TIME/; /"stage":"\(ProcessLoop\|RebalanceComplete\)"/d' "$1" | grep -v '^$'
}
if [ "${1:-}" = diff ]; then
  for f in "$2"/[0-9]*; do
    b=$(basename "$f"); d=$(diff <(plain "$f") <(plain "$3/$b")) || { echo "== $b: $(head -1 "$f" | cut -c3-)"; echo "$d"; }
  done
  exit
fi
[ "${1:-}" = run ] && [ $# = 4 ] || { sed -n 2,5p "$0"; exit 2; }
BS=$2 ID=$3; mkdir -p "$4"; OUT=$(cd "$4" && pwd); cd "$OUT" || exit 1
export KAFKA_HEAP_OPTS=${KAFKA_HEAP_OPTS:-"-Xmx160m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
number=100
t() { # tool, arguments
  local tool=$1; shift; number=$((number + 1)); [ $number -ge "${FROM:-0}" ] || return 0
  { echo "\$ $tool $*"; timeout 90 "$HERE/bin/$tool.sh" --bootstrap-server "$BS" "$@" < "${IN:-/dev/null}" 2>&1; echo "exit $?"; } > "$OUT/$number-$tool"
}
c() { # the same for kafka-cluster, whose action comes first
  local tool=$1 first=$2; shift 2; number=$((number + 1)); [ $number -ge "${FROM:-0}" ] || return 0
  { echo "\$ $tool $first $*"; timeout 90 "$HERE/bin/$tool.sh" "$first" --bootstrap-server "$BS" "$@" 2>&1; echo "exit $?"; } > "$OUT/$number-$tool"
}
x() { # the same for the copier, whose option has another name
  local tool=$1; shift; number=$((number + 1)); [ $number -ge "${FROM:-0}" ] || return 0
  { echo "\$ $tool $*"; timeout 90 "$HERE/bin/$tool.sh" --broker-list "$BS" "$@" 2>&1; echo "exit $?"; } > "$OUT/$number-$tool"
}
seq 1 10 > ten; seq 1 100 > hundred
echo '{"partitions":[{"topic":"t1","partition":0,"offset":2}],"version":1}' > delete.json
echo '{"topics":[{"topic":"t1"}],"version":1}' > move.json
echo '{"version":1,"partitions":[{"topic":"t1","partition":0,"replicas":['"$ID"'],"log_dirs":["any"]}]}' > place.json
T=kafka-topics C=kafka-configs G=kafka-consumer-groups O=kafka-get-offsets
set -f # arguments are words, never files
t $T --create --topic t1 --partitions 1 --config retention.ms=3600000
t $T --create --topic t2 --replica-assignment "$ID,$ID"
t $T --create --topic t3 --config foo=bar
IN=ten t kafka-console-producer --topic t1
for a in --describe --list "--alter --topic t1 --partitions 2" "--alter --topic t1 --partitions 1" "--describe --topic nope"; do t $T $a; done
t $C --describe --topic t1
t $C --describe --all --topic t1
for set in min.insync.replicas=1,flush.messages=100 retention.ms=-5 foo=1; do t $C --alter --topic t1 --add-config $set; done
t $C --describe --topic t1
t $C --alter --topic t1 --delete-config flush.messages
t $C --alter --topic nope --add-config retention.ms=5
t $C --describe --topic nope
t $C --describe --broker "$ID"
t $C --describe --all --broker "$ID"
t $C --alter --broker-defaults --add-config log.retention.ms=7200000
t $C --describe --broker-defaults
t $C --alter --broker "$ID" --add-config message.max.bytes=2000000
t $C --describe --broker "$ID"
t $C --describe --all --topic t2
for set in num.partitions=3 broker.id=3 log.retention.ms=x; do t $C --alter --broker "$ID" --add-config $set; done
t $C --alter --broker "$ID" --delete-config message.max.bytes
t $C --alter --broker-defaults --delete-config log.retention.ms
for of in topics brokers users clients groups client-metrics ips; do t $C --describe --entity-type $of; done
t $C --alter --entity-type broker-loggers --entity-name "$ID" --add-config root=INFO
t kafka-client-metrics --list
t kafka-console-consumer --topic t1 --group g1 --from-beginning --max-messages 10 --timeout-ms 30000
for a in --list "--list --state" "--list --type" "--describe --group g1" "--describe --group g1 --state" "--describe --group g1 --members" \
  "--describe --all-groups --state" "--reset-offsets --group g1 --to-earliest --topic t1 --execute" \
  "--reset-offsets --group g1 --shift-by 1 --topic t1:0 --dry-run" "--reset-offsets --group g1 --to-offset 0 --topic t1:1 --execute" \
  "--reset-offsets --group g1 --to-datetime 2020-01-01T00:00:00.000 --topic t1 --dry-run" "--reset-offsets --group g1 --by-duration PT1H --topic t1 --dry-run" \
  "--reset-offsets --group g1 --to-current --topic t1 --dry-run" "--reset-offsets --group g1 --to-latest --all-topics --dry-run --export" \
  "--delete-offsets --group g1 --topic t1:0" "--delete-offsets --group g1 --topic nope" "--describe --group g1 --offsets" "--delete --group g1" "--describe --group g1"; do t $G $a; done
if [ $number -ge "${FROM:-0}" ]; then
  (timeout 240 "$HERE/bin/kafka-console-consumer.sh" --bootstrap-server "$BS" --topic t1 --group live --from-beginning --consumer-property group.instance.id=i1 > live 2>&1 &)
  until grep -q 10 live 2> /dev/null || [ $SECONDS -gt 900 ]; do sleep 0.2; done
fi
for a in "--describe --group live --members --verbose" "--describe --group live --state" "--delete-offsets --group live --topic t1" "--delete --group live" \
  "--reset-offsets --group live --to-earliest --topic t1 --execute"; do t $G $a; done
t kafka-groups --list
t kafka-log-dirs --describe --topic-list t1,t2
t kafka-log-dirs --describe --broker-list 77
for a in "--topic t1" "--topic t1 --time earliest" "--topic t1 --time latest-tiered" "--topic-partitions t1:0,t2:1"; do t $O $a; done
t kafka-delete-records --offset-json-file delete.json
for a in list "describe-producers --topic t1 --partition 0" "find-hanging --broker-id $ID" "list --transactional-id-pattern a.*" "describe --transactional-id x"; do t kafka-transactions $a; done
for a in "preferred --all-topic-partitions" "preferred --topic t1 --partition 0" "unclean --topic t1 --partition 0" "preferred --topic nope --partition 0"; do t kafka-leader-election --election-type $a; done
t kafka-reassign-partitions --list
t kafka-reassign-partitions --generate --topics-to-move-json-file move.json --broker-list "$ID"
t kafka-reassign-partitions --execute --reassignment-json-file place.json --throttle 1000
t kafka-reassign-partitions --verify --reassignment-json-file place.json
c kafka-cluster cluster-id
c kafka-cluster list-endpoints
t kafka-features describe
t kafka-metadata-quorum describe --status
t kafka-metadata-quorum describe --replication
t kafka-broker-api-versions
t kafka-acls --list
t kafka-acls --add --allow-principal User:a --operation Read --topic t1
t kafka-acls --remove --force --allow-principal User:a --operation Read --topic t1
t $C --describe --entity-type users --entity-name nobody
t $T --delete --topic t2
t $T --delete --topic nope
# The tools of Kafka's own system tests: what one writes another reads, and copies in transactions, of which some are aborted.
for v in v1 v2 v3; do t $T --create --topic $v --partitions 1; done
t kafka-verifiable-producer --topic v1 --max-messages 60 --value-prefix 7 --repeating-keys 1 --message-create-time 1700000000000
t kafka-verifiable-producer --topic v1 --max-messages 3 --acks 0
t kafka-verifiable-producer --topic nope! --max-messages 1
t kafka-verifiable-consumer --topic v1 --group-id v --max-messages 63 --verbose
t kafka-verifiable-consumer --topic v1 --group-id auto --max-messages 63 --enable-autocommit --group-instance-id i1
for a in --offsets --members --state; do t $G --describe --group v $a; done
copy="kafka-transactional-copier --input-topic v1 --input-partition 0"
x $copy --output-topic v2 --consumer-group c --transactional-id c1 --transaction-size 10
x $copy --output-topic v2 --consumer-group e --transactional-id c1 --transaction-size 7 --use-group-metadata
x $copy --output-topic v3 --consumer-group d --transactional-id c2 --transaction-size 10 --group-mode --use-group-metadata --enable-random-aborts
t $O --topic v2 --time latest
for a in c d e; do t $G --describe --group $a --offsets; done
for a in list "describe --transactional-id c1" "describe-producers --topic v2 --partition 0"; do t kafka-transactions $a; done
for a in "v2 --max-messages 126" "v3 --max-messages 63"; do t kafka-console-consumer --from-beginning --isolation-level read_committed --timeout-ms 30000 --topic $a; done
echo "$((number - 100)) calls"
