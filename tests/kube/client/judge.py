"""What is held against a load (load.py) after its run: pure, so that `make test` can plant faults before it (tests/kube/test_judge.py).

Owns which findings there are and which of them a run must not have; speaks to no broker.
"""

# Findings that a sound run has none of.
FAULTS = ("refused", "unsent", "unread_partitions", "lost", "changed", "twice", "unordered", "not_received")


def judge(acknowledged, received, stored, value):
    """Counts what went wrong.

    acknowledged  {number: (partition, offset)}, as the broker told the producer
    received      {(partition, offset): number}, as the group read it while the load ran
    stored        {partition: [(offset, key, value)]}, the whole topic as it was read afterwards, in that order
    value         what the record of a number holds
    """
    places, changed, twice, unordered = {}, 0, 0, 0
    for partition, records in stored.items():
        last = -1
        for offset, key, found in records:
            number = int(key)
            changed += found != value(number)
            twice += number in places
            unordered += number < last and number not in places
            places.setdefault(number, (partition, offset))
            last = max(last, number)
    lost = [number for number, place in acknowledged.items() if places.get(number) != place]
    undelivered = [number for number, place in acknowledged.items() if received.get(place) != number]
    return {"acknowledged": len(acknowledged), "lost": len(lost), "changed": changed, "twice": twice, "unordered": unordered,
            "not_received": len(undelivered), "first_bad": (lost + undelivered)[:5]}


def is_sound(result):
    """Whether a load did something, and nothing of it went wrong."""
    return bool(result["acknowledged"]) and result["failure"] is None and not any(result[name] for name in FAULTS)
