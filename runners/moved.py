"""What moved between two results folders, with what their records say: the same data or not, and what else differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gapbench.evaluation.moved import lacking, moved
from gapbench.evaluation.moved_page import page
from gapbench.evaluation.results import Result
from gapbench.runners.load import Collected
from gapbench.runners.report import Origin, origins, settings
from gapbench.runners.store import canonical, put

NO_RECORDS = (("records", "those of one folder cannot all be read"),)


def write(a: tuple[Collected, Path], b: tuple[Collected, Path], path: Path) -> None:
    """Write the page of what moved between two folders, each with what was collected from it."""
    results, known = [found.results for found, _ in (a, b)], [origins(folder, found) for found, folder in (a, b)]
    old, new = ({(one.dataset, one.method): one for one in side} for side in results)
    pairs = {place: (known[0][place], known[1][place]) for place in known[0] if place in known[1]}
    differs = {}
    for place in (place for place in old if place in new):
        differs[place] = dict(changed(*pairs[place]) if place in pairs else NO_RECORDS)
        before, after = _failed(old[place]), _failed(new[place])
        differs[place] |= {"failed replicas": f"{before} → {after}"} if before != after else {}
    names = tuple(f"{folder.parent.name}/{folder.name}" for _, folder in (a, b))
    notes = [
        f"{letter}: {line}"
        for letter, (found, _) in zip("AB", (a, b), strict=True)
        for line in (*found.notes, *(f"left out: {line}" for line in found.damaged))
    ]
    text = page(
        (names[0], names[1]),
        moved(results[0], results[1], {place: same_data(*pair) for place, pair in pairs.items()}),
        lacking(results[0], results[1]),
        {place: parts for place, parts in differs.items() if parts},
        surroundings(results[0], results[1]),
        notes,
    )
    put(path, text.encode())


def same_data(a: Origin, b: Origin) -> frozenset[int]:
    """The replicas that have the same data in both: of the same dataset and seed, and where both have them in the same
    block, with the same hash."""
    if canonical([a.identity["dataset"]["content"], a.seed]) != canonical([b.identity["dataset"]["content"], b.seed]):
        return frozenset()
    there, other = (
        {r for block, sha256 in own.items() if theirs.get(block, sha256) == sha256 for r in range(*block)}
        for own, theirs in ((_data(a), _data(b)), (_data(b), _data(a)))
    )
    return frozenset(there & other)


def _data(origin: Origin) -> dict[tuple[int, ...], str]:
    """Block of replicas -> the hash of its data."""
    return {tuple(one["block"]): one["dataset"]["sha256"] for one in origin.identities}


def changed(a: Origin, b: Origin) -> Iterator[tuple[str, str]]:
    """What is not the same in the records of both: a name, and how."""
    old, new = a.identity, b.identity
    for name, left, right in (
        ("settings", old["method"]["content"], new["method"]["content"]),
        ("dataset", old["dataset"]["content"], new["dataset"]["content"]),
        ("network", old["model"], new["model"]),
        ("seed", a.seed, b.seed),
        ("scores' definitions", old["metrics"], new["metrics"]),
    ):
        if found := list(differing(left, right)):
            yield name, ", ".join(found)
    if old["method"]["code"] != new["method"]["code"]:
        yield "code", f"{old['method']['code'][:8]} → {new['method']['code'][:8]}"
    if any(_data(b).get(block, sha256) != sha256 for block, sha256 in _data(a).items()):
        yield "data", "the same replicas have other numbers"
    references = [{tuple(one["block"]): canonical(one.get("references")) for one in side.identities} for side in (a, b)]
    if any(references[1].get(block, found) != found for block, found in references[0].items()):
        yield "references", "other reference posteriors"


def differing(a: Any, b: Any, name: str = "") -> Iterator[str]:
    """Where two contents differ: `lr: 0.01 → 0.02`. name: of what they are."""
    if all(isinstance(one, Mapping) and "class" in one for one in (a, b)) and a["class"] == b["class"]:
        left, right = a["fields"], b["fields"]
        for key in dict.fromkeys([*left, *right]):
            inner = f"{name}.{key}" if name else key
            yield from differing(left.get(key, "none"), right.get(key, "none"), inner)
    elif canonical(a) != canonical(b):
        yield (f"{name}: " if name else "") + f"{settings(a)} → {settings(b)}"


def surroundings(a: Sequence[Result], b: Sequence[Result]) -> list[tuple[str, str]]:
    """The machines, versions and commits that only one of them has."""
    left, right = _surroundings(a), _surroundings(b)
    only = [
        (f"only {letter}", ", ".join(word for word in own if word not in other))
        for letter, own, other in (("A", left, right), ("B", right, left))
    ]
    found = [(term, words) for term, words in only if words]
    return found or [("computed on", "the same kind of machine, with the same versions and commit")]


def _surroundings(results: Sequence[Result]) -> dict[str, None]:
    found: dict[str, None] = {}
    for run in (run for result in results for run in result.provenance):
        words = [f"{name} {version}" for name, version in sorted(dict(run.get("versions", {})).items())]
        named = ("python", "commit", "device", "cpu capability", "threads", "cuda")
        words += [f"{name} {run[name]}" for name in named if run.get(name)]
        found |= dict.fromkeys(words)
    return found


def _failed(result: Result) -> str:
    return ", ".join(map(str, sorted(result.failures))) or "none"
