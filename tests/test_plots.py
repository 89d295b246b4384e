"""The figures: written, reproducible to the byte, of one colour a row, and there whatever is missing."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gapbench.evaluation.plots import COLOURS, LINES, SPARE, bands, calibration, cost, plot, stds, style
from gapbench.evaluation.results import Result

Floats = NDArray[np.float64]

X = np.linspace(-3, 3, 25)
REGIONS = {"data": (np.abs(X) >= 1) & (np.abs(X) <= 2), "gap": np.abs(X) < 1, "extrapolation": np.abs(X) > 2}


def make(
    row: str,
    *,
    dataset: str = "sine",
    kind: Literal["method", "baseline", "oracle"] = "method",
    count: int = 4,
    noisy: bool = True,
    failures: Mapping[int, str] | None = None,
    regions: Mapping[str, NDArray[np.bool_]] = REGIONS,
    **points: float,
) -> Result:
    """A result of `count` replicas on a grid; points: a constant for a score instead of the usual. Replicas in
    `failures` are nan everywhere."""
    rng = np.random.default_rng(len(row))
    shape = (count, len(X))
    values = {
        "mean_f": np.sin(X) + 0.1 * rng.standard_normal(shape),
        "std_f": np.full(shape, 0.1 * (1 + len(row))) + 0.05 * np.cos(X),
        "pit_y": rng.random(shape) if noisy else np.full(shape, np.nan),
        "pit_f": rng.random(shape),
    }
    values |= {name: np.full(shape, value) for name, value in points.items()}
    replicas = np.arange(count) + 3
    for value in values.values():
        value[np.isin(replicas, list(failures or {}))] = np.nan
    grid = {
        "x": rng.uniform(-2, 2, (count, 10, 1)),
        "y": rng.standard_normal((count, 10)),
        "x_test": np.tile(X[:, None], (count, 1, 1)),
        "f_test": np.tile(np.sin(X), (count, 1)),
    }
    masks = {name: np.tile(mask, (count, 1)) for name, mask in regions.items()}
    return Result(dataset, row, kind, replicas, values, masks, grid, {}, failures or {})


def full() -> list[Result]:
    return [
        make("sgld"),
        make("newcomer", failures={3: "diverged", 5: "not finite"}),
        make("svi", failures=dict.fromkeys(range(3, 7), "diverged")),
        make("prior", kind="baseline"),
        make("truth", kind="oracle", std_f=0.0),
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
            assert width > 300 and height > 200
        kinds.append(kind)
        at += 12 + length
    assert kinds[0] == b"IHDR" and kinds[-1] == b"IEND" and b"IDAT" in kinds


def test_three_figures_a_data_set(tmp_path: Path) -> None:
    """PNG files that are whole, and nothing else in the folder, which need not exist; twice the same bytes. Seen to
    catch: a data set's figures written over another's, the time or the version in the file."""
    folder = tmp_path / "new" / "figures"
    paths = plot(full(), folder)
    names = [f"{dataset}_{name}.png" for dataset in ("sine", "step") for name in ("bands", "std", "calibration")]
    assert [path.name for path in paths] == names
    assert sorted(folder.iterdir()) == sorted(paths)
    for path in paths:
        check_png(path)
    contents = [path.read_bytes() for path in paths]
    assert len(set(contents)) == len(contents)
    assert [path.read_bytes() for path in plot(full(), tmp_path / "again")] == contents
    assert all(b"Software" not in content for content in contents)


@pytest.mark.parametrize(
    "results",
    [
        [make("sgld")],
        [make("sgld", count=1)],
        [make("sgld", failures={3: "diverged", 4: "diverged", 5: "diverged"})],
        [make("sgld", noisy=False)],
        [make("sgld", regions={**REGIONS, "extrapolation": np.zeros(len(X), bool)})],
        [
            make(
                "sgld",
                regions={
                    "data": np.ones(len(X), bool),
                    "gap": np.zeros(len(X), bool),
                    "extrapolation": np.zeros(len(X), bool),
                },
            )
        ],
        [make("certain", std_f=0.0)],
        [make("truth", kind="oracle", std_f=0.0)],
        [make(str(number)) for number in range(7)],
    ],
    ids=[
        "one method",
        "one replica",
        "one sound replica",
        "noise-free",
        "no edge",
        "no gap",
        "no error bars",
        "the ceiling alone",
        "seven methods",
    ],
)
def test_what_is_missing_is_no_obstacle(results: list[Result], tmp_path: Path) -> None:
    """No error and no warning (which is an error in this test suite), and figures that are whole. Seen to catch: 0
    panels for the ceiling alone, the std of nobody on a logarithmic axis, a gap without points shaded."""
    paths = plot(results, tmp_path)
    assert paths
    for path in paths:
        check_png(path)


def test_nothing_is_drawn_of_rows_that_failed(tmp_path: Path) -> None:
    """And a data set of failures alone has no figures. Seen to catch: an error for want of a sound replica."""
    broken = make("broken", dataset="step", failures=dict.fromkeys(range(3, 7), "diverged"))
    assert broken.status == "failed"
    assert plot([broken], tmp_path) == []
    assert len(plot([broken, make("sgld")], tmp_path)) == 3


def colours(figure: Figure | None) -> dict[str, set[str]]:
    """Legend label or panel title -> the colours drawn under it."""
    assert figure is not None
    found: dict[str, set[str]] = {}
    for ax in figure.axes:
        for line in ax.get_lines():
            name = str(line.get_label())
            name = name if not name.startswith("_") else ax.get_title().partition(",")[0]
            found.setdefault(name, set()).add(to_hex(line.get_color()).lower())
    return found


def at_budgets(row: str, spent: Mapping[int, float], failures: Mapping[int, str] | None = None) -> list[Result]:
    """Rows row@budget whose distance to the reference is the given one in the data, and double in the gap; not in the
    edge."""
    rows = []
    for budget, distance in spent.items():
        one = make(f"{row}@{budget}", reference_w1=distance, reference_w1_floor=0.1, failures=failures)
        one.points["reference_w1"][:, REGIONS["gap"]] *= 2
        rows.append(replace(one, diagnostics={"gradient evaluations": np.full(4, 100.0 * budget)}))
    return rows


def test_budgets_are_drawn_as_a_line_a_name(tmp_path: Path) -> None:
    """One figure in place of the others; a line's points are its rows' costs and distances, sorted by cost; what has no
    cost or no reference is not drawn. Seen to catch: rows in the order of their names ("10" before "9"), a line a row,
    the data's distances in the gap's panel."""
    fast, slow = {9: 0.5, 10: 0.4, 100: 0.2}, {1000: 0.3}
    rows = [*at_budgets("fast", fast), *at_budgets("slow", slow), make("prior", kind="baseline", reference_w1=9.0)]
    rows.append(replace(make("blind@5"), diagnostics={"gradient evaluations": np.ones(4)}))
    assert [path.name for path in plot(rows, tmp_path)] == ["sine_cost.png"]
    figure = cost(rows[::-1])
    assert figure is not None
    for ax, factor in zip(figure.axes, (1, 2), strict=True):
        drawn = {str(line.get_label()): line.get_xydata() for line in ax.get_lines() if line.get_marker() == "o"}
        assert set(drawn) == {"fast", "slow"}
        np.testing.assert_allclose(drawn["fast"], [[100 * k, factor * v] for k, v in fast.items()])
        np.testing.assert_allclose(drawn["slow"], [[100_000, 0.3 * factor]])
    assert "hollow" not in figure.get_suptitle()
    assert cost([make("blind@5")]) is None


def test_a_point_of_fewer_replicas_is_hollow() -> None:
    """And the title says what that means. Seen to catch: every point hollow, none."""
    figure = cost([*at_budgets("a", {1: 0.5}, {3: "diverged"}), *at_budgets("a", {2: 0.4})])
    assert figure is not None and figure.get_suptitle().endswith("; hollow: over fewer")
    for ax, factor in zip(figure.axes, (1, 2), strict=True):
        hollow = [line.get_xydata() for line in ax.get_lines() if line.get_markerfacecolor() == "white"]
        np.testing.assert_allclose(hollow, [[[100, 0.5 * factor]]])


def test_a_row_has_one_colour_everywhere() -> None:
    """In its panel, among the stds and among the calibrations, whichever rows are beside it. Seen to catch: colours
    dealt in the order of the rows, panels all of one colour."""
    rows = [result for result in full() if result.dataset == "sine" and result.status != "failed"]
    for shown in (rows, rows[:0:-1]):
        curves, panels, errors = colours(calibration(shown)), colours(bands(shown)), colours(stds(shown))
        for result in shown:
            colour = style(result.row)[0].lower()
            name = result.row if result.status == "ranked" else f"{result.row} ({result.status})"
            assert curves[name] == {colour}
            if result.kind != "oracle":
                assert errors[name] == {colour}
                assert colour in panels[name]


def test_styles() -> None:
    """The shipped rows have a colour of their own; other names keep one that depends on the name alone, by the first
    bytes of its SHA-256, and are spread over colours and lines. Seen to catch: Python's salted hash, one line for all
    newcomers."""
    for row, colour in COLOURS.items():
        assert style(row) == (colour, "-")
    suite = ("sgld", "sgld_private", "mc_dropout", "svi", "prior", "truth")
    assert len({style(row) for row in suite}) == len(suite)
    # sha256sum of "newcomer" begins 9aaa5843: 5 modulo 6 colours, and then 1 modulo 4 lines.
    assert style("newcomer") == (SPARE[5], LINES[1])
    names = [f"method {number}" for number in range(300)]
    styles = [style(name) for name in names]
    assert {colour for colour, _ in styles} == set(SPARE) and {line for _, line in styles} == set(LINES)


def test_the_lines_are_the_scores() -> None:
    """The std's curve is the mean over sound replicas at each x; a calibration curve rises to K/K through the pooled
    PITs of its region, over the diagonal. Seen to catch: nan wherever a replica failed, PITs of all regions, PITs left
    unsorted."""
    result = make("newcomer", failures={4: "diverged"})
    sound = [0, 2, 3]
    figure = stds([result])
    assert figure is not None
    (line,) = figure.axes[0].get_lines()
    np.testing.assert_allclose(line.get_xdata(), X)
    np.testing.assert_allclose(line.get_ydata(), result.points["std_f"][sound].mean(0))
    figure = calibration([result])
    assert figure is not None
    assert [ax.get_title() for ax in figure.axes] == list(REGIONS)
    for ax, mask in zip(figure.axes, REGIONS.values(), strict=True):
        diagonal, curve = ax.get_lines()
        np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
        pits = np.sort(result.points["pit_y"][sound][:, mask].ravel())
        np.testing.assert_array_equal(curve.get_xdata(), [0, *pits, 1])
        np.testing.assert_allclose(curve.get_ydata(), [0, *(np.arange(len(pits)) + 1) / len(pits), 1])
        assert curve.get_drawstyle() == "steps-post"


def test_the_bands_are_one_replica_s() -> None:
    """The first that did not fail: its mean, its data, the truth, and its number in the title. Seen to catch: replica 0
    though it failed, the mean over replicas, its position for its number."""
    result = make("sgld", failures={3: "diverged"})
    figure = bands([result])
    assert figure is not None
    data, mean, truth = figure.axes[0].get_lines()
    np.testing.assert_array_equal(data.get_xdata(), result.grid["x"][1, :, 0])
    np.testing.assert_array_equal(data.get_ydata(), result.grid["y"][1])
    np.testing.assert_array_equal(mean.get_ydata(), result.points["mean_f"][1])
    np.testing.assert_array_equal(truth.get_ydata(), result.grid["f_test"][1])
    outer, inner = (np.asarray(band.get_paths()[0].vertices) for band in figure.axes[0].collections)
    std = result.points["std_f"][1]
    for vertices, width in ((outer, 2), (inner, 1)):
        assert vertices[:, 1].max() == pytest.approx((mean.get_ydata() + width * std).max())
        assert vertices[:, 1].min() == pytest.approx((mean.get_ydata() - width * std).min())
    assert figure.get_suptitle().startswith("sine, replica 4:")
    beside = bands([result, make("svi")])
    assert beside is not None
    assert [ax.get_title() for ax in beside.axes] == ["sgld", "svi, replica 3"]


def test_noise_free_data_show_the_calibration_of_f() -> None:
    """Of y there is none. Seen to catch: empty panels, the ceiling (certain of f) among them."""
    rows = [make("sgld", noisy=False), make("truth", kind="oracle", noisy=False)]
    figure = calibration(rows)
    assert figure is not None
    assert "calibration of f" in figure.get_suptitle()
    assert "truth (ceiling)" not in colours(figure)
    neither = make("sgld", noisy=False, pit_f=np.nan)
    assert calibration([neither]) is None
    inside = REGIONS["data"]
    np.testing.assert_array_equal(
        figure.axes[0].get_lines()[1].get_xdata()[1:-1], np.sort(rows[0].points["pit_f"][:, inside].ravel())
    )
