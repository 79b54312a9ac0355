"""What the chart renders: lint, goldens, schemas of Kubernetes, CRDs, and what may never change."""
import pathlib
import re
import shutil
import tempfile
import unittest

import jsonschema
import kubernetes_validate
import yaml

import chart
import crds
import golden

# The one that tests/kube runs; and for the case with everything also the oldest that Chart.yaml admits, and the newest
# there is a schema for.
KUBERNETES_VERSION, ALL_KUBERNETES_VERSIONS = "1.34", ("1.30", "1.34", "1.37")

# The Prometheus Operator's kinds have no schema in Kubernetes: this is what the chart uses of them.
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
OPERATOR_KINDS = {
    "ServiceMonitor": {
        "type": "object", "additionalProperties": False, "required": ["selector", "endpoints"],
        "properties": {
            "selector": {"type": "object", "additionalProperties": False, "properties": {"matchLabels": LABELS}},
            "endpoints": {"type": "array", "minItems": 1, "items": {
                "type": "object", "additionalProperties": False, "required": ["port"],
                "properties": {"port": {"type": "string"}, "path": {"type": "string"}, "interval": {"type": "string"}}}},
        }},
    "PrometheusRule": {
        "type": "object", "additionalProperties": False, "required": ["groups"],
        "properties": {"groups": {"type": "array", "items": {
            "type": "object", "additionalProperties": False, "required": ["name", "rules"],
            "properties": {"name": {"type": "string"}, "rules": {"type": "array", "items": {
                "type": "object", "additionalProperties": False, "required": ["alert", "expr", "labels", "annotations"],
                "properties": {"alert": {"type": "string"}, "expr": {"type": "string"}, "for": {"type": "string"},
                               "labels": LABELS, "annotations": LABELS}}}}}}}},
}


