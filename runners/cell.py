"""One cell: an entry on a block of replicas of a dataset, trained, predicted, scored and committed."""

from __future__ import annotations

import platform
import resource
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import FunctionType
from typing import Any, Literal

import numpy as np
import torch

from gapbench.datasets.base import Dataset, Problems
from gapbench.datasets.content import describe
from gapbench.datasets.streams import torch_stream
from gapbench.evaluation.door import admit
from gapbench.evaluation.entries import Entry, Run
from gapbench.evaluation.reference_file import Reference, digests, find
from gapbench.evaluation.scores import METRICS_VERSION, point_values, undefined
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import PredictionError, kinds
from gapbench.runners.code import code_hash
from gapbench.runners.guard import undisturbed
from gapbench.runners.memory import keep_freed_memory
from gapbench.runners.recipes import made, recipe
from gapbench.runners.store import Damaged, Record, Store, StoreError, canonical, first_line, floats, key_of

FOLDERS = ("methods", "datasets", "evaluation", "runners")  # of the code that makes numbers
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
        code = code_hash(*_classes((self.entry.subject, self.model)))
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


def _classes(value: object) -> Iterator[type | FunctionType]:
    """The classes of an object and of those among its fields, and the functions among them."""
    if isinstance(value, FunctionType):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        for one in fields(value):
            yield from _classes(getattr(value, one.name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _classes(item)


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    status: "finished", committed in this run; "rescored", its old predictions scored anew; "kept", there already;
    "halved", too large for the device's memory. message: why it was skipped, halved or failed. failures: replica ->
    reason, where the others stand.
    """

    cell: Cell
    key: str
    status: Literal["finished", "rescored", "kept", "skipped", "halved", "failed"]
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
        """Why it was skipped or failed, or which replicas failed, in one line."""
        replicas: dict[str, list[str]] = {}
        for replica, reason in self.failures.items():
            replicas.setdefault(first_line(reason), []).append(replica)
        return "; ".join(
            [*filter(None, [self.message]), *(f"replica {', '.join(r)}: {why}" for why, r in replicas.items())]
        )


def complete(
    cell: Cell,
    store: Store,
    device: str,
    begins: Callable[[], None] = lambda: None,
    candidates: Sequence[str] | None = None,
) -> Outcome:
    """Bring a cell to its record: keep it if it is there, score it anew if only the scores changed, else train.

    begins: called when the record is not there. candidates: keys of the records among which an earlier training of the
    cell would be; None for all of the store. Raises StoreError if the store cannot be read or written; whatever else
    goes wrong is a failed cell.
    """
    # One thread: a cell's bits must not depend on how many cells run beside it.
    torch.set_num_threads(1)
    keep_freed_memory()
    started = time.perf_counter()
    try:
        return _completed(cell, store, device, begins, store.keys() if candidates is None else candidates, started)
    except StoreError:  # the next cell would meet it too
        raise
    except Exception as error:
        if out_of_memory(error) and cell.halves():
            return Outcome(cell, "", "halved", time.perf_counter() - started, f"out of memory on {device}")
        return failed(cell, store, device, error, time.perf_counter() - started)


def _completed(
    cell: Cell, store: Store, device: str, begins: Callable[[], None], candidates: Sequence[str], started: float
) -> Outcome:
    with undisturbed():
        problems = cell.dataset.problems(cell.replicas, cell.seed)
    identity = cell.identity(problems)
    key = key_of(identity)
    record = store.read(key)
    if record is not None:
        return Outcome(cell, key, "kept", failures=record.failures)
    reason = cell.entry.skip(cell.model, problems)
    if reason is not None:
        return Outcome(cell, key, "skipped", message=reason)
    begins()
    # A damaged reference fails the cell here, before training.
    references = [find(problems, r, cell.model) for r in range(len(cell.replicas))]
    earlier = trained_before(store, identity, candidates)
    if earlier is None:
        spent = Spent.start(device)
        run = trained(cell, problems, device)
        provenance, predictions = spent.provenance(), store.save(run.prediction.to_arrays())
    else:
        run, provenance, predictions = earlier.run, earlier.provenance, earlier.arrays
    points = scored(cell, problems, run, references)
    record = Record(
        identity=identity,
        kind=cell.entry.kind,
        prediction=type(run.prediction).__name__,
        replicas=list(cell.replicas),
        arrays={"predictions": predictions, "points": store.save(points)},
        layout=cell.dataset.layout,
        summary=cell.dataset.summary,
        diagnostics={name: value.tolist() for name, value in run.diagnostics.items()},
        failures={str(cell.first + r): reason for r, reason in sorted(run.failures.items())},
        provenance=provenance,
    )
    store.write(key, record)
    seconds = time.perf_counter() - started
    return Outcome(cell, key, "finished" if earlier is None else "rescored", seconds, failures=record.failures)


def trained(cell: Cell, problems: Problems, device: str) -> Run:
    """What the entry gives, looked at, on the CPU and in the units of the data."""
    replicas, points = problems.y_test.shape
    run = admit(cell.entry.run(cell.model, problems, cell.stream("fit", device)), replicas, points)
    units = problems.standardisation
    return replace(run, prediction=run.prediction.rescaled(units.y_mean, units.y_std))


@dataclass(frozen=True)
class Earlier:
    """A run from a store, with its provenance and the name of its arrays."""

    run: Run
    provenance: dict[str, Any]
    arrays: str


def records_by_place(store: Store) -> dict[Place, list[str]]:
    """The keys of all sound records, by the cell that they are of."""
    found: dict[Place, list[str]] = {}
    for key in store.keys():  # noqa: SIM118 a store is no dict
        with suppress(Damaged, KeyError, TypeError, ValueError):
            identity = store.record(key).identity
            first, stop = identity["block"]
            place = (identity["dataset"]["name"], identity["method"]["name"], first, stop, identity["seed"])
            found.setdefault(place, []).append(key)
    return found


def trained_before(store: Store, identity: Mapping[str, Any], candidates: Sequence[str]) -> Earlier | None:
    """A run of the same training that was scored otherwise; None if no candidate is one whose predictions are sound."""

    def training(of: Mapping[str, Any]) -> str:
        return canonical({name: value for name, value in of.items() if name not in ("metrics", "references")})

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


def scored(
    cell: Cell, problems: Problems, run: Run, references: Sequence[Reference | None]
) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays that tables and figures are made from: "point NAME", "region NAME" and "grid NAME".

    Replicas that failed are nan.
    """
    shape = tuple(problems.y_test.shape)
    sound = torch.tensor([r not in run.failures for r in range(shape[0])])
    points = undefined(shape)  # type: ignore[arg-type]
    if sound.any():
        chosen = [reference for reference, keep in zip(references, sound.tolist(), strict=True) if keep]
        some = run.prediction.select(sound)
        found = point_values(some, problems.select(sound), cell.stream("pit", "cpu"), chosen)
        points = {name: np.full(shape, np.nan) for name in {**points, **found}}
        for name, values in found.items():
            points[name][sound.numpy()] = values
    grid = {name: getattr(problems, name) for name in ("x", "y", "x_test", "y_test", "f_test")}
    return {
        **{f"point {name}": values for name, values in points.items()},
        **{f"region {name}": mask.numpy() for name, mask in problems.regions.items()},
        **{f"grid {name}": value.numpy() for name, value in grid.items() if value is not None},
    }


def out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator had too little memory. Not every part of torch has an error of its own for it."""
    words = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def failed(cell: Cell, store: Store, device: str, error: BaseException, seconds: float = 0.0) -> Outcome:
    """Note that a cell failed, and why. The next run tries again.

    No code of the cell's own is run: it may be what ended its process.
    """
    try:
        identity = cell.identity(None)
    except Exception:  # then this is why it failed
        identity = {
            "dataset": {"name": cell.dataset_name},
            "method": {"name": cell.name},
            "block": [cell.first, cell.stop],
            "seed": cell.seed,
        }
    key = key_of(identity)
    note = store.fail(
        key,
        {
            "cell": cell.title,
            "identity": identity,
            "status": type(error).__name__,
            "reason": str(error),
            "traceback": "".join(traceback.format_exception(error)),
            "provenance": {**surroundings(device), "seconds": round(seconds, 3)},
        },
    )
    return Outcome(cell, key, "failed", seconds, f"{type(error).__name__}: {first_line(str(error))} (see {note})")


@dataclass(frozen=True)
class Spent:
    """What this process had spent when a training began."""

    device: str
    wall: float
    cpu: float

    @staticmethod
    def start(device: str) -> Spent:
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(device)
        return Spent(device, time.perf_counter(), time.process_time())

    def provenance(self) -> dict[str, Any]:
        """Where, with what and at what cost the training was done, up to now."""
        cuda = self.device.startswith("cuda")
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
        return {
            **surroundings(self.device),
            "seconds": round(time.perf_counter() - self.wall, 3),
            "cpu seconds": round(time.process_time() - self.cpu, 3),
            "peak memory (bytes)": int(torch.cuda.max_memory_allocated(self.device) if cuda else used),
        }


def surroundings(device: str) -> dict[str, Any]:
    """Where and with what a cell is computed."""
    cuda = device.startswith("cuda")
    packages = ("gapbench", "torch", "opacus", "pyro-ppl", "numpy", "scipy", "scoringrules", "arviz-stats")
    return {
        "finished": datetime.now(UTC).isoformat(timespec="microseconds"),
        "device": torch.cuda.get_device_name(device) if cuda else f"{device.upper()} ({platform.machine()})",
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "commit": commit(),
    }


def commit() -> str | None:
    """The git commit of this code, with + if its folders were edited since; None outside a checkout of it."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", *FOLDERS) else "")
    except (OSError, subprocess.CalledProcessError):
        return None
