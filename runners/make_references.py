"""Reference posteriors by long HMC runs, which checkpoint, resume, and continue until they are certified."""

from __future__ import annotations

import io
import os
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from gapbench.datasets.base import Dataset, Problems
from gapbench.datasets.content import describe
from gapbench.datasets.streams import torch_stream
from gapbench.evaluation.certificate import certificate, verdict
from gapbench.evaluation.reference_file import FORMAT, Reference, Refused, find, key_of, path_of
from gapbench.methods.engine.model import Model
from gapbench.methods.hmc import HMC, State, Trace, Tuning, start
from gapbench.runners.code import code_hash
from gapbench.runners.memory import keep_freed_memory
from gapbench.runners.recipes import made, recipe
from gapbench.runners.store import canonical
from gapbench.runners.workers import Tell, run_all

METHOD = HMC(burn_in=150, draws=500, thin=1, max_steps=4000)
DRAWS_ADDED = 100  # draws a chain, added as often as the certificate needs them
MAX_DRAWS = 3000
SECONDS = 60.0  # between checkpoints


class NotCertified(Exception):
    """A reference that cannot be certified, or whose making failed; the message says why. In most cases the chains were
    run for as long as allowed."""


@dataclass(frozen=True)
class Task:
    """A reference to make: of one replica of a dataset, in `folder`."""

    name: str
    dataset: Dataset
    model: Model
    replica: int
    folder: Path
    device: str = "cpu"
    method: HMC = METHOD
    seed: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """The task as recipes, to send it to its process by pickle."""
        return _task, tuple(recipe(getattr(self, one.name)) for one in fields(self))


def _task(*parts: Any) -> Task:
    return Task(*map(made, parts))


@dataclass(frozen=True)
class Run:
    """The progress of a task: the chains' state, their trace and f on the test grid since burn-in, seconds spent."""

    state: State
    trace: Trace
    f: Tensor  # (chains, draws, M)
    seconds: float


def make_all(tasks: Sequence[Task], jobs: int, tell: Callable[[str], None]) -> Iterator[Path | NotCertified]:
    """The file of each task when it is done, or a NotCertified. `jobs` independent tasks run side by side."""
    with closing(run_all(_work, deque(tasks), jobs, lambda task, line: tell(line))) as tasks_ended:
        for ended in tasks_ended:
            if ended.error is None or isinstance(ended.error, NotCertified):
                yield ended.error or ended.value
            else:
                what = f"{type(ended.error).__name__}: {ended.error}"
                yield NotCertified(f"{ended.job.name} replica {ended.job.replica}: {what}; run it again to go on")


def _work(task: Task, tell: Tell) -> Path:
    """The work of a child process: make the task's reference."""
    torch.set_num_threads(1)
    keep_freed_memory()
    return make(task, tell)


def make(task: Task, tell: Callable[[str], None] = lambda line: None) -> Path:
    """The file of this reference, made if it is missing or damaged. Raises NotCertified.

    After a kill at any point, the next call continues from the last checkpoint, and gives the same bits.
    """
    problems, name = task.dataset.problems([task.replica], task.seed), f"{task.name} replica {task.replica}"
    key = key_of(problems, 0, task.model)
    path = path_of(key, task.folder)
    with suppress(Refused):
        if find(problems, 0, task.model, task.folder) is not None:
            return path
    task.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = path.with_name(f".{path.stem}.checkpoint")
    generator = torch_stream(task.device, "reference", key, canonical(describe(task.method)))
    run, method = _begun(task, problems, checkpoint, generator, tell), task.method
    what = {
        "format": FORMAT,
        "key": key,
        "dataset": repr(task.dataset),
        "replica": task.replica,
        "seed": task.seed,
        "model": repr(task.model),
        "device": torch.cuda.get_device_name() if task.device.startswith("cuda") else "CPU",
        "torch": metadata.version("torch"),
    }
    regions = {region: mask[0] for region, mask in problems.regions.items()}
    while True:
        run = _ended(task, method, problems, run, checkpoint, generator, tell)
        past = _until_last_divergence(run.trace, method.draws)
        f = run.f[:, past : method.draws]  # a checkpoint of a longer run has more draws
        missing = task.method.draws - f.shape[1]
        if missing > 0:
            shortfalls = [f"a trajectory diverged, {past} after burn-in: all up to it count as burn-in"]
        else:
            found = certificate(f, regions, 0)
            shortfalls = found["problems"]
        if not shortfalls:
            about = {**what, **_cost(run), "method": repr(method), "left out": past, "certificate": found}
            reference = Reference.of(f, about)
            shortfalls = verdict(reference, regions)  # the kept draws alone must pass too
        if not shortfalls:
            break
        why = "; ".join(shortfalls)
        if method.draws >= MAX_DRAWS:
            raise NotCertified(f"{name}: {why}")
        tell(f"{name}: {method.draws} draws a chain are too few: {why}")
        method = replace(method, draws=method.draws + (missing if missing > 0 else DRAWS_ADDED))
    _write(path, reference.bytes())
    checkpoint.unlink(missing_ok=True)
    return path


