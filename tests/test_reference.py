"""References: their files, their certificate, their making, and the scores against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from scipy import stats
from torch import Generator, Tensor

from gapbench.datasets.base import Problems
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation import certificate as certificates
from gapbench.evaluation import reference_file
from gapbench.evaluation.agreement import agreement, wasserstein
from gapbench.evaluation.certificate import certificate, halves_apart, verdict
from gapbench.evaluation.controls import ReferencePosterior
from gapbench.evaluation.entries import Trained
from gapbench.evaluation.reference_file import (
    DRAWS_PER_CHAIN,
    FOLDER,
    FORMAT,
    Reference,
    Refused,
    digests,
    find,
    key_of,
    path_of,
    read,
)
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.distributions import NormalMixture
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.methods.hmc import HMC, State
from gapbench.methods.svi import SVI
from gapbench.runners import make_references as making
from gapbench.runners import suites
from gapbench.runners.cell import Cell
from gapbench.runners.cli.main import main
from gapbench.runners.complete import complete
from gapbench.runners.load import results
from gapbench.runners.make_references import NotCertified, Task, make, make_all
from gapbench.runners.store import Store
from gapbench.runners.suites import Suite

NOISE = 1.0
MODEL = MLP(hidden=(), noise_std=NOISE)  # wide enough for large steps
DATA = GappedSine(n=20, noise_std=0.1, test_points=12)
SHORT = HMC(burn_in=40, draws=300, thin=1, chains=4)


def draws(seed: int, *shape: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


def made_of(f: NDArray[np.float64], **about: object) -> Reference:
    return Reference.of(torch.from_numpy(f), {"format": FORMAT, "key": "k", "model": "m", **about})


# 1. Scores


@pytest.mark.parametrize(("s", "t"), [(5, 5), (4, 12), (6, 8), (1, 7), (200, 30)])
def test_wasserstein_is_scipys(s: int, t: int) -> None:
    """Sizes that divide one another and that do not. Seen to catch: the levels of the first alone, squares."""
    a, b = draws(0, s, 6), 2 * draws(1, t, 6) + 1
    expected = [stats.wasserstein_distance(a[:, m], b[:, m]) for m in range(6)]
    np.testing.assert_allclose(wasserstein(np.sort(a, 0), np.sort(b, 0)), expected)


def believed(f: NDArray[np.float64]) -> NormalMixture:
    """(S, M) draws as one replica's distribution."""
    return NormalMixture(torch.from_numpy(f)[None], torch.zeros(()))


def test_oracles() -> None:
    """Draws of the reference itself are at its Monte-Carlo error; a shifted mean gives the shift; a halved std
    gives log ½; a replica without a reference gives nan. Seen to catch: distances not in stds, the reference's
    std over the method's, binary logarithms, the error at another S, one replica's reference for all."""
    posterior = 3 * draws(0, 4, 200, 40) + 5
    reference = made_of(posterior)
    fresh = 3 * draws(1, 100, 40) + 5

    def means(f: NDArray[np.float64]) -> dict[str, float]:
        found = agreement(believed(f), [reference], len(f))
        assert {value.shape for value in found.values()} == {(1, 40)}
        return {name: float(value.mean()) for name, value in found.items()}

    same = means(fresh)
    for name in ("w1", "error"):
        assert same[f"reference_{name}"] == pytest.approx(same[f"reference_{name}_mc_error"], rel=0.2)
    assert abs(same["reference_log_std"]) < same["reference_log_std_mc_error"] < 0.1
    assert 0.1 < same["reference_w1_mc_error"] < 0.16  # as known of 100 draws against many
    assert means(3 * draws(1, 25, 40) + 5)["reference_w1_mc_error"] > 1.5 * same["reference_w1_mc_error"]

    shifted = means(fresh + 6)
    assert shifted["reference_error"] == pytest.approx(2, abs=0.1) == shifted["reference_w1"]
    assert shifted["reference_log_std"] == pytest.approx(same["reference_log_std"])
    halved = means(fresh.mean(0) + (fresh - fresh.mean(0)) / 2)
    assert halved["reference_log_std"] - same["reference_log_std"] == pytest.approx(np.log(0.5))

    three = NormalMixture(torch.from_numpy(np.stack([fresh] * 3)), torch.zeros(()))
    found = agreement(three, [None, reference, made_of(posterior + 30)], 100)
    assert all(np.isnan(value[0]).all() and np.isfinite(value[1:]).all() for value in found.values())
    assert found["reference_error"][2].mean() == pytest.approx(10, abs=0.2)
    assert found["reference_w1_mc_error"][2] == pytest.approx(found["reference_w1_mc_error"][1], rel=1e-3)
    assert all(np.isnan(value).all() for value in agreement(three, [None] * 3, 100).values())


