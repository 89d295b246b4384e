"""References: their files, their certificate, their making, and the scores against them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from scipy import special, stats
from torch import Generator, Tensor

from gapbench.datasets.base import Problems
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.standardise import Standardisation
from gapbench.evaluation import certificate as certificates
from gapbench.evaluation import reference_file
from gapbench.evaluation.agreement import agreement
from gapbench.evaluation.certificate import Chains, halves_apart, measured, problems, reference_of, verdict
from gapbench.evaluation.controls import ReferencePosterior
from gapbench.evaluation.entries import Run, Trained
from gapbench.evaluation.reference_file import (
    FOLDER,
    FORMAT,
    Reference,
    Refused,
    Z,
    digests,
    find,
    key_of,
    path_of,
    read,
)
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.adjusted import State
from gapbench.methods.engine.distributions import NormalMixture, StudentT
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import LearnedNoise
from gapbench.methods.engine.predictions import MixturePrediction, QuantilePrediction
from gapbench.methods.engine.target import Target
from gapbench.methods.mams import MAMS
from gapbench.methods.svi import SVI
from gapbench.runners import make_references as making
from gapbench.runners import suites
from gapbench.runners.cell import Cell
from gapbench.runners.cli.main import main
from gapbench.runners.complete import complete, scored
from gapbench.runners.load import results
from gapbench.runners.make_references import NotCertified, Task, make, make_all
from gapbench.runners.store import Store
from gapbench.runners.suites import Suite

Floats = NDArray[np.float64]

NOISE = 2.0
MODEL = MLP(hidden=(8,), noise_std=NOISE)  # the data say little, so few draws suffice
DATA = GappedSine(n=20, noise_std=0.1, test_points=12)
SHORT = MAMS(trajectory=0.7, jitter=0.9, acceptance=0.7, lr=0.3, burn_in=30, draws=400, thin=1, chains=4)


def draws(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape)


def components(seed: int, centre: float = 0.0, scale: float = 1.0, points: int = 6, count: int = 500) -> Chains:
    """Independent components of N(centre, scale²), 4 chains: a mean of 0.6 and a std of 0.8 of it each."""
    mean = centre + scale * 0.6 * draws(seed, 4, count, points)
    return Chains(mean, np.full_like(mean, 0.8 * scale), draws(seed + 1, 4, count))


def made_of(chains: Chains, **about: object) -> Reference:
    return reference_of(chains, {"format": FORMAT, "key": "k", "model": "m", **about})


# 1. Scores


def believed(f: Floats, scale: float = 0.0) -> NormalMixture:
    """The distribution of one replica. f: (S, M)."""
    return NormalMixture(torch.from_numpy(f)[None], torch.tensor(scale, dtype=torch.float64))


@pytest.mark.parametrize("count", [5, 30, 200])
def test_the_distances_of_draws_are_scipys(count: int) -> None:
    """W1, and the Cramér distance before its correction, against as many quantiles of the law as make no difference.

    Seen to catch: distances not in stds, (F − G) without its size, the correction of another number of draws.
    """
    reference = made_of(components(0, 5.0, 3.0))
    many = reference.f.draws(20_000)
    f = 2 * draws(1, count, 6) + 6
    found = agreement(believed(f), [reference])
    for m in range(6):
        w1 = stats.wasserstein_distance(f[:, m], many[:, m]) / reference.std[m]
        assert found["reference_w1"][0, m] == pytest.approx(w1, rel=5e-3)
        energy = stats.energy_distance(f[:, m], many[:, m]) ** 2 / 2  # ∫ (F − G)²
        pairs = np.abs(f[:, None, m] - f[None, :, m]).sum() / 2
        bias = pairs / count**2 / (count - 1)  # half the mean distance of two draws, over their number
        assert found["reference_cramer"][0, m] == pytest.approx((energy - bias) / reference.std[m], rel=2e-2, abs=1e-4)


@pytest.mark.parametrize(("count", "scale"), [(40, 0.0), (200, 0.0), (10, 0.8), (40, 0.8)])
def test_the_errors_are_those_of_exact_draws_and_components(count: int, scale: float) -> None:
    """Their mean distances, over 150 repeats; the Cramér distance is 0 on average.

    Seen to catch: the error of draws for components, √S for S, the Cramér distance with its bias.
    """
    reference = made_of(components(0, count=4000))
    width = 1.0 if scale == 0 else 0.6
    found = [agreement(believed(width * draws(seed, count, 6), scale), [reference]) for seed in range(10, 160)]
    values = {name: np.stack([one[name][0] for one in found]) for name in found[0]}
    for name in ("w1", "error", "log_std"):
        mean = np.abs(values[f"reference_{name}"]).mean()
        assert values[f"reference_{name}_mc_error"].mean() == pytest.approx(mean, rel=0.1), name
    cramer = values["reference_cramer"].mean(1)
    assert abs(cramer.mean()) < 4 * cramer.std() / math.sqrt(150) + 2e-4


def test_a_shift_and_a_narrower_std_are_what_they_are() -> None:
    """A closed form and 1,000 draws. Seen to catch: the std of the reference over that of the method, logs to base 2,
    one replica's reference for all."""
    reference = made_of(components(0, 5.0, 3.0, count=4000))
    exact = NormalMixture(torch.full((1, 1, 6), 5.0, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64))
    found = {name: value.mean() for name, value in agreement(exact, [reference]).items()}
    assert found["reference_w1"] < 3 * found["reference_w1_mc_error"] < 0.03
    assert abs(found["reference_cramer"]) < 1e-3
    shifted = agreement(replace(exact, location=exact.location + 6), [reference])
    assert shifted["reference_w1"].mean() == pytest.approx(2, abs=0.03)
    assert shifted["reference_error"].mean() == pytest.approx(2, abs=0.03)
    halved = agreement(replace(exact, scale=exact.scale / 2), [reference])
    assert halved["reference_log_std"].mean() == pytest.approx(math.log(0.5), abs=0.02)
    student = StudentT(*(torch.full((1, 6), value, dtype=torch.float64) for value in (1e6, 5.0, 3.0)))
    assert agreement(student, [reference])["reference_w1"].mean() == pytest.approx(found["reference_w1"], abs=1e-3)

    three = NormalMixture(exact.location.expand(3, 1, 6), exact.scale)
    found = agreement(three, [None, reference, made_of(components(0, 35.0, 3.0))])
    assert all(np.isnan(value[0]).all() and np.isfinite(value[1:]).all() for value in found.values())
    assert found["reference_error"][2].mean() == pytest.approx(10, abs=0.2)
    assert all(np.isnan(value).all() for value in agreement(three, [None] * 3).values())


