"""Settings chosen on the last training points: the best candidate of each replica, trained again on all points."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from gapbench.methods.cqr import CQR
from gapbench.methods.engine.model import MLP
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.quantile_regression import QuantileRegression
from gapbench.methods.validated import Candidate, Validated, as_many_passes

MODEL = MLP(hidden=(), noise_std=0.1)
QUICK = MCDropout(rate=0.0, steps=800, lr=0.05, batch=50, draws=1)


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def lines(noises: tuple[float, ...], n: int = 50) -> tuple[Tensor, Tensor]:
    """A line a replica, each with its own noise."""
    x = torch.randn(len(noises), n, 1, generator=seeded(1))
    noise = torch.tensor(noises).unsqueeze(1) * torch.randn(len(noises), n, generator=seeded(2))
    return x, x.squeeze(-1) + noise


def test_each_replica_gets_its_best_candidate() -> None:
    """Of three noises the one of its data; the network is that of the candidate trained alone, on all points. Seen to
    catch: one candidate for all replicas, the network of four fifths of the points, replicas in another order."""
    x, y = lines((0.5, 0.02, 0.1, 0.5))
    candidates = tuple(Candidate(QUICK, noise_std=noise) for noise in (0.02, 0.1, 0.5))
    fitted = Validated(candidates).fit(MODEL, x, y, seeded())
    assert fitted.diagnostics["candidate"].tolist() == [2, 0, 1, 2]
    found = fitted(x)
    assert found.noise_std[:, 0, 0].tolist() == pytest.approx([0.5, 0.02, 0.1, 0.5])
    for replica, candidate in ((0, 2), (1, 0), (2, 1)):
        model = candidates[candidate].model(MODEL)
        alone = QUICK.fit(model, x[replica : replica + 1], y[replica : replica + 1], seeded())(x[replica : replica + 1])
        assert torch.allclose(found.location[replica], alone.location[0], atol=0.01)
        assert torch.allclose(alone.location[0, 0], x[replica, :, 0], atol=0.35)


def test_the_last_points_decide_and_are_not_trained_on() -> None:
    """Other targets of the last fifth change what is chosen; a candidate that diverged is never chosen. Seen to catch:
    the first fifth, points that are in both parts."""
    x, y = lines((0.02,))
    candidates = (Candidate(QUICK, noise_std=0.02), Candidate(QUICK, noise_std=1.0))
    assert Validated(candidates).fit(MODEL, x, y, seeded()).diagnostics["candidate"].item() == 0
    y[:, 40:] += torch.randn(10, generator=seeded(3))
    assert Validated(candidates).fit(MODEL, x, y, seeded()).diagnostics["candidate"].item() == 1
    diverging = Candidate(replace(QUICK, lr=1e30, steps=50), noise_std=0.02)
    assert Validated((diverging, candidates[1])).fit(MODEL, x, y, seeded()).diagnostics["candidate"].item() == 1


def test_epochs_stay_epochs() -> None:
    """1000 passes over 455 points are 4000 steps of 128, and over 364 points 3000. Seen to catch: the same steps."""
    method = MCDropout(by_epochs=True, batch=128, steps=4000)
    assert as_many_passes(method, 455, 364) == replace(method, steps=3000)
    assert as_many_passes(replace(method, by_epochs=False), 455, 364).steps == 4000  # type: ignore[attr-defined]


def test_what_cannot_be_chosen() -> None:
    x, y = lines((0.1,), 100)
    with pytest.raises(ValueError, match="CQR gives a BandPrediction: expected a mixture"):
        Validated((Candidate(CQR(method=QuantileRegression(steps=5))),)).fit(MODEL, x, y, seeded())
    with pytest.raises(ValueError, match=r"0 candidates, held = 0\.2: expected one at least"):
        Validated(())
    assert "leave none to train on" in str(Validated().skip(MODEL, x[:, :1]))
