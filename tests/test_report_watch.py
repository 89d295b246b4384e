"""A report while its run goes on: `gapbench report --watch`, and `gapbench run --report`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.controls import PriorPredictive, Truth
from gapbench.methods.engine.model import MLP
from gapbench.methods.mc_dropout import MCDropout
from gapbench.runners import suites
from gapbench.runners.cli import status as cli_status
from gapbench.runners.cli.main import main
from gapbench.runners.store import put

pytestmark = pytest.mark.usefixtures("in_this_process")
PUBLISHED = Path(__file__).parents[1] / "results" / "published"
RUN = ("run", "--device", "cpu", "--jobs", 1, "--out", "out")
REFRESH = '<meta http-equiv="refresh" content="3">'


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and a suite of milliseconds with four cells."""
    tasks = {"sine": suites.Task(GappedSine(n=12, noise_std=0.1, test_points=13), MLP(hidden=(4,)))}
    methods = {"dropout": MCDropout(steps=3, draws=4), "ensemble": MCDropout(rate=0.5, steps=3, draws=4)}
    monkeypatch.setattr(suites, "suites", lambda: {"default": suites.Suite("tiny", tasks, methods, 2)})
    monkeypatch.setattr(suites, "CONTROLS", {"prior": PriorPredictive(4), "truth": Truth()})
    monkeypatch.chdir(tmp_path)


def gapbench(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="gapbench")


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A watch that does these steps, one in each of its pauses."""

    def watched(*steps: Callable[[], object]) -> Result:
        left = list(steps)
        monkeypatch.setattr(cli_status, "time", SimpleNamespace(sleep=lambda seconds: left.pop(0)()))
        return gapbench("report", "out", "--watch", "--every", "2.5")

    return watched


def test_a_watched_report_is_written_as_cells_finish(watch: Callable[..., Result]) -> None:
    """From a folder that is not there to the end of the run. Seen to catch: a page written at each look, none written
    for new cells, a wait that is an error, one that is told again and again, a refresh that the last page keeps, a
    refresh of 2 seconds for 2.5, cells of the shard counted in place of the run's."""
    path, pages = Path("out/report.html").absolute(), list[str]()

    def look() -> None:
        pages.append(path.read_text(encoding="utf-8"))
        path.write_text("not written again", encoding="utf-8")

    def untouched() -> None:
        assert path.read_text(encoding="utf-8") == "not written again"

    ran = watch(
        lambda: None,
        lambda: gapbench(*RUN, "--shard", "1/3"),
        look,
        untouched,
        lambda: gapbench(*RUN, "--shard", "2/3"),
        look,
        lambda: gapbench(*RUN, "--shard", "3/3"),
    )
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.splitlines() == [
        f"{path.parent}: no results yet, waiting for a run",
        f"{path}: 1 of 4 cells are done.",
        f"{path}: 2 of 4 cells are done.",
        str(path),
    ]
    assert all(REFRESH in page for page in pages) and len(pages) == 2
    assert "<p>1 of 4 cells are done.</p>" in pages[0] and "<p>2 of 4 cells are done.</p>" in pages[1]
    last = path.read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in last and "<p>4 of 4 cells are done.</p>" in last
    assert not [one.name for one in path.parent.iterdir() if one.name.startswith(".")]


def test_a_watch_that_is_ended_leaves_a_page_that_stays(watch: Callable[..., Result]) -> None:
    """Seen to catch: a page that loads itself again for ever, exit code 0, a page promised that is not there."""

    def end() -> None:
        raise KeyboardInterrupt

    early = watch(end)
    assert early.exit_code == 130 and "Interrupted. There is no page yet." in early.stderr
    ran = watch(lambda: gapbench(*RUN, "--shard", "1/3"), end)
    path = Path("out/report.html").absolute()
    assert ran.exit_code == 130 and f"Interrupted. The page is {path}." in ran.stderr
    text = path.read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in text and "<p>1 of 4 cells are done.</p>" in text


def test_a_watch_ends_with_a_run_that_failed(watch: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a result there is no page, and a published folder does not change. Seen to catch: a watch without an
    end, one that waits for ever for a folder that cannot change."""
    monkeypatch.setattr(MCDropout, "fit", lambda *words: 1 / 0)
    monkeypatch.setattr(suites, "CONTROLS", {})
    ran = watch(lambda: gapbench(*RUN))
    assert ran.exit_code == 3 and "no results there" in ran.stderr
    refused = gapbench("report", PUBLISHED / "default", "--watch")
    assert refused.exit_code == 2 and "is published and does not change" in refused.stderr


def test_a_page_is_replaced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to catch: the old page opened for writing, an unfinished file in another folder, one that is left behind."""
    path = tmp_path / "report.html"
    put(path, b"old")
    there = dict[str, str]()

    def refuse(source: Path, target: Path) -> None:
        there.update({one.name: one.read_text() for one in tmp_path.iterdir()})
        raise OSError("no room")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no room"):
        put(path, b"new")
    assert sorted(there.values()) == ["new", "old"] and there[path.name] == "old"
    assert [one.name for one in tmp_path.iterdir()] == [path.name] and path.read_text() == "old"


def test_a_run_writes_its_report_if_asked() -> None:
    """The page of `gapbench report`, of all that the folder has. Seen to catch: a page of the last cells alone, a path
    that --quiet hides, a page without being asked."""
    path = Path("out/report.html").absolute()
    assert gapbench(*RUN, "--methods", "ensemble").exit_code == 0 and not path.exists()
    ran = gapbench(*RUN, "--methods", "dropout", "--report", "-q")
    assert ran.exit_code == 0 and f"Report: {path}" in ran.stderr
    text = path.read_bytes()
    assert gapbench("report", "out").exit_code == 0 and path.read_bytes() == text and b"ensemble" in text
