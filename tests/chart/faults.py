"""Faults of a disk, each on a broker of its own with a small volume in memory: caused here, looked at elsewhere.

Must run in a mount namespace of its own (unshare --mount), so that the volumes are gone with the process, whatever happens."""
import contextlib
import http.server
import signal
import subprocess
import threading

import kafka
import kafka.admin
import kafka.errors

import live

MARKER = b"damage-goes-right-behind-this:"
# The system call that commits a group, where the file system takes direct writes; tests/tests/durability.rs shows it.
COMMIT = "pwritev2"
FLUSH = "pwrite64"


class Patient:
    """A broker with a volume of its own, watched by Prometheus under its name."""

    def __init__(self, folder, prometheus, name, *settings, size="400m"):
        self.name, self.prometheus = name, prometheus
        self.folder = folder / name
        (self.folder / "data").mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.folder / "data")], check=True)
        self.broker = live.Broker(self.folder, "keelson.scrub.bytes.per.second=0", *settings).start()
        # The volume's own folder holds the ballast, beside what the broker keeps there.
        self.ballast = self.folder / "data" / "ballast"
        self.watch(self.broker.http)

    def watch(self, address):
        self.prometheus.scrape(**{self.name: address})

    def topics(self, *names, partitions=1, **config):
        admin = kafka.KafkaAdminClient(bootstrap_servers=self.broker.kafka)
        admin.create_topics([kafka.admin.NewTopic(n, partitions, 1, topic_configs=config) for n in names])
        admin.close()

    @contextlib.contextmanager
    def producer(self, **more):
        producer = kafka.KafkaProducer(bootstrap_servers=self.broker.kafka, **{"acks": "all", "linger_ms": 0, "retries": 0, **more})
        try:
            yield producer
        finally:
            producer.close(timeout=10)

    def produce(self, topic, *values, key=None):
        """Each value alone, acknowledged."""
        with self.producer() as producer:
            for value in values:
                producer.send(topic, value, key=key, partition=0).get(30)

    @contextlib.contextmanager
    def open_transaction(self, topic, timeout_s):
        """A record that is durable, in a transaction that its client does not end."""
        with self.producer(transactional_id="forgotten", transaction_timeout_ms=1000 * timeout_s, retries=5) as producer:
            producer.init_transactions()
            producer.begin_transaction()
            producer.send(topic, b"of nobody knows what", partition=0).get(30)
            yield

    def produce_together(self, topic, *values):
        """All in one batch."""
        with self.producer(linger_ms=500) as producer:
            for value in values:
                producer.send(topic, value, partition=0)
            producer.flush(30)

    def read(self, topic):
        """Everything from the start, or the error."""
        consumer = kafka.KafkaConsumer(bootstrap_servers=self.broker.kafka, enable_auto_commit=False, auto_offset_reset="earliest")
        partition = kafka.TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end, seen = consumer.end_offsets([partition])[partition], 0
        try:
            for _ in range(60):
                seen += sum(len(records) for records in consumer.poll(timeout_ms=500).values())
                if seen >= end:
                    break
            return seen
        finally:
            consumer.close()

    def kill(self):
        self.broker.process.end(signal.SIGKILL)

    def start(self):
        self.broker.start()
        self.watch(self.broker.http)

    def start_slowly(self, inject):
        """Starts under strace, and does not wait: only its metrics can be asked meanwhile."""
        http = f"127.0.0.1:{live.free_port()}"
        self.broker.process = live.Process(self.folder, "broker", [
            "strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=" + inject.partition(":")[0], "-e", "inject=" + inject, *self.broker.command(http)])
        self.watch(http)

    def strace(self, thread=None, **inject):
        return live.Strace(self.folder, str(self.broker.process.child.pid), inject, thread)

    def resize(self, size):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder / "data")], check=True)

    def end(self):
        self.broker.process.end(signal.SIGKILL)


def flip_in_the_wal(patient):
    """An acknowledged batch of the write-ahead log, with later ones behind it, found at the next start."""
    patient.topics("broken", "after")
    patient.produce("broken", b"before")
    patient.produce_together("broken", MARKER, MARKER, MARKER)
    patient.produce("after", b"a later group testifies for the damaged one", b"and one more")
    patient.kill()
    patient.broker.flip_byte_after(MARKER)
    patient.start()


