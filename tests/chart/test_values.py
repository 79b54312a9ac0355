"""What values are refused, and that README and schema say the same as values.yaml."""
import concurrent.futures
import json
import unittest

import jsonschema
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


def objects(schema, path, build):
    """(path, values with the key "typo" there) of every object with listed keys."""
    schema = resolve(schema)
    if "properties" in schema:
        yield path, build({"typo": 1})
    for key, inner in schema.get("properties", {}).items():
        yield from objects(inner, f"{path}.{key}", lambda value, key=key: build({key: value}))
    if "items" in schema:
        yield from objects(schema["items"], f"{path}[]", lambda value: build([value]))
    for inner in schema.get("anyOf", []):
        yield from objects(inner, path, build)


def flat(errors):
    for error in errors:
        yield error
        yield from flat(error.context)


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
    (("broker.config.listeners=PLAINTEXT://:9092",), "the chart sets listeners itself; broker.listeners.external"),
    (("broker.config.advertised\\.listeners=PLAINTEXT://x:9092",), "the chart sets advertised.listeners itself"),
    (("broker.config.http\\.listen=:1",), "the chart sets http.listen itself"),
    (("broker.config.a=x\ny=z",), "broker/config"),
    (("broker.config.Log\\.dirs=x",), "at '/broker/config': additional properties 'Log.dirs'"),
    (("broker.persistence.size=much",), "persistence/size"),
    (("broker.persistence.whenDeleted=Perhaps",), "whenDeleted"),
    (("broker.resources.limits.memry=1Gi",), "memry"),
    (("operator.allNamespaces=true", "operator.watchNamespaces={a}"), "exclude each other"),
    (("operator.watchNamespaces={Big}",), "watchNamespaces"),
    (('operator.watchNamespaces=[{"name":"a","prefix":"a."},"a"]',), 'watchNamespaces has "a" twice'),
    (('operator.watchNamespaces=[{"name":"a","prefix":"a/b"}]',), "watchNamespaces"),
    (("fullnameOverride=x",), "fullnameOverride"),
    (("networkPolicy.clients[0].nonsense=1",), "nonsense"),
    (('networkPolicy.broker.extraEgress=[{"to":[]}]',), "no effect without networkPolicy.restrictEgress"),
    (("monitoring.serviceMonitor.enabled=true", "monitoring.podMonitor.enabled=true"), "scraped twice"),
    (("broker.persistence.accessModes={ReadWriteMany}",), "accessModes"),
    (("broker.podSecurityContext.runAsUsr=1",), "runAsUsr"),
    (("broker.livenessProbe.successThreshold=2",), "successThreshold"),
    (("broker.extraEnv[0].vale=1",), "vale"),
    (("broker.podDisruptionBudget.maxUnavailable=-1",), "maxUnavailable"),
    (("operator.logLevel=loud",), "logLevel"),
    (("operator.updateStrategy.type=OnDelete",), "updateStrategy"),
    (("broker.topologySpreadConstraints[0].topologyKe=zone",), "topologyKe"),
    (("extraObjects[0].kind=ConfigMap",), "extraObjects"),
    (("broker.listeners.external.enabled=true", "broker.listeners.external.type=NodePort"), "nodePort is not set"),
    (("broker.listeners.external.enabled=true", "operator.enabled=false"), "nobody tells the broker"),
    (("broker.listeners.external.enabled=true", "broker.listeners.external.type=NodePort", "broker.listeners.external.nodePort=31000",
      "broker.listeners.external.loadBalancerSourceRanges={10.0.0.0/8}"), "loadBalancerSourceRanges has no effect with type NodePort"),
    (("broker.listeners.external.enabled=true", "broker.listeners.external.type=NodePort", "broker.listeners.external.nodePort=31000",
      "broker.listeners.external.loadBalancerClass=x"), "loadBalancerClass has no effect with type NodePort"),
    (("broker.listeners.external.loadBalancerClass=a/b/c",), "loadBalancerClass"),
    (("broker.listeners.external.enabled=true", "broker.listeners.external.type=NodePort", "broker.listeners.external.nodePort=31000",
      "broker.listeners.external.allocateLoadBalancerNodePorts=false"), "allocateLoadBalancerNodePorts has no effect with type NodePort"),
    (("broker.listeners.external.enabled=true", "broker.listeners.external.type=ClusterIP"), "advertisedHost is not set"),
    (("broker.listeners.external.enabled=true", "broker.listeners.external.type=ClusterIP", "broker.listeners.external.advertisedHost=a",
      "broker.listeners.external.nodePort=31000"), "nodePort has no effect with type ClusterIP"),
    (("broker.listeners.external.enabled=true", "broker.listeners.external.type=ClusterIP", "broker.listeners.external.advertisedHost=a",
      "broker.listeners.external.externalTrafficPolicy=Cluster"), "externalTrafficPolicy has no effect with type ClusterIP"),
    (("broker.listeners.external.externalTrafficPolicy=Global",), "externalTrafficPolicy"),
    (("monitoring.prometheusRule.enabled=true", "monitoring.prometheusRule.disabledAlerts={KeelsonBrokerDwn}"), 'no alert "KeelsonBrokerDwn"'),
    (("monitoring.prometheusRule.ruleLabels.severity=low",), "ruleLabels has severity"),
    (("monitoring.prometheusRule.ruleLabels.my-team=a",), "at '/monitoring/prometheusRule/ruleLabels': additional properties 'my-team'"),
    (("broker.listeners.external.advertisedHost=0.0.0.0",), "advertisedHost"),
    (("broker.listeners.external.port=9092",), "port"),
    (("broker.listeners.external.typ=NodePort",), "typ"),
]


class Values(unittest.TestCase):
    def test_refused_with_the_reason(self):
        def template(refused):
            return chart.template(*[a for s in refused[0] for a in ("--set-json" if '"' in s else "--set", s)])
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for (sets, reason), (code, _, err) in zip(REFUSED, pool.map(template, REFUSED)):
                with self.subTest(sets):
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

    def test_a_typo_is_refused_on_every_level(self):
        """A key that does not exist, in every object that the schema knows."""
        validator = jsonschema.Draft202012Validator(SCHEMA)
        accepted, levels = [], list(objects(SCHEMA, "", lambda value: value))
        for path, values in levels:
            if not any("'typo' was unexpected" in error.message for error in flat(validator.iter_errors(values))):
                accepted.append(path)
        self.assertEqual(accepted, [".global"], "what is another chart's")
        self.assertGreater(len(levels), 100)

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
