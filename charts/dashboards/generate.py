#!/usr/bin/env python3
"""Writes the Grafana dashboards of the chart: charts/dashboards/generate.py [--check]

The JSON in charts/keelson/dashboards is what Grafana reads and what is committed; the files here are what people edit.
--check writes nothing and fails if the JSON is not what they give (tests/chart runs it)."""
import json
import pathlib
import sys

import broker_overview
import consumer_groups
import log_health
import operator_overview
import topics

OUT = pathlib.Path(__file__).resolve().parents[1] / "keelson" / "dashboards"
BOARDS = {"log-health": log_health, "broker-overview": broker_overview, "topics": topics, "consumer-groups": consumer_groups,
          "operator": operator_overview}
# Families that no panel asks for, with the reason; tests/chart/test_live.py holds this to what is exposed.
UNUSED = {
    "process_virtual_memory_bytes": "address space that is reserved, not used, says nothing about load",
}


def main():
    wanted = {OUT / f"{name}.json": json.dumps(module.board().json(), indent=2) + "\n" for name, module in BOARDS.items()}
    if "--check" in sys.argv:
        stale = [str(p) for p, text in wanted.items() if not p.exists() or p.read_text() != text]
        stale += [str(p) for p in OUT.glob("*.json") if p not in wanted]
        if stale:
            sys.exit("not what charts/dashboards/generate.py gives, run it: " + ", ".join(stale))
        return
    for path in OUT.glob("*.json"):
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
