"""The command line as a user meets it: what it prints where, how it ends, and what it says of a mistake."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Generator, Tensor

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation import plots
from gapbench.evaluation.controls import PriorPredictive, Truth
from gapbench.methods import registry
from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.mc_dropout import MCDropout
from gapbench.runners import load, publish, run, store, suites
from gapbench.runners.cli.main import main
from gapbench.runners.devices import device_named

Gapbench = Callable[..., Result]
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(autouse=True)
def tiny(in_this_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites of milliseconds, in this process, and no waiting for the disk."""
    data = {"sine": GappedSine(n=12, noise_std=0.1, test_points=13), "quiet": GappedSine(n=12, test_points=13)}
    tasks = {name: suites.Task(dataset, MLP(hidden=(4,))) for name, dataset in data.items()}
    methods = {"dropout": MCDropout(steps=3, draws=4), "ensemble": MCDropout(rate=0.5, steps=3, draws=4)}
    made = {
        name: suites.Suite(f"about {name}", tasks, entries, 2, on_request={"slow": MCDropout(steps=4)})
        for name, entries in {
            "default": methods,
            "broken": {**methods, "broken": Broken()},
            "diverging": {**methods, "diverged": MCDropout(lr=1e30, steps=3, draws=4)},
        }.items()
    }
    made["quick"] = replace(made["default"], shrinks=True)
    monkeypatch.setattr(suites, "suites", lambda: made)
    monkeypatch.setattr(suites, "CONTROLS", {"prior": PriorPredictive(4), "truth": Truth()})


@dataclass(frozen=True)
class Broken(UncertaintyMethod):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        raise ValueError("no such luck")


@pytest.fixture
def gapbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gapbench:
    """The command line in this process, in an empty folder, without a terminal."""
    monkeypatch.chdir(tmp_path)

    def call(*argv: object) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in argv], prog_name="gapbench")

    return call


