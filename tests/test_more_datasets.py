"""The gapped step, the gapped sine with noise that depends on x, the two clusters in the plane, and the line over which
the clusters are drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from gapbench.datasets.base import Dataset, Layout
from gapbench.datasets.content import describe
from gapbench.datasets.gapped import Gapped
from gapbench.datasets.gapped_heteroscedastic import GappedHeteroscedastic
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.gapped_step import GappedStep
from gapbench.datasets.streams import stream
from gapbench.datasets.two_clusters import TwoClusters
from gapbench.evaluation.controls import PriorPredictive
from gapbench.evaluation.drawing import on_its_line, styles
from gapbench.evaluation.plots import bands, stds
from gapbench.evaluation.results import Result
from gapbench.methods.engine.model import MLP
from gapbench.runners import load, publish
from gapbench.runners.cell import Cell
from gapbench.runners.complete import complete
from gapbench.runners.store import Record, Store, canonical

DATASETS = (GappedStep, GappedHeteroscedastic, TwoClusters)
ROOT2 = math.sqrt(2)


def within_5_standard_errors(residuals: Tensor, noise: Tensor) -> bool:
    """Whether residuals / noise, both (...), have a mean square of 1 as standard normals have it."""
    z = (residuals / noise).flatten().double()
    return abs(float(z.square().mean()) - 1) < 5 * math.sqrt(2 / len(z))


# --- All of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DATASETS)
def test_a_replica_is_the_same_whatever_else_is_asked_for(kind: Callable[..., Dataset]) -> None:
    """And in whatever order; other replicas and seeds have other numbers. Seen to catch, in both files: the position in
    the request for the replica's number, the seed left out of the key; in two_clusters.py: one stream for all."""
    dataset = kind(n=20)
    few, many = dataset.problems([3]), dataset.problems([0, 5, 3])
    for name in ("x", "y", "x_test", "y_test", "f_test", "noise_test"):
        assert torch.equal(getattr(few, name)[0], getattr(many, name)[2]), name
    for name in ("x", "y", "y_test"):
        assert len(torch.unique(getattr(many, name).flatten(1), dim=0)) == 3, name
        assert not torch.equal(getattr(dataset.problems([3], seed=1), name), getattr(few, name)), name


def test_datasets_have_streams_of_their_own() -> None:
    """Equal draws would make results on two datasets dependent. Training and test noise differ too. Seen to catch: a
    fixed word in place of the class's name, the same word for both noises."""
    drawn = [kind(n=1000, noise_std=1.0).problems([0]) for kind in (GappedSine, GappedStep)]
    assert not torch.equal(drawn[0].x, drawn[1].x)
    for kind in (GappedStep, TwoClusters):
        problems = kind(n=1000, noise_std=100.0).problems([0])
        count = min(problems.y.shape[1], problems.y_test.shape[1])
        assert abs(np.corrcoef(problems.y[0, :count], problems.y_test[0, :count])[0, 1]) < 5 / math.sqrt(count)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        *((kind, "n", value) for kind in DATASETS for value in (0, 7)),
        *((kind, "noise_std", value) for kind in DATASETS for value in (-0.1, math.nan, math.inf)),
        *((kind, "extrapolation", value) for kind in DATASETS for value in (-1.0, math.inf)),
        *((kind, "gap", (-5.0, 1.0)) for kind in DATASETS[:2]),
        *((kind, "test_points", 1) for kind in DATASETS[:2]),
        (GappedHeteroscedastic, "noise_std", 0.0),
        *((GappedHeteroscedastic, "noise_std_right", value) for value in (0.0, -0.1, math.nan, math.inf)),
        *((TwoClusters, "distance", value) for value in (0.6, -2.0, math.nan, math.inf)),
        *((TwoClusters, "radius", value) for value in (0.0, -1.0, 2.0, math.nan)),
        *((TwoClusters, "line_points", value) for value in (0, 1)),
        (TwoClusters, "side_points", 1),
    ],
)
def test_a_bad_field_is_refused_in_one_line(kind: Callable[..., Dataset], field: str, value: object) -> None:
    """That names the class, the field and the value. Seen to catch: each of the checks removed, the check of the base
    class not called."""
    with pytest.raises(ValueError) as error:
        kind(**{field: value})
    said = str(error.value)
    assert said.startswith(f"{kind.__name__}: ") and f"{field} = {value}" in said and "\n" not in said


