"""Pages that are generated: from results/published the headline of the README, the page of each suite, and
docs/methods.md; from the code docs/commands.md and the tables of docs/suites.md and docs/scores.md.

The headline stands between `<!-- headline: SUITE DATASET -->` and `<!-- end -->`. In docs/uci.md, a table of published
numbers beside ours stands between `<!-- published: SUITE -->` and `<!-- end -->`; a table of TABLES stands between its
name, such as `<!-- suites -->`, and `<!-- end -->`. runners/costs.json, what cells cost, comes from the same manifests.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from gapbench.evaluation.headline import headlines
from gapbench.evaluation.literature import PROTOCOLS, compared
from gapbench.evaluation.render import markdown_headlines
from gapbench.runners.cli.main import main
from gapbench.runners.commands_page import commands_page
from gapbench.runners.costs import ANY
from gapbench.runners.methods_page import SHOWN, methods_page, panels
from gapbench.runners.publish import MANIFEST, README, page, read_manifest, read_published
from gapbench.runners.scores_page import scores_table
from gapbench.runners.store import StoreError
from gapbench.runners.suites_page import suites_table

PART = re.compile(r"(<!-- headline: (?P<suite>\S+) (?P<dataset>\S+) -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)
PUBLISHED = re.compile(r"(<!-- published: (?P<suite>\S+) -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)
TABLE = re.compile(r"(<!-- (?P<name>\w+) -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)
TABLES = {"suites": suites_table, "scores": scores_table}


def refresh(readme: Path) -> list[Path]:
    """Rewrite the README's headline, every suite's page, docs/ and the costs of cells. Returns the files that changed.

    Raises StoreError if a published folder is damaged.
    """
    changed = []
    suites = sorted(path.parent for path in published(readme).glob(f"*/{MANIFEST}"))
    texts = {readme: with_headline(readme), **{suite / README: page(suite, read_published(suite)) for suite in suites}}
    docs = readme.parent / "docs"
    if docs.is_dir():
        texts[docs / "uci.md"] = with_literature(docs / "uci.md", published(readme))
        texts |= {docs / f"{name}.md": with_table(docs / f"{name}.md") for name in TABLES}
        texts[docs / "commands.md"] = commands_page(main)
    code = readme.parent / "runners"
    if code.is_dir():
        texts[code / "costs.json"] = costs(published(readme))
    every = published(readme) / "all"
    if every in suites:
        rows = [one for one in read_published(every) if one.dataset == SHOWN]
        folder = docs / "methods"
        folder.mkdir(exist_ok=True)
        for name, data in panels(rows).items():
            (folder / f"{name}.png").write_bytes(data)
        texts[docs / "methods.md"] = methods_page(rows)
    for path, text in texts.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8", newline="\n")
            changed.append(path)
    return changed


def with_headline(readme: Path) -> str:
    """The README's text with its headlines replaced by those of the published results. Raises StoreError."""

    def headline(match: re.Match[str]) -> str:
        results = read_published(published(readme) / match["suite"])
        rows = [result for result in results if result.dataset == match["dataset"]]
        if not rows:
            raise StoreError(f"{readme}: {match[1].strip()}: suite {match['suite']} has no dataset of this name")
        return f"{match[1]}{markdown_headlines(headlines(rows)[:1])}\n{match[4]}"

    return PART.sub(headline, readme.read_text(encoding="utf-8"))


def with_literature(page: Path, folder: Path) -> str:
    """The text of a page with its tables of published numbers beside those of our published results."""

    def table(match: re.Match[str]) -> str:
        suite = match["suite"]
        return f"{match[1]}{compared(PROTOCOLS[suite], read_published(folder / suite))}\n{match[3]}"

    return PUBLISHED.sub(table, page.read_text(encoding="utf-8"))


def with_table(page: Path) -> str:
    """The text of a page with its table of what the code has."""
    text = page.read_text(encoding="utf-8")
    return TABLE.sub(lambda match: f"{match[1]}{TABLES[match['name']]()}\n{match[3]}", text)


def costs(folder: Path) -> str:
    """The text of costs.json: the CPU seconds a replica of each method on each dataset, and their median."""
    rows = [
        (record["key"], result["method"], result["dataset"], stop - first, record["cpu seconds"])
        for path in sorted(folder.glob(f"*/{MANIFEST}"))
        for result in read_manifest(path.parent)["results"]
        for record in result["records"]
        for first, stop in [record["block"]]
        if result["kind"] == "method" and "cpu seconds" in record
    ]
    frame = pd.DataFrame(rows, columns=["key", "method", "dataset", "replicas", "seconds"])
    frame = frame.drop_duplicates("key")  # several suites have the same record
    sums = frame.groupby(["method", "dataset"])[["seconds", "replicas"]].sum()
    found = {
        method: {name: float(f"{seconds:.3g}") for name, seconds in [(ANY, each.median()), *each.droplevel(0).items()]}
        for method, each in (sums["seconds"] / sums["replicas"]).groupby("method")
    }
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def published(readme: Path) -> Path:
    return readme.parent / "results" / "published"
