"""Every query of the dashboards and alerts against a live broker and operator under a scripted fault, through a real
Prometheus: a broker with traffic is killed, one byte of its write-ahead log is flipped, and it is started again.

The healthy phase must be silent, the damage must be told, and no panel may ask for a series that nobody exposes."""
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest

import kafka
import kafka.errors

import chart
import live
import metrics_page
import panels
import test_upgrade
from test_dashboards import BOARDS, generate
from test_rules import alerts

MARKER = b"damage-goes-right-behind-this:"
TOPIC = """
apiVersion: keelson.dev/v1alpha1
kind: Topic
metadata: {name: declared}
spec: {clusterRef: {name: demo}, partitions: 2}
"""
RUNTIME = """
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: gvisor}
handler: runsc
"""
# Label values that no ordinary run has: the family must be there, these values cannot be.
NEVER_IN_THIS_RUN = {'error="UNKNOWN_SERVER_ERROR"', 'reason!~"none|stopped|killed"'}
# Panels for which this run has no fault; test_faults has.
EMPTY_IN_THIS_RUN = {"Ends on an error"}
# What the fault must set off.
TOLD = {"KeelsonDecodeErrors", "KeelsonQuarantinedRanges", "KeelsonLogCorrupt"}


class Traffic(threading.Thread):
    """Produces to topic orders and consumes it in group readers, until ended; survives the broker's restarts."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.stopped, self.error = address, threading.Event(), None
        self.start()

    def run(self):
        try:
            producer = kafka.KafkaProducer(bootstrap_servers=self.address, acks="all", linger_ms=5)
            consumer = kafka.KafkaConsumer("orders", bootstrap_servers=self.address, group_id="readers",
                                           auto_offset_reset="earliest", enable_auto_commit=False)
            while not self.stopped.is_set():
                for i in range(20):
                    producer.send("orders", b"x" * 200, key=str(i).encode())
                producer.flush(10)
                if consumer.poll(timeout_ms=200):
                    consumer.commit()
            consumer.close()
            producer.close()
        except Exception as error:  # told by the test that ends the thread
            self.error = error

    def end(self):
        self.stopped.set()
        self.join(30)
        if self.error:
            raise self.error


def damage(broker):
    """A killed broker, one byte of an acknowledged batch flipped, started again."""
    producer = kafka.KafkaProducer(bootstrap_servers=broker.kafka, acks="all")
    for i in range(5):
        producer.send("broken", MARKER + b"%05d" % i, partition=0).get(10)
    producer.close()
    # Two more topics get a group each, so that a later group testifies for the damaged one.
    late = kafka.KafkaProducer(bootstrap_servers=broker.kafka, acks="all")
    late.send("orders", b"later").get(10)
    late.close()
    broker.process.end(signal.SIGKILL)
    broker.flip_byte_after(MARKER)
    broker.start()


def read_damaged(address):
    """What a consumer of the damaged partition gets: an error, not silence."""
    consumer = kafka.KafkaConsumer(bootstrap_servers=address, enable_auto_commit=False)
    partition = kafka.TopicPartition("broken", 0)
    consumer.assign([partition])
    consumer.seek(partition, consumer.end_offsets([partition])[partition] - 1)
    try:
        for _ in range(20):
            consumer.poll(timeout_ms=500)
    except kafka.errors.KafkaError as error:
        return error
    finally:
        consumer.close()
    return None


class Reader(threading.Thread):
    """Asks for the damaged offsets again and again, as a consumer that does not give up."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.stopped, self.errors = address, threading.Event(), []
        self.start()

    def run(self):
        while not self.stopped.is_set():
            if error := read_damaged(self.address):
                self.errors.append(error)

    def end(self):
        self.stopped.set()
        self.join(60)


def wait_for_all(prometheus, expressions, seconds=live.DEADLINE_S):
    """Those of the named expressions that have given nothing by the deadline."""
    missing = dict(expressions)

    def look():
        for name, expression in list(missing.items()):
            if prometheus.query(expression):
                del missing[name]
        return not missing
    try:
        live.wait("data", look, seconds)
    except AssertionError:
        pass  # the caller says what is missing
    return missing