# --- Gapped -----------------------------------------------------------------------------------------------------------


def test_the_gapped_sine_is_what_it_was() -> None:
    """Its name, fields, their order and defaults, and its numbers to the bit, computed here a second time: results and
    references are filed under them. Seen to catch: a field more, a field moved, another default, the base's name in the
    key, the two sides drawn one after the other's noise, noise of the rounded x."""
    fields = {"n": 1000, "noise_std": 0.0, "span": (-4.0, 4.0), "gap": (-1.0, 1.0), "extrapolation": 2.0}
    content = {"class": "GappedSine", "fields": {name: describe(value) for name, value in fields.items()}}
    content["fields"]["test_points"] = 241  # type: ignore[index]
    assert json.dumps(describe(GappedSine())) == json.dumps(content)
    problems = GappedSine(n=200, noise_std=0.1).problems(range(3))
    grid = np.linspace(-6, 6, 241).round(12)
    for r in range(3):
        key = ("GappedSine", 0, r)
        unit = stream(*key, "x").random((2, 100))
        x = np.concatenate([-4 + 3 * unit[0], 1 + 3 * unit[1]])
        y = np.sin(x) + 0.1 * stream(*key, "noise").standard_normal(200)
        y_test = np.sin(grid) + 0.1 * stream(*key, "test noise").standard_normal(241)
        for name, value in {"x": x[:, None], "y": y, "y_test": y_test, "f_test": np.sin(grid)}.items():
            assert torch.equal(getattr(problems, name)[r], torch.from_numpy(value).float()), name


@pytest.mark.parametrize("kind", DATASETS[:2])
def test_regions_and_training_points_lie_where_the_gap_says(kind: Callable[..., Gapped]) -> None:
    """Half of the points on each side, none in the gap; masks by comparison with the ends, which belong to the data.
    Seen to catch: the gap's ends exchanged, ≤ for < at the gap, all points on one side."""
    dataset = kind(n=2000, span=(-3.0, 5.0), gap=(-1.0, 2.0), test_points=121)
    problems = dataset.problems(range(2))
    x, grid = problems.x[..., 0], problems.x_test[..., 0].double().numpy().round(6)
    assert ((x > -3) & (x < -1)).sum(1).tolist() == ((x > 2) & (x < 5)).sum(1).tolist() == [1000, 1000]
    gap, beyond = (grid > -1) & (grid < 2), (grid < -3) | (grid > 5)
    for name, mask in {"gap": gap, "extrapolation": beyond, "data": ~gap & ~beyond}.items():
        assert np.array_equal(problems.regions[name].numpy(), mask), name
    assert dataset.layout == Layout("grid", 0) and dataset.network is None
    assert problems.standardisation.y_std.eq(1).all()


def test_the_step_is_in_the_middle_of_the_gap() -> None:
    """−1 to its left, +1 from there on, at the training points too; noise of one std. Seen to catch: the step at 0
    wherever the gap is, 0 at the jump (np.sign), the signs exchanged, the noise's variance for its std."""
    problems = GappedStep().problems([0])
    x = problems.x_test[..., 0]
    assert torch.equal(problems.f_test, torch.where(x < 0, -1.0, 1.0)) and (x == 0).any()
    dataset = GappedStep(n=20_000, span=(-3.0, 5.0), gap=(1.0, 2.0), noise_std=0.3, test_points=5001)
    problems = dataset.problems([0])
    assert problems.f_test is not None and problems.noise_test is not None
    assert torch.equal(problems.f_test, torch.where(problems.x_test[..., 0] < 1.5, -1.0, 1.0))
    assert (problems.noise_test == torch.tensor(0.3)).all()
    for residuals in (problems.y - torch.where(problems.x[..., 0] < 1.5, -1.0, 1.0), problems.y_test - problems.f_test):
        assert within_5_standard_errors(residuals, torch.tensor(0.3))
        assert stats.kstest(residuals.flatten().numpy(), "norm", (0, 0.3)).pvalue > 1e-4


