"""The numbered figures and tables of a built page, with their data."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

FIGURE = re.compile(r'<figure id="([^"]+)" data-number="(\w+) ([\w.]+)"(.*?)</figure>', re.S)
LINK = re.compile(r'<a href="(_static/data/[^"]+\.csv)" download="[^"]+">Data as CSV</a>')


@dataclass(frozen=True)
class Numbered:
    """A figure or table of a page: its anchor, its kind, its number, the file of its data, and the text of its fold."""

    anchor: str
    kind: str
    number: str
    data: Path
    told: str

    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.data)


def numbered(page: Path) -> list[Numbered]:
    """The figures and tables of a page in their order; each must have its data and its source."""
    found = []
    for anchor, kind, number, rest in FIGURE.findall(page.read_text(encoding="utf-8")):
        (data,), (told,) = LINK.findall(rest), re.findall(r'<details class="ddpo-source">(.*?)</details>', rest, re.S)
        found.append(Numbered(anchor, kind, number, page.parent / data, re.sub(r"<[^>]+>", "", told)))
    return found


def check_page(page: Path) -> list[Numbered]:
    """The figures and tables of a page, whose numbers, anchors, data and sources are tested on the way."""
    found = numbered(page)
    ids = re.findall(r'\sid="([^"]+)"', page.read_text(encoding="utf-8"))
    for kind in ("Figure", "Table"):
        places = [int(one.number.partition(".")[2]) for one in found if one.kind == kind]
        assert places == list(range(1, len(places) + 1)), (page.name, kind)
    for one in found:
        assert ids.count(one.anchor) == 1, (page.name, one.anchor)
        assert len(one.table()) >= 1, (page.name, one.anchor)
        assert not any(str(column).startswith("Unnamed") for column in one.table().columns), (page.name, one.anchor)
        assert f"Made by notebooks/{page.stem}.md at commit " in one.told, (page.name, one.anchor)
        assert "Data from " in one.told or "From no artifact" in one.told, (page.name, one.anchor)
    return found
