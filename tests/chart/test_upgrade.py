"""What an upgrade may change: whatever values a release goes to, what Kubernetes keeps of an object stays."""
import copy
import json
import unittest

import chart

# https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/ : everything but these is refused in an update (and
# what is newer than Kubernetes 1.30 counts as refused).
STATEFULSET_MAY_CHANGE = {"replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds"}
# Documented in values.yaml as fixed at the install.
FIXED = ["nameOverride", "broker.persistence.size", "broker.persistence.storageClassName", "broker.persistence.accessModes",
         "broker.persistence.selector", "broker.persistence.labels", "broker.persistence.annotations", "global.storageClass"]


def kept(o):
    """The part of an object that Kubernetes refuses to change, or that would find other pods if it changed."""
    kind, spec = o["kind"], o.get("spec", {})
    if kind == "StatefulSet":
        return {key: value for key, value in spec.items() if key not in STATEFULSET_MAY_CHANGE}
    if kind == "Deployment":
        return spec["selector"]
    if kind == "Service":
        return {"clusterIP": spec.get("clusterIP"), "selector": spec["selector"], "ports": spec["ports"], "loadBalancerClass": spec.get("loadBalancerClass")}
    if kind.endswith("RoleBinding"):
        return o["roleRef"]
    if kind == "ConfigMap":
        return {"immutable": o.get("immutable", False)}
    if kind == "CustomResourceDefinition":
        return {key: spec[key] for key in ("group", "names", "scope")}
    return None  # Jobs and Pods are hooks, deleted before they are made anew; of the rest everything may change.


def without(values, keys):
    """The same values, the keys left out."""
    values = copy.deepcopy(values)
    for key in keys:
        *parents, last = key.split(".")
        inner = values
        for parent in parents:
            inner = inner.get(parent, {})
        inner.pop(last, None)
    return values


def identity(o):
    return o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]


class Upgrade(unittest.TestCase):
    maxDiff = None

    def test_between_any_two_sets_of_values(self):
        """Each case against the default: equal to one, they are equal to each other."""
        before = {identity(o): kept(o) for o in chart.case_objects("default")}
        for case in chart.case_names():
            if case in chart.RELEASES:
                continue
            values = chart.case_values(case)
            rendered = chart.case_objects(case)
            if without(values, FIXED) != values:
                rendered = chart.objects("--values", "-", stdin=json.dumps(without(values, FIXED)))
            for o in rendered:
                with self.subTest(f"{case}: {o['kind']}/{o['metadata']['name']}"):
                    self.assertEqual(kept(o), before.get(identity(o), kept(o)))

    def test_what_is_fixed_is_said_to_be(self):
        """Each of the fixed values does reach a part that Kubernetes keeps, else it would be on the list for nothing."""
        before = kept(chart.find(chart.case_objects("default"), "StatefulSet", "demo-broker"))
        samples = {"nameOverride": "x", "broker.persistence.size": "1Gi", "broker.persistence.storageClassName": "fast",
                   "broker.persistence.accessModes": ["ReadWriteOncePod"], "broker.persistence.selector": {"matchLabels": {"a": "b"}},
                   "broker.persistence.labels": {"a": "b"}, "broker.persistence.annotations": {"a": "b"}, "global.storageClass": "fast"}
        self.assertEqual(list(samples), FIXED)
        for key, value in samples.items():
            rendered = chart.objects("--set-json", f"{key}={json.dumps(value)}")
            self.assertNotEqual(kept(chart.find(rendered, "StatefulSet", "demo-broker")), before, key)
