"""Dashboard: what a broker does, in the order in which people of Kafka ask: is it there, how much, how fast, with what."""
from board import (ANY_IS_BAD, BROKER, BROKER_STARTS, BROKER_VARIABLES, GREEN, NONE_IS_BAD, OF_BROKERS, RATE, RED, YELLOW, Board, line,
                   per_broker, process, quantiles, rates, steps)

REQUESTS = "keelson_kafka_requests_total"
LATENCY = "keelson_kafka_request_duration_seconds"
# What holds the last stable offset back: a transaction whose client has not ended it, or whose markers are not all written.
OPEN = "Ongoing|PrepareCommit|PrepareAbort"


def board():
    b = Board("keelson-broker", "Keelson / Broker overview",
              "Brokers, partitions, messages, requests and their latency, transactions, connections, processes.", BROKER_VARIABLES, [BROKER_STARTS])
    for section in (overview, throughput, requests, transactions, connections):
        section(b)
    process(b, BROKER, OF_BROKERS)
    return b


def overview(b):
    b.row("Overview")
    b.stat("Brokers online", "Brokers in the cluster, as the controller sees them.", "short", f"max(kafka_brokers{{{BROKER}}}) or vector(0)",
           thresholds=NONE_IS_BAD)
    b.stat("Topics", "Topics, internal ones included.", "short", f"count(count by (topic) (kafka_topic_partitions{{{BROKER}}}))")
    b.stat("Partitions", "Partitions of all topics.", "short", f"sum(kafka_topic_partitions{{{BROKER}}})")
    b.stat("Under-replicated partitions", "Partitions with fewer in-sync replicas than replicas. Normal: 0.", "short",
           f"sum(kafka_topic_partition_under_replicated_partition{{{BROKER}}})", thresholds=ANY_IS_BAD)
    b.stat("Offline partitions", "Partitions without a leader: nobody can write or read them. Normal: 0.", "short",
           f"count(kafka_topic_partition_leader{{{BROKER}}} < 0) or vector(0)", thresholds=ANY_IS_BAD)
    b.stat("Not on the preferred leader", "Partitions whose leader is not their first replica. Normal: 0, but for a while after a restart.", "short",
           f"count(kafka_topic_partition_leader_is_preferred{{{BROKER}}} == 0) or vector(0)", thresholds=steps((None, GREEN), (1, YELLOW)))
    b.stat("Log health", "Brokers whose log is not ok; the dashboard Log health says why. Normal: 0.", "short",
           f'count(keelson_wal_health{{{BROKER},state="ok"}} == 0) or vector(0)', thresholds=ANY_IS_BAD)
    b.stat("Shortest uptime", "Time since the youngest broker started.", "s",
           f"min(time() - process_start_time_seconds{{{BROKER}}} {OF_BROKERS})", thresholds=steps((None, YELLOW), (3600, GREEN)))
    b.bars("Leaders per broker", "Partitions that each broker (by its id) leads. Normal: about the same number everywhere.", "short",
           f'count_values("broker", kafka_topic_partition_leader{{{BROKER}}} >= 0)', "broker {{broker}}", height=4)
    b.table("Versions", "The version of every broker. Several: an upgrade is under way.", "none",
            f"max by (instance, version) (keelson_build_info{{{BROKER}}} {OF_BROKERS})", hide=("Value",), height=4)


def throughput(b):
    b.row("Throughput")
    b.graph("Messages in per second", "Records appended per second, by broker.", "mps",
            [rates("instance", "kafka_topic_partition_current_offset", BROKER, "{{instance}}")])
    b.graph("Messages consumed per second", "Offsets committed per second by all consumer groups, by broker.", "mps",
            [rates("instance", "kafka_consumergroup_current_offset_sum", BROKER, "{{instance}}")])
    b.graph("Bytes in per second", "Bytes that producers and the broker itself write to the write-ahead log, padding included.", "Bps",
            [rates("instance", "keelson_wal_group_bytes_sum", BROKER, "{{instance}}")])


