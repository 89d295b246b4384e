"""Runs that are killed again and again, by SIGKILL at random moments: what is lost, and what is left behind.

    python timings/survival.py [--kills 20] [--engines local,dask,shards] [--seed 0]

Each engine computes the same cells. A kill hits the run itself or any process that it started: a child that trains,
the server that forks them, a worker or a scheduler of dask, one of three shards. A run that was killed, or that ended
with a failed cell, is started again by the same command, until all cells are there. Counted are:

    kills        processes killed
    lost         committed records that a later run changed or took away (0 expected)
    again        trainings of cells more than once (a kill can cost what was running)
    orphans      processes that a killed run left behind after a minute (0 expected)
    same bits    whether every record has the arrays of a run that nobody disturbed
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gapbench.runners.store import Store

REPLICAS = 30  # in blocks of ten
PATIENCE = 60.0  # seconds after which a process that is left behind is an orphan
ENTRY = "from gapbench.runners.cli.main import main; main()"
ENGINES = {
    "local": [("--jobs", "2")],
    "dask": [("--engine", "dask", "--jobs", "2")],
    "shards": [("--jobs", "1", "--shard", f"{which}/3") for which in (1, 2, 3)],
}
METHODS = """
import os, time
from dataclasses import dataclass
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.methods.mc_dropout import MCDropout


@dataclass(frozen=True, kw_only=True)
class Sine(GappedSine):
    n: int = 12
    noise_std: float = 0.1
    test_points: int = 13


@dataclass(frozen=True)
class First(MCDropout):
    steps: int = 20
    draws: int = 5

    def fit(self, model, x, y, generator):
        with open(os.environ["TRAINED"], "a") as file:
            file.write("x")
        time.sleep(0.4)
        return super().fit(model, x, y, generator)


@dataclass(frozen=True)
class Second(First):
    rate: float = 0.2


@dataclass(frozen=True)
class Third(First):
    rate: float = 0.3
"""


@dataclass
class Figures:
    """What kills did to one engine's runs."""

    engine: str
    kills: int = 0
    lost: int = 0
    again: int = 0
    orphans: int = 0
    same_bits: bool = False
    runs: int = 0
    outputs: list[str] = field(default_factory=list)


def survive(engine: str, kills: int, folder: Path, undisturbed: Path, rng: random.Random) -> Figures:
    """Run until all cells are there, with this many kills on the way. undisturbed: a folder with all of them."""
    figures, store, trained = Figures(engine), Store(folder / "results"), folder / "trained"
    whole = contents(Store(undisturbed))
    committed: dict[str, bytes] = {}
    while True:
        figures.runs += 1
        logs = [folder / f"{engine}-{figures.runs}-{number}.txt" for number in range(len(ENGINES[engine]))]
        started = [
            start(folder, store.root, ("--retry-failed", *words), log)
            for words, log in zip(ENGINES[engine], logs, strict=True)
        ]
        if figures.kills < kills:
            # As soon as so many records are there, and a moment later.
            enough = min(len(store.keys()) + rng.randrange(3), len(whole) - 1)
            until(lambda: len(store.keys()) >= enough or ended(started))  # noqa: B023
            time.sleep(rng.uniform(0, 1))
            for _ in range(rng.choice((1, 1, 2))):
                if figures.kills < kills and kill_one(rng.choice(started).pid, rng):
                    figures.kills += 1
        for run in started:
            with suppress(subprocess.TimeoutExpired):
                run.wait(4 * PATIENCE)
        figures.outputs += [log.read_text() for log in logs]
        until(lambda: not any(session(run.pid) for run in started))  # noqa: B023
        for run in started:
            for left in session(run.pid):
                figures.orphans += 1
                figures.outputs.append(f"left behind: {command_of(left)}")
                with suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
        now = {key: store.path(key).read_bytes() for key in store.keys()}  # noqa: SIM118
        figures.lost += sum(now.get(key) != data for key, data in committed.items())
        committed = now
        if contents(store).keys() == whole.keys() and figures.kills >= kills:
            break
        if contents(store).keys() == whole.keys():  # done before all kills were dealt out: some cells are taken away
            for key in rng.sample(sorted(committed), len(committed) // 2):
                figures.again -= store.record(key).kind == "method"
                store.path(key).unlink()
                del committed[key]
    figures.again += len(trained.read_text()) - sum(record.kind == "method" for record in store.records())
    figures.same_bits = contents(store) == whole and not store.set_aside_damaged()
    return figures


def contents(store: Store) -> dict[str, dict[str, str]]:
    """The key of every record, with the hashes of its arrays."""
    return {key: dict(store.record(key).arrays) for key in store.keys()}  # noqa: SIM118


def start(folder: Path, results: Path, words: tuple[str, ...], log: Path) -> subprocess.Popen[bytes]:
    """A run."""
    file = folder / "methods.py"
    if not file.exists():
        file.write_text(METHODS)
    chosen = ",".join(f"{file}:{name}" for name in ("First", "Second", "Third"))
    command = ["run", "--methods", chosen, "--datasets", f"{file}:Sine", "--replicas", str(REPLICAS), "--device", "cpu"]
    return launch([*command, "--out", str(results), *words], {"TRAINED": str(folder / "trained")}, log)


def launch(words: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """`gapbench WORDS` in a session of its own."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", ENTRY, *words],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            start_new_session=True,
        )


def ended(runs: list[subprocess.Popen[bytes]]) -> bool:
    return all(run.poll() is not None for run in runs)


def kill_one(leader: int, rng: random.Random) -> bool:
    """Kill the run, or any process that it started. False if nothing of it is left."""
    there = sorted(session(leader))
    if not there:
        return False
    with suppress(ProcessLookupError):
        os.kill(leader if leader in there and rng.random() < 0.4 else rng.choice(there), signal.SIGKILL)
    return True


def session(leader: int) -> set[int]:
    """The processes of a session, but for those that have ended and wait to be asked after."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, of, *_ = path.read_text().rpartition(")")[2].split()
            if int(of) == leader and state != "Z":
                found.add(int(path.parent.name))
    return found


def command_of(process: int) -> str:
    """The command line of a process, and its parent."""
    with suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
        return f"{process}, child of {Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[1]}: {words}"
    return str(process)


def until(what: Callable[[], bool]) -> None:
    """Wait for something, at most PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)


def undisturbed_run(folder: Path) -> Path:
    """The results folder of a run that nobody disturbs."""
    run = start(folder, folder / "results", ("--jobs", "2"), folder / "undisturbed.txt")
    if run.wait() != 0:
        raise SystemExit((folder / "undisturbed.txt").read_text())
    return folder / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "undisturbed").mkdir()
        undisturbed = undisturbed_run(root / "undisturbed")
        print(f"{'engine':8} {'runs':>5} {'kills':>6} {'lost':>5} {'again':>6} {'orphans':>8}  same bits")
        for engine in options.engines.split(","):
            (root / engine).mkdir()
            (root / engine / "methods.py").write_text(METHODS)
            found = survive(engine, options.kills, root / engine, undisturbed, random.Random(options.seed))
            print(
                f"{engine:8} {found.runs:5} {found.kills:6} {found.lost:5} {found.again:6} {found.orphans:8}  "
                f"{'yes' if found.same_bits else 'no'}",
                flush=True,
            )
            print("\n".join(line for line in found.outputs if line.startswith("left behind")), end="", flush=True)


if __name__ == "__main__":
    main()
