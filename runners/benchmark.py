"""One cell: a method on a block of replicas of a dataset, trained, predicted, scored and committed."""

from __future__ import annotations

import inspect
import platform
import resource
import subprocess
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gapbench.datasets.base import Dataset, Splits
from gapbench.datasets.streams import torch_stream
from gapbench.evaluation.controls import Control, PriorPredictive, Truth
from gapbench.evaluation.reference import Reference, ReferencePosterior, digests, find
from gapbench.evaluation.scores import METRICS_VERSION, point_values, replica_scores, undefined
from gapbench.methods import registry
from gapbench.methods.base import Mixture, UncertaintyMethod
from gapbench.methods.model import Model
from gapbench.runners.memory import keep_freed_memory
from gapbench.runners.store import FORMAT, Damaged, Record, Store, StoreError, canonical, first_line, key_of

Kind = Literal["method", "reference", "floor", "ceiling"]
KINDS: dict[type, Kind] = {ReferencePosterior: "reference", PriorPredictive: "floor", Truth: "ceiling"}


@dataclass(frozen=True)
class Cell:
    """What is to be computed. first, stop: the block of replicas. seed: of data and training."""

    dataset_name: str
    dataset: Dataset
    model: Model
    row: str
    method: UncertaintyMethod | Control
    first: int
    stop: int
    seed: int

    @property
    def replicas(self) -> range:
        return range(self.first, self.stop)

    @property
    def kind(self) -> Kind:
        return "method" if isinstance(self.method, UncertaintyMethod) else KINDS[type(self.method)]

    @property
    def name(self) -> str:
        return f"{self.dataset_name} · {self.row} · replicas {self.first}–{self.stop - 1}"

    def identity(self, splits: Splits | None) -> dict[str, Any]:
        """Everything that decides the numbers; its hash is the record's key. No splits: they could not be made."""
        content = None if splits is None else splits.sha256
        references = [] if splits is None else digests(splits, self.model)
        return {
            "dataset": {"name": self.dataset_name, "repr": repr(self.dataset), "sha256": content},
            "model": repr(self.model),
            "row": self.row,
            "method": {
                "module": type(self.method).__module__,
                "name": type(self.method).__qualname__,
                "repr": repr(self.method),
                "source": source_hash(type(self.method)),
            },
            "block": [self.first, self.stop],
            "seed": self.seed,
            "metrics": METRICS_VERSION,
            "references": references if any(references) else None,
        }

    def stream(self, purpose: str, device: torch.device | str) -> torch.Generator:
        """Random numbers from what is computed, not from what the code is called or where it stands."""
        what = (repr(self.dataset), repr(self.model), type(self.method).__name__, repr(self.method))
        return torch_stream(device, purpose, *what, self.first, self.stop, self.seed)


