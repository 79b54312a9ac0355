"""A fault for each panel of the dashboard Log health, through a real broker and a real Prometheus, what the panel then shows and
which alerts fire.

Each scenario has a broker of its own (faults.py) and asks only for that broker; all run at once. A panel without a scenario fails."""
import concurrent.futures
import pathlib
import shutil
import tempfile
import unittest

import faults
import live
import panels
from test_dashboards import BOARDS

PANELS = {p["title"]: p for p in BOARDS["log-health"]["panels"] if p["type"] != "row"}
# Of this dashboard only what a fault of a disk moves, too.
OVERVIEW = {p["title"]: p for p in BOARDS["broker-overview"]["panels"] if p["type"] != "row"}
INTERVAL = "6s"
OK, READ_ONLY, CORRUPT = 0, 2, 3
MIB = 1 << 20


def over(bound):
    return lambda value: value > bound


def below(bound):
    return lambda value: value < bound


def between(low, high):
    return lambda value: low <= value <= high


class Scenario:
    """A broker and the panels for it; remembers which panels were asked for."""

    def __init__(self, folder, prometheus, name, *settings):
        self.patient = faults.Patient(folder, prometheus, name, *settings)
        self.name, self.prometheus, self.asked = name, prometheus, set()
        self.interval = INTERVAL

    def sees(self, title, expected, seconds=live.DEADLINE_S):
        """Waits until the panel shows exactly these legends, each with a value that is the number or satisfies the condition."""
        def look():
            shown = self.shows(title)
            if shown.keys() == expected.keys() and all(
                    wanted(shown[name]) if callable(wanted) else shown[name] == wanted for name, wanted in expected.items()):
                return True
            raise ValueError(f"{title}: {shown}")  # which is what the message of a failure has
        live.wait(f"{self.name}: {title} {expected}", look, seconds)

    def fires(self, *alerts):
        """Waits until exactly these alerts fire for this broker. Those that wait for minutes are tried by promtool."""
        def look():
            firing = self.prometheus.firing_for(self.name)
            if firing == set(alerts):
                return True
            raise ValueError(firing)
        live.wait(f"{self.name}: {alerts}", look)

    def shows(self, title):
        self.asked.add(title)
        return panels.shown(self.prometheus, PANELS.get(title) or OVERVIEW[title], self.interval, instance=self.name)


def wal(s):
    me = s.name
    s.sees("Health of the log", {me: OK})
    s.sees("Decode errors", {"": 0})
    s.sees("Decode errors by stage", {me: 0})
    s.fires()
    faults.flip_in_the_wal(s.patient)
    s.sees("Health of the log", {me: CORRUPT})
    s.sees("Decode errors", {"": 1})
    s.sees("Quarantined ranges", {"": 1})
    s.sees("Quarantined records", {"": 3})
    s.sees("Decode errors by stage", {f"{me} replay": 1})
    s.sees("Decode errors by source", {f"{me} wal": 1})
    s.sees("Decode errors by reason", {f"{me} payload_crc": 1})
    s.sees("Damage found", {f"{me} payload_crc wal replay": 1})
    s.fires("KeelsonDecodeErrors", "KeelsonQuarantinedRanges", "KeelsonLogCorrupt")


def torn(s):
    faults.flip_the_end_of_the_wal(s.patient)
    s.sees("Torn tails cut off", {s.name: over(0)})
    s.sees("Bytes cut off", {s.name: over(0)})
    s.sees("Decode errors", {"": 0})
    s.sees("Health of the log", {s.name: OK})
    s.fires()


def decoding(s):
    """A replay and a reader move what the errors are measured by."""
    s.interval = "20s"  # each moves it once, and a client may take some seconds to come and go
    def decoded(**stages):
        idle = dict.fromkeys(("replay", "fetch", "scrub", "compaction", "replica"), 0)
        for title in ("Records decoded", "Bytes decoded"):
            s.sees(title, {"append": between(0, 1e9), **idle, **stages})
    s.patient.topics("orders")
    s.patient.produce("orders", *(b"x" * 1000 for _ in range(50)))
    decoded()
    s.patient.kill()
    s.patient.start()
    decoded(replay=over(0))
    s.patient.broker.process.end()  # cleanly, so that everything is in segments and nothing in memory
    s.patient.start()
    decoded()
    assert s.patient.read("orders") == 50
    decoded(fetch=over(0))


