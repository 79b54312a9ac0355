"""Four cases for every alert, made from one entry each: the first error, a first sample that is already bad, the same value
after a restart, and the silent case. Writes promtool's tests; test_rules runs them and holds the entries to the rules.

What only some alerts need (texts, neighbours that must stay silent, a healthy broker for hours) is in rules_test.yaml."""
import dataclasses

MINUTE = 60
BROKER = 'job="k",instance="a"'
OPERATOR = 'job="o",instance="b"'
HEALTH = f'keelson_wal_health{{{BROKER},state="%s"}}'
START = f"process_start_time_seconds{{{BROKER}}}"
LONG_AGO = -100_000
ABSENT = "_"
GONE = "gone"
# A restart: two scrapes fail.
GAP = ("gap", 2)


@dataclasses.dataclass
class Alert:
    """`good` and `bad` give series their values: a number, or a function of the minute. `takes` is how many minutes the bad
    must last until the alert fires, `expires` after how many it is over by itself (of a counter, which stays at its value)."""
    good: dict
    bad: dict
    takes: int = 1
    expires: int = 0
    length: int = 20
    others: dict = dataclasses.field(default_factory=dict)

    def cases(self):
        """Name to phases; a phase is what the series are, and for how many minutes."""
        n = max(self.length, self.takes + 5, self.expires + 5)
        return {
            "the first error": [("good", n), ("bad", 2 * n)],
            "a first sample that is already bad": [("gap", n), ("bad", 2 * n)],
            "the same value after a restart": [("bad", n), GAP, ("bad", 2 * n)],
            "silent": [("good", n), GAP, ("good", 2 * n)],
            **self.others,
        }


class Absence(Alert):
    """What is bad is that nothing is there: a first sample is then the only one, and a restart one that does not last."""

    def cases(self):
        n = max(self.length, self.takes + 5)
        return {**super().cases(),
                "a first sample that is already bad": [("gap", n), ("good", 1), ("bad", 2 * n)],
                "the same value after a restart": [("good", n), ("bad", n), ("good", 3), ("bad", 2 * n)],
                **self.others}


def counter(series, expires=10):
    return Alert({series: 0}, {series: 1}, expires=expires)


def state(name, takes=1):
    return Alert({HEALTH % name: 0}, {HEALTH % name: 1}, takes=takes)


def group(family, value):
    return {f'kafka_consumergroup_{family}{{{BROKER},consumergroup="g",topic="t"}}': value}


IN_PROGRESS = f"keelson_wal_recovery_in_progress{{{BROKER}}}"
REMAINING = f"keelson_wal_recovery_remaining_bytes{{{BROKER}}}"
SYNCS = f'keelson_wal_fsync_duration_seconds_bucket{{{BROKER},le="%s"}}'
FREE, TOTAL = f"keelson_disk_free_bytes{{{BROKER}}}", f"keelson_disk_total_bytes{{{BROKER}}}"
PASS = f"keelson_log_scrub_last_full_pass_timestamp_seconds{{{BROKER}}}"
LATE = f'keelson_consumergroup_lag_seconds{{{BROKER},consumergroup="g",topic="t",partition="0"}}'
OVERDUE = f"keelson_transaction_overdue_seconds{{{BROKER}}}"
HANGING = f"keelson_partitions_with_late_transactions{{{BROKER}}}"
EXIT = f'keelson_last_exit_info{{{BROKER},reason="%s"}}'
FAILED = f'keelson_operator_reconcile_errors_total{{{OPERATOR},kind="Topic",reason="BrokerUnreachable"}}'
LEADER = f"keelson_operator_leader{{{OPERATOR}}}"

