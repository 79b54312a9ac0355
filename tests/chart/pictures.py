"""Makes docs/pictures: a cluster at work, then with bad disks, through a real Prometheus; what the dashboards show of it is drawn.

tests/chart/run.sh --pictures. Takes about four minutes, since what is drawn is what happened in them."""
import concurrent.futures
import contextlib
import math
import os
import pathlib
import shutil
import tempfile
import threading
import time

import kafka

import chart
import drawing
import faults
import live
from test_dashboards import BOARDS

OUT = pathlib.Path(os.environ.get("KEELSON_PICTURES", chart.ROOT / "docs" / "pictures"))
BYTES_MAX = 150_000
SPAN_S = 90
ME = "demo-broker-0"
TOPICS = """
apiVersion: keelson.dev/v1alpha1
kind: Topic
metadata: {name: orders}
spec: {clusterRef: {name: demo}, partitions: 6}
---
apiVersion: keelson.dev/v1alpha1
kind: Topic
metadata: {name: payments}
spec: {clusterRef: {name: demo}, partitions: 3}
---
apiVersion: keelson.dev/v1alpha1
kind: Topic
metadata: {name: audit}
spec: {clusterRef: {name: demo}, partitions: 1}
---
apiVersion: keelson.dev/v1alpha1
kind: ConsumerGroup
metadata: {name: billing}
spec: {clusterRef: {name: demo}, lagObjective: {maxRecords: 1000}}
"""