@pytest.fixture
def ran(gapbench: Gapbench, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A finished run in the folder "out", made once and copied."""
    if not RAN:
        assert gapbench(*RUN).exit_code == 0
        RAN.append(tmp_path_factory.mktemp("ran") / "out")
        shutil.copytree("out", RAN[0])
    else:
        shutil.copytree(RAN[0], "out")


RAN: list[Path] = []
MINE = """
from dataclasses import dataclass
from gapbench.methods.base import UncertaintyMethod

@dataclass(frozen=True)
class MyNet(UncertaintyMethod):
    steps: int = 5

    def fit(self, model, x, y, generator):
        BODY
"""
RUN = ("run", "--device", "cpu", "--jobs", 1, "--out", "out")


def one_line(result: Result, code: int) -> str:
    """The error: a single line, with no traceback, and nothing on standard output."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output and result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and result.stderr.endswith(lines[0] + "\n")
    return lines[0]


# What is printed -----------------------------------------------------------------------------------------------------


def test_a_run_prints_its_table_and_tells_the_rest_beside_it(gapbench: Gapbench) -> None:
    """The table on standard output, to be kept; progress on the other. Run again, nothing is trained, and the table is
    the same. Seen to catch: lines of progress among the table, kept cells told one by one, a skipped cell untold."""
    first, second = gapbench(*RUN), gapbench(*RUN)
    assert first.exit_code == second.exit_code == 0, first.output
    assert first.stdout == second.stdout and first.stdout.startswith("quiet: mean over 2 replicas")
    assert "sine · dropout · replicas 0–1: started\n" in first.stderr
    assert re.search(r"^sine · dropout · replicas 0–1: finished in [\d.]+ s$", first.stderr, re.MULTILINE)
    out = Path("out").absolute()
    assert (
        f"8 cells: 7 finished, 1 skipped\nResults: {out}. All numbers: gapbench table {out} --columns" in first.stderr
    )
    assert f"Figures: gapbench plot {out}\n" in first.stderr
    assert first.stderr.endswith(
        "Skipped quiet · truth · replicas 0–1: the data are noise-free, so the true p(y | x) has no density\n"
    )
    assert "dropout" not in second.stderr and "8 cells: 7 kept, 1 skipped\n" in second.stderr
    assert gapbench("table", "out").stdout == first.stdout


def test_the_table_of_a_run_is_of_what_was_asked_for(gapbench: Gapbench) -> None:
    """Whatever else is in the folder, and newer. Seen to catch: the newest seed's table for the one asked for, all
    rows, all replicas."""
    small = (*RUN, "--methods", "dropout", "--datasets", "sine", "--replicas", 2)
    asked = gapbench(*small).stdout
    more = (*RUN, "--datasets", "sine", "--replicas", 3)
    for newer in (more, (*more, "--methods", "dropout", "--seed", 1)):
        assert gapbench(*newer).exit_code == 0
    again = gapbench(*small)
    assert "3 cells: 3 kept" in again.stderr and again.stdout == asked != ""
    assert re.findall(r"^(\w+)(?: \(\w+\))? .*  ", asked.partition("──\n")[2].partition("\n90 %")[0], re.MULTILINE) == [
        *("dropout", "prior", "truth")
    ]
    table = gapbench("table", "out")
    assert table.exit_code == 0 and "mean over 3 replicas" in table.stdout
    assert "sine: dropout, ensemble, prior, truth also there with another seed" in table.stderr


def test_two_settings_of_a_method_stand_side_by_side(gapbench: Gapbench) -> None:
    """In one folder, each under its own name, and -v tells all settings. Seen to catch: the older one hidden."""
    small = (*RUN, "--methods", "dropout", "--datasets", "sine")
    assert gapbench(*small).exit_code == 0
    result = gapbench(*small, "--set", "dropout.rate=0.25", "-v")
    assert result.exit_code == 0 and re.search(r"^    MCDropout\(.*rate=0.25, ", result.stderr, re.MULTILINE)
    assert "dropout[rate=0.25]" in result.stdout
    names = [line.partition(" ")[0] for line in gapbench("table", "out").stdout.splitlines()]
    assert {"dropout", "dropout[rate=0.25]"} <= set(names)
    assert "expected NAME.FIELD=VALUE" in one_line(gapbench(*RUN, "--set", "rate"), 2)


def test_quiet_and_verbose(gapbench: Gapbench) -> None:
    """Quiet: the table and what went wrong. Verbose: each cell's diagnostics and where its record is."""
    plain = gapbench(*RUN)
    quiet = gapbench(*RUN, "-q")
    assert quiet.stdout == plain.stdout and quiet.stderr == ""
    wrong = gapbench(*RUN, "-q", "--suite", "broken")
    assert wrong.exit_code == 1
    assert re.findall(r"^Failed (\w+) · broken · ", wrong.stderr, re.MULTILINE) == ["sine", "quiet"]
    assert wrong.stderr.count("\n") == 2
    verbose = gapbench(*RUN, "-v")
    assert verbose.stdout == plain.stdout
    assert verbose.stderr.count("gradient evaluations: 36, 36\n") == 4
    assert len(re.findall(r"^ +CPU \(.*\), [\d.]+ s, [\d.]+ CPU s, peak \d+ MiB$", verbose.stderr, re.MULTILINE)) == 7
    paths = re.findall(r"^ +(/.*/out/cells/.*\.json)$", verbose.stderr, re.MULTILINE)
    assert len(paths) == 7 and all(Path(path).is_file() for path in paths)
    assert "one of them" in one_line(gapbench(*RUN, "-q", "-v"), 2)


def test_a_row_on_request_is_run_if_it_is_named(gapbench: Gapbench) -> None:
    """And not otherwise. Seen to catch: run with the others, unknown by name."""
    result = gapbench(*RUN, "--datasets", "sine")
    assert result.exit_code == 0 and "slow" not in result.output
    named = gapbench(*RUN, "--datasets", "sine", "--methods", "slow")
    assert named.exit_code == 0 and "slow" in named.stdout and "dropout" not in named.stdout
    shipped = suites._default()
    assert list(shipped.on_request) == ["hmc", "mams", "mile"] and "hmc" not in shipped.methods


def test_a_failed_cell_is_told_and_is_exit_code_1(gapbench: Gapbench) -> None:
    """The others stand. Seen to catch: exit code 0, no word of it in a later table."""
    result = gapbench(*RUN, "--suite", "broken", "--datasets", "sine")
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "5 cells: 4 finished, 1 failed" in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Failed ")]
    note = re.fullmatch(
        r"Failed sine · broken · replicas 0–1: ValueError: no such luck \(see (/.*/out/failures/.*)\)", line
    )
    assert note and json.loads(Path(note[1]).read_text())["body"]["reason"] == "no such luck"
    table = gapbench("table", "out")
    assert table.exit_code == 0 and table.stdout == result.stdout
    words = "failed (ValueError: no such luck); `gapbench run --retry-failed` tries it again"
    assert f"sine · broken · replicas 0–1 {words}" in table.stderr
    only = gapbench(*RUN[:-1], "nothing", "--suite", "broken", "--methods", "broken", "--datasets", "quiet")
    assert only.exit_code == 1 and "1 failed" in only.stderr


def test_a_dry_run_tells_what_a_run_would_try(gapbench: Gapbench) -> None:
    """A failed cell too, with --retry-failed. Seen to catch: failed cells that are left out of the cost, the device's
    one place taken for that of 64 workers, a number of workers of a cluster that nobody knows here."""
    words = (*RUN, "--suite", "broken", "--datasets", "sine", "--methods", "broken")
    gapbench(*words)
    for more, state, end in (
        ((), "failed before", "3 cells, 0 to do: about 0 s of CPU time, 0 s with 1 at a time"),
        (
            ("--retry-failed",),
            "failed before, to do",
            "3 cells, 1 to do: about 10 s of CPU time, 10 s with 1 at a time",
        ),
        (("--engine", "slurm", "--engine-option", "workers=64"), "failed before", "0 s with 64 at a time"),
        (("--engine", "dask=tcp://nowhere:8786"), "failed before", "about 0 s of CPU time"),
    ):
        told = gapbench(*words, "--dry-run", *more).stdout
        assert f"sine · broken · replicas 0–1: {state}, about 10 s\n" in told
        assert told.endswith(f"{end}. Nothing was run.\n")


def test_replicas_that_diverged_are_in_the_table_and_are_exit_code_1(gapbench: Gapbench) -> None:
    """In the run that trains them and in one that finds them there; the reason is told once for all of them. Seen to
    catch: exit code 0 for what is kept, a line a replica."""
    for word in ("finished", "kept"):
        result = gapbench(*RUN, "--suite", "diverging", "--datasets", "sine")
        assert result.exit_code == 1 and f"5 {word}" in result.stderr
        assert (
            re.search("^diverged ‡ .*n/a", result.stdout, re.MULTILINE) and "‡ failed: every replica" in result.stdout
        )
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("Failed ")]
        reason = "replica 0, 1: predictions are not finite: the training diverged; a smaller lr may help"
        assert line == f"Failed sine · diverged · replicas 0–1: {reason}"


