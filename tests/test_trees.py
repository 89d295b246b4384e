"""Boosted quantiles and quantile forests: exact where a tree can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from gapbench.methods.boosted_quantiles import BoostedQuantiles
from gapbench.methods.engine.model import MLP
from gapbench.methods.quantile_forest import QuantileForest
from gapbench.methods.quantile_regression import LEVELS

MODEL = MLP(features=2)


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def test_boosting_finds_the_quantiles_of_each_group() -> None:
    """x has two values, so each group of 400 has its own quantiles: the share below that of level p is p ± 1/400. Seen
    to catch: levels in another order, a mean in place of a quantile, replicas that share trees."""
    groups = (torch.arange(800) % 2).float()
    x = groups.view(1, 800, 1).repeat(2, 1, 1)
    y = torch.randn(2, 800, generator=seeded()) * (1 + 3 * groups) + 5 * groups
    levels = (0.05, 0.5, 0.9)
    method = BoostedQuantiles(levels=levels, steps=100, lr=0.5)
    found = method.fit(MLP(), x, y, seeded())(torch.tensor([[[0.0], [1.0]]] * 2)).values
    for r in range(2):
        for group in (0, 1):
            own = y[r, groups == group]
            below = (own.unsqueeze(0) <= found[r, :, group].unsqueeze(1) + 1e-4).float().mean(1)
            assert (below - torch.tensor(levels)).abs().max() < 1.5 / 400, (r, group)


def test_boosted_quantiles_do_not_cross() -> None:
    """The trees of neighbouring levels know nothing of each other. Seen to catch: quantiles that are not sorted."""
    x, y = noise(100)
    apart = BoostedQuantiles(levels=(0.4, 0.5, 0.6), steps=20, smallest=2).fit(MODEL, x, y, seeded())
    rough = torch.tensor(np.stack([one.predict(x[0].double().numpy()) for one in apart.trees[0]]))
    assert (rough.diff(dim=0) < -1e-6).any()
    assert (apart(x).values.diff(dim=1) >= 0).all()


def noise(n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(2, n, 2, generator=seeded(1)), torch.randn(2, n, generator=seeded(2))


def test_a_tree_of_one_leaf_has_the_quantiles_of_the_data() -> None:
    """inf {t : F(t) ≥ p}, by numpy. Seen to catch: interpolated quantiles, the next one, weights of a bootstrap."""
    x, y = noise(60)
    found = QuantileForest(members=3, smallest=60).fit(MODEL, x, y, seeded())(x[:, :4]).values
    expected = torch.tensor(np.quantile(y.numpy(), LEVELS, axis=1, method="inverted_cdf").T)
    torch.testing.assert_close(found, expected.unsqueeze(-1).expand(-1, -1, 4).float())


def test_the_weights_are_those_of_the_paper() -> None:
    """Of each tree 1/(points of the leaf) for the points of x's leaf, by a loop. Seen to catch: a leaf's points not
    counted, trees weighed by size, targets of another replica."""
    x, y = noise(50)
    fit = QuantileForest(members=7, smallest=4).fit(MODEL, x, y, seeded())
    points = torch.randn(2, 300, 2, generator=seeded(3))  # more than are computed at once
    found = fit(points).values
    for r in range(2):
        for m in (0, 128, 299):
            weights = np.zeros(50)
            for tree in fit.forests[r].estimators_:
                leaves = tree.apply(x[r].numpy())
                mine = leaves == tree.apply(points[r, m : m + 1].numpy())[0]
                weights[mine] += 1 / mine.sum() / 7
            order = np.argsort(y[r].numpy())
            reached = weights[order].cumsum()
            for level, value in zip(LEVELS, found[r, :, m], strict=True):
                assert value == y[r, order[np.flatnonzero(reached >= level - 1e-9)[0]]]


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (BoostedQuantiles, {"levels": (0.5, 0.1)}),
        (BoostedQuantiles, {"leaves": 1}),
        (BoostedQuantiles, {"steps": 0}),
        (BoostedQuantiles, {"smallest": 0}),
        (QuantileForest, {"levels": (0.5,)}),
        (QuantileForest, {"share": 1.5}),
        (QuantileForest, {"smallest": 0}),
    ],
)
def test_a_setting_that_cannot_work_is_named(cls: type, settings: dict[str, object]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=name) as error:
        cls(**settings)
    assert cls.__name__ in str(error.value) and f"{name} = {value}" in str(error.value)
