"""The options of `gapbench run` that say how cells are run: limits, engine, shards, and what to do about failures."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from gapbench.runners.cli.console import adding
from gapbench.runners.cli.errors import UserError

if TYPE_CHECKING:
    from gapbench.runners.cell import Cell
    from gapbench.runners.engines import Engine
    from gapbench.runners.workers import Limits

SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
BYTES = {"": 1} | {f"{unit}{byte}": 1024**power for power, unit in enumerate("kmgt", 1) for byte in ("", "b", "ib")}
LEAST = 2**30  # bytes: torch alone holds half of it
KEPT = sys.platform == "linux"  # whether the system keeps --memory

OPTIONS = (
    click.option(
        "--timeout", metavar="TIME", help="Stop a cell that takes longer, such as 90s, 10m, 2h; it has failed."
    ),
    click.option(
        "--memory", metavar="SIZE", help="A cell that needs more, such as 4G, has failed. Only Linux keeps it."
    ),
    click.option(
        "--engine",
        default="local",
        show_default=True,
        metavar="ENGINE",
        help="Where cells run: local; dask (a dask cluster on this machine); dask=tcp://HOST:PORT (one that runs); "
        "slurm, pbs, sge or lsf (jobs of a batch scheduler). All share the folder --out.",
    ),
    click.option(
        "--engine-option",
        "engine_options",
        multiple=True,
        metavar="KEY=VALUE",
        help="With a batch scheduler: queue, walltime, memory, workers, minimum and others; a wrong key lists them.",
    ),
    click.option("--per-device", type=click.IntRange(min=1), default=1, help="On CUDA: cells at once on each device."),
    click.option("--shard", metavar="K/N", help="Only the K-th of N parts of the cells, of about equal cost."),
    click.option("--dry-run", is_flag=True, help="Only tell which cells there are, what is done, and what it costs."),
    click.option("--retry-failed", is_flag=True, help="Try again all cells that failed before."),
    click.option("-x", "--stop-at-failure", is_flag=True, help="Stop at the first failure."),
)

how_options = adding(OPTIONS)


@dataclass(frozen=True)
class How:
    """How the user wants cells to be run; the fields are the options."""

    timeout: str | None
    memory: str | None
    engine: str
    engine_options: tuple[str, ...]
    per_device: int
    shard: str | None
    dry_run: bool
    retry_failed: bool
    stop_at_failure: bool

    def check(self) -> None:
        """Raises UserError for what makes no sense, before anything heavy is imported."""
        number("--timeout", self.timeout, SECONDS, "a time above 0, such as 90s, 10m or 2h")
        number("--memory", self.memory, BYTES, "a size of at least 1G, such as 4G", LEAST)
        self.part()
        if not re.fullmatch(r"local|dask|dask=(tcp|tls|ucx|ws|wss)://[^\s/]+:\d+|slurm|pbs|sge|lsf", self.engine):
            raise UserError(
                f"--engine {self.engine!r}: expected local, dask, dask=tcp://HOST:PORT, slurm, pbs, sge or lsf"
            )
        if self.engine_options and self.engine not in ("slurm", "pbs", "sge", "lsf"):
            raise UserError(f"--engine-option: it is of a batch scheduler, not of --engine {self.engine}")
        if self.per_device > 1 and self.engine != "local":
            raise UserError(f"--per-device: it is of --engine local, not of --engine {self.engine}")
        self.options()

    @property
    def limits(self) -> Limits:
        from gapbench.runners.workers import Limits

        memory = number("--memory", self.memory, BYTES, "", LEAST)
        return Limits(number("--timeout", self.timeout, SECONDS, ""), None if memory is None else int(memory))

    @property
    def unkept(self) -> bool:
        """Whether there is a limit that this system does not keep. Workers elsewhere may."""
        return self.memory is not None and self.engine in ("local", "dask") and not KEPT

    def part(self) -> tuple[int, int] | None:
        """The shard and how many there are."""
        if self.shard is None:
            return None
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.shard)
        which, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= which <= count:
            raise UserError(f"--shard {self.shard!r}: expected K/N with K from 1 to N, such as 3/64")
        return which, count

    def slots(self, device: str, jobs: int) -> list[str]:
        """A device for each cell that may run at a time."""
        from gapbench.runners.devices import device_named, devices

        if self.engine != "local":
            return [device]  # the workers look for themselves
        return devices(device_named(device), jobs, self.per_device)

    def at_once(self, slots: Sequence[str], jobs: int) -> int | None:
        """How many cells run at a time; None if the engine decides."""
        if self.engine == "local":
            return len(slots)
        return None if self.engine.startswith("dask=") else int(self.options().get("workers", [str(jobs)])[0])

    def options(self) -> dict[str, list[str]]:
        """The options of a batch scheduler. Raises UserError."""
        from gapbench.runners.engines import options_of

        try:
            return options_of(self.engine_options)
        except ValueError as error:
            raise UserError(str(error)) from error

    @contextmanager
    def engine_for(self, cells: Sequence[Cell], jobs: int, tell: Callable[[str], None]) -> Iterator[Engine | None]:
        """The engine; None for this process's own children. tell: is told what is waited for. Raises EngineError."""
        if self.engine == "local":
            yield None
            return
        from gapbench.runners.costs import expected
        from gapbench.runners.engines import dask

        seconds = max(map(expected, cells), default=0.0)
        with dask(self.engine, jobs, self.options(), seconds, self.limits, tell) as engine:
            yield engine


def number(option: str, text: str | None, units: dict[str, int], expected: str, least: float = 0.0) -> float | None:
    """The number that a word such as 10m means. Raises UserError."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    unit = units.get(match[2]) if match else None
    value = float(match[1]) * unit if match and unit else 0.0
    if value <= 0 or value < least or value > 1e15:
        raise UserError(f"{option} {text!r}: expected {expected}")
    return value
