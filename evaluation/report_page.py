"""The page of a report: one HTML file, with its style, its script and its curves inside, that asks no network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from gapbench.evaluation import report_svg
from gapbench.evaluation.ranks import LEVEL
from gapbench.evaluation.report import Report
from gapbench.evaluation.report_charts import Bands, Curves, Dots, Scatter
from gapbench.evaluation.report_ranks import Ranks
from gapbench.evaluation.results import Floats
from gapbench.evaluation.tables import number

FILE = Path(__file__)
CURVES = 450_000  # bytes of all embedded curves; beyond that the page has the first replicas alone
UNKNOWN = 65535  # the code of a number that is not known


def page(report: Report, progress: str = "", refresh: int = 0) -> str:
    """The page as HTML; every word in it is escaped.

    progress: a sentence on how much of the run is done. refresh: seconds after which a browser reads the page again.
    """
    html, style, script = (
        FILE.with_name(f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    replicas = embedded(report)
    return environment.from_string(html).render(
        report=report,
        progress=progress,
        refresh=refresh,
        style=Markup(style),
        script=Markup(script),
        style_hash=hashed(style),
        script_hash=hashed(script),
        curves=_json([coded(section.bands, replicas) for section in report.sections if section.bands]),
        ranks=_json(rank_numbers(report.ranks) if report.ranks else None),
        replicas=replicas,
        svg=report_svg,
        table=table,
        number=lambda value: "" if math.isnan(value) else f"{value:.6g}",
    )


def table(chart: Dots | Curves | Scatter) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The data of a chart: headings, and lines of words."""
    if isinstance(chart, Curves):
        heads = (chart.axis, *(line.label for line in chart.lines))
        across = chart.ticks or [number(float(value)) for value in chart.x]
        columns = (across, *(map(number, line.values.tolist()) for line in chart.lines))
        return heads, list(zip(*columns, strict=True))
    if isinstance(chart, Scatter):
        heads = ("method", chart.axis, chart.unit, "95 % interval", "no other one beats it in both")
        return heads, [
            (
                spot.label,
                number(spot.x),
                number(spot.y.value),
                "n/a" if np.isnan(spot.y.low) else f"{number(spot.y.low)} to {number(spot.y.high)}",
                "yes" if spot.method in chart.front else "no" if spot.ranked else "not ranked",
            )
            for spot in chart.spots
        ]
    several = len(chart.series) > 1
    heads = tuple(
        word + (f" · {name}" if several else "") for name in chart.series for word in ("value", "95 % interval")
    )
    lines = []
    for row in chart.rows:
        words = [row.label]
        for one in row.estimates:
            known = np.isfinite([one.low, one.high]).all()
            words += ["n/a" if np.isnan(one.value) else chart.word(one.value)]
            words += [f"{chart.word(one.low)} to {chart.word(one.high)}" if known else "n/a"]
        lines.append(tuple(words))
    return ("method", *heads), lines


def rank_numbers(ranks: Ranks) -> dict[str, object]:
    """The numbers by which the page's script ranks some of the methods again."""
    return {
        "methods": [row.method for row in ranks.rows],
        "goodness": ranks.goodness.tolist(),
        "p": [[float(f"{value:.4g}") for value in line] for line in ranks.p.tolist()],
        "level": LEVEL,
    }


def embedded(report: Report) -> int:
    """The number of replicas whose bands the page embeds: as many as fit into CURVES, and one at least."""
    shown = [section.bands for section in report.sections if section.bands]
    most = max((len(bands.replicas) for bands in shown), default=0)
    each = sum(len(bands.x) * 3 * (len(bands.methods) + 1) * 2 * 4 / 3 for bands in shown)
    return min(most, max(1, int(CURVES / each))) if shown else 0


def coded(bands: Bands, replicas: int) -> dict[str, object]:
    """The bands of the first replicas in 16 bits.

    The codes 0 to 65534 of x stand for the window. Those of y also stand for one height of the window below it and one
    above it, so that a line leaves the window at the right slope.
    """
    low, high = bands.limits
    height = high - low

    def up(values: Floats | None) -> str:
        return "" if values is None else _coded(values, low - height, high + height)

    points = [None if pair is None else [_coded(pair[0], *bands.across), up(pair[1])] for pair in bands.data]
    return {
        "x": _coded(bands.x, *bands.across),
        "points": len(bands.x),
        "replicas": bands.replicas[:replicas],
        "truth": up(None if bands.truth is None else bands.truth[:replicas]),
        "reference": up(None if bands.reference is None else bands.reference[:, :replicas]),
        "data": points[:replicas],
        "methods": [
            {"name": one.label, "of": one.of, "class": report_svg.CLASSES[one.style[0]], "colour": one.style[0]}
            | {"band": up(one.quantiles[:, :replicas])}
            for one in bands.methods
        ],
    }


def _coded(values: Floats, low: float, high: float) -> str:
    share = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    codes = np.where(np.isnan(share), UNKNOWN, np.nan_to_num(share) * (UNKNOWN - 1)).round().astype("<u2")
    return base64.b64encode(codes.tobytes()).decode()


def _json(value: object) -> Markup:
    """JSON for a script element, which no text in it can close."""
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026"))


def hashed(text: str) -> str:
    """The hash by which the page's policy allows this text alone."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
