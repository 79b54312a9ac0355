#!/usr/bin/env python3
"""Writes the Grafana dashboards of the chart: charts/dashboards.py [--check]

The JSON in charts/keelson/dashboards is what Grafana reads and what is committed; this file is what people edit. Each
panel needs a title, a description that says what is normal, and a unit. --check writes nothing and fails if the JSON is
not what this file gives (tests/chart runs it)."""
import json
import pathlib
import sys

OUT = pathlib.Path(__file__).parent / "keelson" / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
BROKER = 'namespace=~"$namespace",job=~"$job",instance=~"$instance"'
# The operator is another job of the same namespaces.
OPERATOR = 'namespace=~"$namespace"'
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"


def steps(*pairs):
    return {"mode": "absolute", "steps": [{"color": c, "value": v} for v, c in pairs]}


ANY_IS_BAD = steps((None, GREEN), (1, RED))
NEUTRAL = steps((None, BLUE))


class Board:
    """A dashboard whose panels fill rows of 24 columns from left to right."""

    def __init__(self, uid, title, description, variables):
        self.uid, self.title, self.description, self.variables = uid, title, description, variables
        self.panels, self.x, self.y, self.height = [], 0, 0, 0

    def row(self, title):
        self._break()
        self.panels.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                            "gridPos": {"x": 0, "y": self.y, "w": 24, "h": 1}, "id": len(self.panels) + 1})
        self.y += 1

    def _break(self):
        self.y, self.x, self.height = self.y + self.height, 0, 0

    def panel(self, kind, title, description, unit, targets, width=8, height=7, thresholds=NEUTRAL, custom=None,
              options=None, mappings=(), decimals=None, minimum=0, transformations=()):
        if self.x + width > 24:
            self._break()
        defaults = {"unit": unit, "thresholds": thresholds, "mappings": list(mappings), "custom": custom or {}}
        defaults["color"] = {"mode": "palette-classic" if kind == "timeseries" else "thresholds"}
        if decimals is not None:
            defaults["decimals"] = decimals
        if minimum is not None:
            defaults["min"] = minimum
        self.panels.append({
            "id": len(self.panels) + 1, "type": kind, "title": title, "description": description,
            "datasource": DATASOURCE, "gridPos": {"x": self.x, "y": self.y, "w": width, "h": height},
            "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options or {},
            "transformations": list(transformations),
            "targets": [{"refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": t["expr"],
                         "legendFormat": t.get("legend", "__auto"), "instant": t.get("instant", False),
                         "range": not t.get("instant", False), "format": t.get("format", "time_series")}
                        for i, t in enumerate(targets)],
        })
        self.x, self.height = self.x + width, max(self.height, height)

    def graph(self, title, description, unit, targets, stack=False, **kw):
        custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 25 if stack else 8, "showPoints": "never",
                  "spanNulls": False, "stacking": {"mode": "normal" if stack else "none", "group": "A"}}
        options = {"legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
                   "tooltip": {"mode": "multi", "sort": "desc"}}
        self.panel("timeseries", title, description, unit, targets, custom=custom, options=options, **kw)

    def stat(self, title, description, unit, expr, **kw):
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value",
                   "graphMode": "area", "textMode": "auto", "justifyMode": "auto", "orientation": "auto"}
        kw.setdefault("width", 4)
        kw.setdefault("height", 4)
        self.panel("stat", title, description, unit, [{"expr": expr, "legend": kw.pop("legend", "")}], options=options, **kw)

    def table(self, title, description, unit, expr, hide=(), **kw):
        hidden = {k: True for k in ("Time", "__name__", "job", "namespace", *hide)}
        organize = {"id": "organize", "options": {"excludeByName": hidden, "indexByName": {}, "renameByName": {}}}
        self.panel("table", title, description, unit, [{"expr": expr, "instant": True, "format": "table"}],
                   options={"showHeader": True, "cellHeight": "sm"}, transformations=[organize], **kw)

    def json(self):
        variables = [{"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus",
                      "current": {}, "hide": 0, "options": [], "refresh": 1, "regex": ""}]
        for name, label, query in self.variables:
            variables.append({
                "type": "query", "name": name, "label": label, "datasource": DATASOURCE, "query": {"query": query, "refId": name},
                "definition": query, "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
                "current": {"text": "All", "value": "$__all"}, "hide": 0, "options": [], "regex": ""})
        return {
            "uid": self.uid, "title": self.title, "description": self.description, "tags": ["keelson"], "schemaVersion": 39,
            "version": 1, "editable": True, "graphTooltip": 1, "refresh": "10s", "time": {"from": "now-1h", "to": "now"},
            "timepicker": {}, "timezone": "", "weekStart": "", "fiscalYearStartMonth": 0, "liveNow": False, "links": [],
            "annotations": {"list": []}, "templating": {"list": variables}, "panels": self.panels,
        }


