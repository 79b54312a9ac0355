"""What rendered objects are validated by: Kubernetes' own schemas, the CRDs of the chart, and for the Prometheus Operator's
kinds what the chart uses of them. Nothing is left out: an object of another kind is an error."""
import functools
import json
import pathlib

import jsonschema
import kubernetes_validate
import yaml
from referencing import Registry, Resource

import chart

# From the oldest that Chart.yaml admits to the newest there is a schema for. kubernetes-validate lists each of its folders, and
# has two for a version.
VERSIONS = [v for v in dict.fromkeys(kubernetes_validate.utils.all_versions()) if tuple(map(int, v.split(".")[:2])) >= (1, 30)]
SCHEMAS = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def strict(properties, required=()):
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
RELABELINGS = {"type": "array", "minItems": 1, "items": strict({
    "sourceLabels": {"type": "array", "items": TEXT}, "targetLabel": TEXT, "replacement": TEXT, "regex": TEXT,
    "action": {"enum": ["replace", "keep", "drop"]}})}
ENDPOINTS = {"type": "array", "minItems": 1, "items": strict({
    "port": TEXT, "path": TEXT, "interval": DURATION, "scrapeTimeout": DURATION, "relabelings": RELABELINGS,
    "metricRelabelings": RELABELINGS}, ["port"])}
SELECTION = {"selector": strict({"matchLabels": TEXTS}),
             "namespaceSelector": strict({"matchNames": {"type": "array", "items": TEXT}})}
# Prometheus Operator: https://github.com/prometheus-operator/prometheus-operator/blob/main/Documentation/api-reference/api.md
PROMETHEUS_OPERATOR = {
    "ServiceMonitor": strict({**SELECTION, "endpoints": ENDPOINTS}, ["selector", "endpoints"]),
    "PodMonitor": strict({**SELECTION, "podMetricsEndpoints": ENDPOINTS}, ["selector", "podMetricsEndpoints"]),
    "PrometheusRule": strict({"groups": {"type": "array", "items": strict({"name": TEXT, "rules": {"type": "array", "items": {
        **strict({"alert": TEXT, "record": TEXT, "expr": TEXT, "for": DURATION, "keep_firing_for": DURATION, "labels": TEXTS,
                  "annotations": TEXTS}, ["expr"]),
        "oneOf": [{"required": ["alert"]}, {"required": ["record"]}]}}, "interval": DURATION}, ["name", "rules"])}}, ["groups"]),
}


@functools.cache
def _resource(version, name):
    return Resource.from_contents(json.loads((SCHEMAS / f"v{version}-local-strict" / name).read_text()))


@functools.cache
def _definitions(version):
    """All definitions of a version, walked through once: that takes longer than any object."""
    return (_resource(version, "_definitions.json") @ Registry()).crawl()


@functools.cache
def _kubernetes(version, api_version, kind):
    """What kubernetes_validate.validate(…, strict=True) uses, kept for the next object of the kind."""
    group, _, number = api_version.rpartition("/")
    prefix = group.split(".")[0] + "-" if group else ""
    return jsonschema.Draft202012Validator(
        _resource(version, f"{kind.lower()}-{prefix}{number}.json").contents, registry=_definitions(version))


@functools.cache
def crd_schemas():
    """Kind to the schema of its only version, unknown fields refused (the API server would drop them)."""
    found = {}
    for path in (chart.ROOT / "crds").glob("*.yaml"):
        for crd in yaml.safe_load_all(path.read_text()):
            [version] = crd["spec"]["versions"]
            found[crd["spec"]["names"]["kind"]] = _closed(version["schema"]["openAPIV3Schema"])
    return found


def _closed(node):
    if isinstance(node, list):
        return [_closed(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    node = {key: _closed(inner) for key, inner in node.items()}
    if node.get("x-kubernetes-int-or-string"):
        node["type"] = ["integer", "string"]
    if isinstance(node.get("type"), str) and node.get("nullable"):
        node["type"] = [node["type"], "null"]
    if isinstance(node.get("properties"), dict) and node.get("type") == "object":
        node.setdefault("additionalProperties", False)
    return node


def validate(o):
    """Raises what is wrong with a rendered object."""
    group = o["apiVersion"].rpartition("/")[0]
    if group == "monitoring.coreos.com":
        jsonschema.validate(o["spec"], PROMETHEUS_OPERATOR[o["kind"]])
    elif group == "keelson.dev":
        schema = crd_schemas()[o["kind"]]
        jsonschema.validate({"spec": o["spec"]}, {**schema, "additionalProperties": False,
                                                  "properties": {"spec": schema["properties"]["spec"]}})
    else:
        for version in VERSIONS:
            _kubernetes(version, o["apiVersion"], o["kind"]).validate(o)
