"""The command line as a user meets it: what it prints where, how it ends, and what it says of a mistake."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from torch import Generator, Tensor

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.controls import PriorPredictive, Truth
from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.mc_dropout import MCDropout
from gapbench.runners import cli, execute, store, suites

Gapbench = Callable[..., Result]
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites of milliseconds, and no waiting for the disk."""
    data = {"sine": GappedSine(n=12, noise_std=0.1, test_points=13), "quiet": GappedSine(n=12, test_points=13)}
    rows = {"dropout": MCDropout(steps=3, draws=4), "ensemble": MCDropout(rate=0.5, steps=3, draws=4)}
    made = {
        name: suites.Suite(f"about {name}", MLP(hidden=(4,)), data, methods, 2, on_request={"slow": MCDropout(steps=4)})
        for name, methods in {
            "default": rows,
            "broken": {**rows, "broken": Broken()},
            "diverging": {**rows, "diverged": MCDropout(lr=1e30, steps=3, draws=4)},
        }.items()
    }
    monkeypatch.setattr(suites, "suites", lambda: made)
    monkeypatch.setattr(suites, "CONTROLS", {"prior": PriorPredictive(4), "truth": Truth()})
    monkeypatch.setattr(os, "fsync", lambda file: None)


@dataclass(frozen=True)
class Broken(UncertaintyMethod):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        raise ValueError("no such luck")


@pytest.fixture
def gapbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gapbench:
    """The command line in this process, in an empty folder, without a terminal."""
    monkeypatch.chdir(tmp_path)

    def call(*argv: object) -> Result:
        return CliRunner().invoke(cli.main, [str(arg) for arg in argv], prog_name="gapbench")

    return call


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
    assert "8 cells: 7 finished, 1 skipped\nResults: out. Figures: gapbench plot out\n" in first.stderr
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
    assert gapbench(*RUN, "--seed", 1, "--replicas", 3).exit_code == 0
    again = gapbench(*small)
    assert "3 cells: 3 kept" in again.stderr and again.stdout == asked != ""
    assert re.findall(r"^(\w+)(?: \(\w+\))?  ", asked.partition("Runs:")[0], re.MULTILINE) == [
        "dropout",
        "prior",
        "truth",
    ]
    table = gapbench("table", "out")
    assert table.exit_code == 0 and "mean over 3 replicas" in table.stdout
    assert "sine: dropout, prior, truth also there with another seed" in table.stderr


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
    paths = re.findall(r"^ +(out/cells/.*\.json)$", verbose.stderr, re.MULTILINE)
    assert len(paths) == 7 and all(Path(path).is_file() for path in paths)
    assert "one of them" in one_line(gapbench(*RUN, "-q", "-v"), 2)


def test_a_row_on_request_is_run_if_it_is_named(gapbench: Gapbench) -> None:
    """And not otherwise. Seen to catch: run with the others, unknown by name."""
    result = gapbench(*RUN, "--datasets", "sine")
    assert result.exit_code == 0 and "slow" not in result.output
    named = gapbench(*RUN, "--datasets", "sine", "--methods", "slow")
    assert named.exit_code == 0 and "slow" in named.stdout and "dropout" not in named.stdout
    shipped = suites._default()
    assert list(shipped.on_request) == ["hmc"] and "hmc" not in shipped.methods


def test_a_failed_cell_is_told_and_is_exit_code_1(gapbench: Gapbench) -> None:
    """The others stand. Seen to catch: exit code 0, no word of it in a later table."""
    result = gapbench(*RUN, "--suite", "broken", "--datasets", "sine")
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "5 cells: 4 finished, 1 failed" in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Failed ")]
    note = re.fullmatch(
        r"Failed sine · broken · replicas 0–1: ValueError: no such luck \(see (out/failures/.*)\)", line
    )
    assert note and json.loads(Path(note[1]).read_text())["body"]["reason"] == "no such luck"
    table = gapbench("table", "out")
    assert table.exit_code == 0 and table.stdout == result.stdout
    assert "sine · broken · replicas 0–1 failed (ValueError: no such luck); the next run tries it again" in table.stderr
    only = gapbench(*RUN[:-1], "nothing", "--suite", "broken", "--methods", "broken", "--datasets", "quiet")
    assert only.exit_code == 1 and "1 failed" in only.stderr


def test_replicas_that_diverged_are_in_the_table_and_are_exit_code_1(gapbench: Gapbench) -> None:
    """In the run that trains them and in one that finds them there; the reason is told once for all of them. Seen to
    catch: exit code 0 for what is kept, a line a replica."""
    for word in ("finished", "kept"):
        result = gapbench(*RUN, "--suite", "diverging", "--datasets", "sine")
        assert result.exit_code == 1 and f"5 {word}" in result.stderr
        assert "diverged (failed, 2 of 2 replicas failed)" in result.stdout
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("Failed ")]
        reason = "replica 0, 1: predictions are not finite: the training diverged; a smaller lr may help"
        assert line == f"Failed sine · diverged · replicas 0–1: {reason}"


