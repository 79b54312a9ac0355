"""Dashboard: is every acknowledged record on disk, and can it be read?

tests/chart/test_faults.py causes a fault for each of these panels, so a panel more is a fault more there."""
from board import (ANY_IS_BAD, BROKER, BROKER_STARTS, BROKER_VARIABLES, GREEN, NONE_IS_BAD, RATE, RED, YELLOW, Board, line, per_broker,
                   quantiles, rates, steps)

ENDED_ON_ERROR = f'keelson_last_exit_info{{{BROKER},reason!~"none|stopped|killed"}}'


def board():
    b = Board("keelson-log-health", "Keelson / Log health",
              "Is every acknowledged record on disk, and can it be read? Decode errors, quarantine, latency, recovery, disk.",
              BROKER_VARIABLES, [BROKER_STARTS])
    for section in (health, decode_errors, torn_tails, writing, recovery, disk, watchmen):
        section(b)
    return b


def health(b):
    b.row("Health")
    b.stat("Decode errors", "Damaged ranges found since the brokers started, over all stages, sources and reasons. Normal: 0.",
           "short", f"sum(keelson_wal_decode_errors_total{{{BROKER}}})", thresholds=ANY_IS_BAD)
    b.stat("Quarantined ranges", "Offset ranges that were acknowledged and cannot be read now. Normal: 0.",
           "short", f"sum(keelson_log_quarantined_ranges{{{BROKER}}})", thresholds=ANY_IS_BAD)
    b.stat("Quarantined records", "Offsets in these ranges: at most so many records are lost to readers. Normal: 0.",
           "short", f"sum(keelson_log_quarantined_records{{{BROKER}}})", thresholds=ANY_IS_BAD)
    b.stat("Fetch invariant violations", "Fetches below the high watermark that would have been empty without a lawful reason; "
           "the client got an error instead. Normal: 0.", "short",
           f"sum(keelson_fetch_invariant_violations_total{{{BROKER}}})", thresholds=ANY_IS_BAD)
    b.stat("Ended on an error", "Brokers whose last run ended because of an error: a failed write or sync, mostly. The table Ends on an "
           "error has the reasons. Normal: 0.", "short", f"count({ENDED_ON_ERROR}) or vector(0)", thresholds=ANY_IS_BAD)
    b.stat("Brokers", "Brokers that give metrics. Fewer than there should be: one is down, or not scraped.", "short",
           f'count(keelson_wal_health{{{BROKER},state="ok"}}) or vector(0)', thresholds=NONE_IS_BAD)
    # One line per broker: the worst of the states that are on, as a number.
    worst = " or ".join(f'max by (instance) (keelson_wal_health{{{BROKER},state="{state}"}} == 1) * {number}'
                        for state, number in (("corrupt", 3), ("readonly", 2), ("degraded", 1), ("ok", 0)))
    b.states("Health of the log",
             "The worst state that each broker reports. Normal: ok. degraded: a partition has a range that cannot be read. readonly: no "
             "room, nothing is produced. corrupt: acknowledged bytes cannot be decoded. A gap: the broker gives no metrics.",
             "none", worst, "{{instance}}",
             {"0": ("ok", GREEN), "1": ("degraded", YELLOW), "2": ("readonly", "orange"), "3": ("corrupt", RED)},
             width=24, height=5, thresholds=steps((None, GREEN), (1, YELLOW), (2, "orange"), (3, RED)))


def decode_errors(b):
    total = f"keelson_wal_decode_errors_total{{{BROKER}}}"
    b.row("Decode errors")
    for label, what in (("stage", "what was being done when it was found"), ("source", "the kind of file it is in"),
                        ("reason", "why the bytes could not be decoded")):
        b.graph(f"Decode errors by {label}", f"Damaged ranges counted since the broker started, by {label}: {what}. A count, not a "
                "rate, so that the very first one is seen. Normal: 0. No data: nobody looks.", "short",
                [line(f"sum by (instance, {label}) ({total}) > 0 or on (instance) sum by (instance) ({total}) == 0", "{{instance}} {{%s}}" % label)], stack=True, bad=True)
    b.table("Damage found", "Each combination of stage, source and reason that was counted. /admin/v1/log of the broker lists the "
            "single ranges with file and position. Normal: empty.", "short",
            f"sum by (instance, stage, source, reason) ({total}) > 0", names={"Value": "ranges"}, width=12)
    for what, unit in (("records", "recps"), ("bytes", "Bps")):
        b.graph(f"{what.capitalize()} decoded", f"{what.capitalize()} read and checked, by stage: what the decode errors are to be "
                "measured by.", unit, [rates("stage", f"keelson_wal_{what}_decoded_total", BROKER, "{{stage}}")], width=6)


def torn_tails(b):
    b.row("Torn tails: normal after a crash, no corruption")
    b.graph("Torn tails cut off", "Ends of the log that were never acknowledged and were cut off at a start, and slots of small files that "
            "were half written. Normal after a crash or power cut.", "short", per_broker("keelson_wal_torn_tail_truncations_total"), width=12)
    b.graph("Bytes cut off", "Bytes in these ends and slots.", "bytes", per_broker("keelson_wal_truncated_bytes_total"), width=12)


