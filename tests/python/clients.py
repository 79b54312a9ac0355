"""clients.py BOOTSTRAP: what a kafka-python user does, end to end; asserts as it goes and prints a JSON summary.

Produce with every codec and acks, consume, two members and a rebalance, committed offsets, seeks by time, admin calls.
"""

import json
import sys
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic
from kafka.errors import TopicAlreadyExistsError

WITHIN_SECONDS = 60


def wait_for(what, probe):
    end = time.monotonic() + WITHIN_SECONDS
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {WITHIN_SECONDS} s: {what}")


def produce(bootstrap):
    sent = 0
    for codec in (None, "gzip"):
        for acks in (0, 1, "all"):
            producer = KafkaProducer(bootstrap_servers=bootstrap, acks=acks, compression_type=codec,
                                     enable_idempotence=False)
            futures = [producer.send("py", f"{codec}-{acks}-{n}".encode(), key=str(n).encode(),
                                     headers=[("n", str(n).encode())]) for n in range(50)]
            producer.flush(WITHIN_SECONDS)
            offsets = {(f.get(WITHIN_SECONDS).partition, f.get().offset) for f in futures}
            assert acks == 0 or len(offsets) == 50, f"{codec} {acks}: {len(offsets)} places"
            producer.close()
            sent += 50
    producer = KafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    for n in range(50):
        producer.send("py", f"idempotent-{n}".encode()).get(WITHIN_SECONDS)
    producer.close()
    return sent + 50


def consumer(bootstrap, group, **more):
    return KafkaConsumer("py", bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
                         enable_auto_commit=False, session_timeout_ms=10000, heartbeat_interval_ms=500, **more)


def two_members(bootstrap, sent):
    """One member takes all, a second takes its part, together they read everything, and the first leaves."""
    first, seen = consumer(bootstrap, "py-pair"), {}

    def pump(*members):
        for member in members:
            for records in member.poll(timeout_ms=200).values():
                for record in records:
                    seen.setdefault((record.partition, record.offset), []).append(record.value)

    def alone():
        pump(first)
        return len(first.assignment()) == 3

    wait_for("the first member has all partitions", alone)
    first.commit()
    second = consumer(bootstrap, "py-pair")

    def shared():
        pump(first, second)
        mine, other = first.assignment(), second.assignment()
        return mine and other and len(mine | other) == 3 and not mine & other

    wait_for("both members have partitions", shared)

    def complete():
        pump(first, second)
        return len(seen) >= sent

    wait_for("everything was read", complete)
    assert len(seen) == sent, f"{len(seen)} records for {sent} sent"
    first.commit()
    second.commit()
    first.close()

    def taken_over():
        pump(second)
        return len(second.assignment()) == 3

    wait_for("the second member takes over", taken_over)
    committed = sum(second.committed(TopicPartition("py", p)) for p in range(3))
    assert committed == sent, f"committed {committed} of {sent}"
    second.close()
    return len(seen)


def seek_by_time(bootstrap):
    reader = KafkaConsumer(bootstrap_servers=bootstrap)
    partitions = [TopicPartition("py", p) for p in range(3)]
    assert all(found.offset == 0 for found in reader.offsets_for_times({p: 1 for p in partitions}).values())
    assert sum(reader.end_offsets(partitions).values()) == 350
    assert sum(reader.beginning_offsets(partitions).values()) == 0
    reader.close()


def administer(bootstrap):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic("py-admin", 2, 1, topic_configs={"retention.ms": "123456"})])
    try:
        admin.create_topics([NewTopic("py-admin", 2, 1)])
        raise AssertionError("a topic was created twice")
    except TopicAlreadyExistsError:
        pass
    admin.create_partitions({"py-admin": NewPartitions(5)})
    topics = {t.get("name", t.get("topic")): t for t in admin.describe_topics(["py-admin"])}
    assert len(topics["py-admin"]["partitions"]) == 5, topics
    resource = ConfigResource(ConfigResourceType.TOPIC, "py-admin", configs={"retention.ms": "654321"})
    admin.alter_configs([resource])
    described = json.dumps(admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "py-admin")]), default=str)
    assert "654321" in described, described
    reader = KafkaConsumer(bootstrap_servers=bootstrap)
    first = TopicPartition("py", 0)
    admin.delete_records({first: 1})
    assert reader.beginning_offsets([first]) == {first: 1}, reader.beginning_offsets([first])
    reader.close()
    groups = json.dumps(admin.list_groups() if hasattr(admin, "list_groups") else admin.list_consumer_groups(),
                        default=str)
    assert "py-pair" in groups, groups
    admin.delete_topics(["py-admin"])
    wait_for("the topic is gone", lambda: "py-admin" not in admin.list_topics())
    admin.close()


def main():
    bootstrap = sys.argv[1]
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic("py", 3, 1)])
    admin.close()
    sent = produce(bootstrap)
    seen = two_members(bootstrap, sent)
    seek_by_time(bootstrap)
    administer(bootstrap)
    print(json.dumps({"sent": sent, "seen": seen}))


if __name__ == "__main__":
    main()
