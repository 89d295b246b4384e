"""Published results: small, checked before they are opened, and good for every table and figure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gapbench.datasets.base import Layout
from gapbench.evaluation.bootstrap import estimate
from gapbench.evaluation.entries import Kind
from gapbench.evaluation.plots import plot
from gapbench.evaluation.render import markdown
from gapbench.evaluation.results import Result, tidy
from gapbench.evaluation.scores import METRICS_VERSION
from gapbench.evaluation.tables import everything, tabulate
from gapbench.runners import load, publish
from gapbench.runners.store import Record, Store, StoreError, key_of

PUBLISHED = Path(__file__).resolve().parent.parent / "results" / "published"
X = np.linspace(-6, 6, 241)
GRID = Layout("grid", 0)
REGIONS = {"data": (np.abs(X) >= 1) & (np.abs(X) <= 4), "gap": np.abs(X) < 1, "extrapolation": np.abs(X) > 4}


def commit(
    store: Store,
    method: str,
    *,
    kind: Kind = "method",
    dataset: str = "sine",
    first: int = 0,
    count: int = 5,
    spread: float = 1.0,
    failures: Mapping[int, str] | None = None,
    layout: Layout = GRID,
    units: float = 1.0,
) -> str:
    """One block's record, with arrays like a real run's; returns its key. Failed replicas are nan."""
    rng = np.random.default_rng([len(method), first])
    grid = layout.points == "grid"
    x = X if grid else X[[60, 120, 230]]
    shape = (count, len(x))
    std = spread * (0.05 + 0.3 * np.exp(-(x**2))) * (1 + 0.2 * rng.random((count, 1)))
    middle = np.sin(x) + std * rng.standard_normal((count, 1))
    points = {
        "f_50": units * middle,
        **{f"f_{level:02}": units * (middle + z * std) for level, z in ((5, -1.6), (25, -0.7), (75, 0.7), (95, 1.6))},
        "std_f": units * std,
        "crps_y": units * np.abs(middle - np.sin(x)),
        "rmse_f": units * np.abs(middle - np.sin(x)),
        "pit_y": rng.random(shape),
        "pit_f": rng.random(shape) ** 2,
        "rhat": np.full(shape, np.nan),
        "rhat_limit": np.full(shape, np.nan),
    }
    replicas = list(range(first, first + count))
    for values in points.values():
        values[np.isin(replicas, list(failures or {}))] = np.nan
    own = [np.random.default_rng(replica) for replica in replicas]  # the same data for every method
    masks = REGIONS if grid else {name: np.arange(3) == at for at, name in enumerate(REGIONS)}
    arrays = {
        **{f"point {name}": values for name, values in points.items()},
        **{f"region {name}": np.tile(mask, (count, 1)) for name, mask in masks.items()},
        "region of its own": np.arange(shape[1]) % (np.array(replicas)[:, None] + 2) == 0,
        "grid x": np.stack([data.random((40, 1)) for data in own]).astype(np.float32),
        "grid y": np.stack([data.random(40) for data in own]).astype(np.float32),
        "grid x_test": np.tile(x[:, None], (count, 1, 1)).astype(np.float32),
        "grid f_test": np.tile(np.sin(x), (count, 1)).astype(np.float32) * units,
    }
    identity = {
        "dataset": {"name": dataset, "content": {"class": "Sine", "n": 40}, "sha256": "0" * 64},
        "model": {"class": "MLP"},
        "method": {"name": method, "content": {"steps": 3}, "code": "1" * 64},
        "block": [first, first + count],
        "seed": 0,
        "metrics": METRICS_VERSION,
        "references": None,
    }
    store.write(
        key_of(identity),
        Record(
            identity,
            kind,
            "MixturePrediction",
            replicas,
            {"predictions": "2" * 64, "points": store.save(arrays)},
            layout,
            None,
            {"steps": [float(replica) + 0.1 for replica in replicas]} if kind == "method" else {},
            {str(replica): reason for replica, reason in (failures or {}).items()},
            {
                "finished": f"2026-01-01T00:00:{first:02}",
                "seconds": 1.25,
                "cpu seconds": 1.0,
                "device": "CPU",
                "versions": {"torch": "1", "gapbench": "2"},
            },
        ),
    )
    return key_of(identity)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A results folder with two data sets, blocks, a failed replica and controls; and what was published of it."""
    root = tmp_path_factory.mktemp("suite")
    store = Store(root / "full")
    commit(store, "sgld")
    commit(store, "sgld", first=5, failures={7: "diverged"})
    commit(store, "svi", count=10, spread=0.3, failures={0: "diverged"})
    commit(store, "reference", kind="reference", first=2, count=3)
    commit(store, "prior", kind="baseline", count=10, spread=20)
    commit(store, "sgld", dataset="tasks", count=30, layout=Layout("tasks"), units=1e5)
    publish.publish(root / "full", root / "small")
    return root / "full", root / "small"


