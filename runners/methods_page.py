"""The page of the methods, docs/methods.md: what each is and claims, and how it did in the published suite `all`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gapbench.evaluation.bootstrap import estimate
from gapbench.evaluation.drawing import drawable
from gapbench.evaluation.headline import factor
from gapbench.evaluation.plots import panel, picture
from gapbench.evaluation.results import Result
from gapbench.evaluation.tables import cpu_seconds, number
from gapbench.methods.base import UncertaintyMethod
from gapbench.runners.description import description
from gapbench.runners.suites import suites

SHOWN = "gapped_sine_noisy"
PANEL = 16_000  # bytes of a panel
TOP = f"""# Methods

This page is written by `gapbench readme`: each method's file, what it claims, and what it did on `{SHOWN}` in
[the suite `all`](../results/published/all/README.md). Every panel shows replica 0: median, 50 and 90 % of f (of y where
a method has no f); dashed the truth; grey the data and the gap.

* **Claim**: the law of θ on Bayesian linear regression, which `gapbench check` compares over 128 data sets.
* **In the data, in the gap**: the std of f over the true posterior's. 1 is right.
* **Distance**: of f from the posterior in the gap (Wasserstein), in the posterior's stds.
* **CPU seconds**: of training and predicting one of ten replicas."""


def methods_page(rows: Sequence[Result]) -> str:
    """The page of the published methods, in Markdown. rows: the published results on SHOWN."""
    methods, found = suites()["all"].methods, found_methods(rows)
    lines = ["| | in the data | in the gap | distance | CPU seconds |", "| --- | ---: | ---: | ---: | ---: |"]
    lines += [f"| [{name}](#{name}) | {' | '.join(measured(found[name]))} |" for name in sorted(found)]
    parts = [TOP, "\n".join(lines), *(section(name, methods[name], found[name]) for name in sorted(found))]
    return "\n\n".join(parts) + "\n"


def found_methods(rows: Sequence[Result]) -> dict[str, Result]:
    """The results of the methods that the page is about, by name: those on request are variants of these."""
    methods = suites()["all"].methods
    return {one.method: one for one in rows if one.kind == "method" and one.method in methods}


def panels(rows: Sequence[Result]) -> Mapping[str, bytes]:
    """The picture of each method that has one, as PNG."""
    own = list(found_methods(rows).values())
    drawn = {one.method: panel(one, own) for one in own}
    return {name: picture(figure, name, PANEL) for name, figure in drawn.items() if figure is not None}


def section(name: str, method: UncertaintyMethod, result: Result) -> str:
    """The part of one method."""
    told = description(method)
    settings = repr(method).partition("(")[2].removesuffix(")")
    facts = [f"* **Family**: {told.family}"] if told.family else []
    facts += [f"* **Claim**: {told.claim}"]
    facts += [f"* **When it fails**: {told.caveat}"] if told.caveat else []
    facts += [f"* **Settings**: `{settings}`"] if settings else []
    data, gap, distance, seconds = measured(result)
    facts.append(f"* In the data {data}, in the gap {gap}; distance {distance}; {seconds} CPU seconds")
    parts = [f"## {name}", f"{told.title}\n\n{told.body}".strip(), "\n".join(facts)]
    parts += [f"![{name}](methods/{name}.png)"] if drawable(result) else []
    return "\n\n".join(parts)


def measured(result: Result) -> tuple[str, str, str, str]:
    """The ratios of stds in data and gap, the distance in the gap, and the CPU seconds, in words."""
    columns = (("reference_log_std", "data"), ("reference_log_std", "gap"), ("reference_w1", "gap"))
    data, gap, distance = (estimate(result, column, result.valid(column)) for column in columns)
    seconds = cpu_seconds(result)
    words = (factor(data), factor(gap), number(distance))
    known = ("n/a" if math.isnan(value) else word for value, word in zip((data, gap, distance), words, strict=True))
    first, second, third = known
    return first, second, third, "" if seconds is None else number(seconds)
