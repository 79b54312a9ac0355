"""The dashboards: fresh, read by Grafana's own types, complete, and in the ConfigMaps as they are."""
import json
import re
import subprocess
import sys
import unittest

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.models import dashboard, prometheus

import chart
import panels

sys.path.insert(0, str(chart.ROOT / "charts" / "dashboards"))
import generate

# Units of Grafana's list: it shows any other word behind the number, as it is.
UNITS = {"none", "short", "s", "bytes", "Bps", "percentunit", "ops", "reqps", "cps", "mps", "recps", "suffix:cores"}
BOARDS = {p.stem: json.loads(p.read_text()) for p in sorted(chart.DASHBOARDS.glob("*.json"))}


class Dashboards(unittest.TestCase):
    def test_fresh(self):
        done = subprocess.run([sys.executable, chart.ROOT / "charts" / "dashboards" / "generate.py", "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_grafana_types_read_them(self):
        plugins.register_default_plugins()
        self.assertEqual(list(BOARDS), ["broker-overview", "consumer-groups", "log-health", "operator", "topics"])
        for board in BOARDS.values():
            parsed = dashboard.Dashboard.from_json(board)
            self.assertEqual((parsed.title, parsed.uid), (board["title"], board["uid"]))
            for panel, source in zip(parsed.panels, board["panels"]):
                for target, raw in zip(getattr(panel, "targets", None) or [], source.get("targets", [])):
                    self.assertIsInstance(target, prometheus.Dataquery)
                    self.assertEqual(target.expr, raw["expr"])

    def test_every_panel_explains_itself(self):
        for board in BOARDS.values():
            titles = [p["title"] for p in board["panels"] if p["type"] != "row"]
            for panel in board["panels"]:
                if panel["type"] == "row":
                    continue
                with self.subTest(f"{board['title']}: {panel['title']}"):
                    self.assertTrue(panel["title"] and len(panel["description"]) > 10)
                    unit = panel["fieldConfig"]["defaults"]["unit"]
                    self.assertIn(unit, UNITS)
                    # States and tables of words have no unit, everything else has.
                    self.assertTrue(unit != "none" or panel["type"] in ("state-timeline", "table"))
                    self.assertTrue(panel["targets"])
                    self.assertEqual(panel["datasource"]["uid"], "${datasource}")
            self.assertEqual(len({p["id"] for p in board["panels"]}), len(board["panels"]))
            self.assertEqual(len(titles), len(set(titles)), titles)

    def test_panels_do_not_overlap(self):
        for board in BOARDS.values():
            taken = set()
            for panel in board["panels"]:
                g = panel["gridPos"]
                cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
                self.assertLessEqual(g["x"] + g["w"], 24)
                self.assertFalse(cells & taken, panel["title"])
                taken |= cells

    def test_variables_are_those_that_are_used(self):
        for board in BOARDS.values():
            names = {v["name"] for v in board["templating"]["list"]}
            used = set(re.findall(r"\$\{?(\w+)", json.dumps([board["panels"], board["templating"], board["annotations"]])))
            self.assertEqual(used - {"__rate_interval", "__all"}, names)

    def test_every_query_is_promql(self):
        rules = []
        for board in BOARDS.values():
            for title, query in chart.expressions(board):
                rules.append({"record": "r", "expr": panels.concrete(query), "labels": {"panel": title, "number": str(len(rules))}})
        done = subprocess.run(["promtool", "check", "rules", "/dev/stdin"], capture_output=True, text=True,
                              input=json.dumps({"groups": [{"name": "g", "rules": rules}]}))
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_pictures_are_small_and_shown_and_every_dashboard_has_one(self):
        folder = chart.ROOT / "docs" / "pictures"
        there = {p.name for p in folder.glob("*.png")}
        self.assertEqual(set(re.findall(r"\]\(([\w-]+\.png)\)", (folder / "README.md").read_text())), there)
        self.assertLessEqual({f"{name}.png" for name in BOARDS}, there)
        for name in there:
            self.assertLessEqual((folder / name).stat().st_size, 150_000, name)

    def test_config_maps_hold_them_unchanged(self):
        rendered = chart.case_objects("default")
        for name, board in BOARDS.items():
            found = chart.find(rendered, "ConfigMap", f"demo-dashboard-{name}")
            self.assertEqual(found["metadata"]["labels"]["grafana_dashboard"], "1")
            self.assertEqual(json.loads(found["data"][f"{name}.json"]), board)
