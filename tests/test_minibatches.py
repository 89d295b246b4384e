"""How batches are drawn: the laws that the methods' scaling and the privacy accountant take for granted.

Tests of laws have fixed seeds and bounds beyond 5σ (or p < 1e-5), so that a right sampler never fails them by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import pytest
import torch
from opacus.data_loader import DPDataLoader
from scipy import stats
from torch import Generator
from torch.utils.data import DataLoader, TensorDataset

from gapbench.methods.engine.minibatches import Batch, FixedSize, Minibatches, OpacusLoader, Poisson, gather_points

Seeded = Callable[[int], Generator]


def inclusions(
    scheme: Minibatches, shape: Sequence[int], batch: int, n: int, steps: int, generator: Generator
) -> np.ndarray:
    """(steps, *shape, n): how often each point is in each batch; padding is not counted."""
    counts = []
    for drawn in islice(scheme.draw(shape, batch, n, generator), steps):
        present = torch.ones(drawn.index.shape) if drawn.present is None else drawn.present
        counts.append(torch.zeros(*shape, n).scatter_add_(-1, drawn.index, present))
    return torch.stack(counts).numpy()


def assert_frequency(count: np.ndarray, trials: int, probability: float) -> None:
    """Every count within 5σ of a Binomial(trials, probability)."""
    bound = 5 * np.sqrt(trials * probability * (1 - probability))
    assert np.abs(count - trials * probability).max() < bound


def test_fixed_size_draws_different_points_and_every_subset_alike(seeded: Seeded) -> None:
    """Seen to catch: drawing with replacement, a contiguous window from a random place, the same permutation cut
    into batches (pairs in it then exclude each other), a scheme that never draws the last point."""
    counts = inclusions(FixedSize(), (2, 3), 2, 5, 2000, seeded(0)).reshape(-1, 5)
    assert set(counts.ravel()) == {0, 1} and set(counts.sum(1)) == {2}
    assert_frequency(counts.sum(0), len(counts), 2 / 5)
    subsets = np.unique(counts @ 2 ** np.arange(5), return_counts=True)[1]
    assert len(subsets) == 10 and stats.chisquare(subsets).pvalue > 1e-5
    following = np.corrcoef(counts[:-6, 0], counts[6:, 0])[0, 1]  # of the same replica and chain, one step on
    assert abs(following) < 5 / np.sqrt(len(counts))


def test_fixed_size_of_everything_is_everything(seeded: Seeded) -> None:
    drawn = next(FixedSize().draw((2, 3), 5, 5, seeded(0)))
    assert drawn.present is None and drawn.index.tolist() == [[list(range(5))] * 3] * 2


POISSON = pytest.mark.parametrize(
    ("scheme", "batch", "n", "rate"),
    [(Poisson(), 3, 7, 3 / 7), (Poisson(), 2, 40, 0.05), (OpacusLoader(), 3, 7, 1 / 3), (Poisson(), 1, 300, 1 / 300)],
)


@POISSON
def test_poisson_includes_each_point_by_itself(
    seeded: Seeded, scheme: Minibatches, batch: int, n: int, rate: float
) -> None:
    """Drawn by geometric gaps, yet: each point at rate q, never twice, sizes Binomial(n, q), points independent of
    each other and of the step before.

    Seen to catch: gaps from 0 (points twice), the first point skipped, gaps too few (the last points too rare),
    rate b/(n + 1), a batch repeated for two steps, a size from Poisson(nq) with distinct points, padding counted as
    the last point.
    """
    counts = inclusions(scheme, (2, 2), batch, n, 5000, seeded(0))
    assert scheme.rate(batch, n) == pytest.approx(rate)
    assert set(counts.ravel()) == {0, 1}
    flat = counts.reshape(-1, n)
    assert_frequency(flat.sum(0), len(flat), rate)

    sizes = flat.sum(1).astype(int)
    expected = len(flat) * stats.binom.pmf(np.arange(n + 1), n, rate)
    top = int(np.flatnonzero(expected >= 5)[-1])  # the tail above in one class
    observed = np.bincount(np.minimum(sizes, top + 1), minlength=top + 2)
    expected = np.append(expected[: top + 1], expected[top + 1 :].sum())
    keep = expected > 1e-9
    assert stats.chisquare(observed[keep], expected[keep]).pvalue > 1e-5

    if n <= 40:  # where every pair was seen together often enough
        pairs = np.corrcoef(flat.T)[np.triu_indices(n, 1)]
        assert np.abs(pairs).max() < 5 / np.sqrt(len(flat))
    neighbours = np.corrcoef(flat[:, :-1].ravel(), flat[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(flat[:, 1:].size)
    following = np.corrcoef(counts[:-1].ravel(), counts[1:].ravel())[0, 1]
    assert abs(following) < 5 / np.sqrt(counts[1:].size)


def test_empty_poisson_batches_occur_and_are_all_padding(seeded: Seeded) -> None:
    """As often as (1 − q)ⁿ says. Seen to catch: at least one point kept in every batch."""
    drawn = list(islice(Poisson().draw((3,), 2, 8, seeded(0)), 2000))
    empty = torch.stack([batch.present.sum(-1) == 0 for batch in drawn])
    assert_frequency(empty.sum().numpy(), empty.numel(), 0.75**8)
    for batch in drawn:
        assert batch.index.shape == batch.present.shape and 0 <= batch.index.min() <= batch.index.max() < 8


def test_a_rate_of_one_is_everything(seeded: Seeded) -> None:
    for scheme in (Poisson(), OpacusLoader()):
        drawn = next(scheme.draw((2,), 5, 5, seeded(0)))
        assert drawn.present is None and drawn.index.tolist() == [list(range(5))] * 2


@pytest.mark.parametrize(("batch", "n"), [(16, 1000), (2, 8), (3, 7), (64, 200), (7, 7), (100, 1001), (1, 49)])
def test_opacus_loader_has_opacus_numbers(batch: int, n: int) -> None:
    """The rate and the divisor of PrivacyEngine.make_private, from the loader it makes of a DataLoader (the last
    line is privacy_engine.py's own). Seen to catch: ⌊n/b⌋ batches, the divisor rounded, the divisor b."""
    loader = DPDataLoader.from_data_loader(DataLoader(TensorDataset(torch.zeros(n)), batch_size=batch))
    assert OpacusLoader().rate(batch, n) == loader.sample_rate == 1 / len(loader)
    assert OpacusLoader().divisor(batch, n) == int(n * (1 / len(loader)))


def test_rates_and_divisors() -> None:
    """The notebook's setting, and the rule here: sample at b/n, divide by b."""
    assert (OpacusLoader().rate(16, 1000), OpacusLoader().divisor(16, 1000)) == (1 / 63, 15)
    for scheme in (FixedSize(), Poisson()):
        assert (scheme.rate(16, 1000), scheme.divisor(16, 1000)) == (0.016, 16)


@pytest.mark.parametrize("scheme", [FixedSize(), Poisson(), OpacusLoader()])
def test_replicas_and_chains_have_batches_of_their_own(seeded: Seeded, scheme: Minibatches) -> None:
    """Independent ones. Seen to catch: one batch for all chains, one batch for all replicas."""
    counts = inclusions(scheme, (2, 3), 4, 12, 3000, seeded(0)).reshape(3000, 6, 12)
    for i in range(6):
        for j in range(i):
            together = np.corrcoef(counts[:, i].ravel(), counts[:, j].ravel())[0, 1]
            assert abs(together) < 5 / np.sqrt(3000 * 12), (i, j)


def test_take_gives_each_replica_its_own_points(seeded: Seeded) -> None:
    """Seen to catch: the first replica's points for all."""
    x = torch.arange(2 * 5 * 3).view(2, 5, 3)
    index = torch.randint(5, (2, 4, 6), generator=seeded(0))  # (R, chains, B)
    taken, labels = gather_points(x, index), gather_points(x[..., 0], index)
    assert taken.shape == (2, 4, 6, 3) and labels.shape == (2, 4, 6)
    for r in range(2):
        assert torch.equal(taken[r], x[r][index[r]]) and torch.equal(labels[r], x[r, :, 0][index[r]])
    assert torch.equal(gather_points(x, Batch(index[:, 0]).index), taken[:, 0])  # (R, B)
