"""The figures: written, reproducible to the byte, each method told apart, and there whatever is missing."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gapbench.datasets.base import Layout
from gapbench.evaluation.drawing import styles
from gapbench.evaluation.entries import Kind
from gapbench.evaluation.heat_map import MANY
from gapbench.evaluation.plots import (
    BANDS,
    Undrawable,
    bands,
    calibration,
    cost,
    families,
    floors,
    of_tables,
    plot,
    searches,
    stds,
    tuned,
    turned,
)
from gapbench.evaluation.results import Result

X = np.linspace(-3, 3, 25)
REGIONS = {"data": (np.abs(X) >= 1) & (np.abs(X) <= 2), "gap": np.abs(X) < 1, "extrapolation": np.abs(X) > 2}
GRID = Layout("grid", 0)


def make(
    method: str,
    *,
    dataset: str = "sine",
    kind: Kind = "method",
    count: int = 4,
    noisy: bool = True,
    has_f: bool = True,
    units: float = 1.0,
    failures: Mapping[int, str] | None = None,
    regions: Mapping[str, NDArray[np.bool_]] = REGIONS,
    layout: Layout = GRID,
    features: int = 1,
    std: float | None = None,
    w1: float | None = None,
    floor: float = 0.1,
    gradients: float | None = None,
) -> Result:
    """A result of `count` replicas, from 3 on, over a grid in the last feature. Replicas in `failures` are nan."""
    rng = np.random.default_rng(len(method))
    shape, replicas = (count, len(X)), np.arange(count) + 3
    failed = np.isin(replicas, list(failures or {}))
    deviation = np.full(shape, 0.1 * (1 + len(method)) if std is None else std) * (1 + 0.1 * np.cos(X))
    middle = np.sin(X) + 0.1 * rng.standard_normal(shape)
    of = "f" if has_f else "y"
    curves = {
        f"{of}_{level}": units * (middle + z * deviation)
        for level, z in zip(BANDS, (-1.6, -0.7, 0, 0.7, 1.6), strict=True)
    }
    curves |= {"std_f": units * deviation} if has_f else {}
    pits = {"pit_y": rng.random(shape), "pit_f": rng.random(shape)}
    for name, undefined in (("pit_y", not noisy), ("pit_f", not has_f)):
        pits[name][:] = np.nan if undefined else pits[name]
    for value in (*curves.values(), *pits.values()):
        value[failed] = np.nan
    curves["x_test"] = np.concatenate([np.zeros((*shape, features - 1)), np.tile(X[:, None], (count, 1, 1))], 2)
    curves["x"] = rng.uniform(-2, 2, (count, 10, features))
    curves["y"] = units * rng.standard_normal((count, 10))
    curves["f_test"] = units * np.tile(np.sin(X), (count, 1))
    scores = {}
    if w1 is not None:
        near, far = np.where(failed, np.nan, w1), np.where(failed, np.nan, 2 * w1)
        scores["reference_w1"] = {"data": near, "gap": far}
        scores["reference_w1_mc_error"] = {region: np.full(count, floor) for region in ("data", "gap")}
    diagnostics = {} if gradients is None else {"gradient evaluations": np.full(count, gradients)}
    masks = {name: np.tile(mask, (count, 1)) for name, mask in regions.items()}
    return Result(
        dataset, method, kind, replicas, scores, pits, masks, curves, layout, None, diagnostics, failures or {}
    )


def full() -> list[Result]:
    return [
        make("sgld"),
        make("newcomer", failures={3: "diverged", 5: "not finite"}),
        make("svi", failures=dict.fromkeys(range(3, 7), "diverged")),
        make("prior", kind="baseline"),
        make("truth", kind="oracle", std=0.0),
        make("sgld", dataset="step", noisy=False),
    ]


def check_png(path: Path) -> None:
    """Its signature, and every chunk with its own checksum from IHDR to IEND: a picture of some size."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds = 8, []
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            width, height = struct.unpack(">II", body[:8])
            assert width > 200 and height > 150
        kinds.append(kind)
        at += 12 + length
    assert kinds[0] == b"IHDR" and kinds[-1] == b"IEND" and b"IDAT" in kinds


def colours(figure: Figure) -> dict[str, set[str]]:
    """Legend label or panel title -> the colours drawn under it."""
    found: dict[str, set[str]] = {}
    for ax in figure.axes:
        for line in ax.get_lines():
            name = str(line.get_label())
            name = name if not name.startswith("_") else ax.get_title().partition(",")[0]
            found.setdefault(name, set()).add(to_hex(line.get_color()).lower())
    return found