def test_a_damaged_record_is_one_line_and_the_rest_is_shown(gapbench: Gapbench, ran: None) -> None:
    """Nothing that was computed is lost to the eye for one bad file; exit code 1 says that it is not everything."""
    found = store.Store(Path("out").absolute())
    keys = [key for key in found.keys() if found.record(key).identity["method"]["name"] == "ensemble"]  # noqa: SIM118
    path = found.path(keys[0])
    path.write_bytes(path.read_bytes()[:-20])
    for command in (("table", "out"), ("table", "out", "--format", "csv"), ("plot", "out")):
        shown = gapbench(*command)
        assert shown.exit_code == 1 and shown.stdout != "" and "Traceback" not in shown.output
        assert re.fullmatch(
            rf"Left out: {path}: .*; `gapbench run --out {found.root}` makes it again\n.*", shown.stderr
        )
    again = gapbench(*RUN)
    assert again.exit_code == 0 and again.stderr.startswith(f"{path} was damaged: moved to {found.root}/damaged")
    assert "8 cells: 1 finished, 6 kept, 1 skipped" in again.stderr
    assert gapbench("table", "out").exit_code == 0


def test_formats(gapbench: Gapbench, ran: None) -> None:
    """The same numbers in each; by region, every score that a single replica has."""
    frame = pd.read_csv(io.StringIO(gapbench("table", "out", "--format", "csv").stdout))
    loaded = load.load("out")
    line = frame.query("dataset == 'sine' and method == 'dropout' and score == 'crps_y' and region == 'gap'").iloc[0]
    same = loaded.query("dataset == 'sine' and method == 'dropout' and score == 'crps_y' and region == 'gap'")
    assert line["value"] == pytest.approx(same["value"].mean(), rel=1e-12)
    shown = f"{line['value']:.3g}"
    for columns in ((), ("--columns", "crps_y"), ("--region", "gap"), ("--intervals",), ("--by", "region")):
        assert shown in gapbench("table", "out", *columns).stdout
        assert f"| {shown}" in gapbench("table", "out", "--format", "markdown", *columns).stdout
        assert f"& {shown}" in gapbench("table", "out", "--format", "latex", *columns).stdout
    by_region = pd.read_csv(io.StringIO(gapbench("table", "out", "--by", "region", "--format", "csv").stdout))
    assert set(by_region["region"]) == {"all", "data", "gap", "extrapolation"} and len(by_region) > 3 * len(frame)
    text = gapbench("table", "out", "--by", "region").stdout
    assert all(f"{value:.3g}" in text for value in by_region.query("score == 'rmse_f'")["value"].dropna())