class Live(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="keelson-live-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.cluster = live.ControlPlane()
        cls.addClassCleanup(cls.cluster.end)
        cls.cluster.install("demo", "streams")
        cls.cluster.kubectl("apply", "-n", "streams", "-f", "-", stdin=TOPIC)
        cls.broker = live.Broker(cls.folder).start()
        cls.addClassCleanup(lambda: cls.broker.process.end())
        cls._topics()
        cls._operator()
        cls.prometheus = live.Prometheus(cls.folder)
        cls.addClassCleanup(cls.prometheus.process.end)
        cls.prometheus.scrape(broker=cls.broker.http, operator=cls.operator_http)
        traffic = Traffic(cls.broker.kafka)
        live.wait("a committed offset in the metrics", lambda: cls.prometheus.query('kafka_consumergroup_current_offset{topic="orders"}'))
        live.wait("ten scrapes", lambda: cls.prometheus.query("count_over_time(keelson_build_info[1m]) > 10"))
        cls.healthy_alerts = cls.prometheus.firing()
        traffic.end()
        damage(cls.broker)
        cls.prometheus.scrape(broker=cls.broker.http)
        cls.reader = Reader(cls.broker.kafka)
        cls.addClassCleanup(cls.reader.end)
        cls.operator.end()
        cls._operator()
        cls.prometheus.scrape(operator=cls.operator_http)
        cls.traffic = Traffic(cls.broker.kafka)
        cls.addClassCleanup(cls.traffic.end)
        for address, late in ((cls.broker.http, "kafka_consumergroup_lag{"), (cls.operator_http, "keelson_operator_cluster_wal_health{")):
            live.wait(late, lambda: late in live.get(f"http://{address}/metrics"))
        cls.exposed = metrics_page.exposed(*(live.get(f"http://{address}/metrics") for address in (cls.broker.http, cls.operator_http)))

    @classmethod
    def _topics(cls):
        admin = kafka.KafkaAdminClient(bootstrap_servers=cls.broker.kafka)
        admin.create_topics([kafka.admin.NewTopic("orders", 3, 1), kafka.admin.NewTopic("broken", 1, 1)])
        admin.close()

    @classmethod
    def _operator(cls):
        cls.operator, cls.operator_http = live.operator(cls.folder, cls.cluster, cls.broker)
        cls.addClassCleanup(cls.operator.end)

    def test_a_healthy_broker_is_silent(self):
        self.assertEqual([(n, a["labels"]) for n, a in self.healthy_alerts.items()], [])

    def test_the_damage_is_told(self):
        firing = live.wait("the alerts", lambda: TOLD <= set(f := self.prometheus.firing()) and f)
        self.assertEqual(firing["KeelsonDecodeErrors"]["labels"]["severity"], "critical")
        self.assertEqual(firing["KeelsonDecodeErrors"]["labels"]["source"], "wal")
        self.assertEqual(set(firing) - TOLD - {"KeelsonLogDegraded", "KeelsonExitedOnError"}, set())
        total = self.prometheus.query("sum(keelson_wal_decode_errors_total)")
        self.assertEqual([s["value"][1] for s in total], ["1"], "counted once")
        state = self.broker.log_state()
        self.assertIn("corrupt", state["health"])
        self.assertEqual([(r["topic"], r["partition"]) for r in state["unhealthy"]], [("broken", 0)])

    def test_the_operator_has_the_rights_it_needs(self):
        self.cluster.kubectl("-n", "streams", "wait", "--for=condition=Ready", "topics.keelson.dev/declared", "--timeout=30s")
        self.assertNotIn("orbidden", self.operator.log.read_text())

    def test_the_api_server_takes_an_upgrade_to_every_case(self):
        """From the default installed here, as a dry run with all that the API server checks: fields, what may not change, CEL,
        and the restricted Pod Security of the namespace, in words."""
        for created in (["namespace", "monitoring"], ["namespace", "orders"], ["namespace", "billing"],
                        ["priorityclass", "low", "--value=1"], ["priorityclass", "high", "--value=2"]):
            self.cluster.kubectl("create", *created)
        self.cluster.kubectl("apply", "-f", "-", stdin=RUNTIME)

        def upgrade(case):
            values = test_upgrade.without(chart.case_values(case), test_upgrade.FIXED)
            rendered = chart.objects("--values", "-", stdin=json.dumps(values))
            items = [o for o in rendered if not o["apiVersion"].startswith("monitoring.coreos.com/")]
            for o in items:
                o["metadata"].setdefault("namespace", "streams")
            return self.cluster.try_kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-",
                                            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        cases = [case for case in chart.case_names() if case not in chart.RELEASES]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            self.assertEqual(dict(zip(cases, pool.map(upgrade, cases))), dict.fromkeys(cases, (0, "")))

    def test_the_reader_got_an_error(self):
        live.wait("the reader to get an error", lambda: self.reader.errors)
        self.assertIn("Corrupt", type(self.reader.errors[0]).__name__)

    def test_every_panel_has_data(self):
        queries = {f"{name}: {title}: {query}": panels.concrete(query)
                   for name, board in BOARDS.items() for title, query in chart.expressions(board) if title not in EMPTY_IN_THIS_RUN}
        self.assertGreater(len(queries), 60)
        self.assertEqual(wait_for_all(self.prometheus, queries), {})

    def test_every_selector_of_the_alerts_matches(self):
        selectors = {}
        for rule in alerts():
            for selector in re.findall(r"\b(?:keelson|kafka|process)_\w+\{[^}]*\}", rule["expr"]):
                for rare in NEVER_IN_THIS_RUN:
                    selector = selector.replace("," + rare, "")
                selectors[f"{rule['alert']}: {selector}"] = f"last_over_time({selector}[5m])"
        self.assertEqual(wait_for_all(self.prometheus, selectors), {})

    def test_every_variable_has_values(self):
        values = {}
        for board in BOARDS.values():
            for variable in board["templating"]["list"]:
                if variable["type"] == "query" and variable["name"] != "namespace":  # which is there only in Kubernetes
                    selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
                    values[variable["name"]] = f'group by ({label}) ({panels.concrete(selector)}) unless group by ({label}) (vector(0))'
        self.assertEqual(wait_for_all(self.prometheus, values), {})

    def test_every_family_is_on_a_dashboard_or_listed_as_unused(self):
        queries = " ".join(query for board in BOARDS.values() for _, query in chart.expressions(board))
        used = {name if name in self.exposed else re.sub(r"_(bucket|sum|count)$", "", name)
                for name in re.findall(r"\b(?:keelson|kafka|process)_\w+", queries)}
        self.assertEqual(set(self.exposed) - used, set(generate.UNUSED), "on no dashboard")
        self.assertEqual(used - set(self.exposed), set(), "asked for, not exposed")

    def test_the_page_of_metrics_is_true(self):
        """docs/metrics.md names each family that is exposed, with its type and labels, and each value of the closed lists."""
        page = metrics_page.Page((chart.ROOT / "docs" / "metrics.md").read_text())
        self.assertEqual(set(page.families), set(self.exposed), "documented and exposed")
        for name, family in page.families.items():
            with self.subTest(name):
                exposed = self.exposed[name]
                self.assertEqual(family.kind, exposed.kind)
                self.assertEqual(family.labels, exposed.labels)
                self.assertTrue(family.unit and family.meaning)
                # Small closed lists stand beside the family.
                for label in exposed.labels & {"state", "outcome"} - page.lists.keys():
                    if name != "keelson_operator_cluster_wal_health":  # whose states are the broker's
                        self.assertLessEqual(exposed.values[label], set(metrics_page.words(family.meaning)), label)
        errors = self.exposed["keelson_wal_decode_errors_total"]
        for label, values in page.lists.items():
            self.assertEqual(values, errors.values[label], label)


class Arguments(unittest.TestCase):
    def test_the_operator_knows_the_arguments_of_every_case(self):
        """Up to the point where it looks for Kubernetes, which is not there."""
        seen = set()
        for case in chart.case_names():
            for name, spec in chart.pod_specs(chart.case_objects(case)):
                container = spec["containers"][0]
                if container["command"] == ["keelson-operator"]:
                    seen.add(tuple(container["args"]))
        self.assertGreater(len(seen), 4)
        for args in seen:
            done = subprocess.run([live.BINARIES / "keelson-operator", *args], capture_output=True, text=True, timeout=60,
                                  env={**os.environ, "KUBECONFIG": "/nonexistent"})
            self.assertIn("no Kubernetes cluster is configured", done.stderr, args)
