"""Reference posteriors by long chains, which checkpoint, resume, and continue until they are certified.

The chains are MAMS on the collapsed posterior. Where features are few, they may also go to draws of the prior between
trajectories. One half starts at draws of the prior, the other half at optima: so a mode that only one of these can
reach is seen.
"""

from __future__ import annotations

import io
import math
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
from gapbench.evaluation.certificate import MAX_MCSE, Chains, measured, problems, reference_of
from gapbench.evaluation.reference_file import FORMAT, Refused, find, key_of, path_of
from gapbench.methods.engine.adjusted import State, Trace, Tuning, start
from gapbench.methods.engine.collapsed import Collapsed, refusal
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.noise import Noise
from gapbench.methods.engine.target import Point
from gapbench.methods.mams import MAMS
from gapbench.runners.code import code_hash
from gapbench.runners.memory import keep_freed_memory
from gapbench.runners.recipes import made, recipe
from gapbench.runners.store import canonical, put
from gapbench.runners.workers import Tell, run_all

METHOD = MAMS(trajectory=0.3, jitter=0.9, acceptance=0.7, burn_in=100, draws=200, thin=1, chains=8, proposals=64)
FEW = 3  # features: with more, draws of the prior are far from the posterior, and long trajectories pay (docs/truth.md)
MAX_DRAWS = 6000
GROWTH = 1.5  # the factor by which a run grows that is too short for its certificate
SECONDS = 60.0  # between checkpoints
OPTIMISER_STEPS, OPTIMISER_LR = 500, 0.05  # of Adam, for the chains that start at optima


def sampler(model: Model) -> MAMS:
    """The chains that make the references of a model."""
    return METHOD if model.features <= FEW else replace(METHOD, trajectory=1.0, proposals=0)


class NotCertified(Exception):
    """A reference that cannot be certified, or whose making failed; the message says why. In most cases the chains were
    run for as long as allowed."""


@dataclass(frozen=True)
class Task:
    """A reference to make: of one replica of a dataset, in `folder`.

    mcse: the largest Monte-Carlo standard error in data and gap, in stds of f.
    """

    name: str
    dataset: Dataset
    model: Model
    replica: int
    folder: Path
    device: str = "cpu"
    method: MAMS = METHOD
    mcse: float = MAX_MCSE
    seed: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """The task as recipes, to send it to its process by pickle."""
        return _task, tuple(recipe(getattr(self, one.name)) for one in fields(self))


def _task(*parts: Any) -> Task:
    return Task(*map(made, parts))


@dataclass(frozen=True)
class Run:
    """The progress of a task: the chains' state, their trace and components since burn-in, seconds spent.

    laws: mean and std of f on the test grid, and std of the noise there if it is learned; (2 or 3, chains, draws, M).
    """

    state: State
    trace: Trace
    laws: Tensor
    seconds: float

    def chains(self, past: int, draws: int) -> Chains:
        """The components of the draws from `past` to `draws`."""
        mean, std, *noise = self.laws[:, :, past:draws].double().cpu().numpy()
        energy = self.trace.potential[0, :, past:draws].cpu().numpy()
        return Chains(mean, std, energy, noise[0] if noise else None)


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
    data, name = task.dataset.problems([task.replica], task.seed), f"{task.name} replica {task.replica}"
    reason = refusal(task.model)
    if reason is not None:
        raise NotCertified(f"{name}: {reason}")
    key = key_of(data, 0, task.model)
    path = path_of(key, task.folder)
    with suppress(Refused):
        if find(data, 0, task.model, task.folder) is not None:
            return path
    task.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = path.with_name(f".{path.stem}.checkpoint")
    generator = torch_stream(task.device, "reference", key, canonical(describe(task.method)))
    run, method = _begun(task, data, checkpoint, generator, tell), task.method
    what = {
        "format": FORMAT,
        "key": key,
        "dataset": repr(task.dataset),
        "replica": task.replica,
        "seed": task.seed,
        "model": repr(task.model),
        "mcse": task.mcse,
        "starts": f"half at draws of the prior, half after {OPTIMISER_STEPS} steps of Adam",
        "device": torch.cuda.get_device_name() if task.device.startswith("cuda") else "CPU",
        "torch": metadata.version("torch"),
    }
    regions = {region: mask[0].numpy() for region, mask in data.regions.items()}
    while True:
        run = _ended(task, method, data, run, checkpoint, generator, tell)
        past = _until_last_divergence(run.trace, method.draws)
        missing = task.method.draws - (method.draws - past)
        if missing > 0:
            shortfalls = [f"a trajectory diverged, {past} after burn-in: all up to it count as burn-in"]
        else:
            chains = run.chains(past, method.draws)  # a checkpoint of a longer run has more draws
            reference = reference_of(chains, {**what, **_cost(run), "method": repr(method), "left out": past})
            found = measured(chains, reference, regions)
            shortfalls = problems(found, task.mcse)
        if not shortfalls:
            break
        why = "; ".join(shortfalls)
        if method.draws >= MAX_DRAWS:
            raise NotCertified(f"{name}: {why}")
        tell(f"{name}: {method.draws} draws a chain are too few: {why}")
        more = max(missing, round((GROWTH - 1) * method.draws))
        method = replace(method, draws=min(MAX_DRAWS, method.draws + more))
    numbers, text = replace(reference, about={**reference.about, "certificate": found}).files()
    put(path.with_suffix(".npz"), numbers)
    put(path, text)
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
        "acceptance": round(float(run.trace.acceptance.mean()), 4),
        "step size": float(run.state.tuning.log_mean[0, 0].exp()),
        "gradient evaluations": int(run.state.gradients[0]),
        "seconds": round(run.seconds),
    }


