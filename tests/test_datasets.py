"""Datasets: what a replica gets depends on nothing but the dataset, the seed and the replica's number."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from gapbench.datasets.base import ProblemError, Problems
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.standardise import Standardisation
from gapbench.datasets.streams import stream, torch_stream


def tensors(problems: Problems) -> dict[str, Tensor]:
    parts = {one.name: getattr(problems, one.name) for one in fields(problems)}
    return {name: part for name, part in parts.items() if isinstance(part, Tensor)} | {
        f"region {name}": mask for name, mask in problems.regions.items()
    }


def test_a_replica_is_the_same_whatever_else_is_asked_for() -> None:
    """Methods are compared in pairs. Seen to catch: one stream that every call draws on, the key without the replica's
    number (all replicas alike), the position in the request used for it."""
    dataset = GappedSine(n=20, noise_std=0.1)
    first, second = tensors(dataset.problems(range(3))), tensors(dataset.problems(range(2, 5)))
    for name in first:
        assert torch.equal(first[name][2], second[name][0]), name
    assert len({tuple(row) for row in torch.cat([first["y"], second["y"]]).tolist()}) == 5


def test_seeds_differ() -> None:
    """In inputs, noise and test noise. Seen to catch: the seed left out of the key."""
    dataset = GappedSine(n=20, noise_std=0.1)
    zero, one = dataset.problems([0], seed=0), dataset.problems([0], seed=1)
    for name in ("x", "y", "y_test"):
        assert not torch.equal(getattr(zero, name), getattr(one, name)), name
    assert dataset.problems([0], seed=1).sha256 == one.sha256 != zero.sha256


def test_shapes() -> None:
    problems = GappedSine(n=20, test_points=31).problems(range(3))
    shapes = {name: tuple(value.shape) for name, value in tensors(problems).items()}
    assert shapes == {
        "x": (3, 20, 1),
        "y": (3, 20),
        "x_test": (3, 31, 1),
        "y_test": (3, 31),
        "f_test": (3, 31),
        "noise_test": (3, 31),
        "region data": (3, 31),
        "region gap": (3, 31),
        "region extrapolation": (3, 31),
    }
    assert all(mask.dtype == torch.bool for mask in problems.regions.values())


def test_data_fill_both_sides_and_nothing_lies_in_the_gap() -> None:
    """Half on each side, uniform there. Seen to catch: one side's ends swapped in, a gap of half the width, all
    points on one side, a normal in place of the uniform."""
    problems = GappedSine(n=4000, span=(-3, 5), gap=(-1, 2)).problems(range(2))
    for x in problems.x.squeeze(-1).double():
        left, right = x[x < 0.5], x[x > 0.5]
        assert len(left) == len(right) == 2000
        assert stats.kstest(left.numpy(), "uniform", (-3, 2)).pvalue > 1e-4
        assert stats.kstest(right.numpy(), "uniform", (2, 3)).pvalue > 1e-4


def test_regions_partition_the_grid() -> None:
    """Seen to catch: ≥ for > at the gap's ends, a grid that does not reach beyond the span on the left."""
    problems = GappedSine().problems(range(2))
    grid, regions = problems.x_test[0, :, 0], problems.regions
    assert torch.equal(sum(mask.int() for mask in regions.values()), torch.ones_like(problems.f_test).int())
    for end in (-4, -1, 1, 4):
        assert regions["data"][:, grid == end].tolist() == [[True], [True]], end
    assert torch.equal(regions["gap"][0], (grid > -1) & (grid < 1))
    assert torch.equal(regions["extrapolation"][0], grid.abs() > 4)
    assert [int(mask[0].sum()) for mask in regions.values()] == [122, 39, 80]  # of steps of 0.05 on [−6, 6]


@pytest.mark.parametrize(("edge", "test_points"), [(0.2, 85), (0.3, 431), (2.0, 1201), (0.0, 9)])
def test_the_ends_of_the_data_belong_to_the_data(edge: float, test_points: int) -> None:
    """Whatever the grid's rounding. Seen to catch: the grid unrounded (4 came out as 4 + 9e-16, beyond the data, and
    −1 as −1 + 4e-16, in the gap)."""
    problems = GappedSine(extrapolation=edge, test_points=test_points).problems([0])
    grid, data = problems.x_test[0, :, 0], problems.regions["data"][0]
    for end in (-4, -1, 1, 4):
        assert data[(grid - end).abs() < 1e-6].tolist() == [True], end


