"""The plan of a run: its shards, what `gapbench status` and --dry-run tell of it, and the progress that a run tells."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from torch import Generator, Tensor

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.controls import PriorPredictive, Truth
from gapbench.evaluation.entries import Trained
from gapbench.evaluation.headline import headlines
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.mc_dropout import MCDropout
from gapbench.runners import plan, run, store, suites
from gapbench.runners.cell import Cell
from gapbench.runners.cli import status as cli_status
from gapbench.runners.cli.main import main
from gapbench.runners.complete import complete, failed
from gapbench.runners.costs import UNKNOWN, duration, expected
from gapbench.runners.load import collect
from gapbench.runners.plan import SILENT, Status, status, write_plan
from gapbench.runners.run import Job, run_cells
from gapbench.runners.store import Store
from gapbench.runners.workers import Ended, Limits

pytestmark = pytest.mark.usefixtures("in_this_process")
Gapbench = Callable[..., Result]
SINE = GappedSine(n=12, noise_std=0.1, test_points=13)
RUN = ("run", "--device", "cpu", "--jobs", 1)
SINCE = "2026-01-02T03:04:05.000000+00:00"


@dataclass(frozen=True)
class Broken(MCDropout):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Any:
        raise ValueError("no such luck\nsecond line")


@pytest.fixture
def gapbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gapbench:
    """The command line in an empty folder, with a suite of milliseconds: 8 cells if there is one block of replicas."""
    data = {"sine": SINE, "quiet": GappedSine(n=12, test_points=13)}
    tasks = {name: suites.Task(dataset, MLP(hidden=(4,))) for name, dataset in data.items()}
    methods = {"dropout": MCDropout(steps=3, draws=4), "ensemble": MCDropout(rate=0.5, steps=3, draws=4)}
    suite = suites.Suite("tiny", tasks, methods, 2, on_request={"broken": Broken()})
    monkeypatch.setattr(suites, "suites", lambda: {"default": suite})
    monkeypatch.setattr(suites, "CONTROLS", {"prior": PriorPredictive(4), "truth": Truth()})
    monkeypatch.chdir(tmp_path)

    def call(*argv: object) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in argv], prog_name="gapbench")

    return call


def cells(count: int, method: type[MCDropout] = MCDropout) -> list[Cell]:
    model = MLP(hidden=(4,))
    entries = [Trained(method(rate=0.1 + 0.01 * at, steps=3, draws=4)) for at in range(count)]
    return [Cell("sine", SINE, model, f"method {at}", entry, 0, 2, 0) for at, entry in enumerate(entries)]


def contents(folder: str) -> dict[str, dict[str, str]]:
    """The key of every record, with the hashes of its arrays."""
    there = Store(Path(folder).absolute())
    return {key: dict(there.record(key).arrays) for key in there.keys()}  # noqa: SIM118


def everything(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """The files below a folder, with their times and their bytes."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def finished(result: Result) -> list[str]:
    return re.findall(r"^(.*): finished in", result.stderr, re.MULTILINE)


def one_line(result: Result, code: int) -> str:
    assert result.exit_code == code and result.stdout == "" and "Traceback" not in result.output, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


# Shards ---------------------------------------------------------------------------------------------------------------


def test_shards_together_are_the_run(gapbench: Gapbench) -> None:
    """The same records with the same bits. No cell is in two shards. In between, `gapbench status` tells of all shards.

    Seen to catch: a shard that runs everything, a plan of the shard's own cells alone, a stream of random numbers that
    depends on the shard.
    """
    whole = gapbench(*RUN, "--out", "whole")
    assert whole.exit_code == 0 and len(finished(whole)) == 7
    dealt, sizes = list[str](), list[int]()
    for which in (1, 2, 3):
        part = gapbench(*RUN, "--out", "parts", "--shard", f"{which}/3")
        assert part.exit_code == 0, part.output
        dealt += finished(part)
        told = re.search(
            r"^Shard \d/3: (\d) of 8 cells\. `gapbench status (/.*/parts)` tells", part.stderr, re.MULTILINE
        )
        assert told
        sizes.append(int(told[1]))
        shown = gapbench("status", told[2]).stdout
        assert shown.startswith("8 cells: ") and f"{len(dealt)} done" in shown
        assert shown.count("waiting: ") == 8 - sum(sizes)
    assert sum(sizes) == 8 and len(dealt) == len(set(dealt)) and set(dealt) == set(finished(whole))
    assert contents("parts") == contents("whole")


