"""Completion of a cell: training, prediction, scores and the committed record."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from gapbench.datasets.base import Problems
from gapbench.evaluation.door import admit
from gapbench.evaluation.entries import Run
from gapbench.evaluation.reference_file import Reference, find
from gapbench.evaluation.scores import point_values, undefined
from gapbench.runners.cell import Cell
from gapbench.runners.earlier import trained_before
from gapbench.runners.guard import standard
from gapbench.runners.memory import keep_freed_memory
from gapbench.runners.provenance import Spent, now, surroundings
from gapbench.runners.store import Record, Store, StoreError, first_line, key_of
from gapbench.runners.used import Used
from gapbench.runners.workers import NO_LIMITS, Died, Limits, TimedOut


@dataclass(frozen=True)
class Outcome:
    """The outcome of a cell.

    status: "finished": committed in this run. "rescored": its old predictions were scored again. "kept": its record
    existed. "halved": the cell was too large for the device's memory. message: the reason why the cell was skipped,
    halved or failed. failures: replica -> reason, if only some replicas failed.
    """

    cell: Cell
    key: str
    status: Literal["finished", "rescored", "kept", "skipped", "halved", "failed"]
    seconds: float = 0.0
    message: str = ""
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """True if the cell or some of its replicas failed."""
        return self.status == "failed" or bool(self.failures)

    @property
    def recorded(self) -> bool:
        return self.status in ("finished", "rescored", "kept")

    @property
    def reason(self) -> str:
        """The reason why the cell was skipped, halved or failed, or why replicas failed, in one line."""
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
    limits: Limits = NO_LIMITS,
) -> Outcome:
    """Complete a cell: keep its record if it exists, score again if only the scores changed, else train.

    begins: called if the cell has no record and is not skipped. candidates: keys of the records that may hold an
    earlier training of the cell; None: all keys of the store. limits: those that hold here, for the note of a failure.
    Raises StoreError if the store cannot be read or written; any other error gives a failed cell.
    """
    # One thread: a cell's bits must not depend on how many cells run beside it.
    torch.set_num_threads(1)
    keep_freed_memory()
    started = time.perf_counter()
    try:
        return _completed(cell, store, device, begins, store.keys() if candidates is None else candidates, started)
    except StoreError:  # the next cell would have the same error
        raise
    except Exception as error:
        if out_of_memory(error) and cell.halves():
            return Outcome(cell, "", "halved", time.perf_counter() - started, f"out of memory on {device}")
        return failed(cell, store, device, error, time.perf_counter() - started, limits, Used.here())


def _completed(
    cell: Cell, store: Store, device: str, begins: Callable[[], None], candidates: Sequence[str], started: float
) -> Outcome:
    with standard():
        problems = cell.dataset.problems(cell.replicas, cell.seed)
    identity = cell.identity(problems)
    key = key_of(identity)
    record = store.read(key)
    if record is not None:
        return Outcome(cell, key, "kept", failures=record.failures)
    reason = cell.entry.skip(cell.model, problems)
    if reason is not None:
        store.skip(cell.early_key, reason)
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
        run, provenance, predictions = earlier.run, {**earlier.provenance, "scored": now()}, earlier.arrays
    with standard():
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
    """The run of the entry, checked by the door, on the CPU and in the units of the data. Raises DoorError."""
    replicas, points = problems.y_test.shape
    run = admit(cell.entry.run(cell.model, problems, cell.stream("fit", device)), replicas, points)
    units = problems.standardisation
    return replace(run, prediction=run.prediction.rescaled(units.y_mean, units.y_std))


def scored(
    cell: Cell, problems: Problems, run: Run, references: Sequence[Reference | None]
) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays for tables and figures: "point NAME", "region NAME" and "grid NAME".

    The point values of failed replicas are nan. run: in the units of the data; references: in those of methods.
    """
    shape = tuple(problems.y_test.shape)
    sound = torch.tensor([r not in run.failures for r in range(shape[0])])
    points = undefined(shape)  # type: ignore[arg-type]
    if sound.any():
        units = problems.standardisation
        chosen = [
            reference and reference.rescaled(float(mean), float(std))
            for reference, mean, std, keep in zip(references, units.y_mean, units.y_std, sound, strict=True)
            if keep
        ]
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
    """True if an accelerator had too little memory. Some parts of torch have no error class for this."""
    words = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


Cause = Literal["time-out", "memory", "signal", "exception"]


def cause(error: BaseException) -> Cause:
    """What kind of end an error is."""
    if isinstance(error, TimedOut):
        return "time-out"
    if isinstance(error, Died):
        return "signal"
    words = ("can't allocate memory", "Cannot allocate memory")  # torch's, and the system's
    short = isinstance(error, MemoryError) or any(word in str(error) for word in words) or out_of_memory(error)
    return "memory" if short else "exception"


def failed(
    cell: Cell,
    store: Store,
    device: str,
    error: BaseException,
    seconds: float = 0.0,
    limits: Limits = NO_LIMITS,
    used: Used | None = None,
) -> Outcome:
    """Write a note that a cell failed, why, under which limits, and what its process used, if that is known.

    No code of the cell's own is run here, because that code may have ended its process.
    """
    try:
        identity = cell.identity(None)
    except Exception:  # then this error is why the cell failed
        identity = {
            "dataset": {"name": cell.dataset_name},
            "method": {"name": cell.name},
            "block": [cell.first, cell.stop],
            "seed": cell.seed,
        }
    key, why = key_of(identity), cause(error)
    note = store.fail(
        key,
        {
            "cell": cell.title,
            "identity": identity,
            "status": type(error).__name__,
            "cause": why,
            "limits": asdict(limits),
            "reason": str(error),
            "traceback": "".join(traceback.format_exception(error)),
            "provenance": {
                **surroundings(device),
                "seconds": round(seconds, 3),
                "cpu seconds": None if used is None else round(used.cpu, 3),
                "peak memory (bytes)": None if used is None else used.memory,
            },
        },
    )
    least = f"; --memory allows {limits.memory / 2**30:.3g} GiB" if why == "memory" and limits.memory else ""
    return Outcome(
        cell, key, "failed", seconds, f"{type(error).__name__}: {first_line(str(error))}{least} (see {note})"
    )
