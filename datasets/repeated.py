"""Repeated: the same training sets for several replicas each, to see what the random numbers of a training decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gapbench.datasets.base import Dataset, Layout, Problems
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.methods.engine.model import Model


@dataclass(frozen=True, kw_only=True)
class Repeated(Dataset):
    """Replica r has the problem of replica r ÷ seeds of `dataset`, rounded down. A method draws other random numbers
    for each replica, so replicas of one problem differ by these alone."""

    dataset: Dataset = field(default_factory=lambda: GappedSine(n=200, noise_std=0.1))
    seeds: int = 3

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ValueError(f"Repeated: seeds = {self.seeds}: expected at least 2 trainings of the same data")

    def problems(self, replicas: Sequence[int], seed: int = 0) -> Problems:
        return self.dataset.problems([replica // self.seeds for replica in replicas], seed)

    @property
    def layout(self) -> Layout:
        # No sample of independent replicas: an interval over them would count each training set several times.
        return replace(self.dataset.layout, sample=False, seeds=self.seeds)

    @property
    def count(self) -> int | None:
        return None if self.dataset.count is None else self.dataset.count * self.seeds

    @property
    def missing(self) -> str | None:
        return self.dataset.missing

    @property
    def summary(self) -> tuple[tuple[str, str], ...] | None:
        return self.dataset.summary

    @property
    def network(self) -> Model | None:
        return self.dataset.network
