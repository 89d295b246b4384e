"""One cell: an entry on a block of replicas of a dataset, and everything that decides its numbers."""

from __future__ import annotations

from collections.abc import Mapping
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
from gapbench.runners.store import canonical, key_of

Place = tuple[str, str, int, int, int]  # dataset, method, first and stop of the block of replicas, seed


@dataclass(frozen=True)
class Cell:
    """A cell to compute. name: that of the method. first, stop: the block of replicas. seed: for data and training."""

    dataset_name: str
    dataset: Dataset
    model: Model
    name: str
    entry: Entry
    first: int
    stop: int
    seed: int

    def __reduce__(self) -> tuple[Any, ...]:
        """The cell as recipes, to send it to its process by pickle."""
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
        """The dataset, method, block and seed that all records of this cell share, whatever their code and settings."""
        return self.dataset_name, self.name, self.first, self.stop, self.seed

    @cached_property
    def content(self) -> dict[str, Any]:
        """The content of dataset, model and subject. Raises Undescribable if one of these has no content."""
        subject = self.entry.subject
        parts = {"dataset": self.dataset, "model": self.model, type(subject).__name__: subject}
        return {name: describe(part, name) for name, part in parts.items()}

    def identity(self, problems: Problems | None) -> dict[str, Any]:
        """Everything that decides the numbers; its hash is the record's key. problems: None for a failed cell."""
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
            "shown": {"layout": self.dataset.layout.content, "summary": self.dataset.summary},
        }

    @property
    def early_key(self) -> str:
        """The key that the cell has before its data are made: of its plan, and of its failures."""
        return key_of(self.identity(None))

    def stream(self, purpose: str, device: torch.device | str) -> torch.Generator:
        """The random stream for this purpose, from the cell's content, block and seed; its names do not count."""
        what = canonical(list(self.content.values()))
        return torch_stream(device, purpose, what, self.first, self.stop, self.seed)

    def halves(self) -> list[Cell]:
        """Two cells, each with half the replicas, for a device with too little memory; no cells if only one replica."""
        middle = (self.first + self.stop) // 2
        return [replace(self, stop=middle), replace(self, first=middle)] if self.stop - self.first > 1 else []


def early_key(identity: Mapping[str, Any]) -> str:
    """The `early_key` of the cell that a record's identity is of."""
    return key_of({**identity, "dataset": {**identity["dataset"], "sha256": None}, "references": None})


def _cell(dataset_name: str, dataset: Any, model: Any, name: str, entry: Any, *rest: int) -> Cell:
    entry = made(entry)
    # Global settings of a method's own file hold while that method trains; those of a dataset's file must not.
    with undisturbed():
        return Cell(dataset_name, made(dataset), made(model), name, entry, *rest)
