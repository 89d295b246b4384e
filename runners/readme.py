"""Writes the generated parts of the README: the tables and figures of results/published, and which results they are of.

A generated part stands between `<!-- results: SUITE HASH -->` and `<!-- end -->`, and shows results/published/SUITE.
"""

from __future__ import annotations

import re
from pathlib import Path

from gapbench.runners.publish import published_hash, read_published, section

PART = re.compile(r"<!-- results: (?P<suite>\w+) (?P<hash>\w*) -->\n.*?<!-- end -->", re.DOTALL)


def refresh(readme: Path) -> list[Path]:
    """Rewrite every generated part. Returns what was written. Raises StoreError if a published folder is damaged."""

    def part(match: re.Match[str]) -> str:
        folder = published(readme, match["suite"])
        images = sorted((folder / "figures").glob("*.png"))
        paths = [path.relative_to(readme.parent).as_posix() for path in images]
        head = f"<!-- results: {match['suite']} {published_hash(folder)} -->"
        return "\n\n".join([head, section(read_published(folder), paths), "<!-- end -->"])

    readme.write_text(PART.sub(part, readme.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    return [readme]


def stale(readme: Path) -> list[str]:
    """The suites whose part of the README is not of the results that are published."""
    return [
        match["suite"]
        for match in PART.finditer(readme.read_text(encoding="utf-8"))
        if match["hash"] != published_hash(published(readme, match["suite"]))
    ]


def published(readme: Path, suite: str) -> Path:
    return readme.parent / "results" / "published" / suite