# --- Files ------------------------------------------------------------------------------------------------------------


def test_three_figures_a_data_set(tmp_path: Path) -> None:
    """PNG files that are whole, and nothing else in the folder, which need not exist; twice the same bytes, of SVG too.
    Seen to catch: a data set's figures written over another's, the time or the version in the file, the salt of SVG's
    ids left to chance."""
    folder = tmp_path / "new" / "figures"
    drawn = plot(full(), folder)
    names = [f"{dataset}_{name}.png" for dataset in ("sine", "step") for name in ("bands", "std", "calibration")]
    assert [path.name for path in drawn.paths] == names and drawn.skipped == []
    assert sorted(folder.iterdir()) == sorted(drawn.paths)
    for path in drawn.paths:
        check_png(path)
    contents = [path.read_bytes() for path in drawn.paths]
    assert len(set(contents)) == len(contents)
    assert all(b"Software" not in content for content in contents)
    assert [path.read_bytes() for path in plot(full(), tmp_path / "again").paths] == contents
    one, two = (plot([make("sgld")], tmp_path / name, ("svg",)).paths for name in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two] and len(one) == 3


def test_a_limit_is_kept(tmp_path: Path) -> None:
    """By fewer colours, and then by fewer pixels; still a whole picture. Seen to catch: the first attempt kept."""
    free = plot([make("sgld")], tmp_path / "free").paths[0].stat().st_size
    bounded = plot([make("sgld")], tmp_path / "small", limit=free // 2).paths
    assert bounded[0].stat().st_size <= free // 2
    check_png(bounded[0])


@pytest.mark.parametrize(
    "results",
    [
        [make("sgld", count=1)],
        [make("sgld", failures={3: "diverged", 4: "diverged", 5: "diverged"})],
        [make("sgld", noisy=False)],
        [make("sgld", regions={})],
        [make("sgld", regions={**REGIONS, "gap": np.zeros(len(X), bool)})],
        [make("certain", std=0.0)],
        [make("truth", kind="oracle", std=0.0)],
        [make("quantiles", has_f=False)],
        [make("sgld", units=1e5, features=3, layout=Layout("grid", 2))],
        [make(str(number)) for number in range(7)],
    ],
    ids=lambda results: f"{results[0].method}-{len(results)}",
)
def test_what_is_missing_is_no_obstacle(results: list[Result], tmp_path: Path) -> None:
    """No error and no warning (which is an error in this test suite), and figures that are whole; what is not drawn is
    said. Seen to catch: 0 panels for the oracle alone, the std of nobody on a logarithmic axis, a KeyError for want of
    a gap, of f."""
    drawn = plot(results, tmp_path)
    assert drawn.paths and len(drawn.paths) + len(drawn.skipped) == 3
    for path in drawn.paths:
        check_png(path)


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    """Held-out rows, tasks, a grid without a feature, too many panels: the figures that make sense, and a sentence for
    each of the others. Failures alone have no figure. Seen to catch: lines drawn over rows in the order of their file,
    a silent omission."""
    for layout, words in ((Layout("rows"), "held-out"), (Layout("tasks"), "task"), (Layout("grid"), "Layout.feature")):
        drawn = plot([make("sgld", layout=layout)], tmp_path)
        assert [path.name for path in drawn.paths] == ["sine_calibration.png"]
        assert [sentence.startswith("sine: no figure of ") for sentence in drawn.skipped] == [True, True]
        assert all(words in sentence for sentence in drawn.skipped)
    with pytest.raises(Undrawable, match="37 methods"):
        bands([make(f"m{number}") for number in range(37)], {})
    bare = make("bare")
    with pytest.raises(Undrawable, match="quantiles"):
        bands([replace(bare, curves={name: bare.curves[name] for name in ("x", "y", "x_test")})], {})
    broken = make("broken", dataset="step", failures=dict.fromkeys(range(3, 7), "diverged"))
    assert broken.status == "failed" and plot([broken], tmp_path).paths == []
    assert len(plot([broken, make("sgld")], tmp_path).paths) == 3


# --- Colours ----------------------------------------------------------------------------------------------------------


def test_methods_are_told_apart() -> None:
    """Sixty by colour and line, by their position alone, and no method like a control; in every data set the same.
    Seen to catch: a hash of the name, a style by the name, positions counted anew in each data set."""
    results = [make(f"method {number}") for number in range(60)] + full()[3:5]
    found = styles(results)
    assert len(set(found.values())) == len(found) == 62
    assert [found[f"method {number}"][0] for number in range(8)] == [
        found[f"method {number}"][0] for number in range(8, 16)
    ]
    renamed = styles([replace(result, method=f"x{result.method}") for result in results])
    assert list(renamed.values()) == list(found.values())
    two = styles([make("a"), make("b"), make("c", dataset="step"), make("b", dataset="step")])
    assert list(two) == ["a", "b", "c"] and len(set(two.values())) == 3


def test_a_method_has_one_colour_everywhere() -> None:
    """In its panel, among the stds and among the calibrations, whichever rows are beside it. Seen to catch: panels all
    of one colour, colours dealt anew in each figure."""
    rows = [result for result in full() if result.dataset == "sine" and result.status != "failed"]
    style = styles(full())
    for shown in (rows, rows[:0:-1]):
        curves, panels, errors = (colours(make_(shown, style)) for make_ in (calibration, bands, stds))
        for result in shown:
            colour = style[result.method][0].lower()
            assert curves[result.label] == {colour}
            if result.kind != "oracle":
                assert errors[result.label] == {colour} and colour in panels[result.label]


# --- What is drawn ----------------------------------------------------------------------------------------------------


def test_the_lines_are_the_scores() -> None:
    """The std's curve is the mean over sound replicas at each x; a calibration curve rises to K/K through the pooled
    PITs of its region, over the diagonal. Seen to catch: nan wherever a replica failed, PITs of all regions, PITs left
    unsorted."""
    result = make("newcomer", failures={4: "diverged"})
    sound, style = [0, 2, 3], styles([result])
    (line,) = stds([result], style).axes[0].get_lines()
    np.testing.assert_allclose(line.get_xdata(), X)
    np.testing.assert_allclose(line.get_ydata(), result.curves["std_f"][sound].mean(0))
    figure = calibration([result], style)
    assert [ax.get_title() for ax in figure.axes] == list(REGIONS)
    for ax, mask in zip(figure.axes, REGIONS.values(), strict=True):
        diagonal, curve = ax.get_lines()[:2]
        np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
        pits = np.sort(result.pits["pit_y"][sound][:, mask].ravel())
        np.testing.assert_array_equal(curve.get_xdata(), [0, *pits, 1])
        np.testing.assert_allclose(curve.get_ydata(), [0, *(np.arange(len(pits)) + 1) / len(pits), 1])
        assert curve.get_drawstyle() == "steps-post"


def test_the_over_confident_side_is_tinted() -> None:
    """PITs of error bars that are too narrow lie above the diagonal at the left and below it at the right. Seen to
    catch: the sides exchanged, a tint that the title does not explain."""
    result = make("narrow")
    result.pits["pit_y"][:] = np.where(result.pits["pit_y"] < 0.5, 0.01, 0.99)
    figure = calibration([result], styles([result]))
    ax = figure.axes[0]
    curve = ax.get_lines()[1]
    for p in (0.1, 0.25, 0.4, 0.6, 0.75, 0.9):
        share = np.interp(p, curve.get_xdata(), curve.get_ydata())
        tinted = [sum(patch.get_path().contains_point((p, q)) for patch in ax.patches) for q in (share, 2 * p - share)]
        assert tinted == [1, 0], (p, share)
    assert "tinted the over-confident side" in figure.get_suptitle().replace("\n", " ")


def crowd(**settings: Any) -> list[Result]:
    """As many methods as lines can show, whose stds grow with their number, and the reference with the tenth's."""
    stds_of = {f"method_{at:02}": 0.02 * (at + 1) for at in range(MANY)}
    rows = [make(name, std=std, **settings) for name, std in stds_of.items()]
    return [*rows, make("reference", kind="reference", std=0.2, **settings)]


def rows_of(figure: Figure) -> tuple[list[str], list[NDArray[np.float64]]]:
    """The names of a heat map's rows, and the values of each panel, a row a name."""
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    names = [label.get_text() for label in panels[0].get_yticklabels()]
    meshes = [next(one for one in ax.collections if isinstance(one, QuadMesh)) for ax in panels]
    known = [np.ma.filled(np.ma.asarray(mesh.get_array()), np.nan) for mesh in meshes]
    return names, [values.reshape(len(names), -1) for values in known]


def test_many_stds_are_rows_of_ratios_to_the_posterior_s() -> None:
    """The nearest first; a method without any is at the end. Red is too narrow. Seen to catch: the std in place of the
    ratio, the natural logarithm, rows that keep their order under other names, red and blue exchanged, a mean that is
    nan where one replica failed."""
    rows = crowd(failures={4: "diverged"})
    rows[0].curves["std_f"][:] = 0.0
    names, [values] = rows_of(stds(rows, styles(rows)))
    assert names[:2] == ["method_09", "reference"] and names[-1] == "method_00"
    for name, row in zip(names, values, strict=True):
        wanted = -10.0 if name == "method_00" else np.log10(0.1 * (int(name[-2:]) + 1)) if "_" in name else 0.0
        np.testing.assert_allclose(row, wanted, atol=1e-9)
    mesh = stds(rows, styles(rows)).axes[0].collections[0]
    red, _, blue, _ = mesh.to_rgba([-1.0])[0]
    assert red > blue
    assert len(stds(rows[1:], styles(rows)).axes[0].get_lines()) == MANY  # few enough for lines
    alone = [*rows[:-1], make("one_more")]
    assert len(stds(alone, styles(alone)).axes[0].get_lines()) == len(alone)  # and no posterior to compare with


def test_rows_need_not_have_all_replicas_regions_and_points() -> None:
    """A method of one replica, one with an infinite std, one whose std is known at some points, and one without PITs in
    the gap. Seen to catch: no figure at all, points that all methods lose, an unknown share that counts as 0."""
    rows = [*crowd(), make("alone", count=1, std=0.2), make("wild", std=0.2), make("part", std=0.2)]
    rows[-2].curves["std_f"][0, 3] = np.inf
    rows[-1].curves["std_f"][:, 5] = np.nan
    rows[2].pits["pit_y"][rows[2].inside("gap")] = np.nan
    names, [values] = rows_of(stds(rows, styles(rows)))
    found = dict(zip(names, values, strict=True))
    np.testing.assert_allclose(found["alone"], 0, atol=1e-9)
    assert found["wild"][3] == 10 and np.isfinite(found["wild"]).all() and values.shape[1] == len(X)
    assert list(np.flatnonzero(~np.isfinite(found["part"]))) == [5]
    names, panels = rows_of(calibration(rows, styles(rows)))
    assert names[-1] == "method_02" and np.isnan(panels[1][-1]).all() and np.isfinite(panels[0]).all()


def test_the_calibration_of_many_is_a_row_each() -> None:
    """By how much more PITs than p are further out than p: positive, and red, where error bars are too narrow. The
    best in the gap comes first. Seen to catch: the upper half with the sign of the lower, PITs of all regions, the
    data's order, shares of all replicas where one failed, red and blue exchanged."""
    rows = crowd(failures={4: "diverged"})
    at = np.linspace(0.01, 0.99, 3 * REGIONS["gap"].sum())
    for result in rows:
        inside = result.inside("gap") & result.sound[:, None]
        result.pits["pit_y"][inside] = at
    narrow, wide = rows[3], rows[5]
    narrow.pits["pit_y"][narrow.inside("gap") & narrow.sound[:, None]] = np.where(at < 0.5, 0.001, 0.999)
    wide.pits["pit_y"][wide.inside("gap") & wide.sound[:, None]] = 0.5 + 0.001 * (at - 0.5)
    figure = calibration(rows, styles(rows))
    names, panels = rows_of(figure)
    assert [ax.get_title() for ax in figure.axes[:3]] == list(REGIONS) and len(panels) == 3
    assert set(names[-2:]) == {"method_03", "method_05"}
    gap = dict(zip(names, panels[1], strict=True))
    level = np.linspace(0.02, 0.98, 49)
    inner = np.abs(level - 0.5) > 0.005
    np.testing.assert_allclose(gap["method_03"][inner], np.abs(0.5 - level)[inner], atol=0.03)
    np.testing.assert_allclose(gap["method_05"][inner], -np.minimum(level, 1 - level)[inner], atol=0.03)
    assert np.abs(gap["method_01"]).max() < 0.04
    u = np.sort(rows[1].pits["pit_y"][[0, 2, 3]][:, REGIONS["data"]].ravel())
    below = np.array([(u <= p).mean() - p for p in level])
    np.testing.assert_allclose(dict(zip(names, panels[0], strict=True))["method_01"], np.sign(0.5 - level) * below)
    red, _, blue, _ = figure.axes[0].collections[0].to_rgba([0.3])[0]
    assert red > blue
    tasks = crowd(layout=Layout("tasks"))  # they need the band of exact Bayes, and keep their lines
    assert len(calibration(tasks, styles(tasks)).axes[0].get_lines()) == len(tasks) + 1


def test_a_curve_beyond_the_axis_is_named_with_its_value() -> None:
    """The prior's, which is 500 times the others'; one in sight has its name alone. Seen to catch: a line of the
    legend without a curve, an axis that is empty above the curves."""
    sound = make("sgld")
    highest = sound.curves["std_f"].mean(0).max()
    for times, beyond in ((500.0, True), (10.0, False)):
        prior = make("prior", kind="baseline")
        prior.curves["std_f"][:] = times * highest
        rows = [sound, prior]
        ax = stds(rows, styles(rows)).axes[0]
        label = ax.get_legend_handles_labels()[1][1]
        assert label == "prior (baseline)" + (f", above: {times * highest:.2g} or more" if beyond else "")
        assert (ax.get_ylim()[1] < times * highest) == beyond
        assert ax.get_ylim()[1] < (2.1 if beyond else 20.1) * highest


def test_the_bands_are_one_replica_s() -> None:
    """The first that did not fail: its quantiles, its data, the truth, and its number in the title. Points that are not
    known are left out. Seen to catch: replica 0 though it failed, the mean over replicas, its position for its number,
    a hole in the band where a published curve has no point."""
    result = make("sgld", failures={3: "diverged"})
    for level in BANDS:
        result.curves[f"f_{level}"][:, 1::2] = np.nan
    figure = bands([result], styles([result]))
    data, middle, truth = figure.axes[0].get_lines()
    np.testing.assert_array_equal(data.get_xdata(), result.curves["x"][1, :, 0])
    np.testing.assert_array_equal(data.get_ydata(), result.curves["y"][1])
    np.testing.assert_array_equal(middle.get_ydata(), result.curves["f_50"][1, ::2])
    np.testing.assert_array_equal(truth.get_ydata(), result.curves["f_test"][1])
    wide, narrow = (np.asarray(band.get_paths()[0].vertices) for band in figure.axes[0].collections)
    for vertices, low, high in ((wide, "f_05", "f_95"), (narrow, "f_25", "f_75")):
        assert vertices[:, 1].max() == pytest.approx(result.curves[high][1, ::2].max())
        assert vertices[:, 1].min() == pytest.approx(result.curves[low][1, ::2].min())
    assert figure.get_suptitle().startswith("sine, replica 4:")
    rows = [result, make("svi")]
    assert [ax.get_title() for ax in bands(rows, styles(rows)).axes] == ["sgld", "svi, replica 3"]


def test_the_quantiles_of_y_are_drawn_where_there_is_no_f() -> None:
    """And the title says so. Seen to catch: the method left out, bands of y that are called f's."""
    rows = [make("sgld"), make("quantiles", has_f=False)]
    figure = bands(rows, styles(rows))
    assert [ax.get_title() for ax in figure.axes] == ["sgld", "quantiles, of y"]
    assert "of f (of y where it says so)" in figure.get_suptitle().replace("\n", " ")
    assert "90 % of y" in bands(rows[1:], styles(rows)).get_suptitle()
    assert list(colours(stds(rows, styles(rows)))) == ["sgld"]


@pytest.mark.parametrize("units", [1.0, 1e5])
def test_the_axes_hold_the_data(units: float) -> None:
    """In their units, whatever a vague prior or a method that blew up does; the others' bands too. Seen to catch:
    limits of ±3, limits that the prior sets, limits that cut data off."""
    blown = make("blown", units=units * 1e9)
    sound = make("sgld", units=units)
    blown.curves["y"][:], blown.curves["f_test"][:] = sound.curves["y"], sound.curves["f_test"]
    rows = [sound, blown, make("prior", units=units, kind="baseline", std=50.0)]
    low, high = bands(rows, styles(rows)).axes[0].get_ylim()
    y, band = sound.curves["y"][0], sound.curves["f_95"][0]
    assert low < y.min() and high > max(y.max(), band.max())
    alone = bands([sound], styles(rows)).axes[0].get_ylim()
    assert bands([sound, rows[2]], styles(rows)).axes[0].get_ylim() == alone
    assert high - low < 4 * (max(y.max(), units) - min(y.min(), -units))
    low, high = stds(rows, styles(rows)).axes[0].get_ylim()
    std = sound.curves["std_f"].mean(0)
    assert low < std.min() and std.max() < high < 1e4 * std.max()


def test_a_figure_grows_with_its_legend() -> None:
    """Sixty methods leave the axes their height. Seen to catch: a fixed height."""
    for draw in (stds, calibration):
        heights = []
        for number in (3, 60):
            rows = [make(f"method {index}") for index in range(number)]
            figure = draw(rows, styles(rows))
            figure.draw_without_rendering()
            heights.append(figure.axes[0].get_window_extent().height)
        assert heights[1] > 0.8 * heights[0]


@pytest.mark.parametrize("name", ["sgld", "a_method_with_settings_in_its_name@39200 (not converged)"])
def test_a_legend_is_as_wide_as_its_figure_at_most(name: str) -> None:
    """And uses that width. Seen to catch: a fixed number of columns, one column always."""
    rows = [make(f"{name} {index}") for index in range(9)]
    for draw in (stds, calibration):
        figure = draw(rows, styles(rows))
        figure.draw_without_rendering()
        [legend] = figure.legends
        box, whole = legend.get_window_extent(), figure.bbox
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1
        assert 0.5 * whole.width < box.width


def test_noise_free_data_show_the_calibration_of_f() -> None:
    """Of y there is none. Seen to catch: empty panels, the oracle (certain of f) among them."""
    rows = [make("sgld", noisy=False), make("truth", kind="oracle", noisy=False)]
    figure = calibration(rows, styles(rows))
    assert "calibration of f" in figure.get_suptitle() and "truth (oracle)" not in colours(figure)
    with pytest.raises(Undrawable):
        calibration([make("sgld", noisy=False, has_f=False)], styles(rows))


# --- Budgets ----------------------------------------------------------------------------------------------------------


def at_budgets(method: str, spent: Mapping[int, float], failures: Mapping[int, str] | None = None) -> list[Result]:
    """Methods method@budget whose distance to the reference is the given one in the data, and double in the gap."""
    return [make(f"{method}@{k}", w1=w1, gradients=100.0 * k, failures=failures) for k, w1 in spent.items()]


def points(figure: Figure) -> list[dict[str, Sequence[Sequence[float]]]]:
    return [
        {str(line.get_label()): line.get_xydata() for line in ax.get_lines() if line.get_marker() == "o"}
        for ax in figure.axes
    ]


def test_budgets_are_drawn_as_a_line_a_name(tmp_path: Path) -> None:
    """In addition to the other figures; a line's points are its methods' costs and distances, sorted by cost; what has
    no cost or no reference is not drawn. Seen to catch: methods in the order of their names ("10" before "9"), a line a
    method, the data's distances in the gap's panel, the other figures left out."""
    fast, slow = {9: 0.5, 10: 0.4, 100: 0.2}, {1000: 0.3, 2000: 0.25}
    rows = [*at_budgets("fast", fast), *at_budgets("slow", slow), make("prior", kind="baseline", w1=9.0)]
    rows += [make("blind@5", gradients=1.0), make("plain", w1=0.7, gradients=5e3)]
    names = [f"sine_{name}.png" for name in ("bands", "std", "calibration", "cost")]
    assert [path.name for path in plot(rows, tmp_path).paths] == names
    figure = cost(rows[::-1], styles(rows))
    for found, factor in zip(points(figure), (1, 2), strict=True):
        assert set(found) == {"fast", "slow", "plain"}
        np.testing.assert_allclose(found["fast"], [[100 * k, factor * v] for k, v in fast.items()])
        np.testing.assert_allclose(found["slow"], [[100 * k, factor * v] for k, v in slow.items()])
    assert "hollow" not in figure.get_suptitle()


def test_budgets_are_drawn_over_cpu_time_where_it_is_known() -> None:
    """In a second row of panels, sorted by it; not if one method lacks it. Seen to catch: gradients for seconds, the
    seconds of all replicas."""
    rows = at_budgets("fast", {10: 0.4, 100: 0.2, 1000: 0.1})
    timed = [
        replace(one, provenance=[{"cpu seconds": spent}]) for one, spent in zip(rows, (8.0, 40.0, 20.0), strict=True)
    ]
    figure = cost(timed, styles(timed))
    assert len(figure.axes) == 4
    np.testing.assert_allclose(points(figure)[2]["fast"], [[2, 0.4], [5, 0.1], [10, 0.2]])  # of four replicas
    assert len(cost([*timed[:2], rows[2]], styles(rows)).axes) == 2


def test_an_at_sign_in_a_name_is_no_budget(tmp_path: Path) -> None:
    """A plugin called swag@fast has its own figures and style, and takes nobody else's away. Seen to catch: one `@`
    that makes a budgets plot, the style of swag given to swag@fast."""
    rows = [make("swag@fast"), make("swag"), make("sgld")]
    assert families(rows) == {} and len(set(styles(rows).values())) == 3
    drawn = plot(rows, tmp_path)
    assert len(drawn.paths) == 3 and drawn.skipped == []


def test_a_name_is_shown_as_it_is(tmp_path: Path) -> None:
    """Whatever characters a plugin's name has. Seen to catch: dollars read as mathematics, which drew nothing for
    anybody; a name that begins with _ left out of the legends."""
    names = ["_hidden", "a$\\frac$", "one$"]
    rows = [make(name, w1=0.5, gradients=100) for name in names]
    assert len(plot(rows, tmp_path).paths) == 3
    for draw in (stds, calibration, cost):
        (legend,) = draw(rows, styles(rows)).legends
        shown = [text.get_text() for text in legend.get_texts()]
        assert [text.strip().replace(r"\$", "$") for text in shown] == names
        assert not any(text.startswith("_") for text in shown)


def test_a_point_of_fewer_replicas_is_hollow() -> None:
    """And the title says what that means. Seen to catch: every point hollow, none."""
    rows = [*at_budgets("a", {1: 0.5}, {3: "diverged"}), *at_budgets("a", {2: 0.4})]
    figure = cost(rows, styles(rows))
    assert "; hollow: over fewer\n" in figure.get_suptitle()
    for ax, factor in zip(figure.axes, (1, 2), strict=True):
        hollow = [line.get_xydata() for line in ax.get_lines() if line.get_markerfacecolor() == "white"]
        np.testing.assert_allclose(hollow, [[[100, 0.5 * factor]]])


# --- Searches of settings ---------------------------------------------------------------------------------------------


def test_searches_are_drawn_beside_the_method_as_it_is(tmp_path: Path) -> None:
    """A line a method, a mark a kind of search, by the value in the gap; of what was not searched there is no line.
    Seen to catch: the data's values; a search that is drawn on another method's line; the kinds exchanged."""
    values = {
        "a": 0.5,
        "a@tuned30": 0.3,
        "a@gap_tuned30": 0.2,
        "b": 0.6,
        "b@gap_tuned4": 0.1,
        "c": 0.9,
        "d@tuned2": 0.8,
    }
    rows = [make(name, w1=w1) for name, w1 in values.items()]
    assert [path.name for path in plot(rows, tmp_path).paths][-1] == "sine_tuned.png"
    check_png(tmp_path / "sine_tuned.png")
    assert {name: list(own) for name, own in searches(rows).items()} == {
        "a": ["as it is", "tuned", "gap_tuned"],
        "b": ["as it is", "gap_tuned"],
    }
    assert families(rows) == {}
    figure = tuned(rows, styles(rows))
    distance = next(ax for ax in figure.axes if "distance" in ax.get_xlabel())
    marks = [(line.get_label(), *line.get_xydata()[0]) for line in distance.get_lines() if line.get_marker() in "os"]
    kinds = ("as it is", "best on random points", "best on points at the edges of the gap")
    assert [(label, round(x, 6), round(place)) for label, x, place in marks] == [
        (kinds[0], 1.0, 0),
        (kinds[1], 0.6, 0),
        (kinds[2], 0.4, 0),
        (kinds[0], 1.2, 1),
        (kinds[2], 0.2, 1),
    ]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a", "b"]


# --- Knobs ------------------------------------------------------------------------------------------------------------


def at_knobs(method: str) -> list[Result]:
    """A method on the centre, on two datasets with other n, and on one with another noise; its log std is its W1."""
    found = []
    for dataset, w1 in (("n@1000", 0.4), ("gapped_sine_noisy", 0.3), ("n@20", 0.1), ("noise@0.3", 0.7)):
        result = make(method, dataset=dataset, w1=w1)
        found.append(replace(result, scores={**result.scores, "reference_log_std": result.scores["reference_w1"]}))
    return found


def test_knobs_are_a_panel_each(tmp_path: Path) -> None:
    """In place of the datasets' own figures; the centre is in every panel, at its own value, in the order of values.

    Seen to catch: values in the order of their names, the centre in one panel alone, the data's values in the gap's.
    """
    rows = [*at_knobs("svi"), *at_knobs("mclmc"), make("prior", kind="baseline", dataset="n@20", w1=9.0)]
    assert [path.name for path in plot(rows, tmp_path).paths] == ["knobs_std.png", "knobs_distance.png"]
    for path in tmp_path.iterdir():
        check_png(path)
    for score in ("reference_log_std", "reference_w1"):
        figure = turned(rows, styles(rows), score)
        n_data, noise_data, n_gap, noise_gap = points(figure)
        for panel, values in (
            (n_data, [0.1, 0.3, 0.4]),
            (noise_data, [0.3, 0.7]),
            (n_gap, [0.2, 0.6, 0.8]),
            (noise_gap, [0.6, 1.4]),
        ):
            assert {"svi", "mclmc"} <= set(panel) and "prior" not in panel
            np.testing.assert_allclose(panel["svi"], list(enumerate(values)))
        labels = [[tick.get_text() for tick in ax.get_xticklabels()] for ax in figure.axes[2:4]]
        assert labels == [["20", "200", "1000"], ["0.1", "0.3"]]


def test_knobs_show_what_is_not_of_all_replicas() -> None:
    """A point without some replicas is hollow though the others converged, and a method that is only in the second
    panel is in the legend. Seen to catch: status alone, the legend of the first panel."""
    some = make("svi", dataset="n@20", w1=0.1, failures={3: "diverged"})
    rows = [*(one for one in at_knobs("svi") if one.dataset != "n@20"), some, make("late", dataset="noise@0.3", w1=0.5)]
    figure = turned(rows, styles(rows), "reference_w1")
    hollow = [line.get_xydata() for line in figure.axes[0].get_lines() if line.get_markerfacecolor() == "white"]
    np.testing.assert_allclose([at for at in hollow if len(at)], [[[0, 0.1]]])
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"svi", "late"}