def segment(s):
    """Scrubber and compaction meet damage that nobody reads."""
    me = s.name
    s.sees("Compactions", {f"{me} done": 0, f"{me} given up": 0})
    faults.flip_in_a_segment(s.patient)
    s.sees("Longest time without a full check", {})  # the broker is down
    s.patient.broker.settings = ("keelson.scrub.bytes.per.second=100000", "log.cleaner.backoff.ms=50")
    s.patient.start()
    s.sees("Background check", {me: over(0)})
    s.sees("Compaction", {f"{me} read": over(0), f"{me} written": over(0)})
    s.sees("Compactions", {f"{me} done": over(0), f"{me} given up": over(0)})
    s.sees("Decode errors by source", {f"{me} segment": 1})
    s.sees("Decode errors by reason", {f"{me} batch_crc": 1})
    s.sees("Longest time without a full check", {"": below(120)})
    s.fires("KeelsonDecodeErrors", "KeelsonQuarantinedRanges", "KeelsonLogCorrupt", "KeelsonCompactionFailing")


def unchecked(s):
    """A scrubber that is switched off: the age of the check counts from 1970."""
    s.sees("Longest time without a full check", {"": over(14 * 86400)})
    s.sees("Background check", {s.name: 0})


def full(s):
    me = s.name
    s.patient.topics("orders")
    s.sees("Share of the volume in use", {me: below(0.5)})
    faults.fill_the_volume(s.patient)
    s.sees("Health of the log", {me: READ_ONLY})
    s.fires("KeelsonLogReadOnly")
    s.sees("Free space of the data volume", {f"{me} free": below(4 * MIB), f"{me} size": 400 * MIB})
    s.sees("Share of the volume in use", {me: over(0.99)})
    s.sees("Size of the write-ahead log", {me: between(16 * MIB, 64 * MIB)})
    s.sees("Files of the write-ahead log", {me: between(1, 4)})
    s.patient.ballast.unlink()
    s.sees("Health of the log", {me: OK})
    s.sees("Share of the volume in use", {me: below(0.9)})
    s.fires()


def growing(s):
    """The log has as many files as it needs, and more while flushes to segments do not keep up, where the volume has room."""
    me = s.name
    s.sees("Files of the write-ahead log", {me: 4})
    s.sees("Size of the write-ahead log", {me: 64 * MIB})
    s.patient.resize("4g")
    with faults.held_flusher(s.patient, 45, 900_000):
        s.sees("Memory that waits for segments", {me: over(32 * MIB)})
        s.sees("Files of the write-ahead log", {me: between(5, 6)})
        s.sees("Size of the write-ahead log", {me: between(80 * MIB, 96 * MIB)})
    s.sees("Memory that waits for segments", {me: below(32 * MIB)})


def failing(s):
    """The disk refuses a commit, and takes seconds over the note that the broker writes of it before it ends."""
    me = s.name
    s.patient.topics("orders")
    s.patient.produce("orders", b"before")
    s.sees("Write and sync errors", {f"{me} write": 0, f"{me} sync": 0})
    s.sees("Ended on an error", {"": 0})
    s.sees("Ends on an error", {})
    with s.patient.producer(acks=0) as producer:
        strace = s.patient.strace(**{faults.COMMIT: "error=EIO", "fdatasync": "delay_enter=6000000", faults.FLUSH: "delay_enter=10"})
        producer.send("orders", b"never acknowledged")
        s.sees("Write and sync errors", {f"{me} write": 1, f"{me} sync": 1})
        s.fires("KeelsonAppendErrors", "KeelsonFsyncErrors")
    s.patient.broker.process.child.wait(live.DEADLINE_S)
    strace.end()
    s.sees("Brokers", {"": 0})
    s.patient.start()
    s.sees("Brokers", {"": 1})
    s.sees("Ended on an error", {"": 1})
    s.fires("KeelsonAppendErrors", "KeelsonFsyncErrors", "KeelsonExitedOnError")
    [ended] = s.shows("Ends on an error")
    assert ended.startswith(f"{me} the write-ahead log cannot be written: ") and "Input/output error" in ended, ended