def test_a_closed_form_is_compared_without_draws() -> None:
    """N(5, 3²) against its own draws: at the reference's own Monte-Carlo error. Seen to catch: its quantiles
    taken at one level, the error of half the reference against the other half."""
    reference = made_of(3 * draws(0, 4, 200, 80) + 5)
    exact = NormalMixture(torch.full((1, 1, 80), 5.0, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64))
    found = {name: float(value.mean()) for name, value in agreement(exact, [reference]).items()}
    for name in ("w1", "error"):
        assert found[f"reference_{name}"] == pytest.approx(found[f"reference_{name}_mc_error"], rel=0.35)


# 2. Files


def problems_of(*replicas: int) -> Problems:
    return DATA.problems(replicas)


def written(folder: Path, problems: Problems, **about: object) -> Path:
    """A file where the reference of the first replica is looked for."""
    key = key_of(problems, 0, MODEL)
    path = path_of(key, folder)
    path.write_bytes(made_of(draws(0, 4, 50, 12), key=key, **about).bytes())
    return path


def test_a_file_gives_back_its_draws(tmp_path: Path) -> None:
    """To 16 bits of their range at each point, evenly spaced ones if there are more than are kept; the same bytes for
    the same reference. Seen to catch: the first draws kept, a range for all points, nan where all draws are one."""
    f = draws(0, 4, 3 * DRAWS_PER_CHAIN, 7) * np.geomspace(1e-6, 1e6, 7) + 100
    f[..., 3] = 2.5
    reference = made_of(f)
    path = tmp_path / "file.npz"
    path.write_bytes(reference.bytes())
    back = read(path, "k")
    chosen = np.linspace(0, 3 * DRAWS_PER_CHAIN - 1, DRAWS_PER_CHAIN).round().astype(int)
    error = np.abs(back.f - f[:, chosen]).max((0, 1))
    assert (error <= np.ptp(f, axis=(0, 1)) / 2**16 + 1e-12).all()
    assert back.about == reference.about and back.sha256 == reference.sha256
    assert made_of(f).bytes() == path.read_bytes()


def test_what_it_is_the_posterior_of_decides_its_name() -> None:
    """Training data, grid and model; not test observations. Seen to catch: a key of the names alone, of y_test too, the
    same key for two replicas."""
    problems = problems_of(0, 1)
    keys = {key_of(problems, 0, MODEL), key_of(problems, 1, MODEL), key_of(problems, 0, replace(MODEL, noise_std=0.2))}
    for part in ("x", "y", "x_test"):
        changed = getattr(problems, part).clone()
        changed.view(-1)[0] += 1e-6
        keys.add(key_of(replace(problems, **{part: changed}), 0, MODEL))
    assert len(keys) == 6
    assert key_of(replace(problems, y_test=problems.y_test + 1), 0, MODEL) == key_of(problems_of(0), 0, MODEL)


def test_no_reference_is_none_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    """Truncated at any of some lengths, a bit flipped in every number, another model's file under this name, a later
    format: each is refused in one line with the file's name. Seen to catch: checksum or key not compared."""
    problems = problems_of(3)
    assert find(problems, 0, MODEL, tmp_path) is None and digests(problems, MODEL, tmp_path) == [None]
    path = written(tmp_path, problems)
    found = find(problems, 0, MODEL, tmp_path)
    assert found is not None and found.f.shape == (4, 50, 12)
    whole = path.read_bytes()
    name = path.name

    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(Refused, match=f"^{name} cannot be read"):
            find(problems, 0, MODEL, tmp_path)
    altered = replace(found, codes=found.codes ^ np.uint16(1))
    path.write_bytes(whole)
    with np.load(path) as arrays:  # its own checksum beside other numbers
        np.savez_compressed(path, codes=altered.codes, low=altered.low, step=altered.step, about=arrays["about"])
    with pytest.raises(Refused, match=f"^{name} was altered"):
        find(problems, 0, MODEL, tmp_path)

    other = problems_of(4)
    path_of(key_of(other, 0, MODEL), tmp_path).write_bytes(whole)
    with pytest.raises(Refused, match="is the reference of other data or another model"):
        find(other, 0, MODEL, tmp_path)
    written(tmp_path, problems, format=FORMAT + 1)
    with pytest.raises(Refused, match=f"has format {FORMAT + 1}, this version reads {FORMAT}"):
        find(problems, 0, MODEL, tmp_path)