def test_the_log_of_the_noise_is_linear() -> None:
    """0.05 at −4, 0.3 at 4, their geometric mean at 0, and on along that line beyond; in bins of x the residuals have
    that std, in training and in test. Seen to catch: a linear std, the ends exchanged, the span's width for the grid's,
    the training noise that of one end, the noise's variance for its std, a std held constant beyond the span."""
    problems = GappedHeteroscedastic().problems([0])
    x = problems.x_test[..., 0].double()
    assert problems.noise_test is not None
    slope = (math.log(0.3) - math.log(0.05)) / 8
    expected = (math.log(0.05) + slope * (x + 4)).exp()
    torch.testing.assert_close(problems.noise_test.double(), expected, rtol=1e-6, atol=0)
    for at, std in ((-4.0, 0.05), (0.0, math.sqrt(0.05 * 0.3)), (4.0, 0.3)):
        assert problems.noise_test[x == at].tolist() == [pytest.approx(std, rel=1e-6)]
    assert problems.x.shape == (1, 400, 1)
    torch.testing.assert_close(problems.f_test, x.sin().float(), rtol=0, atol=1e-6)

    problems = GappedHeteroscedastic(n=40_000, test_points=20_001).problems([0])
    for x, y in ((problems.x[0, :, 0], problems.y[0]), (problems.x_test[0, :, 0], problems.y_test[0])):
        residuals, noise = y.double() - x.double().sin(), (math.log(0.05) + slope * (x.double() + 4)).exp()
        for low in range(-6, 6):
            here = (x >= low) & (x < low + 1)
            assert not here.any() or within_5_standard_errors(residuals[here], noise[here]), low
        assert stats.kstest((residuals / noise).numpy(), "norm").pvalue > 1e-4


# --- Two clusters -----------------------------------------------------------------------------------------------------


def clusters_truth(x: Tensor) -> Tensor:
    """f of points (..., 2), written in the features instead of in the positions along and across."""
    x = x.double()
    return (ROOT2 * (x[..., 0] + x[..., 1])).sin() + 0.2 * (ROOT2 * (x[..., 1] - x[..., 0])).sin()


def test_clusters_are_uniform_discs_beside_the_gap() -> None:
    """Half of the points in each, around ±distance (1, 1)/√2, of the given radius; the projection of none is in the
    gap. Seen to catch: √ left out (points crowd at the centre), a square, a half turn, both clusters at one centre,
    the centres ±(1, 1) distance, an odd share of the points, a radius for the diameter."""
    problems = TwoClusters(n=4000, distance=3.0, radius=0.5).problems(range(2))
    for x in problems.x.double():
        for side in (-1, 1):
            own = x[side * x.sum(-1) > 0]
            assert len(own) == 2000
            offset = own - side * 3.0 / ROOT2
            assert offset.norm(dim=-1).max() < 0.5 + 1e-6
            assert stats.kstest((offset.norm(dim=-1) / 0.5).square().numpy(), "uniform").pvalue > 1e-4
            angle = torch.atan2(offset[:, 1], offset[:, 0]).numpy()
            assert stats.kstest(angle, "uniform", (-math.pi, 2 * math.pi)).pvalue > 1e-4
        assert (x.sum(-1) / ROOT2).abs().min() > 2.5 - 1e-6