def test_a_floor_a_kind() -> None:
    """200 draws of the posterior have another distance than 200 components of it, so figures show both. Baselines have
    none. Seen to catch: one level, the mean over all methods."""
    rows = [
        make("svi", dataset="n@20", w1=0.5, floor=0.09, gradients=1.0),
        make("sgld", dataset="n@20", w1=0.4, floor=0.094, gradients=2.0),
        make("mclmc", dataset="n@20", w1=0.1, floor=0.03, gradients=3.0),
        make("prior", dataset="n@20", kind="baseline", w1=0.5, floor=0.5),
    ]
    np.testing.assert_allclose(floors(rows, "data"), [0.03, 0.092])
    for figure in (turned(rows, styles(rows), "reference_w1"), cost(rows, styles(rows))):
        for ax in figure.axes:
            levels = [line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"]
            np.testing.assert_allclose(levels, [0.03, 0.092])
        assert "dotted" in figure.get_suptitle()


def test_knobs_without_references_have_no_figure(tmp_path: Path) -> None:
    """Said in words. Seen to catch: panels without lines, an exception."""
    rows = [make("svi", dataset="n@20"), make("prior", kind="baseline", dataset="n@20", w1=9.0)]
    drawn = plot(rows, tmp_path)
    assert not drawn.paths and not list(tmp_path.iterdir())
    assert [line.partition(": ")[2] for line in drawn.skipped] == [
        "no method has a distance to a reference posterior off the centre"
    ] * 2


def test_tables_of_held_out_rows_show_the_posterior_where_it_is_known() -> None:
    """Panels, titles and markers. Seen to catch: a table with and without a gap under one title, panels of a score that
    one table lacks, a value beyond the panel that is not marked, on the left too."""

    def row(dataset: str, method: str, ratio: float | None) -> Result:
        regions = {"data": np.zeros(2), "gap": np.ones(2)}
        scores = {"nll_y": regions, "coverage_90_y": regions}
        if ratio is not None:
            scores |= {"reference_log_std": {"gap": np.full(2, ratio)}, "reference_w1": {"gap": np.array([0.2, 0.4])}}
        return replace(make(method, dataset=dataset, count=2), scores=scores, layout=Layout("rows"))

    known = [row("boston", "a", -0.5), row("boston", "b", -3.0), row("boston_gap", "a", 0.5)]
    figure = of_tables(known)
    assert [ax.get_title() for ax in figure.axes] == ["boston", "", "", "", "boston_gap", "", "", ""]
    assert [ax.get_xlabel() for ax in figure.axes[2:4]] == ["log of std ÷ posterior's", "distance to the posterior"]
    assert [ax.get_subplotspec().num1 for ax in figure.axes] == list(range(8))  # type: ignore[union-attr]
    drawn = [(str(line.get_marker()), float(line.get_xdata()[0])) for line in figure.axes[2].get_lines()[1:]]  # type: ignore[index]
    assert drawn == [("o", -0.5), ("<", pytest.approx(-1.92))]
    gaps = of_tables([row("boston_gap", "a", 0.5), row("wine_gap", "a", None)])
    assert [ax.get_title() for ax in gaps.axes] == ["boston", "wine", "", ""]
    assert [ax.get_subplotspec().num1 for ax in of_tables(known[:1]).axes] == [0, 1, 2, 3]  # type: ignore[union-attr]
