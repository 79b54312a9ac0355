"""What a panel of a dashboard shows: its queries with the variables filled in, its legends as Grafana makes them.

Shared by the tests and the pictures; knows nothing of any single panel."""
import re


def concrete(query, interval="15s", **variables):
    """A query with its variables set, those that are not named to All."""
    query = query.replace("$__rate_interval", interval)
    return re.sub(r'"\$(\w+)"', lambda name: f'"{variables.get(name[1], ".*")}"', query)


def legend(target, labels):
    """The name of a series; in a table, where Grafana shows the labels in columns, their values in the order of their names."""
    if target["legendFormat"] == "__auto":
        return " ".join(v for k, v in sorted(labels.items()) if k != "__name__")
    return re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), target["legendFormat"]).strip()


def shown(prometheus, panel, interval="15s", **variables):
    """What the panel shows now: {legend: value}."""
    values = {}
    for target in panel["targets"]:
        for series in prometheus.query(concrete(target["expr"], interval, **variables)):
            values[legend(target, series["metric"])] = float(series["value"][1])
    return values
