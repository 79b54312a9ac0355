"""Golden renderings: what each file in cases/ gives, without what has a test of its own (dashboards, CRDs, rule texts)."""
import copy

import yaml

import chart


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))


def _shorten(o):
    """Keeps a golden readable: contents that other tests compare become a word."""
    if o["kind"] == "CustomResourceDefinition":
        o["spec"] = "compared with crds/ by test_render"
    if o["kind"] == "ConfigMap" and "dashboard" in o["metadata"]["name"]:
        o["data"] = {k: "compared with the file by test_dashboards" for k in o["data"]}
    if o["kind"] == "PrometheusRule":
        o["spec"] = "checked by test_rules"
    return o


def text(case):
    rendered = [_shorten(o) for o in copy.deepcopy(chart.case_objects(case))]
    rendered.sort(key=lambda o: (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]))
    return yaml.dump_all(rendered, Dumper=_Dumper, sort_keys=True, width=120)


def path(case):
    return chart.GOLDEN / f"{case}.yaml"