def test_columns_regions_and_intervals_are_chosen(gapbench: Gapbench, ran: None) -> None:
    """Of the table in numbers. Seen to catch: a region for all, a score for all, intervals always, a typo shown as an
    empty table."""

    def columns(*argv: str) -> set[tuple[str, str]]:
        frame = pd.read_csv(io.StringIO(gapbench("table", "out", "--format", "csv", *argv).stdout))
        return set(frame[["score", "region"]].itertuples(index=False, name=None))

    assert columns("--columns", "crps_y,rmse_f", "--region", "gap") == {("crps_y", "gap"), ("rmse_f", "gap")}
    assert {region for _, region in columns("--columns", "crps_y")} == {"all", "data", "gap", "extrapolation"}
    assert {region for _, region in columns("--region", "gap")} == {"gap"} and len(columns("--region", "gap")) > 20
    assert columns("--columns", "summary", "--region", "gap") == {c for c in columns() if c[1] == "gap"} != set()
    published = Path(__file__).resolve().parent.parent / "results" / "published" / "notebook_sgld"
    for form in ("text", "markdown"):
        shown = ("table", published, "--format", form, "--columns", "crps_y", "--region", "gap")
        assert "interval" not in gapbench(*shown).stdout.partition("* significantly")[0]
        assert "interval below" in gapbench(*shown, "--intervals").stdout
    assert columns("--columns", "summary,std_y", "--region", "data") > {("std_y", "data")}
    assert "no score stands there" in one_line(gapbench("table", "out", "--columns", "gap_ratio", "--region", "gap"), 2)
    assert "did you mean crps_y" in one_line(gapbench("table", "out", "--columns", "crpsy"), 2)
    assert "expected one of all, data, gap" in one_line(gapbench("table", "out", "--region", "gab"), 2)
    assert "one of them" in one_line(gapbench("table", "out", "--by", "region", "--columns", "crps_y"), 2)


def test_a_pipe_has_lines_of_a_hundred_columns(gapbench: Gapbench, ran: None) -> None:
    """Seen to catch: lines as wide as the table."""
    for argv in ((), ("--by", "region")):
        assert max(map(len, gapbench("table", "out", *argv).stdout.splitlines())) <= 100


def test_plot_writes_images_and_prints_their_names(gapbench: Gapbench, ran: None) -> None:
    result = gapbench("plot", "out", "--out", "figures")
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and {path.parent.name for path in paths} == {"figures"}
    starts = {path.suffix: path.read_bytes()[:5] for path in paths}
    assert starts == {".png": b"\x89PNG\r", ".svg": b"<?xml"} and len(paths) > 6


def test_list_names_everything_that_run_takes(gapbench: Gapbench) -> None:
    """Seen to catch: a method without its paper, what is long cut with an ellipsis."""
    result = gapbench("list")
    assert result.exit_code == 0
    names = (
        "mc_dropout",
        "sgld",
        "svi",
        "default",
        "broken",
        "sine",
        "quiet",
        "dropout, ensemble; if named: slow",
        "crps_y",
        "rhat",
    )
    for name in names:
        assert re.search(rf"(^| ){name}( |$)", result.stdout, re.MULTILINE), name
    assert "Monte-Carlo dropout (Gal & Ghahramani 2016, https://arxiv.org/abs/1506.02142)\n" in result.stdout
    assert " \n" not in result.stdout


