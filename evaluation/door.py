"""The door: the one check of what a method returns, before it is scored. A refusal says what is wrong."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor

from gapbench.evaluation.entries import Run
from gapbench.evaluation.scores import SCORES
from gapbench.methods.engine.predictions import Prediction, PredictionError, kinds


class DoorError(ValueError):
    """A method's output that cannot be used at all; the message names the thing, the value and what was expected."""


def admit(run: Run, replicas: int, points: int) -> Run:
    """The same run, on the CPU. Replicas that cannot be used are added to its failures.

    replicas, points: R and M, as they should be. Raises DoorError if no replica can be used: wrong types or shapes.
    """
    prediction = run.prediction
    if not isinstance(prediction, Prediction):
        raise DoorError(
            f"the fitted method returned a {type(prediction).__name__}: expected a Prediction, such as "
            "MixturePrediction(location, scale, noise_std)"
        )
    cls = type(prediction)
    name, known = cls.__name__, kinds().get(cls.__name__, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise DoorError(f"{name}: {known.__module__} has a kind of prediction of this name; rename the class")
    names = {one.name for one in fields(prediction)}
    if not names or not names >= inspect.get_annotations(cls).keys():
        raise DoorError(f"{name}: is no dataclass of its own; put @dataclass(frozen=True) above the class")
    for one in fields(prediction):
        value = getattr(prediction, one.name)
        if isinstance(value, Tensor) and not value.is_floating_point():  # cpu() below makes every tensor floating
            raise DoorError(f"{name}: {one.name}: {value.dtype}, expected a tensor of floating-point numbers")
        if isinstance(value, Tensor) and value.requires_grad:
            raise DoorError(f"{name}: {one.name} carries gradients: detach it, or predict under torch.no_grad()")
    try:
        prediction = prediction.cpu()
        faults = prediction.faults(replicas, points)
    except PredictionError as error:
        raise DoorError(f"{name}: {error}") from error
    return Run(prediction, diagnostics_of(run, replicas), {**faults, **failures_of(run, replicas)})


def diagnostics_of(run: Run, replicas: int) -> dict[str, Tensor]:
    """The run's diagnostics, float64, on the CPU. Raises DoorError."""
    if not isinstance(run.diagnostics, Mapping):
        raise DoorError(f"diagnostics: a {type(run.diagnostics).__name__}, expected a mapping of names to tensors (R,)")
    found = {}
    for name, value in run.diagnostics.items():
        if not isinstance(name, str):
            raise DoorError(f"diagnostic {name!r}: its name is a {type(name).__name__}, expected a string")
        if name in SCORES or name in RESERVED:
            raise DoorError(f"diagnostic {name!r}: the name is taken by a score or a column; choose another")
        if not isinstance(value, Tensor) or value.is_complex():
            what = value.dtype if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise DoorError(f"diagnostic {name}: {what}, expected a tensor of R = {replicas} real numbers")
        if tuple(value.shape) != (replicas,):
            raise DoorError(f"diagnostic {name}: shape {tuple(value.shape)}, expected (R,) = ({replicas},)")
        found[name] = value.detach().cpu().to(torch.float64)
    return found


# Columns of the table of runs and of the frames.
RESERVED = ("dataset", "method", "status", "replica", "region", "score", "value", "seconds", "CPU seconds", "peak MB")


def failures_of(run: Run, replicas: int) -> dict[int, str]:
    """The failures that the method itself reports. Raises DoorError."""
    if not isinstance(run.failures, Mapping):
        raise DoorError(f"failures: a {type(run.failures).__name__}, expected a mapping of replicas to reasons")
    for replica, reason in run.failures.items():
        if isinstance(replica, bool) or not isinstance(replica, int) or not 0 <= replica < replicas:
            raise DoorError(f"failures: replica {replica!r}: expected a position from 0 to {replicas - 1}")
        if not isinstance(reason, str) or not reason.strip():
            raise DoorError(f"failures: replica {replica}: the reason is {reason!r}, expected a sentence")
    return dict(run.failures)
