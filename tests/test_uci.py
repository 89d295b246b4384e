"""The UCI tables: their splits are the published ones, and a download is opened only if it is the right file."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from commands import gapbench
from gap_splits import GAP_SPLITS

from gapbench.datasets import downloads, uci
from gapbench.datasets.downloads import Download, DownloadError
from gapbench.datasets.uci import SPLITS, TABLES, UCI, download, middle, read, standard_split
from gapbench.evaluation.certificate import verdict
from gapbench.evaluation.compare import compare
from gapbench.evaluation.reference_file import FOLDER, find, key_of, path_of
from gapbench.methods.deep_ensemble import DeepEnsemble
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.validated import Validated
from gapbench.runners.cli.main import main
from gapbench.runners.load import load, results
from gapbench.runners.publish import publish
from gapbench.runners.suites import LARGE, select, suites

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "uci"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the tables are not beside the checkout")
CONTENT = b"1 2 3\n4 5 6\n7 8 9\n" * 5000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for downloads."""
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path / "data"))
    read.cache_clear()
    return tmp_path / "data"


def rows(path: Path) -> np.ndarray:
    return np.loadtxt(path).astype(int)


# --- The splits -------------------------------------------------------------------------------------------------------


@shared
@pytest.mark.parametrize("name", TABLES)
def test_the_splits_are_the_published_ones(name: str) -> None:
    """To the row: 20 standard ones, in their order, and a gap split for each feature. The file is the known one; its
    first columns are the features, and the target follows. Seen to catch: another seed, one row less in training, a
    stable sort in place of numpy's, a gap one row too low."""
    data, table = np.loadtxt(SHARED / name / "data.txt"), TABLES[name]
    columns, target = rows(SHARED / name / "index_features.txt"), rows(SHARED / name / "index_target.txt")
    assert (len(data), list(columns), target) == (table.rows, list(range(table.features)), table.features)
    assert hashlib.sha256((SHARED / name / "data.txt").read_bytes()).hexdigest() == table.sha256
    for number in (0, 1, SPLITS - 1):
        train, test = standard_split(len(data), number)
        np.testing.assert_array_equal(train, rows(SHARED / name / "standard" / f"index_train_{number}.txt"))
        np.testing.assert_array_equal(test, rows(SHARED / name / "standard" / f"index_test_{number}.txt"))
    for feature in range(table.features):
        gap = middle(data[:, feature])
        assert set(gap) == set(rows(SHARED / name / "gap" / f"index_test_{feature}.txt"))
        others = np.setdiff1d(np.arange(len(data)), gap)
        assert set(others) == set(rows(SHARED / name / "gap" / f"index_train_{feature}.txt"))


@shared
def test_problems_of_a_table() -> None:
    """Yacht: standard splits hold the published rows, standardised by the training rows; the gap splits leave features
    0 and 2 out, hold a tenth of the other rows, and nothing is in two parts. Seen to catch: test rows in the
    standardisation, a constant gap kept, held rows that were trained on."""
    CliRunner().invoke(main, ["data", "get", "uci", "yacht", "--from", str(SHARED)], catch_exceptions=False)
    data = np.loadtxt(SHARED / "yacht" / "data.txt")
    problems = UCI(table="yacht").problems([0, 7])
    train, test = (rows(SHARED / "yacht" / "standard" / f"index_{part}_7.txt") for part in ("train", "test"))
    np.testing.assert_array_equal(problems.x[1].numpy(), data[train, :6])
    np.testing.assert_array_equal(problems.y_test[1].numpy(), data[test, 6])
    assert problems.standardisation.y_mean[1] == pytest.approx(data[train, 6].mean())
    x, y, _ = problems.inputs
    assert x.mean(1).abs().max() < 1e-6 and torch.allclose(y.std(1, correction=0), torch.ones(2), atol=1e-5)
    assert list(problems.regions) == ["data"] and problems.regions["data"].all()

    gaps = UCI(table="yacht", gap=True)
    assert gaps.splits == [1, 3, 4, 5]
    cut = gaps.problems(range(4))
    assert cut.x.shape == (4, 185, 6) and cut.x_test.shape == (4, 21 + 102, 6)
    for replica, feature in enumerate(gaps.splits):
        inside = cut.x_test[replica, cut.regions["gap"][replica], feature]
        held = cut.x_test[replica, cut.regions["data"][replica], feature]
        assert inside.min() >= held.min() and inside.max() <= held.max() and len(inside) == 102
        whole = torch.cat([cut.x[replica], cut.x_test[replica]]).numpy()
        assert {tuple(row) for row in whole} == {tuple(row) for row in data[:, :6]} and len(whole) == len(data)
    again = gaps.problems([2])
    assert torch.equal(again.x[0], cut.x[2]) and not torch.equal(gaps.problems([2], seed=1).x[0], cut.x[2])
    assert UCI(table="yacht", gap=True, held=0.0).problems([0]).x.shape == (1, 206, 6)
    with pytest.raises(IndexError, match="4 splits, and replica 4 was asked for"):
        gaps.problems([4])


