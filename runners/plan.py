"""The plan of a run: which cells it was asked for, and what of them is done, runs, failed or waits."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gapbench.runners.cell import Cell, early_key
from gapbench.runners.costs import expected
from gapbench.runners.store import BEAT, Damaged, Store, StoreError, first_line

SILENT = 4 * BEAT  # seconds without a sign of life after which a cell counts as lost


def write_plan(store: Store, cells: Sequence[Cell], asked: Mapping[str, Any], shards: int | None = None) -> None:
    """Write down the cells of a run, and what was asked. shards: how many runs share them.

    Raises StoreError if other runs share the folder for other cells: one of them would wait for cells that nobody runs.
    """
    planned = []
    for cell in cells:
        with suppress(Exception):  # a cell without content fails by itself
            planned.append({"key": cell.early_key, "title": cell.title, "seconds": expected(cell)})
    body = {"asked": dict(asked), "cells": planned, "shards": shards}
    for other in store.plans() if shards else ():
        same = all(other[name] == body[name] for name in ("cells", "shards"))
        if other["shards"] and not same:
            raise StoreError(
                f"{store.root}: it has {other['shards']} shards of a run with other cells or settings "
                f"({_words(other['asked'])}): give the same options to all shards, or another --out"
            )
    store.plan(body)


def _words(asked: Mapping[str, Any]) -> str:
    """What a run was asked for, as far as it was said."""
    said = {name: value for name, value in asked.items() if value not in (None, [])}
    return ", ".join(
        f"{name} {','.join(map(str, value)) if isinstance(value, list) else value}" for name, value in said.items()
    )


@dataclass(frozen=True)
class Running:
    """A cell that is being computed. since: when it began, in UTC. silent: seconds since its last sign of life."""

    title: str
    host: str
    since: str
    silent: float


@dataclass(frozen=True)
class Status:
    """What has become of the cells of a folder's plans.

    done, waiting: titles. failed: title -> the last reason, and how often. skipped: title -> reason. damaged: records
    that fail their checksum; they will be made again. spent: CPU seconds of what is done. left: CPU seconds that
    running and waiting cells should take, by what they cost elsewhere and what those that are done cost here.
    """

    done: Sequence[str]
    running: Sequence[Running]
    failed: Mapping[str, str]
    skipped: Mapping[str, str]
    waiting: Sequence[str]
    damaged: Sequence[str]
    spent: float
    left: float

    @property
    def total(self) -> int:
        return sum(map(len, (self.done, self.running, self.failed, self.skipped, self.waiting)))

    @property
    def over(self) -> bool:
        return not (self.running or self.waiting)


def status(store: Store) -> Status:
    """What has become of the cells of all plans of a folder. Reads only.

    Raises StoreError if the folder has no plan.
    """
    cells = {cell["key"]: cell for plan in store.plans() for cell in plan["cells"]}
    if not cells:
        raise StoreError(
            f"{store.root}: no run was planned there: expected a folder that `gapbench run` wrote; of one that "
            "`gapbench merge` wrote, `gapbench run --dry-run` tells more"
        )
    costs, damaged = {}, []
    for key in store.keys():  # noqa: SIM118 a store is no dict
        try:
            record = store.record(key)
            costs[early_key(record.identity)] = float(record.provenance.get("cpu seconds", 0))
        except (Damaged, KeyError, TypeError) as error:
            damaged.append(str(error))
    attempts: dict[str, list[Mapping[str, Any]]] = {}
    for key, note in store.attempts():
        attempts.setdefault(key, []).append(note)
    marks = {key: (silent, note) for key, silent, note in store.marks() if _lives(silent, note)}
    reasons = store.skipped()
    done, running, failed, skipped, waiting = [], [], dict[str, str](), dict[str, str](), []
    spent = known = left = 0.0
    for key, cell in cells.items():
        title = cell["title"]
        if key in costs:
            done.append(title)
            spent, known = spent + costs[key], known + cell["seconds"]
        elif key in marks:
            silent, note = marks[key]
            running.append(Running(title, str(note["host"]), str(note["since"]), silent))
            left += cell["seconds"]
        elif key in attempts:
            last, count = attempts[key][-1], len(attempts[key])
            often = f", {count} times" if count > 1 else ""
            failed[title] = f"{last['status']}: {first_line(last['reason'])}{often}{_used(last)}"
        elif key in reasons:
            skipped[title] = reasons[key]
        else:
            waiting.append(title)
            left += cell["seconds"]
    slower = spent / known if spent and known else 1.0
    return Status(done, running, failed, skipped, waiting, damaged, spent, slower * left)


def _used(note: Mapping[str, Any]) -> str:
    """What the process of an attempt used, if it is known."""
    spent = note.get("provenance", {})
    cpu, peak = spent.get("cpu seconds"), spent.get("peak memory (bytes)")
    return "" if cpu is None or peak is None else f" ({cpu:.1f} CPU s, peak {peak / 2**20:.0f} MiB)"


def _lives(silent: float, note: Mapping[str, Any]) -> bool:
    """False if the process of a mark has ended, as far as can be seen from here."""
    if silent > SILENT:
        return False
    if note["host"] == platform.node():
        try:
            os.kill(int(note["process"]), 0)
        except ProcessLookupError:
            return False
        except OSError:  # another user's
            pass
    return True
