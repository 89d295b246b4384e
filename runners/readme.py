"""Writes the generated parts of the README: the tables of results/published, with the hash of what they are of.

A generated part stands between `<!-- results: SUITE HASH -->` and `<!-- end -->`, and shows results/published/SUITE.
"""

from __future__ import annotations

import re
from pathlib import Path

from gapbench.evaluation.render import markdown, markdown_runs
from gapbench.evaluation.tables import run_table, sentences, tabulate
from gapbench.runners.publish import published_hash, read_published

PART = re.compile(r"<!-- results: (?P<suite>\w+) (?P<hash>\w*) -->\n.*?<!-- end -->", re.DOTALL)


def refresh(readme: Path) -> list[Path]:
    """Rewrite every generated part. Returns what was written."""
    written = [readme]

    def part(match: re.Match[str]) -> str:
        folder = published(readme, match["suite"])
        found = read_published(folder)
        figures = sorted((folder / "figures").glob("*.png"))
        images = [f"![{path.stem}]({path.relative_to(readme.parent).as_posix()})" for path in figures]
        pieces = [
            f"<!-- results: {match['suite']} {published_hash(folder)} -->",
            markdown(tabulate(found)),
            markdown_runs(run_table(found)),
            "\n".join(f"* {sentence}" for sentence in sentences(found)),
            "\n".join(images),
            "<!-- end -->",
        ]
        return "\n\n".join(piece for piece in pieces if piece)

    text = PART.sub(part, readme.read_text())
    readme.write_text(text)
    return written


def stale(readme: Path) -> list[str]:
    """The suites whose part of the README is not of what is published."""
    return [
        match["suite"]
        for match in PART.finditer(readme.read_text())
        if match["hash"] != published_hash(published(readme, match["suite"]))
    ]


def published(readme: Path, suite: str) -> Path:
    return readme.parent / "results" / "published" / suite