def test_noise_has_the_stated_size() -> None:
    """Normal, of std 0.3, in training and test alike; 20,000 numbers each. Seen to catch: noise² for noise, noise
    forgotten in the test set, uniform noise of the same std."""
    dataset = GappedSine(n=10_000, noise_std=0.3, test_points=10_000)
    problems = dataset.problems(range(2))
    train = problems.y.double() - problems.x[..., 0].double().sin()
    test = problems.y_test.double() - problems.f_test.double()
    for residuals in (train.flatten(), test.flatten()):
        assert stats.kstest(residuals.numpy(), "norm", (0, 0.3)).pvalue > 1e-4
    assert torch.equal(problems.noise_test, torch.full_like(problems.f_test, 0.3))


def test_without_noise_everything_is_the_sine() -> None:
    problems = GappedSine(n=20, noise_std=0).problems(range(2))
    torch.testing.assert_close(problems.y, problems.x[..., 0].double().sin().float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(problems.f_test, problems.x_test[..., 0].double().sin().float(), atol=1e-6, rtol=0)
    assert torch.equal(problems.y_test, problems.f_test) and not problems.noise_test.any()


def test_training_and_test_noise_are_different_streams() -> None:
    """Test noise that repeats the training noise would be leakage. Seen to catch: the same word for both."""
    problems = GappedSine(n=1000, noise_std=1.0, test_points=1000).problems([0])
    train, test = problems.y[0] - problems.x[0, :, 0].sin(), problems.y_test[0] - problems.f_test[0]
    assert abs(np.corrcoef(train.numpy(), test.numpy())[0, 1]) < 5 / np.sqrt(1000)


def test_the_notebook_grid() -> None:
    problems = GappedSine(extrapolation=0, test_points=100).problems([0])
    expected = torch.from_numpy(np.linspace(-4, 4, 100)).float()
    assert torch.equal(problems.x_test[0, :, 0], expected)
    assert not problems.regions["extrapolation"].any()


def test_the_hash_is_of_every_number() -> None:
    """Seen to catch: a hash of the training set alone, one without the regions, one of the shapes."""
    problems = GappedSine(n=4, noise_std=0.1, test_points=13).problems(range(2))
    hashes = {problems.sha256}
    assert replace(problems, x=problems.x.clone()).sha256 in hashes
    for name, value in tensors(problems).items():
        other = value.clone()
        last = (-1,) * other.ndim
        other[last] = ~other[last] if other.dtype == torch.bool else other[last] + 1e-3
        key = name.removeprefix("region ")
        changed = (
            replace(problems, regions={**problems.regions, key: other})
            if key in problems.regions
            else replace(problems, **{key: other})
        )
        assert changed.sha256 not in hashes, name
        hashes.add(changed.sha256)
    assert replace(problems, f_test=None).sha256 not in hashes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 7),
        ("noise_std", -0.1),
        ("noise_std", float("nan")),
        ("noise_std", float("inf")),
        ("gap", (1.0, -1.0)),
        ("gap", (-5.0, 1.0)),
        ("gap", (-1.0, 4.0)),
        ("span", (4.0, -4.0)),
        ("extrapolation", -1.0),
        ("extrapolation", float("inf")),
        ("test_points", 1),
    ],
)
def test_a_bad_field_is_named_with_its_value(field: str, value: object) -> None:
    with pytest.raises(ValueError) as error:
        GappedSine(**{field: value})
    assert field in str(error.value) and str(value) in str(error.value)


def test_streams_depend_on_their_content_alone() -> None:
    """Whatever was drawn before, and in whatever order. Seen to catch: the words joined without a separator, sorted
    words, one shared SeedSequence that is spawned from."""
    first = stream("a", 1, "x").random(5)
    torch_first = torch.rand(5, generator=torch_stream("cpu", "a", 1, "x"))
    stream("b", 1, "x").random(1000)
    assert np.array_equal(first, stream("a", 1, "x").random(5))
    assert torch.equal(torch_first, torch.rand(5, generator=torch_stream("cpu", "a", 1, "x")))
    others = [("a", 1, "y"), ("a", 2, "x"), ("b", 1, "x"), ("a1", "x"), ("a", "1x"), ("x", 1, "a"), ("a", 1)]
    firsts = {stream(*content).random() for content in others}
    assert len(firsts) == len(others) and first[0] not in firsts