def test_what_shards_leave_is_completed_by_a_run(gapbench: Gapbench) -> None:
    """Of the whole, with the same command but for --shard; and there may be more shards than cells. Seen to catch: the
    whole refused beside its shards, an empty shard as an error."""
    empty = gapbench(*RUN, "--out", "parts", "--shard", "50/50")
    assert empty.exit_code == 0 and "Shard 50/50: 0 of 8 cells." in empty.stderr and finished(empty) == []
    assert gapbench("status", "parts").stdout.startswith("8 cells: 8 waiting; ")
    some = gapbench(*RUN, "--out", "parts", "--shard", "1/50")
    assert len(finished(some)) == 1
    rest = gapbench(*RUN, "--out", "parts")
    assert rest.exit_code == 0 and "8 cells: 6 finished, 1 kept, 1 skipped\n" in rest.stderr
    assert gapbench("status", "parts").stdout.startswith("8 cells: 7 done, 1 skipped\n")


def test_shards_of_another_run_are_refused(gapbench: Gapbench) -> None:
    """With other methods, settings, replicas, seed or number of shards: in one line that names what the others were
    given, with exit code 3, before anything is trained. The same shard again is welcome, and so are other cells that
    are not dealt out.

    Seen to catch: each of cells and number left out of the comparison, only the newest plan looked at, the words of the
    other run left out, a plan written before the comparison.
    """
    small = (*RUN, "--out", "parts", "--datasets", "sine", "--methods", "dropout", "--seed", 3)
    first = gapbench(*small, "--shard", "1/2")
    assert first.exit_code == 0
    assert gapbench(*RUN, "--out", "parts", "--methods", "prior", "--datasets", "sine").exit_code == 0
    before = everything(Path("parts"))
    for more in (
        ("--methods", "ensemble", "--shard", "2/2"),
        ("--set", "dropout.rate=0.3", "--shard", "2/2"),
        ("--replicas", 3, "--shard", "2/2"),
        ("--seed", 1, "--shard", "2/2"),
        ("--shard", "2/3"),
    ):
        line = one_line(gapbench(*small, *more), 3)
        assert "parts: it has 2 shards of a run with other cells or settings" in line
        assert "give the same options to all shards, or another --out" in line
        assert "methods dropout" in line and "datasets sine" in line and "seed 3" in line and "()" not in line
    assert everything(Path("parts")) == before
    assert "1 kept" in gapbench(*small, "--shard", "1/2").stderr
    second = gapbench(*small, "--shard", "2/2")
    assert second.exit_code == 0 and len(finished(first) + finished(second)) == 3


# What becomes of a plan -----------------------------------------------------------------------------------------------


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def mark(there: Store, cell: Cell, host: str, process: int, silent: float = 0.0) -> None:
    """A mark as a process that was killed leaves it."""
    path = there.root / "running" / f".{cell.early_key}.json.{process}"
    path.parent.mkdir(parents=True, exist_ok=True)
    note = {"cell": cell.title, "host": host, "process": process, "since": SINCE, "format": store.FORMAT}
    path.write_bytes(store._document(note))
    os.utime(path, (time.time() - silent,) * 2)


