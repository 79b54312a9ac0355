"""The alerts: promtool's tests, their runbooks, and what the chart makes of them."""
import json
import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml

import alert_cases
import chart


def promtool(*args):
    done = subprocess.run(["promtool", *map(str, args)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def alerts():
    for group in yaml.safe_load(chart.RULES.read_text())["groups"]:
        yield from group["rules"]


def run_cases(rules):
    """The four cases of each alert, with its rule alone, which is many times faster."""
    with tempfile.TemporaryDirectory() as folder:
        for alert, rule in rules.items():
            pathlib.Path(folder, f"{alert}.rules").write_text(json.dumps({"groups": [{"name": "g", "rules": [rule]}]}))
            tests = [t for t in alert_cases.tests() if t["name"].startswith(alert + ":")]
            pathlib.Path(folder, f"{alert}.test").write_text(
                json.dumps({"rule_files": [f"{alert}.rules"], "evaluation_interval": "30s", "tests": tests}))
        return promtool("test", "rules", *sorted(pathlib.Path(folder).glob("*.test")))


class Rules(unittest.TestCase):
    def test_promtool_accepts_them(self):
        code, out = promtool("check", "rules", chart.RULES)
        self.assertEqual(code, 0, out)

    def test_promtool_tests(self):
        code, out = promtool("test", "rules", chart.ROOT / "tests" / "chart" / "rules_test.yaml")
        self.assertEqual(code, 0, out)

    def test_every_alert_in_its_four_cases(self):
        self.assertEqual(set(alert_cases.ALERTS), {r["alert"] for r in alerts()})
        self.assertEqual(sorted(t["name"] for t in alert_cases.tests()), sorted(f"{a}: {c}" for a in alert_cases.ALERTS for c in alert_cases.CASES))
        code, out = run_cases({r["alert"]: r for r in alerts()})
        self.assertEqual(code, 0, out)

    def test_no_case_is_silent_for_want_of_a_series(self):
        for rule in alerts():
            asked = set(re.findall(r"\b(?:keelson|kafka|process)_\w+", rule["expr"]))
            given = {re.match(r"\w+", series)[0] for series in alert_cases.ALERTS[rule["alert"]].good} | {"process_start_time_seconds"}
            self.assertLessEqual(asked, given, rule["alert"])

    def test_an_alert_that_never_fires_and_one_that_always_does_fail_their_cases(self):
        for replacement in ("vector(0) > 1", "vector(1)"):
            code, out = run_cases({r["alert"]: {"alert": r["alert"], "expr": replacement} for r in alerts()})
            self.assertNotEqual(code, 0)
            for alert in alert_cases.ALERTS:
                self.assertIn(f'alertname=\\"{alert}\\"', out)

    def test_every_alert_says_what_to_do(self):
        for rule in alerts():
            with self.subTest(rule["alert"]):
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
                self.assertTrue(rule["annotations"]["summary"] and rule["annotations"]["description"])
                self.assertEqual(rule["annotations"]["runbook_url"], f"docs/runbooks/{rule['alert']}.md")
                runbook = chart.RUNBOOKS / f"{rule['alert']}.md"
                self.assertEqual(re.findall(r"^#+ (.*)$", runbook.read_text(), re.M),
                                 [rule["alert"], "Meaning", "Impact", "Diagnosis", "What to do"])

    def test_every_runbook_has_an_alert_and_its_links_lead_somewhere(self):
        self.assertEqual({p.stem for p in chart.RUNBOOKS.glob("Keelson*.md")}, {r["alert"] for r in alerts()})
        for runbook in chart.RUNBOOKS.glob("*.md"):
            for link in re.findall(r"\]\(([^)#:]+)\)", runbook.read_text()):
                self.assertTrue((runbook.parent / link).exists(), f"{runbook.name}: {link}")

    def test_every_selector_can_be_scoped(self):
        """The chart puts the job of its release in place of job=~".+": a selector without it would take in all releases."""
        for rule in alerts():
            for selector in re.findall(r"\b(?:keelson|kafka|process)_\w+(\{[^}]*\})?", rule["expr"]):
                self.assertIn('job=~".+"', selector, rule["alert"])

    def test_a_broker_is_the_same_instance_after_a_restart(self):
        """Else no alert could compare what was before: a new pod has a new address."""
        for kind in ("ServiceMonitor", "PodMonitor"):
            rendered = chart.objects("--set", f"monitoring.{kind[0].lower() + kind[1:]}.enabled=true")
            found = [o for o in rendered if o["kind"] == kind]
            self.assertEqual(len(found), 2)
            for monitor in found:
                [endpoint] = monitor["spec"].get("endpoints") or monitor["spec"]["podMetricsEndpoints"]
                self.assertIn({"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "instance"}, endpoint["relabelings"])

    def test_the_chart_scopes_them_to_its_release(self):
        rendered = chart.find(chart.case_objects("everything"), "PrometheusRule", "demo-keelson")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(rendered["spec"], file)
            file.flush()
            code, out = promtool("check", "rules", file.name)
        self.assertEqual(code, 0, out)
        theirs = [r for g in rendered["spec"]["groups"] for r in g["rules"]]
        text = chart.RULES.read_text().replace('job=~".+"', 'namespace="streams",job=~"demo-(broker-headless|operator)"')
        self.assertEqual(rendered["spec"], yaml.safe_load(text.replace("docs/runbooks/", "https://runbooks.example.org/keelson/")))
        for rule in theirs:
            self.assertNotIn('job=~".+"', rule["expr"])
            self.assertIn('namespace="streams",job=~"demo-(broker-headless|operator)"', rule["expr"])
            self.assertEqual(rule["annotations"]["runbook_url"], f"https://runbooks.example.org/keelson/{rule['alert']}.md")

    def test_alerts_get_labels_and_are_left_out_by_name(self):
        rendered = chart.find(chart.case_objects("pod-monitor"), "PrometheusRule", "demo-keelson-streams")
        values = chart.case_values("pod-monitor")["monitoring"]["prometheusRule"]
        theirs = {r["alert"]: r for g in rendered["spec"]["groups"] for r in g["rules"]}
        ours = {r["alert"]: r for r in alerts()}
        self.assertEqual(set(theirs), set(ours) - set(values["disabledAlerts"]))
        self.assertEqual(len(ours) - len(theirs), 2)
        for name, rule in theirs.items():
            self.assertEqual(rule["labels"], {**ours[name]["labels"], "team": "streams"})
        self.assertTrue(all(g["rules"] for g in rendered["spec"]["groups"]))
