"""judge.py SUITE FOLDER: holds the results of a sweep against those of Apache Kafka, which lie beside this file.

Prints the tests that Apache Kafka passes (in a whole run or alone) and this run did not; what `left-out.tsv` lists is none of
them. With --again, only their names, for a second run of each alone. Ends with 1 if there is any.
"""

import csv
import sys
from pathlib import Path

HERE = Path(__file__).parent
PASSED = {"PASSED", "PASS"}
# The name of a suite's result file, and the files with Apache Kafka's results for it.
SUITES = {
    "kcat": ("kcat.tsv", ["apache-kcat.tsv"]),
    "kgo": ("kgo.tsv", ["apache-kgo.tsv"]),
    "librdkafka": ("librdkafka.tsv", ["apache-librdkafka-1node.tsv"]),
    "librdkafka-idempotent": ("librdkafka.tsv", ["apache-librdkafka-1node-idempotent.tsv"]),
}
# Tests that Apache Kafka passes when they run alone, as `apache-librdkafka-reruns.tsv` has them: run, test, result.
RERUNS = {"librdkafka": "re-classic", "librdkafka-idempotent": "re-idem"}


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def passed(paths):
    """Names of tests with a row that says so; kcat's are steps."""
    found = set()
    for path in paths:
        for row in rows(path):
            if row["result"] in PASSED and row.get("kind", "broker") == "broker":
                found.add(row.get("test") or row["step"])
    return found


def expected(suite):
    want = passed(HERE / "results" / name for name in SUITES[suite][1])
    for row in rows(HERE / "results" / "apache-librdkafka-reruns.tsv"):
        if row["run"] == RERUNS.get(suite) and row["result"] in PASSED:
            want.add(row["test"])
    family = suite.split("-")[0]
    return want - {row["test"] for row in rows(HERE / "left-out.tsv") if row["suite"] == family}


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    suite, folder = words[0], Path(words[1])
    name = SUITES[suite][0]
    have = passed(folder.rglob(name))
    want = expected(suite)
    missing = sorted(want - have)
    if "--again" in sys.argv:
        print(" ".join(test[:4] if suite.startswith("librdkafka") else test for test in missing))
        return 0
    print(f"{suite}: {len(want & have)} of {len(want)} that Apache Kafka passes, less what is left out")
    for test in missing:
        print(f"  missing: {test}")
    return bool(missing)


sys.exit(main())
