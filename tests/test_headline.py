"""The headline: the right numbers in words, a line a method, no wider than 100 columns."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from gapbench.datasets.base import Layout
from gapbench.evaluation.entries import Kind
from gapbench.evaluation.headline import Headline, factor, headlines, most
from gapbench.evaluation.render import markdown_headlines, text_headline
from gapbench.evaluation.results import Result
from gapbench.runners.cli.console import print_whole

MASKS = {"data": [True, True, False, False], "gap": [False, False, True, True]}


def make(
    method: str,
    *,
    kind: Kind = "method",
    layout: Layout | None = None,
    masks: Mapping[str, Sequence[bool]] = MASKS,
    declared: tuple[tuple[str, str], ...] | None = None,
    failures: Mapping[int, str] | None = None,
    epsilon: float | None = None,
    count: int = 4,
    **scores: Any,
) -> Result:
    """A result of `count` replicas. scores: a value, or one for each replica; twice that in the gap."""
    regions = {name: np.tile(mask, (count, 1)) for name, mask in masks.items()}

    def by_region(value: Any) -> dict[str, NDArray[np.float64]]:
        values = np.broadcast_to(np.asarray(value, dtype=float), count)
        values = np.where(np.isin(np.arange(count), list(failures or {})), np.nan, values)
        return {region: 2 * values if region == "gap" else values for region in ("all", *masks)}

    return Result(
        "sine",
        method,
        kind,
        np.arange(count),
        {name: by_region(value) for name, value in {"crps_y": 0.1, **scores}.items()},
        {name: np.full((count, 4), np.nan) for name in ("pit_y", "pit_f")},
        regions,
        {},
        layout or Layout("grid", 0),
        declared,
        {} if epsilon is None else {"epsilon": np.full(count, epsilon)},
        failures or {},
        [{"seconds": 1.0, "cpu seconds": 6.0, "device": "abacus", "versions": {"torch": "1", "gapbench": "2"}}],
    )


FULL = {"reference_log_std": np.log(0.5), "reference_w1": 0.3, "coverage_90_f": 0.4, "coverage_90_y": 0.45}


def printed(headline: Headline, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_whole(console, text_headline(headline))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def row(headline: Headline, method: str) -> dict[str, str]:
    [words] = [words for name, _, words in headline.lines if name.split(" ")[0] == method]
    return dict(zip(headline.headings, words, strict=True))


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (0.3, "0.3 × too narrow"),
        (0.452, "0.45 × too narrow"),
        (0.79, "0.79 × too narrow"),
        (0.81, "0.81"),
        (1.0, "1.00"),
        (1.24, "1.24"),
        (1.26, "1.3 × too wide"),
        (166.0, "170 × too wide"),
        (0.0, "no std"),
    ],
)
def test_a_ratio_is_told_in_words(ratio: float, words: str) -> None:
    """Seen to catch: wide and narrow exchanged, the logarithm printed."""
    with np.errstate(divide="ignore"):
        assert factor(float(np.log(ratio))) == words


def test_a_line_says_what_the_scores_say() -> None:
    """Each number in its column, of its region. Seen to catch: the region of another column, shares for percent,
    seconds of all replicas for those of one, controls given seconds."""
    [headline] = headlines([make("narrow", width_90_y=0.7, **FULL), make("prior", kind="baseline", **FULL)])
    assert headline.title == "sine: mean over 4 replicas"
    assert row(headline, "narrow") == {
        "std ÷ posterior's · data": "0.5 × too narrow",
        "std ÷ posterior's · gap": "0.25 × too narrow",
        "distance to it · gap": "0.6",
        "90 % has f · gap": "80 %",
        "90 % has y · gap": "90 %",
        "width of y · gap": "1.4",
        "CRPS of y · gap": "0.2",
        "CPU s each": "1.5",
    }
    assert row(headline, "prior")["CPU s each"] == "" and headline.lines[1][0] == "prior (baseline)"


def test_what_a_reader_must_know_stands_below() -> None:
    """Marks, failures, scores that few replicas have, ε where it is finite; no sentence on what is not shown. Seen to
    catch: every sentence always, an ε that is infinite, a failed replica counted as one without a score."""
    some = [0.3, np.nan, np.nan, 0.1]
    rows = [
        make("best", crps_y=[0.05, 0.06, 0.05, 0.05], failures={2: "diverged"}, reference_w1=some),
        make("chains", rhat=9.0, rhat_limit=1.1, epsilon=4.5),
        make("gone", failures=dict.fromkeys(range(4), "diverged")),
        make("open", epsilon=np.inf),
    ]
    [headline] = headlines(rows)
    names = [name for name, _, _ in headline.lines]
    assert names == ["best (1 of 4 failed)", "open", "chains †", "gone ‡"]
    assert [ranked for _, ranked, _ in headline.lines] == [True, True, False, False]
    notes = "\n".join(headline.notes)
    assert (
        "distance to it: only 2 of the replicas have it." in notes
        and "† not converged" in notes
        and "‡ failed" in notes
    )
    assert "CRPS of y" not in notes.partition("only")[2]
    assert "chains ε = 4.5;" in notes and "open" not in notes and "90 % has f" not in notes
    [headline] = headlines([make("a", reference_w1=0.3), make("b", reference_w1=some)])
    assert "distance to it of b: only 2 of the replicas have it." in headline.notes
    [plain] = headlines([make("a"), make("b")])
    assert not any(mark in "\n".join(plain.notes) for mark in ("†", "‡", "ε", "only", "No methods"))
    [controlled] = headlines([make("a"), make("prior", kind="baseline"), make("truth", kind="oracle")])
    words = "No methods, and not ranked: prior is the untrained network, truth is the true law of y."
    assert words in controlled.notes


def test_a_method_with_fewer_replicas_says_so() -> None:
    """Beside its name. CPU seconds of which some are not known are not shown. Seen to catch: four replicas claimed for
    two, the seconds of one block divided by the replicas of all."""
    few = make("few", crps_y=0.01, count=2)
    [whole] = few.provenance
    part = replace(few, provenance=[whole, {name: value for name, value in whole.items() if name != "cpu seconds"}])
    [headline] = headlines([part, make("all")])
    assert [name for name, _, _ in headline.lines] == ["few (2 replicas)", "all"]
    assert row(headline, "few")["CPU s each"] == "" and row(headline, "all")["CPU s each"] == "1.5"


def test_nothing_is_best_below_five_replicas() -> None:
    """Seen to catch: every value marked."""
    [headline] = headlines([make("a", crps_y=0.1), make("b", crps_y=0.5)])
    assert not any(word.endswith("*") for _, _, words in headline.lines for word in words)


def test_every_layout_has_columns() -> None:
    """Those that the dataset declares, else those of tasks, of rows and of a grid without a gap. Seen to catch: columns
    of a gap that is not there, declared columns ignored, a score of the data without that of the gap."""
    rows, tasks = Layout("rows"), Layout("tasks")
    f = {"coverage_90_f": 0.4}
    assert most([make("a", layout=rows, masks={}, **f)])[0] == ("rmse_y", "all")
    assert not any(region == "gap" for _, region in most([make("a", masks={"data": [True] * 4}, **f)]))
    assert most([make("a", **f)])[0] == ("gap_ratio", "all") and most([make("a", **FULL)])[2] == ("reference_w1", "gap")
    assert {name for name, _ in most([make("a", layout=tasks, **f)])} == {"coverage_90_f", "pit_ks_f", "crps_f"}
    assert {name for name, _ in most([make("a", layout=tasks)])} == {"coverage_90_y", "pit_ks_y", "crps_y"}
    own = (("std_y", "gap"), ("crps_y", "all"))
    assert most([make("a", declared=own)]) == own
    pairs = tuple(
        (name, region) for name in ("rmse_y", "nll_y", "crps_y", "coverage_90_y", "std_y") for region in MASKS
    )
    assert most([make("a", declared=pairs)]) == pairs[:8] and most([make("a", declared=pairs[1:])]) == pairs[1:8]
    [headline] = headlines([make("a", declared=own, std_y=0.3)])
    assert row(headline, "a") == {"std_y · gap": "0.6", "CRPS of y · all": "0.1", "CPU s each": "1.5"}
    [headline] = headlines([make("a", layout=rows, masks={}, nll_y=1.25)])
    assert row(headline, "a") == {"CRPS of y": "0.1", "NLL of y": "1.25", "CPU s each": "1.5"}


def test_it_fits_a_hundred_columns() -> None:
    """With a name of 22 letters and the widest words, in one piece. Seen to catch: columns three spaces apart."""
    wide = {
        **FULL,
        "reference_log_std": np.log(0.654321) / 2,
        "crps_y": 0.012345,
        "width_90_y": 0.12345,
        "reference_w1": 0.1234,
    }
    [headline] = headlines([make("mc_dropout[rate=0.123]", **wide), make("prior", kind="baseline", **wide)])
    text = printed(headline)
    assert max(map(len, text.splitlines())) <= 100 and text.count("mc_dropout[rate=0.123]") == 1
    narrow = printed(headline, 40)
    assert max(map(len, narrow.splitlines())) <= 40
    assert all(word in narrow for word in ("0.65 × too narrow", "0.0247", "1.5"))


def test_notes_that_all_tables_have_stand_once() -> None:
    """Below the last table; the others stand beside their own. Seen to catch: all notes at the end, a note lost."""
    rows = [make("a", **FULL), replace(make("a", coverage_90_y=0.45), dataset="other")]
    of_one, of_other = headlines(rows)
    text = markdown_headlines([of_one, of_other])
    shared = set(of_one.notes) & set(of_other.notes)
    own = set(of_one.notes) - shared
    assert own and shared
    for note in (*shared, *own):
        assert text.count(f"* {note}") == 1
    between = text.partition(of_one.title)[2].partition(of_other.title)[0]
    assert all(note in between for note in own) and not any(note in between for note in shared)


def test_markdown_has_the_same_words() -> None:
    """And names that are no markup. Seen to catch: a | that ends a cell, notes left out."""
    [headline] = headlines([make("a|b", **FULL)])
    text = markdown_headlines([headline])
    assert r"| a\|b | 0.5 × too narrow | 0.25 × too narrow | 0.6 |" in text
    assert all(f"* {note}" in text for note in headline.notes)
