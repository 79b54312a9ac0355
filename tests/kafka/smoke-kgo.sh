#!/usr/bin/env bash
# smoke-kgo.sh BOOTSTRAP: those of franz-go's own pkg/kgo tests that say most in little time, against a broker that creates topics
# on its own: produce and consume with every option, patterns, pauses, groups and transactions over a thousand records. `make test`
# runs it; sweep-kgo.sh runs them all.
set -eu
. "$(dirname "$0")/common.sh"
[ $# = 1 ] || { sed -n 2,4p "$0"; exit 2; }
"$HERE/setup.sh" kgo
tests=(TestAddRemovePartitions TestClient_Produce TestClient_ProduceLargeMessages TestConsumeRegex TestConsumeTopicRetrieval
  TestGroupETL TestGroupSimple TestIssue325 TestIssue810 TestIssue865 TestIssueFetchLargerThanBrokerMaxReadBytes
  TestPauseIssue489 TestPauseIssueOct2023 TestPing TestPooling TestTxnEtl TestUnknownGroupOffsetFetchPinned)
export KGO_SEEDS=$1 KGO_TEST_RF=1 KGO_TEST_RECORDS=1000 KGO_TEST_UNSAFE=1 KGO_LOG_LEVEL=none
cd "$BENCH/kgo-src/pkg/kgo"
out=$("$BENCH/kgo.test" -test.v -test.count=1 -test.timeout 120s -test.run "^($(IFS='|'; echo "${tests[*]}"))\$" 2>&1) || { printf '%s\n' "$out"; exit 1; }
for test in "${tests[@]}"; do
  grep -q -- "^--- PASS: $test " <<< "$out" || { printf '%s\nnot passed: %s\n' "$out" "$test"; exit 1; }
done
grep -- '^--- ' <<< "$out"
echo "passed: ${#tests[@]} tests of franz-go $FRANZ_V"