# 2. Files


def problems_of(*replicas: int) -> Problems:
    return DATA.problems(replicas)


def written(folder: Path, data: Problems, **about: object) -> Path:
    """The files where the reference of the first replica is looked for."""
    key = key_of(data, 0, MODEL)
    path = path_of(key, folder)
    _put(path, made_of(components(0, points=12), key=key, **about))
    return path


def _put(path: Path, reference: Reference) -> None:
    for one, content in zip((path.with_suffix(".npz"), path), reference.files(), strict=True):
        one.write_bytes(content)


def test_a_law_is_that_of_its_components() -> None:
    """A normal law exactly, another to a hundredth of its std; its quantiles and its distribution function are inverse.

    Seen to catch: levels for normal scores, quantiles off by one level, the components of one chain only.
    """
    reference = made_of(components(0, 5.0, 3.0, count=4000))
    levels = np.array([0.001, 0.05, 0.5, 0.95, 0.999])
    exact = 5 + 3 * special.ndtri(levels)[:, None]
    assert np.abs(reference.f.at(special.ndtri(levels)) - exact).max() < 0.2
    p = np.linspace(0.01, 0.99, 50)
    t = reference.f.at(special.ndtri(p))
    np.testing.assert_allclose(reference.f.cdf(t), np.repeat(p[:, None], 6, 1), atol=1e-9)
    assert (reference.f.cdf(np.full((1, 6), -1e9)) == 0).all() and (reference.f.cdf(np.full((1, 6), 1e9)) == 1).all()
    np.testing.assert_allclose(reference.mean, 5, atol=0.2)
    np.testing.assert_allclose(reference.std, 3, rtol=0.05)

    mean = np.stack([np.full((500, 3), -2.0), np.full((500, 3), 2.0)])  # two modes
    law = made_of(Chains(mean, np.full_like(mean, 0.5), draws(0, 2, 500))).f
    expected = special.ndtri(np.array([0.2, 0.6]) * 2 - [0, 1]) * 0.5 + [-2, 2]
    np.testing.assert_allclose(law.at(special.ndtri([0.2, 0.6]))[:, 0], expected, atol=0.01)


def test_files_give_back_their_numbers(tmp_path: Path) -> None:
    """Laws to 16 bits of their range at each point, the rest to float32; the same bytes for the same reference. Its
    description is readable JSON. Seen to catch: a range for all points, nan where a std is 0 but for rounding."""
    chains = components(0, points=7)
    scale = np.geomspace(1e-6, 1e6, 7)
    chains = Chains(chains.mean * scale + 100, chains.std * scale, chains.energy, noise=chains.std * scale)
    reference = made_of(chains)
    path = tmp_path / "file.json"
    _put(path, reference)
    back = read(path, "k")
    assert reference.y is not None and back.y is not None
    for law, kept in ((reference.f, back.f), (reference.y, back.y)):
        error = np.abs(kept.quantiles - law.quantiles).max(0)
        assert (error <= np.ptp(law.quantiles, axis=0) / 2**16 + 1e-11).all()
    np.testing.assert_allclose(back.errors.mcse_mean, reference.errors.mcse_mean, rtol=1e-6)
    np.testing.assert_allclose(back.std, reference.std, rtol=1e-6)
    assert {**back.about} == reference.about and made_of(chains).files() == reference.files()
    assert json.loads(path.read_text())["key"] == "k"
    wider = np.diff(reference.y.at(special.ndtri([0.05, 0.95])), axis=0) / np.diff(
        reference.f.at(special.ndtri([0.05, 0.95])), axis=0
    )
    np.testing.assert_allclose(wider, math.hypot(1, 0.8), rtol=0.05)


