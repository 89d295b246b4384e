"""Earlier trainings: a cell that was trained before, and scored in another way, needs no new training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from gapbench.evaluation.entries import Run
from gapbench.methods.engine.predictions import PredictionError, kinds
from gapbench.runners.cell import Place
from gapbench.runners.store import Damaged, Store, canonical, floats

# The parts of an identity that decide how a run is scored and shown, but not how it is trained.
SCORING = ("metrics", "references", "shown")


@dataclass(frozen=True)
class Earlier:
    """An earlier run from a store, with its provenance and the name of its arrays."""

    run: Run
    provenance: dict[str, Any]
    arrays: str


def records_by_place(store: Store) -> dict[Place, list[str]]:
    """The keys of all sound records, grouped by the place of their cell."""
    found: dict[Place, list[str]] = {}
    for key in store.keys():  # noqa: SIM118 a store is no dict
        with suppress(Damaged, KeyError, TypeError, ValueError):
            identity = store.record(key).identity
            first, stop = identity["block"]
            place = (identity["dataset"]["name"], identity["method"]["name"], first, stop, identity["seed"])
            found.setdefault(place, []).append(key)
    return found


def trained_before(store: Store, identity: Mapping[str, Any], candidates: Sequence[str]) -> Earlier | None:
    """A run of the same training, scored in another way; None if no candidate has sound predictions of it."""

    def training(of: Mapping[str, Any]) -> str:
        return canonical({name: value for name, value in of.items() if name not in SCORING})

    for key in candidates:
        with suppress(Damaged, PredictionError, KeyError):
            record = store.record(key)
            if training(record.identity) == training(identity):
                name = record.arrays["predictions"]
                prediction = kinds()[record.prediction].from_arrays(store.arrays(name))
                diagnostics = {one: torch.from_numpy(floats(values)) for one, values in record.diagnostics.items()}
                failures = {int(replica) - record.replicas[0]: why for replica, why in record.failures.items()}
                return Earlier(Run(prediction, diagnostics, failures), dict(record.provenance), name)
    return None
