"""The judge of the cluster test finds what is planted: run by `make test`, without broker or cluster."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "client"))
from judge import FAULTS, is_sound, judge  # noqa: E402

PARTITIONS, RECORDS = 3, 30


def value(number):
    return f"load-{number}-".encode() + b"x" * 100


class Load:
    """A run in which nothing went wrong; a test plants its fault and asks for the findings."""

    def __init__(self):
        places = {number: (number % PARTITIONS, number // PARTITIONS) for number in range(RECORDS)}
        self.acknowledged = dict(places)
        self.received = {place: number for number, place in places.items()}
        self.stored = {partition: [] for partition in range(PARTITIONS)}
        for number, (partition, offset) in places.items():
            self.stored[partition].append((offset, str(number).encode(), value(number)))
        self.rest = {"refused": 0, "unsent": 0, "unread_partitions": 0, "failure": None}

    def drop(self, partition, at):
        """As a broker does that forgot a record: those after it stand one place further on."""
        records = self.stored[partition]
        del records[at]
        records[at:] = [(offset - 1, key, found) for offset, key, found in records[at:]]

    def insert(self, partition, at, record):
        records = self.stored[partition]
        records[at:] = [(at, *record)] + [(offset + 1, key, found) for offset, key, found in records[at:]]

    def result(self):
        return {**judge(self.acknowledged, self.received, self.stored, value), **self.rest}


class Judge(unittest.TestCase):
    def check(self, plant, **expected):
        """These findings, each at least so often, and no other."""
        load = Load()
        plant(load)
        result = load.result()
        self.assertFalse(is_sound(result), result)
        for name in FAULTS:
            self.assertGreaterEqual(result[name], expected.get(name, 0), result)
            self.assertTrue(name in expected or not result[name], f"{name} in {result}")
        return result

    def test_nothing_is_found_where_nothing_is_wrong(self):
        result = Load().result()
        self.assertTrue(is_sound(result), result)
        self.assertEqual((result["acknowledged"], result["first_bad"]), (RECORDS, []))

    def test_what_was_not_acknowledged_may_be_there_or_not(self):
        load = Load()
        load.insert(1, 10, (b"31", value(31)))
        self.assertTrue(is_sound(load.result()), load.result())

    def test_the_last_record_of_a_partition_is_lost(self):
        self.assertEqual(self.check(lambda load: load.drop(2, 9), lost=1)["first_bad"], [29])

    def test_a_record_in_the_middle_is_lost_though_the_others_moved_up(self):
        self.assertEqual(self.check(lambda load: load.drop(0, 4), lost=6)["first_bad"][0], 12)

    def test_a_whole_partition_is_lost(self):
        self.check(lambda load: load.stored.pop(1), lost=10)

    def test_a_record_is_stored_twice_at_the_end(self):
        self.check(lambda load: load.insert(1, 10, (b"13", value(13))), twice=1)

    def test_a_record_is_stored_twice_in_a_row(self):
        self.check(lambda load: load.insert(1, 5, (b"13", value(13))), twice=1, lost=5)

    def test_a_record_is_stored_twice_in_two_partitions(self):
        self.check(lambda load: load.insert(2, 10, (b"13", value(13))), twice=1)

    def test_two_records_changed_places_before_they_were_acknowledged(self):
        def plant(load):
            (_, *first), (_, *second) = load.stored[0][3:5]
            load.stored[0][3:5] = [(3, *second), (4, *first)]
            for offset in (3, 4):
                number = int(load.stored[0][offset][1])
                load.acknowledged[number], load.received[(0, offset)] = (0, offset), number
        self.check(plant, unordered=1)

    def test_two_records_changed_places_after_they_were_acknowledged(self):
        def plant(load):
            (_, *first), (_, *second) = load.stored[0][3:5]
            load.stored[0][3:5] = [(3, *second), (4, *first)]
        self.check(plant, unordered=1, lost=2)

    def test_one_byte_of_a_value_is_another(self):
        def plant(load):
            offset, key, found = load.stored[1][6]
            load.stored[1][6] = (offset, key, found[:-1] + b"y")
        self.check(plant, changed=1)

    def test_the_group_did_not_get_a_record(self):
        self.assertEqual(self.check(lambda load: load.received.pop((2, 7)), not_received=1)["first_bad"], [23])

    def test_the_group_got_another_record_at_that_place(self):
        self.check(lambda load: load.received.update({(2, 7): 26}), not_received=1)

    def test_what_the_clients_saw_counts_too(self):
        for name in ("refused", "unsent", "unread_partitions"):
            self.check(lambda load, name=name: load.rest.update({name: 1}), **{name: 1})
        self.check(lambda load: load.rest.update(failure="the group was fenced"))

    def test_a_load_that_did_nothing_is_not_sound(self):
        load = Load()
        load.acknowledged = {}
        self.assertFalse(is_sound(load.result()))


if __name__ == "__main__":
    unittest.main()
