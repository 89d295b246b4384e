"""Knobs: the factors of the suite `knobs`, which changes one at a time, and the names of its datasets."""

from __future__ import annotations

from collections.abc import Mapping

CENTER = "gapped_sine_noisy"  # the dataset that every knob is turned away from
AT_CENTER: Mapping[str, float] = {"n": 200, "noise": 0.1, "gap": 1.0, "width": 50, "layers": 2}
KNOBS: Mapping[str, tuple[float, ...]] = {
    "n": (20, 50, 200, 1000),
    "noise": (0.03, 0.1, 0.3),
    "gap": (0.25, 0.5, 1.0, 1.5, 2.0),
    "width": (10, 50, 200),
    "layers": (1, 2, 3),
}
WORDS = {
    "n": "training points",
    "noise": "std of the noise",
    "gap": "half-width of the gap",
    "width": "width of the hidden layers",
    "layers": "hidden layers",
}


def knob_of(dataset: str) -> tuple[str, float] | None:
    """The knob and its value of a dataset such as "n@20"; None for other names."""
    knob, at, value = dataset.partition("@")
    try:
        return (knob, float(value)) if at and knob in KNOBS else None
    except ValueError:
        return None


def places(dataset: str) -> list[tuple[str, float]]:
    """The knobs, with their values, whose panels a dataset is in."""
    if dataset == CENTER:
        return list(AT_CENTER.items())
    at = knob_of(dataset)
    return [at] if at else []
