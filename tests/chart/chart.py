"""What the chart's tests share: rendering with Helm, and where things are. Holds no expectation of its own."""
import functools
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "keelson"
CASES = ROOT / "tests" / "chart" / "cases"
GOLDEN = ROOT / "tests" / "chart" / "golden"
RULES = CHART / "files" / "keelson.rules.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
DASHBOARDS = CHART / "dashboards"


def helm(*args):
    """Exit code, standard output and standard error of Helm."""
    done = subprocess.run(["helm", *map(str, args)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def template(*args, release="demo", namespace="streams"):
    return helm("template", release, CHART, "--namespace", namespace, *args)


def render(*args, **names):
    """The rendered text; a refusal is a failure of the test."""
    code, out, err = template(*args, **names)
    if code:
        raise AssertionError(f"helm template failed:\n{err}")
    return out


def objects(*args, **names):
    return [o for o in yaml.safe_load_all(render(*args, **names)) if o]


def case_names():
    return sorted(p.stem for p in CASES.glob("*.yaml"))


@functools.cache
def case_objects(name):
    """Rendered once; do not change what comes back."""
    return objects("-f", CASES / f"{name}.yaml")


def find(rendered, kind, name):
    found = [o for o in rendered if o["kind"] == kind and o["metadata"]["name"] == name]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} objects {kind} {name}")
    return found[0]


def pod_container(rendered, kind, name):
    """The one container of an object that runs pods."""
    [container] = find(rendered, kind, name)["spec"]["template"]["spec"]["containers"]
    return container


def pod_specs(rendered):
    """(kind/name, pod spec) of everything that runs pods."""
    for o in rendered:
        name = f"{o['kind']}/{o['metadata']['name']}"
        if o["kind"] == "Pod":
            yield name, o["spec"]
        elif o["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            yield name, o["spec"]["template"]["spec"]


def expressions(board):
    """(panel title, query) of every panel of a dashboard."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