def test_what_it_is_the_posterior_of_decides_its_name() -> None:
    """Training data, grid and model; not test observations. Seen to catch: a key of the names alone, of y_test too, the
    same key for two replicas."""
    data = problems_of(0, 1)
    keys = {key_of(data, 0, MODEL), key_of(data, 1, MODEL), key_of(data, 0, replace(MODEL, noise_std=0.2))}
    for part in ("x", "y", "x_test"):
        changed = getattr(data, part).clone()
        changed.view(-1)[0] += 1e-6
        keys.add(key_of(replace(data, **{part: changed}), 0, MODEL))
    assert len(keys) == 6
    assert key_of(replace(data, y_test=data.y_test + 1), 0, MODEL) == key_of(problems_of(0), 0, MODEL)


def test_no_reference_is_none_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    """Truncated at any of some lengths, other numbers, an edited certificate, another model's files under this name, a
    later format, one file of two: each is refused in one line with the file's name. Seen to catch: checksum or key not
    compared, the description not part of the checksum."""
    data = problems_of(3)
    assert find(data, 0, MODEL, tmp_path) is None and digests(data, MODEL, tmp_path) == [None]
    path = written(tmp_path, data, certificate={"draws": 5})
    found = find(data, 0, MODEL, tmp_path)
    assert found is not None and found.f.quantiles.shape == (len(Z), 12)
    numbers, name = path.with_suffix(".npz"), path.stem
    whole = {one: one.read_bytes() for one in (path, numbers)}

    def restored() -> None:
        for one, content in whole.items():
            one.write_bytes(content)

    for one, content in whole.items():
        for length in (0, 1, 100, len(content) // 2, len(content) - 1 - (one == path)):
            one.write_bytes(content[:length])
            with pytest.raises(Refused, match=f"^{name} (cannot be read|has format)"):
                find(data, 0, MODEL, tmp_path)
        one.unlink()
        if one == path:
            assert find(data, 0, MODEL, tmp_path) is None  # a run that was killed between the two
        else:
            with pytest.raises(Refused, match=f"^{name} cannot be read"):
                find(data, 0, MODEL, tmp_path)
        restored()
    altered = replace(found, mean=found.mean + 1)
    numbers.write_bytes(altered.files()[0])
    with pytest.raises(Refused, match=f"^{name} was altered"):
        find(data, 0, MODEL, tmp_path)
    restored()
    path.write_text(path.read_text().replace('"draws": 5', '"draws": 6'))
    with pytest.raises(Refused, match=f"^{name} was altered"):
        find(data, 0, MODEL, tmp_path)
    restored()

    other = problems_of(4)
    _put(path_of(key_of(other, 0, MODEL), tmp_path), found)
    with pytest.raises(Refused, match="is the reference of other data or another model"):
        find(other, 0, MODEL, tmp_path)
    written(tmp_path, data, format=FORMAT + 1)
    with pytest.raises(Refused, match=f"has format {FORMAT + 1}, this version reads {FORMAT}"):
        find(data, 0, MODEL, tmp_path)


# 3. The certificate


def everywhere(points: int) -> dict[str, NDArray[np.bool_]]:
    gap = np.arange(points) < points // 2
    return {"data": ~gap, "gap": gap, "extrapolation": np.zeros(points, bool)}


def judged(chains: Chains, mcse: float = 0.04) -> str:
    """The problems of chains, joined."""
    return "; ".join(problems(measured(chains, made_of(chains), everywhere(chains.mean.shape[2])), mcse))


def good() -> Chains:
    mean = 0.6 * draws(0, 8, 600, 6)
    return Chains(mean, np.exp(0.1 * draws(2, 8, 600, 6)), draws(1, 8, 600))


def test_good_chains_are_certified_and_others_are_not() -> None:
    """Each fault by its own name and region.

    Seen to catch: the smallest R-hat, regions mixed, R-hat of the means alone, the energy not judged, a nan that passes
    as it is not above the limit, the errors of both halves (20 draws 30 stds away then pass), halves of chains alone,
    MCSEs in units of y.
    """
    chains = good()
    found = measured(chains, made_of(chains), everywhere(6))
    assert judged(chains) == "" and found["draws"] == 4800 and list(found["regions"]) == ["data", "gap"]
    assert found["regions"]["gap"]["rhat"] < 1.01 and found["regions"]["data"]["ess"] > 3000
    assert judged(Chains(1e6 * chains.mean, 1e6 * chains.std, chains.energy)) == ""
    assert judged(chains, 0.005).startswith("mcse_mean in the data is 0.00")
    unknown = {**found, "regions": {"gap": {**found["regions"]["gap"], "halves apart": math.nan}}}
    assert problems(unknown, 0.04) == ["halves apart in the gap is nan: expected at most 5"]

    def changed(part: str, change: Callable[[Floats], object]) -> str:
        parts = {name: value.copy() for name, value in vars(good()).items() if value is not None}
        change(parts[part])
        return judged(Chains(**parts))

    def moved(mean: Floats) -> None:
        mean[:4, :, 0] += 0.5

    told = changed("mean", moved)
    assert "rhat in the gap is 1.0" in told and "data" not in told and "halves apart in the gap is" in told

    def wider(std: Floats) -> None:  # R-hat of the means does not see it
        std[:4, :, 5] *= 1.1

    told = changed("std", wider)
    assert "rhat of components in the data is" in told and "gap" not in told

    def slow(mean: Floats) -> None:
        mean[..., 5] = np.repeat(0.6 * draws(1, 8, 12), 50, 1)

    told = changed("mean", slow)
    assert "ess in the data is" in told and "mcse_mean in the data" in told

    def high(energy: Floats) -> None:
        energy[2] += 2

    assert changed("energy", high).startswith("R-hat of U is 1.")

    def late(mean: Floats) -> None:  # one chain of eight comes from far away, in 20 draws
        mean[3, :20, 0] += np.linspace(30, 0, 20)

    told = changed("mean", late)
    assert "halves apart in the gap is" in told and "data" not in told

    def later(mean: Floats) -> None:  # all chains do
        mean[:, :40, 0] += np.linspace(6, 0, 40)

    assert "halves apart in the gap is" in changed("mean", later)

    def stuck(mean: Floats) -> None:
        mean[..., 0] = 1.0

    assert "rhat of components in the gap is inf" in changed("mean", stuck)
    few = good()
    assert "inf" in judged(Chains(few.mean[:, :3], few.std[:, :3], few.energy[:, :3]))


def test_a_certificate_is_judged_again_by_todays_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file alone. Seen to catch: the recorded verdict believed, a certificate that is not of the numbers."""
    chains = good()
    reference = made_of(chains, mcse=0.04)
    about = {**reference.about, "certificate": measured(chains, reference, everywhere(6))}
    sound = replace(reference, about=about)
    assert verdict(sound, 0.04) == []
    assert verdict(sound, 1e-4)[0].startswith("mcse_mean in the data is")  # the task's limit, not the file's
    other = replace(sound.errors, mcse_mean=sound.errors.mcse_mean * 2)
    assert verdict(replace(sound, errors=other), 0.04) == ["its certificate is not that of its numbers"]
    monkeypatch.setattr(certificates, "MIN_ESS", 10_000)
    assert verdict(sound, 0.04)[0].startswith("ess in the data is")


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.4])
def test_halves_apart_are_standard_normal_for_good_chains(correlation: float) -> None:
    """Of 300 independent points, for draws with a memory too. Seen to catch: the error of one half alone (then √2 too
    large), arviz's error of the std, which takes the draws' memory for that of their squares."""
    m = draws(0, 8, 400, 300)
    for t in range(1, 400):
        m[:, t] = correlation * m[:, t - 1] + np.sqrt(1 - correlation**2) * m[:, t]
    for count in (8, 7):
        apart = halves_apart(Chains(m[:count], np.full_like(m[:count], 0.3), m[:count, :, 0]))
        assert apart.shape == (4, 300)
        size = np.sqrt((apart**2).mean(1))  # a little above 1, as the smaller of two errors is taken
        assert size.min() > 0.9 and size.max() < 1.3


# 4. Making one


def task(folder: Path, replica: int = 0, **changes: object) -> Task:
    return replace(Task("sine", DATA, MODEL, replica, folder, method=SHORT), **changes)


LEARNED = replace(MODEL, noise_std=LearnedNoise(center=2.0, spread=0.3))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the references of replicas 0 and 1, and that of 0 with learned noise: each takes seconds."""
    folder = tmp_path_factory.mktemp("ready")
    for replica, model in ((0, MODEL), (1, MODEL), (0, LEARNED)):
        make(task(folder, replica, model=model, method=replace(SHORT, trajectory=1.2 if model is LEARNED else 0.7)))
    return folder


def lent(ready: Path, folder: Path, replica: int = 0, model: MLP = MODEL) -> Path:
    """A copy of one of them in another folder, as if it had been made there."""
    path = path_of(key_of(problems_of(replica), 0, model), folder)
    for suffix in (".npz", ".json"):
        shutil.copy((ready / path.name).with_suffix(suffix), path.with_suffix(suffix))
    return path


def exact(data: Problems, model: MLP) -> tuple[Floats, Floats, float]:
    """The mean and std of f at the grid by 10⁶ draws of the prior, weighted with their likelihood; and the ESS."""
    theta = model.sample_prior(torch.Generator().manual_seed(3), (1_000_000,))
    log_weight = torch.cat(
        [model.log_likelihood(t, data.x[0], data.y[0]).double().sum(-1) for t in theta.split(50_000)]
    )
    weight = (log_weight - log_weight.logsumexp(0)).exp()
    f = torch.cat([model.mean(t, data.x_test[0]).double() for t in theta.split(50_000)])
    mean = weight @ f
    return mean.numpy(), (weight @ (f - mean).square()).sqrt().numpy(), float(1 / weight.square().sum())


def test_a_reference_is_the_posterior(ready: Path) -> None:
    """By importance sampling: mean and std of f within 5 of both runs' errors; certified, found,
    and recorded. Seen to catch: variances for stds, the prior without its factor."""
    data = problems_of(0)
    reference = find(data, 0, MODEL, ready)
    assert reference is not None
    assert verdict(reference, 0.04) == [] and reference.about["replica"] == 0
    assert reference.about["gradient evaluations"] > 1000 and "MAMS(" in reference.about["method"]
    assert {one.suffix for one in ready.iterdir()} == {".json", ".npz"}  # no checkpoint is left
    mean, std, ess = exact(data, MODEL)
    assert ess > 1000
    allowed = 5 * np.hypot(reference.errors.mcse_mean, 1 / math.sqrt(ess))
    assert (np.abs(reference.mean - mean) / std < allowed).all()
    allowed = 5 * np.hypot(reference.errors.mcse_log_std, 1 / math.sqrt(ess))
    assert (np.abs(np.log(reference.std / std)) < allowed).all()


def test_half_of_the_chains_start_at_optima(tmp_path: Path) -> None:
    """The energy there is below that of every draw of the prior. Seen to catch: optima left out, all chains there, the
    center for a draw of σ."""
    generator = torch.Generator().manual_seed(0)
    run = making._begun(task(tmp_path), problems_of(0), tmp_path / "none", generator, print)
    prior, optima = run.state.point.energy[0].split(2)
    assert optima.max() < prior.min() - 1 and (prior - prior.mean()).abs().max() > 0.1
    learned = task(tmp_path, model=replace(MODEL, noise_std=LearnedNoise(center=2.0)))
    run = making._begun(learned, problems_of(0), tmp_path / "none", generator, print)
    assert run.state.point.q[0, :2, -1].abs().min() > 0.01  # σ is a draw of its prior too


def test_with_learned_noise_the_law_of_y_is_kept_too(ready: Path) -> None:
    """Wider than f's; the row of the references shows both."""
    reference = find(problems_of(0), 0, LEARNED, ready)
    assert reference is not None
    assert reference.y is not None
    assert (reference.y.quantiles[-1] > reference.f.quantiles[-1]).all()


class Stop(Exception):
    pass


def same(one: Reference | None, two: Reference | None) -> None:
    """Equal in every number and in their description, but for the seconds."""
    assert one is not None and two is not None
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, two.arrays()[name], err_msg=name)
    assert {**one.about, "seconds": 0} == {**two.about, "seconds": 0}


