"""The page of what moved between two folders: one HTML file without scripts, which needs no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from gapbench.evaluation.headline import HEADINGS, Heading, percent
from gapbench.evaluation.moved import VERDICTS, Number, Place, summary
from gapbench.evaluation.report_page import hashed
from gapbench.evaluation.scores import SCORES
from gapbench.evaluation.tables import number

FILE = Path(__file__)
MEANINGS = {
    "moved": "Chance alone moves so far at most once in twenty pairs of folders, all numbers of the page together.",
    "noise": "Chance moves numbers as far as this. The interval says how large a change may hide in it.",
    "not tested": "Nothing is known of chance; the last column but one says why.",
    "within tolerance": "Each replica differs by at most 0.1 % of the size of the number: rounding, in most cases.",
    "same bits": "Each replica has the same number, in float32 if a folder is published.",
}


def page(
    names: tuple[str, str],
    numbers: Sequence[Number],
    alone: Sequence[str],
    changed: Mapping[Place, Mapping[str, str]],
    origin: Sequence[tuple[str, str]],
    notes: Sequence[str] = (),
) -> str:
    """The page as HTML; every word in it is escaped.

    names: of A and B. alone: sentences on what only one of them has. changed: what of a dataset's method is not the
    same in both, name -> words. origin: how the folders differ. notes: sentences on what is not shown.
    """
    html, style = (FILE.with_name(name).read_text(encoding="utf-8") for name in ("report_moved.html", "report.css"))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    groups = {verdict: [words(one, changed) for one in numbers if one.verdict == verdict] for verdict in VERDICTS}
    return environment.from_string(html).render(
        names=names,
        summary=summary(numbers),
        groups={verdict: lines for verdict, lines in groups.items() if lines},
        meanings=MEANINGS,
        alone=alone,
        changed=_grouped(changed),
        origin=origin,
        notes=notes,
        style=Markup(style),
        style_hash=hashed(style),
    )


def words(one: Number, changed: Mapping[Place, Mapping[str, str]]) -> tuple[str, ...]:
    """A line of the page. A log ratio of stds is shown as the ratio, and its difference as a factor."""
    name, region = one.column
    heading = HEADINGS.get(name, Heading(name))
    place = "" if SCORES[name].across else f" · {region}"
    if name == "reference_log_std":
        a, b = (number(math.exp(min(value, 700.0))) for value in (one.a, one.b))
        ends = [f"{math.exp(min(value, 700.0)):.3g}" for value in vars(one.difference).values()]
        lead, unit = "× ", ""
    elif heading.print is percent:
        a, b = ("n/a" if math.isnan(value) else f"{100 * value:.3g} %" for value in (one.a, one.b))
        ends, lead, unit = [f"{100 * value:+.3g}" for value in vars(one.difference).values()], "", " points"
    else:
        a, b = number(one.a), number(one.b)
        ends, lead, unit = [f"{value:+.3g}" for value in vars(one.difference).values()], "", ""
    interval = "" if math.isnan(one.difference.low) else f" [{ends[1]}, {ends[2]}]"
    known = one.verdict != "same bits" and math.isfinite(one.difference.value)
    difference = f"{lead}{ends[0]}{unit}{interval}" if known else ""
    what = ", ".join(changed.get((one.dataset, one.method), {}))
    return one.dataset, one.method, heading.words + place, a, b, difference, one.basis, what


def _grouped(changed: Mapping[Place, Mapping[str, str]]) -> list[tuple[str, str, str, str]]:
    """Method, its datasets, what is not the same, and how: a line for each change, whatever the number of datasets."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for (dataset, method), parts in changed.items():
        for name, how in parts.items():
            found.setdefault((method, name, how), []).append(dataset)
    return [(method, ", ".join(datasets), name, how) for (method, name, how), datasets in found.items()]