def slow(s):
    """A disk that takes a quarter of a second over a commit, and for ever over a flush."""
    me = s.name
    with faults.slow_disk(s.patient):
        for title in ("Append latency", "Sync latency"):
            s.sees(title, dict.fromkeys(("p50", "p99", "p99.9"), between(0.2, 5)))
        s.sees("Commit groups", {me: between(0.1, 4.1)})
        s.sees("Batches per group", {me: over(2)})
        s.sees("Bytes written to the log", {me: over(10_000)})
        s.sees("Oldest batch not yet in a segment", {me: over(8)})
        s.sees("Memory that waits for segments", {me: over(500_000)})


def undecided(s):
    """A disk that does not answer while the time of a transaction is up: the coordinator cannot note that it is aborted."""
    me = s.name
    s.interval = "60s"  # it ends once
    s.patient.topics("orders")
    idle = dict.fromkeys(("Ongoing", "PrepareCommit", "PrepareAbort"), 0)
    s.sees("Open transactions", idle)
    with s.patient.open_transaction("orders", timeout_s=10):
        with faults.stalled_commits(s.patient):
            s.sees("Open transactions", {**idle, "Ongoing": 1})
            s.sees("Overdue transactions", {me: over(2)})
            s.sees("Oldest open transaction", {me: over(12)})
            s.sees("Transactions ended", dict.fromkeys(("committed", "aborted", "timed_out", "fenced"), 0))
        s.sees("Overdue transactions", {me: 0})
        s.sees("Open transactions", idle)
        s.sees("Oldest open transaction", {me: 0})
        s.sees("Transactions ended", {"committed": 0, "aborted": 0, "timed_out": over(0), "fenced": 0})


def stuck(s):
    """A disk that gives the log back slowly at a start."""
    me = s.name
    s.sees("Recovery in progress", {me: 0})
    s.sees("Bytes left to replay", {me: 0})
    faults.slow_start(s.patient)
    s.sees("Recovery in progress", {me: 1})
    s.sees("Bytes left to replay", {me: over(0)})
    s.sees("Recovery in progress", {me: 0})
    s.sees("Bytes left to replay", {me: 0})
    s.sees("Duration of the last recovery", {me: over(1)})
    s.patient.broker.process.end()


def lying(s):
    """No disk and no client can cause this one: it would be a bug. The sample is put into what the broker exposes."""
    s.sees("Fetch invariant violations", {"": 0})
    sample = 'keelson_fetch_invariant_violations_total{reason="empty_below_high_watermark"}'
    replay = faults.Replay(s.patient.broker.http, {sample: 1})
    s.patient.watch(replay.http)
    s.sees("Fetch invariant violations", {"": 1})
    s.fires("KeelsonFetchInvariantViolation")
    replay.shutdown()


SCENARIOS = (wal, torn, decoding, segment, unchecked, full, growing, failing, slow, undecided, stuck, lying)


class Faults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="keelson-faults-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        prometheus = live.Prometheus(cls.folder)
        cls.addClassCleanup(prometheus.process.end)

        def run(scenario):
            s = Scenario(cls.folder, prometheus, scenario.__name__)
            try:
                scenario(s)
            finally:
                s.patient.end()
            return s.asked
        pool = concurrent.futures.ThreadPoolExecutor(len(SCENARIOS))
        cls.addClassCleanup(pool.shutdown)
        cls.runs = {scenario.__name__: pool.submit(run, scenario) for scenario in SCENARIOS}

    def test_every_panel_has_a_fault(self):
        asked = set().union(*(run.result() for run in self.runs.values()))
        self.assertLessEqual(set(PANELS), asked)


for scenario in SCENARIOS:
    setattr(Faults, f"test_{scenario.__name__}", lambda self, name=scenario.__name__: self.runs[name].result() and None)
