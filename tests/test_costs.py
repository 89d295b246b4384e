"""What cells cost, the order that follows from it, and shards: against exact answers and a second simulation."""

from __future__ import annotations

import itertools
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapbench.evaluation.entries import Trained
from gapbench.methods.nngp import NNGP
from gapbench.runners.cell import Cell
from gapbench.runners.costs import ANY, CONTROL, UNKNOWN, expected, longest_first, measured, shard, shards
from gapbench.runners.readme import costs
from gapbench.runners.suites import CONTROLS, select, suites

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "results" / "published"
PRINTED = PUBLISHED / "timings" / "schedule.txt"
SIZES = st.lists(st.integers(1, 9), max_size=20)


def cell(name: str, dataset: str = "nowhere", replicas: int = 1, first: int = 0) -> Cell:
    """A cell of this name; its costs depend on nothing else."""
    entry = CONTROLS.get(name, Trained(NNGP()))
    task = suites()["default"].tasks["gapped_sine"]
    return Cell(dataset, task.dataset, task.model, name, entry, first, first + replicas, 0)


def unmeasured(sizes: list[int]) -> list[Cell]:
    """Cells that cost UNKNOWN times these sizes, each of a name of its own."""
    return [cell(f"mine{number}", replicas=size) for number, size in enumerate(sizes)]


def loads(parts: list[list[Cell]]) -> list[float]:
    return [sum(map(expected, part)) for part in parts]


@pytest.mark.one_file
def test_the_costs_are_those_of_the_published_records() -> None:
    """Of mile: a stack of ten replicas and one of five, of which the first is in two suites. Seen to catch: a cost
    edited, a record counted twice, the mean over blocks of different sizes, the mean for the median."""
    text = (ROOT / "runners" / "costs.json").read_text(encoding="utf-8")
    assert text == costs(PUBLISHED), "run `gapbench readme` and commit what it writes"
    assert len(text.encode()) < 25_000
    spent = {}
    for suite in ("default", "all", "knobs"):
        for result in json.loads((PUBLISHED / suite / "manifest.json").read_text(encoding="utf-8"))["results"]:
            if (result["method"], result["dataset"]) == ("mile", "gapped_sine_noisy"):
                (record,) = result["records"]
                first, stop = record["block"]
                spent[record["key"]] = record["cpu seconds"], stop - first
    seconds, replicas = map(sum, zip(*spent.values(), strict=True))
    assert len(spent) == 2 and measured()["mile"]["gapped_sine_noisy"] == pytest.approx(seconds / replicas, 5e-3)
    each = sorted(seconds for name, seconds in measured()["mile"].items() if name != ANY)
    assert each[(len(each) - 1) // 2] <= measured()["mile"][ANY] <= each[len(each) // 2]
    assert not measured().keys() & CONTROLS.keys()


def test_a_cell_costs_what_is_known_nearest_to_it() -> None:
    """Its method on its dataset, else elsewhere; then the method that it is a variant of; else a constant. Seen to
    catch: the median for a measured dataset, a variant that was measured taken for its method, replicas not counted."""
    known = measured()
    here = "gapped_sine_noisy"
    assert expected(cell("sgld", here, 3)) == 3 * known["sgld"][here] != 3 * known["sgld"][ANY]
    assert expected(cell("sgld", "nowhere", 3)) == 3 * known["sgld"][ANY]
    assert expected(cell("sgld[lr=0.001]", here)) == expected(cell("sgld@630", here)) == known["sgld"][here]
    assert expected(cell("sgld[lr=0.001]")) == known["sgld"][ANY]
    assert expected(cell("mclmc@300", here)) == known["mclmc@300"][here] != known["mclmc"][here]
    assert expected(cell("nobody", here, 3)) == expected(cell("nobody[steps=2]", here, 3)) == 3 * UNKNOWN
    assert {expected(cell(name, here, 10)) for name in CONTROLS} == {CONTROL}


@given(SIZES)
def test_the_longest_come_first(sizes: list[int]) -> None:
    """Equally long ones in the order given. Seen to catch: the shortest first, equal ones the other way round."""
    given = unmeasured(sizes)
    order = longest_first(given)
    keys = [(-len(one.replicas), given.index(one)) for one in order]
    assert keys == sorted(keys) and len(order) == len(given)


@given(SIZES, st.integers(1, 30))
def test_every_cell_is_in_one_shard(sizes: list[int], count: int) -> None:
    """Each shard the longest first; some are empty if there are more of them than cells. Seen to catch: a cell left
    out, a cell in two shards, cells dealt out in the order given."""
    given = unmeasured(sizes)
    parts = [shard(given, which, count) for which in range(1, count + 1)]
    assert parts == shards(given, count)
    assert sorted(one.name for part in parts for one in part) == sorted(one.name for one in given)
    assert all(part == longest_first(part) for part in parts)
    assert sum(not part for part in parts) == max(count - len(given), 0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(1, 3))
def test_no_partition_is_better_by_more_than_a_third(sizes: list[int], count: int) -> None:
    """Graham's bound: the longest shard is at most 4/3 − 1/(3m) times that of the best of all partitions. Seen to
    catch: cells dealt out in the order given, or in turn."""
    found = max(loads(shards(unmeasured(sizes), count)))
    partitions = itertools.product(range(count), repeat=len(sizes))
    best = min(
        max(sum(size for size, at in zip(sizes, where, strict=True) if at == one) for one in range(count))
        for where in partitions
    )
    assert found <= UNKNOWN * best * (4 / 3 - 1 / (3 * count)) + 1e-9


def test_ties_are_broken_by_number() -> None:
    """Seen to catch: the number of cells for their cost, the last of the equal shards."""
    given = unmeasured([4, 2, 1, 1, 1])
    named = [[one.name for one in part] for part in shards(given, 2)]
    assert named == [["mine0", "mine4"], ["mine1", "mine2", "mine3"]]


def test_a_shard_that_is_not_there_is_named() -> None:
    """Seen to catch: numbers from 0, the last shard refused, −1 for the last."""
    given = unmeasured([1, 2])
    assert shard(given, 2, 2) == [given[0]]
    for which, count in ((0, 4), (5, 4), (-1, 4), (1, 0)):
        with pytest.raises(ValueError, match=rf"shard {which}/{count}: expected WHICH/COUNT with WHICH from 1 to"):
            shard(given, which, count)


def test_another_process_has_the_same_shards() -> None:
    """With other hashes of strings. Seen to catch: shards dealt out from a set."""
    code = """
from gapbench.runners.costs import shards
from gapbench.runners.suites import select, suites
cells = select(suites()["knobs"]).cells(5, 0, 10)
print(*([one.title for one in part] for part in shards(cells, 7)), sep="\\n")
"""
    cells = select(suites()["knobs"]).cells(5, 0, 10)
    here = "\n".join(str([one.title for one in part]) for part in shards(cells, 7))
    # This process may have been given hashes too. To start another takes seconds, so it is one.
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


# --- timings/schedule.py ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schedule() -> dict[str, Any]:
    """What timings/schedule.py defines."""
    return runpy.run_path(str(ROOT / "timings" / "schedule.py"))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 5))