def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At several checkpoints, in burn-in and after it, and when more draws are asked for. Seen to catch: the
    generator's state not kept, laws lost or doubled, burn-in done again, the gradient not kept."""
    short = replace(SHORT, burn_in=10, draws=100)
    whole = find(problems_of(0), 0, MODEL, make(task(tmp_path / "whole", method=short)).parent)
    assert whole is not None and whole.about["certificate"]["draws"] > 4 * 100  # it went on

    monkeypatch.setattr(making, "SECONDS", -1.0)  # a checkpoint after every trajectory
    seen = 0
    for number in (3, 30, 95):
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
    assert seen >= 2
    monkeypatch.setattr(making, "SECONDS", 60.0)
    make(task(tmp_path / "pieces", method=short))
    same(find(problems_of(0), 0, MODEL, tmp_path / "pieces"), whole)


@pytest.mark.parametrize("stops", [(), (25, 60, 95)])
def test_what_comes_before_a_divergence_counts_as_burn_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    """Two trajectories diverge: the reference is of as many draws as were asked for, all after the second, also if the
    run is stopped before, between and after. Each halves the step size. Seen to catch: the divergent one kept, draws up
    to the first left out alone, fewer draws than asked for, a longer run in the stopped case, steps as they were."""
    monkeypatch.setattr(making, "problems", lambda numbers, mcse: [])
    monkeypatch.setattr(making, "SECONDS", -1.0)
    every: dict[int, Tensor] = {}
    step: dict[int, float] = {}
    own = MAMS.walk

    def walk(self: MAMS, target: Target, x: Tensor, y: Tensor, state: State, generator: Generator) -> Iterator[State]:
        for after in own(self, target, x, y, state, generator):
            every[after.steps], step[after.steps] = after.potential[0], float(after.tuning.log_mean[0, 0].exp())
            chain = {30: 1, 45: 3}.get(after.steps)
            yield after if chain is None else replace(after, diverged=torch.arange(4).unsqueeze(0) == chain)

    monkeypatch.setattr(MAMS, "walk", walk)
    seen: list[Floats] = []

    def kept(chains: Chains, about: object) -> Reference:
        seen.append(chains.energy)
        return reference_of(chains, about)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "reference_of", kept)
    data = problems_of(0)
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
    found = find(data, 0, MODEL, tmp_path)
    assert found is not None and found.about["left out"] == 25 and found.about["certificate"]["draws"] == 200
    assert any("a trajectory diverged, 25 after burn-in" in line for line in told)
    assert [step[30] / step[at] for at in (31, 45, 46, 95)] == pytest.approx([2, 2, 4, 4])
    assert found.about["step size"] == pytest.approx(step[95])
    (energy,) = seen
    np.testing.assert_array_equal(energy, torch.stack([every[step] for step in range(46, 96)], 1).numpy())


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is its burn-in: the file says which settings it is of. Seen to catch: any checkpoint taken."""
    monkeypatch.setattr(making, "SECONDS", -1.0)

    def stop(line: str) -> None:
        raise Stop

    with pytest.raises(Stop):
        make(task(tmp_path / "one", method=replace(SHORT, acceptance=0.5)), stop)
    monkeypatch.setattr(making, "SECONDS", 60.0)
    told: list[str] = []
    made = make(task(tmp_path / "one"), told.append)
    assert "it is of MAMS(" in told[0] and "acceptance=0.5" in told[0] and told[0].endswith("beginning anew")
    same(*(find(problems_of(0), 0, MODEL, folder) for folder in (made.parent, ready)))


def test_what_cannot_be_certified_is_no_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said with the reason, and no file is left but the checkpoint; nor is one of a model without a hidden layer. Seen
    to catch: the file written nevertheless."""
    monkeypatch.setattr(making, "MAX_DRAWS", 12)
    told: list[str] = []
    with pytest.raises(NotCertified, match=r"sine replica 0: .*rhat of components in the data is"):
        make(task(tmp_path, method=replace(SHORT, draws=8)), told.append)
    assert any(line.startswith("sine replica 0: 8 draws a chain are too few: ") for line in told)
    assert not list(tmp_path.glob("*.npz")) and digests(problems_of(0), MODEL, tmp_path) == [None]
    with pytest.raises(NotCertified, match="sine replica 0: hidden = \\(\\): nothing is left to sample"):
        make(task(tmp_path, model=MLP(hidden=())))


