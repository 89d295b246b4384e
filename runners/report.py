"""The report of a results folder: the numbers of the folder, and what its records say of each row."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapbench.evaluation.report import report
from gapbench.evaluation.report_board import About
from gapbench.evaluation.report_page import page
from gapbench.evaluation.results import Result
from gapbench.evaluation.tables import number
from gapbench.runners import publish
from gapbench.runners.description import description
from gapbench.runners.load import NONSENSE, Collected
from gapbench.runners.plan import Status, status
from gapbench.runners.store import Damaged, Store, StoreError, key_of, put, sha256
from gapbench.runners.suites import suites


@dataclass(frozen=True)
class Origin:
    """Where a row comes from. identities: of its records, without names; there is one at least. keys: of these
    records."""

    identities: list[Mapping[str, Any]]
    keys: list[str]

    @property
    def identity(self) -> Mapping[str, Any]:
        """What all records share, and the first one's block of replicas."""
        return self.identities[0]

    @property
    def seed(self) -> int:
        return int(self.identity["seed"])


def default_file(folder: Path) -> Path:
    """The file of a folder's report: in the folder, but not beside published files, which are tracked and listed."""
    published = (folder / publish.MANIFEST).is_file()
    return Path(f"{folder.name}-report.html").absolute() if published else folder / "report.html"


def write(found: Collected, folder: Path, path: Path, refresh: int = 0) -> None:
    """Write the report of what was collected from a folder. refresh: seconds after which a browser reads it again."""
    manifest = folder / publish.MANIFEST
    whole = [("folder", folder.name)]
    if manifest.is_file():
        name = publish.read_manifest(folder)["suite"]
        whole.append(("sha256 of its manifest", sha256(manifest.read_bytes())))
    else:
        name = folder.name
    from_records = origins(folder, found)
    whole.append(("seed", ", ".join(map(str, sorted({one.seed for one in from_records.values()})))))
    for dataset, own in {dataset: own for (dataset, _), own in from_records.items()}.items():
        whole.append((f"data of {dataset}", settings(own.identity["dataset"]["content"])))
        whole.append((f"network on {dataset}", settings(own.identity["model"])))
    known: dict[tuple[str, str], About] = {}
    for result in found.results:
        place = result.dataset, result.method
        if place in from_records:
            own = from_records[place]
            facts = [("settings", settings(own.identity["method"]["content"])), ("records", ", ".join(own.keys))]
            facts += [("run again", command)] if (command := _command(result, name, own.seed)) else []
            known[place] = _about(result, name, facts)
    notes = [*found.notes, *(f"Left out: {line}" for line in found.damaged)]
    text = page(report(found.results, name, known, notes, whole), progress(planned(folder)), refresh)
    put(path, text.encode())


def planned(folder: Path) -> Status | None:
    """What has become of the run that was planned in a folder; None if none was."""
    with suppress(StoreError):
        return status(Store(folder))
    return None


def progress(found: Status | None) -> str:
    """How much of a run is done, as a sentence; nothing if that is not known."""
    return f"{len(found.done)} of {found.total} cells are done." if found else ""


def origins(folder: Path, found: Collected) -> dict[tuple[str, str], Origin]:
    """Where each row of a folder comes from: (dataset, method) -> origin."""
    published = (folder / publish.MANIFEST).is_file()
    return _published(publish.read_manifest(folder)) if published else _local(folder, found)


def _about(result: Result, name: str, facts: list[tuple[str, str]]) -> About:
    """What the file of a method says of it, if the suite of this name has the method."""
    suite = suites().get(name)
    method = {**suite.methods, **suite.on_request}.get(result.method) if suite else None
    if method is None:
        return About(facts=facts)
    told = description(method)
    said = [("it is", told.title), ("claim on linear regression", told.claim), ("when it fails", told.caveat)]
    return About(told.family, told.expected, [*((term, words) for term, words in said if words), *facts])


def _published(manifest: Mapping[str, Any]) -> dict[tuple[str, str], Origin]:
    datasets = {one["name"]: one for one in manifest["datasets"]}

    def identity(result: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
        dataset = datasets[result["dataset"]]
        return {
            "dataset": {"content": dataset["content"], "sha256": record["data"]},
            "method": {name: result[name] for name in ("content", "code")},
            "metrics": manifest["metrics"],
            **{name: dataset[name] for name in ("model", "seed")},
            **{name: record[name] for name in ("block", "references")},
        }

    return {
        (one["dataset"], one["method"]): Origin(
            [identity(one, record) for record in one["records"]], [record["key"] for record in one["records"]]
        )
        for one in manifest["results"]
    }


def _local(folder: Path, found: Collected) -> dict[tuple[str, str], Origin]:
    """Nothing if a record is damaged: the page says so, and its rows are those that were sound."""
    known: dict[tuple[str, str], Origin] = {}
    try:
        records_of = publish.records_of(folder, found.results)
    except (StoreError, Damaged, *NONSENSE):
        return known
    for place, records in records_of.items():
        identities = [record.identity for record in records]
        if identities:
            known[place] = Origin(identities, [key_of(one) for one in identities])
    return known


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
