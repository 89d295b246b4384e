"""One cell: an entry on a block of replicas of a dataset, and everything that decides its numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch

from gapbench.datasets.base import Dataset, Problems
from gapbench.datasets.content import describe
from gapbench.datasets.streams import torch_stream
from gapbench.evaluation.entries import Entry
from gapbench.evaluation.reference_file import digests
from gapbench.evaluation.scores import METRICS_VERSION
from gapbench.methods.engine.model import Model
from gapbench.runners.code import code_hash
from gapbench.runners.guard import undisturbed
from gapbench.runners.recipes import made, recipe
from gapbench.runners.store import canonical

Place = tuple[str, str, int, int, int]  # dataset, method, block of replicas and seed


@dataclass(frozen=True)
class Cell:
    """What is to be computed. name: the method's. first, stop: the block of replicas. seed: of data and training."""

    dataset_name: str
    dataset: Dataset
    model: Model
    name: str
    entry: Entry
    first: int
    stop: int
    seed: int

    def __reduce__(self) -> tuple[Any, ...]:
        """A cell travels to its process as a recipe."""
        return _cell, tuple(recipe(getattr(self, one.name)) for one in fields(self))

    @property
    def replicas(self) -> range:
        return range(self.first, self.stop)

    @property
    def title(self) -> str:
        """The cell's name in lines of progress."""
        return f"{self.dataset_name} · {self.name} · replicas {self.first}–{self.stop - 1}"

    @property
    def place(self) -> Place:
        """What every record of this cell shares, whatever the code and the settings were."""
        return self.dataset_name, self.name, self.first, self.stop, self.seed

    @cached_property
    def content(self) -> dict[str, Any]:
        """The content of dataset, model and subject. Raises Undescribable if one of them has none that can be keyed."""
        subject = self.entry.subject
        parts = {"dataset": self.dataset, "model": self.model, type(subject).__name__: subject}
        return {name: describe(part, name) for name, part in parts.items()}

    def identity(self, problems: Problems | None) -> dict[str, Any]:
        """Everything that decides the numbers; its hash is the record's key. No problems: of a failed cell."""
        dataset, model, subject = self.content.values()
        references = [] if problems is None else digests(problems, self.model)
        code = code_hash(self.entry.subject, self.model)
        return {
            "dataset": {
                "name": self.dataset_name,
                "content": dataset,
                "sha256": None if problems is None else problems.sha256,
            },
            "model": model,
            "method": {"name": self.name, "content": subject, "code": code},
            "block": [self.first, self.stop],
            "seed": self.seed,
            "metrics": METRICS_VERSION,
            "references": references if any(references) else None,
            "shown": {"layout": vars(self.dataset.layout), "summary": self.dataset.summary},
        }

    def stream(self, purpose: str, device: torch.device | str) -> torch.Generator:
        """Random numbers from what is computed, not from what the code is called or where it stands."""
        what = canonical(list(self.content.values()))
        return torch_stream(device, purpose, what, self.first, self.stop, self.seed)

    def halves(self) -> list[Cell]:
        """Two cells of half the replicas each, for a device whose memory is too small for all; none of one replica."""
        middle = (self.first + self.stop) // 2
        return [replace(self, stop=middle), replace(self, first=middle)] if self.stop - self.first > 1 else []


def _cell(dataset_name: str, dataset: Any, model: Any, name: str, entry: Any, *rest: int) -> Cell:
    entry = made(entry)
    # What a method's own file sets holds while that method trains; what a dataset's file sets must not hold for it.
    with undisturbed():
        return Cell(dataset_name, made(dataset), made(model), name, entry, *rest)
