"""The table of values in the chart's README, made from the comments of values.yaml.

A value is documented by the comment lines right above it that start with "# --" and go on with "#"."""
import json
import re

import yaml

import chart

BEGIN, END = "<!-- values: made by tests/chart/run.sh --update -->", "<!-- end of values -->"
README = chart.CHART / "README.md"


def rows():
    """(dotted key, default, description) of each documented value, in the order of the file."""
    defaults = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    path, comment = [], None
    for line in (chart.CHART / "values.yaml").read_text().splitlines():
        stripped = line.strip()
        if stripped.startswith("# --"):
            comment = [stripped[4:].strip()]
        elif stripped.startswith("#"):
            if comment is not None:
                comment.append(stripped[1:].strip())
        elif match := re.match(r"^( *)([A-Za-z][A-Za-z0-9]*):", line):
            path[len(match[1]) // 2:] = [match[2]]
            if comment is not None:
                value = defaults
                for key in path:
                    value = value[key]
                yield ".".join(path), value, " ".join(comment)
            comment = None
        else:
            comment = None


def undocumented():
    """Leaves of values.yaml that no row covers."""
    known = {key for key, _, _ in rows()}

    def walk(value, path):
        if ".".join(path) in known:
            return
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from walk(inner, path + [key])
        else:
            yield ".".join(path)

    return list(walk(yaml.safe_load((chart.CHART / "values.yaml").read_text()), []))


def table():
    lines = [BEGIN, "", "| Value | Default | Meaning |", "|---|---|---|"]
    for key, default, text in rows():
        text = text.replace("|", r"\|").replace("<", "&lt;")
        lines.append(f"| `{key}` | `{json.dumps(default)}` | {text} |")
    return "\n".join(lines + ["", END])


def updated():
    text = README.read_text()
    return text[:text.index(BEGIN)] + table() + text[text.index(END) + len(END):]
