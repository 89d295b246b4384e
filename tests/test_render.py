"""Tables printed, from cells made by hand: terminal, Markdown, LaTeX and CSV say the same."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import pandas as pd
import pytest
import rich.table
from rich.console import Console

from gapbench.evaluation.render import STAR, csv, entry, header, latex, markdown, markdown_runs, text, text_runs
from gapbench.evaluation.scores import SCORES
from gapbench.evaluation.tables import Cell, Line, RunTable, Table

NAN = math.nan
COLUMNS = (("crps_y", "gap"), ("nll_y", "gap"), ("gap_wider", "all"))
PLAIN, MISSING = Cell(-0.25, -1.5, 2e7, 6), Cell(NAN, NAN, NAN, 0)
TABLE = Table(
    "sine",
    COLUMNS,
    (
        Line("first", "ranked", 6, 0, (Cell(1.0, 0.9, 1.1, 6, best=True), PLAIN, MISSING)),
        Line("second_one", "ranked", 6, 1, (Cell(2.0, NAN, NAN, 5), Cell(math.inf, 1.0, math.inf, 3), MISSING)),
        Line("slow", "not converged", 6, 0, (Cell(3.0, NAN, NAN, 6), MISSING, MISSING)),
        Line("prior", "baseline", 6, 0, (Cell(0.5, NAN, NAN, 6), MISSING, MISSING)),
    ),
)
RUNS = RunTable(("seconds", "E-BFMI"), (("sine", "a", (3.0, None)), ("sine", "b", (1234567.0, NAN))))
NASTY = replace(
    TABLE,
    dataset="sine [bold] [/dim] 50%",
    lines=(
        replace(TABLE.lines[0], method="sgld[red]|x"),
        replace(TABLE.lines[1], method="[/]"),
        replace(TABLE.lines[2], method="SGLDσ_{a}&\\b"),
    ),
)


def printed(*tables: rich.table.Table) -> str:
    console = Console(file=io.StringIO(), width=320, color_system=None)
    for table in tables:
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def cells_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.split("\n")]


def test_headers() -> None:
    """Score, region, direction and unit; no region where there is only one. Seen to catch: two spaces where there is no
    direction, a direction that is not the score's."""
    assert header(("crps_y", "gap")) == "crps_y · gap ↓ (y)"
    assert header(("nll_y", "data")) == "nll_y · data ↓ (nats)"
    assert header(("coverage_90_f", "extrapolation")) == "coverage_90_f · extrapolation → 0.9"
    assert header(("std_f", "gap")) == "std_f · gap (y)"
    assert header(("gap_ratio", "all")) == "gap_ratio"
    assert header(("rhat", "all")) == "rhat → 1"
    assert header(("ess_bulk", "all")) == "ess_bulk · all ↑"
    assert len({header((name, region)) for name in SCORES for region in ("all", "gap")}) == 2 * len(SCORES)


def test_an_entry_says_what_its_cell_is_of() -> None:
    """The value and its mark; below them the interval, and how many replicas have a value if not all sound ones do: a
    mean over two is no mean over six. Seen to catch: failed replicas counted, said of complete values too, nan
    printed."""
    first, second, *_ = TABLE.lines
    assert [entry(first, cell) for cell in first.cells] == [
        ("1*", "[0.9, 1.1]"),
        ("-0.25", "[-1.5, 2e+07]"),
        ("n/a", ""),
    ]
    assert [entry(second, cell) for cell in second.cells] == [("2", ""), ("inf", "[1, inf] 3 of 5"), ("n/a", "")]


def test_markdown_is_a_table() -> None:
    """A header, a rule and a line for each method, with the same number of cells, in the table's order. Seen to catch:
    a rule one cell short, a cell lost where there is no interval, the mark left as an asterisk."""
    title, table, other, _ = markdown([TABLE, replace(TABLE, dataset="other")]).split("\n\n")
    assert title == "**sine: mean over 6 replicas, 95 % interval below**" and other.startswith("**other: ")
    cells = cells_of(table)
    assert [len(line) for line in cells] == [4] * 6
    assert cells[0][1:] == [header(column) for column in COLUMNS]
    assert cells[1] == ["---", "---:", "---:", "---:"]
    assert [line[0] for line in cells[2:]] == [line.label for line in TABLE.lines]
    assert cells[2][1:] == ["**1**<br><sub>[0.9, 1.1]</sub>", "-0.25<br><sub>[-1.5, 2e+07]</sub>", "n/a"]
    runs = cells_of(markdown_runs(RUNS))
    assert runs == [
        ["dataset", "method", "seconds", "E-BFMI"],
        ["---", "---", "---:", "---:"],
        ["sine", "a", "3", ""],
        ["sine", "b", "1.23e+06", "n/a"],
    ]


