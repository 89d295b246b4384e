"""Tasks drawn from a prior: what they are made of, that HMC is calibrated on them everywhere, and that departures are
seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from gapbench.datasets.base import Layout
from gapbench.datasets.prior_draws import PriorDraws
from gapbench.evaluation.calibration import pit, pit_band, pit_ks
from gapbench.evaluation.results import Result
from gapbench.evaluation.tables import departures, tabulate
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.methods.hmc import HMC
from gapbench.runners.load import results

Seeded = Callable[[int], Generator]
PUBLISHED = Path(__file__).parents[1] / "results" / "published" / "prior"


def test_a_task_is_a_draw_of_the_prior_seen_through_noise() -> None:
    """f over tasks is N(0, ·) as its prior says, training and test points are of one function, y − f is the noise. Seen
    to catch: θ of std 1, another function at the test points, noise left out, variance for std."""
    model = MLP(hidden=(), prior_std=1.5, noise_std=0.3)
    problems = PriorDraws(model=model, n=6).problems(range(2000))
    f, x = problems.f_test.double(), problems.x_test[..., 0].double()
    standard = f / (1.5 * (1 + x.square()).sqrt())
    for region in range(3):
        assert stats.kstest(standard[:, region].numpy(), "norm").pvalue > 1e-3
    slope = (f[:, 2] - f[:, 0]) / (x[:, 2] - x[:, 0])  # of each task's line
    line = f[:, :1] + slope.unsqueeze(1) * (problems.x[..., 0] - x[:, :1])
    far = (x[:, 2] - x[:, 0]).abs() > 1  # else rounding is magnified
    assert stats.kstest(((problems.y - line) / 0.3)[far].flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(((problems.y_test - f) / 0.3).flatten().numpy(), "norm").pvalue > 1e-3
    assert (problems.noise_test == torch.tensor(0.3)).all()


def test_points_lie_where_they_should() -> None:
    """Training points uniform on both sides, half on each; one test point a region, uniform on its pieces. Seen to
    catch: the test point of the data drawn from one side, a point beyond the data within the span."""
    problems = PriorDraws(n=10).problems(range(1000))
    x = problems.x[..., 0]
    assert ((x > -4) & (x < -1)).sum(1).eq(5).all() and ((x > 1) & (x < 4)).sum(1).eq(5).all()
    assert stats.kstest(x.abs().flatten().numpy(), stats.uniform(1, 3).cdf).pvalue > 1e-3
    for name, (low, high) in {"data": (1, 4), "gap": (0, 1), "extrapolation": (4, 6)}.items():
        assert problems.regions[name].sum(1).eq(1).all()
        points = problems.x_test[..., 0][problems.regions[name]]
        assert stats.kstest(points.abs().numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3
        assert 0.4 < (points > 0).float().mean() < 0.6
    assert problems.standardisation.y_std.eq(1).all()


def test_a_task_does_not_depend_on_the_others() -> None:
    """Nor on how many are asked for; seeds and numbers make other tasks, truth included. Seen to catch: one stream for
    all tasks, θ from the noise's stream."""
    dataset = PriorDraws()
    few, many = dataset.problems([3]), dataset.problems(range(5))
    for name in ("x", "y", "x_test", "y_test", "f_test"):
        assert torch.equal(getattr(few, name)[0], getattr(many, name)[3]), name
        assert len(torch.unique(getattr(many, name).flatten(1), dim=0)) == 5
    assert dataset.problems([3], seed=1).sha256 != few.sha256


@pytest.mark.parametrize(
    "field",
    [
        {"n": 3},
        {"n": 0},
        {"extrapolation": 0.0},
        {"extrapolation": float("inf")},
        {"gap": (1.0, -1.0)},
        {"gap": (-5.0, 1.0)},
    ],
    ids=str,
)
def test_nonsense_is_refused(field: dict[str, object]) -> None:
    (name,) = field
    with pytest.raises(ValueError, match=f"PriorDraws: .*{name} = "):
        PriorDraws(**field)  # type: ignore[arg-type]