def _until_last_divergence(trace: Trace, draws: int) -> int:
    """The number of draws up to the last divergence in any chain, that draw included, among the first `draws`."""
    diverged = trace.diverged[..., :draws].flatten(0, 1).any(0).nonzero()
    return int(diverged.max()) + 1 if len(diverged) else 0


def _maker(task: Task) -> str:
    """The code and settings that may resume this checkpoint."""
    return f"{task.method!r}, code {code_hash(type(task.method))[:16]}"


def _cost(run: Run) -> dict[str, Any]:
    return {
        "diagnostics": {name: float(value[0]) for name, value in run.trace.diagnostics.items()},
        "gradient evaluations": int(run.state.gradients[0]),
        "seconds": round(run.seconds),
    }


def _begun(task: Task, problems: Problems, checkpoint: Path, generator: Generator, tell: Callable[[str], None]) -> Run:
    """The run to continue: that of the checkpoint, or a new run from a draw of the prior."""
    if checkpoint.exists():
        try:
            run = _read(checkpoint, _maker(task), generator, task.device)
            tell(f"{task.name} replica {task.replica}: going on from {run.state.steps} trajectories")
            return run
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            tell(f"{checkpoint} cannot be gone on with ({error}): beginning anew")
    chains = task.method.chains
    theta = task.model.init(generator, (1, chains))
    f = theta.new_empty(chains, 0, problems.x_test.shape[1])
    return Run(start(task.method, theta), Trace.empty((1, chains), 0, task.device), f, 0.0)


def _ended(
    task: Task,
    method: HMC,
    problems: Problems,
    run: Run,
    checkpoint: Path,
    generator: Generator,
    tell: Callable[[str], None],
) -> Run:
    """The run at the end of `method`'s trajectories; writes checkpoints on the way."""
    began, earlier = time.monotonic(), run.seconds
    saved = began
    states: list[State] = []
    f: list[Tensor] = []
    x, y, x_test = (part.to(task.device) for part in problems.inputs)
    for state in method.walk(task.model, x, y, run.state, generator):
        states.append(state)
        if state.steps > method.burn_in:
            f.append(task.model.mean(state.theta[0], x_test[0]))
        now = time.monotonic()
        if now - saved > SECONDS or state.steps == method.steps:
            past = [state for state in states if state.steps > method.burn_in]
            grown = torch.cat([run.f, torch.stack(f, 1)], 1) if f else run.f
            run = Run(state, run.trace.joined(past), grown, earlier + now - began)
            states, f, saved = [], [], now
            _save(checkpoint, run, _maker(task), generator)
            tell(
                f"{task.name} replica {task.replica}: {state.steps} of {method.steps} trajectories, "
                f"acceptance {float(state.acceptance.mean()):.2f}, step {float(state.tuning.log_mean.exp().mean()):.2e}"
            )
    return run


def _write(path: Path, data: bytes) -> None:
    """Write a file completely or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _save(path: Path, run: Run, maker: str, generator: Generator) -> None:
    state, tuning = run.state, run.state.tuning
    tensors = {"f": run.f, "generator": generator.get_state()}
    tensors |= {f"state {name}": value for name, value in vars(state).items() if isinstance(value, Tensor)}
    tensors |= {f"tuning {name}": value for name, value in vars(tuning).items() if isinstance(value, Tensor)}
    tensors |= {f"trace {name}": value for name, value in vars(run.trace).items()}
    arrays = {name: value.cpu().numpy() for name, value in tensors.items()}
    arrays |= {"maker": np.array(maker), "numbers": np.array([state.steps, tuning.count, run.seconds])}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    _write(path, buffer.getvalue())


def _read(path: Path, maker: str, generator: Generator, device: str) -> Run:
    with np.load(path, allow_pickle=False) as arrays:
        if (other := str(arrays["maker"])) != maker:
            raise ValueError(f"it is of {other}, this run of {maker}")
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "maker"}
    generator.set_state(tensors["generator"])

    def part(prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): value.to(device) for name, value in tensors.items() if name.startswith(prefix)
        }

    steps, count, seconds = tensors["numbers"].tolist()
    state = State(steps=int(steps), tuning=Tuning(**part("tuning "), count=int(count)), **part("state "))
    return Run(state, Trace(**part("trace ")), tensors["f"].to(device), seconds)