def test_a_damaged_record_is_one_line_and_the_rest_is_shown(gapbench: Gapbench) -> None:
    """Nothing that was computed is lost to the eye for one bad file; exit code 1 says that it is not everything."""
    assert gapbench(*RUN).exit_code == 0
    found = store.Store(Path("out"))
    identities = [record["identity"] for record in found.records()]
    path = next(found.path(store.key_of(identity)) for identity in identities if identity["row"] == "ensemble")
    path.write_bytes(path.read_bytes()[:-20])
    for command in (("table", "out"), ("table", "out", "--format", "csv"), ("plot", "out")):
        shown = gapbench(*command)
        assert shown.exit_code == 1 and shown.stdout != "" and "Traceback" not in shown.output
        assert re.fullmatch(rf"Left out: {path}: .*; `gapbench run --out out` makes it again\n", shown.stderr)
    again = gapbench(*RUN)
    assert again.exit_code == 0 and again.stderr.startswith(f"{path} was damaged: moved to out/damaged")
    assert "8 cells: 1 finished, 6 kept, 1 skipped" in again.stderr
    assert gapbench("table", "out").exit_code == 0


def test_formats(gapbench: Gapbench) -> None:
    """The same numbers in each; by region, every score that a single replica has."""
    assert gapbench(*RUN).exit_code == 0
    frame = pd.read_csv(io.StringIO(gapbench("table", "out", "--format", "csv").stdout))
    loaded = store.load("out")
    line = frame.query("dataset == 'sine' and row == 'dropout' and score == 'crps_y' and region == 'gap'").iloc[0]
    same = loaded.query("dataset == 'sine' and row == 'dropout' and score == 'crps_y' and region == 'gap'")
    assert line["value"] == pytest.approx(same["value"].mean(), rel=1e-12)
    shown = f"{line['value']:.3g}"
    assert shown in gapbench("table", "out").stdout
    assert f"| {shown}" in gapbench("table", "out", "--format", "markdown").stdout
    by_region = pd.read_csv(io.StringIO(gapbench("table", "out", "--by", "region", "--format", "csv").stdout))
    assert set(by_region["region"]) == {"all", "data", "gap", "extrapolation"} and len(by_region) > 3 * len(frame)
    text = gapbench("table", "out", "--by", "region").stdout
    assert all(f"{value:.3g}" in text for value in by_region.query("score == 'rmse_f'")["value"].dropna())


def test_plot_writes_images_and_prints_their_names(gapbench: Gapbench) -> None:
    assert gapbench(*RUN).exit_code == 0
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
            cli.main([str(arg) for arg in argv], prog_name="gapbench")
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


def test_a_terminal_without_the_letters_gets_others(gapbench: Gapbench) -> None:
    """Seen to catch: UnicodeEncodeError at the first ↓."""
    assert gapbench(*RUN).exit_code == 0
    for command in (["list"], ["table", "out"], ["table", "out", "--format", "csv"]):
        result = CliRunner(charset="ascii").invoke(cli.main, command)
        assert result.exit_code == 0 and result.stdout.isascii() and "crps_y" in result.stdout