@dataclass(frozen=True)
class Outcome:
    """What became of a cell. finished: committed in this run; kept: it was there already. message: why it was skipped
    or failed. failures: replica -> reason, where the others stand."""

    cell: Cell
    key: str
    status: Literal["finished", "rescored", "kept", "skipped", "failed"]
    seconds: float = 0.0
    message: str = ""
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Wholly or in part."""
        return self.status == "failed" or bool(self.failures)

    @property
    def recorded(self) -> bool:
        return self.status in ("finished", "rescored", "kept")

    @property
    def reason(self) -> str:
        """In one line: why it was skipped or failed, or which replicas failed."""
        replicas: dict[str, list[str]] = {}
        for replica, reason in self.failures.items():
            replicas.setdefault(first_line(reason), []).append(replica)
        return "; ".join(
            [*filter(None, [self.message]), *(f"replica {', '.join(r)}: {why}" for why, r in replicas.items())]
        )


def cells(
    datasets: Mapping[str, Dataset],
    model: Model,
    methods: Mapping[str, UncertaintyMethod | Control],
    replicas: int,
    seed: int,
    block: int = 10,
) -> list[Cell]:
    """All cells. block: replicas that are trained as one stack (so --replicas 20 reuses the cells of --replicas 10);
    the last one of each row is smaller if `replicas` is not a multiple of it."""
    return [
        Cell(name, dataset, model, row, method, first, min(first + block, replicas), seed)
        for name, dataset in datasets.items()
        for row, method in methods.items()
        for first in range(0, replicas, block)
    ]


def complete(cell: Cell, store: Store, device: str, begins: Callable[[], None] = lambda: None) -> Outcome:
    """Bring a cell to its record: keep it if it is there, score it anew if only the scores changed, else train.

    begins: called when it is not there. Raises StoreError if the store cannot be read or written; whatever else goes
    wrong is a failed cell.
    """
    # One thread: a cell's bits must not depend on how many cells run beside it.
    torch.set_num_threads(1)
    keep_freed_memory()
    started = time.perf_counter()
    try:
        return _completed(cell, store, device, begins, started)
    except StoreError:  # the next cell would meet it too
        raise
    except Exception as error:
        return failed(cell, store, device, error, time.perf_counter() - started)


def _completed(cell: Cell, store: Store, device: str, begins: Callable[[], None], started: float) -> Outcome:
    splits = cell.dataset.splits(cell.replicas, cell.seed)
    identity = cell.identity(splits)
    key = key_of(identity)
    record = store.read(key)
    if record is not None:
        return Outcome(cell, key, "kept", failures=record["failures"])
    reason = _skip(cell, splits)
    if reason is not None:
        return Outcome(cell, key, "skipped", message=reason)
    begins()
    references = [find(splits, r, cell.model) for r in range(len(cell.replicas))]  # a damaged one fails before training
    earlier = _trained_before(store, identity)
    record = _trained(cell, store, splits, identity, device) if earlier is None else {**earlier, "identity": identity}
    record |= _scored(cell, store, splits, references, record)
    store.write(key, record)
    seconds = time.perf_counter() - started
    return Outcome(cell, key, "finished" if earlier is None else "rescored", seconds, failures=record["failures"])


def failed(cell: Cell, store: Store, device: str, error: Exception, seconds: float = 0.0) -> Outcome:
    """Note that a cell failed, and why. The next run tries again."""
    try:
        identity = cell.identity(cell.dataset.splits(cell.replicas, cell.seed))
    except Exception:  # then this is why it failed
        identity = cell.identity(None)
    key = key_of(identity)
    note = store.fail(
        key,
        {
            "format": FORMAT,
            "cell": cell.name,
            "identity": identity,
            "status": type(error).__name__,
            "reason": str(error),
            "traceback": "".join(traceback.format_exception(error)),
            "provenance": _provenance(device, seconds),
        },
    )
    return Outcome(cell, key, "failed", seconds, f"{type(error).__name__}: {first_line(str(error))} (see {note})")


def _skip(cell: Cell, splits: Splits) -> str | None:
    if isinstance(cell.method, Control):
        return cell.method.skip(cell.model, splits)
    return cell.method.skip(cell.model, splits.x)


def _trained_before(store: Store, identity: Mapping[str, Any]) -> Record | None:
    """A record of the same training, by other scores or against other references, whose predictions are still there."""

    def training(of: Mapping[str, Any]) -> str:
        return canonical({name: value for name, value in of.items() if name not in ("metrics", "references")})

    for key in sorted(store.keys()):
        with suppress(Damaged):
            record = store.record(key)
            if training(record["identity"]) == training(identity):
                store.arrays(record["arrays"]["predictions"])
                return record
    return None


def _trained(cell: Cell, store: Store, splits: Splits, identity: Mapping[str, Any], device: str) -> Record:
    started = time.perf_counter()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    generator, there = cell.stream("fit", device), splits.to(device)
    diagnostics: dict[str, Tensor] = {}
    failures: dict[int, str] = {}
    if isinstance(cell.method, Control):
        predictive = cell.method.predict(cell.model, there, generator)
    else:
        predictor = cell.method.fit(cell.model, there.x, there.y, generator)
        diagnostics, failures = dict(predictor.diagnostics), dict(predictor.failures)
        made = predictor(there.x_test)
        if not isinstance(made, Mixture):
            raise TypeError(f"{type(made).__name__}: only a Mixture can be stored so far")
        predictive = made
    everything = predictive.mean + predictive.std + predictive.noise
    for r in (~everything.flatten(1).isfinite().all(1)).nonzero().flatten().tolist():
        failures.setdefault(r, "predictions are not finite: the training diverged; a smaller lr may help")
    predictions = {
        "mean": predictive.mean.detach().cpu().numpy(),
        "std": predictive.std.detach().cpu().numpy(),
        "noise": predictive.noise.detach().cpu().numpy(),
        "chains": np.array(predictive.chains),
    }
    return {
        "format": FORMAT,
        "identity": identity,
        "kind": cell.kind,
        "replicas": list(cell.replicas),
        "arrays": {"predictions": store.save(predictions)},
        "diagnostics": {name: value.detach().cpu().double().tolist() for name, value in diagnostics.items()},
        "failures": {str(cell.first + r): reason for r, reason in sorted(failures.items())},
        "provenance": _provenance(device, time.perf_counter() - started),
    }


def _scored(cell: Cell, store: Store, splits: Splits, references: Sequence[Reference | None], record: Record) -> Record:
    """The parts of a record that depend on the scores."""
    predictions = store.arrays(record["arrays"]["predictions"])
    failed = np.isin(np.array(record["replicas"]), [int(replica) for replica in record["failures"]])
    sound = torch.from_numpy(~failed)

    def tensor(name: str) -> Tensor:
        value = torch.from_numpy(predictions[name])
        return value[sound] if value.ndim == 3 and len(value) == len(failed) else value

    if failed.all():
        points = undefined((len(failed), splits.y_test.shape[1]))
    else:
        predictive = Mixture(tensor("mean"), tensor("std"), tensor("noise"), int(predictions["chains"]))
        scored = point_values(
            predictive,
            _rows(splits, sound),
            cell.stream("pit", "cpu"),
            [reference for reference, keep in zip(references, sound.tolist(), strict=True) if keep],
            None if predictive.std.any() else predictive.mean.shape[1],
        )
        points = {name: np.full(splits.y_test.shape, np.nan) for name in scored}
        for name, values in scored.items():
            points[name][~failed] = values
    regions = {name: mask.numpy() for name, mask in splits.regions.items()}
    grid = {name: getattr(splits, name) for name in ("x", "y", "x_test", "y_test", "f_test")}
    stored = {f"point {name}": values for name, values in points.items()}
    stored |= {f"region {name}": mask for name, mask in regions.items()}
    stored |= {f"grid {name}": value.numpy() for name, value in grid.items() if value is not None}
    return {
        "arrays": {**record["arrays"], "points": store.save(stored)},
        "scores": replica_scores(points, regions),
    }


def _rows(splits: Splits, keep: Tensor) -> Splits:
    """Some of the replicas."""
    chosen = {name: value[keep] for name, value in vars(splits).items() if isinstance(value, Tensor)}
    return replace(splits, **chosen, regions={name: mask[keep] for name, mask in splits.regions.items()})


def source_hash(cls: type) -> str:
    """Of the class's file and of the code that methods share, so that an edited method is trained again."""
    methods = {Path(inspect.getfile(method)) for method in registry.methods().values()}
    shared = set(Path(registry.__file__).parent.glob("*.py")) - methods - {Path(registry.__file__)}
    digest = sha256()
    for path in sorted({*shared, Path(inspect.getfile(cls))}, key=lambda path: path.name):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _provenance(device: str, seconds: float) -> dict[str, Any]:
    """Where and with what a cell was computed: in the record, not in its key."""
    cuda = device.startswith("cuda")
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    packages = ("gapbench", "torch", "opacus", "pyro-ppl", "numpy", "scipy", "scoringrules", "arviz-stats")
    return {
        "finished": datetime.now(UTC).isoformat(timespec="microseconds"),
        "seconds": round(seconds, 3),
        "peak memory (bytes)": int(peak),
        "device": torch.cuda.get_device_name() if cuda else f"CPU ({platform.machine()})",
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The git commit of this code, with + if it was edited since; None outside a checkout of it."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        edited = subprocess.run(
            ["git", "-C", root, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if edited.strip() else "")