def test_the_middle_third_without_ties() -> None:
    """Of 18 rows the six in the middle, whatever their order. Seen to catch: a gap of rows in place of values."""
    values = np.random.default_rng(0).permutation(18).astype(float)
    assert set(values[middle(values)]) == {6, 7, 8, 9, 10, 11}


# --- Downloads --------------------------------------------------------------------------------------------------------


class Server(BaseHTTPRequestHandler):
    """Sends CONTENT whole, cut, altered, late, or from elsewhere."""

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        if kind == "redirected":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return
        if kind == "gone":
            self.send_error(404)
            return
        if kind == "slow":
            time.sleep(1.5)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        content = CONTENT.replace(b"5", b"6") if kind == "altered" else CONTENT
        self.wfile.write(content[: len(content) // 2] if kind == "truncated" else content)

    def log_message(self, *_: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of a reader that has gone."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with Quiet(("127.0.0.1", 0), Server) as one:
        thread = threading.Thread(target=one.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()


def file(url: str) -> Download:
    return Download("table.txt", url, hashlib.sha256(CONTENT).hexdigest())


@pytest.mark.parametrize("kind", ["whole", "redirected"])
def test_a_download_arrives(server: str, cache: Path, kind: str) -> None:
    """And is not downloaded again."""
    one = file(f"{server}/{kind}")
    one.get()
    assert one.here and one.read() == CONTENT and [path.name for path in cache.iterdir()] == ["table.txt"]
    assert one.path.stat().st_mode & 0o044 == 0o044  # another user of this machine may read it
    file(f"{server}/gone").get()


@pytest.mark.parametrize("kind", ["truncated", "altered", "slow", "gone"])
def test_a_bad_download_leaves_nothing(server: str, cache: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the address. Seen to catch: no hash given, no time-out, the file written in its place."""
    monkeypatch.setattr(downloads, "TIMEOUT", 0.3)
    with pytest.raises(DownloadError, match=f"{server}/{kind}: .*; try again later, or give the file by --from FOLDER"):
        file(f"{server}/{kind}").get()
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_file_that_was_changed_is_not_opened(server: str) -> None:
    """Seen to catch: the hash looked at when it is downloaded alone."""
    one = file(f"{server}/whole")
    one.get()
    one.path.write_bytes(CONTENT + b"1 2 3\n")
    with pytest.raises(DownloadError, match=r"its sha256 is .*, expected .*; delete it and get it again"):
        one.read()
    one.get()
    assert one.read() == CONTENT


def test_the_folder_is_this_machines_fault(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home is found, and a folder that cannot be made is not blamed on the server."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GAPBENCH_DATA", "~/tables")
    assert downloads.folder() == tmp_path / "tables"
    (tmp_path / "tables").write_text("a file")
    with pytest.raises(DownloadError, match=r"tables: .*; name another folder by GAPBENCH_DATA") as caught:
        file(f"{server}/whole").get()
    assert server not in str(caught.value)
    (tmp_path / "copy").write_bytes(CONTENT)
    with pytest.raises(DownloadError, match="tables"):
        file(f"{server}/whole").take(tmp_path / "copy")


def test_the_commands(server: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`data list`, and `data get` from the network and from a folder. Seen to catch: a table that is there and said to
    be not, exit code 0 for a wrong file."""
    run = CliRunner().invoke
    told = run(main, ["data", "list"])
    assert told.exit_code == 0 and "yacht" in told.stdout and "scikit-learn removed it" in told.stdout
    assert " yes " not in told.stdout
    table = uci.Table("whole", 15_000, 2, hashlib.sha256(CONTENT).hexdigest(), "made up", "nowhere")
    monkeypatch.setattr(uci, "TABLES", {"small": table})
    monkeypatch.setattr(uci, "BASE", f"{server}/")
    assert download("small").url == f"{server}/whole/data/data.txt"
    assert run(main, ["data", "get", "uci", "big"]).exit_code == 2
    (tmp_path / "here" / "small").mkdir(parents=True)
    (tmp_path / "here" / "small" / "data.txt").write_bytes(CONTENT[:-1])
    wrong = run(main, ["data", "get", "uci", "--from", str(tmp_path / "here")])
    assert wrong.exit_code == 3 and "it is another file" in wrong.stderr and not (cache / "uci-small.txt").exists()
    (tmp_path / "here" / "small" / "data.txt").write_bytes(CONTENT)
    assert run(main, ["data", "get", "uci", "--from", str(tmp_path / "here")]).exit_code == 0
    assert download("small").read() == CONTENT and [path.name for path in cache.iterdir()] == ["uci-small.txt"]
    none = run(main, ["data", "get", "uci", "--from", str(tmp_path / "nowhere")])
    assert none.exit_code == 3 and "No such file" in none.stderr


def test_a_run_without_the_table_says_how_to_get_it(tmp_path: Path) -> None:
    """In one line, before anything is trained. Seen to catch: a silent download, a failed cell for each method."""
    chosen = ["--suite", "uci", "--methods", "nngp", "--datasets", "wine", "--out", str(tmp_path / "out")]
    run = CliRunner().invoke(main, ["run", *chosen])
    assert run.exit_code == 2 and "the table wine is not here; get it: gapbench data get uci" in run.stderr


@shared
def test_tables_are_run_published_and_compared(tmp_path: Path) -> None:
    """Yacht has four gaps, whatever number is asked for; widths are told in the gap and among the data, in the units of
    y. What is published compares as the run did: over random splits by the corrected interval, over gaps without one.
    Seen to catch: a cell for a split that there is not, scores of standardised y, a layout that is not published."""
    assert gapbench(tmp_path, "data", "get", "uci", "yacht", "--from", SHARED).returncode == 0
    rows = ("--methods", "nngp,evidential", "--set", "evidential.steps=20", "--jobs", 1, "--replicas", 5)
    found = {}
    for suite, dataset in (("uci", "yacht"), ("uci_gap", "yacht_gap")):
        out = tmp_path / suite
        done = gapbench(tmp_path, "run", "--suite", suite, "--datasets", dataset, "--out", out, *rows)
        assert done.returncode == 0, done.stderr
        publish(out, tmp_path / "published" / suite)
        both = [{one.method: one for one in results(where)} for where in (out, tmp_path / "published" / suite)]
        pairs = [compare(one["nngp"], one["evidential[steps=20]"], ("crps_y", "data")) for one in both]
        assert pairs[0].difference.value == pytest.approx(pairs[1].difference.value, rel=1e-5)
        assert pairs[0].better == pairs[1].better
        found[suite] = pairs[1]
        frame = load(out).query("method == 'nngp' and score == 'width_90_y' and value == value")
        assert 0.2 < frame.query("region == 'data'")["value"].mean() < 30  # the target's std is 15
    assert set(frame["replica"]) == {0, 1, 2, 3} and {"gap", "data"} <= set(frame["region"])
    standard, gaps = found["uci"], found["uci_gap"]
    assert standard.naive is not None
    widths = [np.log(one.high / one.low) for one in (standard.naive, standard.difference)]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(1 + 5 / 9))
    assert gaps.replicas == 4 and np.isnan(gaps.difference.low) and gaps.needed is None


@shared
def test_methods_that_need_all_rows_take_five_splits_of_large_tables() -> None:
    CliRunner().invoke(main, ["data", "get", "uci", "--from", str(SHARED)], catch_exceptions=False)
    suite = suites()["uci"]
    cells = select(suite).cells(suite.replicas, 0, suite.block)
    last = {(one.dataset_name, one.name): one.stop for one in cells}
    assert len(suite.methods) >= 10 and len(suite.tasks) == 8
    assert {last[table, "mclmc"] for table in LARGE} == {5} and last["power", "svi"] == last["wine", "mclmc"] == 20
    chains = {one.dataset_name: one.entry.method.chains for one in cells if one.name == "mclmc"}  # type: ignore[union-attr]
    assert {name for name, count in chains.items() if count == 4} == set(LARGE) and set(chains.values()) == {4, 8}
    gaps = select(suites()["uci_gap"]).cells(14, 0, 14)
    assert {one.dataset_name: one.stop for one in gaps if one.name == "svi"} == GAP_SPLITS


@shared
def test_boston_has_certified_references() -> None:
    """All that its suite promises, and no other table has any. Seen to catch: one that is missing, or of other rows."""
    CliRunner().invoke(main, ["data", "get", "uci", "boston", "--from", str(SHARED)], catch_exceptions=False)
    suite, found = suites()["uci_reference"], set()
    for one in suite.tasks.values():
        for replica in range(suite.replicas):
            data = one.dataset.problems([replica])
            reference = find(data, 0, one.model)
            assert reference is not None and verdict(reference, one.mcse) == []
            assert reference.about["dataset"] == repr(one.dataset) and reference.about["replica"] == replica
            found.add(path_of(key_of(data, 0, one.model)).stem)
    assert found == {path.stem for path in FOLDER.glob("*.json") if '"UCI(' in path.read_text()}


@shared
def test_the_grid_of_dropout_is_that_of_its_authors_code() -> None:
    """Its loss of standardised y is the mean squared error plus l²(1 − rate)/(2nτ)·|W|², and its density of y in the
    data's units has the precision τ. Steps are 4000 epochs of batches of 128. Seen to catch: τ of standardised y, the
    prior of another rate, epochs of the whole table."""
    CliRunner().invoke(main, ["data", "get", "uci", "yacht", "--from", str(SHARED)], catch_exceptions=False)
    suite = suites()["uci_mc_dropout"]
    task, s, n = suite.tasks["yacht"], np.loadtxt(SHARED / "yacht" / "data.txt")[:, 6].std(), 277
    grid = suite.adapted(suite.methods["mc_dropout_grid"], task)
    assert isinstance(grid, Validated) and len(grid.candidates) == 12
    found = {}
    for one in grid.candidates:
        model, method = one.model(task.model), one.method
        assert isinstance(method, MCDropout) and isinstance(model.noise_std, float)
        tau = 1 / (model.noise_std * s) ** 2
        weight = model.noise_std**2 / (n * model.prior_std**2)  # of |θ|², where the mean squared error has the weight 1
        assert weight == pytest.approx(0.01**2 * (1 - method.rate) / (2 * n * tau))
        assert method.steps == 4000 * 3 and method.by_epochs and method.inputs and method.batch == 128
        found[method.rate, round(tau, 9)] = one
    assert {tau for _, tau in found} == {0.25, 0.5, 0.75} and {rate for rate, _ in found} == {0.005, 0.01, 0.05, 0.1}
    ensemble = suites()["uci_deep_ensemble"]
    adapted = ensemble.adapted(ensemble.methods["ensemble_2017"], ensemble.tasks["yacht"])
    assert isinstance(adapted, DeepEnsemble) and adapted.steps == 40 * 3


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="table = 'whine': expected one of boston"):
        UCI(table="whine")
    with pytest.raises(ValueError, match=r"held = 1\.0: expected a share"):
        UCI(table="wine", held=1.0)
    with pytest.raises(DownloadError, match="the table wine is not here"):
        UCI(table="wine").problems([0])