def pairs(folders: tuple[Path, Path]) -> list[tuple[Result, Result]]:
    return list(zip(load.results(folders[0]), publish.read_published(folders[1]), strict=True))


def test_what_is_read_is_what_was_published(folders: tuple[Path, Path]) -> None:
    """Names, kinds, replicas, layouts, failures, masks; scores and diagnostics to float32, PITs and curves to 16 bits
    of their range, stds to three digits. Seen to catch: replicas by position, scores of another region, a curve
    shifted by a point, failed replicas that come back as numbers, the range of one replica for all."""
    for full, small in pairs(folders):
        assert (small.dataset, small.method, small.kind, small.status) == (
            full.dataset,
            full.method,
            full.kind,
            full.status,
        )
        assert small.layout == full.layout and small.failures == full.failures
        np.testing.assert_array_equal(small.replicas, full.replicas)
        pd.testing.assert_frame_equal(
            tidy([small]), tidy([full]).astype({"value": np.float32}).astype({"value": np.float64})
        )
        for name in ("pit_y", "pit_f"):
            np.testing.assert_allclose(small.pits[name], full.pits[name], rtol=0, atol=1e-5)
        assert {name: mask.tolist() for name, mask in small.regions.items()} == {
            name: mask.tolist() for name, mask in full.regions.items()
        }
        if full.layout.points != "grid":
            assert small.curves == {}
            continue
        kept = ~np.isnan(small.curves["f_50"]).all(0)
        assert kept.sum() == 121 and kept[0] and kept[-1]
        for name in ("f_05", "f_25", "f_50", "f_75", "f_95", "f_test"):
            ours, theirs = small.curves[name][:, kept], full.curves[name][:, kept]
            width = np.nanmax(full.curves["f_95"]) - np.nanmin(full.curves["f_05"])
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * width)
        np.testing.assert_allclose(small.curves["std_f"][:, kept], full.curves["std_f"][:, kept], rtol=1e-3)
        np.testing.assert_array_equal(small.curves["x_test"], full.curves["x_test"])
        shown = int(full.sound.argmax())  # the replica that the figure shows
        for name in ("x", "y"):
            np.testing.assert_array_equal(small.curves[name][shown], full.curves[name][shown])


def test_a_method_is_added_to_what_is_published(
    folders: tuple[Path, Path], tmp_path: Path, blank_figures: None
) -> None:
    """Run and published alone, and added to the others: the same numbers, curves, records and pages as of all at once.

    Seen to catch: the published version kept of a method that was run again, records of the wrong machine, training
    data overwritten by nan, curves at other points, results and arrays in different orders.
    """
    full, small = folders
    for name in ("sgld", "svi"):
        shutil.copytree(full, tmp_path / name)
        for key in Store(tmp_path / name).keys():  # noqa: SIM118
            record = Store(tmp_path / name).record(key)
            if (record.identity["method"]["name"] == "svi") != (name == "svi"):
                Store(tmp_path / name).path(key).unlink()
    publish.publish(tmp_path / "sgld", tmp_path / "published")
    publish.publish(tmp_path / "svi", tmp_path / "published", add=True)
    for file in (publish.SCORES, publish.README, publish.MANIFEST, publish.CURVES):
        ours, theirs = (folder / file for folder in (tmp_path / "published", small))
        if file == publish.CURVES:
            with np.load(ours) as one, np.load(theirs) as other:
                assert list(one) == list(other)
                for name in one:
                    np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-6, err_msg=name)
        elif file == publish.MANIFEST:
            one, other = (json.loads(path.read_text()) for path in (ours, theirs))
            assert {**one, "suite": "", "sha256": ""} == {**other, "suite": "", "sha256": ""}
        else:
            assert ours.read_bytes().replace(b"published", b"small") == theirs.read_bytes(), file


