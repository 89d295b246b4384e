"""The door: what a method returns is refused in words, or its replica is, before anything is scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gapbench.evaluation.door import DoorError, admit
from gapbench.evaluation.entries import Run
from gapbench.evaluation.scores import SCORES
from gapbench.methods.engine.predictions import MixturePrediction

R, S, M = 3, 4, 5


def mixture() -> MixturePrediction:
    location = torch.randn(R, S, M, generator=torch.Generator().manual_seed(0))
    return MixturePrediction(location, torch.zeros(()), torch.tensor(0.1))


@dataclass(frozen=True)
class Named(MixturePrediction):
    """A kind of its own with a field of its own."""

    label: int = 0


class Undecorated(MixturePrediction):
    extra: Tensor = torch.zeros(())


Impostor = type("MixturePrediction", (MixturePrediction,), {"__module__": "mine"})


def no_numbers() -> Any:
    """A prediction whose class forgot to be a dataclass: it would be stored as nothing at all."""
    return Undecorated(mixture().location, torch.zeros(()), torch.tensor(0.1))


def test_what_is_sound_passes_as_it_is() -> None:
    """The same numbers, on the CPU and in a storable precision, diagnostics as numbers, failures kept. Seen to catch:
    low precision passed on, the method's own failures lost."""
    run = Run(
        mixture()._mapped(lambda part: part.bfloat16()),
        {"accepted": torch.tensor([1, 2, 3]), "ok": torch.tensor([True, False, True])},
        {2: "the chain is stuck"},
    )
    admitted = admit(run, R, M)
    assert isinstance(admitted.prediction, MixturePrediction)
    assert admitted.prediction.location.dtype == torch.float32
    assert torch.equal(admitted.prediction.location.bfloat16(), run.prediction.location)  # type: ignore[attr-defined]
    assert admitted.failures == {2: "the chain is stuck"}
    assert {name: value.tolist() for name, value in admitted.diagnostics.items()} == {
        "accepted": [1.0, 2.0, 3.0],
        "ok": [1.0, 0.0, 1.0],
    }
    assert admit(Run(Named(*vars(mixture()).values())), R, M).failures == {}


REFUSED: dict[str, tuple[Run, tuple[str, ...]]] = {
    "a tuple": (
        Run((1, 2)),  # type: ignore[arg-type]
        ("returned a tuple", "expected a Prediction, such as MixturePrediction(location, scale, noise_std)"),
    ),
    "nothing": (Run(None), ("returned a NoneType",)),  # type: ignore[arg-type]
    "gradients": (
        Run(replace(mixture(), location=mixture().location.requires_grad_())),
        ("location carries gradients", "detach", "no_grad"),
    ),
    "shapes": (
        Run(replace(mixture(), location=torch.zeros(2, S, M))),
        ("MixturePrediction: location: shape (2, 4, 5), expected (R, S, M) = (3, ",),
    ),
    "whole numbers": (
        Run(replace(mixture(), location=mixture().location.long())),
        ("location: torch.int64", "expected"),
    ),
    "complex numbers": (Run(replace(mixture(), scale=torch.tensor(1j))), ("scale: torch.complex64", "expected")),
    "a forgotten dataclass": (Run(no_numbers()), ("Undecorated", "@dataclass(frozen=True)")),
    "a taken name": (Run(Impostor(*vars(mixture()).values())), ("MixturePrediction", "rename")),
    "diagnostics, no mapping": (Run(mixture(), [torch.zeros(R)]), ("diagnostics: a list",)),  # type: ignore[arg-type]
    "a scalar": (Run(mixture(), {"loss": torch.tensor(0.3)}), ("diagnostic loss: shape (), expected (R,) = (3,)",)),
    "by chain": (Run(mixture(), {"loss": torch.zeros(R, 2)}), ("diagnostic loss: shape (3, 2)",)),
    "too long": (Run(mixture(), {"loss": torch.zeros(R + 1)}), ("diagnostic loss: shape (4,)",)),
    "a float": (Run(mixture(), {"loss": 0.3}), ("diagnostic loss: a float",)),  # type: ignore[dict-item]
    "complex": (Run(mixture(), {"loss": torch.zeros(R, dtype=torch.complex64)}), ("diagnostic loss: torch.complex64",)),
    "a score's name": (Run(mixture(), {"crps_y": torch.zeros(R)}), ("diagnostic 'crps_y'", "choose another")),
    "a column's name": (Run(mixture(), {"seconds": torch.zeros(R)}), ("diagnostic 'seconds'",)),
    "no name": (Run(mixture(), {3: torch.zeros(R)}), ("diagnostic 3: its name is a int",)),  # type: ignore[dict-item]
    "a replica that is not there": (Run(mixture(), failures={99: "x"}), ("failures: replica 99", "from 0 to 2")),
    "a replica before the first": (Run(mixture(), failures={-1: "x"}), ("failures: replica -1",)),
    "a replica by name": (Run(mixture(), failures={"1": "x"}), ("failures: replica '1'",)),  # type: ignore[dict-item]
    "no reason": (Run(mixture(), failures={1: " "}), ("failures: replica 1: the reason is ' '",)),
    "failures, no mapping": (Run(mixture(), failures=[1]), ("failures: a list",)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", REFUSED)
def test_structure_is_refused_in_one_line(name: str) -> None:
    """By the thing, its value and what was expected. Seen to catch: each check left out; types looked at
    after all became float32, which forgets an imaginary part."""
    run, words = REFUSED[name]
    with pytest.raises(DoorError) as refused:
        admit(run, R, M)
    assert all(word in str(refused.value) for word in words), refused.value
    assert "\n" not in str(refused.value)


def test_no_diagnostic_is_called_like_a_score() -> None:
    """Whatever scores there are. Seen to catch: a list of names beside that of the scores."""
    for name in SCORES:
        with pytest.raises(DoorError, match="choose another"):
            admit(Run(mixture(), {name: torch.zeros(R)}), R, M)


def test_values_fail_their_replica_only() -> None:
    """nan in one replica, a std below 0 in another: both are failed with the reason, the third is scored; what the
    method says of its own failure goes before. Seen to catch: a door that refuses the run, one fault for all, the
    method's reason overwritten."""
    location, noise = mixture().location.clone(), torch.full((R, 1, M), 0.1)
    location[0, 0, 0], noise[2, 0, 1] = torch.nan, -0.1
    run = Run(MixturePrediction(location, torch.zeros(()), noise), failures={0: "too hard"})
    admitted = admit(run, R, M)
    assert admitted.failures[0] == "too hard" and "negative" in admitted.failures[2] and len(admitted.failures) == 2
    alone = admit(replace(run, failures={}), R, M).failures[0]
    assert "not finite" in alone and "a smaller lr may help" in alone