def quantiles(metric, by=""):
    """p50, p99 and p99.9 of a histogram; `by` adds labels, and their values to the legend."""
    legend = " ".join("{{%s}}" % label for label in by.split(", ") if label)
    group = f"le, {by}" if by else "le"
    return [{"expr": f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket{{{BROKER}}}[$__rate_interval])))",
             "legend": f"{legend} {name}".strip()} for q, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))]


def per_broker(metric, legend="{{instance}}"):
    return [{"expr": f"{metric}{{{BROKER}}}", "legend": legend}]


BROKER_VARIABLES = [
    ("namespace", "Namespace", "label_values(keelson_build_info, namespace)"),
    ("job", "Job", 'label_values(keelson_wal_health{namespace=~"$namespace"}, job)'),
    ("instance", "Broker", 'label_values(keelson_wal_health{namespace=~"$namespace",job=~"$job"}, instance)'),
]


def health(b):
    b.row("Health")
    b.panel("state-timeline", "Health of the log",
            "The state set that each broker reports. Normal: ok is on and the others are off. degraded: a partition has a "
            "range that cannot be read. readonly: no room, nothing is produced. corrupt: acknowledged bytes cannot be decoded.",
            "none", [{"expr": f"max by (instance, state) (keelson_wal_health{{{BROKER}}})", "legend": "{{instance}} {{state}}"}],
            width=12, height=8, thresholds=steps((None, "transparent"), (1, BLUE)),
            mappings=[{"type": "value", "options": {"0": {"text": "off", "index": 0}, "1": {"text": "on", "index": 1}}}],
            options={"mergeValues": True, "showValue": "never", "rowHeight": 0.8, "alignValue": "left",
                     "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False}, "tooltip": {"mode": "single", "sort": "none"}})
    b.stat("Decode errors", "Damaged ranges found since the brokers started, over all stages, sources and reasons. Normal: 0.",
           "none", f"sum(keelson_wal_decode_errors_total{{{BROKER}}})", thresholds=ANY_IS_BAD)
    b.stat("Quarantined ranges", "Offset ranges that were acknowledged and cannot be read now. Normal: 0.",
           "none", f"sum(keelson_log_quarantined_ranges{{{BROKER}}})", thresholds=ANY_IS_BAD)
    b.stat("Quarantined records", "Offsets in these ranges: at most so many records are lost to readers. Normal: 0.",
           "none", f"sum(keelson_log_quarantined_records{{{BROKER}}})", thresholds=ANY_IS_BAD)
    b.stat("Fetch invariant violations", "Fetches below the high watermark that would have been empty without a lawful reason; "
           "the client got an error instead. Normal: 0.", "none",
           f"sum(keelson_fetch_invariant_violations_total{{{BROKER}}})", thresholds=ANY_IS_BAD)
    b.stat("Write and sync errors", "Failed writes and syncs of the write-ahead log; the broker ends after one. Normal: 0.", "none",
           f"sum(keelson_wal_append_errors_total{{{BROKER}}}) + sum(keelson_wal_fsync_errors_total{{{BROKER}}})", thresholds=ANY_IS_BAD)
    b.stat("Brokers", "Brokers that give metrics.", "none", f'count(keelson_wal_health{{{BROKER},state="ok"}})',
           thresholds=steps((None, RED), (1, GREEN)))


def decode_errors(b):
    total = f"keelson_wal_decode_errors_total{{{BROKER}}}"
    b.row("Decode errors")
    for label, what in (("stage", "what was being done when it was found"), ("source", "the kind of file it is in"),
                        ("reason", "why the bytes could not be decoded")):
        b.graph(f"Decode errors by {label}", f"Damaged ranges counted since the broker started, by {label}: {what}. A count, not a "
                "rate, so that the very first one is seen. Normal: 0.", "none",
                [{"expr": f"sum by (instance, {label}) ({total}) > 0", "legend": "{{instance}} {{%s}}" % label}], stack=True)
    b.table("Damage found", "Each combination of stage, source and reason that was counted. /admin/v1/log of the broker lists the "
            "single ranges with file and position. Normal: empty.", "none",
            f"sum by (instance, stage, source, reason) ({total}) > 0", width=12)
    b.graph("Records decoded", "Records read and checked, by stage: what the decode errors are to be measured by.", "rowsps",
            [{"expr": f"sum by (stage) (rate(keelson_wal_records_decoded_total{{{BROKER}}}[$__rate_interval]))", "legend": "{{stage}}"}],
            width=6)
    b.graph("Bytes decoded", "Bytes read and checked, by stage.", "Bps",
            [{"expr": f"sum by (stage) (rate(keelson_wal_bytes_decoded_total{{{BROKER}}}[$__rate_interval]))", "legend": "{{stage}}"}],
            width=6)
    b.row("Torn tails: normal after a crash, no corruption")
    b.graph("Torn tails cut off", "Ends of the log that were never acknowledged and were cut off at a start, and slots of small files that "
            "were half written. Normal after a crash or power cut.", "none", per_broker("keelson_wal_torn_tail_truncations_total"), width=12)
    b.graph("Bytes cut off", "Bytes in these ends.", "bytes", per_broker("keelson_wal_truncated_bytes_total"), width=12)


def writing(b):
    b.row("Writing")
    b.graph("Append latency", "From taking what is queued to the commit group being durable. An acknowledgement waits for this.",
            "s", quantiles("keelson_wal_append_duration_seconds"), width=12)
    b.graph("Sync latency", "The synchronous write of one commit group: what the disk takes. About 0.1 ms on a good local disk.",
            "s", quantiles("keelson_wal_fsync_duration_seconds"), width=12)
    b.graph("Commit groups", "Groups made durable per second.", "ops",
            [{"expr": f"sum by (instance) (rate(keelson_wal_fsync_duration_seconds_count{{{BROKER}}}[$__rate_interval]))", "legend": "{{instance}}"}])
    b.graph("Batches per group", "How many record batches share one sync, on average. It grows with the load.", "none",
            [{"expr": f"sum by (instance) (rate(keelson_wal_group_batches_sum{{{BROKER}}}[$__rate_interval])) / "
                      f"sum by (instance) (rate(keelson_wal_group_batches_count{{{BROKER}}}[$__rate_interval]))", "legend": "{{instance}}"}])
    b.graph("Bytes written to the log", "Bytes of commit groups per second, padding included.", "Bps",
            [{"expr": f"sum by (instance) (rate(keelson_wal_group_bytes_sum{{{BROKER}}}[$__rate_interval]))", "legend": "{{instance}}"}])
    b.graph("Write errors", "Failed writes of a group. The broker ends after one, so this is seen seldom: the alert "
            "KeelsonExitedOnError tells it after the next start. Normal: 0.", "none",
            per_broker("keelson_wal_append_errors_total", "{{instance}} write") + per_broker("keelson_wal_fsync_errors_total", "{{instance}} sync"))
    b.graph("Size of the write-ahead log", "Bytes in its files. Bounded by a tenth of the volume and 2 GiB.", "bytes", per_broker("keelson_wal_size_bytes"))
    b.graph("Files of the write-ahead log", "Files that exist, in use or ready to be used again.", "none", per_broker("keelson_wal_files"))


def recovery_and_disk(b):
    b.row("Recovery")
    b.graph("Recovery in progress", "1 while a broker replays its log after a start; no client is served meanwhile. Normal: 0.", "none",
            per_broker("keelson_wal_recovery_in_progress"))
    b.graph("Bytes left to replay", "Falls steadily to 0 during recovery.", "bytes", per_broker("keelson_wal_recovery_remaining_bytes"))
    b.graph("Duration of the last recovery", "Depends on the unflushed end of the log, not on the data.", "s",
            per_broker("keelson_wal_recovery_duration_seconds"))
    b.row("Disk and memory")
    b.graph("Free space of the data volume", "The broker takes no more records when a segment finds no room.", "bytes",
            per_broker("keelson_disk_free_bytes", "{{instance}} free") + per_broker("keelson_disk_total_bytes", "{{instance}} size"))
    b.graph("Share of the volume in use", "Alert KeelsonDiskAlmostFull from 95 %.", "percentunit",
            [{"expr": f"1 - keelson_disk_free_bytes{{{BROKER}}} / keelson_disk_total_bytes{{{BROKER}}}", "legend": "{{instance}}"}])
    b.graph("Oldest batch not yet in a segment", "Age of the oldest batch that only the write-ahead log holds on disk. It may be old "
            "on an idle broker.", "s", per_broker("keelson_wal_oldest_unflushed_age_seconds"))
    b.graph("Memory that waits for segments", "Batches pinned until they are in a segment; bounded by keelson.tail.memory.bytes.",
            "bytes", per_broker("keelson_tail_memory_bytes"))
    b.graph("Resident memory", "Memory of the broker process.", "bytes", per_broker("process_resident_memory_bytes"))
    b.graph("CPU", "Cores used by the broker process.", "none",
            [{"expr": f"rate(process_cpu_seconds_total{{{BROKER}}}[$__rate_interval]) and on (namespace, job, instance) "
                      f'keelson_wal_health{{{BROKER},state="ok"}}', "legend": "{{instance}}"}])
    b.graph("Background check", "Bytes that the background pass has read and checked, per second.", "Bps",
            [{"expr": f"rate(keelson_log_scrub_bytes_total{{{BROKER}}}[$__rate_interval])", "legend": "{{instance}}"}], width=12)
    b.graph("End of the last full background check", "When every byte had last been read and checked; 0 means never.", "dateTimeAsIso",
            [{"expr": f"keelson_log_scrub_last_full_pass_timestamp_seconds{{{BROKER}}} * 1000", "legend": "{{instance}}"}], width=12, minimum=None)
    b.graph("Compaction", "Bytes that compaction reads and writes per second. Nothing while no compacted topic is written to.", "Bps",
            [{"expr": f"rate(keelson_log_compaction_read_bytes_total{{{BROKER}}}[$__rate_interval])", "legend": "{{instance}} read"},
             {"expr": f"rate(keelson_log_compaction_written_bytes_total{{{BROKER}}}[$__rate_interval])", "legend": "{{instance}} written"}], width=12)
    b.graph("Compactions", "Partitions that were compacted, and compactions that were given up: the latter stay at 0.", "ops",
            [{"expr": f"rate(keelson_log_compactions_total{{{BROKER}}}[$__rate_interval])", "legend": "{{instance}} done"},
             {"expr": f"rate(keelson_log_compaction_failures_total{{{BROKER}}}[$__rate_interval])", "legend": "{{instance}} given up"}], width=12)


def log_health():
    b = Board("keelson-log-health", "Keelson: log health",
              "Is every acknowledged record on disk, and can it be read? Decode errors, quarantine, latency, recovery, disk.", BROKER_VARIABLES)
    for section in (health, decode_errors, writing, recovery_and_disk):
        section(b)
    return b


TOPIC = BROKER + ',topic=~"$topic"'
GROUP = TOPIC + ',consumergroup=~"$consumergroup"'


def topics(b):
    b.row("Cluster")
    b.stat("Brokers", "Brokers in the cluster.", "none", f"max(kafka_brokers{{{BROKER}}})", thresholds=steps((None, RED), (1, GREEN)))
    b.stat("Topics", "Topics, internal ones included.", "none", f"count(count by (topic) (kafka_topic_partitions{{{BROKER}}}))")
    b.stat("Partitions", "Partitions of all topics.", "none", f"sum(kafka_topic_partitions{{{BROKER}}})")
    b.stat("Consumer groups", "Groups that have committed offsets or have members.", "none",
           f"count(count by (consumergroup) (kafka_consumergroup_members{{{BROKER}}}))")
    b.stat("Under-replicated partitions", "Partitions with fewer in-sync replicas than replicas. Normal: 0.", "none",
           f"sum(kafka_topic_partition_under_replicated_partition{{{BROKER}}})", thresholds=ANY_IS_BAD)
    b.stat("Lag of all groups", "Records that groups have yet to read.", "none", f"sum(kafka_consumergroup_lag_sum{{{BROKER}}})")
    b.row("Topics")
    b.graph("Records produced", "Records appended per second, by topic.", "rowsps",
            [{"expr": f"sum by (topic) (rate(kafka_topic_partition_current_offset{{{TOPIC}}}[$__rate_interval]))", "legend": "{{topic}}"}], stack=True)
    b.graph("Records kept", "Offsets between the oldest and the newest, by topic.", "none",
            [{"expr": f"sum by (topic) (kafka_topic_partition_current_offset{{{TOPIC}}}) - sum by (topic) (kafka_topic_partition_oldest_offset{{{TOPIC}}})",
              "legend": "{{topic}}"}], stack=True)
    b.graph("Busiest partitions", "Records appended per second in the ten busiest partitions: a hot key shows here.", "rowsps",
            [{"expr": f"topk(10, sum by (topic, partition) (rate(kafka_topic_partition_current_offset{{{TOPIC}}}[$__rate_interval])))",
              "legend": "{{topic}} {{partition}}"}])
    b.table("Partitions of topics", "Partitions of each topic.", "none", f"sum by (topic) (kafka_topic_partitions{{{TOPIC}}})", width=12)
    b.graph("Replicas in sync", "In-sync replicas, summed over the partitions of a topic.", "none",
            [{"expr": f"sum by (topic) (kafka_topic_partition_in_sync_replica{{{TOPIC}}})", "legend": "{{topic}} in sync"},
             {"expr": f"sum by (topic) (kafka_topic_partition_replicas{{{TOPIC}}})", "legend": "{{topic}} replicas"}], width=12)


def groups(b):
    b.row("Consumer groups")
    b.graph("Lag in records", "Records between the committed offset and the end, by group and topic. Normal: goes up and down.", "none",
            [{"expr": f"sum by (consumergroup, topic) (kafka_consumergroup_lag{{{GROUP}}})", "legend": "{{consumergroup}} {{topic}}"}])
    b.graph("Lag in time", "Age of the oldest record that a group has not read, by group and topic. Alert KeelsonConsumerLag from 15 minutes.", "s",
            [{"expr": f"max by (consumergroup, topic) (keelson_consumergroup_lag_seconds{{{GROUP}}})", "legend": "{{consumergroup}} {{topic}}"}])
    b.graph("Records consumed", "Offsets committed per second, by group and topic.", "rowsps",
            [{"expr": f"sum by (consumergroup, topic) (rate(kafka_consumergroup_current_offset{{{GROUP}}}[$__rate_interval]))",
              "legend": "{{consumergroup}} {{topic}}"}])
    b.graph("Members", "Members of each group. 0 with lag: the application is down.", "none",
            [{"expr": f'sum by (consumergroup) (kafka_consumergroup_members{{{BROKER},consumergroup=~"$consumergroup"}})', "legend": "{{consumergroup}}"}])
    b.table("Lag by partition", "The partitions with the largest lag: one that stands out has a slow consumer or damage.", "none",
            f"topk(50, sum by (consumergroup, topic, partition) (kafka_consumergroup_lag{{{GROUP}}}))", width=16)


def requests(b):
    b.row("Requests")
    b.graph("Requests", "Requests per second, by API.", "reqps",
            [{"expr": f"sum by (api) (rate(keelson_kafka_requests_total{{{BROKER}}}[$__rate_interval]))", "legend": "{{api}}"}], stack=True)
    b.graph("Errors", "Answers with an error, per second, by API and error. CORRUPT_MESSAGE: see the dashboard of log health.", "reqps",
            [{"expr": f'sum by (api, error) (rate(keelson_kafka_requests_total{{{BROKER},error!~"NONE|"}}[$__rate_interval])) > 0', "legend": "{{api}} {{error}}"}])
    b.graph("Request latency, p99", "99th percentile by API. Fetch and JoinGroup wait on purpose.", "s",
            [{"expr": f"histogram_quantile(0.99, sum by (le, api) (rate(keelson_kafka_request_duration_seconds_bucket{{{BROKER}}}[$__rate_interval])))",
              "legend": "{{api}}"}])
    b.graph("Connections", "Open client connections. Refused ones, per second: a limit was reached.", "none",
            per_broker("keelson_kafka_connections", "{{instance}} open")
            + [{"expr": f"rate(keelson_kafka_connections_refused_total{{{BROKER}}}[$__rate_interval])", "legend": "{{instance}} refused"}], width=24)
    b.graph("Fetch sessions", "Clients that fetch only what has changed. Evicted: max.incremental.fetch.session.cache.slots is reached, and the evicted ones fetch in full.", "none",
            per_broker("keelson_fetch_sessions", "{{instance}} sessions")
            + [{"expr": f"rate(keelson_fetch_session_evictions_total{{{BROKER}}}[$__rate_interval])", "legend": "{{instance}} evicted per second"}])
    b.graph("Partitions in fetch sessions", "Partitions of all fetch sessions, each counted once per session.", "none",
            per_broker("keelson_fetch_session_partitions", "{{instance}}"))
    b.graph("Memory of fetch sessions", "Of 32 MiB; with more a client gets no session.", "bytes",
            per_broker("keelson_fetch_session_bytes", "{{instance}}"))


def operator(b):
    b.row("Operator (Kubernetes only)")
    b.graph("Reconciliations", "Finished reconciliations per second, by kind and result.", "ops",
            [{"expr": f"sum by (kind, result) (rate(keelson_operator_reconcile_total{{{OPERATOR}}}[$__rate_interval]))", "legend": "{{kind}} {{result}}"}])
    b.graph("Reconcile errors", "Failed reconciliations per second, by kind and reason; the reason also stands in the resource's condition.", "ops",
            [{"expr": f"sum by (kind, reason) (rate(keelson_operator_reconcile_errors_total{{{OPERATOR}}}[$__rate_interval]))", "legend": "{{kind}} {{reason}}"}])
    b.graph("Reconcile duration, p99", "99th percentile, by kind.", "s",
            [{"expr": f"histogram_quantile(0.99, sum by (le, kind) (rate(keelson_operator_reconcile_duration_seconds_bucket{{{OPERATOR}}}[$__rate_interval])))",
              "legend": "{{kind}}"}])
    b.stat("Leaders", "Operators that hold the lease. Normal: 1.", "none", f"sum(keelson_operator_leader{{{OPERATOR}}})",
           thresholds=steps((None, RED), (1, GREEN), (2, RED)))
    b.table("Log health as the operator sees it", "States that are on, by cluster and broker.", "none",
            f"max by (cluster, broker, state) (keelson_operator_cluster_wal_health{{{OPERATOR}}}) == 1", width=12)


def topics_and_groups():
    b = Board("keelson-topics-groups", "Keelson: topics and groups",
              "What is produced, what is consumed, who lags, and what the operator does.",
              BROKER_VARIABLES + [("topic", "Topic", f"label_values(kafka_topic_partitions{{{BROKER}}}, topic)"),
                                  ("consumergroup", "Consumer group", f"label_values(kafka_consumergroup_members{{{BROKER}}}, consumergroup)")])
    for section in (topics, groups, requests, operator):
        section(b)
    return b


def main():
    stale = []
    for name, board in (("log-health", log_health()), ("topics-and-groups", topics_and_groups())):
        text = json.dumps(board.json(), indent=2) + "\n"
        path = OUT / f"{name}.json"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(str(path))
    if stale:
        sys.exit("not what charts/dashboards.py gives, run it: " + ", ".join(stale))


if __name__ == "__main__":
    main()
