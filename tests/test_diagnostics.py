"""Convergence of chains of f: R-hat and ESS on chains whose convergence is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from gapbench.evaluation.diagnostics import (
    RHAT_THRESHOLD,
    component_convergence,
    component_statistics,
    convergence,
    limit,
)
from gapbench.methods.engine.predictions import MixturePrediction

Floats = NDArray[np.float64]


def autoregressive(rng: np.random.Generator, shape: tuple[int, int, int, int], rho: float) -> Floats:
    """(R, chains, draws, M), each chain stationary with std 1 and autocorrelation rho**lag."""
    x = rng.standard_normal(shape)
    for i in range(1, shape[2]):
        x[:, :, i] = rho * x[:, :, i - 1] + np.sqrt(1 - rho**2) * x[:, :, i]
    return x


def diagnosed(f: Floats) -> dict[str, Floats]:
    return convergence(torch.from_numpy(f))


# --- A second implementation, from Vehtari et al. 2021 (equations 1 to 4 and 14, section 4), of one quantity ----------


def basic_rhat(chains: Floats) -> float:
    """(chains, draws) -> √(var⁺/W), var⁺ = (n − 1)/n W + B/n."""
    draws = chains.shape[1]
    within = np.mean([np.sum((chain - chain.mean()) ** 2) / (draws - 1) for chain in chains])
    between = draws * np.sum((chains.mean(1) - chains.mean()) ** 2) / (len(chains) - 1)
    return float(np.sqrt(((draws - 1) / draws * within + between / draws) / within))


def halves(chains: Floats) -> Floats:
    """Each chain in two; the middle draw of an odd number is left out."""
    half = chains.shape[1] // 2
    return np.array([part for chain in chains for part in (chain[:half], chain[len(chain) - half :])])


def normal_scores(chains: Floats) -> Floats:
    """Φ⁻¹((rank − 3/8)/(S + 1/4)), tied draws sharing their mean rank."""
    ranks = np.array([(chains < x).sum() + ((chains == x).sum() + 1) / 2 for x in chains.ravel()])
    return np.asarray(stats.norm.ppf((ranks - 3 / 8) / (chains.size + 1 / 4))).reshape(chains.shape)


def rank_rhat(chains: Floats) -> float:
    """The larger of the bulk's and, folded about the median, the tails'."""
    split = halves(chains)
    return max(basic_rhat(normal_scores(split)), basic_rhat(normal_scores(np.abs(split - np.median(split)))))


@pytest.mark.parametrize("shape", [(2, 4, 50, 3), (1, 2, 4, 2), (1, 3, 31, 2), (2, 1, 40, 2), (1, 1, 43, 3)], ids=str)
@pytest.mark.parametrize("kind", ["normal", "Cauchy", "sticky", "rounded", "shifted", "stretched"])
def test_rhat_is_the_paper_s(kind: str, shape: tuple[int, int, int, int]) -> None:
    """To 1e-6 and better, a single chain being cut in two halves that are chains (without its first draw, if their
    number is odd). Seen to catch: R-hat not split, not rank-normalised, not folded, of the folded part alone; axes of
    chains and draws exchanged; points and replicas exchanged; a single chain's halves interleaved."""
    rng = np.random.default_rng(sum(shape))
    f = autoregressive(rng, shape, 0.9) if kind == "sticky" else rng.standard_normal(shape)
    number = np.arange(shape[1]).reshape(1, -1, 1, 1)
    f = {
        "Cauchy": lambda: rng.standard_cauchy(shape),
        "rounded": lambda: f.round(),
        "shifted": lambda: f + 0.7 * number,
        "stretched": lambda: f * (1 + number),
    }.get(kind, lambda: f)()
    rhat = diagnosed(f)["rhat"]
    assert rhat.shape == (shape[0], shape[3])
    for r in range(shape[0]):
        for m in range(shape[3]):
            chains = f[r, :, :, m]
            chains = halves(chains[:, shape[2] % 2 :]) if shape[1] == 1 else chains
            assert rhat[r, m] == pytest.approx(rank_rhat(chains), rel=1e-9)