def pits(mean: Tensor, truth: Tensor, generator: Generator) -> np.ndarray:
    """Of the truth under draws (R, S, M) of f: (R, M)."""
    f = MixturePrediction(mean, mean.new_zeros(()), mean.new_zeros(())).f
    return pit(f, truth.double(), torch.rand(truth.shape, generator=generator, dtype=torch.float64)).numpy()


def test_hmc_is_calibrated_everywhere_and_what_departs_is_seen(seeded: Seeded) -> None:
    """200 tasks of a small network. PITs of f under HMC are within the band in every region. They are beyond it in each
    with draws twice as wide or half as wide, and in the gap with the means moved by a std.

    Seen to catch, in HMC: every proposal accepted (at large steps), the prior forgotten; in the score: F(t) of the
    noisy target."""
    model = MLP(hidden=(5,), noise_std=0.5)
    problems = PriorDraws(model=model, n=6).problems(range(200))
    method = HMC(burn_in=40, draws=40, thin=1, chains=2, max_steps=200)
    mean = method.fit(model, problems.x, problems.y, seeded(0))(problems.x_test).location.double()
    assert problems.f_test is not None
    truth, band = problems.f_test, pit_band(200, 3)

    def distances(draws: Tensor) -> np.ndarray:
        return np.array([pit_ks(u) for u in pits(draws, truth, seeded(1)).T])

    assert (distances(mean) < band).all(), distances(mean)
    centre, spread = mean.mean(1, keepdim=True), mean.std(1, keepdim=True)
    for stretch in (0.5, 2.0):
        assert (distances(centre + stretch * (mean - centre)) > band).all()
    assert (distances(mean + spread) > band).all()


def tasks(method: str, pit_f: np.ndarray, layout: str = "tasks") -> Result:
    """A result of R tasks with one point in each of three regions."""
    count = len(pit_f)
    masks = {name: np.tile(np.arange(3) == at, (count, 1)) for at, name in enumerate(("data", "gap", "extrapolation"))}
    scores = {name: {region: np.ones(count) for region in ("all", *masks)} for name in ("std_f", "coverage_90_f")}
    pits = {"pit_f": pit_f, "pit_y": pit_f}
    return Result("tasks", method, "method", np.arange(count), scores, pits, masks, layout=Layout(layout))  # type: ignore[arg-type]


def test_the_table_says_who_departs() -> None:
    """Distances by region without an interval or a mark, and a sentence that names methods and regions. Seen to catch:
    the summary of the gapped sine, the band of one region, a bootstrap of the distance."""
    rng = np.random.default_rng(0)
    sure, right = rng.random((200, 3)), rng.random((200, 3))
    sure[:, 1] = stats.beta(0.4, 0.4).rvs(200, random_state=1)
    found = [tasks("right", right), tasks("sure", sure)]
    (table,) = tabulate(found, lambda rows: [("pit_ks_f", region) for region in rows[0].regions])
    line = next(line for line in table.lines if line.method == "sure")
    cells = dict(zip(table.columns, line.cells, strict=True))
    cell = cells["pit_ks_f", "gap"]
    assert cell.value == pytest.approx(stats.ks_1samp(sure[:, 1], stats.uniform.cdf).statistic)
    assert np.isnan(cell.low) and not cell.best
    (sentence,) = departures(found)
    assert f"Within: right. Beyond: sure (gap {cell.value:.3g})." in sentence
    assert f"within {pit_band(200, 3):.3g} of uniform" in sentence
    assert departures([tasks("right", right, "grid")]) == []


def test_what_is_published_has_hmc_within_the_band() -> None:
    """On the 200 tasks of the suite: of HMC, and of the scores, a test on data that neither chose."""
    found = {result.method: result for result in results(PUBLISHED)}
    assert set(found) >= {"hmc", "prior"}
    hmc = found["hmc"]
    assert len(hmc.replicas) == 200 and hmc.layout.points == "tasks" and hmc.sound.sum() >= 195
    (sentence,) = departures([hmc, found["prior"]])
    assert "Within: hmc, prior. Beyond: none." in sentence
