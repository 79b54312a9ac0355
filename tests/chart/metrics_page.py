"""Families of metrics, as docs/metrics.md tells them and as a program exposes them: both read into one form, nothing judged."""
import dataclasses
import re


@dataclasses.dataclass
class Family:
    kind: str
    labels: set
    unit: str = ""
    meaning: str = ""
    values: dict = dataclasses.field(default_factory=dict)


class Page:
    """The tables of docs/metrics.md: families, and the closed lists of values by label."""

    def __init__(self, text):
        self.families, self.lists = {}, {}
        heads = []
        for line in text.splitlines():
            cells = [c.strip() for c in line.strip("|").split("|")] if line.startswith("|") else []
            if not cells:
                heads = []
            elif not heads:
                heads = cells
            elif heads[0] == "Family" and "---" not in cells[0]:
                [name] = words(cells[0])
                self.families[name] = Family(cells[1], set(words(cells[2])), cells[3], cells[4])
            elif "---" not in cells[0]:
                self.lists.setdefault(heads[0].lower(), set()).update(words(cells[0]))


def words(cell):
    return re.findall(r"`(\w+)`", cell)


def exposed(*texts):
    """The families of programs in Prometheus' text form, with the labels and their values over all series."""
    families = {}
    for text in texts:
        current = None
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                current = families.setdefault(name, Family(kind, set()))
            elif current and not line.startswith("#"):
                for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', line.partition("{")[2]):
                    if label != "le":
                        current.labels.add(label)
                        current.values.setdefault(label, set()).add(value)
    return families