def test_rhat_of_normal_scores_is_the_basic_one() -> None:
    """Draws that already are the normal scores of their ranks are left as they are, so that where the chains differ in
    location R-hat is the split R-hat of Gelman et al., no ranks needed. Seen to catch: chains not split, the
    folded part always taken."""
    rng = np.random.default_rng(0)
    scores = normal_scores(rng.standard_normal((4, 100)) + 0.4 * np.arange(4).reshape(4, 1))
    assert diagnosed(scores[None, :, :, None])["rhat"].item() == pytest.approx(basic_rhat(halves(scores)), rel=1e-9)


# --- Chains whose convergence is known --------------------------------------------------------------------------------


@pytest.mark.parametrize("chains", [1, 2, 4, 8])
def test_independent_draws_are_converged(chains: int) -> None:
    """R-hat within 0.02 of 1 at 40 points, ESS near the number of draws. Seen to catch: draws taken for chains."""
    f = np.random.default_rng(chains).standard_normal((2, chains, 2000 // chains, 20))
    found = diagnosed(f)
    assert (found["rhat"] < 1.02).all() and (found["rhat"] > 0.99).all()
    for name in ("ess_bulk", "ess_tail"):
        assert found[name].shape == (2, 20)
        assert found[name].mean() == pytest.approx(2000, rel=0.1)


@pytest.mark.parametrize(("chains", "draws"), [(8, 25), (20, 10), (4, 50), (1, 100), (4, 500)])
def test_independent_draws_are_converged_however_few(chains: int, draws: int) -> None:
    """By the limit for so many: in each of 12 replicas at every of 20 points, where 1.05 would refuse many of the first
    two; and chains whose means are a std apart are not. With many draws it is 1.05. Seen to catch: a limit of 1.05 for
    all, one too wide to see anything."""
    f = np.random.default_rng(draws).standard_normal((12, chains, draws, 20))
    found = diagnosed(f)
    assert (found["rhat"] <= found["rhat_limit"]).all()
    assert (found["rhat"].max(1) > RHAT_THRESHOLD).mean() > 0.05 or draws > 25
    apart = f + np.linspace(-1.5, 1.5, draws if chains == 1 else chains).reshape((-1, 1) if chains == 1 else (-1, 1, 1))
    found = diagnosed(apart)
    assert (found["rhat"] > found["rhat_limit"]).all()
    assert limit(8, 10**6) == pytest.approx(RHAT_THRESHOLD, abs=1e-5)


def test_what_did_not_converge_is_flagged_where_it_did_not() -> None:
    """In one replica at one point: a shifted chain, chains of different widths about one centre (which only the folded
    part sees), and, first in the stack, nothing. Seen to catch: no folding, the largest over points reported for all,
    replicas pooled."""
    rng = np.random.default_rng(1)
    sound = rng.standard_normal((3, 4, 250, 5))
    f = sound.copy()
    f[1, 0, :, 2] += 2
    f[2, :, :, 4] *= np.array([0.3, 1, 1, 3]).reshape(4, 1)
    rhat = diagnosed(f)["rhat"]
    expected = np.zeros((3, 5), bool)
    expected[1, 2] = expected[2, 4] = True
    np.testing.assert_array_equal(rhat > RHAT_THRESHOLD, expected)
    np.testing.assert_array_equal(rhat[~expected], diagnosed(sound)["rhat"][~expected])
    assert diagnosed(f)["ess_bulk"][1, 2] < 50 < 500 < diagnosed(f)["ess_bulk"][1, 1]
    # The widths are seen by the folded part alone.
    assert basic_rhat(normal_scores(halves(f[2, :, :, 4]))) < 1.01 < RHAT_THRESHOLD


@pytest.mark.parametrize("drift", [0.0, 4.0])
def test_a_single_chain_that_drifts_is_flagged(drift: float) -> None:
    """And one that does not is not: half of it against the other. Seen to catch: nan for a single chain."""
    rng = np.random.default_rng(2)
    f = rng.standard_normal((2, 1, 400, 6)) + drift * np.linspace(0, 1, 400).reshape(1, 1, -1, 1)
    rhat = diagnosed(f)["rhat"]
    assert ((rhat > RHAT_THRESHOLD) == (drift > 0)).all()
    assert not np.isnan(rhat).any()


@pytest.mark.parametrize(("chains", "draws"), [(2, 3), (4, 1), (1, 7), (1, 3), (1, 1), (1, 0), (3, 0)])
def test_too_few_draws_have_not_arrived(chains: int, draws: int) -> None:
    """Four draws a chain are needed, so eight of a single chain. Seen to catch: a single chain judged as it is, an
    error from a chain that is too short to halve."""
    f = np.random.default_rng(0).standard_normal((2, chains, draws, 3))
    found = diagnosed(f)
    assert all(values.shape == (2, 3) for values in found.values())
    assert (found["rhat"] > found["rhat_limit"]).all() and not found["ess_bulk"].any() and not found["ess_tail"].any()


@pytest.mark.parametrize(("chains", "draws"), [(2, 4), (1, 8)])
def test_just_enough_draws_are_not(chains: int, draws: int) -> None:
    """The other side of that limit. Seen to catch: a limit that is one draw higher."""
    f = np.random.default_rng(0).standard_normal((2, chains, draws, 3))
    assert not any(np.isnan(values).any() for values in diagnosed(f).values())


def test_chains_that_never_move() -> None:
    """All at one place have no R-hat, and each at its own an infinite one: both count as inf, and neither warns. A nan
    among the draws makes inf, at its own point. Seen to catch: a warning (an error in this test suite), 1 for chains
    that stand still."""
    still = np.zeros((1, 4, 20, 1))
    apart = still + np.arange(4.0).reshape(1, 4, 1, 1)
    moving = np.random.default_rng(0).standard_normal((1, 4, 20, 1))
    broken = moving.copy()
    broken[0, 2, 3] = np.nan
    rhat = diagnosed(np.concatenate([still, apart, moving, broken], -1))["rhat"][0]
    assert np.isposinf(rhat[[0, 1, 3]]).all() and np.isfinite(rhat[2])
    assert (rhat[[0, 1, 3]] <= RHAT_THRESHOLD).tolist() == [False] * 3
    assert not diagnosed(broken)["ess_bulk"].any()


# --- Effective sample sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chains", [1, 4])
@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.5, 0.9])
def test_ess_of_an_autoregression(rho: float, chains: int) -> None:
    """S(1 − ρ)/(1 + ρ), within 15 % on average over 20 chains' points, and the tails' no larger than S or so. ρ < 0 is
    better than independent. Seen to catch: every second draw, the ESS of one chain for all, the tail's for the
    bulk's."""
    f = autoregressive(np.random.default_rng(7), (2, chains, 4000 // chains, 10), rho)
    found = diagnosed(f)
    assert found["ess_bulk"].mean() == pytest.approx(4000 * (1 - rho) / (1 + rho), rel=0.15)
    if rho > 0:
        # An indicator of a tail forgets faster than the mean, but is never better than independent.
        assert found["ess_bulk"].mean() < found["ess_tail"].mean() < 1.1 * 4000


# --- Where the chains come from ---------------------------------------------------------------------------------------


def test_chains_are_laid_out_chain_major() -> None:
    """S = chains × draws, a chain after the other. The same draws, dealt to the chains in turn, tell nothing of the
    chains' differences. Seen to catch: reshape to (draws, chains), one chain where
    there is none."""
    rng = np.random.default_rng(0)
    f = rng.standard_normal((2, 4, 100, 3)) + np.arange(4).reshape(1, 4, 1, 1)
    mean = torch.from_numpy(f.reshape(2, 400, 3))

    def rhat(mean: torch.Tensor, chains: int) -> Floats:
        chained = MixturePrediction(mean, torch.zeros(()), torch.ones(()), chains).chained_f
        assert chained is not None and chained.shape == (2, chains, 400 // chains, 3)
        return convergence(chained)["rhat"]

    chained = MixturePrediction(mean, torch.zeros(()), torch.ones(()), 4).chained_f
    assert chained is not None
    np.testing.assert_array_equal(chained, f)
    np.testing.assert_array_equal(rhat(mean, 4), diagnosed(f)["rhat"])
    assert (rhat(mean, 4) > 1.3).all()
    dealt = torch.from_numpy(f.swapaxes(1, 2).reshape(2, 400, 3))
    assert (rhat(dealt, 4) < RHAT_THRESHOLD).all()
    assert (rhat(mean, 1) > RHAT_THRESHOLD).all()  # as one chain, it drifts
    assert MixturePrediction(mean, torch.zeros(()), torch.ones(())).chained_f is None


def test_small_differences_count() -> None:
    """f near 1 whose draws differ by 1e-8 of it is diagnosed as the differences are, float32 as the same numbers in
    float64. Seen to catch: float64 predictions taken to float32, where these draws are one number."""
    differences = np.random.default_rng(0).standard_normal((1, 3, 40, 2))
    for name, values in diagnosed(1 + 1e-8 * differences).items():
        np.testing.assert_allclose(values, diagnosed(differences)[name], rtol=0.01)  # the median breaks a tie
        single = differences.astype(np.float32)
        np.testing.assert_array_equal(diagnosed(single)[name], diagnosed(single.astype(np.float64))[name])


def test_a_fine_grid_is_looked_at_at_every_fifth_point() -> None:
    """Neighbours say the same, and the others are nan; a coarse grid is looked at everywhere, and so is a reference.
    Seen to catch: every fifth replica, a grid of 24 points thinned, values put back at their neighbours."""
    f = np.random.default_rng(0).standard_normal((2, 4, 20, 41))
    whole, some = convergence(torch.from_numpy(f), every=1), diagnosed(f)
    for name, values in some.items():
        np.testing.assert_array_equal(values[:, ::5], whole[name][:, ::5])
        assert np.isnan(np.delete(values, np.s_[::5], 1)).all()
        assert not np.isnan(whole[name]).any() and not np.isnan(diagnosed(f[..., :24])[name]).any()


def test_a_tail_of_components_has_a_twentieth_of_f() -> None:
    """For components whose mixture is a normal law. Seen to catch: tails of the components' means."""
    mean = 0.6 * np.random.default_rng(0).standard_normal((4, 2000, 3))
    found = component_statistics(mean, np.full_like(mean, 0.8), None)
    for tail in ("low tail", "high tail"):
        np.testing.assert_allclose(found[tail].mean((0, 1)), 0.05, atol=0.005)


def test_a_noise_that_never_changes_is_known() -> None:
    """A prediction in the units of the data has σ as (R, 1, 1). Seen to catch: the R-hat of a constant, inf, among
    those of the components."""
    rng = np.random.default_rng(0)
    mean, std = (torch.from_numpy(part) for part in (rng.normal(size=(2, 4, 50, 3)), 1 + rng.random((2, 4, 50, 3))))
    noise = torch.tensor([0.1, 0.2]).view(2, 1, 1, 1).expand(mean.shape)
    assert np.array_equal(component_convergence(mean, std, noise), component_convergence(mean, std, None))
    learned = noise * torch.from_numpy(1 + rng.random((2, 4, 50, 1)))
    assert (component_convergence(mean, std, learned) >= component_convergence(mean, std, None)).all()
    apart = noise + torch.arange(4).view(1, 4, 1, 1)  # constant along each chain, and different: no chain mixes
    assert (
        np.isinf(component_convergence(mean, std, apart)).all() or (component_convergence(mean, std, apart) > 2).all()
    )