@pytest.mark.parametrize("columns", [40, 80, 133])
def test_no_digit_is_lost_on_a_narrow_terminal(
    gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """The table comes in pieces, with all the numbers of the wide one, and no line is wider than the terminal.

    Seen to catch: rich left to squeeze the columns (digits become …), the last column forgotten, the first row of a
    piece forgotten, rows that lose the second half of their names.
    """
    wide = gapbench(*RUN)
    assert wide.exit_code == 0
    narrow, _ = on_a_terminal(monkeypatch, columns, "table", "out")
    text = ANSI.sub("", narrow)
    tables, _, _ = text.partition("* significantly")
    assert max(map(len, text.splitlines())) <= columns and "…" not in text

    def numbers(of: str) -> list[str]:
        return sorted(re.findall(r"-?\d[\d.]*(?:e[-+]\d+)?", of.partition("* significantly")[0]))

    assert numbers(tables) == numbers(wide.stdout) and len(numbers(tables)) > 100
    runs = text.partition("Runs:")[2]
    assert len(re.findall(r"^sine +ensemble ", runs, re.MULTILINE)) == len(re.findall("^dataset", runs, re.M)) > 0
    frame = pd.read_csv(io.StringIO(gapbench("table", "out", "--format", "csv").stdout))
    for dataset, part in zip(("quiet", "sine"), re.split(r"^sine: mean", tables, flags=re.MULTILINE), strict=True):
        for row in frame.query("dataset == @dataset")["row"].unique():
            assert re.search(rf"^{row}\b", part, re.MULTILINE), (dataset, row)
    heads = re.findall(r"\b\w+_[yf]\b|\bgap_\w+", tables)
    assert set(heads) == set(re.findall(r"\b\w+_[yf]\b|\bgap_\w+", wide.stdout.partition("* significantly")[0]))


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--suite", "defualt"), "unknown suite 'defualt': did you mean default;"),
        (("--suite", "zzz"), "unknown suite 'zzz': expected one of default, broken"),
        (("--methods", "dropuot"), "unknown method 'dropuot': did you mean dropout;"),
        (("--methods", "dropout,zzz"), "unknown method 'zzz': expected one of dropout, ensemble, slow, prior, truth"),
        (("--methods", ""), "--methods is empty: expected names separated by commas, of dropout"),
        (("--datasets", " , "), "--datasets is empty: expected names separated by commas, of sine"),
        (("--datasets", "sin"), "unknown dataset 'sin': did you mean sine;"),
        (("--replicas", "0"), "'--replicas': 0 is not in the range 1<=x<=100000"),
        (("--replicas", "many"), "'--replicas': 'many' is not a valid integer range"),
        (("--jobs", "-1"), "'--jobs': -1 is not in the range x>=1"),
        (("--seed", "-1"), "'--seed': -1 is not in the range x>=0"),
        (("--device", "cuda:99"), "--device cuda:99: torch "),
        (("--device", "gpu"), "--device 'gpu': expected auto, cpu, cuda or cuda:N"),
        (("--device", "cuda:-1"), "--device 'cuda:-1': expected auto, cpu, cuda or cuda:N"),
        (("--device", "cpu:1"), "--device 'cpu:1': expected auto, cpu, cuda or cuda:N"),
        (("--out", ""), "'--out': '': expected the path of a folder"),
        (("--out", "a\0b"), "expected the path of a folder"),
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
    found = store.Store(Path("out"))
    key, record = store.key_of({}), {"format": 99, "identity": {}}
    found.write(key, record)
    newer = gapbench(*RUN) if command == "run" else gapbench(command, "out")
    assert "newer gapbench (record format 99; this one reads 1): upgrade" in one_line(newer, 3)


def test_what_nobody_thought_of_is_one_line_too(gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 4, and --debug shows where, in every command. Seen to catch: a traceback without --debug, none with
    it, a command without --debug, exit code 1."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nought\nsecond line")

    monkeypatch.setattr(suites, "suites", fail)
    monkeypatch.setattr(store, "survey", fail)
    monkeypatch.setattr("gapbench.runners.readme.refresh", fail)
    monkeypatch.setattr("gapbench.runners.doctor.examine", fail)
    Path("README.md").write_text("")
    arguments = {"table": ["out"], "plot": ["out"], "export": ["out"], "check": ["sgld"]}
    commands = [[name, *arguments.get(name, [])] for name in cli.main.commands if name != "reference"]
    commands += [["reference", name, "sine"] for name in cli.reference.commands]
    for command in commands:
        result = gapbench(*command)
        assert one_line(result, 4).startswith("Error: ZeroDivisionError: by nought; this should not happen: --debug")
        debug = gapbench(*command, "--debug")
        assert debug.exit_code == 4 and "Traceback" in debug.stderr and ", in fail\n" in debug.stderr


def test_debug_shows_where_a_told_error_comes_from(gapbench: Gapbench) -> None:
    result = gapbench("table", "nowhere", "--debug")
    assert result.exit_code == 3 and "Traceback" in result.stderr and "in survey" in result.stderr


def test_an_interrupt_at_any_time_is_130(gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to catch: click's own "Aborted!" with exit code 1."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "survey", interrupt)
    result = gapbench("table", "out")
    assert result.exit_code == 130 and result.stderr == "Interrupted.\n"
    monkeypatch.setattr(execute, "complete", interrupt)
    result = gapbench(*RUN)
    assert result.exit_code == 130
    assert result.stderr.endswith("Interrupted. Finished cells are in out; run the same command again to go on.\n")


# Help ----------------------------------------------------------------------------------------------------------------


def test_help_tells_every_exit_code_there_is(gapbench: Gapbench) -> None:
    """Those of click (0, 1, 2) and of every error that is raised here. Seen to catch: a new class with a code that is
    not told."""

    def below(cls: type) -> set[type]:
        return {cls}.union(*(below(each) for each in cls.__subclasses__()))

    ours = {cls for cls in below(click.ClickException) if cls.__module__.startswith("gapbench.")}
    codes = {0, 1, 2} | {cls.exit_code for cls in ours}  # type: ignore[attr-defined]
    for argv in (["--help"], ["run", "-h"]):
        text = gapbench(*argv).stdout
        told = re.findall(r"^ +(\d+)  ", text.partition("Exit codes:")[2], re.MULTILINE)
        assert {int(code) for code in told} == codes == {0, 1, 2, 3, 4, 130}


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
