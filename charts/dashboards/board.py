"""What all dashboards share: the grid of panels, kinds of panels, variables, colours, and the selectors of the queries.

Knows how Grafana wants it; holds no panel and no family of metrics but those that the variables are asked from."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
BROKER = 'namespace=~"$namespace",job=~"$job",instance=~"$instance"'
OPERATOR = 'namespace=~"$namespace",job=~"$job"'
RATE = "$__rate_interval"
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"


def steps(*pairs):
    return {"mode": "absolute", "steps": [{"color": c, "value": v} for v, c in pairs]}


ANY_IS_BAD = steps((None, GREEN), (1, RED))
NONE_IS_BAD = steps((None, RED), (1, GREEN))
NEUTRAL = steps((None, BLUE))

BROKER_VARIABLES = [
    ("namespace", "Namespace", "label_values(keelson_wal_health, namespace)"),
    ("job", "Job", 'label_values(keelson_wal_health{namespace=~"$namespace"}, job)'),
    ("instance", "Broker", 'label_values(keelson_wal_health{namespace=~"$namespace",job=~"$job"}, instance)'),
]
TOPIC_VARIABLE = ("topic", "Topic", f"label_values(kafka_topic_partitions{{{BROKER}}}, topic)")
GROUP_VARIABLE = ("consumergroup", "Consumer group", f"label_values(kafka_consumergroup_members{{{BROKER}}}, consumergroup)")


class Board:
    """A dashboard whose panels fill rows of 24 columns from left to right."""

    def __init__(self, uid, title, description, variables, events):
        self.uid, self.title, self.description, self.variables, self.events = uid, title, description, variables, events
        self.panels, self.x, self.y, self.height = [], 0, 0, 0

    def row(self, title):
        self._break()
        self.panels.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                            "gridPos": {"x": 0, "y": self.y, "w": 24, "h": 1}, "id": len(self.panels) + 1})
        self.y += 1

    def _break(self):
        self.y, self.x, self.height = self.y + self.height, 0, 0

    def panel(self, kind, title, description, unit, targets, width=8, height=7, thresholds=NEUTRAL, custom=None,
              options=None, mappings=(), minimum=0, maximum=None, transformations=(), bad=False):
        if self.x + width > 24:
            self._break()
        defaults = {"unit": unit, "thresholds": thresholds, "mappings": list(mappings), "custom": custom or {}}
        defaults["color"] = {"mode": "palette-classic" if kind == "timeseries" else "thresholds"}
        if bad:  # whatever is in this panel is an error, and none of them is green
            defaults["color"] = {"mode": "shades", "fixedColor": RED}
        for key, value in (("min", minimum), ("max", maximum)):
            if value is not None:
                defaults[key] = value
        self.panels.append({
            "id": len(self.panels) + 1, "type": kind, "title": title, "description": description,
            "datasource": DATASOURCE, "gridPos": {"x": self.x, "y": self.y, "w": width, "h": height},
            "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options or {},
            "transformations": list(transformations),
            "targets": [{"refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": t["expr"],
                         "legendFormat": t.get("legend", "__auto"), "instant": t.get("instant", False),
                         "range": not t.get("instant", False), "format": t.get("format", "time_series")}
                        for i, t in enumerate(targets)],
        })
        self.x, self.height = self.x + width, max(self.height, height)

    def graph(self, title, description, unit, targets, stack=False, **kw):
        custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 25 if stack else 8, "showPoints": "never",
                  "spanNulls": False, "stacking": {"mode": "normal" if stack else "none", "group": "A"}}
        options = {"legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
                   "tooltip": {"mode": "multi", "sort": "desc"}}
        self.panel("timeseries", title, description, unit, targets, custom=custom, options=options, **kw)

    def stat(self, title, description, unit, expr, **kw):
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value",
                   "graphMode": "area", "textMode": "auto", "justifyMode": "auto", "orientation": "auto"}
        kw.setdefault("width", 4)
        kw.setdefault("height", 4)
        self.panel("stat", title, description, unit, [{"expr": expr, "legend": kw.pop("legend", "")}], options=options, **kw)

    def bars(self, title, description, unit, expr, legend, **kw):
        options = {"displayMode": "gradient", "orientation": "horizontal", "showUnfilled": True,
                   "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        self.panel("bargauge", title, description, unit, [{"expr": expr, "legend": legend, "instant": True}], options=options, **kw)

    def states(self, title, description, unit, expr, legend, texts, **kw):
        """A line of time per series; `texts` names the values and gives their colours."""
        options = {"mergeValues": True, "showValue": "never", "rowHeight": 0.8, "alignValue": "left",
                   "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                   "tooltip": {"mode": "single", "sort": "none"}}
        mappings = [{"type": "value", "options": {value: {"text": text, "color": color, "index": i}
                                                  for i, (value, (text, color)) in enumerate(texts.items())}}]
        self.panel("state-timeline", title, description, unit, [{"expr": expr, "legend": legend}], mappings=mappings, options=options, **kw)

    def table(self, title, description, unit, expr, hide=(), names=None, **kw):
        hidden = {k: True for k in ("Time", "__name__", "job", "namespace", *hide)}
        organize = {"id": "organize", "options": {"excludeByName": hidden, "indexByName": {}, "renameByName": names or {}}}
        self.panel("table", title, description, unit, [{"expr": expr, "instant": True, "format": "table"}],
                   options={"showHeader": True, "cellHeight": "sm"}, transformations=[organize], **kw)

    def json(self):
        variables = [{"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus",
                      "current": {}, "hide": 0, "options": [], "refresh": 1, "regex": ""}]
        for name, label, query in self.variables:
            variables.append({
                "type": "query", "name": name, "label": label, "datasource": DATASOURCE, "query": {"query": query, "refId": name},
                "definition": query, "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
                "current": {"text": "All", "value": "$__all"}, "hide": 0, "options": [], "regex": ""})
        links = [{"type": "dashboards", "title": "Keelson", "tags": ["keelson"], "asDropdown": True, "includeVars": True,
                  "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""}]
        events = [{"name": name, "datasource": DATASOURCE, "enable": True, "hide": False, "iconColor": color, "expr": expr,
                   "titleFormat": text, "useValueForTime": dated} for name, color, expr, text, dated in self.events]
        return {
            "uid": self.uid, "title": self.title, "description": self.description, "tags": ["keelson", "kafka"], "schemaVersion": 39,
            "version": 1, "editable": True, "graphTooltip": 1, "refresh": "10s", "time": {"from": "now-1h", "to": "now"},
            "timepicker": {}, "timezone": "", "weekStart": "", "fiscalYearStartMonth": 0, "liveNow": False, "links": links,
            "annotations": {"list": events}, "templating": {"list": variables}, "panels": self.panels,
        }


def starts(selector, programs):
    """A mark in every graph where a program of `programs` started."""
    return ("Starts", BLUE, f"process_start_time_seconds{{{selector}}} * 1000 {programs}", "{{instance}} started", True)


OF_BROKERS = f'and on (namespace, job, instance) keelson_wal_health{{{BROKER},state="ok"}}'
OF_OPERATORS = f"and on (namespace, job, instance) keelson_operator_leader{{{OPERATOR}}}"
BROKER_STARTS = starts(BROKER, OF_BROKERS)
OPERATOR_STARTS = starts(OPERATOR, OF_OPERATORS)


def line(expr, legend):
    return {"expr": expr, "legend": legend}


def rates(by, metric, selector, legend, interval=RATE):
    """Increase per second, summed by labels."""
    return line(f"sum by ({by}) (rate({metric}{{{selector}}}[{interval}]))", legend)


def quantiles(metric, selector=BROKER, by="", which=((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))):
    """Quantiles of a histogram; `by` adds labels, and their values to the legend."""
    legend = " ".join("{{%s}}" % label for label in by.split(", ") if label)
    group = f"le, {by}" if by else "le"
    return [line(f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket{{{selector}}}[{RATE}])))", f"{legend} {name}".strip())
            for q, name in which]


def per_broker(metric, legend="{{instance}}"):
    return [line(f"{metric}{{{BROKER}}}", legend)]


def process(b, selector, programs):
    """The processes themselves: the same four panels for brokers and operators."""
    b.row("Process")
    b.graph("CPU usage", "Cores used by the process.", "suffix:cores",
            [line(f"rate(process_cpu_seconds_total{{{selector}}}[{RATE}]) {programs}", "{{instance}}")], width=6)
    b.graph("Memory usage", "Resident memory of the process, page cache not included.", "bytes",
            [line(f"process_resident_memory_bytes{{{selector}}} {programs}", "{{instance}}")], width=6)
    b.graph("Open file descriptors", "Share of the file descriptors that the process may have open: connections and files. Full at 100 %.",
            "percentunit", [line(f"process_open_fds{{{selector}}} / process_max_fds{{{selector}}} {programs}", "{{instance}}")], width=6)
    b.graph("Threads", "Threads of the process. Normal: the same number for ever, whatever the load.", "short",
            [line(f"process_threads{{{selector}}} {programs}", "{{instance}}")], width=6)
