"""Keelson and Apache Kafka, alternating in one run: one record of 256 B per request, 128 connections, acks=1.

Starts each broker on an empty directory for each measurement, creates the topic, warms up, measures with `keelson-bench
--one-per-request`, and counts what was acknowledged with a real client (`--mode consume`). Writes the medians between the
markers of docs/performance.md. Standard library only; `tests/bench.sh` builds what this calls.
"""

import json
import mmap
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BENCH = TARGET / "release/keelson-bench"
BROKER = TARGET / "release/keelson-broker"
PEER = ROOT / "tests/kafka/apache/peer.sh"
ROUNDS = int(os.environ.get("KEELSON_BENCH_ROUNDS", "5"))
SECONDS = int(os.environ.get("KEELSON_BENCH_SECONDS", "10"))
# A JVM needs it; so does the first use of every WAL file.
WARM_UP_SECONDS = 10
PARTITIONS = [int(word) for word in os.environ.get("KEELSON_BENCH_PARTITIONS", "12 1000").split()]
CONNECTIONS = 128
RECORD_BYTES = 256
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"


def rss_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmRSS")


class Keelson:
    """A Keelson broker with default configuration: fsync before every acknowledgement."""

    name = "Keelson"

    def start(self):
        self.home = Path(tempfile.mkdtemp(prefix="bench-", dir=TARGET))
        self.launch()

    def command(self):
        return [str(word) for word in (
            BROKER, "start", "--data-dir", self.home / "data", "--ready-file", self.home / "ready",
            "--set", "listeners=PLAINTEXT://127.0.0.1:0", "--set", "http.listen=127.0.0.1:0")]

    def launch(self):
        """Starts the process on what is in its home, and waits until it is ready."""
        ready, started = self.home / "ready", time.monotonic()
        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        while not ready.exists():
            if self.process.poll() is not None:
                raise RuntimeError((self.home / "log").read_text())
            time.sleep(0.002)
        self.ready_seconds = time.monotonic() - started
        self.bootstrap = json.loads(ready.read_text())["kafka"][0]
        self.pid = self.process.pid

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        if code != 0:
            raise RuntimeError(f"Keelson ended with {code}: {(self.home / 'log').read_text()[-2000:]}")
        shutil.rmtree(self.home)


class Apache:
    """Apache Kafka from its published jars, with its default flush policy or an fsync per batch."""

    def __init__(self, flush):
        self.name = "Apache Kafka, fsync per batch" if flush else "Apache Kafka, default flush"
        self.environment = dict(os.environ, PEER_NAME="bench", PEER_FLUSH="1" if flush else "0", PEER_PORT="19292")

    def peer(self, command):
        return subprocess.run([PEER, command], env=self.environment, check=True, capture_output=True, text=True).stdout

    def start(self):
        self.peer("wipe")
        words = dict(word.split("=", 1) for word in self.peer("up").split() if "=" in word)
        self.bootstrap, self.pid = words["bootstrap"], int(words["pid"])
        self.ready_seconds = float(words["ready_s"])

    def stop(self):
        self.peer("wipe")


def bench(bootstrap, *words, topic="bench"):
    command = [BENCH, "--bootstrap-servers", bootstrap, "--topic", topic, "--json", *words]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def produce(bootstrap, seconds, *words):
    return bench(bootstrap, "--mode", "produce", "--one-per-request", "--concurrency", CONNECTIONS, "--acks", "1",
                 "--message-size", RECORD_BYTES, "--duration", f"{seconds}s", *words)


def measure(broker, partitions):
    broker.start()
    try:
        time.sleep(2)  # idle means idle: start-up work is over
        idle_rss = rss_mb(broker.pid)
        warm = produce(broker.bootstrap, WARM_UP_SECONDS, "--create-topic", "--partitions", partitions)
        load = produce(broker.bootstrap, SECONDS)
        read = bench(broker.bootstrap, "--mode", "consume")
        acknowledged = warm["records"] + load["records"]
        verdict = read["verification"]
        if verdict != {"verified": acknowledged, "duplicates": 0, "missing": 0, "corrupt": 0}:
            raise RuntimeError(f"{broker.name}: {acknowledged} acknowledged, read {verdict}")
        return {
            "rate": load["records_per_second"], "p50": load["latency_ms"]["p50"], "p99": load["latency_ms"]["p99"],
            "ready": broker.ready_seconds, "idle_rss": idle_rss, "load_rss": rss_mb(broker.pid), "counted": acknowledged,
        }
    finally:
        broker.stop()


