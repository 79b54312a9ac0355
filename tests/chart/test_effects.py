"""Nothing is accepted and ignored: every value of values.yaml is set by some case, and taking it away changes the rendering.

Helm renders all the comparisons at once: one umbrella chart holds the chart under an alias per comparison."""
import copy
import functools
import pathlib
import shutil
import tempfile
import unittest

import yaml

import chart
import test_values

# Without a second lawful value; what is refused without the other; and what an umbrella chart shares among its parts, which a case of its own renders.
UNSET = {"broker.replicas"}
TOGETHER = {"networkPolicy.restrictEgress": ["networkPolicy.broker.extraEgress", "networkPolicy.operator.extraEgress"]}
SHARED = {"global.imageRegistry", "global.imagePullSecrets", "global.storageClass"}


def leaves(value, schema, path=""):
    """Dotted paths of the values that the README lists: down to maps, lists and objects of Kubernetes."""
    listed = test_values.resolve(schema).get("properties")
    if listed is None or path in test_values.PARTLY_SET:
        yield path
        return
    for key in value:
        yield from leaves(value[key], listed[key], f"{path}.{key}".lstrip("."))


LEAVES = list(leaves(test_values.DEFAULTS, test_values.SCHEMA))
MISSING = object()


def at(values, path):
    for key in path.split("."):
        if not isinstance(values, dict) or key not in values:
            return MISSING
        values = values[key]
    return values


def without(values, path):
    values = copy.deepcopy(values)
    *parents, last = path.split(".")
    del functools.reduce(lambda inner, key: inner[key], parents, values)[last]
    return values


def render_all(variants):
    """Name to values → name to rendered text, in one run of Helm; names have the same length and occur nowhere else."""
    with tempfile.TemporaryDirectory() as folder:
        umbrella = pathlib.Path(folder) / "umbrella"
        part = umbrella / "charts" / "keelson"
        shutil.copytree(chart.CHART, part)
        for large in [*part.glob("dashboards/*.json"), *part.glob("files/crds/*.yaml")]:
            large.write_text('{"kind": "x", "apiVersion": "x", "metadata": {"name": "x"}, "spec": {}}')
        (part / "values.schema.json").unlink()  # each case has passed it
        version = yaml.safe_load((part / "Chart.yaml").read_text())["version"]
        (umbrella / "Chart.yaml").write_text(yaml.safe_dump({
            "apiVersion": "v2", "name": "umbrella", "version": "0.0.0",
            "dependencies": [{"name": "keelson", "version": version, "alias": name} for name in variants]}))
        (umbrella / "values.yaml").write_text(yaml.safe_dump(variants))
        code, out, err = chart.helm("template", "demo", umbrella, "--namespace", "streams")
    if code:
        raise AssertionError(err)
    rendered = dict.fromkeys(variants, "")
    for document in out.split("---\n# Source: umbrella/charts/")[1:]:
        name, _, body = document.partition("/")
        rendered[name] += body.replace(name, "keelson")
    return rendered


class Effects(unittest.TestCase):
    def test_every_value_is_set_by_a_case(self):
        cases = [chart.case_values(case) for case in chart.case_names()]
        unset = {path for path in LEAVES
                 if all(at(case, path) in (MISSING, at(test_values.DEFAULTS, path)) for case in cases)}
        self.assertEqual(unset, UNSET)

    def test_every_value_changes_what_is_rendered(self):
        variants, comparisons = {}, []

        def add(values):
            variants[f"v{len(variants):03}v"] = {key: value for key, value in values.items() if key != "global"}
            return f"v{len(variants) - 1:03}v"

        todo = set(LEAVES) - SHARED - UNSET
        for case in chart.case_names():
            values = chart.case_values(case)
            found = [path for path in LEAVES if path in todo and at(values, path) is not MISSING]
            todo -= set(found)
            whole = found and add(values)
            for path in found:
                comparisons.append((case, path, whole, add(functools.reduce(without, [path, *TOGETHER.get(path, [])], values))))
        self.assertFalse(todo)
        rendered = render_all(variants)
        self.assertGreater(min(map(len, rendered.values())), 1000)
        self.assertEqual([f"{case}: {path}" for case, path, whole, less in comparisons if rendered[whole] == rendered[less]], [])

    def test_shared_values_change_what_is_rendered(self):
        whole = chart.render("-f", chart.CASES / "private-registry.yaml")
        for path in SHARED:
            self.assertFalse(whole == chart.render("-f", chart.CASES / "private-registry.yaml", "--set-json", f"{path}=null"), path)
