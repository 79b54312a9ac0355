"""The alerts: promtool's tests, their runbooks, and what the chart makes of them."""
import re
import subprocess
import tempfile
import unittest

import yaml

import chart


def promtool(*args):
    done = subprocess.run(["promtool", *map(str, args)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def alerts():
    for group in yaml.safe_load(chart.RULES.read_text())["groups"]:
        yield from group["rules"]


class Rules(unittest.TestCase):
    def test_promtool_accepts_them(self):
        code, out = promtool("check", "rules", chart.RULES)
        self.assertEqual(code, 0, out)

    def test_promtool_tests(self):
        code, out = promtool("test", "rules", chart.ROOT / "tests" / "chart" / "rules_test.yaml")
        self.assertEqual(code, 0, out)

    def test_every_alert_is_expected_to_fire_by_some_test(self):
        text = (chart.ROOT / "tests" / "chart" / "rules_test.yaml").read_text()
        for rule in alerts():
            self.assertRegex(text, rf'alertname="{rule["alert"]}"', rule["alert"])

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

    def test_the_chart_scopes_them_to_its_release(self):
        rendered = chart.find(chart.case_objects("everything"), "PrometheusRule", "demo-keelson")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(rendered["spec"], file)
            file.flush()
            code, out = promtool("check", "rules", file.name)
        self.assertEqual(code, 0, out)
        ours = list(alerts())
        theirs = [r for g in rendered["spec"]["groups"] for r in g["rules"]]
        self.assertEqual([r["alert"] for r in ours], [r["alert"] for r in theirs])
        for rule in theirs:
            self.assertNotIn('job=~".+"', rule["expr"])
            self.assertIn('namespace="streams",job=~"demo-(broker-headless|operator)"', rule["expr"])
            self.assertEqual(rule["annotations"]["runbook_url"], f"https://runbooks.example.org/keelson/{rule['alert']}.md")
