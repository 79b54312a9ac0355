"""What the chart renders: lint, goldens, schemas of Kubernetes, CRDs, and what may never change."""
import concurrent.futures
import copy
import importlib.metadata
import pathlib
import re
import shutil
import tempfile
import unittest

import jsonschema
import yaml

import chart
import crds
import golden
import schemas

class Render(unittest.TestCase):
    maxDiff = None

    def test_lint_strict(self):
        def lint(case):
            return chart.helm("lint", "--strict", "--quiet", chart.CHART, "-f", chart.CASES / f"{case}.yaml")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for case, (code, out, err) in zip(chart.case_names(), pool.map(lint, chart.case_names())):
                self.assertEqual(code, 0, f"{case}: {out}{err}")

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
        newest = int(importlib.metadata.version("kubernetes-validate").split(".")[1])
        self.assertEqual(schemas.VERSIONS, [f"1.{minor}.0" for minor in range(30, newest + 1)])
        self.assertTrue(yaml.safe_load((chart.CHART / "Chart.yaml").read_text())["kubeVersion"].startswith(">=1.30."))
        seen = []
        for case in chart.case_names():
            for o in chart.case_objects(case):
                if o in seen:
                    continue
                seen.append(o)
                with self.subTest(f"{case}: {o['kind']}/{o['metadata']['name']}"):
                    schemas.validate(o)

    def test_the_schemas_find_what_is_wrong(self):
        for kind, name, break_it in (
                ("StatefulSet", "demo-broker", lambda o: o["spec"]["template"]["spec"].update(restartPolcy="Always")),
                ("Service", "demo-bootstrap", lambda o: o["spec"].update(ports="9092")),
                ("ServiceMonitor", "demo-broker-streams", lambda o: o["spec"]["endpoints"][0].update(prot="http"))):
            o = copy.deepcopy(chart.find(chart.case_objects("everything"), kind, name))
            schemas.validate(o)
            break_it(o)
            with self.assertRaises(jsonschema.ValidationError):
                schemas.validate(o)

    def test_no_case_is_without_a_golden(self):
        self.assertEqual({p.stem for p in chart.GOLDEN.glob("*.yaml")}, set(chart.case_names()))
        self.assertGreaterEqual(len(chart.case_names()), 12)

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
                    want, name = dict(o["spec"]["selector"]), o["metadata"]["name"]
                    # The controller puts the pod's name on it; a Service for one broker is named like it.
                    self.assertIn(want.pop("statefulset.kubernetes.io/pod-name", name), (name, "demo-broker-0"))
                elif o["kind"] == "PodDisruptionBudget":
                    want, name = o["spec"]["selector"]["matchLabels"], o["metadata"]["name"]
                else:
                    continue
                # Kubernetes sets this one: the pod of one broker.
                want = {key: value for key, value in want.items() if key != "statefulset.kubernetes.io/pod-name"}
                hits = [n for n, labels in pods if want.items() <= labels.items()]
                self.assertEqual(len(hits), 1, f"{case}: {name} selects {hits}")

    def test_pod_monitors_find_one_kind_of_pod_each_and_give_the_jobs_of_service_monitors(self):
        rendered = chart.case_objects("pod-monitor")
        pods = {o["metadata"]["name"]: o["spec"]["template"] for o in rendered if o["kind"] in ("StatefulSet", "Deployment")}
        jobs = {}
        for o in rendered:
            if o["kind"] == "PodMonitor":
                want = o["spec"]["selector"]["matchLabels"]
                [name] = [n for n, pod in pods.items() if want.items() <= pod["metadata"]["labels"].items()]
                [endpoint] = o["spec"]["podMetricsEndpoints"]
                self.assertIn(endpoint["port"], [p["name"] for p in pods[name]["spec"]["containers"][0]["ports"]])
                jobs[name] = endpoint["relabelings"][0]
        self.assertEqual(jobs, {"demo-broker": {"targetLabel": "job", "replacement": "demo-broker-headless"},
                                "demo-operator": {"targetLabel": "job", "replacement": "demo-operator"}})

    def test_service_monitors_find_one_service_each(self):
        services = [(o["metadata"]["name"], o["metadata"]["labels"]) for o in chart.case_objects("everything") if o["kind"] == "Service"]
        hits = {}
        for o in chart.case_objects("everything"):
            if o["kind"] == "ServiceMonitor":
                want = o["spec"]["selector"]["matchLabels"]
                hits[o["metadata"]["name"]] = [n for n, labels in services if want.items() <= labels.items()]
        self.assertEqual(hits, {"demo-broker-streams": ["demo-broker-headless"], "demo-operator-streams": ["demo-operator"]})

    def test_labels_and_annotations_of_all_are_on_everything_and_change_no_selector(self):
        for o in chart.case_objects("everything"):
            templates = [o["spec"]["template"]] if "template" in o.get("spec", {}) else []
            for metadata in [o["metadata"], *(t["metadata"] for t in templates)]:
                self.assertEqual(metadata["labels"].get("team"), "streams", metadata)
                self.assertEqual(metadata["annotations"].get("example.org/owner"), "streams", metadata)
        stubborn = chart.objects("--set-json", 'commonLabels={"app.kubernetes.io/component":"mine","app.kubernetes.io/part-of":"shop"}')
        for kind, name in (("StatefulSet", "demo-broker"), ("Deployment", "demo-operator")):
            o = chart.find(stubborn, kind, name)
            self.assertEqual(o["metadata"]["labels"]["app.kubernetes.io/part-of"], "shop")
            self.assertEqual(o["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"], name.removeprefix("demo-"))
            self.assertLessEqual(o["spec"]["selector"]["matchLabels"].items(), o["spec"]["template"]["metadata"]["labels"].items())

    def test_kube_state_metrics_gets_its_file(self):
        rendered = chart.find(chart.case_objects("kube-state-metrics"), "ConfigMap", "demo-kube-state-metrics")
        text = (chart.CHART / "files" / "kube-state-metrics.yaml").read_text()
        self.assertEqual(rendered["data"]["config.yaml"], text.strip())

    def test_a_new_chart_alone_restarts_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "keelson"
            shutil.copytree(chart.CHART, copy)
            text = (copy / "Chart.yaml").read_text()
            (copy / "Chart.yaml").write_text(re.sub(r"^version: .*$", "version: 9.9.9", text, flags=re.M))
            code, out, err = chart.helm("template", "demo", copy, "--namespace", "streams")
        self.assertEqual(code, 0, err)
        newer = [o for o in yaml.load_all(out, Loader=chart.LOADER) if o]
        for kind, name in (("StatefulSet", "demo-broker"), ("Deployment", "demo-operator")):
            o = chart.find(newer, kind, name)
            self.assertEqual(o["metadata"]["labels"]["helm.sh/chart"], "keelson-9.9.9")
            self.assertEqual(o["spec"]["template"], chart.find(chart.case_objects("default"), kind, name)["spec"]["template"])

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
        self.assertIn("--set=advertised.listeners=PLAINTEXT://$(POD_NAME).$(POD_NAMESPACE).svc.cluster.local:9092",
                      container["args"])
        self.assertLessEqual({"POD_NAME", "POD_NAMESPACE"}, {e["name"] for e in container["env"]})
        headless = chart.find(chart.case_objects("default"), "Service", "demo-broker-headless")["spec"]
        self.assertEqual((headless["clusterIP"], headless["publishNotReadyAddresses"]), ("None", True))

    def test_what_clients_from_outside_are_told(self):
        def told(case):
            rendered = chart.case_objects(case)
            container = chart.find(rendered, "StatefulSet", "demo-broker")["spec"]["template"]["spec"]["containers"][0]
            advertised = next(a for a in container["args"] if a.startswith("--set=advertised.listeners="))
            properties = chart.find(rendered, "ConfigMap", "demo-broker")["data"]["broker.properties"]
            return advertised.partition(",")[2], properties, container, rendered

        for case, want, port in (("external-node-port", "EXTERNAL://$(HOST_IP):31092", 9095), ("external-load-balancer", "", 9094),
                                 ("external-name", "EXTERNAL://kafka.example.org:9094", 9094),
                                 ("external-proxy", "EXTERNAL://kafka.example.org:9443", 9443)):
            with self.subTest(case):
                advertised, properties, container, rendered = told(case)
                self.assertEqual(advertised, want)
                self.assertIn(f"\nlisteners=PLAINTEXT://0.0.0.0:9092,EXTERNAL://0.0.0.0:{port}\n", properties)
                self.assertIn("\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,EXTERNAL:PLAINTEXT\n", properties)
                self.assertIn({"name": "external", "containerPort": port}, container["ports"])
                self.assertEqual("HOST_IP" in {e["name"] for e in container["env"]}, "HOST_IP" in want)
                service = chart.find(rendered, "Service", "demo-broker-0-external")["spec"]
                self.assertEqual(service["selector"]["statefulset.kubernetes.io/pod-name"], "demo-broker-0")
                self.assertEqual(service["ports"][0]["port"], port)
                policy = chart.find(rendered, "NetworkPolicy", "demo-broker")["spec"]
                self.assertIn({"ports": [{"port": "external", "protocol": "TCP"}]}, policy["ingress"])
        operator = chart.find(chart.case_objects("external-load-balancer"), "Deployment", "demo-operator")
        self.assertIn("--external-services", operator["spec"]["template"]["spec"]["containers"][0]["args"])
        self.assertEqual(told("default")[0], "")
        self.assertNotIn("EXTERNAL", told("default")[1])

    def test_one_broker_may_be_drained(self):
        pdb = chart.find(chart.case_objects("default"), "PodDisruptionBudget", "demo-broker")["spec"]
        self.assertEqual(pdb["maxUnavailable"], 1)

    def test_no_name_is_that_of_a_release(self):
        """The release named like the chart differs from another only by the names of release and namespace."""
        def words(case):
            return sorted(yaml.safe_dump(o) for o in golden.shortened(chart.case_objects(case)))
        release, namespace = chart.RELEASES["release-keelson"]
        renamed = [o.replace("demo", release).replace("streams", namespace) for o in words("default")]
        self.assertEqual(sorted(renamed), words("release-keelson"))

    def test_two_releases_in_two_namespaces_do_not_meet(self):
        """Neither cluster-wide nor in the namespaces of others, where monitors, dashboards and roles may be put."""
        def outside(case, namespace):
            return {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"])
                    for o in chart.objects("-f", chart.CASES / f"{case}.yaml", "--set", "crds.install=false,extraObjects=null", namespace=namespace)
                    if o["metadata"].get("namespace", namespace) != namespace or o["kind"].startswith("Cluster")}
        for case in ("default", "everything", "watch-namespaces", "pod-monitor"):
            first, second = outside(case, "a"), outside(case, "b")
            self.assertTrue(first)
            self.assertFalse(first & second, case)

    def test_notes(self):
        # Helm shows notes only at an install into a cluster; here they become the content of an object.
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "keelson"
            shutil.copytree(chart.CHART, copy)
            text = (copy / "templates" / "NOTES.txt").read_text()
            (copy / "templates" / "notes.yaml").write_text(
                '{{- define "notes" }}' + text + '{{ end -}}\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\n'
                'data: {notes: {{ include "notes" . | quote }}}\n')

            def notes(case):
                code, out, err = chart.helm("template", "demo", copy, "--namespace", "streams", "-f", chart.CASES / f"{case}.yaml",
                                            "--show-only", "templates/notes.yaml")
                self.assertEqual(code, 0, err)
                return yaml.safe_load(out)["data"]["notes"]
            with concurrent.futures.ThreadPoolExecutor() as pool:
                found = dict(zip(chart.case_names(), pool.map(notes, chart.case_names())))
        for case, text in found.items():
            with self.subTest(case):
                plain = re.sub(r" -o go-template='.*'", "", text)
                self.assertNotRegex(plain, r"<no value>|nil|\{\{|\n\n\n| \n")
                self.assertEqual("rollout status statefulset/demo-broker" in text, True)
                self.assertEqual("helm -n streams test demo" in text, chart.case_values(case).get("test", {}).get("enabled", True))
                for manifest in re.findall(r"<<EOF\n(.*?)\nEOF\n", text, re.S):
                    topic = yaml.safe_load(manifest)
                    schemas.validate(topic)
                    self.assertEqual(topic["spec"]["clusterRef"]["name"], "demo")
        self.assertIn("demo-bootstrap.streams.svc.k8s.example.org:9092\n", found["everything"])
        for case, line in (
                ("external-name", "kafka.example.org:9094"),
                ("external-proxy", "kafka.example.org:9443"),
                ("external-node-port", """kubectl -n streams get pod demo-broker-0 -o jsonpath='{.status.hostIP}{":31092\\n"}'"""),
                ("external-load-balancer", "kubectl -n streams get service demo-broker-0-external -o go-template="
                 """'{{range .status.loadBalancer.ingress}}{{or .hostname .ip}}:9094{{"\\n"}}{{end}}'""")):
            self.assertIn(f"\n\n{line}\n\n", found[case])
            self.assertEqual([c for c, text in found.items() if line in text], [case])
        self.assertNotIn("<<EOF", found["minimal"])
        self.assertNotIn("No alerts", found["pod-monitor"])
        self.assertIn("No hook", found["openshift"])
        self.assertIn("claim data-demo-broker-0", found["default"])
        self.assertNotIn("claim data", found["everything"])


if __name__ == "__main__":
    unittest.main()
