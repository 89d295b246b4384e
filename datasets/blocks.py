"""Blocks: several training sets of one dataset, one after another, for methods that share them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from gapbench.datasets.base import Dataset, Layout, Problems
from gapbench.datasets.gapped import Gapped
from gapbench.datasets.gapped_sine import GappedSine


@dataclass(frozen=True, kw_only=True)
class Blocks(Dataset):
    """Replica r has the training points of replicas r·blocks … r·blocks + blocks − 1 of `dataset`, and the test points
    of the first of these."""

    dataset: Gapped = field(default_factory=lambda: GappedSine(n=200))
    blocks: int = 10

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ValueError(f"Blocks: blocks = {self.blocks}: expected at least 1")

    @property
    def layout(self) -> Layout:
        return self.dataset.layout

    def problems(self, replicas: Sequence[int], seed: int = 0) -> Problems:
        first, *others = (
            self.dataset.problems([replica * self.blocks + block for replica in replicas], seed)
            for block in range(self.blocks)
        )
        x, y = (torch.cat([getattr(one, name) for one in (first, *others)], 1) for name in ("x", "y"))
        return replace(first, x=x, y=y)
