"""What the chart's tests share: rendering with Helm, and where things are. Holds no expectation of its own."""
import concurrent.futures
import functools
import pathlib
import subprocess

import yaml

# The same as SafeLoader, in C where the wheel has it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "keelson"
CASES = ROOT / "tests" / "chart" / "cases"
GOLDEN = ROOT / "tests" / "chart" / "golden"
RULES = CHART / "files" / "keelson.rules.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
DASHBOARDS = CHART / "dashboards"
# Release and namespace of a case, where they are not those of all others.
RELEASES = {"release-keelson": ("keelson", "kafka")}


def helm(*args, stdin=None):
    """Exit code, standard output and standard error of Helm."""
    done = subprocess.run(["helm", *map(str, args)], input=stdin, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def template(*args, release="demo", namespace="streams", stdin=None):
    return helm("template", release, CHART, "--namespace", namespace, *args, stdin=stdin)


def render(*args, **names):
    """The rendered text; a refusal is a failure of the test."""
    code, out, err = template(*args, **names)
    if code:
        raise AssertionError(f"helm template failed:\n{err}")
    return out


def objects(*args, **names):
    return [o for o in yaml.load_all(render(*args, **names), Loader=LOADER) if o]


def case_names():
    return sorted(p.stem for p in CASES.glob("*.yaml"))


def case_objects(name):
    """Rendered once; do not change what comes back."""
    return _all_cases()[name]


@functools.cache
def _all_cases():
    def rendered(name):
        release, namespace = RELEASES.get(name, ("demo", "streams"))
        return objects("-f", CASES / f"{name}.yaml", release=release, namespace=namespace)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(case_names(), pool.map(rendered, case_names())))


def case_values(name):
    return yaml.safe_load((CASES / f"{name}.yaml").read_text()) or {}


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
    """(panel title, query) of every panel of a dashboard, and of the marks in its graphs."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in board["annotations"]["list"]:
        yield f"mark {annotation['name']}", annotation["expr"]