def test_list_tells_what_cannot_be_used(gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, and exit code 0: the others can. Named, it is the user's mistake. Seen to catch: the reasons
    left out, exit code 4 of a plugin that cannot be imported."""
    found = registry.Registry(registry.methods(), {"vogn": "needs vognet: pip install vognet"})
    monkeypatch.setattr(suites, "registry", lambda: found)
    result = gapbench("list")
    assert result.exit_code == 0 and "\nNot available\nvogn  needs vognet: pip install vognet\n" in result.stdout
    words = "vogn is not available: needs vognet: pip install vognet"
    assert words in one_line(gapbench(*RUN, "--methods", "vogn"), 2)
    assert words in one_line(gapbench("check", "vogn"), 2)
    assert re.search("^method vogn +not available — needs vognet", gapbench("doctor").stdout, re.MULTILINE)


def test_a_suite_that_compares_nothing_says_so(gapbench: Gapbench) -> None:
    """Seen to catch: the numbers of `quick` taken for results."""
    chosen = ("--methods", "truth", "--datasets", "sine", "--suite")
    assert "do not compare methods by these numbers" in gapbench(*RUN, *chosen, "quick").stderr
    assert "do not compare" not in gapbench(*RUN, *chosen, "default").stderr


def test_an_option_given_twice_adds(gapbench: Gapbench) -> None:
    """Names and commas alike. Seen to catch: only the last one taken."""
    given = ("--methods", "dropout", "--methods", "slow,truth", "--datasets", "sine", "--datasets", "quiet")
    result = gapbench(*RUN, *given)
    assert result.exit_code == 0 and "8 cells: 7 finished, 1 skipped" in result.stderr
    lines = re.findall(r"^(\w+ · \w+) · .* finished", result.stderr, re.MULTILINE)
    assert set(lines) >= {f"{data} · {name}" for data in ("sine", "quiet") for name in ("dropout", "slow", "prior")}


def test_without_a_folder_the_default_suites_is_shown(gapbench: Gapbench, ran: None) -> None:
    """As `run` has one. Seen to catch: "Missing argument"."""
    Path("gapbench-results").mkdir()
    Path("out").rename("gapbench-results/default")
    for argv in (["table"], ["export"], ["plot", "--out", "figures"]):
        result = gapbench(*argv)
        assert result.exit_code == 0 and result.stdout != "", result.output
    assert Path("gapbench-results/default/results.parquet").is_file() and list(Path("figures").iterdir())


def test_out_is_a_path_that_a_change_of_folder_does_not_move(gapbench: Gapbench) -> None:
    """Seen to catch: `fit` calls os.chdir, and the records are somewhere else."""
    opened: list[store.Store] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_cells", lambda cells, store, *_, **__: opened.append(store) or [])
        assert gapbench(*RUN).exit_code == gapbench("run", "--device", "cpu").exit_code == 0
    assert [one.root for one in opened] == [Path("out").absolute(), Path("gapbench-results/default").absolute()]


def test_figures_that_cannot_be_drawn_are_told(gapbench: Gapbench, ran: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to catch: `skipped` not printed, or printed among the paths."""
    drawn = plots.Drawn([Path("x.png")], ["sine: bands are not drawn: two features"])
    monkeypatch.setattr(plots, "plot", lambda *_: drawn)
    result = gapbench("plot", "out")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "x.png\n", f"{drawn.skipped[0]}\n")


def test_check_tells_a_verdict_a_line_and_the_traceback_of_an_error(gapbench: Gapbench) -> None:
    """The first time, from where the method's code was entered; exit code 1. Seen to catch: no traceback, exit code 0,
    a control that has no promises."""
    Path("mine.py").write_text(MINE.replace("BODY", "raise KeyError('oops')"))
    result = gapbench("check", "mine.py:MyNet")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "MyNet(steps=5)" and "broken    shapes, types, finite: KeyError: 'oops'" in lines
    assert result.stdout.count("Traceback") == 1 and 'mine.py", line 10, in fit' in result.stdout
    assert "is a control" in one_line(gapbench("check", "truth"), 2)


