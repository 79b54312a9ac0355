"""read_group.py BOOTSTRAP TOPIC GROUP COUNT: reads COUNT records as a group with kafka-python and commits.

Prints a JSON list of [partition, offset, CRC32 of the value], in the order of arrival.
"""

import json
import sys
import time
import zlib

from kafka import KafkaConsumer

STALLED_AFTER_SECONDS = 60


def main():
    bootstrap, topic, group, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
                             enable_auto_commit=False)
    seen, last = [], time.monotonic()
    while len(seen) < count:
        if time.monotonic() - last > STALLED_AFTER_SECONDS:
            sys.exit(f"{len(seen)} of {count} records came, then nothing for {STALLED_AFTER_SECONDS} s")
        for records in consumer.poll(timeout_ms=500).values():
            last = time.monotonic()
            seen.extend([r.partition, r.offset, zlib.crc32(r.value)] for r in records)
    consumer.commit()
    consumer.close()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