def test_side_by_side_they_are_the_same(ready: Path, tmp_path: Path) -> None:
    """Two processes or this one: the same bits."""
    tasks = [task(tmp_path, replica) for replica in (0, 1)]
    assert {made.name for made in make_all(tasks, 2, print) if isinstance(made, Path)} == {
        path_of(key_of(problems_of(replica), 0, MODEL)).name for replica in (0, 1)
    }
    for replica in (0, 1):
        same(*(find(problems_of(replica), 0, MODEL, folder) for folder in (ready, tmp_path)))


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
    ready: Path, tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The columns appear, for the replicas that have one; the reference's own row waits for all. A damaged file fails
    the cell before it trains. Seen to catch: the old record kept, trained again, the row of a part."""
    store, method = Store(tmp_path / "out"), SVI(steps=3, draws=40)
    store.prepare()
    rows = [cell(method, "svi"), cell(ReferencePosterior(), "reference")]
    assert [complete(row, store, "cpu").status for row in rows] == ["finished", "skipped"]

    lent(ready, shipped)
    monkeypatch.setattr(SVI, "fit", None)
    outcomes = [complete(row, store, "cpu") for row in rows]
    assert [outcome.status for outcome in outcomes] == ["rescored", "skipped"]
    assert outcomes[1].message == "no reference posterior for 1 of 2 replicas"
    (shown,) = results(store.root)
    assert np.isfinite(shown.scores["reference_w1"]["gap"]).tolist() == [True, False]
    assert shown.valid(("reference_w1_mc_error", "gap")).tolist() == [0]
    assert complete(rows[0], store, "cpu").status == "kept"

    path = lent(ready, shipped, 1)
    assert [complete(row, store, "cpu").status for row in rows] == ["rescored", "finished"]
    svi, reference = results(store.root)
    assert (svi.method, reference.method, reference.status) == ("svi", "reference", "reference")
    assert np.isfinite(svi.scores["reference_log_std"]["data"]).all()
    assert not len(reference.valid(("reference_w1", "gap"))) and len(reference.valid(("std_f", "gap"))) == 2
    assert not len(reference.valid(("rhat", "all")))

    path.write_bytes(path.read_bytes()[:-9])
    outcome = complete(cell(replace(method, steps=4), "other"), store, "cpu")
    assert outcome.status == "failed" and f"Refused: {path.stem} cannot be read" in outcome.message


def test_predictions_are_compared_with_references_in_the_units_of_the_data() -> None:
    """A prediction of the reference's own quantiles is as near to it in any units, whichever replicas failed. Seen to
    catch: a reference in the units of methods, stds not scaled, the units of another replica."""
    reference, found = made_of(components(0, 0.5, 0.4)), []
    x = torch.tensor([[-1.0], [1.0]]).expand(2, 2, 1)
    for shift, scale in ((0.0, 1.0), (20.0, 9.0)):
        y = torch.tensor([[-5.0, 5.0], [shift - scale, shift + scale]])
        units = Standardisation.of(x, y)
        data = Problems(x, y, torch.zeros(2, 6, 1), torch.full((2, 6), shift), standardisation=units)
        own = torch.from_numpy(reference.f.draws(400)).expand(2, -1, -1)
        same = MixturePrediction(own, torch.zeros(()), torch.ones(())).rescaled(units.y_mean, units.y_std)
        points = scored(cell(SVI(), "svi"), data, Run(same, failures={0: "why"}), [None, reference])
        found.append([points[f"point reference_{name}"][1] for name in ("w1", "log_std", "error", "cramer")])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert np.abs(found[0]).max() < 0.02


def test_the_row_of_the_references_is_made_of_them(ready: Path, shipped: Path) -> None:
    """Quantiles at equal shares of each law, with the model's noise; with learned noise, y's own. Seen to catch: y's
    law for f's, the first levels alone."""
    lent(ready, shipped)
    data = problems_of(0)
    reference = find(data, 0, MODEL)
    assert reference is not None
    row = ReferencePosterior(draws=20).run(MODEL, data, torch.Generator()).prediction
    assert isinstance(row, MixturePrediction) and row.location.shape == (1, 20, 12)
    expected = reference.f.at(special.ndtri((np.arange(20) + 0.5) / 20))
    np.testing.assert_allclose(row.location[0].numpy(), expected, rtol=1e-6, atol=1e-6)
    assert float(row.noise_std) == pytest.approx(NOISE)

    lent(ready, shipped, model=LEARNED)
    learned = find(data, 0, LEARNED)
    assert learned is not None and learned.y is not None
    row = ReferencePosterior(draws=20).run(LEARNED, data, torch.Generator()).prediction
    assert isinstance(row, QuantilePrediction) and row.f is not None and row.faults(1, 12) == {}
    for found, law in ((row.values, learned.y), (row.f_values, learned.f)):
        assert found is not None
        np.testing.assert_allclose(found[0].numpy(), law.draws(20), rtol=1e-5, atol=1e-6)


