"""Draws a dashboard as a picture, about as Grafana does: the JSON gives panels, queries, units, thresholds and colours, Prometheus
the values. Only what our dashboards use is drawn; nothing here knows a panel or a family by name."""
import math

import matplotlib
import matplotlib.patches
import matplotlib.pyplot
import matplotlib.ticker
import PIL.Image

import panels

matplotlib.use("Agg")
matplotlib.rcParams["font.family"] = "DejaVu Sans"  # comes with matplotlib, so that every machine draws the same letters

WIDTH_PX, CELL_PX, GAP_PX, HEAD_PX, DPI = 1400, 38, 8, 58, 100
PAGE, PANEL, EDGE, TEXT, DIM, GRID = "#111217", "#181b1f", "#2a2d33", "#d5d6dc", "#8e9097", "#26292e"
PALETTE = ["#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#E24D42", "#1F78C1", "#BA43A9", "#705DA0", "#508642", "#CCA300"]
COLORS = {"green": "#73BF69", "yellow": "#FADE2A", "orange": "#FF9830", "red": "#F2495C", "blue": "#5794F2", "transparent": "#00000000"}
SUFFIX = {"short": "", "none": "", "Bps": "B/s", "bytes": "B", "ops": " ops/s", "reqps": " req/s", "cps": " c/s", "mps": " msg/s",
          "recps": " rec/s"}


def number(value, unit):
    """As Grafana writes it."""
    if math.isnan(value):
        return "NaN"
    if unit == "s":
        return seconds(value)
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit.startswith("suffix:"):
        return f"{value:.3g} {unit[7:]}"
    base, letters = (1024, ["", "Ki", "Mi", "Gi", "Ti"]) if unit in ("bytes", "Bps") else (1000, ["", "K", "M", "G", "T"])
    step = 0
    while abs(value) >= base and step < len(letters) - 1:
        value, step = value / base, step + 1
    digits = f"{value:.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"
    space = " " if unit in ("bytes", "Bps") else ""
    return f"{digits}{space}{letters[step]}{SUFFIX[unit]}"


def seconds(value):
    for bound, factor, word in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (60, 1, "s"), (3600, 1 / 60, "min"), (86400, 1 / 3600, "h"),
                                (31_557_600, 1 / 86400, "d"), (math.inf, 1 / 31_557_600, "y")):
        if abs(value) < bound:
            return f"{value * factor:.3g} {word}" if value else "0 s"
    raise AssertionError("unreachable")


def step_color(panel, value):
    color = "green"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    return COLORS[color]


class Frame:
    """The figure in pixels from the upper left corner."""

    def __init__(self, height_px):
        self.height = height_px
        self.figure = matplotlib.pyplot.figure(figsize=(WIDTH_PX / DPI, height_px / DPI), dpi=DPI, facecolor=PAGE)

    def axes(self, x, y, w, h):
        return self.figure.add_axes((x / WIDTH_PX, 1 - (y + h) / self.height, w / WIDTH_PX, h / self.height))

    def box(self, x, y, w, h, color=PANEL, edge=EDGE):
        self.figure.add_artist(matplotlib.patches.FancyBboxPatch(
            (x / WIDTH_PX, 1 - (y + h) / self.height), w / WIDTH_PX, h / self.height, boxstyle="square,pad=0", facecolor=color,
            edgecolor=edge, linewidth=0.8, transform=self.figure.transFigure, zorder=-1))

    def text(self, x, y, text, size=9, color=TEXT, **more):
        self.figure.text(x / WIDTH_PX, 1 - y / self.height, text, fontsize=size, color=color, va=more.pop("va", "top"), **more)


