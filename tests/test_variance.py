"""The split of a score's variance, against REML, by simulation, and on a real run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from statsmodels.formula.api import mixedlm

from gapbench.datasets.base import Layout
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.repeated import Repeated
from gapbench.datasets.uci import UCI
from gapbench.evaluation import variance as evaluation_variance
from gapbench.evaluation.compare import Incomparable
from gapbench.evaluation.entries import Trained
from gapbench.evaluation.results import Result
from gapbench.evaluation.variance import components, split
from gapbench.methods.engine.model import MLP
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.nngp import NNGP
from gapbench.runners.cell import Cell
from gapbench.runners.cli.main import main
from gapbench.runners.complete import complete
from gapbench.runners.load import results
from gapbench.runners.store import Store


def table(random: np.random.Generator, data: float, seed: float, sets: int = 10, seeds: int = 3) -> np.ndarray:
    return data * random.standard_normal((sets, 1)) + seed * random.standard_normal((sets, seeds))


def test_the_components_are_those_of_restricted_likelihood() -> None:
    """By statsmodels. Seen to catch: the variance of the means taken for that of the data, population variances, the
    number of sets for that of seeds."""
    values = 5 + table(np.random.default_rng(0), 2.0, 1.0, 12, 4)
    found = components(values)
    frame = pd.DataFrame([(d, y) for d, row in enumerate(values) for y in row], columns=["d", "y"])
    theirs = mixedlm("y ~ 1", frame, groups="d").fit(reml=True)
    assert found.data**2 == pytest.approx(float(theirs.cov_re.iloc[0, 0]), rel=1e-3)
    assert found.seed**2 == pytest.approx(theirs.scale, rel=1e-3)
    assert found.share.value == pytest.approx(found.seed**2 / (found.seed**2 + found.data**2))


@pytest.mark.parametrize("data", [0.5, 2.0])
def test_the_interval_of_the_share_covers_what_it_says(data: float) -> None:
    """It misses on each side in 2.5 % of 2,000 simulations, within 4 standard errors. Seen to catch: the ends
    exchanged, the degrees of freedom exchanged, the quantiles of 90 %."""
    random, true = np.random.default_rng(1), 1 / (1 + data**2)
    shares = [components(table(random, data, 1.0)).share for _ in range(2000)]
    for missed in ([share.low > true for share in shares], [share.high < true for share in shares]):
        assert np.mean(missed) == pytest.approx(0.025, abs=4 * np.sqrt(0.025 * 0.975 / 2000))


def test_what_does_not_vary() -> None:
    """All of it is of the data, or it is not known. Seen to catch: a division by zero."""
    assert components(np.arange(4.0)[:, None] + np.zeros((1, 3))).share.high == 0
    assert np.isnan(components(np.ones((4, 3))).share.value)
    one = components(np.array([[0.0, 1, 2]] * 4))
    assert one.data == 0 and one.share.value == one.share.high == 1


def test_replicas_of_one_set_share_their_data() -> None:
    """Of any dataset, whose layout it has. Seen to catch: replica % seeds for replica // seeds."""
    inner = GappedSine(n=12, test_points=5)
    many, few = Repeated(dataset=inner, seeds=3).problems(range(7), 4), inner.problems([0, 1, 2], 4)
    for replica in range(7):
        assert torch.equal(many.y[replica], few.y[replica // 3])
    assert Repeated(dataset=inner).layout == Layout(**{**vars(inner.layout), "sample": False, "seeds": 3})
    assert Repeated(dataset=inner).count is None and Repeated(dataset=inner).missing is None
    table = Repeated(dataset=UCI(table="yacht"), seeds=2)
    assert table.count == 40 and table.summary == UCI(table="yacht").summary
    with pytest.raises(ValueError, match="seeds = 1: expected at least 2"):
        Repeated(seeds=1)


def made(values: np.ndarray, layout: Layout, replicas: np.ndarray) -> Result:
    masks = {"data": np.ones((len(replicas), 1), bool)}
    return Result("sine", "m", "method", replicas, {"crps_y": {"data": values}}, {}, masks, {}, layout=layout)


def test_positive_scores_are_split_by_their_logs_and_sets_with_a_failure_left_out() -> None:
    """Seen to catch: a set with a failed training that shifts those after it, logs of scores below 0."""
    layout = Layout("grid", 0, sample=False, seeds=3)
    values = np.exp(table(np.random.default_rng(2), 1.0, 1.0, 6, 3))
    holey = values.copy()
    holey[2, 1] = np.nan
    whole = split(made(holey.ravel(), layout, np.arange(18)), ("crps_y", "data"))
    assert whole.relative and (whole.sets, whole.seeds) == (5, 3)
    assert whole.seed == components(np.log(np.delete(values, 2, 0))).seed
    shifted = split(made(values.ravel() - 9, layout, np.arange(18)), ("crps_y", "data"))
    assert not shifted.relative and shifted.sets == 6
    for wrong, why in ((Layout("grid", 0), "once"), (Layout("grid", 0, sample=False, seeds=9), "has 2 training sets")):
        with pytest.raises(Incomparable, match=why):
            split(made(values.ravel(), wrong, np.arange(18)), ("crps_y", "data"))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a run: of a method without random numbers nothing is of the seed, of another something is. Seen to catch: a
    share that is unknown written as a number."""
    store = Store(tmp_path / "out")
    store.prepare()
    dataset = Repeated(dataset=GappedSine(n=12, noise_std=0.1, test_points=13), seeds=2)
    for name, method in (("nngp", NNGP()), ("mc_dropout", MCDropout(steps=30, draws=8))):
        cell = Cell("sine", dataset, MLP(hidden=(4,)), name, Trained(method), 0, 8, 0)
        assert complete(cell, store, "cpu").recorded
    shares = {one.method: split(one, ("crps_y", "data")).share.value for one in results(store.root)}
    assert shares["nngp"] < 1e-6 and shares["mc_dropout"] > 0
    told = CliRunner().invoke(main, ["variance", str(store.root), "--columns", "crps_y", "--region", "gap"])
    assert told.exit_code == 0 and "nngp" in told.stdout and "share of seed" in told.stdout, told.output
    none = CliRunner().invoke(main, ["variance", str(store.root), "--columns", "calibration_error_y"])
    assert none.exit_code == 2 and "expected a score of each replica" in none.stderr
    monkeypatch.setattr(evaluation_variance, "components", lambda *_: components(np.ones((4, 2))))
    still = CliRunner().invoke(main, ["variance", str(store.root), "--columns", "crps_y", "--region", "gap"])
    assert still.exit_code == 0 and "n/a" in still.stdout, still.output
