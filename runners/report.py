"""The report of a results folder: the numbers of the folder, and what its records say of each row."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapbench.evaluation.report import report
from gapbench.evaluation.report_page import page
from gapbench.evaluation.results import Result
from gapbench.evaluation.tables import number
from gapbench.runners import publish
from gapbench.runners.load import NONSENSE, Collected
from gapbench.runners.plan import Status, status
from gapbench.runners.store import Store, StoreError, key_of, sha256
from gapbench.runners.suites import suites


@dataclass(frozen=True)
class Origin:
    """Where a row comes from. content: its method as its records describe it. keys: of these records."""

    content: Mapping[str, Any]
    keys: list[str]
    seed: int


def default_file(folder: Path) -> Path:
    """The file of a folder's report: in the folder, but not beside published files, which are tracked and listed."""
    published = (folder / publish.MANIFEST).is_file()
    return Path(f"{folder.name}-report.html").absolute() if published else folder / "report.html"


def write(found: Collected, folder: Path, path: Path, refresh: int = 0) -> None:
    """Write the report of what was collected from a folder. refresh: seconds after which a browser reads it again."""
    manifest = folder / publish.MANIFEST
    whole = [("folder", folder.name)]
    if manifest.is_file():
        read = publish.read_manifest(folder)
        name, origins = read["suite"], _published(read)
        whole.append(("sha256 of its manifest", sha256(manifest.read_bytes())))
    else:
        name, origins = folder.name, _local(folder, found)
    whole.append(("seed", ", ".join(map(str, sorted({one.seed for one in origins.values()})))))
    known = {}
    for result in found.results:
        place = result.dataset, result.method
        if place in origins:
            own = origins[place]
            known[place] = [("settings", settings(own.content)), ("records", ", ".join(own.keys))]
            known[place] += [("run again", command)] if (command := _command(result, name, own.seed)) else []
    notes = [*found.notes, *(f"Left out: {line}" for line in found.damaged)]
    replace(path, page(report(found.results, name, known, notes, whole), progress(planned(folder)), refresh))


def replace(path: Path, text: str) -> None:
    """Put a text in the place of a file at once: a browser that reads it meanwhile has the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def planned(folder: Path) -> Status | None:
    """What has become of the run that was planned in a folder; None if none was."""
    with suppress(StoreError):
        return status(Store(folder))
    return None


def progress(found: Status | None) -> str:
    """How much of a run is done, as a sentence; nothing if that is not known."""
    return f"{len(found.done)} of {found.total} cells are done." if found else ""


def _published(manifest: Mapping[str, Any]) -> dict[tuple[str, str], Origin]:
    seeds = {one["name"]: one["seed"] for one in manifest["datasets"]}
    return {
        (one["dataset"], one["method"]): Origin(
            one["content"], [record["key"] for record in one["records"]], seeds[one["dataset"]]
        )
        for one in manifest["results"]
    }


def _local(folder: Path, found: Collected) -> dict[tuple[str, str], Origin]:
    """Nothing if a record is damaged: the page says so, and its rows are those that were sound."""
    origins: dict[tuple[str, str], Origin] = {}
    try:
        records_of = publish.records_of(folder, found.results)
    except (StoreError, *NONSENSE):
        return origins
    for place, records in records_of.items():
        identities = [record.identity for record in records]
        if identities:
            keys = [key_of(one) for one in identities]
            origins[place] = Origin(identities[0]["method"]["content"], keys, identities[0]["seed"])
    return origins


def settings(content: Any) -> str:
    """What an identity says of a method, as one would write it in Python: `SGLD(lr=0.01, batch=8)`."""
    if isinstance(content, Mapping):
        if set(content) == {"float"}:
            return number(float.fromhex(content["float"]))
        if {"class", "fields"} <= set(content):
            fields = (f"{key}={settings(value)}" for key, value in content["fields"].items())
            return f"{content['class']}({', '.join(fields)})"
        return f"{{{', '.join(f'{key}: {settings(value)}' for key, value in content.items())}}}"
    if isinstance(content, list | tuple):
        return f"[{', '.join(map(settings, content))}]"
    return str(content)


def _command(result: Result, name: str, seed: int) -> str:
    """The command that trains a row again; nothing for a control, or for what the suite of this name does not have."""
    if result.kind != "method" or name not in suites():
        return ""
    suite = suites()[name]
    if result.dataset not in suite.tasks or result.method not in {**suite.methods, **suite.on_request}:
        return ""
    words = ["gapbench", "run", "--suite", name, "--methods", result.method, "--datasets", result.dataset]
    words += ["--replicas", str(len(result.replicas))] if len(result.replicas) != suite.replicas else []
    return shlex.join([*words, *(["--seed", str(seed)] if seed else [])])
