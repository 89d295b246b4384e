"""Published results: the tracked part of a results folder, small enough for git, enough for every table and figure.

manifest.json    the list of the records, with the sha256 of everything they depend on and of the two files below
scores.parquet   the scores and diagnostics of every replica, float32, rounded to five digits
curves.npz       PITs, and the curves that figures draw, in 16 bits
README.md        the tables
figures/*.png
"""

from __future__ import annotations

import io
import json
import lzma
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gapbench.datasets.base import Layout
from gapbench.evaluation.drawing import PANELS, by_scores_alone
from gapbench.evaluation.notebooks import all_headlines
from gapbench.evaluation.render import markdown, markdown_headlines, markdown_runs
from gapbench.evaluation.results import Column, Result, rounded, tidy
from gapbench.evaluation.scores import METRICS_VERSION
from gapbench.evaluation.tables import everything, run_table, sentences, tabulate
from gapbench.runners.store import Record, Store, StoreError, canonical, key_of, sha256

FORMAT = 2
MANIFEST, SCORES, CURVES, README = "manifest.json", "scores.parquet", "curves.npz", "README.md"
FIGURE = 60_000  # the largest size of a figure, in bytes
SUITE, DATASET = 950_000, 90_000  # bytes for the manifest and the two files together: of these two the larger sum
LINES = 30  # results of which a page shows every number; a page of more shows the headlines alone
ROWS = 20  # points of a replica and region whose PITs are kept, where they are thinned
POINTS = (121, 81, 61, 41, 31)  # points of a curve; the largest number that fits is used
UNKNOWN = 2**16 - 1  # the code of nan
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("dataset", "method")),
        ("replica", pa.int32()),
        *((name, pa.string()) for name in ("region", "score")),
        ("value", pa.float32()),
    ]
)
SPENT = ("seconds", "cpu seconds", "peak memory (bytes)")  # fields that differ between blocks of one machine

Arrays = dict[str, NDArray[Any]]


def publish(folder: Path, published: Path, add: bool = False, keys: Collection[str] | None = None) -> list[Path]:
    """Write the tracked part of a results folder. Returns the files written; the suite is named after their folder.

    add: keep what is published of other methods. keys: of the records that are published; None for all. Raises
    StoreError if the folder is empty or holds something damaged, or if what is published has other data or scores.
    """
    from gapbench.runners import load  # which imports this module

    results = thinned(load.results(folder, keys))
    described = _described(folder, results, keys)
    manifest = {"format": FORMAT, "suite": published.name, "metrics": METRICS_VERSION, **described}
    choice: Sequence[int] = POINTS
    if add:
        kept = _joined(manifest, published)
        choice = _points(kept) or POINTS
        results = thinned(load.ordered([*results, *kept]))
        places = [(result.dataset, result.method) for result in results]
        manifest["results"].sort(key=lambda one: places.index((one["dataset"], one["method"])))
        manifest["datasets"].sort(key=lambda one: one["name"])
    return write(published, manifest, results, choice)


def write(published: Path, manifest: dict[str, Any], results: Sequence[Result], choice: Sequence[int]) -> list[Path]:
    """Write the files of a published folder. choice: numbers of points of a curve; the first with which the files are
    not too large is used, or the last. Returns the files written."""
    from gapbench.evaluation.plots import plot  # imported here: it loads matplotlib, which readers do not need

    scores = _scores(results)
    for points in choice:
        curves = _curves(results, points)
        manifest["sha256"] = {SCORES: sha256(scores), CURVES: sha256(curves)}
        words = _text(manifest)
        if len(words.encode()) + len(scores) + len(curves) <= room(manifest):
            break
    published.mkdir(parents=True, exist_ok=True)
    written = [published / name for name in (SCORES, CURVES, MANIFEST, README)]
    for path, data in zip(written, (scores, curves, words.encode()), strict=False):
        path.write_bytes(data)
    readable = read_published(published)  # tables and figures show the published numbers
    for path in (published / "figures").glob("*.png"):
        path.unlink()
    drawn = plot(readable, published / "figures", limit=FIGURE)
    written[-1].write_text(page(published, readable), encoding="utf-8", newline="\n")
    return written + drawn.paths