class Work:
    """Applications: three topics are written to, one of them in transactions, too, and three groups read; one of them stops for a
    while, one for good."""

    def __init__(self, address):
        self.address, self.stopped, self.paused, self.began = address, threading.Event(), set(), time.monotonic()
        jobs = [(self._produce,), (self._transact,), (self._consume, "orders", "shipping"), (self._consume, "orders", "shipping"),
                (self._consume, "payments", "billing"), (self._consume, "orders", "analytics")]
        self.threads = [threading.Thread(target=self._again, args=job, daemon=True) for job in jobs]
        for thread in self.threads:
            thread.start()

    def _again(self, job, *args):
        while not self.stopped.is_set():
            with contextlib.suppress(Exception):  # a broker that is away is what some pictures are of
                job(*args)

    def _produce(self):
        producer = kafka.KafkaProducer(bootstrap_servers=self.address, acks="all", linger_ms=5)
        while not self.stopped.wait(0.1):
            wave = 1 + 0.5 * math.sin((time.monotonic() - self.began) / 8)
            for topic, count in (("orders", 14), ("payments", 5), ("audit", 1)):
                for i in range(round(count * wave)):
                    producer.send(topic, b"x" * 300, key=b"%d" % (i * 7 % 11))
        producer.close(timeout=1)

    def _transact(self):
        producer = kafka.KafkaProducer(bootstrap_servers=self.address, acks="all", transactional_id="settlement")
        producer.init_transactions()
        number = 0
        while not self.stopped.is_set():
            number += 1
            producer.begin_transaction()
            producer.send("payments", b"x" * 300).get(10)
            self.stopped.wait(0.3 + number % 5)
            producer.abort_transaction() if number % 4 == 0 else producer.commit_transaction()
        producer.close(timeout=1)

    def _consume(self, topic, group):
        consumer = kafka.KafkaConsumer(topic, bootstrap_servers=self.address, group_id=group, auto_offset_reset="earliest",
                                       enable_auto_commit=False, session_timeout_ms=6000, heartbeat_interval_ms=1000)
        with contextlib.closing(consumer):
            while not self.stopped.is_set() and group not in self.paused:
                if consumer.poll(timeout_ms=300, max_records=400):
                    consumer.commit()
        while group in self.paused and not self.stopped.is_set():
            time.sleep(0.2)

    def end(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(10)


class Album:
    def __init__(self, prometheus):
        self.prometheus, self.lock = prometheus, threading.Lock()  # matplotlib draws one picture at a time

    def take(self, name, board, rows=None, **variables):
        path = OUT / f"{name}.png"
        end = time.time()
        with self.lock:
            drawing.Drawing(BOARDS[board], self.prometheus, end - SPAN_S, end, rows, **variables).save(path)
            size = drawing.small(path)
        print(f"{path}: {size} bytes", flush=True)
        if size > BYTES_MAX:
            raise AssertionError(f"{path} is larger than {BYTES_MAX} bytes")


def settled(prometheus, name):
    """A broker of Prometheus' whose line is as long as a picture."""
    live.wait("a past to draw", lambda: prometheus.query(f'count_over_time(keelson_wal_files{{instance="{name}"}}[{SPAN_S}s]) > {SPAN_S - 10}'), 180)


def bad_disks(folder, prometheus, album, stack):
    """Three more brokers, whose disks are full, slow, and slow at a start."""
    full, slow, start = (faults.Patient(folder, prometheus, name) for name in ("full-disk-0", "slow-disk-0", "slow-start-0"))
    for patient in (full, slow, start):
        stack.callback(patient.end)
    full.topics("orders")
    slow.topics("orders")
    load = threading.Event()

    def work():
        with slow.producer() as producer:
            while not load.wait(0.05):
                producer.send("orders", b"x" * 1000, partition=0).get(30)
    thread = threading.Thread(target=work)
    thread.start()
    settled(prometheus, slow.name)
    load.set()
    thread.join()
    faults.fill_the_volume(full)
    with faults.slow_disk(slow):
        faults.slow_start(start)
        time.sleep(45)  # what is to be seen in the pictures
        album.take("log-health-full-disk", "log-health", ["Health", "Disk"], instance=full.name)
        album.take("log-health-slow-disk", "log-health", ["Writing"], instance=slow.name)
        album.take("log-health-slow-start", "log-health", ["Recovery"], instance=start.name)


def cluster(folder, prometheus, album, stack):
    """A broker at work under an operator; then a byte of its log flips."""
    plane = live.ControlPlane()
    stack.callback(plane.end)
    plane.install("demo", "streams")
    plane.kubectl("apply", "-n", "streams", "-f", "-", stdin=TOPICS)
    port, http = live.free_port(), live.free_port()
    patient = faults.Patient(folder, prometheus, ME, f"listeners=PLAINTEXT://127.0.0.1:{port}", f"http.listen=127.0.0.1:{http}",
                             "keelson.scrub.bytes.per.second=200000", "group.initial.rebalance.delay.ms=200")
    stack.callback(patient.end)
    operator, address = live.operator(folder, plane, patient.broker)
    stack.callback(operator.end)
    prometheus.scrape(**{"demo-operator-0": address})
    live.wait("topics", lambda: len(prometheus.query("kafka_topic_partitions")) >= 3)
    work = Work(patient.broker.kafka)
    stack.callback(work.end)
    live.wait("groups", lambda: len(prometheus.query("kafka_consumergroup_members > 0")) >= 3)
    for seconds, change in ((35, lambda: work.paused.add("billing")), (30, lambda: work.paused.discard("billing")),
                            (5, lambda: work.paused.add("analytics")), (25, lambda: None)):
        time.sleep(seconds)  # the story that the pictures tell
        change()
    settled(prometheus, ME)
    here = {"instance": ME}
    album.take("log-health", "log-health", ["Health", "Decode errors"], **here)
    album.take("broker-overview", "broker-overview", **here)
    album.take("topics", "topics", **here, topic="orders|payments|audit")
    album.take("consumer-groups", "consumer-groups", **here)
    faults.flip_in_the_wal(patient)
    reader = threading.Thread(target=lambda: [suppressed_read(patient) for _ in range(12)])
    reader.start()
    time.sleep(45)
    album.take("log-health-decode-error", "log-health", ["Health", "Decode errors"], **here)
    album.take("broker-overview-decode-error", "broker-overview", ["Requests"], **here)
    album.take("operator", "operator")
    reader.join()


def suppressed_read(patient):
    with contextlib.suppress(Exception):  # the error is what a picture shows
        patient.read("broken")


def main():
    OUT.mkdir(exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="keelson-pictures-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        prometheus = live.Prometheus(folder)
        stack.callback(prometheus.process.end)
        album = Album(prometheus)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for done in [pool.submit(story, folder, prometheus, album, stack) for story in (cluster, bad_disks)]:
                done.result()


if __name__ == "__main__":
    main()
