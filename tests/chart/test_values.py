"""What values are refused, and that README and schema say the same as values.yaml."""
import json
import unittest

import yaml

import chart
import readme

SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((chart.CHART / "values.yaml").read_text())
# Of these the defaults hold a part only: they are documented as a whole, and Kubernetes says what else there is.
PARTLY_SET = {f"{component}.{key}" for component in ("broker", "operator") for key in (
    "resources", "updateStrategy", "startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "podSecurityContext",
    "containerSecurityContext", "affinity", "dnsConfig")} | {"broker.persistence.selector", "test.resources"}


def resolve(schema):
    """The schema that a reference leads to."""
    while "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


# (what to set, what the refusal must say)
REFUSED = [
    (("broker.replicas=2",), "brokers do not replicate to each other"),
    (("broker.replicas=0",), "broker/replicas"),
    (("broker.replica=1",), "replica"),
    (("brokr.replicas=1",), "brokr"),
    (("image.tags=1",), "tags"),
    (("operator.enable=true",), "enable"),
    (("monitoring.serviceMonitor.intervall=5s",), "intervall"),
    (("monitoring.serviceMonitor.interval=often",), "interval"),
    (("image.pullPolicy=Sometimes",), "pullPolicy"),
    (("image.digest=sha256:12",), "digest"),
    (("broker.config.listeners=PLAINTEXT://:9092",), "listeners"),
    (("broker.config.advertised\\.listeners=PLAINTEXT://x:9092",), "advertised.listeners"),
    (("broker.config.http\\.listen=:1",), "http.listen"),
    (("broker.config.a=x\ny=z",), "broker/config"),
    (("broker.persistence.size=much",), "persistence/size"),
    (("broker.persistence.whenDeleted=Perhaps",), "whenDeleted"),
    (("broker.resources.limits.memry=1Gi",), "memry"),
    (("operator.allNamespaces=true", "operator.watchNamespaces={a}"), "exclude each other"),
    (("operator.watchNamespaces={Big}",), "watchNamespaces"),
    (("networkPolicy.clients[0].nonsense=1",), "nonsense"),
]


class Values(unittest.TestCase):
    def test_refused_with_the_reason(self):
        for sets, reason in REFUSED:
            with self.subTest(sets):
                code, _, err = chart.template(*[a for s in sets for a in ("--set", s)])
                self.assertNotEqual(code, 0, "rendered")
                self.assertIn(reason, err)

    def test_more_than_one_broker_is_refused_even_without_the_schema(self):
        code, _, err = chart.template("--set", "broker.replicas=3", "--skip-schema-validation")
        self.assertNotEqual(code, 0)
        self.assertIn("broker.replicas is 3", err)

    def test_release_names_that_cannot_name_services(self):
        for name, reason in (("1st", "must start with a letter"), ("a.b", "must start with a letter"), ("a" * 41, "more than 40")):
            code, _, err = chart.template(release=name)
            self.assertNotEqual(code, 0, name)
            self.assertIn(reason, err)

    def test_schema_is_strict(self):
        """Every object refuses what is not listed, but for maps, for what Kubernetes defines, and for other charts' globals."""
        loose = []

        def walk(node, path):
            if isinstance(node, dict):
                if node.get("type") == "object" and "additionalProperties" not in node:
                    loose.append(path)
                if "additionalProperties" in node and node["additionalProperties"] is not False:
                    self.assertNotIn("properties", node, path)
                for key, inner in node.items():
                    walk(inner, f"{path}/{key}")
            elif isinstance(node, list):
                for number, inner in enumerate(node):
                    walk(inner, f"{path}/{number}")

        walk(SCHEMA, "")
        self.assertEqual(loose, ["/properties/global", "/$defs/passedOn"])

    def test_schema_and_values_list_the_same(self):
        """What is in one and not in the other would be refused though documented, or accepted though ignored."""
        def walk(schema, value, path):
            listed = resolve(schema).get("properties")
            if listed is None or not isinstance(value, dict) or path in PARTLY_SET:
                return
            self.assertEqual(set(listed), set(value), path or "top")
            for key in listed:
                walk(listed[key], value[key], f"{path}.{key}".lstrip("."))

        walk(SCHEMA, DEFAULTS, "")

    def test_every_value_is_documented(self):
        self.assertEqual(readme.undocumented(), [])

    def test_readme_table_is_fresh(self):
        self.assertEqual(readme.README.read_text(), readme.updated(), "run tests/chart/run.sh --update")