def test_the_line_comes_first_and_then_the_square() -> None:
    """Equally spaced points through both centres, symmetric, as far beyond each disc as it says; a square grid whose
    diagonal is the line. Seen to catch: the line on the other diagonal, along a feature, half as long, after the
    square; a square of the line's length."""
    dataset = TwoClusters()
    x = dataset.problems(range(2)).x_test.double()
    assert x.shape == (2, 101 + 81, 2) and torch.equal(x[0], x[1]) and dataset.layout == Layout("grid", line=101)
    line, square = x[0, :101], x[0, 101:]
    position = torch.linspace(-4, 4, 101, dtype=torch.float64)
    torch.testing.assert_close(line, (position / ROOT2).unsqueeze(-1).expand(-1, 2), rtol=0, atol=1e-6)
    side = torch.linspace(-4 / ROOT2, 4 / ROOT2, 9, dtype=torch.float64)
    ours = square[np.lexsort(square.T.numpy().round(6))]
    other = torch.cartesian_prod(side, side)
    torch.testing.assert_close(ours, other[np.lexsort(other.T.numpy().round(6))], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("distance", "radius", "extrapolation", "counts"),
    [(2.0, 0.6, 1.4, (30, 35, 36)), (1.7, 1.4, 1.9, (58, 5, 38)), (2.0, 0.6, 0.0, (48, 53, 0))],
    ids=str,
)
def test_the_regions_are_those_of_the_discs(
    distance: float, radius: float, extrapolation: float, counts: tuple[int, ...]
) -> None:
    """By the distance to the centres: the line's points inside, between and beyond; every point has one region. In the
    second case the discs' ends are points of the line, and in the third its own ends are: these belong to the data.
    Seen to catch: < for ≤ at either end, ends or points that are not rounded (1.7 − 1.4 is above 0.3), the square's
    points among the gap's, data and gap exchanged."""
    problems = TwoClusters(distance=distance, radius=radius, extrapolation=extrapolation).problems(range(2))
    regions, x = problems.regions, problems.x_test.double()
    assert torch.equal(sum(mask.int() for mask in regions.values()), torch.ones_like(problems.y_test).int())
    assert regions["square"].tolist() == [[False] * 101 + [True] * 81] * 2
    centre = distance / ROOT2
    nearest = torch.minimum((x - centre).norm(dim=-1), (x + centre).norm(dim=-1))
    between = (x.sum(-1) / ROOT2).abs() < distance
    line = ~regions["square"]
    inside = nearest < radius + 1e-6
    assert torch.equal(regions["data"], line & inside)
    assert torch.equal(regions["gap"], line & ~inside & between)
    assert torch.equal(regions["extrapolation"], line & ~inside & ~between)
    assert tuple(int(regions[name][0].sum()) for name in ("data", "gap", "extrapolation")) == counts


def test_the_truth_of_the_clusters_and_their_noise() -> None:
    """In closed form at every point; residuals of the given std. In the gap the truth is far from the straight line
    between the clusters, so the data do not show it. Seen to catch: along and across exchanged, another truth at the
    training points, the noise left out in test, its variance for its std, sin t (nearly straight in the gap)."""
    problems = TwoClusters(n=20_000, noise_std=0.3, side_points=70).problems(range(2))
    assert problems.f_test is not None and problems.noise_test is not None
    torch.testing.assert_close(problems.f_test.double(), clusters_truth(problems.x_test), rtol=0, atol=2e-6)
    assert (problems.noise_test == torch.tensor(0.3)).all()
    for y, x in ((problems.y, problems.x), (problems.y_test, problems.x_test)):
        residuals = y - clusters_truth(x)
        assert within_5_standard_errors(residuals, torch.tensor(0.3))
        assert stats.kstest(residuals.flatten().numpy(), "norm", (0, 0.3)).pvalue > 1e-4
    f = problems.f_test[0][problems.regions["gap"][0]]
    assert (f - torch.linspace(float(f[0]), float(f[-1]), len(f))).abs().max() > 0.5
    quiet = TwoClusters(noise_std=0).problems([0])
    assert torch.equal(quiet.y_test, quiet.f_test)
    torch.testing.assert_close(quiet.y.double(), clusters_truth(quiet.x), rtol=0, atol=2e-6)


# --- The line that is drawn over --------------------------------------------------------------------------------------


