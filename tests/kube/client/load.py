#!/usr/bin/env python3
"""load.py: a producer and a consumer group that run through whatever happens to the broker, and judge it afterwards.

    load.py first --bootstrap B --topic T             waits until one record has been acknowledged and read back
    load.py run --bootstrap B --topic T --name N      runs until the file /tmp/N.stop exists, then judges

`run` sends numbered records at a steady rate with an idempotent producer, notes place and number of every acknowledged one, and
reads the same topic in a consumer group. It makes /tmp/N.ready once both work; while both do, there is /tmp/N.alive. At the end it
reads the whole topic again, judges it (judge.py) and prints one line of JSON. The exit code is 0 only if nothing that was
acknowledged is lost, changed, twice or out of order, nothing was refused, and the group received all of it. The pauses are the
longest times between two acknowledgements and between two received records, from ready to stop. Runs in a pod, on librdkafka
(Debian's python3-confluent-kafka).
"""

import argparse
import json
import os
import sys
import threading
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition

from judge import is_sound, judge

# As many as the group must have received before a run counts as ready.
WARM_RECORDS = 100
# A broker that comes back needs no longer; a record that is not acknowledged by then counts as refused.
DELIVERY_SECONDS = 180
# The rest of the group's reading, and the second reading, have this long each.
READ_SECONDS = 90
# Longer than a record takes, shorter than any restart.
ALIVE_SECONDS = 0.5
# Times that the client waits between two tries to connect: Java's default, librdkafka's own is ten seconds at most.
RECONNECT = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 1000}


def now():
    return time.monotonic()


class Gaps:
    """The longest time between two events, counted from start to stop."""

    def __init__(self):
        self.last, self.longest, self.counting = now(), 0.0, False

    def event(self):
        at = now()
        if self.counting:
            self.longest = max(self.longest, at - self.last)
        self.last = at

    def age(self):
        return now() - self.last

    def start(self):
        self.last, self.counting = now(), True

    def stop(self):
        self.event()
        self.counting = False


class Sender:
    """Sends numbered records and remembers where each acknowledged one stands."""

    def __init__(self, options):
        self.options, self.sent, self.acknowledged, self.refused = options, 0, {}, []
        self.gaps = Gaps()
        self.producer = Producer({
            "bootstrap.servers": options.bootstrap, "client.id": options.name, "enable.idempotence": True, "acks": "all",
            "linger.ms": 5, "message.timeout.ms": DELIVERY_SECONDS * 1000, "error_cb": options.note_error, **RECONNECT})

    def delivered(self, error, message):
        if error is not None:
            self.refused.append(str(error))
            return
        self.acknowledged[int(message.key())] = (message.partition(), message.offset())
        self.gaps.event()

    def run(self, stop):
        begun = now()
        while not stop.is_set():
            due = int((now() - begun) * self.options.rate)
            while self.sent < due:
                try:
                    self.producer.produce(self.options.topic, self.options.value(self.sent), key=str(self.sent),
                                          partition=self.sent % self.options.partitions, on_delivery=self.delivered)
                except BufferError:
                    break
                self.sent += 1
            self.producer.poll(0.005)

    def finish(self):
        return self.producer.flush(DELIVERY_SECONDS)


class Receiver(threading.Thread):
    """One member of a consumer group, with committed offsets. What is read again after a restart counts once."""

    def __init__(self, options):
        super().__init__(daemon=True)
        self.seen, self.again, self.gaps, self.failure = {}, 0, Gaps(), None
        self.value = options.value
        self.enough = threading.Event()
        self.ended = threading.Event()
        self.consumer = Consumer({
            "bootstrap.servers": options.bootstrap, "client.id": options.name, "group.id": options.name,
            "auto.offset.reset": "earliest", "auto.commit.interval.ms": 500, "error_cb": options.note_error, **RECONNECT})
        self.consumer.subscribe([options.topic])

    def run(self):
        try:
            while not self.ended.is_set():
                message = self.consumer.poll(0.05)
                if message is None or message.error():
                    continue
                place = (message.partition(), message.offset())
                if place in self.seen:
                    self.again += 1
                    continue
                number = int(message.key())
                self.seen[place] = number if message.value() == self.value(number) else None
                self.gaps.event()
                if len(self.seen) >= WARM_RECORDS:
                    self.enough.set()
            self.consumer.close()
        except KafkaException as error:
            self.failure = str(error)