# 3. The certificate


def everywhere(points: int) -> dict[str, Tensor]:
    gap = torch.arange(points) < points // 2
    return {"data": ~gap, "gap": gap, "extrapolation": torch.zeros(points, dtype=torch.bool)}


def test_good_chains_are_certified_and_others_are_not() -> None:
    """Each fault by its own name and region. Seen to catch: the smallest R-hat, regions mixed, divergences forgotten,
    a NaN that passes as it is not above the limit, the errors of both halves (20 draws 30 stds away then pass), halves
    of chains alone."""
    good = draws(0, 8, 600, 6)
    found = certificate(torch.from_numpy(good), everywhere(6), 0)
    assert found["problems"] == [] and found["draws"] == 4800 and "extrapolation" not in found
    assert found["gap"]["rhat"] < 1.01 and found["data"]["ess_bulk"] > 3000

    def problems(f: NDArray[np.float64], diverged: int = 0) -> str:
        return "; ".join(certificate(torch.from_numpy(f), everywhere(6), diverged)["problems"])

    assert problems(good, 2) == "2 trajectories diverged"
    moved = good.copy()
    moved[:4, :, 0] += 0.5
    assert problems(moved).startswith("rhat in the gap is 1.0") and "data" not in problems(moved)
    assert "halves apart in the gap is" in problems(moved)
    slow = good.copy()
    slow[..., 5] = np.repeat(draws(1, 8, 12), 50, 1)
    assert "ess_bulk in the data is" in problems(slow) and "gap" not in problems(slow)
    assert "3 draws a chain are too few for R-hat" in problems(good[:, :3])
    late = good.copy()  # one chain of eight comes from far away, in 20 draws
    late[3, :20, 0] += np.linspace(30, 0, 20)
    assert problems(late).startswith("halves apart in the gap is") and "data" not in problems(late)
    later = good.copy()  # all chains do
    later[:, :40, 0] += np.linspace(4, 0, 40)
    assert "halves apart in the gap is" in problems(later)
    stuck = good.copy()
    stuck[..., 0] = 1.0
    assert "rhat in the gap is inf" in problems(stuck)


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.4])
def test_halves_apart_are_standard_normal_for_good_chains(correlation: float) -> None:
    """Of 300 independent points, for draws with a memory too. Seen to catch: the error of one half alone (then √2 too
    large), arviz's error of the std, which takes the draws' memory for that of their squares."""
    f = draws(0, 8, 400, 300)
    for t in range(1, 400):
        f[:, t] = correlation * f[:, t - 1] + np.sqrt(1 - correlation**2) * f[:, t]
    for chains in (8, 7):
        apart = halves_apart(f[:chains])
        assert apart.shape == (4, 300)
        size = np.sqrt((apart**2).mean(1))  # a little above 1, as the smaller of two errors is taken
        assert size.min() > 0.9 and size.max() < 1.3


# 4. Making one


def task(folder: Path, replica: int = 0, **changes: object) -> Task:
    return replace(Task("sine", DATA, MODEL, replica, folder, method=SHORT), **changes)


def test_a_reference_is_the_posterior(tmp_path: Path) -> None:
    """Of a linear model, in closed form: mean and std of f within 5 standard errors; certified, found, and recorded."""
    problems = problems_of(0)
    path = make(task(tmp_path))
    reference = find(problems, 0, MODEL, tmp_path)
    assert reference is not None and path == path_of(key_of(problems, 0, MODEL), tmp_path)
    assert verdict(reference, {name: mask[0] for name, mask in problems.regions.items()}) == []
    assert reference.about["certificate"]["problems"] == [] and reference.about["replica"] == 0
    assert reference.about["gradient evaluations"] > 1000 and "HMC(" in reference.about["method"]
    assert list(tmp_path.iterdir()) == [path]  # no checkpoint is left

    def design(x: Tensor) -> NDArray[np.float64]:
        return np.column_stack([x[0].double().numpy(), np.ones(x.shape[1])])

    train = design(problems.x)
    covariance = np.linalg.inv(np.eye(2) / MODEL.prior_std**2 + train.T @ train / NOISE**2)
    grid = design(problems.x_test)
    mean = grid @ covariance @ train.T @ problems.y[0].double().numpy() / NOISE**2
    std = np.sqrt(np.einsum("mi,ij,mj->m", grid, covariance, grid))
    f = reference.f.reshape(-1, 12)
    effective = 400
    assert np.abs(f.mean(0) - mean).max() < 5 * std.max() / np.sqrt(effective)
    np.testing.assert_allclose(f.std(0), std, rtol=5 / np.sqrt(2 * effective))