def _begun(task: Task, data: Problems, checkpoint: Path, generator: Generator, tell: Callable[[str], None]) -> Run:
    """The run to continue: that of the checkpoint, or a new run."""
    if checkpoint.exists():
        try:
            run = _read(checkpoint, _maker(task), generator, task.device)
            tell(f"{task.name} replica {task.replica}: going on from {run.state.steps} trajectories")
            return run
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            tell(f"{checkpoint} cannot be gone on with ({error}): beginning anew")
    began, chains, target = time.monotonic(), task.method.chains, task.method.target(task.model)
    x, y, x_test = (part.to(task.device) for part in data.inputs)
    inputs, half = (x.unsqueeze(1), y.unsqueeze(1)), chains // 2
    optima = target.optima(target.start(generator, (1, chains - half)), *inputs, OPTIMISER_STEPS, OPTIMISER_LR)
    q = torch.cat([target.prior_draws(generator, (1, half)), optima], 1)
    laws = q.new_empty(3 if isinstance(task.model.noise_std, Noise) else 2, chains, 0, x_test.shape[1])
    state = start(task.method, target, q, x, y)
    return Run(state, Trace.empty((1, chains), 0, task.device), laws, time.monotonic() - began)


def _ended(
    task: Task,
    method: MAMS,
    data: Problems,
    run: Run,
    checkpoint: Path,
    generator: Generator,
    tell: Callable[[str], None],
) -> Run:
    """The run at the end of `method`'s trajectories; writes checkpoints on the way."""
    began, earlier, target = time.monotonic(), run.seconds, method.target(task.model)
    assert isinstance(target, Collapsed)
    saved = began
    states: list[State] = []
    laws: list[Tensor] = []
    x, y, x_test = (part.to(task.device) for part in data.inputs)
    inputs = [part.expand(method.chains, *part.shape[1:]) for part in (x, y, x_test)]
    for state in _states(method, target, x, y, run.state, generator):
        states.append(state)
        if state.steps > method.burn_in:
            laws.append(torch.stack(target.law(state.point.q[0], *inputs)[: len(run.laws)]))
        now = time.monotonic()
        if now - saved > SECONDS or state.steps == method.steps:
            past = [state for state in states if state.steps > method.burn_in]
            grown = torch.cat([run.laws, torch.stack(laws, 2)], 2) if laws else run.laws
            run = Run(state, run.trace.joined(past), grown, earlier + now - began)
            states, laws, saved = [], [], now
            _save(checkpoint, run, _maker(task), generator)
            tell(
                f"{task.name} replica {task.replica}: {state.steps} of {method.steps} trajectories, "
                f"acceptance {float(state.acceptance.mean()):.2f}, step {float(state.tuning.log_mean.exp().mean()):.2e}"
            )
    return run


def _states(
    method: MAMS, target: Collapsed, x: Tensor, y: Tensor, state: State, generator: Generator
) -> Iterator[State]:
    """The states of a run. After a divergence its steps are half as long: all before it counts as burn-in."""
    while state.steps < method.steps:
        for after in method.walk(target, x, y, state, generator):
            state = after
            diverged = state.steps > method.burn_in and bool(state.diverged.any())
            if diverged:
                tuning = replace(state.tuning, log_mean=state.tuning.log_mean - math.log(2))
                state = replace(state, tuning=tuning)
            yield state
            if diverged:
                break


def _save(path: Path, run: Run, maker: str, generator: Generator) -> None:
    state, tuning = run.state, run.state.tuning
    tensors = {"laws": run.laws, "generator": generator.get_state()}
    tensors |= {f"state {name}": value for name, value in vars(state).items() if isinstance(value, Tensor)}
    tensors |= {f"point {name}": value for name, value in vars(state.point).items()}
    tensors |= {f"tuning {name}": value for name, value in vars(tuning).items() if isinstance(value, Tensor)}
    tensors |= {f"trace {name}": value for name, value in vars(run.trace).items()}
    arrays = {name: value.cpu().numpy() for name, value in tensors.items()}
    arrays |= {"maker": np.array(maker), "numbers": np.array([state.steps, tuning.count, run.seconds])}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    put(path, buffer.getvalue())


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
    tuning = Tuning(**part("tuning "), count=int(count))
    state = State(steps=int(steps), point=Point(**part("point ")), tuning=tuning, **part("state "))
    return Run(state, Trace(**part("trace ")), tensors["laws"].to(device), seconds)