def test_a_layout_without_a_line_is_written_as_before() -> None:
    """Its content is part of every key. A record of before, which has no line, is read. Seen to catch: `"line": null`
    in keys and records, the line lost in a record."""
    assert Layout("grid", 1).content == {"points": "grid", "feature": 1}
    assert Layout("rows").content == {"points": "rows", "feature": None}
    assert Layout("grid", line=101).content == {"points": "grid", "feature": None, "line": 101}
    for layout in (Layout(), Layout("tasks"), Layout("grid", 0), Layout("grid", line=7)):
        record = Record({}, "method", "MixturePrediction", [0], {}, layout)
        body = json.loads(canonical(record.document()))
        assert ("line" in body["layout"]) == (layout.line is not None)
        assert Record.from_document(body).layout == layout
    for line in (1, 0, -3):
        with pytest.raises(ValueError, match=f"Layout: line = {line}: "):
            Layout("grid", line=line)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> tuple[TwoClusters, Result, Result]:
    """The prior's predictions on the clusters, from a record and from what is published of it."""
    dataset, root = TwoClusters(n=20), tmp_path_factory.mktemp("clusters")
    cell = Cell("two_clusters", dataset, MLP(features=2, hidden=(5,)), "prior", PriorPredictive(), 0, 3, 0)
    outcome = complete(cell, Store(root / "full"), "cpu")
    assert outcome.status == "finished" and not outcome.failed, outcome.reason
    publish.publish(root / "full", root / "small")
    figures = sorted(path.name for path in Path(root / "small" / "figures").iterdir())
    assert figures == [f"two_clusters_{name}.png" for name in ("bands", "calibration", "std")]
    (full,), (small,) = load.results(root / "full"), publish.read_published(root / "small")
    return dataset, full, small


def test_figures_draw_the_line_alone(clusters: tuple[TwoClusters, Result, Result]) -> None:
    """Its points over their position on it, training points where they project to, and no one of these in the shaded
    gap; of published results too. Seen to catch: the square's points drawn, feature 0 for the position (training points
    in the gap), positions from one end on, masks of all points."""
    dataset, *results = clusters
    problems = dataset.problems(range(3))
    position = np.linspace(-4, 4, 101)
    for result in results:
        shown = on_its_line(result)
        assert shown.inside("all").shape == (3, 101) and not shown.inside("square").any()
        style = styles([result])
        figure = bands([result], style)
        data, middle, truth = figure.axes[0].get_lines()
        for drawn, name in ((middle, "f_50"), (truth, "f_test")):
            np.testing.assert_allclose(drawn.get_xdata(), position, atol=1e-6)
            np.testing.assert_allclose(drawn.get_ydata(), result.curves[name][0, :101])
        np.testing.assert_allclose(data.get_xdata(), problems.x[0].double().sum(-1) / ROOT2, atol=1e-6)
        np.testing.assert_allclose(data.get_ydata(), problems.y[0])
        (span,) = figure.axes[0].patches
        low, high = span.get_x(), span.get_x() + span.get_width()
        assert (low, high) == (pytest.approx(-1.44), pytest.approx(1.44))  # the last points in the data, 1.4 is the end
        assert np.abs(data.get_xdata()).min() > 1.4 - 1e-6
        (std,) = stds([result], style).axes[0].get_lines()
        np.testing.assert_allclose(std.get_xdata(), position, atol=1e-6)
        np.testing.assert_allclose(std.get_ydata(), result.curves["std_f"][:, :101].mean(0), rtol=1e-6)
        for made in (figure, stds([result], style)):
            words = made.get_supxlabel() or made.axes[0].get_xlabel()
            assert words == "position on the line"


def test_all_of_the_line_is_published_and_nothing_else(clusters: tuple[TwoClusters, Result, Result]) -> None:
    """Where there is room: 101 points of 182. Fewer are spread over the line, with both of its ends. Seen to catch: 121
    points spread over line and square, the line's number lost in the manifest."""
    _, full, small = clusters
    assert small.layout == full.layout == Layout("grid", line=101)
    for name in ("f_50", "std_f", "f_test"):
        known = np.isfinite(small.curves[name])
        assert known[:, :101].all() and not known[:, 101:].any()
    few = publish._chosen(Layout("grid", line=101), 182, 11)
    np.testing.assert_array_equal(few, np.arange(0, 101, 10))
    np.testing.assert_array_equal(publish._chosen(Layout("grid", 0), 182, 11), np.linspace(0, 181, 11).round())