def thinned(results: Sequence[Result]) -> list[Result]:
    """Results with what tables and figures need.

    If only scores are drawn, they have no curves; then, and of held-out rows, they have the PITs of about ROWS points a
    replica and region, evenly spaced, from which pooled scores are computed. Of too many methods for a figure of bands
    the quantiles of the replica that a method's own panel shows are left.
    """
    found = []
    alone, rows = by_scores_alone(results), Counter(result.dataset for result in results)
    for result in results:
        if alone:
            result = replace(result, curves={})
        if rows[result.dataset] > PANELS and result.sound.any():
            others = np.arange(len(result.replicas)) != result.sound.argmax()
            result = replace(
                result, curves={name: _without(curve, others, name) for name, curve in result.curves.items()}
            )
        if alone or result.layout.points == "rows":
            keep = _spread(result)
            pits = {name: part[:, keep] for name, part in result.pits.items()}
            result = replace(result, pits=pits, regions={name: part[:, keep] for name, part in result.regions.items()})
        found.append(result)
    return found


def _without(curve: NDArray[Any], others: NDArray[np.bool_], name: str) -> NDArray[Any]:
    """The curve of this name, nan in these replicas if it is one of the quantiles."""
    return np.where(others[:, None], np.nan, curve) if name[2:].isdigit() else curve


def _spread(result: Result) -> NDArray[np.int64]:
    """The positions of the test points that are kept: about ROWS of each region in the first replica, evenly spaced.
    Held-out rows stand in the same order in all replicas: first those among the data, then those in the gap."""
    kept = [np.zeros(0, np.int64)]
    for mask in result.regions.values() or [result.inside("all")]:
        at = np.flatnonzero(mask.any(0))
        kept.append(at[np.unique(np.linspace(0, len(at) - 1, min(ROWS, len(at))).round().astype(np.int64))])
    return np.unique(np.concatenate(kept))


def room(manifest: Mapping[str, Any]) -> int:
    """The bytes that the manifest and the two files of a suite should not exceed together."""
    return max(SUITE, DATASET * len(manifest["datasets"]))


def read_published(folder: Path) -> list[Result]:
    """The results of a published folder: scores of five digits, PITs and curves in 16 bits.

    Curves are nan at the points that were left out. Training data are nan for the replicas that no figure shows.
    Raises StoreError if a file is missing, or does not match the manifest.
    """
    manifest = read_manifest(folder)
    try:
        frame = pq.read_table(pa.BufferReader(_checked(folder, SCORES, manifest)), schema=SCHEMA).to_pandas()
        with np.load(io.BytesIO(_checked(folder, CURVES, manifest)), allow_pickle=False) as archive:
            arrays = dict(archive)
        datasets = {
            one["name"]: (one, _section(arrays, f"dataset {at}/")) for at, one in enumerate(manifest["datasets"])
        }
        groups: dict[Any, dict[Any, NDArray[Any]]] = {}
        values = frame["value"].to_numpy(np.float64)  # with their places: a frame for each score takes a second
        places = frame.groupby(["dataset", "method", "score", "region"], sort=False).indices
        for (*names, score, region), rows in places.items():
            groups.setdefault(tuple(names), {})[score, region] = values[rows]
        return [
            _result(
                one,
                groups[one["dataset"], one["method"]],
                _section(arrays, f"result {at}/"),
                manifest["machines"],
                *datasets[one["dataset"]],
            )
            for at, one in enumerate(manifest["results"])
        ]
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        pa.ArrowException,
    ) as error:
        raise _unreadable(folder, f"its files do not fit together ({type(error).__name__}: {error})") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published folder. Raises StoreError if the manifest is missing, not readable or too new."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        newer = manifest["format"] > FORMAT
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(folder, f"{MANIFEST}: {type(error).__name__}: {error}") from error
    if newer:
        raise StoreError(
            f"{folder} was published by a newer gapbench (format {manifest['format']}; this one reads {FORMAT}): "
            "upgrade gapbench"
        )
    try:
        lists = manifest.pop("references", [])  # format 1 has them in the records
        for record in (record for one in manifest["results"] for record in one["records"]):
            if isinstance(record["references"], int):
                record["references"] = lists[record["references"]]
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise _unreadable(folder, f"{MANIFEST}: {type(error).__name__}: {error}") from error
    return dict(manifest)