def test_streams_are_the_same_in_another_process() -> None:
    """Seen to catch: `hash` in place of sha256."""
    program = "from gapbench.datasets.streams import stream; print(stream('a', 1).integers(2**63))"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == stream("a", 1).integers(2**63)


def house(replicas: int = 2) -> Problems:
    """Prices of houses: three features in units of their own, y of order 10⁵, no region, no truth."""
    rng = stream("house")
    x = torch.from_numpy(rng.normal([120, 3, 1970], [40, 1, 20], (replicas, 30, 3)))
    x[..., 1] = 3  # a constant column
    y = 1e5 + 1e3 * x[..., 0] + 1e4 * torch.from_numpy(rng.standard_normal((replicas, 30)))
    train, test = slice(0, 20), slice(20, 30)
    units = Standardisation.of(x[:, train], y[:, train])
    return Problems(x[:, train], y[:, train], x[:, test], y[:, test], standardisation=units)


def test_methods_see_standardised_numbers() -> None:
    """Means 0 and stds 1 of the training half, in float32; a constant column keeps its unit; the test half has the
    training half's units. Seen to catch: the test half standardised by itself, n − 1 for n, x and y exchanged, a
    constant column divided by 0."""
    problems = house()
    x, y, x_test = problems.inputs
    assert x.dtype == y.dtype == x_test.dtype == torch.float32
    for values, dim in ((x[..., ::2], 1), (y, 1)):
        assert values.mean(dim).abs().max() < 1e-5 and (values.std(dim, correction=0) - 1).abs().max() < 1e-5
    assert not x[..., 1].any()
    units = problems.standardisation
    back = x_test.double() * units.x_std.unsqueeze(1) + units.x_mean.unsqueeze(1)
    torch.testing.assert_close(back, problems.x_test, rtol=1e-6, atol=1e-4)
    one = problems.select(torch.tensor([False, True]))
    assert torch.equal(one.inputs[1][0], y[1]) and len(one.x) == 1


def test_the_sines_are_not_standardised() -> None:
    """To the bit: their prior and noise are stated in their units. Seen to catch: `of` for `identity`."""
    problems = GappedSine(n=20, noise_std=0.1).problems(range(2))
    for seen, given in zip(problems.inputs, (problems.x, problems.y, problems.x_test), strict=True):
        assert torch.equal(seen, given)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y": torch.full((2, 20), torch.nan)}, r"y\[0, 0\] = nan: expected finite"),
        ({"x": torch.full((2, 20, 3), torch.inf)}, r"x\[0, 0, 0\] = inf"),
        ({"y_test": torch.full((2, 10), torch.nan)}, r"y_test\[0, 0\] = nan"),
        ({"y": torch.zeros(2, 20, 1)}, r"y: shape \(2, 20, 1\), expected \(2, 20\)"),
        ({"x": torch.zeros(2, 20)}, r"x: shape \(2, 20\), expected \(R, N, D\)"),
        ({"x_test": torch.zeros(2, 10, 2)}, r"x_test: shape \(2, 10, 2\), expected \(2, 10, 3\)"),
        ({"y": torch.zeros(2, 20).long()}, "y: torch.int64, expected float32 or float64"),
        ({"noise_test": torch.full((2, 10), -1.0)}, "noise_test: -1.0, expected a std of at least 0"),
        ({"regions": {"gap": torch.zeros(2, 9).bool()}}, r"region gap: shape \(2, 9\)"),
        ({"regions": {"all": torch.zeros(2, 10).bool()}}, "the name is taken"),
        ({"standardisation": Standardisation.of(torch.ones(2, 9, 3), torch.full((2, 9), torch.nan))}, "y_mean = "),
        ({"x_test": [1.0]}, "x_test: a list, expected"),
    ],
)
def test_data_that_cannot_be_used_are_refused(change: dict[str, object], said: str) -> None:
    """Before any training, by name and value. Seen to catch: each of the checks removed."""
    with pytest.raises(ProblemError, match=said):
        replace(house(), **change)  # type: ignore[arg-type]
