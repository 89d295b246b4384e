"""Writes the generated parts of the README: the tables and figures of results/published, and which records they are of.

A generated part stands between `<!-- results: SUITE HASH -->` and `<!-- end -->`, and shows results/published/SUITE.
"""

from __future__ import annotations

import re
from pathlib import Path

from gapbench.evaluation.plots import plot
from gapbench.evaluation.tables import COMPARED, departures, markdown, provenance, remarks, run_table, summarise
from gapbench.runners.store import Store, canonical, results, sha256

PART = re.compile(r"<!-- results: (?P<suite>\w+) (?P<hash>\w*) -->\n.*?<!-- end -->", re.DOTALL)


def refresh(readme: Path) -> list[Path]:
    """Rewrite every generated part and its figures. Returns what was written."""
    written = [readme]

    def part(match: re.Match[str]) -> str:
        folder = published(readme, match["suite"])
        rows = results(folder)
        figures = plot(rows, folder / "figures")
        written.extend(figures)
        images = [f"![{path.stem}]({path.relative_to(readme.parent).as_posix()})" for path in figures]
        sentences = (*departures(rows), *remarks(summarise(rows, COMPARED)), *provenance(rows))
        pieces = [
            f"<!-- results: {match['suite']} {records_hash(folder)} -->",
            markdown(summarise(rows)),
            run_table(rows, markdown=True),
            "\n".join(f"* {sentence}" for sentence in sentences),
            "\n".join(images),
            "<!-- end -->",
        ]
        return "\n\n".join(piece for piece in pieces if piece)

    text = PART.sub(part, readme.read_text())
    readme.write_text(text)
    return written


def stale(readme: Path) -> list[str]:
    """The suites whose part of the README is not of the records that are published."""
    return [
        match["suite"]
        for match in PART.finditer(readme.read_text())
        if match["hash"] != records_hash(published(readme, match["suite"]))
    ]


def published(readme: Path, suite: str) -> Path:
    return readme.parent / "results" / "published" / suite


def records_hash(folder: Path) -> str:
    """Of all records of a results folder, whatever order they were written in."""
    return sha256(canonical(sorted(canonical(record) for record in Store(folder).records())))[:16]
