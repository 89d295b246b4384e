"""The report of a results folder: the numbers of the folder, and what its records say of each row."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapbench.evaluation.report import report
from gapbench.evaluation.report_page import page
from gapbench.evaluation.results import Result
from gapbench.evaluation.tables import number
from gapbench.runners import publish
from gapbench.runners.load import Collected
from gapbench.runners.store import key_of
from gapbench.runners.suites import suites

Known = dict[tuple[str, str], list[tuple[str, str]]]


def default_file(folder: Path) -> Path:
    """The file of a folder's report: in the folder, but beside no published files, which stay as they were checked."""
    published = (folder / publish.MANIFEST).is_file()
    return Path(f"{folder.name}-report.html").absolute() if published else folder / "report.html"


def write(found: Collected, folder: Path, path: Path) -> None:
    """Write the report of what was collected from a folder."""
    manifest = folder / publish.MANIFEST
    origin = [("folder", folder.name)]
    suite = folder.name
    if manifest.is_file():
        read = publish.read_manifest(folder)
        suite = read["suite"]
        known: Known = {
            (one["dataset"], one["method"]): _facts(one["content"], [record["key"] for record in one["records"]])
            for one in read["results"]
        }
        seeds = {one["seed"] for one in read["datasets"]}
        origin += [("sha256 of the manifest", hashlib.sha256(manifest.read_bytes()).hexdigest())]
    else:
        records = publish.records_of(folder, found.results)
        identities = {place: [record.identity for record in own] for place, own in records.items()}
        known = {
            place: _facts(own[0]["method"]["content"], [key_of(one) for one in own])
            for place, own in identities.items()
            if own
        }
        seeds = {one["seed"] for own in identities.values() for one in own}
    origin += [("seed", ", ".join(map(str, sorted(seeds))))]
    for result in found.results:
        command = _command(result, suite, max(seeds))
        if command:
            known.setdefault((result.dataset, result.method), []).append(("run again", command))
    notes = [*found.notes, *(f"Left out: {line}" for line in found.damaged)]
    path.write_text(page(report(found.results, suite, known, notes, origin)), encoding="utf-8", newline="\n")


def _facts(content: Mapping[str, Any], keys: list[str]) -> list[tuple[str, str]]:
    return [("settings", settings(content)), ("record" + ("s" if len(keys) > 1 else ""), ", ".join(keys))]


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