class Render(unittest.TestCase):
    maxDiff = None

    def test_lint_strict(self):
        for case in chart.case_names():
            with self.subTest(case):
                code, out, err = chart.helm("lint", "--strict", chart.CHART, "-f", chart.CASES / f"{case}.yaml")
                self.assertEqual(code, 0, out + err)

    def test_versions_go_together(self):
        meta = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
        cargo = re.search(r'^version = "(.*)"', (chart.ROOT / "Cargo.toml").read_text(), re.M)[1]
        self.assertEqual((meta["version"], meta["appVersion"]), (cargo, cargo))

    def test_golden(self):
        for case in chart.case_names():
            with self.subTest(case):
                self.assertEqual(golden.path(case).read_text(), golden.text(case),
                                 "run tests/chart/run.sh --update and look at the difference")

    def test_every_object_is_valid(self):
        for case in chart.case_names():
            for o in chart.case_objects(case):
                with self.subTest(f"{case}: {o['kind']}/{o['metadata']['name']}"):
                    if o["kind"] in OPERATOR_KINDS:
                        jsonschema.validate(o["spec"], OPERATOR_KINDS[o["kind"]])
                        continue
                    for version in ALL_KUBERNETES_VERSIONS if case == "everything" else (KUBERNETES_VERSION,):
                        kubernetes_validate.validate(o, version, strict=True)

    def test_names_are_unique(self):
        for case in chart.case_names():
            keys = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in chart.case_objects(case)]
            self.assertEqual(len(keys), len(set(keys)), keys)

    def test_crds_are_those_of_the_sources(self):
        self.assertFalse(crds.stale(), "charts/keelson/files/crds differs from crds/: run tests/chart/run.sh --update")
        want = {}
        for path in crds.SOURCE.glob("*.yaml"):
            for crd in yaml.safe_load_all(path.read_text()):
                want[crd["metadata"]["name"]] = crd["spec"]
        self.assertEqual(sorted(want), ["consumergroups.keelson.dev", "topics.keelson.dev"])
        for case, keep in (("default", True), ("all-namespaces", False)):
            found = {o["metadata"]["name"]: o for o in chart.case_objects(case) if o["kind"] == "CustomResourceDefinition"}
            self.assertEqual({n: o["spec"] for n, o in found.items()}, want)
            for o in found.values():
                annotation = o["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
                self.assertEqual(annotation, "keep" if keep else None)
        self.assertFalse([o for o in chart.case_objects("minimal") if o["kind"] == "CustomResourceDefinition"])

    def test_what_never_changes(self):
        """Kubernetes refuses a change of these on an existing release: not goldens that --update may rewrite."""
        selector = {"app.kubernetes.io/name": "keelson", "app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "broker"}
        spec = chart.find(chart.case_objects("default"), "StatefulSet", "demo-broker")["spec"]
        self.assertEqual(spec["selector"], {"matchLabels": selector})
        self.assertEqual(spec["serviceName"], "demo-broker-headless")
        self.assertEqual(spec["podManagementPolicy"], "Parallel")
        self.assertEqual(spec["volumeClaimTemplates"], [{
            "metadata": {"name": "data", "labels": selector},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}}])
        operator = chart.find(chart.case_objects("default"), "Deployment", "demo-operator")["spec"]
        self.assertEqual(operator["selector"], {"matchLabels": {**selector, "app.kubernetes.io/component": "operator"}})

    def test_selectors_find_their_pods(self):
        for case in chart.case_names():
            pods = [(o["metadata"]["name"], o["spec"]["template"]["metadata"]["labels"]) for o in chart.case_objects(case)
                    if o["kind"] in ("StatefulSet", "Deployment")]
            for o in chart.case_objects(case):
                if o["kind"] == "Service":
                    want, name = o["spec"]["selector"], o["metadata"]["name"]
                elif o["kind"] == "PodDisruptionBudget":
                    want, name = o["spec"]["selector"]["matchLabels"], o["metadata"]["name"]
                else:
                    continue
                hits = [n for n, labels in pods if want.items() <= labels.items()]
                self.assertEqual(len(hits), 1, f"{case}: {name} selects {hits}")

    def test_service_monitors_find_one_service_each(self):
        services = [(o["metadata"]["name"], o["metadata"]["labels"]) for o in chart.case_objects("everything") if o["kind"] == "Service"]
        hits = {}
        for o in chart.case_objects("everything"):
            if o["kind"] == "ServiceMonitor":
                want = o["spec"]["selector"]["matchLabels"]
                hits[o["metadata"]["name"]] = [n for n, labels in services if want.items() <= labels.items()]
        self.assertEqual(hits, {"demo-broker": ["demo-broker-headless"], "demo-operator": ["demo-operator"]})

    def test_a_changed_property_restarts_the_broker(self):
        def checksum(*args):
            pod = chart.find(chart.objects(*args), "StatefulSet", "demo-broker")["spec"]["template"]
            return pod["metadata"]["annotations"]["checksum/config"]
        self.assertEqual(checksum(), checksum())
        self.assertNotEqual(checksum(), checksum("--set", "broker.config.num\\.partitions=3"))

    def test_properties_keep_their_digits(self):
        text = chart.find(chart.case_objects("everything"), "ConfigMap", "demo-broker")["data"]["broker.properties"]
        self.assertIn("\nsocket.request.max.bytes=104857600\n", text)
        self.assertIn("\nauto.create.topics.enable=true\n", text)
        self.assertIn("\nauto.create.topics.enable=false\n",
                      chart.find(chart.case_objects("default"), "ConfigMap", "demo-broker")["data"]["broker.properties"])

    def test_the_advertised_name_is_the_pods_own(self):
        container = chart.find(chart.case_objects("default"), "StatefulSet", "demo-broker")["spec"]["template"]["spec"]["containers"][0]
        self.assertIn("--set=advertised.listeners=PLAINTEXT://$(POD_NAME).demo-broker-headless.$(POD_NAMESPACE).svc.cluster.local:9092",
                      container["args"])
        self.assertLessEqual({"POD_NAME", "POD_NAMESPACE"}, {e["name"] for e in container["env"]})
        headless = chart.find(chart.case_objects("default"), "Service", "demo-broker-headless")["spec"]
        self.assertEqual((headless["clusterIP"], headless["publishNotReadyAddresses"]), ("None", True))

    def test_one_broker_may_be_drained(self):
        pdb = chart.find(chart.case_objects("default"), "PodDisruptionBudget", "demo-broker")["spec"]
        self.assertEqual(pdb["maxUnavailable"], 1)

    def test_two_releases_in_two_namespaces_do_not_meet(self):
        def cluster_scoped(namespace):
            return {(o["kind"], o["metadata"]["name"]) for o in chart.objects("--set", "crds.install=false", namespace=namespace)
                    if o["kind"].startswith("Cluster")}
        self.assertFalse(cluster_scoped("a") & cluster_scoped("b"))

    def test_notes(self):
        # Helm shows notes only at an install into a cluster; here they become the content of an object.
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "keelson"
            shutil.copytree(chart.CHART, copy)
            text = (copy / "templates" / "NOTES.txt").read_text()
            (copy / "templates" / "notes.yaml").write_text(
                '{{- define "notes" }}' + text + '{{ end -}}\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\n'
                'data: {notes: {{ include "notes" . | quote }}}\n')
            code, out, err = chart.helm("template", "demo", copy, "--namespace", "streams", "--show-only", "templates/notes.yaml")
        self.assertEqual(code, 0, err)
        notes = yaml.safe_load(out)["data"]["notes"]
        self.assertIn("demo-bootstrap.streams.svc.cluster.local:9092", notes)
        manifest = re.search(r"<<EOF\n(.*?)\nEOF\n", notes, re.S)[1]
        topic = yaml.safe_load(manifest)
        self.assertEqual((topic["kind"], topic["spec"]["clusterRef"]["name"]), ("Topic", "demo"))


if __name__ == "__main__":
    unittest.main()
