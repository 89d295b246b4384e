"""Makes reference posteriors: long HMC runs that checkpoint, resume, and go on until they are certified."""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from gapbench.datasets.base import Dataset
from gapbench.datasets.streams import torch_stream
from gapbench.evaluation.reference import FORMAT, Reference, certificate, key_of, path_of
from gapbench.methods.hmc import HMC, State, Trace, Tuning, start
from gapbench.methods.model import Model
from gapbench.runners.memory import keep_freed_memory

METHOD = HMC(burn_in=150, draws=500, thin=1)
MORE = 100  # draws a chain, as often as the certificate asks for them
MOST = 3000
SECONDS = 60.0  # between checkpoints


class NotCertified(Exception):
    """The chains were run as long as they may be, and still are no reference; the message says why."""


@dataclass(frozen=True)
class Task:
    """The reference of one replica of a dataset, to be made in `folder`."""

    name: str
    dataset: Dataset
    model: Model
    replica: int
    folder: Path
    device: str = "cpu"
    method: HMC = METHOD
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """How far one is: the chains' state, what they did and f on the test grid since burn-in, seconds spent."""

    state: State
    trace: Trace
    f: Tensor  # (chains, draws, M)
    seconds: float


def make_all(tasks: Sequence[Task], jobs: int, tell: Callable[[str], None]) -> Iterator[Path | NotCertified]:
    """As they are done, `jobs` side by side; what one is does not depend on the others."""
    if jobs == 1 or len(tasks) == 1:
        for task in tasks:
            yield _made(task, tell)
        return
    context = multiprocessing.get_context("spawn")
    lines = context.SimpleQueue()
    with context.Pool(min(jobs, len(tasks)), _alone, (lines,)) as pool:  # left early, it ends its processes
        results = [pool.apply_async(_made_aside, (task,)) for task in tasks]
        while results:
            for result in [result for result in results if result.ready()]:
                results.remove(result)
                yield result.get()
            while not lines.empty():
                tell(lines.get())
            time.sleep(0.1)


_lines: Any = None  # of a worker process: where what it tells goes


def _alone(lines: Any) -> None:
    """In a worker process: one thread, and an interrupt is the parent's to handle."""
    global _lines
    _lines = lines
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _made_aside(task: Task) -> Path | NotCertified:
    return _made(task, _lines.put)


def _made(task: Task, tell: Callable[[str], None]) -> Path | NotCertified:
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        return make(task, tell)
    except NotCertified as error:
        return error


def make(task: Task, tell: Callable[[str], None] = lambda line: None) -> Path:
    """The file of this reference, made if it is not there. Killed at any point, the next call goes on from the last
    checkpoint, to the same bits. Raises NotCertified."""
    splits, method, model = task.dataset.splits([task.replica], task.seed), task.method, task.model
    key = key_of(splits, 0, model)
    path = path_of(key, task.folder)
    checkpoint = path.with_name(f".{path.stem}.checkpoint")
    if path.exists():
        return path
    task.folder.mkdir(parents=True, exist_ok=True)
    there = splits.to(task.device)
    generator = torch_stream(task.device, "reference", key, method)
    theta = model.init(generator, (1, method.chains))
    nothing = theta.new_empty(method.chains, 0, splits.x_test.shape[1])
    run = Run(start(method, theta), Trace.empty((1, method.chains), 0, task.device), nothing, 0.0)
    if checkpoint.exists():
        run = _read(checkpoint, generator, task.device)
        beyond = max(0, run.f.shape[1] - method.draws)
        method = replace(method, draws=method.draws + MORE * math.ceil(beyond / MORE))
    began = saved = time.monotonic()
    earlier = run.seconds

    def ahead(run: Run, states: list[State], f: list[Tensor]) -> Run:
        grown = torch.cat([run.f, torch.stack(f, 1)], 1) if f else run.f
        last = states[-1] if states else run.state
        past = [state for state in states if state.steps > method.burn_in]
        return Run(last, run.trace.joined(past), grown, earlier + time.monotonic() - began)

    while True:
        states: list[State] = []
        f: list[Tensor] = []
        for state in method.walk(model, there.x, there.y, run.state, generator):
            states.append(state)
            if state.steps > method.burn_in:
                f.append(model.mean(state.theta[0], there.x_test[0]))
            if time.monotonic() - saved > SECONDS:
                run, states, f, saved = ahead(run, states, f), [], [], time.monotonic()
                _save(checkpoint, run, generator)
                tell(
                    f"{task.name} replica {task.replica}: {state.steps} of {method.steps} trajectories, "
                    f"acceptance {float(state.acceptance.mean()):.2f}, step {float(state.tuning.log_mean.exp()):.2e}"
                )
        run = ahead(run, states, f)
        _save(checkpoint, run, generator)
        regions = {region: mask[0] for region, mask in splits.regions.items()}
        found = certificate(run.f, regions, int(run.trace.diverged.sum()))
        if not found["problems"]:
            break
        tell(f"{task.name} replica {task.replica}, {method.draws} draws a chain: {'; '.join(found['problems'])}")
        if found["divergences"] or method.draws >= MOST:
            raise NotCertified(f"{task.name} replica {task.replica}: {'; '.join(found['problems'])}")
        method = replace(method, draws=method.draws + MORE)
    about = {
        "format": FORMAT,
        "key": key,
        "dataset": repr(task.dataset),
        "replica": task.replica,
        "seed": task.seed,
        "model": repr(model),
        "method": repr(method),
        "certificate": found,
        "diagnostics": {name: float(value[0]) for name, value in run.trace.diagnostics.items()},
        "gradient evaluations": int(run.state.gradients[0]),
        "seconds": round(run.seconds),
        "device": torch.cuda.get_device_name() if task.device.startswith("cuda") else "CPU",
        "torch": metadata.version("torch"),
    }
    _write(path, Reference.of(run.f, about).bytes())
    checkpoint.unlink(missing_ok=True)
    return path


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _save(path: Path, run: Run, generator: Generator) -> None:
    state, tuning = run.state, run.state.tuning
    tensors = {"f": run.f, "generator": generator.get_state()}
    tensors |= {f"state {name}": value for name, value in vars(state).items() if isinstance(value, Tensor)}
    tensors |= {f"tuning {name}": value for name, value in vars(tuning).items() if isinstance(value, Tensor)}
    tensors |= {f"trace {name}": value for name, value in vars(run.trace).items()}
    numbers = np.array([state.steps, tuning.count, run.seconds])
    buffer = io.BytesIO()
    np.savez(buffer, numbers=numbers, **{name: value.cpu().numpy() for name, value in tensors.items()})  # type: ignore[arg-type]
    _write(path, buffer.getvalue())


def _read(path: Path, generator: Generator, device: str) -> Run:
    with np.load(path, allow_pickle=False) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    generator.set_state(tensors["generator"])

    def part(prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): value.to(device) for name, value in tensors.items() if name.startswith(prefix)
        }

    steps, count, seconds = tensors["numbers"].tolist()
    state = State(steps=int(steps), tuning=Tuning(**part("tuning "), count=int(count)), **part("state "))
    return Run(state, Trace(**part("trace ")), tensors["f"].to(device), seconds)