def test_status_tells_what_has_become_of_each_cell(tmp_path: Path) -> None:
    """A cell runs if its process lives, as far as that can be seen from here: on this host, or with a sign of life from
    another. Nothing in the folder is touched.

    Seen to catch: the mark of a dead process taken for life, another host's process looked for here, silence that does
    not count, the newest plan alone, attempts counted once, a cell that failed and was made told as failed, a failed
    cell that runs again told as failed, a damaged record told as done, a folder that is written to.
    """
    there, wanted = Store(tmp_path / "out"), cells(12)
    done, remade, lives, dead, far, silent, raised, again, skipped, damaged, waiting, slow = wanted
    write_plan(there, wanted[:6], {})
    write_plan(there, wanted[4:], {})
    for cell in (done, remade, damaged):
        assert complete(cell, there, "cpu").status == "finished"
    mark(there, lives, platform.node(), os.getpid())
    mark(there, dead, platform.node(), gone())
    mark(there, far, "elsewhere", gone(), silent=SILENT / 2)
    mark(there, silent, "elsewhere", os.getpid(), silent=SILENT + 60)
    mark(there, again, platform.node(), os.getpid())
    mark(there, slow, platform.node(), os.getpid(), silent=SILENT + 60)
    for cell in (remade, raised, raised, again):
        failed(cell, there, "cpu", ValueError("no such luck\nsecond line"), time.monotonic())
    there.skip(skipped.early_key, "it makes no sense")
    (path,) = [there.path(key) for key in there.keys() if there.record(key).identity["method"]["name"] == damaged.name]  # noqa: SIM118
    path.write_bytes(path.read_bytes()[:-20])
    before = everything(there.root)
    found = status(there)
    assert everything(there.root) == before
    assert (set(found.done), found.total) == ({done.title, remade.title}, 12)
    assert [(one.title, one.host, one.since) for one in found.running] == [
        (lives.title, platform.node(), SINCE),
        (far.title, "elsewhere", SINCE),
        (again.title, platform.node(), SINCE),
    ]
    assert found.running[1].silent == pytest.approx(SILENT / 2, abs=SILENT / 4)
    assert found.failed == {raised.title: "ValueError: no such luck, 2 times"}
    assert found.skipped == {skipped.title: "it makes no sense"}
    assert set(found.waiting) == {one.title for one in (dead, silent, damaged, waiting, slow)}
    assert len(found.damaged) == 1 and str(path) in found.damaged[0]


