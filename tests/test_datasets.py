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

from gapbench.datasets.base import Splits
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.streams import stream, torch_stream


def tensors(splits: Splits) -> dict[str, Tensor]:
    parts = {field.name: getattr(splits, field.name) for field in fields(splits) if field.name != "regions"}
    return parts | {f"region {name}": mask for name, mask in splits.regions.items()}


def test_a_replica_is_the_same_whatever_else_is_asked_for() -> None:
    """Methods are compared in pairs. Seen to catch: one stream that every call draws on, the key without the replica's
    number (all replicas alike), the position in the request used for it."""
    dataset = GappedSine(n=20, noise=0.1)
    first, second = tensors(dataset.splits(range(3))), tensors(dataset.splits(range(2, 5)))
    for name in first:
        assert torch.equal(first[name][2], second[name][0]), name
    assert len({tuple(row) for row in torch.cat([first["y"], second["y"]]).tolist()}) == 5


def test_seeds_differ() -> None:
    """In inputs, noise and test noise. Seen to catch: the seed left out of the key."""
    dataset = GappedSine(n=20, noise=0.1)
    zero, one = dataset.splits([0], seed=0), dataset.splits([0], seed=1)
    for name in ("x", "y", "y_test"):
        assert not torch.equal(getattr(zero, name), getattr(one, name)), name
    assert dataset.splits([0], seed=1).sha256 == one.sha256 != zero.sha256


def test_shapes() -> None:
    splits = GappedSine(n=20, test_points=31).splits(range(3))
    shapes = {name: tuple(value.shape) for name, value in tensors(splits).items()}
    assert shapes == {
        "x": (3, 20, 1),
        "y": (3, 20),
        "x_test": (3, 31, 1),
        "y_test": (3, 31),
        "f_test": (3, 31),
        "noise_test": (3, 31),
        "y_scale": (3,),
        "region data": (3, 31),
        "region gap": (3, 31),
        "region edge": (3, 31),
    }
    assert all(mask.dtype == torch.bool for mask in splits.regions.values())
    assert all(value.device.type == "meta" for value in tensors(splits.to("meta")).values())


def test_data_fill_both_sides_and_nothing_lies_in_the_gap() -> None:
    """Half on each side, uniform there. Seen to catch: one side's ends swapped in, a gap of half the width, all
    points on one side, a normal in place of the uniform."""
    splits = GappedSine(n=4000, span=(-3, 5), gap=(-1, 2)).splits(range(2))
    for x in splits.x.squeeze(-1).double():
        left, right = x[x < 0.5], x[x > 0.5]
        assert len(left) == len(right) == 2000
        assert stats.kstest(left.numpy(), "uniform", (-3, 2)).pvalue > 1e-4
        assert stats.kstest(right.numpy(), "uniform", (2, 3)).pvalue > 1e-4


def test_regions_partition_the_grid() -> None:
    """Seen to catch: ≥ for > at the gap's ends, a grid that does not reach beyond the span on the left."""
    splits = GappedSine().splits(range(2))
    grid, regions = splits.x_test[0, :, 0], splits.regions
    assert torch.equal(sum(mask.int() for mask in regions.values()), torch.ones_like(splits.f_test).int())
    for end in (-4, -1, 1, 4):
        assert regions["data"][:, grid == end].tolist() == [[True], [True]], end
    assert torch.equal(regions["gap"][0], (grid > -1) & (grid < 1))
    assert torch.equal(regions["edge"][0], grid.abs() > 4)
    assert [int(mask[0].sum()) for mask in regions.values()] == [122, 39, 80]  # of steps of 0.05 on [−6, 6]


@pytest.mark.parametrize(("edge", "test_points"), [(0.2, 85), (0.3, 431), (2.0, 1201), (0.0, 9)])
def test_the_ends_of_the_data_belong_to_the_data(edge: float, test_points: int) -> None:
    """Whatever the grid's rounding. Seen to catch: the grid unrounded (4 came out as 4 + 9e-16, beyond the data, and
    −1 as −1 + 4e-16, in the gap)."""
    splits = GappedSine(edge=edge, test_points=test_points).splits([0])
    grid, data = splits.x_test[0, :, 0], splits.regions["data"][0]
    for end in (-4, -1, 1, 4):
        assert data[(grid - end).abs() < 1e-6].tolist() == [True], end


def test_noise_has_the_stated_size() -> None:
    """Normal, of std 0.3, in training and test alike; 20,000 numbers each. Seen to catch: noise² for noise, noise
    forgotten in the test set, uniform noise of the same std."""
    dataset = GappedSine(n=10_000, noise=0.3, test_points=10_000)
    splits = dataset.splits(range(2))
    train = splits.y.double() - splits.x[..., 0].double().sin()
    test = splits.y_test.double() - splits.f_test.double()
    for residuals in (train.flatten(), test.flatten()):
        assert stats.kstest(residuals.numpy(), "norm", (0, 0.3)).pvalue > 1e-4
    assert torch.equal(splits.noise_test, torch.full_like(splits.f_test, 0.3))


def test_without_noise_everything_is_the_sine() -> None:
    splits = GappedSine(n=20, noise=0).splits(range(2))
    torch.testing.assert_close(splits.y, splits.x[..., 0].double().sin().float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(splits.f_test, splits.x_test[..., 0].double().sin().float(), atol=1e-6, rtol=0)
    assert torch.equal(splits.y_test, splits.f_test) and not splits.noise_test.any()


def test_training_and_test_noise_are_different_streams() -> None:
    """Test noise that repeats the training noise would be leakage. Seen to catch: the same word for both."""
    splits = GappedSine(n=1000, noise=1.0, test_points=1000).splits([0])
    train, test = splits.y[0] - splits.x[0, :, 0].sin(), splits.y_test[0] - splits.f_test[0]
    assert abs(np.corrcoef(train.numpy(), test.numpy())[0, 1]) < 5 / np.sqrt(1000)


def test_the_notebook_grid() -> None:
    splits = GappedSine(edge=0, test_points=100).splits([0])
    expected = torch.from_numpy(np.linspace(-4, 4, 100)).float()
    assert torch.equal(splits.x_test[0, :, 0], expected)
    assert not splits.regions["edge"].any()


def test_the_hash_is_of_every_number() -> None:
    """Seen to catch: a hash of the training set alone, one without the regions, one of the shapes."""
    splits = GappedSine(n=4, noise=0.1, test_points=13).splits(range(2))
    hashes = {splits.sha256}
    assert replace(splits, x=splits.x.clone()).sha256 in hashes
    for name, value in tensors(splits).items():
        other = value.clone()
        last = (-1,) * other.ndim
        other[last] = ~other[last] if other.dtype == torch.bool else other[last] + 1e-3
        key = name.removeprefix("region ")
        changed = (
            replace(splits, regions={**splits.regions, key: other})
            if key in splits.regions
            else replace(splits, **{key: other})
        )
        assert changed.sha256 not in hashes, name
        hashes.add(changed.sha256)
    assert replace(splits, f_test=None).sha256 not in hashes
    assert replace(splits, x=splits.x.mT).sha256 not in hashes  # the same numbers in another shape


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 7),
        ("noise", -0.1),
        ("noise", float("nan")),
        ("noise", float("inf")),
        ("gap", (1.0, -1.0)),
        ("gap", (-5.0, 1.0)),
        ("gap", (-1.0, 4.0)),
        ("span", (4.0, -4.0)),
        ("edge", -1.0),
        ("edge", float("inf")),
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