def page(folder: Path, results: Sequence[Result]) -> str:
    """The page beside the data, in Markdown: existing figures, headlines, sentences; of few results every number."""
    few = len(results) <= LINES
    images = [path.relative_to(folder).as_posix() for path in sorted((folder / "figures").glob("*.png"))]
    parts = [
        f"# Suite {folder.name}",
        "This page is written by `gapbench publish`. [docs/scores.md](../../../docs/scores.md) explains the columns. "
        f"`{SCORES}` has the scores of every replica; `gapbench table`, `plot` and `export` read this folder.",
        "\n".join(f"![{Path(image).stem}]({image})" for image in images),
        markdown_headlines(all_headlines(results)),
        "## The numbers",
        *(_numbers(results) if few else [_commands(folder)]),
        "\n".join(f"* {sentence}" for sentence in sentences(results)),
        *(_by_region(results) if few else []),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _commands(folder: Path) -> str:
    """The commands that print what a long page leaves out."""
    table = f"gapbench table results/published/{folder.name}"
    return f"`{table} --columns summary --intervals` prints the numbers, `{table} --by region` every score by region."


def _numbers(results: Sequence[Result]) -> list[str]:
    """The tables of the scores that say most, with their intervals, and of the runs."""
    return [markdown(tabulate(results)), markdown_runs(run_table(results))]


def _by_region(results: Sequence[Result]) -> list[str]:
    """The tables of every score, a heading a region."""
    parts = ["## Every score by region"]
    for region in dict.fromkeys(("all", *(name for result in results for name in result.regions))):
        tables = tabulate(results, _in(region), intervals=False)
        parts += [f"### {region}", markdown(tables, intervals=False)] if tables else []
    return parts


def _in(region: str) -> Callable[[Sequence[Result]], Sequence[Column]]:
    """The function that gives the columns of one region."""
    return lambda rows: [column for column in everything(rows) if column[1] == region]


def _unreadable(folder: Path, why: str) -> StoreError:
    return StoreError(f"{folder}: damaged: {' '.join(why.split())}; `git checkout` it, or publish it again")


def _checked(folder: Path, name: str, manifest: Mapping[str, Any]) -> bytes:
    """The bytes of a file, if their sha256 is that of the manifest. Raises StoreError."""
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise _unreadable(folder, f"{name}: {error.strerror}") from error
    if sha256(data) != manifest["sha256"][name]:
        raise _unreadable(folder, f"{name}: its content is not what {MANIFEST} says")
    return data


# The manifest ---------------------------------------------------------------------------------------------------------


def _described(folder: Path, results: Sequence[Result], keys: Collection[str] | None) -> dict[str, Any]:
    """The parts of the manifest that describe the results: datasets, results with their records, machines."""
    shown, machines = records_of(folder, results, keys), list[Mapping[str, Any]]()
    datasets, described = [], []
    for name in dict.fromkeys(result.dataset for result in results):
        rows = [result for result in results if result.dataset == name]
        identity = shown[name, rows[0].method][0].identity
        datasets.append(
            {
                "name": name,
                "content": identity["dataset"]["content"],
                "model": identity["model"],
                "seed": identity["seed"],
                "layout": rows[0].layout.content,
                "summary": rows[0].summary,
                "replicas": _runs(_replicas(rows)),
            }
        )
    for result in results:
        records = shown[result.dataset, result.method]
        method = {name: value for name, value in records[0].identity["method"].items() if name != "name"}
        described.append(
            {
                "dataset": result.dataset,
                "method": result.method,
                "kind": result.kind,
                "status": result.status,
                **method,
                "replicas": _runs(result.replicas),
                "failures": {str(replica): reason for replica, reason in result.failures.items()},
                "records": [_described_record(record, machines) for record in records],
            }
        )
    return {"datasets": datasets, "machines": machines, "results": described}


def _joined(manifest: dict[str, Any], published: Path) -> list[Result]:
    """The published results of methods that the manifest lacks. Adds them, their datasets and machines to it."""
    old = read_manifest(published)
    if old["metrics"] != METRICS_VERSION:
        raise StoreError(
            f"{published}: its scores are of version {old['metrics']}, the new ones of version {METRICS_VERSION}: "
            "publish all methods again, without --add"
        )
    new = {(one["dataset"], one["method"]) for one in manifest["results"]}
    rows = zip(old["results"], read_published(published), strict=True)
    kept = [(one, result) for one, result in rows if (one["dataset"], one["method"]) not in new]
    datasets = {one["name"]: one for one in manifest["datasets"]}
    for one in old["datasets"]:
        now = datasets.setdefault(one["name"], one)
        for part in ("content", "model", "seed", "layout", "summary"):
            if canonical(now[part]) != canonical(one[part]):
                raise StoreError(
                    f"{published}: {one['name']} has another {part} than the new results: publish all methods again, "
                    "without --add"
                )
        both = np.union1d(_unrolled(now["replicas"]), _unrolled(one["replicas"]))
        datasets[one["name"]] = {**now, "replicas": _runs(both)}
    manifest["datasets"] = list(datasets.values())
    machines = manifest["machines"]
    for one, _ in kept:
        own = [old["machines"][record["machine"]] for record in one["records"]]
        for machine in own:
            if machine not in machines:
                machines.append(machine)
        records = [
            {**record, "machine": machines.index(machine)} for record, machine in zip(one["records"], own, strict=True)
        ]
        manifest["results"].append({**one, "records": records})
    return [result for _, result in kept]


def _points(results: Sequence[Result]) -> list[int]:
    """The number of points that published curves have, as a list; no number without curves."""
    curves = [curve for one in results for name, curve in one.curves.items() if name == "std_f" or name[2:].isdigit()]
    return sorted({int(np.isfinite(curve).any(0).sum()) for curve in curves})[-1:]


def _described_record(record: Record, machines: list[Mapping[str, Any]]) -> dict[str, Any]:
    """A short description of a record. Its machine and versions are added to `machines` if they are new."""
    machine = {name: value for name, value in record.provenance.items() if name not in (*SPENT, "finished", "scored")}
    if machine not in machines:
        machines.append(machine)
    identity = record.identity
    return {
        "key": key_of(identity),
        "block": identity["block"],
        "data": identity["dataset"]["sha256"],
        "references": identity.get("references"),
        "arrays": record.arrays,
        "machine": machines.index(machine),
        "finished": record.provenance["finished"],
        **{name: record.provenance[name] for name in SPENT if name in record.provenance},
    }


def records_of(
    folder: Path, results: Sequence[Result], keys: Collection[str] | None = None
) -> dict[tuple[str, str], list[Record]]:
    """The records of each result, in the order of their replicas. keys: those to choose from; None for all."""
    from gapbench.runners import load

    found: dict[tuple[str, str], list[Record]] = {}
    store = Store(folder)
    everything = [store.record(key) for key in (store.keys() if keys is None else sorted(keys))]
    for result in results:
        same = [record for record in everything if record.identity["dataset"]["name"] == result.dataset]
        own = [one for one in load._comparable(same) if one.identity["method"]["name"] == result.method]
        blocks = sorted(load._blocks(own), key=lambda record: record.replicas[0])
        found[result.dataset, result.method] = blocks
    return found


def _runs(replicas: NDArray[np.int64]) -> list[list[int]]:
    """The replica numbers as [first, last] of each run of consecutive numbers."""
    cuts = np.flatnonzero(np.diff(replicas) != 1) + 1
    return [[int(run[0]), int(run[-1])] for run in np.split(replicas, cuts)]


def _unrolled(runs: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.concatenate([np.arange(first, last + 1) for first, last in runs])


def _replicas(rows: Sequence[Result]) -> NDArray[np.int64]:
    return np.unique(np.concatenate([result.replicas for result in rows]))


def _text(manifest: Mapping[str, Any]) -> str:
    """The manifest as JSON with a line for each record, dataset and machine, so that a git diff is easy to read.

    Records of one dataset have the same references: each list of them stands once, and records have its number.
    """
    references: list[Any] = []

    def record(one: Mapping[str, Any]) -> str:
        if (own := one["references"]) is None:
            return canonical(one)
        if own not in references:
            references.append(own)
        return canonical({**one, "references": references.index(own)})

    def listed(items: Iterable[str]) -> str:
        return "[\n" + ",\n".join(items) + "\n]"

    def result(one: Mapping[str, Any]) -> str:
        return canonical({**one, "records": []}).replace(
            '"records":[]', f'"records":{listed(map(record, one["records"]))}'
        )

    parts = {name: canonical(value) for name, value in manifest.items()}
    for name in ("datasets", "machines"):
        parts[name] = listed(map(canonical, manifest[name]))
    parts["results"] = listed(map(result, manifest["results"]))
    parts["references"] = listed(map(canonical, references))
    return "{\n" + ",\n".join(f'"{name}":{part}' for name, part in sorted(parts.items())) + "\n}\n"


# Scores ---------------------------------------------------------------------------------------------------------------


def _scores(results: Sequence[Result]) -> bytes:
    frame = tidy(results).drop(columns="status").astype({"replica": np.int32})
    frame["value"] = rounded(frame["value"].to_numpy())
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pandas(frame, SCHEMA, preserve_index=False)
    named = ["dataset", "method", "region", "score", "replica"]
    pq.write_table(
        table, sink, compression="zstd", compression_level=19, use_dictionary=named, use_byte_stream_split=["value"]
    )
    return bytes(sink.getvalue().to_pybytes())


# Curves and PITs ------------------------------------------------------------------------------------------------------


def _curves(results: Sequence[Result], points: int) -> bytes:
    """The bytes of curves.npz, with at most this number of points in a curve."""
    arrays: Arrays = {}
    for at, name in enumerate(dict.fromkeys(result.dataset for result in results)):
        rows = [result for result in results if result.dataset == name]
        arrays |= {f"dataset {at}/{key}": value for key, value in _of_dataset(rows, points).items()}
    for at, result in enumerate(results):
        arrays |= {f"result {at}/{key}": value for key, value in _of_result(result, points).items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key, value in arrays.items():  # like np.savez, but without the time of day in the file
            member = io.BytesIO()
            np.save(member, value, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy"), member.getvalue(), zipfile.ZIP_LZMA)
    return buffer.getvalue()


def _of_dataset(rows: Sequence[Result], points: int) -> Arrays:
    """The arrays that all methods of a dataset share: masks of the regions. For a grid also the test points, the truth
    at some of these, and the training data of the replicas that figures show."""
    replicas = _replicas(rows)
    shape = (len(replicas), max(result.inside("all").shape[1] for result in rows))
    arrays: Arrays = {}
    for result in rows:
        at = np.searchsorted(replicas, result.replicas)
        for name, mask in result.regions.items():
            arrays.setdefault(f"region {name}", np.zeros(shape, bool))[at, : mask.shape[1]] = mask
    if not _drawable(rows[0]):
        return arrays
    chosen = _chosen(rows[0].layout, shape[1], points)
    arrays["points"] = chosen
    arrays["x_test"] = rows[0].curves["x_test"][0].astype(np.float32)
    shown = np.unique([result.replicas[result.sound.argmax()] for result in rows])
    arrays["shown"] = shown
    for name in ("x", "y", "f_test"):
        if name not in rows[0].curves:
            continue
        wanted = replicas if name == "f_test" else shown
        empty = np.full((len(wanted), *rows[0].curves[name].shape[1:]), np.nan, np.float32)
        for result in rows:
            here = np.isin(result.replicas, wanted)
            at = np.searchsorted(wanted, result.replicas[here])
            values = result.curves[name][here]  # nan where a published result does not have it
            empty[at] = np.where(np.isnan(values), empty[at], values)
        arrays[name] = empty[:, chosen] if name == "f_test" else empty
    return arrays


def _of_result(result: Result, points: int) -> Arrays:
    arrays: Arrays = {name: _coded(pits, 0.0, 1.0) for name, pits in result.pits.items() if not np.isnan(pits).all()}
    if not _drawable(result):
        return arrays
    chosen = _chosen(result.layout, result.curves["x_test"].shape[1], points)
    for of in ("f", "y"):
        names = sorted(name for name in result.curves if name[:2] == f"{of}_" and name[2:].isdigit())
        values = [result.curves[name][:, chosen] for name in names]
        if not names or np.isnan(values).all():
            continue
        low, high = _ends(np.stack(values))
        arrays[f"{of} levels"] = np.array([int(name[2:]) for name in names], np.uint8)
        arrays[f"{of} quantiles"] = np.stack([_smooth(_coded(value, low, high)) for value in values])
        arrays[f"{of} range"] = np.concatenate([low, high], 1)  # (R, 2)
    if np.isfinite(result.curves.get("std_f", np.nan)).any():
        std = result.curves["std_f"][:, chosen]
        largest = _ends(std[None])[1]
        # Figures draw a std on a logarithmic axis. So the ratio to the largest std is kept in float16: three digits.
        arrays["std_f"] = (std / np.where(largest > 0, largest, 1)).astype(np.float16)
        arrays["std_f largest"] = largest
    return arrays


def _result(
    one: Mapping[str, Any],
    values: Mapping[Any, NDArray[Any]],
    own: Arrays,
    machines: Sequence[Mapping[str, Any]],
    dataset: Mapping[str, Any],
    shared: Arrays,
) -> Result:
    """The result from its entry in the manifest, its scores, its arrays, and the arrays of its dataset."""
    replicas = _unrolled(one["replicas"])
    at = np.searchsorted(_unrolled(dataset["replicas"]), replicas)
    regions = {name: mask[at] for name, mask in _section(shared, "region ").items()}
    pits = {name: _decoded(own[name], 0.0, 1.0) for name in ("pit_y", "pit_f") if name in own}
    shape = next((value.shape for value in (*pits.values(), *regions.values())), (len(replicas), 1))
    scores: dict[str, dict[str, NDArray[Any]]] = {}
    for (score, region), numbers in values.items():
        scores.setdefault(score, {})[region] = numbers
    diagnostics = {name: by["run"] for name, by in scores.items() if "run" in by}
    return Result(
        one["dataset"],
        one["method"],
        one["kind"],
        replicas,
        {name: by for name, by in scores.items() if "run" not in by},
        {name: pits.get(name, np.full(shape, np.nan)) for name in ("pit_y", "pit_f")},
        {name: mask[:, : shape[1]] for name, mask in regions.items()},
        _drawn(own, shared, at, replicas) if "points" in shared else {},
        Layout(**dataset["layout"]),
        None if dataset["summary"] is None else tuple((score, region) for score, region in dataset["summary"]),
        diagnostics,
        {int(replica): reason for replica, reason in one["failures"].items()},
        [{**machines[record["machine"]], **record} for record in one["records"]],
    )


def _drawn(own: Arrays, shared: Arrays, at: NDArray[np.int64], replicas: NDArray[np.int64]) -> Arrays:
    """The curves of one result. at: the positions of its replicas among those of the dataset."""
    points, x_test, shown = shared["points"], shared["x_test"].astype(np.float64), shared["shown"]

    def spread(values: NDArray[Any]) -> NDArray[np.float64]:
        full = np.full((len(values), len(x_test)), np.nan)
        full[:, points] = values
        return full

    curves: Arrays = {"x_test": np.tile(x_test, (len(replicas), 1, 1))}
    for name in ("x", "y"):
        curves[name] = np.full((len(replicas), *shared[name].shape[1:]), np.nan)
        curves[name][np.isin(replicas, shown)] = shared[name][np.isin(shown, replicas)]
    if "f_test" in shared:
        curves["f_test"] = spread(shared["f_test"][at])
    for of in ("f", "y"):
        if f"{of} levels" in own:
            low, high = np.split(own[f"{of} range"], 2, axis=1)
            for level, codes in zip(own[f"{of} levels"].tolist(), own[f"{of} quantiles"], strict=True):
                curves[f"{of}_{level:02}"] = spread(_decoded(_rough(codes), low, high))
    if "std_f" in own:
        curves["std_f"] = spread(own["std_f"].astype(np.float64) * own["std_f largest"])
    return curves


def _drawable(result: Result) -> bool:
    """True if figures draw lines over the test points."""
    return result.layout.drawn and "x_test" in result.curves


def _chosen(layout: Layout, number: int, points: int) -> NDArray[np.int64]:
    """The positions of the test points that a curve keeps: evenly spaced among those drawn, both ends included."""
    number = min(number, layout.line or number)
    return np.unique(np.linspace(0, number - 1, min(number, points)).round().astype(np.int64))


def _section(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _ends(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The smallest and the largest finite value of each replica, (R, 1) each; 0 without one. values: (L, R, M)."""
    known = np.isfinite(values)
    low = np.where(known, values, np.inf).min((0, 2), initial=np.inf)[:, None]
    high = np.where(known, values, -np.inf).max((0, 2), initial=-np.inf)[:, None]
    return np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0)


def _coded(values: NDArray[Any], low: Any, high: Any) -> NDArray[np.uint16]:
    """The codes of numbers between low and high, in 16 bits. Numbers that are not finite get the code of nan."""
    width = np.where(np.asarray(high) > low, np.asarray(high) - low, 1.0)
    codes = np.where(np.isfinite(values), (values - low) / width * (UNKNOWN - 1), UNKNOWN)
    return codes.round().astype(np.uint16)


def _decoded(codes: NDArray[np.uint16], low: Any, high: Any) -> NDArray[np.float64]:
    values = low + codes.astype(np.float64) / (UNKNOWN - 1) * (np.asarray(high) - low)
    return np.where(codes == UNKNOWN, np.nan, values)


def _smooth(codes: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The differences of codes along the curve, modulo 2¹⁶. They are small numbers, so their file is small too."""
    return np.diff(codes, axis=-1, prepend=np.uint16(0)).astype(np.uint16)


def _rough(differences: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The codes whose differences `_smooth` gave."""
    return np.cumsum(differences, axis=-1, dtype=np.uint16)
