"""What a request costs: allocations and instructions, from the frame to the encoded answer.

Builds the broker's own tests as they are released, has the cases of `cost_tests.rs` counted (allocations by the tests'
allocator, instructions by valgrind's callgrind, which collects within `measured` only), and writes the table between its
markers of docs/performance.md. Standard library only.
"""

import json
import os
import re
import subprocess
import tempfile
from datetime import date
from pathlib import Path

from bench import ROOT

RUNS = int(os.environ.get("KEELSON_COST_RUNS", "50"))
MODULE = "api::cost_tests::"
ONE_CASE = MODULE + "each_case_can_be_asked_again_and_again"
BEGIN, END = "<!-- make bench-requests: begin -->", "<!-- make bench-requests: end -->"


def build():
    """The broker's tests, built as the broker is released."""
    command = ["cargo", "test", "--release", "-p", "keelson-broker", "--lib", "--no-run", "--message-format=json"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    built = (json.loads(line) for line in done.stdout.splitlines())
    return next(row["executable"] for row in built if row.get("executable") and "lib" in row["target"]["kind"])


def allocations(binary):
    """Count and bytes, by case, in the order of the cases."""
    done = subprocess.run([binary, "--nocapture", "--test-threads=1", MODULE], cwd=ROOT / "broker/server", check=True,
                          stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    rows = re.findall(r"^\| (.+) \| (\d+) \| (\d+) \|$", done.stderr, re.MULTILINE)
    return {what: (int(count), int(taken)) for what, count, taken in rows}


def instructions(binary, case):
    """The name of a case, and its instructions: the mean of several runs."""
    with tempfile.TemporaryDirectory() as home:
        out = Path(home) / "callgrind"
        command = ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*cost_tests*measured*",
                   f"--callgrind-out-file={out}", binary, "--exact", "--nocapture", ONE_CASE]
        env = os.environ | {"KEELSON_COST_CASE": str(case), "KEELSON_COST_RUNS": str(RUNS)}
        done = subprocess.run(command, cwd=ROOT / "broker/server", env=env, check=True, capture_output=True, text=True)
        what = re.search(r"^case: (.+)$", done.stderr, re.MULTILINE).group(1)
        total = int(re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE).group(1))
    return what, total // RUNS


def main():
    binary = build()
    taken = allocations(binary)
    lines = [f"{date.today()}, means of {RUNS} runs after two others.", "",
             "| Request | Instructions | Allocations | Bytes |", "|---|---:|---:|---:|"]
    for case in range(len(taken)):
        what, count = instructions(binary, case)
        print(f"{what}: {count:,} instructions", flush=True)
        lines.append(f"| {what} | {count:,} | {taken[what][0]:,} | {taken[what][1]:,} |")
    path = ROOT / "docs/performance.md"
    head, rest = path.read_text().split(BEGIN)
    _, tail = rest.split(END)
    path.write_text(head + BEGIN + "\n" + "\n".join(lines) + "\n" + END + tail)


if __name__ == "__main__":
    main()
