"""Random search: its candidates, the points that decide, and `gapbench tune`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from click.testing import CliRunner
from commands import gapbench
from torch import Generator, Tensor

from gapbench.evaluation.entries import Trained
from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.swag import SWAG
from gapbench.methods.validated import Candidate, Validated
from gapbench.runners.candidates import PRIOR, RANGES, candidates
from gapbench.runners.cell import Cell
from gapbench.runners.cli.main import main
from gapbench.runners.costs import expected
from gapbench.runners.suite_file import read
from gapbench.runners.suites import Suite, Unknown, suites
from gapbench.runners.tuning import tuning


def test_candidates_are_near_the_methods_own_settings() -> None:
    """The first is the method itself, and more trials only add to fewer. Logs of factors fill their range evenly; the
    budget stays. Seen to catch: factors that are uniform and not log-uniform, rates above
    1, other candidates for more trials."""
    method = MCDropout(rate=0.3)
    found = candidates(method, 2.0, 200)
    assert found[0] == Candidate(method) and found[:7] == candidates(method, 2.0, 7)
    others = found[1:]
    for value, (low, high), values in (
        (method.lr, RANGES["lr"], [one.method.lr for one in others]),  # type: ignore[attr-defined]
        (2.0, PRIOR, [one.prior_std for one in others]),
    ):
        place = torch.tensor(values).div(value * low).log() / torch.tensor(high / low).log()
        assert 0 <= place.min() < 0.05 and 0.95 < place.max() <= 1.001 and abs(place.mean() - 0.5) < 0.07
    rates = [one.method.rate for one in others]  # type: ignore[attr-defined]
    assert max(rates) == 0.9 and min(rates) >= 0.03
    assert {replace(one.method, lr=1.0, rate=0.5) for one in others} == {replace(method, lr=1.0, rate=0.5)}  # type: ignore[call-arg]
    factors = torch.tensor([[one.method.lr / 0.03, one.prior_std / 2] for one in others]).log()  # type: ignore[attr-defined, operator]
    assert abs(torch.corrcoef(factors.T)[0, 1]) < 0.2
    assert {one.prior_std for one in candidates(SWAG(), None, 5)} == {None}


@dataclass(frozen=True)
class Heard(UncertaintyMethod):
    """A method that says what it was trained on, and that its noise is `noise`."""

    noise: float = 1.0
    trained: ClassVar[list[tuple[Tensor, Tensor]]] = []

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        self.trained.append((x, y))
        return Zero(self.noise)


@dataclass(frozen=True)
class Zero(FittedMethod):
    noise: float

    def __call__(self, x: Tensor) -> MixturePrediction:
        return MixturePrediction(torch.zeros(len(x), 1, x.shape[1]), torch.zeros(()), torch.tensor(self.noise))


def test_points_in_the_middle_of_a_feature_decide() -> None:
    """They are not trained on, their targets choose, and the winner is trained on all points. Seen to catch: the order
    of another feature; x and y in different orders; the ends held out."""
    x = torch.stack([torch.randn(2, 10, generator=Generator().manual_seed(0)), torch.zeros(2, 10)], -1).flip(-1)
    order = x[..., 1].argsort(1)
    y = torch.zeros(2, 10).scatter(1, order[:, 4:6], torch.tensor([[9.0, -9.0], [0.1, 0.1]]))
    Heard.trained.clear()
    method = Validated((Candidate(Heard(noise=1.0)), Candidate(Heard(noise=9.0))), gap=1)
    fitted = method.fit(MLP(features=2), x, y, Generator().manual_seed(0))
    assert fitted.diagnostics["candidate"].tolist() == [1, 0]
    for x_seen, y_seen in Heard.trained[:2]:
        assert torch.equal(x_seen[..., 1], x[..., 1].sort(1).values[:, [0, 1, 2, 3, 6, 7, 8, 9]]) and not y_seen.any()
    assert all(torch.equal(x_seen, x) for x_seen, _ in Heard.trained[2:])
    assert method.skip(MLP(features=2), x) is None
    assert "gap = 2: expected the number of a feature, 0 to 1" in str(replace(method, gap=2).skip(MLP(features=2), x))


def test_what_cannot_be_tuned() -> None:
    """In one line. Seen to catch: a search whose candidates are all alike."""
    default = suites()["default"]
    for suite, name, says in (
        (default, "prior", "a control has nothing to tune"),
        (default, "no_such_method", "no_such_method"),
        (suites()["uci"], "mc_dropout", "other settings on each dataset"),
        (two_priors(default), "nngp", "it has none of the settings that are tuned"),
    ):
        with pytest.raises(Unknown, match=says):
            tuning(suite, name, 3, None)
    for name, kind in (("cqr", "BandPrediction"), ("evidential", "StudentTPrediction")):
        with pytest.raises(Unknown, match=f"{name}: it gives a {kind}: a search needs a mixture"):
            tuning(default, name, 3, None)
    with pytest.raises(Unknown, match="a class of a file"):
        tuning(default, "mine.py:Mine", 3, None)
    assert "nngp@tuned3" in tuning(default, "nngp", 3, None).methods
    assert "nngp@gap_tuned3" in tuning(default, "nngp", 3, 0).methods  # the names that figures tell apart
    assert not any(task.methods for task in tuning(suites()["notebooks"], "deep_ensemble", 3, None).tasks.values())


def two_priors(suite: Suite) -> Suite:
    """The suite with another prior on one dataset: then the prior is not tuned."""
    first, *_ = suite.tasks
    task = suite.tasks[first]
    return replace(suite, tasks={**suite.tasks, first: replace(task, model=replace(task.model, prior_std=3.0))})


def test_a_search_is_expected_to_cost_its_trials() -> None:
    """And those of the winners, of which ten replicas may have all four. Seen to catch: the cost of one run."""
    suite = tuning(suites()["default"], "mc_dropout", 4, None)
    task = suite.tasks["gapped_sine"]
    alone, tuned = (
        expected(Cell("gapped_sine", task.dataset, task.model, name, Trained(method), 0, 10, 0))
        for name, method in suite.methods.items()
    )
    assert tuned == pytest.approx(8 * alone)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes a suite that can be read, and runs both rows of it. Seen to catch: options of `run` that are lost."""
    words = ("tune", "nngp", "--trials", 3, "--gap", 0, "--out", "here")
    done = gapbench(tmp_path, *words, "--datasets", "gapped_sine", "--replicas", 2, "--jobs", 1, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "nngp@gap_tuned3" in done.stdout
    suite = read(tmp_path / "here.toml")
    assert suite.methods == tuning(suites()["default"], "nngp", 3, 0).methods
    assert len(list((tmp_path / "here" / "cells").rglob("*.json"))) >= 2
    before = (tmp_path / "here.toml").read_bytes()
    monkeypatch.chdir(tmp_path)
    for options, says in (
        (("nngp", "--out", "other", "--wrong"), "--wrong"),
        (("nngp", "--from", "here.toml"), "--from: not for tune"),
        (("nngp", "--trials", 4, "--out", "here"), "another suite is there"),
        (("--replicas", 2, "nngp"), "expected METHOD before"),
    ):
        refused = CliRunner().invoke(main, ["tune", *map(str, options)], prog_name="gapbench")
        assert refused.exit_code == 2 and says in refused.stderr, refused.stderr
    assert (tmp_path / "here.toml").read_bytes() == before


@dataclass(frozen=True)
class Failing(Heard):
    """It predicts what is best, and says that replica 0 must not be used."""

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return Zero(self.noise, failures={0: "clipped"}, diagnostics={"loss": torch.full((len(x),), self.noise)})


def test_what_failed_is_not_chosen_and_evidence_is_kept() -> None:
    """If all failed, so did the choice. Seen to catch: failures that are lost, those of replicas that another candidate
    won, diagnostics of one part for all replicas."""
    x, y = torch.randn(2, 10, 1, generator=Generator().manual_seed(0)), torch.zeros(2, 10)
    good, wide = Candidate(Failing(noise=0.1)), Candidate(Heard(noise=9.0))
    fitted = Validated((good, wide)).fit(MLP(), x, y, Generator().manual_seed(0))
    assert fitted.diagnostics["candidate"].tolist() == [1, 0] and not fitted.failures
    both = Validated((good, Candidate(Failing(noise=9.0))))
    fitted = both.fit(MLP(), x, y + torch.tensor([[0.0], [9.0]]), Generator().manual_seed(0))
    assert fitted.failures == {0: "clipped"} and fitted.diagnostics["candidate"].tolist() == [0, 1]
    assert fitted.diagnostics["loss"].tolist() == pytest.approx([0.1, 9.0])


def test_random_points_decide() -> None:
    """Another fifth in each replica, and x stays with its y. Seen to catch: the last fifth, one order for all."""
    x = torch.arange(50.0).expand(2, -1).unsqueeze(-1)
    method = Validated((Candidate(Heard()),), shuffled=True)
    kept, values = method.ordered(x, x.squeeze(-1) + 1, Generator().manual_seed(0))
    assert torch.equal(kept.squeeze(-1) + 1, values) and torch.equal(values.sort(1).values, x.squeeze(-1) + 1)
    assert (values[0] != values[1]).any() and (values[:, 40:] < 40).any(1).all()