def read_all(options):
    """The whole topic, by a consumer without a group: {partition: [(offset, key, value)]}."""
    consumer = Consumer({"bootstrap.servers": options.bootstrap, "group.id": f"{options.name}-judge",
                         "enable.auto.commit": False, **RECONNECT})
    found, deadline = {}, now() + READ_SECONDS
    ends = {p: consumer.get_watermark_offsets(TopicPartition(options.topic, p), timeout=30)[1]
            for p in range(options.partitions)}
    consumer.assign([TopicPartition(options.topic, p, OFFSET_BEGINNING) for p in range(options.partitions)])
    missing = {p for p, end in ends.items() if end > 0}
    while missing and now() < deadline:
        message = consumer.poll(0.5)
        if message is None or message.error():
            continue
        found.setdefault(message.partition(), []).append((message.offset(), message.key(), message.value()))
        if message.offset() + 1 >= ends[message.partition()]:
            missing.discard(message.partition())
    consumer.close()
    return found, sorted(missing)


def wait(what, condition, seconds):
    deadline = now() + seconds
    while not condition():
        if now() > deadline:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def flag(path, there):
    if there:
        open(path, "w").close()
    elif os.path.exists(path):
        os.unlink(path)


def run(options):
    sender, receiver, stop = Sender(options), Receiver(options), threading.Event()
    receiver.start()
    sending = threading.Thread(target=sender.run, args=(stop,), daemon=True)
    sending.start()
    wait("the first records", receiver.enough.is_set, 120)
    sender.gaps.start()
    receiver.gaps.start()
    begun = now()
    flag(f"/tmp/{options.name}.ready", True)
    while not os.path.exists(f"/tmp/{options.name}.stop"):
        time.sleep(0.05)
        flag(f"/tmp/{options.name}.alive", max(sender.gaps.age(), receiver.gaps.age()) < ALIVE_SECONDS)
    sender.gaps.stop()
    receiver.gaps.stop()
    seconds = now() - begun
    stop.set()
    sending.join()
    unsent = sender.finish()
    deadline = now() + READ_SECONDS
    while any(place not in receiver.seen for place in sender.acknowledged.values()) and now() < deadline:
        time.sleep(0.1)
    stored, unread = read_all(options)
    result = {"seconds": round(seconds, 1), "produce_pause_s": round(sender.gaps.longest, 2),
              "consume_pause_s": round(receiver.gaps.longest, 2), "received_again": receiver.again, "unsent": unsent,
              "refused": len(sender.refused), "first_refused": sender.refused[:5], "unread_partitions": len(unread),
              **judge(sender.acknowledged, receiver.seen, stored, options.value),
              "client_errors": sorted(options.errors), "failure": receiver.failure}
    result["sound"] = is_sound(result)
    receiver.ended.set()
    receiver.join(10)
    print(json.dumps(result), flush=True)
    return 0 if result["sound"] else 1


def first(options):
    """One record there and back, tried again until it works: what the very first client of a new cluster sees."""
    deadline = now() + 120
    while now() < deadline:
        answers = []
        producer = Producer({"bootstrap.servers": options.bootstrap, "message.timeout.ms": 2000, **RECONNECT})
        try:
            producer.produce(options.topic, b"first", on_delivery=lambda error, message: answers.append((error, message)))
            producer.flush(3)
        except KafkaException:
            continue
        if answers and answers[0][0] is None:
            place = answers[0][1]
            consumer = Consumer({"bootstrap.servers": options.bootstrap, "group.id": "first", **RECONNECT})
            consumer.assign([TopicPartition(options.topic, place.partition(), place.offset())])
            message = consumer.poll(10)
            return 0 if message is not None and not message.error() and message.value() == b"first" else 1
    return 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("first", "run"))
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--name", default="load")
    parser.add_argument("--partitions", type=int, default=3)
    parser.add_argument("--rate", type=int, default=200)
    options = parser.parse_args()
    options.errors = set()
    options.note_error = lambda error: options.errors.add(error.name())
    options.value = lambda number: f"{options.name}-{number}-".encode() + b"x" * 100
    sys.exit({"first": first, "run": run}[options.mode](options))


if __name__ == "__main__":
    main()
