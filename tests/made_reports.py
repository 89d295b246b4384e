"""Results made up for the tests of the report, and readers of its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np

from gapbench.datasets.base import Layout
from gapbench.evaluation.entries import Kind
from gapbench.evaluation.report import report
from gapbench.evaluation.report_page import page
from gapbench.evaluation.results import Result

EMPTY = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def make(
    method: str,
    *,
    kind: Kind = "method",
    dataset: str = "sine",
    ratio: float | None = 0.5,
    coverage: float = 0.6,
    gap: bool = True,
    count: int = 6,
    curves: bool = True,
    failures: Mapping[int, str] | None = None,
    rhat: float | None = None,
    points: int = 13,
) -> Result:
    """A result of `count` replicas. ratio: the std over the reference's, and half of it in the gap."""
    x = np.linspace(-3, 3, points)
    masks = {"data": np.abs(x) > 1, **({"gap": np.abs(x) <= 1} if gap else {})}
    regions = {name: np.tile(mask, (count, 1)) for name, mask in masks.items()}
    wobble = np.linspace(0.99, 1.01, count)

    def by_region(value: float, in_gap: float) -> dict[str, Any]:
        return {name: wobble * (in_gap if name == "gap" else value) for name in ("all", *masks)}

    scores = {"crps_y": by_region(0.1, 0.2), "coverage_90_y": by_region(coverage, coverage)}
    if ratio is not None and kind == "method":
        scores["reference_log_std"] = by_region(np.log(ratio), np.log(ratio / 2))
        scores["reference_w1"] = by_region(0.1, 0.3)
    if rhat is not None:
        scores |= {"rhat": {"all": np.full(count, rhat)}, "rhat_limit": {"all": np.full(count, 1.05)}}
    f = np.tile(np.sin(x), (count, 1))
    drawn = {
        f"f_{level}": f + shift for level, shift in (("05", -0.2), ("25", -0.1), ("50", 0.0), ("75", 0.1), ("95", 0.2))
    }
    drawn |= {"x_test": np.tile(x[:, None], (count, 1, 1)), "f_test": f, "std_f": np.full((count, points), 0.12)}
    drawn |= {"x": np.tile(x[:4, None], (count, 1, 1)), "y": f[:, :4]}
    machine = {"seconds": 1.0, "cpu seconds": 6.0, "device": "abacus", "versions": {"torch": "1", "gapbench": "2"}}
    return Result(
        dataset,
        method,
        kind,
        np.arange(count),
        scores,
        {name: np.tile((np.arange(points) + 0.5) / points, (count, 1)) for name in ("pit_y", "pit_f")},
        regions,
        drawn if curves else {},
        Layout("grid", 0),
        None,
        {},
        failures or {},
        [machine],
    )


def page_of(results: Sequence[Result], **more: Any) -> str:
    return page(report(results, "trial", **more))


class Checked(HTMLParser):
    """The tags, ids, texts and scripts of a page, and its rows of cells without small print; whatever is not closed or
    closed twice is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.inside: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open
        ids = [value for _, name, value in self.attributes if name == "id"]
        assert len(ids) == len(set(ids)), Counter(ids).most_common(3)
        links = [value[1:] for tag, name, value in self.attributes if (tag, name) == ("a", "href")]
        links += [value for _, name, value in self.attributes if name == "aria-labelledby"]
        assert set(links) <= set(ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, tag  # only SVG has tags that close themselves
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.inside.setdefault(self.open[-1], []).append(data)
        if {"td", "th"} & set(self.open) and "small" not in self.open:
            self.rows[-1][-1] += data


def rows_of(text: str) -> list[list[str]]:
    return [[word.strip() for word in row] for row in Checked(text).rows]