def test_what_maintainers_need_is_not_in_the_users_help(gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """`readme` and `publish`, which says what is missing. Seen to catch: hidden=True forgotten, folders in the wrong
    order, a method that was not run and is not named."""
    text = gapbench("--help").stdout
    assert re.findall(r"^  (\w+) ", text.partition("Commands:")[2].partition("Exit codes")[0], re.MULTILINE) == [
        *(
            "check",
            "compare",
            "coverage",
            "data",
            "doctor",
            "export",
            "gc",
            "list",
            "merge",
            "plot",
            "ranks",
            "reference",
            "report",
            "run",
            "status",
            "submit",
            "suite",
            "table",
            "tune",
            "variance",
            "verify",
        )
    ]
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(publish, "publish", lambda *given_: given.append(given_) or [Path("x")])
    there = [
        {"dataset": of, "method": name}
        for of, name in (("quiet", "dropout"), ("quiet", "ensemble"), ("sine", "dropout"))
    ]
    monkeypatch.setattr(publish, "read_manifest", lambda folder: {"results": there})
    assert gapbench("publish", "default").stdout == gapbench("publish", "default", "--from", "out").stdout == "x\n"
    assert gapbench("publish", "default").stderr == "sine: without ensemble, which were not run\n"
    given.pop()
    sources = ("gapbench-results/default", Path("out").absolute())
    assert gapbench("publish", "default", "--add").stdout == "x\n"
    added = [(sources[0], False), (sources[1], False), (sources[0], True)]
    assert given == [(Path(source), Path("results/published/default"), add) for source, add in added]
    assert "unknown suite" in one_line(gapbench("publish", "x"), 2)


@pytest.mark.parametrize(("cuda", "mps", "name"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_cuda_then_mps_then_the_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, name: str
) -> None:
    """As the notebook did. Seen to catch: mps forgotten, or before cuda."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert device_named("auto") == name
    assert not mps or device_named("mps") == "mps"


# Terminals -----------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, *argv: object) -> tuple[str, str]:
    out, err = Terminal(), Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("TERM", "xterm-256color")
        with pytest.raises(SystemExit):
            main([str(arg) for arg in argv], prog_name="gapbench")
    return out.getvalue(), err.getvalue()


def test_colours_only_where_they_are_wanted(gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """None with NO_COLOR, and not even a bar away from a terminal. Seen to catch: force_terminal=True."""
    colour = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38;[0-9;]*)m")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, err = on_a_terminal(monkeypatch, 100, *RUN)
    assert colour.search(err) and "━" in err
    monkeypatch.setenv("NO_COLOR", "1")
    out, err = on_a_terminal(monkeypatch, 100, *RUN, "--seed", 1)
    assert not colour.search(out + err) and "━" in err and "finished" in err
    piped = gapbench(*RUN, "--seed", 2)
    assert not re.search(r"[\x1b━\r]", piped.stderr) and "\x1b" not in piped.stdout


def test_a_terminal_without_the_letters_gets_others(gapbench: Gapbench, ran: None) -> None:
    """Seen to catch: UnicodeEncodeError at the first ↓."""
    for command in (["list"], ["table", "out"], ["table", "out", "--format", "csv"]):
        result = CliRunner(charset="ascii").invoke(main, command)
        assert result.exit_code == 0 and result.stdout.isascii() and re.search("crps_y|CRPS", result.stdout)


@pytest.mark.parametrize("columns", [40, 80, 133])
def test_no_digit_is_lost_on_a_narrow_terminal(
    gapbench: Gapbench, ran: None, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """The table comes in pieces, with all the numbers of the wide one, and no line is wider than the terminal.

    Seen to catch: rich left to squeeze the columns (digits become …), the last column forgotten, the first row of a
    piece forgotten, rows that lose the second half of their names.
    """
    everything = ("table", "out", "--columns", "summary", "--intervals")
    wide = gapbench(*everything)
    assert wide.exit_code == 0
    narrow, _ = on_a_terminal(monkeypatch, columns, *everything)
    text = ANSI.sub("", narrow)
    tables, _, _ = text.partition("* significantly")
    assert max(map(len, text.splitlines())) <= columns and "…" not in text

    def numbers(of: str) -> list[str]:
        return sorted(re.findall(r"-?\d[\d.]*(?:e[-+]\d+)?", of.partition("* significantly")[0]))

    assert numbers(tables) == numbers(wide.stdout) and len(numbers(tables)) > 80
    runs = text.partition("Runs:")[2]
    assert len(re.findall(r"^sine +ensemble ", runs, re.MULTILINE)) == len(re.findall("^dataset", runs, re.M)) > 0
    frame = pd.read_csv(io.StringIO(gapbench("table", "out", "--format", "csv").stdout))
    for dataset, part in zip(("quiet", "sine"), re.split(r"^sine: mean", tables, flags=re.MULTILINE), strict=True):
        own = frame.query("dataset == @dataset")
        for row, status in own[["method", "status"]].drop_duplicates().itertuples(index=False):
            label = re.escape(row if status == "ranked" else f"{row} ({status})")
            assert re.search(rf"^{label} ", part, re.MULTILINE), (dataset, row)
        assert set(re.findall(r"\b\w+_[yf]\b|\bgap_\w+", part)) == set(own["score"])


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--suite", "defualt"), "unknown suite 'defualt': did you mean default;"),
        (("--suite", "zzz"), "unknown suite 'zzz': expected one of default, broken"),
        (("--methods", "dropuot"), "unknown method 'dropuot': did you mean dropout;"),
        (
            ("--methods", "dropout,zzz"),
            "unknown method 'zzz': expected one of dropout, ensemble, slow, prior, truth, anchored_ensemble",
        ),
        (("--methods", ""), "--methods is empty: expected names or path.py:Class, separated by commas"),
        (("--datasets", " , "), "--datasets is empty: expected names or path.py:Class, separated by commas"),
        (("--datasets", "sin"), "unknown dataset 'sin': did you mean sine;"),
        (("--replicas", "0"), "'--replicas': 0 is not in the range 1<=x<=100000"),
        (("--replicas", "many"), "'--replicas': 'many' is not a valid integer range"),
        (("--jobs", "-1"), "'--jobs': -1 is not in the range x>=1"),
        (("--seed", "-1"), "'--seed': -1 is not in the range x>=0"),
        (("--device", "cuda:99"), "device cuda:99: torch "),
        (("--device", "gpu"), "device 'gpu': expected auto, cpu, mps, cuda or cuda:N"),
        (("--device", "cuda:-1"), "device 'cuda:-1': expected auto, cpu, mps, cuda or cuda:N"),
        (("--device", "cpu:1"), "device 'cpu:1': expected auto, cpu, mps, cuda or cuda:N"),
        (("--device", "mps"), "device mps: torch sees no GPU of Apple's here; take the device cpu"),
        (("--out", ""), "'--out': '': expected the path of a folder"),
        (("--out", "a\0b"), "expected the path of a folder"),
        (("--methods", "nowhere.py:Mine"), "nowhere.py:Mine: there is no file nowhere.py"),
        (("--method", "mine.py:Mine"), "No such option '--method'"),
        (("--replica", "3"), "No such option '--replica'"),
        (("now",), "unexpected extra argument"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_expected(
    gapbench: Gapbench, tmp_path: Path, argv: tuple[str, ...], words: str
) -> None:
    """And nothing is written. Seen to catch: a folder made before the names are looked at, an empty list taken for
    every row, KeyError of a name."""
    given = [arg for arg in RUN if arg not in ("--out", "out")] if argv[0] == "--out" else list(RUN)
    assert words.replace("'", "") in one_line(gapbench(*given, *argv), 2).replace("'", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["table", "plot", "run"])
def test_a_folder_that_is_no_use_is_one_line(gapbench: Gapbench, command: str) -> None:
    """Exit code 3. Seen to catch: exit code 4 for an OSError, exit code 2."""
    Path("file").write_text("")
    for folder, words in (("file", "file"), ("file/below", "file/below"), ("nowhere", "there is no such folder")):
        if command != "run":
            assert words in one_line(gapbench(command, folder), 3)
        elif folder != "nowhere":
            assert f"{words}: cannot write there (Not a directory)" in one_line(gapbench(*RUN[:-1], folder), 3)
    assert gapbench(*RUN, "--methods", "dropout").exit_code == 0
    if command == "plot":
        assert "file" in one_line(gapbench("plot", "out", "--out", "file/figures"), 3)
    body = store.canonical({"format": store.FORMAT + 1})
    path = store.Store(Path("out")).path("00" * 32)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'{{"sha256":"{store.sha256(body)}","body":{body}}}\n')
    newer = gapbench(*RUN) if command == "run" else gapbench(command, "out")
    assert f"newer gapbench (record format {store.FORMAT + 1}; this one reads {store.FORMAT}): upgrade" in one_line(
        newer, 3
    )


def test_what_nobody_thought_of_is_one_line_too(gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 4, and --debug shows where, in every command. Seen to catch: a traceback without --debug, none with
    it, a command without --debug, exit code 1."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nought\nsecond line")

    monkeypatch.setattr(suites, "suites", fail)
    monkeypatch.setattr(load, "collect", fail)
    monkeypatch.setattr("gapbench.runners.readme.refresh", fail)
    monkeypatch.setattr("gapbench.runners.doctor.examine", fail)
    Path("README.md").write_text("")
    monkeypatch.setattr("gapbench.datasets.uci.download", fail)
    arguments = {"table": ["out"], "plot": ["out"], "export": ["out"], "check": ["sgld"], "publish": ["x"]}
    arguments |= {name: ["out"] for name in ("gc", "status", "verify")}
    arguments |= {"compare": ["a", "b", "out"], "merge": ["a", "--out", "b"], "submit": ["toy.py:Toy"], "tune": ["svi"]}
    monkeypatch.setattr("gapbench.runners.plan.status", fail)
    monkeypatch.setattr("gapbench.runners.merge.merge", fail)
    monkeypatch.setattr("gapbench.runners.gc.find", fail)
    nested = ("reference", "data", "suite")
    commands = [[name, *arguments.get(name, [])] for name in main.commands if name not in nested]
    commands += [["data", "list"], ["data", "get", "uci"], ["suite", "show", "default"]]
    commands += [["reference", name, "sine"] for name in main.commands["reference"].commands]  # type: ignore[attr-defined]
    for command in commands:
        result = gapbench(*command)
        assert one_line(result, 4).startswith("Error: ZeroDivisionError: by nought; this should not happen: --debug")
        debug = gapbench(*command, "--debug")
        assert debug.exit_code == 4 and "Traceback" in debug.stderr and ", in fail\n" in debug.stderr


def test_debug_shows_where_a_told_error_comes_from(gapbench: Gapbench) -> None:
    result = gapbench("table", "nowhere", "--debug")
    assert result.exit_code == 3 and "Traceback" in result.stderr and "in collect" in result.stderr


def test_an_interrupt_at_any_time_is_130(gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to catch: click's own "Aborted!" with exit code 1."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(load, "collect", interrupt)
    result = gapbench("table", "out")
    assert result.exit_code == 130 and result.stderr == "Interrupted.\n"
    monkeypatch.setattr(run, "complete", interrupt)
    result = gapbench(*RUN)
    assert result.exit_code == 130
    words = f"Interrupted. Finished cells are in {Path('out').absolute()}; run the same command again to go on.\n"
    assert result.stderr.endswith(words)


# Surroundings --------------------------------------------------------------------------------------------------------


SHORT = (
    "from gapbench.runners.cli.errors import Command; from gapbench.runners.cli.main import main; "
    'main.add_command(Command("short", callback=lambda: print("x"))); main()'
)


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of bash, in which $G is the command line, with a command `short` that leaves its output in the buffer."""
    line = "set -o pipefail; " + line.replace("$G", f"{sys.executable} -c '{SHORT}'")
    environment = {**os.environ, "PYTHONUNBUFFERED": "", **environment}
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("argv", ["--help", "table --help", "short", "list"])
def test_a_reader_that_has_gone_ends_a_command_quietly(argv: str) -> None:
    """With the code of SIGPIPE. Seen to catch: exit code 1, which is that of a failed cell; what is left in the buffer
    when Python ends, with a message and exit code 120.

    `sleep` waits until the reader has gone.
    """
    done = shell(f"(sleep 0.3; $G {argv}) | true")
    assert (done.returncode, done.stdout, done.stderr) == (141, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("argv", ["--help", "short"])
def test_a_full_disk_is_one_line(argv: str) -> None:
    """Exit code 3. Seen to catch: a traceback, exit code 120 of Python's own end."""
    done = shell(f"$G {argv} > /dev/full")
    assert done.returncode == 3 and done.stderr == "Error: [Errno 28] No space left on device\n"


def test_a_locale_without_utf8_gets_other_letters() -> None:
    """And a closed output is no error. Seen to catch: UnicodeEncodeError, AttributeError of None."""
    done = shell("$G list", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0 and "svi" in done.stdout and done.stdout.isascii() and done.stderr == ""
    done = shell("$G short >&-")
    assert (done.returncode, done.stderr) == (0, "")


# Help ----------------------------------------------------------------------------------------------------------------


def test_help_tells_every_exit_code_there_is(gapbench: Gapbench) -> None:
    """Those of click (0, 1, 2) and of every error that is raised here. Seen to catch: a new class with a code that is
    not told."""

    def below(cls: type) -> set[type]:
        return {cls}.union(*(below(each) for each in cls.__subclasses__()))

    ours = {cls for cls in below(click.ClickException) if cls.__module__.startswith("gapbench.")}
    codes = {0, 1, 2, 141} | {cls.exit_code for cls in ours}  # type: ignore[attr-defined]
    for argv in (["--help"], ["run", "-h"]):
        text = gapbench(*argv).stdout
        told = re.findall(r"^ +(\d+)  ", text.partition("Exit codes:")[2], re.MULTILINE)
        assert {int(code) for code in told} == codes == {0, 1, 2, 3, 4, 5, 130, 141}


def test_help_is_instant() -> None:
    """It imports nothing heavy. Seen to catch: `import numpy` in cli.py, `from gapbench.runners.store import …`."""
    heavy = {"torch", "numpy", "pandas", "scipy", "matplotlib", "rich", "opacus", "pyro"}
    code = (
        "import sys; from gapbench.runners.cli.main import main\n"
        "main(['--help'], standalone_mode=False); main(['run', '--help'], standalone_mode=False)\n"
        f"print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in result.stdout and result.stderr == "[]\n"


def test_the_default_folder_is_one_for_each_suite(gapbench: Gapbench) -> None:
    """Suites share names of rows, with other settings: in one folder they would hide each other."""
    argv = ("run", "--device", "cpu", "--jobs", 1, "--methods", "dropout", "--datasets", "sine")
    assert gapbench(*argv).exit_code == 0
    assert list(store.Store(Path("gapbench-results/default")).keys())
    Path("results/published").mkdir(parents=True)
    assert gapbench(*argv, "--suite", "broken").exit_code == 0
    assert list(store.Store(Path("results/local/broken")).keys())
    assert [path.name for path in Path("gapbench-results").iterdir()] == ["default"]


def test_garbage_is_looked_for_again_after_a_command_that_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not while it runs, whatever ends it; who had it off before keeps it off. Seen to catch: it stays off, it is
    put on."""
    found: list[bool] = []
    monkeypatch.setattr(load, "collect", lambda folder: found.append(gc.isenabled()) or load.Collected([], [], []))
    for before in (True, False):
        (gc.enable if before else gc.disable)()
        try:
            for command in ("table", "report", "compare", "ranks", "coverage"):
                CliRunner().invoke(main, [command, *(["a", "b"] if command == "compare" else []), str(tmp_path)])
                assert gc.isenabled() is before, command
        finally:
            gc.enable()
    assert found == [False] * 10