def requests(b):
    b.row("Requests")
    b.graph("Request rate", "Requests answered per second, by API.", "reqps", [line(f"sum by (api) (rate({REQUESTS}{{{BROKER}}}[{RATE}])) > 0", "{{api}}")], stack=True)
    b.graph("Request errors", "Answers with an error, per second, by API and error. CORRUPT_MESSAGE: see the dashboard Log health. "
            "UNKNOWN_SERVER_ERROR never has an ordinary cause. Normal: empty, but for groups that rebalance.", "reqps",
            [line(f'sum by (api, error) (rate({REQUESTS}{{{BROKER},error!~"NONE|"}}[{RATE}])) > 0', "{{api}} {{error}}")], bad=True)
    b.graph("Request latency, p99", "99th percentile by API, waiting included: Fetch waits for records, JoinGroup for members.", "s",
            [line(f"histogram_quantile(0.99, sum by (le, api) (rate({LATENCY}_bucket{{{BROKER}}}[{RATE}]))) > 0", "{{api}}")])
    for api, words in (("Produce", "from the whole request to the answer, so the sync of the disk is in it with acks=1 and acks=all"),
                       ("Fetch", "fetch.max.wait.ms of waiting for records included")):
        b.graph(f"{api} latency", f"{api} requests: {words}.", "s", quantiles(LATENCY, f'{BROKER},api="{api}"'), width=12)


def transactions(b):
    b.row("Transactions")
    b.graph("Open transactions", "Transactions that read_committed consumers wait for, by state. Ongoing: the client has not ended it. "
            "PrepareCommit, PrepareAbort: decided, and not all markers written. Normal: these two for moments only.", "short",
            [line(f'sum by (state) (keelson_transactional_ids{{{BROKER},state=~"{OPEN}"}})', "{{state}}")], stack=True)
    b.graph("Oldest open transaction", "Time since it began; read_committed consumers see nothing that was written after it. The coordinator "
            "aborts it when its timeout is over, 15 minutes at most. Normal: seconds.", "s",
            per_broker("keelson_transaction_oldest_open_age_seconds"), thresholds=steps((None, GREEN), (900, RED)))
    b.graph("Overdue transactions", "By how much the first one should have been over: aborted when its time was up, or all markers written "
            "when it was decided. Normal: 0. Alert KeelsonTransactionOverdue from one minute.", "s",
            per_broker("keelson_transaction_overdue_seconds"), thresholds=steps((None, GREEN), (60, RED)))
    b.graph("Transactions ended", "Per second, by outcome. timed_out: the coordinator aborted it after its timeout. fenced: a new producer "
            "with the same transactional id took over. Normal: next to none of these two.", "ops",
            [rates("outcome", "keelson_transactions_ended_total", BROKER, "{{outcome}}")], stack=True)
    b.graph("Transactional ids", "Ids that the coordinators keep, by the state of the last transaction; one goes after a week without use. "
            "Steadily up: a client makes up a new id for each transaction.", "short",
            [line(f"sum by (state) (keelson_transactional_ids{{{BROKER}}})", "{{state}}")], stack=True)
    b.graph("Partitions with late transactions", "Partitions with a transaction that was silent for longer than transaction.max.timeout.ms and "
            "five minutes: no coordinator ends it any more. Normal: 0. Alert KeelsonTransactionHanging.", "short",
            per_broker("keelson_partitions_with_late_transactions"), thresholds=ANY_IS_BAD)


def connections(b):
    b.row("Connections")
    b.graph("Connections", "Open client connections.", "short", per_broker("keelson_kafka_connections"))
    b.graph("Connections refused", "Connections that the broker closed, per second: malformed, too large, too many, or stuck. Normal: 0.", "cps",
            [line(f"rate(keelson_kafka_connections_refused_total{{{BROKER}}}[{RATE}])", "{{instance}}")])
    b.graph("Fetch sessions", "Clients that fetch only what has changed (KIP-227); at most max.incremental.fetch.session.cache.slots.", "short",
            per_broker("keelson_fetch_sessions"))
    b.graph("Fetch sessions evicted", "Sessions that had to go for others, per second; their clients fetch in full. Normal: 0.", "cps",
            [line(f"rate(keelson_fetch_session_evictions_total{{{BROKER}}}[{RATE}])", "{{instance}}")])
    b.graph("Partitions in fetch sessions", "Partitions of all fetch sessions, each counted once per session.", "short",
            per_broker("keelson_fetch_session_partitions"))
    b.graph("Memory of fetch sessions", "Of 32 MiB; with more a client gets no session.", "bytes", per_broker("keelson_fetch_session_bytes"),
            thresholds=steps((None, GREEN), (32 << 20, RED)))
