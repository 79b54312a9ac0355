"""Golden renderings: what each file in cases/ gives, without what has a test of its own (dashboards, CRDs, rule texts).

An object that is the same as in default.yaml is only named, so that a golden shows what its case is about."""
import copy

import yaml

import chart

BASE = "default"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))


def _shorten(o):
    """Keeps a golden readable: contents that other tests compare become a word."""
    if o["kind"] == "CustomResourceDefinition":
        o["spec"] = "compared with crds/ by test_render"
    if o["kind"] == "ConfigMap" and "-dashboard-" in o["metadata"]["name"]:
        o["data"] = {k: "compared with the file by test_dashboards" for k in o["data"]}
    if o["kind"] == "ConfigMap" and "-kube-state-metrics" in o["metadata"]["name"]:
        o["data"] = {k: "compared with the file by test_render" for k in o["data"]}
    if o["kind"] == "PrometheusRule":
        o["spec"] = "checked by test_rules"
    return o


def shortened(rendered):
    return [_shorten(o) for o in copy.deepcopy(rendered)]


def text(case):
    known = [] if case == BASE else shortened(chart.case_objects(BASE))
    documents = []
    for o in shortened(chart.case_objects(case)):
        key = (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"])
        same = f"# {o['kind']} {o['metadata']['name']}: as in {BASE}.yaml\n"
        documents.append((key, same if o in known else yaml.dump(o, Dumper=_Dumper, sort_keys=True, width=120)))
    return "---\n".join(body for _, body in sorted(documents))


def path(case):
    return chart.GOLDEN / f"{case}.yaml"