def test_the_terminal_shows_what_is_there() -> None:
    """Intervals keep their brackets, whatever stands in them, and no markup or backslash is left over; a line divides
    the ranked from the others. Seen to catch: an interval taken for markup, a backslash printed, `[bold]` shown."""
    shown = printed(*text([TABLE]))
    for line in TABLE.lines:
        assert line.label in shown
        for cell in line.cells:
            assert all(part in shown for part in entry(line, cell))
    stuck = replace(TABLE, lines=(replace(TABLE.lines[0], cells=(Cell(math.inf, math.inf, math.inf, 6),) * 3),))
    assert "[inf, inf]" in printed(*text([stuck]))
    assert not any(remnant in shown for remnant in ("\\", "[bold", "[dim", "[/"))
    [table] = text([TABLE])
    assert [row.end_section for row in table.rows] == [False] * 3 + [True] + [False] * 4
    assert all(cell in printed(text_runs(RUNS)) for cell in ("seconds", "E-BFMI", "1.23e+06", "n/a"))


def test_names_are_not_markup() -> None:
    """A method or a data set keeps its brackets, and a `|` ends no cell. Seen to catch: [red] swallowed by rich, [/] as
    an error, a column more in Markdown."""
    shown = printed(*text([NASTY])) + printed(text_runs(RunTable(("[b]",), (("sine [/]", "[red]", (1.0,)),))))
    assert all(name in shown for name in ("sgld[red]|x", "[/]", "sine [bold] [/dim]", "[b]", "sine [/]", "[red]"))
    assert {len(line) for line in cells_of(markdown([NASTY]).split("\n\n")[1])} == {4}
    assert r"sgld\[red\]\|x" in markdown([NASTY])


def test_latex_has_the_same_lines() -> None:
    """In the table's order, as UTF-8 that LaTeX can read: names escaped, minus signs and powers of ten in mathematics,
    booktabs and the star explained. Seen to catch: lines grouped by name, a name's underscore, a bare minus."""
    found = latex([TABLE])
    assert found.startswith("% \\usepackage{booktabs}") and STAR in found.split("\n")[1]
    body = [line for line in found.split("\n") if line.endswith(r"\\")]
    assert [line.partition(" & ")[0] for line in body] == [
        "",
        "first",
        r"second\_one (1 of 6 replicas failed)",
        "slow (not converged)",
        "prior (baseline)",
    ]
    assert {line.count(" & ") for line in body} == {3}
    assert r"crps\_y $\cdot$ gap $\downarrow$ (y)" in body[0]
    assert r"& 1* [0.9, 1.1] & $-0.25$ [$-1.5$, $2\times 10^{7}$] & n/a \\" in body[1]
    assert r"$\infty$ [1, $\infty$] 3 of 5" in body[2]
    nasty = latex([NASTY])
    assert r"SGLDσ\_\{a\}\&\textbackslash{}b" in nasty and r"sgld{[}red{]}|x" in nasty
    assert all(line.startswith("%") for line in nasty.split("\n") if "50%" in line)


def test_csv_has_every_cell() -> None:
    """A line for each method and column, with every digit and mark. Seen to catch: rounded values, a flag left out."""
    frame = pd.read_csv(io.StringIO(csv([TABLE, replace(TABLE, dataset="other")])))
    assert len(frame) == 2 * 4 * 3
    first = frame.iloc[0]
    assert list(frame.columns[:7]) == ["dataset", "method", "status", "replicas", "failed", "score", "region"]
    assert (first["method"], first["score"], first["value"], first["low"], first["best"]) == (
        "first",
        "crps_y",
        1,
        0.9,
        True,
    )
    assert {"known", "beats_oracle", "loses_to_baseline"} <= set(frame.columns)
    third = csv([replace(TABLE, lines=(replace(TABLE.lines[0], cells=(Cell(1 / 3, NAN, NAN, 6),) * 3),))])
    assert repr(1 / 3) in third


@pytest.mark.parametrize("form", [text, markdown, latex, csv])
def test_no_table_is_no_error(form: object) -> None:
    """Seen to catch: an index error for want of a table."""
    assert callable(form)
    form([])