def test_a_cell_that_is_computed_shows_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With signs of life for as long as it is computed, and no longer. Seen to catch: a mark that is not touched, one
    that is left behind, another process named."""
    monkeypatch.setattr(store, "BEAT", 0.01)
    (cell,), there = cells(1), Store(tmp_path)
    write_plan(there, [cell], {})
    seen = list[Status]()

    def looks(*args: Any, **more: Any) -> Any:
        (path,) = (tmp_path / "running").iterdir()
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 60
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        seen.append(status(there))
        ((_, _, note),) = there.marks()
        assert note["process"] == os.getpid() and not there.keys()
        return trained(*args, **more)

    from gapbench.runners import complete as completion

    trained = completion.trained
    monkeypatch.setattr(completion, "trained", looks)
    run_cells([cell], there, ["cpu"], Console(quiet=True), -1)
    (found,) = seen
    assert [one.title for one in found.running] == [cell.title] and found.running[0].host == platform.node()
    assert list((tmp_path / "running").iterdir()) == [] and status(there).done == [cell.title]


def test_the_time_that_is_left_is_of_this_machine(tmp_path: Path) -> None:
    """What running and waiting cells cost elsewhere, times how much slower the cells that are done were here. Seen to
    catch: the ratio upside down, left out, taken of all cells; failed cells counted; a division by 0."""
    there, wanted = Store(tmp_path), cells(6)
    wanted[0] = replace(wanted[0], stop=10)
    write_plan(there, wanted, {})
    assert status(there).left == sum(map(expected, wanted)) == 20 * UNKNOWN
    for cell, seconds in zip(wanted[:2], (80.0, 16.0), strict=True):
        complete(cell, there, "cpu")
        (key,) = [key for key in there.keys() if there.record(key).identity["method"]["name"] == cell.name]  # noqa: SIM118
        record = there.record(key)
        there.path(key).unlink()
        there.write(key, replace(record, provenance={**record.provenance, "cpu seconds": seconds}))
    failed(wanted[2], there, "cpu", ValueError("no such luck"))
    mark(there, wanted[3], platform.node(), os.getpid())
    found = status(there)
    assert found.spent == 96.0
    assert found.left == pytest.approx(6 * UNKNOWN * 96.0 / (12 * UNKNOWN))


def test_status_in_words(gapbench: Gapbench) -> None:
    """The counts and the time left first; then what is wrong, what runs, what waits, twenty of a kind.

    Seen to catch: a kind left out, the last twenty in place of the first, the number of those not shown off by one,
    silence of seconds told, markup of rich in a title, advice to start what runs.
    """
    there = Store(Path("out").absolute())
    wanted = cells(30)
    write_plan(there, wanted, {})
    first = gapbench("status", "out")
    left = sum(map(expected, wanted))
    assert first.exit_code == 0 and first.stderr == ""
    lines = first.stdout.splitlines()
    assert lines[0] == f"30 cells: 30 waiting; about {duration(left)} of CPU time left"
    assert lines[1:21] == [f"waiting: {cell.title}" for cell in wanted[:20]]
    assert lines[21:] == [
        "and 10 more; --all shows them",
        "Nothing runs. If no run waits for its workers, the same command goes on.",
    ]
    assert gapbench("status", "out", "--all").stdout.count("waiting: ") == 30
    mark(there, wanted[0], platform.node(), os.getpid())
    mark(there, wanted[1], "else[/]where", 1, silent=70.0)
    failed(wanted[2], there, "cpu", ValueError("no such luck\nsecond line"))
    there.skip(wanted[3].early_key, "it makes no sense")
    text = gapbench("status", "out").stdout
    left -= expected(wanted[2]) + expected(wanted[3])
    assert text.startswith(
        f"30 cells: 2 running, 26 waiting, 1 failed, 1 skipped; about {duration(left)} of CPU time left, "
        f"{duration(left / 2)} as it runs now\n"
        f"failed: {wanted[2].title}: ValueError: no such luck\n"
        f"running: {wanted[0].title} on {platform.node()} since 2026-01-02T03:04:05 UTC\n"
        f"running: {wanted[1].title} on else[/]where since 2026-01-02T03:04:05 UTC, silent for 7"
    )
    assert f"\nskipped: {wanted[3].title}: it makes no sense\n" in text and "Nothing runs" not in text


def test_a_folder_without_a_plan_is_one_line(gapbench: Gapbench) -> None:
    """Exit code 3. Seen to catch: an empty plan told as "0 cells", a folder that is made."""
    assert "no run was planned there" in one_line(gapbench("status", "nowhere"), 3)
    Path("empty").mkdir()
    assert "empty: no run was planned there: expected a folder that `gapbench run` wrote" in one_line(
        gapbench("status", "empty"), 3
    )
    assert [path.name for path in Path().rglob("*")] == ["empty"]


def test_a_watch_ends_when_nothing_runs_or_waits(gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line a look where there is no terminal. Seen to catch: a watch without an end, one that ends while cells
    wait, one that ends at a failure, all lines at each look."""
    small = (*RUN, "--out", "out", "--datasets", "sine", "--methods", "dropout,broken")
    steps: list[Callable[[], object]] = [
        lambda: gapbench(*small, "--shard", "1/2"),
        lambda: gapbench(*small),
    ]
    paused = list[float]()

    def pause(seconds: float) -> None:
        paused.append(seconds)
        steps.pop(0)()

    assert gapbench(*small, "--shard", "2/2").exit_code == 1  # with the broken method
    monkeypatch.setattr(cli_status, "time", SimpleNamespace(sleep=pause))
    Store(Path("out").absolute()).plan({"asked": {}, "cells": [planned(cells(1)[0])], "shards": None})
    steps.insert(1, lambda: complete(cells(1)[0], Store(Path("out").absolute()), "cpu"))
    watched = gapbench("status", "out", "--watch", "--every", "0.5")
    assert watched.exit_code == 0, watched.output
    counts = [line.partition(";")[0] for line in watched.stdout.splitlines()]
    assert counts[0].endswith("1 failed") and "waiting" in counts[0]
    assert counts[-1] == "5 cells: 4 done, 1 failed" and len(counts) == len(paused) + 1 and set(paused) == {0.5}


def planned(cell: Cell) -> dict[str, Any]:
    return {"key": cell.early_key, "title": cell.title, "seconds": expected(cell)}