def test_tables_have_longer_trajectories_and_no_moves_to_the_prior() -> None:
    assert making.sampler(MLP(features=2)) == making.METHOD and making.METHOD.proposals
    table = making.sampler(MLP(features=13))
    assert table.proposals == 0 and table.trajectory > 2 * making.METHOD.trajectory


# 6. The command line


@pytest.fixture
def gapbench(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    made = {"default": Suite("", {"sine": suites.Task(DATA, MODEL)}, {})}
    monkeypatch.setattr(suites, "suites", lambda: made)
    monkeypatch.setattr(reference_file, "FOLDER", shipped)
    monkeypatch.setattr(making, "METHOD", SHORT)
    monkeypatch.setattr(Task.__init__, "__defaults__", ("cpu", SHORT, 0.04, 0))

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
    assert [line.split()[:3] for line in shown.stdout.splitlines()[3:9]] == [
        ["sine", number, region] for number in "02" for region in ("data", "gap", "extrapolation")
    ]
    assert "MAMS(" in shown.stdout.splitlines()[-1]

    told = gapbench("check", "sine")  # those that there are
    assert (told.exit_code, told.stdout) == (0, "sine replica 0: certified\nsine replica 2: certified\n")
    assert told.stderr == "sine: no reference of replicas 1, 3, 4, 5, 6, 7, 8, 9\n"
    second.write_bytes(second.read_bytes()[:-3])
    checked = gapbench("check", "sine", "--replicas", "0,2")
    assert checked.exit_code == 1 and f"sine replica 2: {second.stem} cannot be read" in checked.stdout
    for wrong in ("x", "3-1", "1000", ""):
        refused = gapbench("check", "sine", "--replicas", wrong)
        assert refused.exit_code == 2 and "Traceback" not in refused.output
    assert gapbench("check", "sin").exit_code == 2


# 7. What is shipped


def promised() -> Iterator[tuple[str, suites.Task, int, Path]]:
    """Every task and replica that should have a reference, with its file. The tasks of two suites are named once."""
    seen: set[str] = set()
    for suite in ("default", "knobs", "tasks"):
        made = suites.suites()[suite]
        for name, one in made.tasks.items():
            data = one.dataset.problems(range(made.replicas))
            for r in range(made.replicas):
                key = key_of(data, r, one.model)
                if key not in seen:
                    seen.add(key)
                    yield name, one, r, path_of(key)


PROMISED = list(promised())


@pytest.mark.parametrize(("name", "one", "replica"), [each[:3] for each in PROMISED])
def test_the_shipped_references_are_certified(name: str, one: suites.Task, replica: int) -> None:
    """As `gapbench reference check` does, and precise enough for the task."""
    reference = find(one.dataset.problems([replica]), 0, one.model)
    assert reference is not None
    assert verdict(reference, one.mcse) == []
    assert reference.about["replica"] == replica and reference.about["model"] == repr(one.model)


def test_all_that_is_promised_is_shipped_and_nothing_else() -> None:
    """12 MB in all, of which nothing is carried along that nothing finds."""
    everything = {path.name for path in FOLDER.iterdir() if not path.name.startswith(".")}
    tables = [path for path in FOLDER.glob("*.json") if '"UCI(' in path.read_text()]  # test_uci.py judges these
    files = everything - {one.name for path in tables for one in (path, path.with_suffix(".npz"))}
    expected = {path.name for *_, one in PROMISED for path in (one, one.with_suffix(".npz"))}
    assert files == expected
    assert sum((FOLDER / name).stat().st_size for name in everything) < 12e6


@pytest.mark.parametrize(("other", "replica"), [*(("hmc", r) for r in range(10)), *(("smc", r) for r in (0, 3, 7))])
def test_the_references_agree_with_other_samplers(other: str, replica: int) -> None:
    """The references of before, by HMC on all parameters; and tempered SMC, by test_tempered_smc.py. Their moments and
    quantiles at every fourth point are kept here.

    Seen to catch: the reference of another replica, a std that is 10 % too small, quantiles at other levels.
    """
    one = suites.suites()["default"].tasks["gapped_sine_noisy"]
    reference = find(one.dataset.problems([replica]), 0, one.model)
    assert reference is not None
    with np.load(Path(__file__).parent / f"{other}_references.npz", allow_pickle=False) as arrays:
        before = {name: arrays[f"{replica} {name}"].astype(float) for name in KEPT_NUMBERS}
    errors, every = reference.errors, slice(None, None, 4)
    std = reference.std[every]
    mean_error = np.hypot(before["mcse_mean"], errors.mcse_mean[every])
    std_error = np.hypot(before["mcse_log_std"], errors.mcse_log_std[every])
    for apart in ((before["mean"] - reference.mean[every]) / std / mean_error, np.log(before["std"] / std) / std_error):
        assert np.sqrt((apart**2).mean()) < 2 and np.abs(apart).max() < 5
    quantiles = reference.f.at(np.linspace(-2, 2, 9))[:, every]
    assert (np.abs(before["quantiles"] - quantiles) / std).mean() < 0.08


def test_truths_drawn_from_the_prior_rank_evenly_in_their_references() -> None:
    """The truth's normal score in the reference's law of f, and of an observation in that of y, is N(0, 1): the tasks
    are independent, and each has a point in the data, in the gap and beyond.

    Seen to catch: the reference of another replica, stds twice or half of what they are.
    """
    one = suites.suites()["tasks"].tasks["prior_draws_learned_noise"]
    data = one.dataset.problems(range(5))
    assert data.f_test is not None
    scores: list[list[Floats]] = [[], []]
    for r in range(5):
        reference = find(data, r, one.model)
        assert reference is not None and reference.y is not None
        for found, law, values in zip(scores, (reference.f, reference.y), (data.f_test, data.y_test), strict=True):
            found.append(special.ndtri(law.cdf(values[r : r + 1].double().numpy())[0].clip(1e-9, 1 - 1e-9)))
    for found in scores:
        square = np.square(found).sum()
        assert stats.chi2.ppf(0.005, 15) < square < stats.chi2.ppf(0.995, 15), found


KEPT_NUMBERS = ("mean", "std", "mcse_mean", "mcse_log_std", "quantiles")