def flip_the_end_of_the_wal(patient):
    """The last group, behind which nothing says that it was there: the same bytes as after a power cut in the middle of its write."""
    patient.topics("broken")
    patient.produce("broken", b"whole", MARKER + b"torn")
    patient.kill()
    patient.broker.flip_byte_after(MARKER)
    patient.start()


def flip_in_a_segment(patient):
    """A batch that nobody reads, in one of two compacted topics; the broker was stopped cleanly."""
    patient.topics("broken", "whole", **{"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.bytes": "16384"})
    for topic in ("broken", "whole"):
        with patient.producer() as producer:
            for i in range(400):
                producer.send(topic, MARKER + b"%05d" % i + b"x" * 200, key=b"%d" % (i % 7), partition=0)
            producer.flush(30)
    patient.broker.process.end()
    patient.broker.flip_byte_after(MARKER + b"00042", under="p")


def fill_the_volume(patient):
    """Until producers are refused."""
    with open(patient.ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
    with contextlib.suppress(OSError), open(patient.ballast, "ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with patient.producer(request_timeout_ms=2000) as producer:
        try:
            for _ in range(100_000):
                producer.send("orders", bytes(20_000), partition=0).get(30)
        except kafka.errors.KafkaError as error:
            return error
    raise AssertionError("a full volume took everything")


@contextlib.contextmanager
def slow_disk(patient):
    """Under load, a quarter of a second for a commit and for ever for a flush."""
    patient.topics("busy", partitions=16)
    done = threading.Event()
    with patient.producer(acks=1) as producer:
        strace = patient.strace(**{COMMIT: "delay_enter=250000", FLUSH: "delay_enter=60000000"})

        def load():
            while not done.is_set():
                sent = [producer.send("busy", b"x" * 4000, partition=partition) for partition in range(16) for _ in range(2)]
                with contextlib.suppress(kafka.errors.KafkaError):
                    sent[-1].get(60)
        thread = threading.Thread(target=load)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            strace.end()


@contextlib.contextmanager
def held_flusher(patient, batches, batch_bytes):
    """Everything else goes on, so the write-ahead log alone takes what is produced."""
    strace = patient.strace(thread="flusher", **{FLUSH: "delay_enter=60000000"})
    try:
        subprocess.run([live.BINARIES / "keelson-bench", "--bootstrap-servers", patient.broker.kafka, "--topic", "load", "--create-topic",
                        "--mode", "produce", "--message-count", str(batches), "--message-size", str(batch_bytes)],
                       check=True, stdout=subprocess.DEVNULL, timeout=live.DEADLINE_S)
        yield
    finally:
        strace.end()


@contextlib.contextmanager
def stalled_commits(patient):
    """A disk that does not answer the writer of the log."""
    strace = patient.strace(thread="wal-writer", **{COMMIT: "delay_enter=60000000"})
    try:
        yield
    finally:
        strace.end()


def slow_start(patient):
    """A kill with five megabytes to replay, and a disk that takes half a second over a read."""
    patient.topics("unflushed")
    patient.produce("unflushed", *(b"x" * 100_000 for _ in range(50)))
    patient.kill()
    patient.start_slowly("pread64:delay_enter=500000:when=5+")


class Replay(http.server.ThreadingHTTPServer):
    """The metrics of a broker with some samples replaced: for what no fault of a disk or a client can cause."""

    def __init__(self, address, samples):
        super().__init__(("127.0.0.1", 0), None)
        self.address, self.samples = address, samples
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def finish_request(self, request, client_address):
        Answer(request, client_address, self)

    @property
    def http(self):
        return f"127.0.0.1:{self.server_address[1]}"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        lines = live.get(f"http://{self.server.address}{self.path}").splitlines()
        for sample, value in self.server.samples.items():
            if not any(line.startswith(sample + " ") for line in lines):
                raise AssertionError(f"{sample} is not exposed")
        body = "\n".join(f"{name} {self.server.samples[name]}" if (name := line.rpartition(" ")[0]) in self.server.samples else line
                         for line in lines) + "\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass
