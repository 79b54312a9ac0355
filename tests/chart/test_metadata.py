"""What others read of the chart: Artifact Hub's annotations, kube-state-metrics' configuration, the examples for KEDA."""
import re
import subprocess
import unittest

import jsonschema
import yaml

import chart
import schemas
import test_values

META = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
METRICS = (chart.ROOT / "docs" / "metrics.md").read_text()


def annotation(name):
    return yaml.safe_load(META["annotations"][f"artifacthub.io/{name}"])


def promql_errors(query):
    """What promtool has against a query; nothing, if it is one."""
    done = subprocess.run(["promtool", "check", "rules", "/dev/stdin"], capture_output=True, text=True,
                          input=yaml.safe_dump({"groups": [{"name": "g", "rules": [{"record": "r", "expr": query}]}]}))
    return done.stderr if done.returncode else ""


class ArtifactHub(unittest.TestCase):
    """https://artifacthub.io/docs/topics/annotations/helm/"""

    def test_crds(self):
        want = {(o["spec"]["names"]["kind"], o["spec"]["versions"][0]["name"], o["metadata"]["name"])
                for o in chart.case_objects("default") if o["kind"] == "CustomResourceDefinition"}
        self.assertEqual({(c["kind"], c["version"], c["name"]) for c in annotation("crds")}, want)
        for crd in annotation("crds"):
            self.assertEqual(set(crd), {"kind", "version", "name", "displayName", "description"})

    def test_examples_are_valid(self):
        self.assertEqual({e["kind"] for e in annotation("crdsExamples")}, {c["kind"] for c in annotation("crds")})
        for example in annotation("crdsExamples"):
            schemas.validate(example)
            with self.assertRaises(jsonschema.ValidationError):
                schemas.validate({**example, "spec": {**example["spec"], "partition": 3}})

    def test_images_are_those_of_the_pods(self):
        used = {c["image"] for _, spec in chart.pod_specs(chart.case_objects("default")) for c in spec["containers"]}
        self.assertEqual({i["image"] for i in annotation("images")}, used)

    def test_the_rest_is_of_the_right_form(self):
        self.assertEqual(META["annotations"]["artifacthub.io/license"], META["annotations"]["licenses"])
        self.assertIn("Apache License", (chart.ROOT / "LICENSE").read_text())
        self.assertIn(annotation("operatorCapabilities"),
                      ("Basic Install", "Seamless Upgrades", "Full Lifecycle", "Deep Insights", "Auto Pilot"))
        self.assertEqual(annotation("category"), "streaming-messaging")
        for change in annotation("changes"):
            self.assertIn(change["kind"], ("added", "changed", "deprecated", "removed", "fixed", "security"))
            self.assertTrue(change["description"])
        for link in annotation("links"):
            self.assertRegex(link["url"], "^https://")


def state_metrics_schema():
    """What kube-state-metrics reads of its configuration, as far as the chart uses it; a key it does not know, it passes over.

    https://github.com/kubernetes/kube-state-metrics/blob/main/pkg/customresourcestate/config_metrics_types.go"""
    path = {"type": "array", "minItems": 1, "items": schemas.TEXT}
    labels = {"type": "object", "minProperties": 1, "propertyNames": {"pattern": "^[a-z_]+$"}, "additionalProperties": path}
    states = {"type": "array", "minItems": 2, "uniqueItems": True, "items": schemas.TEXT}
    kinds = {
        "Info": ("info", {"path": path, "labelsFromPath": labels}, ["labelsFromPath"]),
        "Gauge": ("gauge", {"path": path, "labelsFromPath": labels, "valueFrom": path, "nilIsZero": {"type": "boolean"}}, ["path"]),
        "StateSet": ("stateSet", {"path": path, "labelsFromPath": labels, "valueFrom": path, "labelName": schemas.TEXT, "list": states},
                     ["path", "labelName", "list"])}
    each = [schemas.strict({"type": {"const": kind}, key: schemas.strict(inner, needed)}, ["type", key])
            for kind, (key, inner, needed) in kinds.items()]
    metric = schemas.strict({"name": {"pattern": "^[a-z_]+$"}, "help": {"pattern": r"\.$"}, "each": {"oneOf": each}}, ["name", "help", "each"])
    return schemas.strict({"kind": {"const": "CustomResourceStateMetrics"}, "spec": schemas.strict({"resources": {
        "type": "array", "items": schemas.strict({
            "groupVersionKind": schemas.strict(dict.fromkeys(("group", "version", "kind"), schemas.TEXT), ["group", "version", "kind"]),
            "metricNamePrefix": schemas.TEXT, "errorLogV": {"type": "integer"}, "labelsFromPath": labels,
            "metrics": {"type": "array", "items": metric}}, ["groupVersionKind", "metricNamePrefix", "labelsFromPath", "metrics"])}},
        ["resources"])}, ["kind", "spec"])


class KubeStateMetrics(unittest.TestCase):
    CONFIG = yaml.safe_load((chart.CHART / "files" / "kube-state-metrics.yaml").read_text())
    # Fields that no family tells, with all that is in them, and why.
    CONDITIONS = dict.fromkeys((f"status.conditions.{key}" for key in ("message", "lastTransitionTime", "observedGeneration")),
                               "for people who read the object")
    LEFT_OUT = {
        "Topic": {
            "spec.topicName": "status.topicName is it, also where it is the object's name",
            **dict.fromkeys(("spec.config", "spec.replicationFactor"), "where the topic differs, status.drift says so"),
            **dict.fromkeys(("spec.configPolicy", "spec.adoptionPolicy", "spec.driftPolicy", "spec.deletionPolicy"), "rules, no state"),
            **CONDITIONS,
        },
        "ConsumerGroup": {
            **dict.fromkeys(("spec.topics", "spec.initialOffsets", "spec.deletionPolicy"), "rules, no state"),
            **dict.fromkeys(("spec.reset.timestamp", "spec.reset.offsets", "spec.reset.shiftBy", "spec.reset.topics", "spec.reset.deadline",
                             "spec.reset.dryRun"), "parts of a request, which its id names"),
            "status.lastReset.partitions": "up to 256 moves, to be read in the object",
            "status.topics.partitions": "how many there are is in kafka_topic_partitions",
            **CONDITIONS,
        },
    }

    @staticmethod
    def root(kind):
        """The schema of a kind, with what Kubernetes adds to it."""
        text, time = {"type": "string"}, {"type": "string", "format": "date-time"}
        metadata = {"name": text, "namespace": text, "generation": {"type": "integer"}, "creationTimestamp": time, "deletionTimestamp": time}
        schema = schemas.crd_schemas()[kind]
        return {**schema, "properties": {**schema["properties"], "metadata": {"type": "object", "properties": metadata}}}

    @staticmethod
    def field(schema, path, where):
        """The schema of a field; a path that leads nowhere would give no series and no error."""
        for part in path:
            if part not in schema.get("properties", {}):
                raise AssertionError(f"{where}: {path} is not in the CRD")
            schema = schema["properties"][part]
        return schema

    @staticmethod
    def leaves(schema, path=()):
        """Dotted paths of the fields that hold a value; maps count as one."""
        schema = schema.get("items", schema)
        if "properties" not in schema:
            yield ".".join(path)
        for key, inner in schema.get("properties", {}).items():
            yield from KubeStateMetrics.leaves(inner, (*path, key))

    def families(self):
        """(where, schema of the kind, name, type, what is given for the type) of each family."""
        for resource in self.CONFIG["spec"]["resources"]:
            kind = resource["groupVersionKind"]["kind"]
            for metric in resource["metrics"]:
                [inner] = [value for key, value in metric["each"].items() if key != "type"]
                yield f"{kind} {metric['name']}", self.root(kind), metric["name"], metric["each"]["type"], inner

    def test_it_reads_it(self):
        jsonschema.validate(self.CONFIG, state_metrics_schema())
        self.assertEqual(sorted((r["groupVersionKind"]["kind"], r["groupVersionKind"]["version"]) for r in self.CONFIG["spec"]["resources"]),
                         sorted((c["kind"], c["version"]) for c in annotation("crds")))
        for resource in self.CONFIG["spec"]["resources"]:
            names = [metric["name"] for metric in resource["metrics"]]
            self.assertEqual(len(names), len(set(names)))

    def test_every_path_leads_to_a_field_of_the_right_type(self):
        for resource in self.CONFIG["spec"]["resources"]:
            kind = resource["groupVersionKind"]["kind"]
            for path in resource["labelsFromPath"].values():
                self.field(self.root(kind), path, kind)
        for where, root, name, kind, each in self.families():
            base = self.field(root, each.get("path", []), where)
            base = base.get("items", base)
            for path in each.get("labelsFromPath", {}).values():
                self.assertIn(self.field(base, path, where)["type"], ("string", "integer"), f"{where}: {path}")
            value = self.field(base, each.get("valueFrom", []), where)
            if kind == "Gauge":  # a time becomes Unix time, a boolean 0 or 1
                self.assertTrue(value["type"] in ("integer", "number", "boolean") or value.get("format") == "date-time", where)
            if kind == "StateSet":
                # Kafka's words have no enum, since a newer broker may have others; the field's description lists them.
                words = value.get("enum") or re.findall(r"[A-Z][A-Za-z]+", value["description"].partition(": ")[2])
                self.assertEqual(each["list"], words, where)
                self.assertEqual(value["type"], "string", where)
            self.assertEqual(kind == "Info", name.endswith("info"), where)

    def test_every_field_is_told_or_left_out_for_a_reason(self):
        told = {kind: set() for kind in schemas.crd_schemas()}
        for where, _, _, kind, each in self.families():
            values = [] if kind == "Info" else [each.get("valueFrom", [])]
            told[where.split()[0]] |= {".".join(each.get("path", []) + path) for path in [*each.get("labelsFromPath", {}).values(), *values]}
        for kind, left_out in self.LEFT_OUT.items():
            fields = {path for path in self.leaves(self.root(kind)) if not path.startswith("metadata.")}
            within = {out: {path for path in fields if f"{path}.".startswith(f"{out}.")} for out in left_out}
            self.assertEqual([out for out, paths in within.items() if not paths], [], f"{kind}: no such field")
            left = set().union(*within.values())
            self.assertEqual((fields - told[kind] - left, told[kind] & left), (set(), set()), kind)

    def test_the_readme_names_every_family_and_label(self):
        text = (chart.CHART / "README.md").read_text()
        for resource in self.CONFIG["spec"]["resources"]:
            prefix = resource["metricNamePrefix"]
            for metric in resource["metrics"]:
                name = metric["name"]
                [row] = [line for line in text.splitlines() if line.startswith(f"| `{prefix}_") and
                         (f"`{prefix}_{name}`" in line or f"`…_{name}`" in line)]
                kind = metric["each"]["type"]
                each = metric["each"][kind[0].lower() + kind[1:]]
                labels = {*each.get("labelsFromPath", {}), *filter(None, [each.get("labelName")])}
                self.assertEqual(set(re.findall(r"`(\w+)`", row.split(" | ")[1])), labels, name)

    def test_the_queries_in_the_readme_ask_for_what_there_is(self):
        families = {f"{resource['metricNamePrefix']}_{metric['name']}" for resource in self.CONFIG["spec"]["resources"] for metric in resource["metrics"]}
        [block] = re.findall(r"```promql\n(.*?)```", (chart.CHART / "README.md").read_text(), re.S)
        for query in block.splitlines():
            self.assertEqual(promql_errors(query), "")
            asked = set(re.findall(r"\bkube_\w+", query))
            self.assertTrue(asked and asked <= families, query)

    def test_the_role_is_for_what_is_read(self):
        role = chart.find(chart.case_objects("pod-monitor"), "ClusterRole", "keelson:streams:demo-kube-state-metrics")
        plurals = {c["name"].split(".")[0] for c in annotation("crds")}
        self.assertEqual({r for rule in role["rules"] if rule["apiGroups"] == ["keelson.dev"] for r in rule["resources"]}, plurals)
        for rule in role["rules"]:
            self.assertEqual(rule["verbs"], ["list", "watch"])
        binding = chart.find(chart.case_objects("pod-monitor"), "ClusterRoleBinding", "keelson:streams:demo-kube-state-metrics")
        self.assertEqual(binding["subjects"], [{"kind": "ServiceAccount", "name": "kube-state-metrics", "namespace": "monitoring"}])


class Migration(unittest.TestCase):
    def test_every_value_on_the_right_exists(self):
        text = (chart.ROOT / "docs" / "chart-migration.md").read_text()
        rows = [line.split(" | ") for line in text[text.index("<!-- mapping"):text.index("<!-- end of mapping")].splitlines() if line.startswith("| `")]
        self.assertGreater(len(rows), 40)
        for row in rows[1:]:
            for code in re.findall(r"`([^`]+)`", row[1]):
                before, names, after = re.fullmatch(r"([^{]*)(?:\{(.*)\}(.*))?", code).groups()
                for name in (names or "").split(","):
                    schema = test_values.SCHEMA
                    for key in (before + name + (after or "")).split("."):
                        self.assertIn(key, test_values.resolve(schema)["properties"], code)
                        schema = test_values.resolve(schema)["properties"][key]


class Keda(unittest.TestCase):
    EXAMPLES = chart.ROOT / "examples" / "keda"
    # https://keda.sh/docs/latest/reference/scaledobject-spec/ , the part that the examples use.
    SPEC = schemas.strict({
        "scaleTargetRef": schemas.strict({"name": schemas.TEXT}, ["name"]),
        "minReplicaCount": {"type": "integer"}, "maxReplicaCount": {"type": "integer"},
        "pollingInterval": {"type": "integer"}, "cooldownPeriod": {"type": "integer"},
        "fallback": schemas.strict({"failureThreshold": {"type": "integer"}, "replicas": {"type": "integer"}}, ["failureThreshold", "replicas"]),
        "triggers": {"type": "array", "minItems": 1, "items": {"oneOf": [
            schemas.strict({"type": {"const": "apache-kafka"}, "metadata": {"$ref": "#/$defs/kafka"}}, ["type", "metadata"]),
            schemas.strict({"type": {"const": "kafka"}, "metadata": {"$ref": "#/$defs/kafka"}}, ["type", "metadata"]),
            schemas.strict({"type": {"const": "prometheus"}, "metadata": schemas.strict(dict.fromkeys(
                ["serverAddress", "query", "threshold", "activationThreshold"], schemas.TEXT), ["serverAddress", "query", "threshold"])},
                ["type", "metadata"])]}},
    }, ["scaleTargetRef", "triggers"])
    KAFKA = schemas.strict(dict.fromkeys(
        ["bootstrapServers", "consumerGroup", "topic", "lagThreshold", "activationLagThreshold", "offsetResetPolicy",
         "allowIdleConsumers"], schemas.TEXT), ["bootstrapServers", "consumerGroup", "topic", "lagThreshold"])

    def triggers(self):
        for path in sorted(self.EXAMPLES.glob("*.yaml")):
            for o in yaml.safe_load_all(path.read_text()):
                self.assertEqual((o["apiVersion"], o["kind"]), ("keda.sh/v1alpha1", "ScaledObject"))
                jsonschema.validate(o["spec"], {**self.SPEC, "$defs": {"kafka": self.KAFKA}})
                yield from o["spec"]["triggers"]

    def test_valid_and_both_ways(self):
        self.assertEqual([t["type"] for t in self.triggers()], ["kafka", "prometheus"])

    def test_kafka_starts_at_the_bootstrap_service(self):
        [trigger] = [t["metadata"] for t in self.triggers() if t["type"] == "kafka"]
        service = chart.find(chart.case_objects("release-keelson"), "Service", "keelson-bootstrap")
        port = service["spec"]["ports"][0]["port"]
        self.assertEqual(trigger["bootstrapServers"], f"keelson-bootstrap.kafka.svc:{port}")

    def test_the_query_asks_for_what_there_is(self):
        [query] = [t["metadata"]["query"] for t in self.triggers() if t["type"] == "prometheus"]
        self.assertEqual(promql_errors(query), "")
        [(family, labels)] = re.findall(r"\b(kafka_\w+)\{([^}]*)\}", query)
        row = next(line for line in METRICS.splitlines() if f"`{family}`" in line)
        for label in re.findall(r"(\w+)=", labels):
            self.assertIn(label, ["namespace", *re.findall(r"`(\w+)`", row)], f"{label} of {family}")