def writing(b):
    b.row("Writing")
    b.graph("Append latency", "From taking what is queued to the commit group being durable. An acknowledgement waits for this.",
            "s", quantiles("keelson_wal_append_duration_seconds"), width=12)
    b.graph("Sync latency", "The synchronous write of one commit group: what the disk takes. About 0.1 ms on a good local disk; alert "
            "KeelsonFsyncSlow from 0.5 s.", "s", quantiles("keelson_wal_fsync_duration_seconds"), width=12)
    b.graph("Commit groups", "Groups made durable per second. 0 with waiting producers: the disk does not answer.", "ops",
            [rates("instance", "keelson_wal_fsync_duration_seconds_count", BROKER, "{{instance}}")])
    b.graph("Batches per group", "How many record batches share one sync, on average. It grows with the load and with slow syncs.", "short",
            [line(f"sum by (instance) (rate(keelson_wal_group_batches_sum{{{BROKER}}}[{RATE}])) / "
                  f"sum by (instance) (rate(keelson_wal_group_batches_count{{{BROKER}}}[{RATE}]))", "{{instance}}")])
    b.graph("Bytes written to the log", "Bytes of commit groups per second, padding included.", "Bps",
            [rates("instance", "keelson_wal_group_bytes_sum", BROKER, "{{instance}}")])
    b.graph("Write and sync errors", "Failed writes and syncs of a commit group. The broker ends after one, mostly before anybody has "
            "looked, so an empty panel proves nothing: Ends on an error tells it after the next start. Normal: 0.", "short",
            per_broker("keelson_wal_append_errors_total", "{{instance}} write") + per_broker("keelson_wal_fsync_errors_total", "{{instance}} sync"),
            width=12, bad=True)
    b.table("Ends on an error", "Why the last run of a broker ended, where it was neither stopped nor killed from outside. Normal: empty.",
            "none", f"max by (instance, reason) ({ENDED_ON_ERROR})", hide=("Value",), width=12)
    b.graph("Size of the write-ahead log", "Bytes in its files. Bounded by a tenth of the volume and 2 GiB; at its bound while flushes to "
            "segments do not keep up.", "bytes", per_broker("keelson_wal_size_bytes"))
    b.graph("Files of the write-ahead log", "Files that exist, in use or ready to be used again.", "short", per_broker("keelson_wal_files"))
    b.graph("Memory that waits for segments", "Batches pinned until they are in a segment; bounded by keelson.tail.memory.bytes. At its bound "
            "producers wait.", "bytes", per_broker("keelson_tail_memory_bytes"))


def recovery(b):
    b.row("Recovery")
    b.states("Recovery in progress", "Whether a broker replays its log after a start; no client is served meanwhile. Normal: for a moment "
             "after a start.", "none", f"max by (instance) (keelson_wal_recovery_in_progress{{{BROKER}}})", "{{instance}}",
             {"0": ("done", GREEN), "1": ("replaying", YELLOW)}, thresholds=steps((None, GREEN), (1, YELLOW)))
    b.graph("Bytes left to replay", "Falls steadily to 0 during recovery. Level above 0: stuck, alert KeelsonRecoveryStuck.", "bytes",
            per_broker("keelson_wal_recovery_remaining_bytes"))
    b.graph("Duration of the last recovery", "Depends on the unflushed end of the log, not on the data.", "s",
            per_broker("keelson_wal_recovery_duration_seconds"))


def disk(b):
    b.row("Disk")
    b.graph("Free space of the data volume", "The broker takes no more records when a segment finds no room.", "bytes",
            per_broker("keelson_disk_free_bytes", "{{instance}} free") + per_broker("keelson_disk_total_bytes", "{{instance}} size"))
    b.graph("Share of the volume in use", "Alert KeelsonDiskFillingUp from 80 % when it grows, KeelsonDiskAlmostFull from 95 %.", "percentunit",
            [line(f"1 - keelson_disk_free_bytes{{{BROKER}}} / keelson_disk_total_bytes{{{BROKER}}}", "{{instance}}")], maximum=1)
    b.graph("Oldest batch not yet in a segment", "Age of the oldest batch that only the write-ahead log holds on disk. It may be old "
            "on an idle broker; under load it is old when flushes do not keep up.", "s", per_broker("keelson_wal_oldest_unflushed_age_seconds"))


def watchmen(b):
    b.row("Background check and compaction")
    b.graph("Background check", "Bytes that the scrubber has read and checked, per second. A pass begins at most once an hour.", "Bps",
            [line(f"rate(keelson_log_scrub_bytes_total{{{BROKER}}}[{RATE}])", "{{instance}}")], width=6)
    b.stat("Longest time without a full check", "Time since the scrubber of a broker last came to the end of all segments, the worst broker; "
           "never counts from the start of 1970. Alert KeelsonScrubStale from 14 days.", "s",
           f"max(time() - keelson_log_scrub_last_full_pass_timestamp_seconds{{{BROKER}}})", width=6, height=7,
           thresholds=steps((None, GREEN), (7 * 86400, YELLOW), (14 * 86400, RED)))
    b.graph("Compaction", "Bytes that compaction reads and writes per second. Nothing while no compacted topic is written to.", "Bps",
            [line(f"rate(keelson_log_compaction_{what}_bytes_total{{{BROKER}}}[{RATE}])", "{{instance}} " + what) for what in ("read", "written")],
            width=6)
    b.graph("Compactions", "Partitions that were compacted, and compactions that were given up because of damage or for want of room: the "
            "latter stay at 0.", "short", per_broker("keelson_log_compactions_total", "{{instance}} done")
            + per_broker("keelson_log_compaction_failures_total", "{{instance}} given up"), width=6)