def commit_4k_ms():
    """The median of a 4 KiB O_DIRECT|O_DSYNC write in place: what the disk itself costs."""
    path = TARGET / "bench-disk"
    buffer = mmap.mmap(-1, 4096)
    with open(path, "wb") as file:
        file.write(bytes(4 << 20))
        os.fsync(file.fileno())
    descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
    times = []
    for index in range(1024):
        started = time.perf_counter()
        os.pwrite(descriptor, buffer, index * 4096)
        times.append((time.perf_counter() - started) * 1e3)
    os.close(descriptor)
    path.unlink()
    return statistics.median(times)


def table(results, disk_ms):
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    lines = [
        f"{date.today()}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}; the disk commits 4 KiB in "
        f"{disk_ms:.2f} ms. {ROUNDS} rounds of {SECONDS} s after {WARM_UP_SECONDS} s of warm-up, brokers alternating, each on an "
        "empty directory; medians. Every acknowledged record was read back and verified by librdkafka.",
        "",
        "| Broker | Partitions | Records/s (min–max) | p50 ms | p99 ms | RSS idle MB | RSS after load MB | Ready s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (name, partitions), runs in results.items():
        def median(key, runs=runs):
            return statistics.median(run[key] for run in runs)
        rates = [run["rate"] for run in runs]
        lines.append(
            f"| {name} | {partitions:,} | {median('rate'):,.0f} ({min(rates):,.0f}–{max(rates):,.0f}) | {median('p50'):.1f} "
            f"| {median('p99'):.1f} | {median('idle_rss'):.0f} | {median('load_rss'):.0f} | {median('ready'):.2f} |")
    return "\n".join(lines)


def verdicts(results):
    """The project's own bounds, each with the numbers it was judged by."""
    def median(name, partitions, key):
        return statistics.median(run[key] for run in results[name, partitions])
    keelson, default, fsync = BROKERS
    few, many = PARTITIONS[0], PARTITIONS[-1]
    ours = {key: median(keelson.name, few, key) for key in ("rate", "p99", "ready", "idle_rss")}
    rows = []
    for peer, factor in ((fsync, 6.0), (default, 1.3)):
        ratio, p99 = ours["rate"] / median(peer.name, few, "rate"), median(peer.name, few, "p99")
        rows.append((ratio >= factor, f"{ratio:.2f} times {peer.name} (at least {factor})"))
        rows.append((ours["p99"] < p99, f"p99 {ours['p99']:.1f} ms against {p99:.1f} ms of {peer.name}"))
    flat = median(keelson.name, many, "rate") / ours["rate"]
    rows.append((flat >= 0.75, f"{many} partitions at {flat:.2f} of the rate of {few} (at least 0.75)"))
    rows.append((ours["idle_rss"] < 40, f"idle RSS {ours['idle_rss']:.0f} MB (below 40)"))
    rows.append((ours["ready"] < 0.5, f"ready in {ours['ready']:.2f} s (below 0.5)"))
    return rows


def write(text):
    path = ROOT / "docs/performance.md"
    page = path.read_text()
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


BROKERS = [Keelson(), Apache(flush=False), Apache(flush=True)]


def main():
    disk_ms = commit_4k_ms()
    results = {}
    for round_number in range(ROUNDS):
        for partitions in PARTITIONS:
            for broker in BROKERS:
                run = measure(broker, partitions)
                results.setdefault((broker.name, partitions), []).append(run)
                print(f"round {round_number + 1} {broker.name} {partitions} partitions: {run['rate']:,.0f}/s "
                      f"p99 {run['p99']:.1f} ms, idle {run['idle_rss']:.0f} MB, ready {run['ready']:.2f} s, "
                      f"{run['counted']} counted", flush=True)
    results = dict(sorted(results.items(), key=lambda item: (item[0][1], [b.name for b in BROKERS].index(item[0][0]))))
    rows = verdicts(results)
    text = "\n".join([table(results, disk_ms), "", *(f"- {'met' if met else 'NOT met'}: {words}" for met, words in rows)])
    print(text)
    write(text)
    sys.exit(0 if all(met for met, _ in rows) else 1)


if __name__ == "__main__":
    main()