class Stop(Exception):
    pass


def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At several checkpoints, in burn-in and after it, and when more draws are asked for. Seen to catch: the
    generator's state not kept, draws of f lost or doubled, burn-in done again, divergences forgotten."""
    monkeypatch.setattr(making, "DRAWS_ADDED", 20)
    monkeypatch.setattr(certificates, "MIN_ESS", 230)
    short = replace(SHORT, burn_in=10, draws=40, acceptance=0.6)
    monkeypatch.setattr(certificates, "MAX_RHAT", dict.fromkeys(("data", "gap", "extrapolation"), 1.1))
    whole = find(problems_of(0), 0, MODEL, make(task(tmp_path / "whole", method=short)).parent)
    assert whole is not None and whole.about["certificate"]["draws"] > 4 * 40  # it went on

    monkeypatch.setattr(making, "SECONDS", -1.0)  # a checkpoint after every trajectory
    seen = 0
    for number in (3, 9, 30, 25, 40):
        told = 0

        def tell(line: str, number: int = number) -> None:
            nonlocal told
            told += 1
            if told == number:
                raise Stop

        try:
            make(task(tmp_path / "pieces", method=short), tell)
        except Stop:
            seen += 1
    assert seen >= 3
    monkeypatch.setattr(making, "SECONDS", 60.0)
    make(task(tmp_path / "pieces", method=short))
    pieces = find(problems_of(0), 0, MODEL, tmp_path / "pieces")
    assert pieces is not None
    np.testing.assert_array_equal(pieces.codes, whole.codes)
    assert {**pieces.about, "seconds": 0} == {**whole.about, "seconds": 0}


@pytest.mark.parametrize("stops", [(), (25, 60, 95)])
def test_what_comes_before_a_divergence_counts_as_burn_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    """Two trajectories diverge: the reference is of as many draws as were asked for, all after the second, also if the
    run is stopped before, between and after. Seen to catch: the divergent one kept, draws up to the first left out
    alone, fewer draws than asked for, a longer run in the stopped case."""
    monkeypatch.setattr(certificates, "MAX_RHAT", dict.fromkeys(("data", "gap", "extrapolation"), 1.2))
    monkeypatch.setattr(certificates, "MIN_ESS", 20)
    monkeypatch.setattr(making, "SECONDS", -1.0)
    every: dict[int, Tensor] = {}
    own = HMC.walk

    def walk(self: HMC, model: Model, x: Tensor, y: Tensor, state: State, generator: Generator) -> Iterator[State]:
        for after in own(self, model, x, y, state, generator):
            every[after.steps] = model.mean(after.theta[0], x_test)
            chain = {30: 1, 45: 3}.get(after.steps)
            yield after if chain is None else replace(after, diverged=torch.arange(4).unsqueeze(0) == chain)

    monkeypatch.setattr(HMC, "walk", walk)
    problems, x_test = problems_of(0), problems_of(0).x_test[0]
    method = replace(SHORT, burn_in=20, draws=50)
    for stop in stops:
        told: list[str] = []

        def tell(line: str, stop: int = stop) -> None:
            if f" {stop} of " in line:
                raise Stop

        with pytest.raises(Stop):
            make(task(tmp_path, method=method), tell)
    told = []
    make(task(tmp_path, method=method), told.append)
    found = find(problems, 0, MODEL, tmp_path)
    assert found is not None and found.about["left out"] == 25 and found.about["certificate"]["draws"] == 200
    assert any("a trajectory diverged, 25 after burn-in" in line for line in told)
    f = torch.stack([every[step] for step in range(46, 96)], 1)
    np.testing.assert_array_equal(found.codes, Reference.of(f, {}).codes)


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is its burn-in: the file says which settings it is of. Seen to catch: any checkpoint taken."""
    monkeypatch.setattr(making, "SECONDS", -1.0)

    def stop(line: str) -> None:
        raise Stop

    with pytest.raises(Stop):
        make(task(tmp_path / "one", method=replace(SHORT, acceptance=0.5)), stop)
    monkeypatch.setattr(making, "SECONDS", 60.0)
    told: list[str] = []
    made = make(task(tmp_path / "one"), told.append)
    assert "it is of HMC(" in told[0] and "acceptance=0.5" in told[0] and told[0].endswith("beginning anew")
    fresh = make(task(tmp_path / "two"))
    one, two = (find(problems_of(0), 0, MODEL, path.parent) for path in (made, fresh))
    assert one is not None and two is not None
    np.testing.assert_array_equal(one.codes, two.codes)


def test_what_cannot_be_certified_is_no_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said with the reason, and no file is left but the checkpoint. Seen to catch: the file written nevertheless."""
    monkeypatch.setattr(making, "MAX_DRAWS", 12)
    monkeypatch.setattr(making, "DRAWS_ADDED", 4)
    told: list[str] = []
    with pytest.raises(NotCertified, match="sine replica 0: rhat in the data is"):
        make(task(tmp_path, method=replace(SHORT, draws=8)), told.append)
    assert any(line.startswith("sine replica 0: 8 draws a chain are too few: rhat") for line in told)
    assert not list(tmp_path.glob("*.npz")) and digests(problems_of(0), MODEL, tmp_path) == [None]
    with pytest.raises(NotCertified, match="replica 1: a trajectory diverged, 16 after burn-in"):
        make(task(tmp_path, 1, method=replace(SHORT, burn_in=0, lr=30.0, draws=8)), told.append)


