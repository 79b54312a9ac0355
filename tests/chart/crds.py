"""The CRDs in the chart are copies of the generated ones in crds/, since Helm reads nothing outside a chart."""
import chart

SOURCE = chart.ROOT / "crds"
COPY = chart.CHART / "files" / "crds"


def _read(folder):
    return {p.name: p.read_text() for p in sorted(folder.glob("*.yaml"))}


def stale():
    return _read(SOURCE) != _read(COPY)


def update():
    COPY.mkdir(parents=True, exist_ok=True)
    for old in COPY.glob("*.yaml"):
        old.unlink()
    for name, text in _read(SOURCE).items():
        (COPY / name).write_text(text)