ALERTS = {
    "KeelsonDecodeErrors": counter(f'keelson_wal_decode_errors_total{{{BROKER},stage="fetch",source="segment",reason="batch_crc"}}'),
    "KeelsonQuarantinedRanges": Alert({f"keelson_log_quarantined_ranges{{{BROKER}}}": 0}, {f"keelson_log_quarantined_ranges{{{BROKER}}}": 1}),
    "KeelsonLogCorrupt": state("corrupt"),
    "KeelsonLogDegraded": state("degraded", takes=3),
    "KeelsonLogReadOnly": state("readonly"),
    # Times before 1970 stand for long ago: two weeks of evaluations would take minutes.
    "KeelsonScrubStale": Alert({PASS: 60}, {PASS: -1_300_000}, takes=2),
    "KeelsonCompactionFailing": counter(f"keelson_log_compaction_failures_total{{{BROKER}}}", expires=60),
    "KeelsonAppendErrors": counter(f"keelson_wal_append_errors_total{{{BROKER}}}"),
    "KeelsonFsyncErrors": counter(f"keelson_wal_fsync_errors_total{{{BROKER}}}"),
    "KeelsonFsyncSlow": Alert({SYNCS % "0.5": lambda t: 60 * t, SYNCS % "1": lambda t: 60 * t, SYNCS % "+Inf": lambda t: 60 * t},
                              {SYNCS % "0.5": lambda t: 50 * t, SYNCS % "1": lambda t: 60 * t, SYNCS % "+Inf": lambda t: 60 * t}, takes=17),
    "KeelsonRecoveryStuck": Alert({IN_PROGRESS: 0, REMAINING: 0}, {IN_PROGRESS: 1, REMAINING: 5000}, takes=12),
    "KeelsonRecoverySlow": Alert({IN_PROGRESS: 0}, {IN_PROGRESS: 1}, takes=12),
    "KeelsonDiskFillingUp": Alert({FREE: 1900, TOTAL: 10_000}, {FREE: lambda t: 1900 - 10 * t, TOTAL: 10_000}, takes=45),
    "KeelsonDiskAlmostFull": Alert({FREE: 1900, TOTAL: 10_000}, {FREE: 400, TOTAL: 10_000}, takes=3),
    "KeelsonFetchInvariantViolation": counter(f'keelson_fetch_invariant_violations_total{{{BROKER},reason="not_the_offset"}}'),
    "KeelsonServerErrors": counter(f'keelson_kafka_requests_total{{{BROKER},api="Fetch",error="UNKNOWN_SERVER_ERROR"}}'),
    "KeelsonConsumerGroupStalled": Alert({**group("lag_sum", 5), **group("current_offset_sum", lambda t: t)},
                                         {**group("lag_sum", 5), **group("current_offset_sum", 7)}, takes=28),
    "KeelsonConsumerLag": Alert({LATE: 30}, {LATE: 1000}, takes=7),
    "KeelsonTransactionOverdue": Alert({OVERDUE: 0}, {OVERDUE: lambda t: 61 + 60 * t}, takes=3),
    "KeelsonTransactionHanging": Alert({HANGING: 0}, {HANGING: 1}, takes=7),
    "KeelsonBrokerDown": Absence({HEALTH % "ok": 1}, {HEALTH % "ok": GONE}, takes=3),
    "KeelsonBrokerAbsent": Absence({HEALTH % "ok": 1}, {HEALTH % "ok": GONE}, takes=7,
                                   others={"a first sample that is already bad": [("bad", 40)]}),
    # Each start is a restart; the one of the silent case is a single one.
    "KeelsonBrokerRestarts": Alert({START: LONG_AGO, HEALTH % "ok": 1}, {START: lambda t: t // 5, HEALTH % "ok": 1}, takes=17),
    "KeelsonExitedOnError": Alert({EXIT % "stopped": 1}, {EXIT % "write failed": 1}),
    "KeelsonOperatorDown": Absence({LEADER: 1}, {LEADER: GONE}, takes=7),
    "KeelsonOperatorNoLeader": Alert({LEADER: 1}, {LEADER: 0}, takes=7),
    "KeelsonReconcileErrors": Alert({FAILED: 0}, {FAILED: lambda t: t}, takes=18),
}
CASES = ("the first error", "a first sample that is already bad", "the same value after a restart", "silent")


def values(alert, phases):
    """Each series as promtool takes it, with the start of the process: it starts when it comes back after a gap."""
    series = {name: [] for name in {**alert.good, **alert.bad}}
    series.setdefault(START, [])
    started, minute, last = LONG_AGO, 0, "good"
    for kind, minutes in phases:
        given = {"good": alert.good, "bad": alert.bad, "gap": {}}[kind]
        if last == "gap":
            started = minute * MINUTE
        for name, samples in series.items():
            value = given.get(name, ABSENT)
            if name == START and name not in alert.good:
                value = ABSENT if kind == "gap" else started
            if value == GONE or (value == ABSENT and samples and samples[-1] not in (ABSENT, "stale")):
                value = "stale" if samples and samples[-1] not in (ABSENT, "stale") else ABSENT
                samples += [value] + [ABSENT] * (minutes - 1)
            else:
                samples += [value(t) if callable(value) else value for t in range(minute, minute + minutes)]
        minute, last = minute + minutes, kind
    return [{"series": name, "values": " ".join(map(str, samples))} for name, samples in series.items()]


def expected(name, alert, phases):
    """(minute, fires) at the end of each good phase, and of each bad one once the alert is due and once it is over."""
    minute = 0
    for kind, minutes in phases:
        if kind == "bad":
            yield minute + alert.takes, True
            yield minute + minutes - 1, not alert.expires
        elif kind == "good":
            yield minute + minutes - 1, False
        minute += minutes


def tests():
    for name, alert in ALERTS.items():
        for case, phases in alert.cases().items():
            yield {
                "name": f"{name}: {case}", "interval": "1m", "input_series": values(alert, phases),
                "promql_expr_test": [{
                    "eval_time": f"{minute}m", "expr": f'count by (alertname) (ALERTS{{alertname="{name}",alertstate="firing"}})',
                    "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}] if fires else [],
                } for minute, fires in expected(name, alert, phases)],
            }