def test_side_by_side_they_are_the_same(tmp_path: Path) -> None:
    """Two processes or one: the same bits."""
    for jobs in (1, 2):
        tasks = [task(tmp_path / str(jobs), replica) for replica in (0, 1)]
        assert {made.name for made in make_all(tasks, jobs, print) if isinstance(made, Path)} == {
            path_of(key_of(problems_of(replica), 0, MODEL)).name for replica in (0, 1)
        }
    for replica in (0, 1):
        one, two = (find(problems_of(replica), 0, MODEL, tmp_path / str(jobs)) for jobs in (1, 2))
        assert one is not None and two is not None
        np.testing.assert_array_equal(one.codes, two.codes)


# 5. In the table


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the package's own."""
    folder = tmp_path / "references"
    folder.mkdir()
    for function in (find, digests, path_of):
        monkeypatch.setattr(function, "__defaults__", (folder,))
    return folder


def cell(method: UncertaintyMethod | ReferencePosterior, name: str) -> Cell:
    entry = Trained(method) if isinstance(method, UncertaintyMethod) else method
    return Cell("sine", DATA, MODEL, name, entry, 0, 2, 0)


def test_a_new_reference_scores_old_runs_without_training(
    tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The columns appear, for the replicas that have one; the reference's own row waits for all. A damaged file fails
    the cell before it trains. Seen to catch: the old record kept, trained again, the row of a part."""
    store, method = Store(tmp_path / "out"), SVI(steps=3, draws=40)
    store.prepare()
    rows = [cell(method, "svi"), cell(ReferencePosterior(), "reference")]
    assert [complete(row, store, "cpu").status for row in rows] == ["finished", "skipped"]

    make(task(shipped, 0))
    monkeypatch.setattr(SVI, "fit", None)
    outcomes = [complete(row, store, "cpu") for row in rows]
    assert [outcome.status for outcome in outcomes] == ["rescored", "skipped"]
    assert outcomes[1].message == "no reference posterior for 1 of 2 replicas"
    (shown,) = results(store.root)
    assert np.isfinite(shown.scores["reference_w1"]["gap"]).tolist() == [True, False]
    assert shown.valid(("reference_w1_mc_error", "gap")).tolist() == [0]
    assert complete(rows[0], store, "cpu").status == "kept"

    path = make(task(shipped, 1))
    assert [complete(row, store, "cpu").status for row in rows] == ["rescored", "finished"]
    svi, reference = results(store.root)
    assert (svi.method, reference.method, reference.status) == ("svi", "reference", "reference")
    assert np.isfinite(svi.scores["reference_log_std"]["data"]).all()
    assert not len(reference.valid(("reference_w1", "gap"))) and len(reference.valid(("std_f", "gap"))) == 2
    assert not len(reference.valid(("rhat", "all")))

    path.write_bytes(path.read_bytes()[:-9])
    outcome = complete(cell(replace(method, steps=4), "other"), store, "cpu")
    assert outcome.status == "failed" and f"Refused: {path.name} cannot be read" in outcome.message


def test_the_row_of_the_references_is_made_of_them(shipped: Path) -> None:
    """As many draws as it says, of every chain, with the model's noise. Seen to catch: the first draws, one chain."""
    make(task(shipped, 0))
    problems = problems_of(0)
    reference = find(problems, 0, MODEL)
    assert reference is not None
    row = ReferencePosterior(draws=20).run(MODEL, problems, torch.Generator()).prediction
    assert isinstance(row, MixturePrediction) and row.location.shape == (1, 20, 12)
    chosen = np.linspace(0, reference.f.shape[1] - 1, 5).round().astype(int)
    np.testing.assert_allclose(row.location[0].numpy(), reference.f[:, chosen].reshape(20, 12), rtol=1e-6)
    assert float(row.noise_std) == pytest.approx(NOISE)


# 6. The command line


@pytest.fixture
def gapbench(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    made = {"default": Suite("", {"sine": suites.Task(DATA, MODEL)}, {})}
    monkeypatch.setattr(suites, "suites", lambda: made)
    monkeypatch.setattr(reference_file, "FOLDER", shipped)
    monkeypatch.setattr(making, "METHOD", SHORT)
    monkeypatch.setattr(Task.__init__, "__defaults__", ("cpu", SHORT, 0))

    def call(*argv: object) -> Result:
        return CliRunner().invoke(main, ["reference", *map(str, argv)], prog_name="gapbench")

    return call


def test_make_check_and_show(gapbench: Callable[..., Result], shipped: Path) -> None:
    """Made once, certified from the file, shown by region; what is missing or altered is told, exit code 1. Seen to
    catch: exit code 0 for a missing one, made again."""
    assert gapbench("check", "sine").exit_code == 1  # there are none
    missing = gapbench("check", "sine", "--replicas", "2")
    assert missing.exit_code == 1
    assert missing.stdout == "sine replica 2: no reference; `gapbench reference make sine --replicas 2` makes it\n"
    made = gapbench("make", "sine", "--replicas", "0,2", "--jobs", 1)
    assert made.exit_code == 0, made.output
    (first, second) = (Path(line) for line in made.stdout.split())
    before = first.stat().st_mtime_ns
    assert (
        gapbench("make", "sine", "--replicas", "0", "--jobs", 1).exit_code == 0 and first.stat().st_mtime_ns == before
    )
    checked = gapbench("check", "sine", "--replicas", "0,2")
    assert (checked.exit_code, checked.stdout) == (0, "sine replica 0: certified\nsine replica 2: certified\n")
    shown = gapbench("show", "sine", "--replicas", "0-2")
    assert shown.exit_code == 0 and "sine replica 1: no reference" in shown.stderr
    assert [line.split()[:2] for line in shown.stdout.splitlines()[3:9]] == [
        [number, region] for number in "02" for region in ("data", "gap", "extrapolation")
    ]
    assert "HMC(" in shown.stdout.splitlines()[-1]

    told = gapbench("check", "sine")  # those that there are
    assert (told.exit_code, told.stdout) == (0, "sine replica 0: certified\nsine replica 2: certified\n")
    assert told.stderr == "sine: no reference of replicas 1, 3, 4, 5, 6, 7, 8, 9\n"
    second.write_bytes(second.read_bytes()[:-3])
    checked = gapbench("check", "sine", "--replicas", "0,2")
    assert checked.exit_code == 1 and f"sine replica 2: {second.name} cannot be read" in checked.stdout
    for wrong in ("x", "3-1", "1000", ""):
        refused = gapbench("check", "sine", "--replicas", wrong)
        assert refused.exit_code == 2 and "Traceback" not in refused.output
    assert gapbench("check", "sin").exit_code == 2


# 7. What is shipped

SHIPPED = {"gapped_sine": (0,), "gapped_sine_noisy": tuple(range(10))}  # replicas


@pytest.mark.parametrize(("name", "replica"), [(name, r) for name, some in SHIPPED.items() for r in some])
def test_the_shipped_references_are_certified(name: str, replica: int) -> None:
    """As `gapbench reference check` does."""
    shown = suites.suites()["default"].tasks[name]
    problems = shown.dataset.problems([replica])
    reference = find(problems, 0, shown.model)
    assert reference is not None
    assert verdict(reference, {region: mask[0] for region, mask in problems.regions.items()}) == []
    assert reference.about["dataset"] == repr(shown.dataset) and reference.about["replica"] == replica


def test_nothing_else_is_shipped() -> None:
    """10 MB in all, of which nothing is carried along that nothing finds."""
    files = list(FOLDER.glob("*"))
    assert len(files) == sum(map(len, SHIPPED.values())) and sum(path.stat().st_size for path in files) < 10e6
