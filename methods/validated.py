"""Settings chosen by validation: the grid search of published protocols.

    train each candidate on (1 − held)·n points; keep the one of the highest Σ log p(y | x) on the others;
    train that one again on all n points

The points that decide are the last ones, random ones, or those in the middle of a feature: a gap like the one to come.

Caveat: where the last points are few, chance chooses. Points that belong together, in time say, need another split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.methods.engine.streams import own_stream
from gapbench.methods.mc_dropout import MCDropout


@dataclass(frozen=True)
class Candidate:
    """A method, and what it changes in the model: the known noise and the prior; None changes nothing."""

    method: UncertaintyMethod
    noise_std: float | None = None
    prior_std: float | None = None

    def model(self, model: Model) -> Model:
        noise_std = model.noise_std if self.noise_std is None else self.noise_std
        return replace(
            model, noise_std=noise_std, prior_std=model.prior_std if self.prior_std is None else self.prior_std
        )


@dataclass(frozen=True)
class Validated(UncertaintyMethod):
    """The best of some candidates for each replica.

    candidates: they predict mixtures of equally many draws. held: the share of the points that decides: the last ones;
    random ones if `shuffled`; if `gap` is the number of a feature, those in the middle of its order.
    """

    candidates: tuple[Candidate, ...] = tuple(Candidate(MCDropout(rate=rate)) for rate in (0.005, 0.01, 0.05, 0.1))
    held: float = 0.2
    shuffled: bool = False
    gap: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.candidates or not 0 < self.held < 1:
            raise ValueError(
                f"Validated: {len(self.candidates)} candidates, held = {self.held}: expected one at least, and a share "
                "between 0 and 1"
            )

    def kept(self, n: int) -> int:
        """The number of points that candidates are trained on."""
        return int((1 - self.held) * n)

    def ordered(self, x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """The points with those that decide at the end. x: (R, N, D), y: (R, N)."""
        if self.gap is not None:
            n, kept = y.shape[1], self.kept(y.shape[1])
            by_feature = x[..., self.gap].argsort(dim=1, stable=True)
            below, middle, above = by_feature.split([kept // 2, n - kept, kept - kept // 2], 1)
            order = torch.cat([below, above, middle], 1)
        elif self.shuffled:
            order = torch.rand(y.shape, generator=generator, device=y.device).argsort(1)
        else:
            return x, y
        return gather_points(x, order), gather_points(y, order)

    def skip(self, model: Model, x: Tensor) -> str | None:
        n = x.shape[1]
        if self.gap is not None and not 0 <= self.gap < x.shape[2]:
            return f"gap = {self.gap}: expected the number of a feature, 0 to {x.shape[2] - 1}"
        if not 0 < self.kept(n) < n:
            return f"held = {self.held}: {n} points leave none to train on, or none that decides"
        reasons = [one.method.skip(one.model(model), x[:, : self.kept(n)]) for one in self.candidates]
        return next((reason for reason in reasons if reason), None)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Chosen:
        kept, scores = self.kept(y.shape[1]), []
        x_tried, y_tried = self.ordered(x, y, generator)
        streams = [own_stream(generator) for _ in self.candidates]
        for one in self.candidates:
            method = as_many_passes(one.method, y.shape[1], kept)
            fitted = method.fit(one.model(model), x_tried[:, :kept], y_tried[:, :kept], generator)
            prediction = fitted(x_tried[:, kept:])
            if not isinstance(prediction, MixturePrediction):
                kind = type(prediction).__name__
                raise ValueError(
                    f"Validated: {type(one.method).__name__} gives a {kind}: expected a mixture of normals"
                )
            law = prediction.y
            score = law.log_density(y_tried[:, kept:].to(law.mean)).sum(1)
            for replica in fitted.failures:  # neither what failed is chosen, nor what diverged
                score[replica] = -torch.inf
            scores.append(score.nan_to_num(-torch.inf))
        best = torch.stack(scores).argmax(0)  # (R,)
        parts = []
        for number, one in enumerate(self.candidates):
            # Of all replicas, and from a stream of its own: what others chose must not move a replica.
            if chosen(best == number):
                parts.append((best == number, one.method.fit(one.model(model), x, y, streams[number])))
        failures = {
            replica: reason
            for won, fitted in parts
            for replica, reason in fitted.failures.items()
            if bool(won[replica])
        }
        return Chosen(parts, diagnostics={"candidate": best.float(), **winners(parts)}, failures=failures)


def winners(parts: Sequence[tuple[Tensor, FittedMethod]]) -> dict[str, Tensor]:
    """The diagnostics that all parts have, each replica's from the part that it won, (R,)."""
    (won, first), *others = parts
    found = {name: one for name, one in first.diagnostics.items() if all(name in of.diagnostics for _, of in others)}
    for won, fitted in others:
        found = {name: torch.where(won, fitted.diagnostics[name].to(one), one) for name, one in found.items()}
    return found


def as_many_passes(method: UncertaintyMethod, n: int, kept: int) -> UncertaintyMethod:
    """A method that trains by epochs, with as many of them on `kept` points as its steps are on n."""
    if not (isinstance(method, AdamTrained) and method.by_epochs):
        return method
    passes = method.steps / math.ceil(n / method.batch)
    return replace(method, steps=round(passes * math.ceil(kept / method.batch)))


def chosen(winners: Tensor) -> bool:
    """True if a candidate won in some replica."""
    return bool(winners.any())


@dataclass(frozen=True)
class Chosen(FittedMethod):
    """Candidates trained on all points, each with the replicas that it won, (R,) bool."""

    parts: Sequence[tuple[Tensor, FittedMethod]]

    def __call__(self, x: Tensor) -> MixturePrediction:
        found = [(won, fitted(x)) for won, fitted in self.parts]

        def joined(name: str) -> Tensor:
            whole = torch.zeros(())
            for won, prediction in found:
                assert isinstance(prediction, MixturePrediction)
                value = getattr(prediction, name).expand(prediction.location.shape)
                whole = torch.where(won[:, None, None], value, whole.to(value))
            return whole

        chains = {prediction.chains for _, prediction in found if isinstance(prediction, MixturePrediction)}
        same = chains.pop() if len(chains) == 1 else 0
        return MixturePrediction(joined("location"), joined("scale"), joined("noise_std"), same)