# Before a run ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_and_does_nothing(gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a folder is made. It tells what is done, what failed before, what is skipped, and the cost of the rest.

    Seen to catch: a folder that is made, damaged records moved, a run that follows, cells of all shards told for one,
    the cost of what is done added.
    """
    dry = (*RUN, "--out", "out", "--dry-run", "--methods", "dropout,broken", "--datasets", "quiet")
    with monkeypatch.context() as patch:
        patch.setattr(run, "run_cells", None)
        first = gapbench(*dry)
        assert first.exit_code == 0 and not list(Path().iterdir()), first.output
        (half,) = re.findall(r"^(\d) cells", gapbench(*dry, "--shard", "1/2").stdout, re.MULTILINE)
    assert first.stdout.splitlines() == [
        "quiet · dropout · replicas 0–1: to do, about 10 s",
        "quiet · broken · replicas 0–1: to do, about 10 s",
        "quiet · prior · replicas 0–1: to do, about 1 s",
        "quiet · truth · replicas 0–1: to do, about 1 s",
        "4 cells, 4 to do: about 21 s of CPU time, 21 s with 1 at a time. Nothing was run.",
    ]
    assert half in "123"
    assert gapbench(*[word for word in dry if word != "--dry-run"]).exit_code == 1
    there = Store(Path("out").absolute())
    (key,) = [key for key in there.keys() if there.record(key).identity["method"]["name"] == "prior"]  # noqa: SIM118
    there.path(key).write_bytes(b"{}")
    before = everything(there.root)
    again = gapbench(*dry, "--jobs", 4)
    assert again.exit_code == 0 and everything(there.root) == before
    states = re.findall(r"^quiet · (\w+) · .*: (.*), about ", again.stdout, re.MULTILINE)
    assert dict(states) == {"dropout": "done", "broken": "failed before", "prior": "to do", "truth": "skipped"}
    assert "4 cells, 1 to do: about 1 s of CPU time, 1 s with 4 at a time" in again.stdout


def test_a_dry_run_tells_a_cell_that_has_no_content(gapbench: Gapbench) -> None:
    """It would fail, and the others would not. Seen to catch: the whole command ended by it."""
    Path("mine.py").write_text(
        "from dataclasses import dataclass\nfrom gapbench.methods.mc_dropout import MCDropout\n"
        "@dataclass(frozen=True)\nclass Mine(MCDropout):\n    thing: object = object()\n"
    )
    result = gapbench(*RUN, "--methods", "mine.py:Mine,dropout", "--datasets", "sine", "--dry-run")
    assert result.exit_code == 0, result.output
    assert re.search(r"^sine · mine · replicas 0–1: it would fail: .*thing", result.stdout, re.MULTILINE)
    assert "4 cells, 3 to do" in result.stdout


# While it runs --------------------------------------------------------------------------------------------------------


def rows(result: Result) -> list[tuple[str, str, str]]:
    """The lines of numbers: dataset, method, numbers."""
    return re.findall(r"^(\w+) · (\w+): (.*)$", result.stderr, re.MULTILINE)


def unclocked(result: Result) -> list[tuple[str, str, str]]:
    """`rows` without what the last column tells: seconds."""
    return [(dataset, method, words.rpartition(", ")[0]) for dataset, method, words in rows(result)]


def test_a_method_s_numbers_are_told_once_when_its_last_cell_is_done(gapbench: Gapbench) -> None:
    """They are those of the table. A cell that was there already counts, in whatever order the cells end; what was all
    there before is not told again, and controls are not.

    Seen to catch: a line a cell, a line before the last cell, numbers of the last cell alone, numbers of another
    dataset, a line for what was all kept, none if the last cell was kept, a line of a control.
    """
    wide = (*RUN, "--out", "out", "--replicas", 12)
    first = gapbench(*wide)
    assert first.exit_code == 0, first.output
    pairs = [(dataset, method) for dataset in ("sine", "quiet") for method in ("dropout", "ensemble")]
    assert sorted((dataset, method) for dataset, method, _ in rows(first)) == sorted(pairs)
    numbers = {
        (headline.title.partition(":")[0], name): {
            f"{heading} {word.rstrip('*')}" for heading, word in zip(headline.headings, words, strict=True)
        }
        for headline in headlines(collect(Path("out")).results)
        for name, _, words in headline.lines
    }
    lines = first.stderr.splitlines()
    for dataset, method, words in rows(first):
        assert len(words.split(", ")) >= 2 and set(words.split(", ")) <= numbers[dataset, method]
        ended = [at for at, line in enumerate(lines) if re.match(rf"{dataset} · {method} · .*: finished", line)]
        assert len(ended) == 2 and lines[ended[1] + 1] == f"{dataset} · {method}: {words}"
    small = (*wide, "--datasets", "sine", "--methods", "dropout")
    assert rows(gapbench(*small)) == []
    there = Store(Path("out").absolute())
    for block in ([0, 10], [10, 12]):
        for key in there.keys():  # noqa: SIM118
            identity = there.record(key).identity
            names = identity["dataset"]["name"], identity["method"]["name"]
            if (*names, identity["block"]) == ("sine", "dropout", block):
                there.path(key).unlink()
        some = gapbench(*small)
        assert len(finished(some)) == 1
        assert unclocked(some) == [row for row in unclocked(first) if row[:2] == ("sine", "dropout")]


def test_no_numbers_are_told_of_what_has_none(gapbench: Gapbench) -> None:
    """Seen to catch: an error where every cell of a row failed, a row in quiet."""
    small = (*RUN, "--out", "out", "--datasets", "sine", "--methods", "dropout,broken")
    first = gapbench(*small)
    assert [row[:2] for row in rows(first)] == [("sine", "dropout")] and first.exit_code == 1
    quiet = gapbench(*small, "--seed", 1, "-q")
    assert rows(quiet) == [] and quiet.exit_code == 1


def test_the_time_left_is_told_once_a_minute(
    here: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no terminal: by what the cells that were trained cost elsewhere and took here. Cells that were
    there say nothing of how fast this machine is.

    Seen to catch: a line a cell, every line after the first minute, kept cells counted as trained, the time since the
    last line for that since the beginning, cells that are done counted as left.
    """
    now = 1000.0

    def slow(work: Any, jobs: deque[Job], limit: int, tell: Any, limits: Limits) -> Iterator[Ended[Job]]:
        nonlocal now
        for each in here(work, jobs, limit, tell, limits):
            now += 25.0 if each.value.status == "finished" else 0.0
            yield each

    monkeypatch.setattr(run, "run_all", slow)
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: now))
    wanted, there, output = cells(8), Store(tmp_path / "out"), tmp_path / "output.txt"
    wanted[7] = replace(wanted[7], stop=4)  # it costs twice as much
    assert complete(wanted[0], there, "cpu").status == "finished"
    with output.open("w") as file:
        run_cells(wanted, there, ["cpu"], Console(file=file, width=500))
    told = re.findall(r"^(\d/8) cells, about (.*) left$", output.read_text(), re.MULTILINE)
    # A line after 75 s and after 150 s: of 8 units of cost in cells to train, 3 are done then, or 6; a unit takes 25 s.
    assert told == [("4/8", duration(75.0 * 5 / 3)), ("7/8", duration(150.0 * 2 / 6))]


def test_a_plan_that_is_asked_for_again_is_the_newest(tmp_path: Path) -> None:
    """And is there once. A cell without content has no place in it. Seen to catch: a plan a run, the order
    of names, that of the first writing, an error for a cell without content."""
    there = Store(tmp_path)
    for number in (0, 1, 0):
        write_plan(there, [cells(2)[number]], {"number": number})
        for path in (tmp_path / "plans").iterdir():
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    assert [one["asked"]["number"] for one in there.plans()] == [1, 0]
    odd = replace(cells(1)[0], dataset=object())  # type: ignore[arg-type]
    plan.write_plan(there, [odd, cells(3)[2]], {"number": 2})
    assert [one["title"] for one in there.plans()[-1]["cells"]] == [cells(3)[2].title]