class Drawing:
    """One picture of (some rows of) a dashboard over a span of time that ends at `end`."""

    def __init__(self, board, prometheus, start, end, rows=None, **variables):
        self.board, self.prometheus, self.start, self.end, self.variables = board, prometheus, start, end, variables
        self.panels = self._rows(rows)
        height = HEAD_PX + max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in self.panels) * CELL_PX + GAP_PX
        self.frame = Frame(height)
        self.events = [value for event in board["annotations"]["list"] for _, points in self._series({"expr": event["expr"], "legendFormat": ""})
                       for value in {v / 1000 for _, v in points} if start < value < end]

    def _rows(self, wanted):
        """The panels of these rows, moved up to where the picture begins."""
        chosen, y, keep, top = [], 0, True, 0
        for panel in self.board["panels"]:
            if panel["type"] == "row":
                keep, top = wanted is None or panel["title"] in wanted, panel["gridPos"]["y"]
                y = max((p["gridPos"]["y"] + p["gridPos"]["h"] for p in chosen), default=0)
            if keep:
                chosen.append({**panel, "gridPos": {**panel["gridPos"], "y": panel["gridPos"]["y"] - top + y}})
        return chosen

    def save(self, path):
        self._head()
        for panel in self.panels:
            grid = panel["gridPos"]
            column = (WIDTH_PX - GAP_PX) / 24
            x, y = GAP_PX + grid["x"] * column, HEAD_PX + grid["y"] * CELL_PX
            w, h = grid["w"] * column - GAP_PX, grid["h"] * CELL_PX - GAP_PX
            if panel["type"] == "row":
                self.frame.text(x + 2, y + 9, "⌄ " + panel["title"], size=11, weight="bold")
                continue
            self.frame.box(x, y, w, h)
            words = panel["title"]
            while len(words) * 7.1 > w - 12:
                words = words[:-2].rstrip(" …") + "…"
            self.frame.text(x + 8, y + 8, words, size=8.5, weight="bold")
            getattr(self, "_" + panel["type"].replace("-", "_"))(panel, x + 8, y + 28, w - 16, h - 34)
        self.frame.figure.savefig(path, facecolor=PAGE)
        matplotlib.pyplot.close(self.frame.figure)

    def _head(self):
        self.frame.text(GAP_PX + 2, 12, self.board["title"], size=13, weight="bold")
        self.frame.text(WIDTH_PX - GAP_PX, 13, f"Last {round(self.end - self.start)} seconds", size=9, color=DIM, ha="right")
        x = GAP_PX + 2
        for variable in self.board["templating"]["list"]:
            value = self.variables.get(variable["name"], "Prometheus" if variable["type"] == "datasource" else "All")
            text = f"{variable['label']}: {value}"
            self.frame.text(x, 37, text, size=8, color=DIM)
            x += 30 + len(text) * 6.2

    def _series(self, target):
        expression = panels.concrete(target["expr"], **self.variables)
        return [(panels.legend(target, s["metric"]), [(float(t), float(v)) for t, v in s["values"]])
                for s in self.prometheus.range(expression, self.start, self.end, 1)]

    def _all(self, panel):
        return [series for target in panel["targets"] for series in self._series(target)]

    def _last(self, panel):
        """(labels, value) of an instant query."""
        return [(s["metric"], float(s["value"][1])) for s in self.prometheus.query(
            panels.concrete(panel["targets"][0]["expr"], **self.variables), self.end)]

    def _time_axis(self, axes):
        axes.set_xlim(self.start, self.end)
        ticks = [self.end - back for back in range(0, int(self.end - self.start) + 1, 30)]
        axes.set_xticks(ticks, [f"−{round(self.end - t)} s" if t < self.end else "now" for t in ticks])
        axes.tick_params(colors=DIM, labelsize=7, length=0, pad=3)
        axes.set_facecolor(PANEL)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for event in self.events:
            axes.axvline(event, color=COLORS["blue"], linewidth=0.9, linestyle=(0, (3, 3)))

    def _nothing(self, x, y, w, h):
        self.frame.text(x + w / 2, y + h / 2, "No data", size=10, color=DIM, ha="center", va="center")

    def _timeseries(self, panel, x, y, w, h):
        series = self._all(panel)
        if not series:
            self._nothing(x, y, w, h)
            return
        defaults = panel["fieldConfig"]["defaults"]
        stacked = defaults["custom"]["stacking"]["mode"] == "normal"
        # Those with the most to say; the others are counted.
        room = max(2, int((h - 110) // 20))
        largest = sorted(series, key=lambda s: -max((v for _, v in s[1] if not math.isnan(v)), default=-1))
        named = [s for s in series if any(s is top for top in largest[:room])]
        below = 15 * min(len(series), room) + (15 if len(series) > room else 0)
        axes = self.frame.axes(x + 52, y, w - 60, h - below - 22)
        base = {}
        for i, (name, points) in enumerate(series):
            color = self._color(panel, i)
            points = self._gaps(points)
            if stacked:
                low = [base.get(t, 0.0) for t, _ in points]
                points = [(t, v + b) for (t, v), b in zip(points, low)]
                base.update((t, v) for t, v in points if not math.isnan(v))
            else:
                low = [0] * len(points)
            times, heights = zip(*points)
            axes.plot(times, heights, color=color, linewidth=1.2)
            axes.fill_between(times, low, heights, color=color, alpha=0.25 if stacked else 0.08, linewidth=0)
        self._time_axis(axes)
        self._value_axis(axes, defaults["unit"], defaults.get("max"))
        self._legend(panel, series, named, x, y + h - below, w)

    def _color(self, panel, i):
        color = panel["fieldConfig"]["defaults"]["color"]
        if color["mode"] == "shades":
            red, green, blue = (int(COLORS[color["fixedColor"]][at:at + 2], 16) / 255 for at in (1, 3, 5))
            shade = 1 - 0.18 * (i % 4)
            return red * shade, green * shade, blue * shade
        return PALETTE[i % len(PALETTE)]

    def _value_axis(self, axes, unit, maximum):
        top = maximum or max(axes.get_ylim()[1], 1e-12)
        axes.set_ylim(bottom=0, top=top)
        if unit in ("bytes", "Bps"):
            step = 2 ** math.ceil(math.log2(top / 4))
            axes.yaxis.set_major_locator(matplotlib.ticker.MultipleLocator(step))
        else:
            axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4, integer=unit == "short" and top >= 1))
        axes.yaxis.set_major_formatter(lambda value, _: number(value, unit))
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)

    def _gaps(self, points):
        """Where a scrape failed the line is broken."""
        broken = []
        for (t, v) in points:
            if broken and t - broken[-1][0] > 1.5:
                broken.append((broken[-1][0] + 0.5, math.nan))
            broken.append((t, v))
        return broken

    def _legend(self, panel, series, named, x, y, w):
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for name, points in named:
            i = next(i for i, s in enumerate(series) if s[1] is points)
            there = [v for _, v in points if not math.isnan(v)]
            self.frame.text(x + 2, y, "━", size=9, color=self._color(panel, i))
            self.frame.text(x + 20, y + 1, name[:int((w - 230) / 5.4)], size=7.5)
            for at, word, value in ((w - 102, "last", points[-1][1]), (w, "max", max(there, default=math.nan))):
                self.frame.text(x + at, y + 1, f"{word} {number(value, unit)}", size=7.5, color=DIM, ha="right")
            y += 15
        if len(named) < len(series):
            self.frame.text(x + 20, y + 1, f"and {len(series) - len(named)} more", size=7.5, color=DIM)

    def _stat(self, panel, x, y, w, h):
        series = self._all(panel)
        if not series:
            self._nothing(x, y, w, h)
            return
        points = series[0][1]
        color = step_color(panel, points[-1][1])
        axes = self.frame.axes(x - 7, y + h * 0.55, w + 14, h * 0.45 + 5)
        axes.fill_between(*zip(*points), color=color, alpha=0.22, linewidth=0)
        axes.set_xlim(self.start, self.end)
        axes.set_ylim(0, max(max(v for _, v in points) * 1.1, 1e-9))
        axes.axis("off")
        self.frame.text(x + w / 2, y + h * 0.42, number(points[-1][1], panel["fieldConfig"]["defaults"]["unit"]), size=24, color=color,
                        weight="bold", ha="center", va="center")

    def _state_timeline(self, panel, x, y, w, h):
        series = self._all(panel)
        texts = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
        left = 14 + max((len(name) for name, _ in series), default=0) * 6
        axes = self.frame.axes(x + left, y + 4, w - left - 6, h - 52)
        for row, (_, points) in enumerate(series):
            for t, v in points:
                axes.barh(row, 1.02, left=t - 1, height=0.7, color=COLORS[texts[str(int(v))]["color"]], linewidth=0)
        self._time_axis(axes)
        axes.set_yticks(range(len(series)), [name for name, _ in series])
        axes.set_ylim(len(series) - 0.4, -0.6)
        at = x + left
        for option in texts.values():
            self.frame.text(at, y + h - 18, "■", size=9, color=COLORS[option["color"]])
            self.frame.text(at + 14, y + h - 17, option["text"], size=8)
            at += 36 + len(option["text"]) * 7

    def _table(self, panel, x, y, w, h):
        [transformation] = panel["transformations"]
        hidden, names = transformation["options"]["excludeByName"], transformation["options"]["renameByName"]
        rows = [{**labels, "Value": number(value, panel["fieldConfig"]["defaults"]["unit"])}
                for labels, value in sorted(self._last(panel), key=lambda row: -row[1])]
        if not rows:
            self._nothing(x, y, w, h)
            return
        columns = [c for c in rows[0] if not hidden.get(c)]
        longest = [max(len(str(r.get(c, ""))) for r in rows) + len(c) / 2 + 4 for c in columns]
        places = [x + 4 + (w - 8) * sum(longest[:i]) / sum(longest) for i in range(len(columns))] + [x + w]
        room = int((h - 24) // 17)
        for i, column in enumerate(columns):
            self.frame.text(places[i], y + 2, names.get(column, column), size=8, color=COLORS["blue"], weight="bold")
            letters = int((places[i + 1] - places[i] - 4) / 5.9)
            for line, row in enumerate(rows[:room]):
                text = str(row.get(column, ""))
                self.frame.text(places[i], y + 22 + 17 * line, text if len(text) <= letters else text[:letters - 1] + "…", size=8)
        if len(rows) > room:
            self.frame.text(x + w - 4, y + 2, f"{len(rows)} rows", size=7.5, color=DIM, ha="right")

    def _bargauge(self, panel, x, y, w, h):
        rows = [(panels.legend(panel["targets"][0], labels), value) for labels, value in self._last(panel)]
        if not rows:
            self._nothing(x, y, w, h)
            return
        each = min(30, (h - 4) / len(rows))
        largest = max(value for _, value in rows) or 1
        left = 14 + max(len(name) for name, _ in rows) * 6
        for i, (name, value) in enumerate(rows):
            top = y + 4 + i * each
            self.frame.text(x + 2, top + each / 2 - 2, name, size=8, va="center")
            self.frame.box(x + left, top, w - left - 60, each - 6, color=GRID, edge=GRID)
            self.frame.box(x + left, top, (w - left - 60) * value / largest, each - 6, color=step_color(panel, value), edge=GRID)
            self.frame.text(x + w - 4, top + each / 2 - 2, number(value, panel["fieldConfig"]["defaults"]["unit"]), size=9, va="center", ha="right",
                            color=step_color(panel, value))


def small(path):
    """A palette in place of full colour, which makes the file a third; colours that are rare stay what they are."""
    with PIL.Image.open(path) as image:
        method = PIL.Image.Quantize.MAXCOVERAGE
        image.convert("RGB").quantize(256, method=method, kmeans=1, dither=PIL.Image.Dither.NONE).save(path, optimize=True)
    return path.stat().st_size
