"""read_all.py BOOTSTRAP TOPIC: reads partition 0 of a topic from its first offset to its end with kafka-python, without a group.

Prints a JSON list of [offset, key in hex, value in hex or null], in the order of arrival.
"""

import json
import sys
import time

from kafka import KafkaConsumer, TopicPartition

STALLED_AFTER_SECONDS = 60


def main():
    bootstrap, topic = sys.argv[1], sys.argv[2]
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    end = consumer.end_offsets([partition])[partition]
    seen, last, position = [], time.monotonic(), consumer.position(partition)
    while position < end:
        if time.monotonic() - last > STALLED_AFTER_SECONDS:
            sys.exit(f"at {position} of {end}, then nothing for {STALLED_AFTER_SECONDS} s")
        for records in consumer.poll(timeout_ms=500).values():
            seen.extend([r.offset, r.key.hex(), None if r.value is None else r.value.hex()] for r in records)
        if consumer.position(partition) != position:
            last, position = time.monotonic(), consumer.position(partition)
    consumer.close()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