def test_the_simulation_is_that_of_a_clock(schedule: dict[str, Any], seconds: list[int], workers: int) -> None:
    """Second by second: who is free takes the next cell. Seen to catch: a worker that is not the first to be free, the
    sum for the last to end."""
    waiting, left, clock = list(seconds), [0] * workers, 0
    while waiting or any(left):
        left = [one or (waiting.pop(0) if waiting else 0) for one in left]
        left = [max(one - 1, 0) for one in left]
        clock += 1
    assert schedule["makespan"](seconds, workers) == clock


def test_the_printed_schedule_is_that_of_today(schedule: dict[str, Any]) -> None:
    """And the longest first is within 10 % of the least time. Seen to catch: new results without a new schedule."""
    lines = list(schedule["lines"]())
    command = "python timings/schedule.py > results/published/timings/schedule.txt"
    assert PRINTED.read_text(encoding="utf-8").splitlines() == lines, f"run `{command}` and commit it"
    rows = [line.replace(" s ", " ").split() for line in lines[lines.index("") + 2 :]]
    assert len(rows) == 24 and all(float(first) <= 1.1 for _, _, _, _, first, *_ in rows)


@pytest.mark.one_file
def test_the_page_has_the_printed_costs() -> None:
    """docs/suites.md. Seen to catch: a number edited, a schedule printed anew and a page that was not."""
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "suites.md").read_text(encoding="utf-8"))
    costs, orders = PRINTED.read_text(encoding="utf-8").split("\n\n")
    for line in costs.splitlines()[1:]:
        name, cells, hours, share, seconds, _, enough, longest = line.split(maxsplit=7)
        row = (f"`{name}`", cells, hours, share.replace("%", " %"), f"{seconds} s", enough, longest)
        assert f"| {' | '.join(row)} |" in page
    ratios = [[float(one) for one in line.replace(" s ", " ").split()[3:]] for line in orders.splitlines()[1:]]
    listed, first, dealt, _, off = (round(100 * max(column) - 100) for column in zip(*ratios, strict=True))
    assert f"takes at most {first} % longer than the least that any order takes" in page
    assert f"in the suite's order it is up to {listed} %" in page and f"dealt out beforehand, at most {dealt} %" in page
    assert f"half and twice its expected time, at random, up to {off} %" in page


def test_tables_have_as_many_splits_as_the_schedule_counts(schedule: dict[str, Any]) -> None:
    """Those that are published. Seen to catch: a gap for each feature, the standard splits in place of the gaps."""
    for suite in ("uci", "uci_gap"):
        manifest = json.loads((PUBLISHED / suite / "manifest.json").read_text(encoding="utf-8"))
        stops: dict[str, int] = {}
        for one in schedule["cells_of"](suite):
            stops[one.dataset_name] = max(stops.get(one.dataset_name, 0), one.stop)
        assert len(stops) == 8
        for one in manifest["datasets"]:
            assert one["replicas"] == [[0, stops[one["name"]] - 1]]
