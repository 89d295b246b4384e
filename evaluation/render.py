"""Tables printed: for a terminal, as Markdown, as LaTeX and as CSV, all from the same typed table."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
import rich.table
from rich.markup import escape

from gapbench.evaluation.headline import Headline
from gapbench.evaluation.results import Column
from gapbench.evaluation.scores import SCORES
from gapbench.evaluation.tables import Cell, Line, RunTable, Table, number

STAR = (
    "* significantly best of the ranked methods: paired 95 % interval over replicas (splits of one table have none). "
    "Methods marked not converged, failed or a control are not ranked."
)


def header(column: Column) -> str:
    """crps_y · gap ↓ (unit)"""
    name, region = column
    score = SCORES[name]
    where = "" if region == "all" and (score.across or name == "rhat") else f" · {region}"
    aims = {"lower": "↓", "higher": "↑", None: ""}
    aim = f"→ {score.better:g}" if isinstance(score.better, float) else aims[score.better]
    return " ".join(filter(None, [name + where, aim, f"({score.unit})" if score.unit else ""]))


def entry(line: Line, cell: Cell) -> tuple[str, str]:
    """The two texts of a cell. First its value; second its interval, and the number of replicas with a value if some
    sound replicas have none."""
    if np.isnan(cell.value):
        return "n/a", ""
    sound = line.replicas - line.failed
    below = [] if np.isnan(cell.low) else [f"[{number(cell.low)}, {number(cell.high)}]"]
    below += [f"{cell.known} of {sound}"] if cell.known < sound else []
    return number(cell.value) + ("*" if cell.best else ""), " ".join(below)


# Terminal -------------------------------------------------------------------------------------------------------------


def text(tables: Sequence[Table], intervals: bool = True) -> list[rich.table.Table]:
    """One rich table for each dataset."""
    made = []
    for table in tables:
        title = table.title if intervals else table.name
        shown = rich.table.Table(title=escape(title), title_justify="left", pad_edge=False)
        shown.add_column("")
        for column in table.columns:
            shown.add_column(escape(header(column).replace(" · ", "\n")), justify="right")
        ranked = None
        for line in table.lines:
            if ranked not in (None, line.status == "ranked"):
                shown.add_section()
            ranked = line.status == "ranked"
            entries = [entry(line, cell) for cell in line.cells]
            values = (f"[bold]{value}[/]" if value.endswith("*") else value for value, _ in entries)
            shown.add_row(escape(line.label), *values)
            if intervals:
                shown.add_row("", *(f"[dim]{escape(below)}[/]" if below else "" for _, below in entries))
        made.append(shown)
    return made


def text_headline(headline: Headline) -> rich.table.Table:
    """A rich table that is narrow: headings are cut into lines, and columns stand one space apart."""
    shown = rich.table.Table(title=escape(headline.title), title_justify="left", padding=0)
    shown.add_column("")
    for heading in headline.headings:
        shown.add_column(escape(_stacked(heading)), justify="right")
    before = None
    for method, ranked, words in headline.lines:
        if before not in (None, ranked):
            shown.add_section()
        before = ranked
        shown.add_row(escape(method), *(f"[bold]{word}[/]" if word.endswith("*") else escape(word) for word in words))
    return shown


def _stacked(heading: str) -> str:
    """Words one above the other, two in a line where they are short, and the region below."""
    words, _, region = heading.partition(" · ")
    return "\n".join([*textwrap.wrap(words, max(6, *map(len, heading.split()))), *filter(None, [region])])


def text_runs(runs: RunTable) -> rich.table.Table:
    title = "Runs: seconds, memory, and each method's diagnostics"
    shown = rich.table.Table(title=title, title_justify="left", pad_edge=False)
    for index, name in enumerate(("dataset", "method", *runs.columns)):
        shown.add_column(escape(name), justify="left" if index < 2 else "right")
    for dataset, method, values in runs.lines:
        shown.add_row(escape(dataset), escape(method), *map(_value, values))
    return shown


def _value(value: float | None) -> str:
    return "" if value is None else number(value)


# Markdown -------------------------------------------------------------------------------------------------------------


def markdown(tables: Sequence[Table], intervals: bool = True) -> str:
    """One GitHub table for each dataset."""
    parts = []
    for table in tables:
        lines = [["", *map(header, table.columns)], ["---", *["---:"] * len(table.columns)]]
        for line in table.lines:
            shown = [
                (f"**{value.rstrip('*')}**" if value.endswith("*") else value)
                + (f"<br><sub>{below}</sub>" if below and intervals else "")
                for value, below in (entry(line, cell) for cell in line.cells)
            ]
            lines.append([_plain(line.label), *shown])
        title = table.title if intervals else table.name
        parts += [f"**{_plain(title)}**", _piped(lines)]
    return "\n\n".join(parts)


def markdown_headlines(headlines: Sequence[Headline]) -> str:
    """A GitHub table each, with its notes. The notes that all tables have stand once, below the last."""
    shared = [note for note in headlines[0].notes if all(note in one.notes for one in headlines)] if headlines else []
    parts = [_headline(one, [note for note in one.notes if note not in shared]) for one in headlines]
    return "\n\n".join(part for part in (*parts, _bullets(shared)) if part)


def _headline(headline: Headline, notes: Sequence[str]) -> str:
    lines = [["", *map(_plain, headline.headings)], ["---", *["---:"] * len(headline.headings)]]
    for method, _, words in headline.lines:
        lines.append([_plain(method), *(f"**{word.rstrip('*')}**" if word.endswith("*") else word for word in words)])
    parts = [f"**{_plain(headline.title)}**", _piped(lines), _bullets(notes)]
    return "\n\n".join(part for part in parts if part)


def _bullets(notes: Sequence[str]) -> str:
    return "\n".join(f"* {_plain(note)}" for note in notes)


def markdown_runs(runs: RunTable) -> str:
    lines = [["dataset", "method", *map(_plain, runs.columns)], ["---", "---", *["---:"] * len(runs.columns)]]
    lines += [[_plain(dataset), _plain(method), *map(_value, values)] for dataset, method, values in runs.lines]
    return _piped(lines)


def _piped(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _plain(text: str) -> str:
    """A name that is no markup, whatever it contains."""
    return re.sub(r"([\\|*<>`\[\]])", r"\\\1", text)


# LaTeX ----------------------------------------------------------------------------------------------------------------


def latex(tables: Sequence[Table]) -> str:
    """One tabular for each dataset. The text is UTF-8, and needs the package booktabs."""
    parts = [f"% \\usepackage{{booktabs}}\n% {STAR}"]
    for table in tables:
        lines = [["", *(_tex(header(column)) for column in table.columns)]]
        lines += [
            [_tex(line.label), *(_tex_numbers(" ".join(filter(None, entry(line, cell)))) for cell in line.cells)]
            for line in table.lines
        ]
        head, *body = (f"{' & '.join(cells)} \\\\" for cells in lines)
        title = table.title.replace(" below", " in brackets").replace("\n", " ")
        parts.append(
            "\n".join(
                [
                    f"% {title}",
                    f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
                    "\\toprule",
                    head,
                    "\\midrule",
                    *body,
                    "\\bottomrule",
                    "\\end{tabular}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


_TEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "[": "{[}",  # after a line's end it would be an option of \\
        "]": "{]}",
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
        "→": r"$\to$",
        "·": r"$\cdot$",
    }
)


def _tex(text: str) -> str:
    return text.translate(_TEX)


def _tex_numbers(text: str) -> str:
    """Numbers with their minus signs, powers of ten and infinities in mathematics."""

    def math(match: re.Match[str]) -> str:
        sign, digits, power = match["sign"] or "", match["digits"], match["power"]
        digits = r"\infty" if digits == "inf" else digits
        power = rf"\times 10^{{{int(power)}}}" if power else ""
        return f"${sign}{digits}{power}$" if sign or power or digits.startswith("\\") else digits

    return re.sub(r"(?P<sign>-)?(?P<digits>inf|\d+(\.\d+)?)(e(?P<power>[+-]\d+))?", math, text)


# CSV ------------------------------------------------------------------------------------------------------------------


def csv(tables: Sequence[Table]) -> str:
    """A line for each method and column, with every digit."""
    lines = [
        {
            "dataset": table.dataset,
            "method": line.method,
            "status": line.status,
            "replicas": line.replicas,
            "failed": line.failed,
            "score": score,
            "region": region,
            **vars(cell),
        }
        for table in tables
        for line in table.lines
        for (score, region), cell in zip(table.columns, line.cells, strict=True)
    ]
    return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")
