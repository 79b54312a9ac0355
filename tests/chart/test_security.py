"""The restricted Pod Security profile for every pod, and least privilege for every role."""
import unittest

import chart

# https://kubernetes.io/docs/concepts/security/pod-security-standards/ ("Restricted", with what it takes from "Baseline")
ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret", "name"}
ALLOWED_CLUSTER_RULES = {  # (group, resource): verbs
    ("", "namespaces"): {"get", "list", "watch"},
    ("apps", "statefulsets"): {"get"},
    ("keelson.dev", "topics"): {"get", "list", "watch", "patch"},
    ("keelson.dev", "topics/status"): {"patch"},
    ("keelson.dev", "consumergroups"): {"get", "list", "watch", "patch"},
    ("keelson.dev", "consumergroups/status"): {"patch"},
}


def violations(spec):
    """What the restricted profile would refuse, in words."""
    pod = spec.get("securityContext", {})
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key
    for volume in spec.get("volumes", []):
        if set(volume) - ALLOWED_VOLUMES:
            yield f"volume {sorted(volume)}"
    if pod.get("sysctls"):
        yield "sysctls"
    for container in spec.get("initContainers", []) + spec["containers"] + spec.get("ephemeralContainers", []):
        name, own = container["name"], container.get("securityContext", {})
        if own.get("privileged"):
            yield f"{name}: privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own.get("capabilities", {}).get("add"):
            yield f"{name}: capabilities"
        if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
            yield f"{name}: runAsNonRoot"
        if own.get("runAsUser", pod.get("runAsUser")) == 0:
            yield f"{name}: runAsUser 0"
        if own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: seccompProfile"
        if own.get("procMount", "Default") != "Default":
            yield f"{name}: procMount"
        if any("hostPort" in p for p in container.get("ports", [])):
            yield f"{name}: hostPort"


def rules(rendered, kind):
    """Of the roles that are bound here; those that Kubernetes' own roles take in have a test of their own."""
    for o in rendered:
        if o["kind"] == kind and o["metadata"]["labels"]["app.kubernetes.io/component"] != "crds":
            for rule in o["rules"]:
                yield o["metadata"]["name"], rule


class PodSecurity(unittest.TestCase):
    def test_restricted(self):
        for case in chart.case_names():
            for name, spec in chart.pod_specs(chart.case_objects(case)):
                with self.subTest(f"{case} {name}"):
                    self.assertEqual(list(violations(spec)), [])

    def test_more_than_restricted(self):
        """What the profile does not ask for: a read-only root, no service links, limits, and a token only where it is used."""
        for case in chart.case_names():
            for name, spec in chart.pod_specs(chart.case_objects(case)):
                with self.subTest(f"{case} {name}"):
                    self.assertIs(spec["enableServiceLinks"], False)
                    # "additions" asks for the broker's.
                    token = name.endswith(("-operator", "-uninstall")) or (case, name) == ("additions", "StatefulSet/demo-broker")
                    self.assertIs(spec["automountServiceAccountToken"], token)
                    for container in spec["containers"]:
                        self.assertIs(container["securityContext"]["readOnlyRootFilesystem"], True)
                        self.assertIn("memory", container["resources"]["limits"])

    def test_the_check_itself_finds_what_is_wrong(self):
        bad = {"hostNetwork": True, "volumes": [{"name": "x", "hostPath": {"path": "/"}}],
               "containers": [{"name": "c", "ports": [{"hostPort": 1}], "securityContext": {"privileged": True, "runAsUser": 0}}]}
        self.assertEqual(len(list(violations(bad))), 9)


class Rbac(unittest.TestCase):
    def test_no_wildcards_no_secrets(self):
        for case in chart.case_names():
            rendered = chart.case_objects(case)
            for kind in ("Role", "ClusterRole"):
                for name, rule in rules(rendered, kind):
                    with self.subTest(f"{case} {name}"):
                        self.assertNotIn("*", rule["apiGroups"] + rule["resources"] + rule["verbs"])
                        self.assertNotIn("secrets", rule["resources"])
                        if set(rule["verbs"]) & {"delete", "deletecollection"}:
                            self.fail("nothing of Kubernetes is deleted by the operator")

    def test_the_cluster_role_of_the_namespaced_form_is_small(self):
        for case in ("default", "everything", "watch-namespaces"):
            for _, rule in rules(chart.case_objects(case), "ClusterRole"):
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        self.assertLessEqual(set(rule["verbs"]), ALLOWED_CLUSTER_RULES[group, resource])
                if rule["apiGroups"] != ["keelson.dev"]:
                    self.assertTrue(rule["resourceNames"], "named objects only")

    def test_kubernetes_own_roles_get_the_two_kinds_and_nothing_else(self):
        found = {}
        for o in chart.case_objects("default"):
            into = [key.rpartition("-")[2] for key in o["metadata"].get("labels", {}) if key.startswith("rbac.authorization.k8s.io/aggregate-to-")]
            if into:
                [rule] = o["rules"]
                self.assertEqual((rule["apiGroups"], rule["resources"]), (["keelson.dev"], ["topics", "consumergroups"]))
                found[o["metadata"]["name"]] = sorted(into), "delete" in rule["verbs"], "get" in rule["verbs"]
        self.assertEqual(found, {"keelson:streams:demo-view": (["admin", "edit", "view"], False, True),
                                 "keelson:streams:demo-edit": (["admin", "edit"], True, False)})
        self.assertFalse([o for o in chart.case_objects("minimal") if o["kind"] == "ClusterRole"])

    def test_each_watched_namespace_has_its_role(self):
        for case, want in (("default", {"streams"}), ("everything", {"streams", "orders"}), ("all-namespaces", set()), ("minimal", set()),
                           ("watch-namespaces", {"streams", "orders", "billing"}), ("openshift", set())):
            rendered = chart.case_objects(case)
            found = {o["metadata"]["namespace"] for o in rendered
                     if o["kind"] == "Role" and any("topics/status" in r["resources"] for r in o["rules"])}
            self.assertEqual(found, want, case)

    def test_the_operator_is_told_the_same_namespaces(self):
        for case, want in (("default", ["--namespace=streams"]), ("everything", ["--namespace=streams", "--namespace=orders"]),
                           ("watch-namespaces", ["--namespace=streams", "--namespace=orders=orders.", "--namespace=billing"]),
                           ("all-namespaces", ["--all-namespaces"])):
            pod = chart.find(chart.case_objects(case), "Deployment", "demo-operator")["spec"]["template"]["spec"]
            self.assertEqual([a for a in pod["containers"][0]["args"] if "namespace" in a], want)