def test_other_data_and_other_scores_are_not_added(
    folders: tuple[Path, Path], tmp_path: Path, blank_figures: None
) -> None:
    """And what is published stays as it is. Seen to catch: each check left out; the published row of a method that was
    run again; records of another machine."""
    full, published = folders[0], tmp_path / "published"
    shutil.copytree(folders[1], published)
    before = (published / publish.MANIFEST).read_bytes()
    for name, value in (("metrics", METRICS_VERSION - 1), ("datasets", None)):
        manifest = json.loads(before)
        if value is None:
            manifest["datasets"][0]["content"]["n"] = 41
        manifest[name] = value or manifest[name]
        (published / publish.MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(StoreError, match="without --add"):
            publish.publish(full, published, add=True)
    (published / publish.MANIFEST).write_bytes(before.replace(b'"device":"CPU"', b'"device":"GPU"'))
    assert commit(Store(tmp_path / "again"), "svi", count=10, spread=0.5)
    publish.publish(tmp_path / "again", published, add=True)
    devices = {one.method: one.provenance[0]["device"] for one in publish.read_published(published)}
    assert devices == {"sgld": "GPU", "svi": "CPU", "reference": "GPU", "prior": "GPU"}
    std = {one.method: np.nanmax(one.curves["std_f"]) for one in publish.read_published(published) if one.curves}
    (again,) = load.results(tmp_path / "again")
    assert std["svi"] == pytest.approx(np.nanmax(again.curves["std_f"]), rel=1e-3)


def test_tables_and_figures_are_made_of_what_was_published(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The same columns and lines, values within the rounding of five digits, pooled scores too; the figures of the
    folder. Seen to catch: the summary's columns lost (those of held-out rows shown), PITs of another result."""
    full, small = (list(one) for one in zip(*pairs(folders), strict=True))
    for ours, theirs in zip(tabulate(small), tabulate(full), strict=True):
        assert ours.columns == theirs.columns
        assert [line.label for line in ours.lines] == [line.label for line in theirs.lines]
    for one, other in zip(small, full, strict=True):
        for column in everything([other]):
            valid = other.valid(column)
            np.testing.assert_array_equal(one.valid(column), valid)
            assert estimate(one, column, valid) == pytest.approx(
                estimate(other, column, valid), rel=1e-5, abs=1e-5, nan_ok=True
            )
    drawn = plot(small, tmp_path)
    names = [f"sine_{name}.png" for name in ("bands", "std", "calibration")] + ["tasks_calibration.png"]
    assert [path.name for path in drawn.paths] == names
    assert sorted(path.name for path in (folders[1] / "figures").iterdir()) == sorted(names)


def test_the_manifest_says_what_the_results_are(folders: tuple[Path, Path]) -> None:
    """The records' keys and arrays, contents, seeds, machines once, failures. Seen to catch: records in the order of
    their keys, a block's key left out, the machine repeated for every record."""
    manifest = publish.read_manifest(folders[1])
    store = Store(folders[0])
    recorded = [record for one in manifest["results"] for record in one["records"]]
    assert sorted(record["key"] for record in recorded) == store.keys()
    for record in recorded:
        assert record["arrays"] == dict(store.record(record["key"]).arrays)
    sgld = next(one for one in manifest["results"] if (one["dataset"], one["method"]) == ("sine", "sgld"))
    assert [record["block"] for record in sgld["records"]] == [[0, 5], [5, 10]]
    assert sgld["content"] == {"steps": 3} and sgld["code"] == "1" * 64 and sgld["failures"] == {"7": "diverged"}
    assert len(manifest["machines"]) == 1 and manifest["machines"][0]["versions"]["torch"] == "1"
    sine = next(one for one in manifest["datasets"] if one["name"] == "sine")
    assert sine["layout"] == {"points": "grid", "feature": 0} and sine["replicas"] == [[0, 9]]
    assert (manifest["suite"], manifest["metrics"], sine["seed"]) == ("small", METRICS_VERSION, 0)


def test_lists_of_references_stand_once(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """And come back to their records; format 1, which has them there, is read too; a number without a list is said.
    Seen to catch: the list of another record, a list for each record."""
    shutil.copytree(folders[1], tmp_path / "x")
    path, manifest = tmp_path / "x" / publish.MANIFEST, publish.read_manifest(folders[1])
    records = [record for one in manifest["results"] for record in one["records"]]
    for at, record in enumerate(records):
        record["references"] = [None, ["a" * 64, None], ["b" * 64]][at % 3]
    for text in (publish._text(manifest), json.dumps({**manifest, "format": 1})):
        path.write_text(text)
        assert publish.read_manifest(tmp_path / "x") == {**manifest, "format": json.loads(text)["format"]}
    assert len(records) > 3 and publish._text(manifest).count("a" * 64) == 1
    path.write_text(publish._text(manifest).replace('"references":1', '"references":2'))
    with pytest.raises(StoreError, match=r"manifest\.json: IndexError"):
        publish.read_manifest(tmp_path / "x")


def test_the_readme_beside_the_data_shows_every_region(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary, every region, and figures that are there; of many results only the headlines. Seen to catch: images
    seen from another folder, a long page with every number, a command of another folder."""
    text = (folders[1] / publish.README).read_text(encoding="utf-8")
    assert markdown(tabulate(publish.read_published(folders[1]))) in text
    assert all(f"### {region}" in text for region in ("all", *REGIONS))
    assert "![sine_bands](figures/sine_bands.png)" in text
    results = publish.read_published(folders[1])
    monkeypatch.setattr(publish, "LINES", len(results) - 1)
    long = publish.page(folders[1], results)
    assert "### gap" not in long and markdown(tabulate(results)) not in long
    assert f"`gapbench table results/published/{folders[1].name} --columns summary --intervals`" in long
    start = text.index("## The numbers")
    assert long[:start] == text[:start]


def test_publishing_twice_gives_the_same_bytes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """And leaves no figure that is no longer drawn. Seen to catch: the time of day in the archive, old figures kept."""
    again = tmp_path / "small"
    (again / "figures").mkdir(parents=True)
    (again / "figures" / "old.png").touch()
    written = publish.publish(folders[0], again)
    here = {path.relative_to(folders[1]): path.read_bytes() for path in folders[1].rglob("*") if path.is_file()}
    there = {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    assert there == here and {path.relative_to(again) for path in written} == set(there)


def test_what_is_published_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves lose points before a suite passes its limit; figures stay below theirs. Seen to catch: the first attempt
    kept."""
    store = Store(tmp_path / "full")
    for name in ("a", "bb", "ccc"):
        commit(store, name, count=10)
    monkeypatch.setattr(publish, "DATASET", 0)
    sizes = []
    for limit in (None, 60_000):
        with monkeypatch.context() as patch:
            if limit is None:
                patch.setattr("gapbench.evaluation.plots._bytes", lambda *_: b"")  # those of the second are looked at
            else:
                patch.setattr(publish, "SUITE", limit)
            publish.publish(tmp_path / "full", tmp_path / "small")
        sizes.append((tmp_path / "small" / publish.CURVES).stat().st_size)
        [result, *_] = publish.read_published(tmp_path / "small")
        assert np.isfinite(result.curves["f_50"]).any()
    assert sizes[1] < sizes[0] < 100_000
    figures = list((tmp_path / "small" / "figures").iterdir())
    assert figures and all(path.stat().st_size <= publish.FIGURE for path in figures)


def test_of_too_many_methods_only_the_replica_of_their_panels_has_quantiles(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that did not fail; stds and scores stay. Seen to catch: replica 0 though it failed, a limit that
    counts the methods of other datasets, stds that are taken away too."""
    full, small = folders
    monkeypatch.setattr(publish, "PANELS", 1)
    publish.publish(full, tmp_path / "thin")
    for many, few in zip(publish.read_published(small), publish.read_published(tmp_path / "thin"), strict=True):
        for name, curve in many.curves.items():
            left = np.isfinite(few.curves[name]).any(-1)
            if name[2:].isdigit() and np.isfinite(curve).any():
                assert np.flatnonzero(left).tolist() == [many.sound.argmax()], (many.method, name)
            elif name == "std_f":
                np.testing.assert_array_equal(few.curves[name], curve)
        assert few.scores.keys() == many.scores.keys()


@pytest.mark.parametrize("name", [publish.SCORES, publish.CURVES, publish.MANIFEST])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "swapped"])
def test_damage_is_one_clear_line(folders: tuple[Path, Path], tmp_path: Path, name: str, damage: str) -> None:
    """Before a file is opened. Seen to catch: the hash not looked at, a manifest that is another JSON."""
    shutil.copytree(folders[1], tmp_path / "x")
    path = tmp_path / "x" / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = data.find(b"sha256") if name == publish.MANIFEST else len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"flipped": flipped, "cut": data[: len(data) // 2], "swapped": b"[1]"}[damage])
    with pytest.raises(StoreError, match="x: damaged: ") as caught:
        publish.read_published(tmp_path / "x")
    assert "\n" not in str(caught.value)


def vouch(path: Path) -> None:
    """Have the manifest say what a file now holds."""
    manifest = json.loads((path.parent / publish.MANIFEST).read_text())
    manifest["sha256"][path.name] = publish.sha256(path.read_bytes())
    (path.parent / publish.MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", [publish.SCORES, publish.CURVES])
def test_what_the_manifest_vouches_for_is_looked_at_too(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """Scores with a list for a name, an archive that was cut before its hash was taken. Seen to catch: a traceback from
    parquet or zip."""
    shutil.copytree(folders[1], tmp_path / "x")
    path = tmp_path / "x" / name
    if name == publish.SCORES:
        pq.write_table(pa.table({"dataset": [[1.0]]}), path)
    else:
        path.write_bytes(path.read_bytes()[:-100])
    vouch(path)
    with pytest.raises(StoreError, match="x: damaged: its files do not fit together") as caught:
        publish.read_published(tmp_path / "x")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numbers that are none
@pytest.mark.parametrize("name", [publish.SCORES, publish.CURVES])
def test_bytes_that_changed_are_one_clear_line(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """Wherever they stand, and although the manifest vouches for them. Seen to catch: an OSError of parquet, a
    zlib.error."""
    shutil.copytree(folders[1], tmp_path / "x")
    path, rng = tmp_path / "x" / name, np.random.default_rng(0)
    before, damaged = np.frombuffer(path.read_bytes(), np.uint8), 0
    for _ in range(60):
        changed, at = before.copy(), rng.integers(len(before) - 8)
        changed[at : at + 8] = rng.integers(0, 256, 8)
        path.write_bytes(changed.tobytes())
        vouch(path)
        try:
            publish.read_published(tmp_path / "x")
        except StoreError as error:
            damaged += "\n" not in str(error)
    assert damaged > 20


def test_no_pickle_is_opened(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Even if the manifest vouches for it. Seen to catch: allow_pickle=True."""
    shutil.copytree(folders[1], tmp_path / "x")
    np.savez(tmp_path / "x" / publish.CURVES, **{"dataset 0/region data": np.array([{}], dtype=object)})
    vouch(tmp_path / "x" / publish.CURVES)
    with pytest.raises(StoreError, match="allow_pickle=False"):
        publish.read_published(tmp_path / "x")


def test_a_published_folder_is_read_like_any_other(folders: tuple[Path, Path]) -> None:
    """By `load`. Seen to catch: the manifest not looked for."""
    frame = load.load(folders[1])
    assert set(frame["method"]) == {"sgld", "svi", "reference", "prior"} and len(frame) == len(load.load(folders[0]))


def test_a_newer_format_is_said(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Seen to catch: the format not looked at."""
    shutil.copytree(folders[1], tmp_path / "x")
    manifest = json.loads((tmp_path / "x" / publish.MANIFEST).read_text())
    (tmp_path / "x" / publish.MANIFEST).write_text(json.dumps({**manifest, "format": publish.FORMAT + 1}))
    with pytest.raises(StoreError, match="newer gapbench"):
        publish.read_published(tmp_path / "x")


@pytest.mark.one_file
def test_the_published_results_fit_a_repository() -> None:
    """950 kB a suite beside its README, or 90 kB a dataset, 60 kB a figure, 8 MB in all. Seen to catch: arrays of a
    whole run published."""
    files = [path for path in PUBLISHED.rglob("*") if path.is_file()]
    assert files and sum(path.stat().st_size for path in files) <= 8_000_000
    assert all(path.stat().st_size <= publish.FIGURE for path in files if path.suffix == ".png")
    for manifest in PUBLISHED.glob(f"*/{publish.MANIFEST}"):
        parts = (manifest.parent / name for name in (publish.MANIFEST, publish.SCORES, publish.CURVES))
        assert sum(path.stat().st_size for path in parts) <= publish.room(json.loads(manifest.read_text()))
