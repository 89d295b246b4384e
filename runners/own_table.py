"""One's own table as a suite: the tasks of a file, and the methods that are compared on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gapbench.datasets.own_table import OwnTable, sha256_of, with_a_gap
from gapbench.datasets.table_file import TableError
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.sgld import SGLD
from gapbench.methods.swag import SWAG
from gapbench.runners.suites import WHOLE, Suite, Task, suites

BEST = 5  # features that get a gap, unless more are asked for
MOST_WHOLE = 2000  # training rows up to which methods that need all rows at once are run
SPLITS = 5
LONGEST = 40  # characters of a file's name in the names of its datasets


def suite_of(
    path: Path,
    target: str,
    drop: Sequence[str] = (),
    gap: Sequence[str] = (),
    group: str = "",
    time: str = "",
    impute: bool = False,
    splits: int = SPLITS,
) -> Suite:
    """The suite of a file.

    gap: names of features; "auto" for the five that say most about the target, "all" or "none". Default: "auto", and
    "none" for splits by group or by time. Raises TableError.
    """
    if group and time:
        raise TableError("--group and --time: expected one of them")
    kind = "group" if group else "time" if time else "random"
    base = OwnTable(
        path=str(path),
        sha256=sha256_of(str(path)),
        target=target,
        kind=kind,  # type: ignore[arg-type]
        splits=SPLITS if kind == "random" else splits,  # no part of what random splits are
        drop=tuple(drop),
        impute=impute,
        group=group,
        time=time,
    )
    table = base.table
    if time and splits > len(table.y) // 4:
        raise TableError(f"--replicas {splits}: expected at most {len(table.y) // 4} windows of {len(table.y)} rows")
    if table.groups is not None:
        base = replace(base, splits=max(2, min(splits, int(table.groups.max()) + 1)))
    asked = gap or (["auto"] if kind == "random" else ["none"])
    gaps = tuple(_gaps(asked, list(with_a_gap(table)), list(table.names)))
    stem = re.sub(r"[^\w-]+", "_", path.stem)[:LONGEST]  # so that a folder can have several tables
    datasets = {f"{stem}_{kind}_splits": base}
    if gaps:
        datasets[f"{stem}_gap_splits"] = replace(base, kind="gap", gaps=gaps, splits=SPLITS)
    methods, notes, rows = chosen_methods(), list(table.notes), round(0.9 * len(table.y))
    dear = {name: methods[name] for name in WHOLE} if rows > MOST_WHOLE else {}
    if dear:
        notes.append(
            f"{', '.join(dear)}: not run, since they need all {rows} training rows at once; name them by --methods"
        )
    without = "no gaps" if kind == "random" else f"no gaps; --gap auto adds them to --{kind}"
    notes.append(f"gaps in {', '.join(gaps)}" if gaps else without)
    return Suite(
        f"{path.name}: {len(table.y)} rows, {len(table.names)} features, target {target}",
        {
            name: Task(dataset, dataset.network, replicas=splits if dataset.kind == "random" else None)
            for name, dataset in datasets.items()
        },
        {name: method for name, method in methods.items() if name not in dear},
        replicas=max(splits, len(gaps)),
        on_request=dear,
        block=1 if group or time else 10,  # their splits differ in size
        notes=tuple(notes),
    )


def chosen_methods() -> dict[str, UncertaintyMethod]:
    """The methods of the suite `uci`, without those whose step must follow a noise that nobody knows beforehand."""
    return {name: method for name, method in suites()["uci"].methods.items() if not isinstance(method, SGLD | SWAG)}


def _gaps(asked: Sequence[str], possible: Sequence[str], names: Sequence[str]) -> list[str]:
    """The features that get a gap. Raises TableError."""
    if list(asked) == ["auto"]:
        return list(possible[:BEST])
    if list(asked) == ["all"]:
        return list(possible)
    if list(asked) == ["none"]:
        return []
    for name in asked:
        if any(one.startswith(f"{name} = ") for one in names):
            raise TableError(
                f"--gap {name}: its values are words, which have no middle: expected {', '.join(possible)}"
            )
        if name not in names:
            raise TableError(
                f"--gap {name}: no such feature: expected auto, all, none, or some of {', '.join(possible)}"
            )
        if name not in possible:
            raise TableError(f"--gap {name}: the middle third of the rows has too few values of it to be a gap")
    return list(asked)
