"""What the log costs: commits, cold reads, restarts, idle partitions, and memory in a small container.

Starts everything on empty directories below the target folder and writes the medians between its markers of
docs/performance.md. Standard library only; `tests/bench-log.sh` builds what this calls. Needs root for the container's
memory limit.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from bench import ROOT, TARGET, Keelson, bench, rss_mb

LOG_BENCH = TARGET / "release/keelson-log-bench"
ROUNDS = int(os.environ.get("KEELSON_BENCH_ROUNDS", "5"))
SECONDS = int(os.environ.get("KEELSON_BENCH_SECONDS", "5"))
PARTITIONS = [1, 100, 1_000, 10_000]
BATCH_BYTES = 1024
IDLE_PARTITIONS = 10_000
GIGABYTE = 10**9
# A bit less than what the write-ahead log holds back: with more, the flusher would move the record that holds it.
HELD_BYTES = 380 << 20
# The age at which the flusher takes what nothing else asks for (`flush_after` of the log's options).
FLUSH_AFTER_SECONDS = 10
CONTAINER_BYTES = 256 << 20
READERS = 3
# What the load runs beside, by the words that make it so. Of what is looked at, more than a run gets through.
BESIDE = {"nothing": ["--no-scrub"], "scrub": [], "compaction": ["--no-scrub", "--compact"]}
BESIDE_PARTITIONS, BESIDE_BYTES = 100, 1 << 30
BEGIN, END = "<!-- make bench-log: begin -->", "<!-- make bench-log: end -->"


def measured(*words):
    """One run of keelson-log-bench on an empty directory."""
    home = Path(tempfile.mkdtemp(prefix="log-bench-", dir=TARGET))
    try:
        command = [str(word) for word in (LOG_BENCH, "--dir", home / "data", *words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return json.loads(done.stdout)
    finally:
        shutil.rmtree(home)


def commits(partitions, *words):
    return measured("commit", "--partitions", partitions, "--batch-bytes", BATCH_BYTES,
                    "--seconds", SECONDS, "--warm-up", 5, *words)


def restart(partitions):
    """Seconds until ready after kill -9 with a gigabyte acknowledged, of which the write-ahead log holds as much as it can."""
    broker = Keelson()
    broker.start()
    try:
        def load(count, *words):
            return bench(broker.bootstrap, "--mode", "produce", "--message-size", size, "--message-count", count,
                         "--concurrency", 2, *words)["records"]

        size = 16_384
        held = HELD_BYTES // size
        records = load(GIGABYTE // size - held, "--create-topic", "--partitions", partitions)
        # One record that only its age flushes: everything behind it is read by the start.
        began = time.monotonic()
        bench(broker.bootstrap, "--mode", "produce", "--message-count", 1, "--create-topic", "--partitions", 1, topic="cold")
        records += load(held)
        if time.monotonic() - began >= FLUSH_AFTER_SECONDS:
            raise RuntimeError("the load took so long that the record before it was flushed: the start has less to read")
        broker.process.kill()
        broker.process.wait()
        (broker.home / "ready").unlink()
        started = time.monotonic()
        broker.launch()
        seconds = time.monotonic() - started
        with open(f"/proc/{broker.pid}/io") as numbers:
            started_with = int(next(line.split()[1] for line in numbers if line.startswith("rchar:")))
        if started_with < HELD_BYTES:
            raise RuntimeError(f"the start read {started_with} bytes: the write-ahead log did not hold what it was to hold")
        read = bench(broker.bootstrap, "--mode", "consume")
        if read["verification"]["verified"] != records:
            raise RuntimeError(f"{records} acknowledged, read {read['verification']}")
        return {"seconds": seconds, "read_mb": started_with / 1e6}
    finally:
        broker.stop()


def idle():
    """Resident bytes per partition of a topic that nobody uses."""
    broker = Keelson()
    broker.start()
    try:
        time.sleep(2)
        before = rss_mb(broker.pid)
        bench(broker.bootstrap, "--mode", "produce", "--message-count", 1, "--create-topic", "--partitions", IDLE_PARTITIONS)
        time.sleep(15)  # its one record is in a segment, and what the allocator kept has gone back
        return {"bytes": (rss_mb(broker.pid) - before) * 1e6 / IDLE_PARTITIONS}
    finally:
        broker.stop()


class Contained(Keelson):
    """A broker that sees a memory limit as in a container, and is killed above it."""

    name = "Keelson in a container"
    group = Path("/sys/fs/cgroup/memory/keelson-bench")

    def start(self):
        self.group.mkdir(exist_ok=True)
        (self.group / "memory.limit_in_bytes").write_text(str(CONTAINER_BYTES))
        super().start()

    def command(self):
        inside = f"mount --bind {self.group} /sys/fs/cgroup/memory && exec \"$@\""
        enter = f"echo $$ > {self.group}/cgroup.procs && exec unshare --mount sh -c '{inside}' sh \"$@\""
        return ["sh", "-c", enter, "sh", *super().command()]

    def stop(self):
        super().stop()
        self.group.rmdir()


def peak_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")) / 1e6


def contained():
    """Peak memory with 1,000 connections and a load that fills the write-ahead log, then with readers of all of it at once."""
    broker = Contained()
    broker.start()
    try:
        done = bench(broker.bootstrap, "--mode", "produce", "--one-per-request", "--concurrency", 1_000, "--acks", 1,
                     "--message-size", 4_096, "--duration", "20s", "--create-topic", "--partitions", 1_000)
        written = peak_mb(broker.pid)
        with ThreadPoolExecutor(READERS) as readers:
            for read in readers.map(lambda _: bench(broker.bootstrap, "--mode", "consume"), range(READERS)):
                if read["verification"]["verified"] != done["records"]:
                    raise RuntimeError(f"{done['records']} acknowledged, read {read['verification']}")
        return {"peak_mb": peak_mb(broker.pid), "written_mb": written, "rate": done["records_per_second"]}
    finally:
        broker.stop()


def medians(runs):
    """Of each number; of a peak the highest."""
    return {key: (max if key.startswith("peak") else statistics.median)(run[key] for run in runs) for key in runs[0]}


def main():
    plan = {("disk", 4096): lambda: measured("disk", "--bytes", 4096)}
    for partitions in PARTITIONS:
        plan["wal", partitions] = lambda partitions=partitions: commits(partitions, "--wal-alone")
    for partitions in PARTITIONS:
        plan["log", partitions] = lambda partitions=partitions: commits(partitions)
    for what, words in BESIDE.items():
        plan["beside", what] = lambda words=words: commits(BESIDE_PARTITIONS, "--prefilled-bytes", BESIDE_BYTES, *words)
    plan["cold", 1] = lambda: measured("cold")
    plan["restart", 1] = lambda: restart(1)
    plan["restart", 1_000] = lambda: restart(1_000)
    plan["idle", IDLE_PARTITIONS] = idle
    plan["container", 1_000] = contained
    wanted = sys.argv[1:]
    runs = {}
    for number in range(ROUNDS):
        for key, run in plan.items():
            if wanted and key[0] not in wanted:
                continue
            runs.setdefault(key, []).append(run())
            print(number + 1, *key, json.dumps(runs[key][-1]), flush=True)
        if not wanted or "wal" in wanted:
            # The disk alone, with writes as large as the groups were.
            group = runs["wal", 1][-1]["batches_per_group"] * (BATCH_BYTES + 128)
            size = max(4096, round(group / 4096) * 4096)
            runs.setdefault(("disk", "group"), []).append(measured("disk", "--bytes", size))
            print(number + 1, "disk group", json.dumps(runs["disk", "group"][-1]), flush=True)
    if not wanted:
        write({key: medians(list_of) for key, list_of in runs.items()})


def write(result):
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    group = result["disk", "group"]
    lines = [
        f"{date.today()}, {os.cpu_count()} cores, {memory:.0f} GiB. Medians of {ROUNDS} rounds. The disk alone: "
        f"{result['disk', 4096]['writes_per_second']:,.0f} synced direct writes of 4 KiB per second "
        f"(p99 {result['disk', 4096]['p99_us'] / 1e3:.2f} ms), {group['writes_per_second']:,.0f} of {group['bytes'] / 1024:.0f} KiB "
        f"(p99 {group['p99_us'] / 1e3:.2f} ms), which is the mean size of the groups below.",
        "",
        f"| Batches of {BATCH_BYTES} B, 128 unacknowledged | Partitions | Batches/s | Groups/s | p50 ms | p99 ms | p99.9 ms "
        "| Bytes to disk per acknowledged byte |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, name in (("wal", "WAL alone"), ("log", "with segments")):
        for partitions in PARTITIONS:
            run = result[kind, partitions]
            lines.append(
                f"| {name} | {partitions:,} | {run['batches_per_second']:,.0f} | {run['groups_per_second']:,.0f} "
                f"| {run['p50_us'] / 1e3:.2f} | {run['p99_us'] / 1e3:.2f} | {run['p999_us'] / 1e3:.2f} "
                f"| {run['disk_bytes_per_acked_byte']:.2f} |")
    cold, alone = result["cold", 1], result["beside", "nothing"]
    lines += [
        "",
        "| Measure | Result |",
        "|---|---:|",
        f"| Cold read of 512 MiB, verified | {cold['log_mb_per_second']:,.0f} MB/s |",
        f"| The same files by `pread` alone | {cold['pread_mb_per_second']:,.0f} MB/s |",
        f"| Ready after kill -9, 1 GB in 1 partition | {result['restart', 1]['seconds']:.2f} s |",
        f"| Ready after kill -9, 1 GB in 1,000 partitions | {result['restart', 1_000]['seconds']:.2f} s |",
        *(f"| p99 of commits on {BESIDE_PARTITIONS} partitions beside {what} | {result['beside', what]['p99_us'] / 1e3:.2f} ms |"
          for what in BESIDE),
        f"| Memory per idle partition (of {IDLE_PARTITIONS:,}) | {result['idle', IDLE_PARTITIONS]['bytes']:,.0f} B |",
        f"| Peak memory, limit 256 MiB, 1,000 connections and partitions, then {READERS} readers of all of it "
        f"| {result['container', 1_000]['peak_mb']:.0f} MB |",
        "",
    ]
    wal = [result["wal", partitions]["batches_per_second"] for partitions in PARTITIONS]
    log = [result["log", partitions]["batches_per_second"] for partitions in PARTITIONS]
    restarts = [result["restart", partitions]["seconds"] for partitions in (1, 1_000)]
    verdicts = [
        (min(wal) >= 0.75 * max(wal), f"WAL alone: slowest at {min(wal) / max(wal):.2f} of the fastest (at least 0.75)"),
        (log[-1] >= 0.6 * log[0], f"with segments: 10,000 partitions at {log[-1] / log[0]:.2f} of the rate of 1 (at least 0.6)"),
        *((result["beside", what]["p99_us"] <= 2 * alone["p99_us"],
           f"p99 beside {what} at {result['beside', what]['p99_us'] / alone['p99_us']:.2f} of that beside nothing (at most 2)")
          for what in BESIDE if what != "nothing"),
        (max(restarts) < 2, f"restart in {max(restarts):.2f} s at most (below 2)"),
        (result["idle", IDLE_PARTITIONS]["bytes"] < 2_000, "an idle partition below 2 KB"),
    ]
    lines += [f"- {'met' if met else 'NOT met'}: {words}" for met, words in verdicts]
    path = ROOT / "docs/performance.md"
    head, rest = path.read_text().split(BEGIN)
    _, tail = rest.split(END)
    path.write_text(head + BEGIN + "\n" + "\n".join(lines) + "\n" + END + tail)
    print("\n".join(lines))
    sys.exit(0 if all(met for met, _ in verdicts) else 1)


if __name__ == "__main__":
    main()
