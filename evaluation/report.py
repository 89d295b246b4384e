"""The report: what its page shows, as numbers and words. `report_svg` draws its charts, `report_page` is the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gapbench.evaluation import report_charts as charts
from gapbench.evaluation.drawing import styles
from gapbench.evaluation.headline import headlines
from gapbench.evaluation.report_board import About, Board, Facts, board, privacy, reasons
from gapbench.evaluation.report_charts import Bands, Curves, Dots, Scatter
from gapbench.evaluation.report_cost import cost
from gapbench.evaluation.report_findings import findings, top
from gapbench.evaluation.report_knobs import turned
from gapbench.evaluation.report_overview import Overview, overview
from gapbench.evaluation.report_pairs import Grid, pairs
from gapbench.evaluation.report_ranks import Ranks, ranks
from gapbench.evaluation.results import Result
from gapbench.evaluation.tables import departures, provenance, remarks, run_table


@dataclass(frozen=True)
class Section:
    """One dataset. privacy: a table, its head first."""

    name: str
    findings: tuple[str, ...]
    board: Board
    privacy: tuple[tuple[str, ...], ...]
    answer: Dots | None
    cost: Scatter | None
    pairs: tuple[Grid, ...]
    stds: Curves | None
    calibration: tuple[Curves, ...]
    bands: Bands | None


@dataclass(frozen=True)
class Report:
    """The report of a folder. findings: (heading, sentences). knobs: a chart a knob and region. unsound: dataset,
    method, status and reason of what failed or did not converge. notes: sentences on what is not shown. origin: where
    the numbers come from."""

    title: str
    findings: tuple[tuple[str, tuple[str, ...]], ...]
    overview: Overview | None
    ranks: Ranks | None
    knobs: tuple[Curves, ...]
    families: tuple[str, ...]
    sections: tuple[Section, ...]
    unsound: tuple[tuple[str, str, str, str], ...]
    remarks: tuple[str, ...]
    notes: tuple[str, ...]
    origin: tuple[tuple[str, str], ...]

    @property
    def intervals(self) -> bool:
        """True if some answer has an interval."""
        return any(one.answer and one.answer.intervals for one in self.sections)


def report(
    results: Sequence[Result],
    title: str,
    known: Mapping[tuple[str, str], About] | None = None,
    notes: Sequence[str] = (),
    origin: Facts = (),
) -> Report:
    """The report of results. known: of methods on datasets."""
    style, costs, known = styles(results), run_table(results), known or {}
    sections = []
    for headline in headlines(results):
        lines = board(headline, results, style, costs, known)
        rows = [one for one in results if headline.table and one.dataset == headline.table.dataset]
        answer = charts.answer(rows, style)
        sections.append(
            Section(
                rows[0].dataset,
                tuple(findings(rows, answer)) if answer else (),
                lines,
                privacy(rows),
                answer,
                cost(rows, style),
                pairs(rows),
                charts.stds(rows, style),
                tuple(charts.calibration(rows, style)),
                charts.bands(rows, style),
            )
        )
    return Report(
        title,
        top([(one.name, one.findings, one.answer) for one in sections], results),
        overview([(one.name, one.answer) for one in sections]),
        ranks(results, style),
        tuple(chart for region in ("gap", "data") for chart in turned(results, style, region)),
        tuple(sorted({row.family for one in sections for row in one.board.rows if row.family})),
        tuple(sections),
        tuple((one.dataset, one.method, one.status, reason) for one in results for reason in reasons(one)),
        (*departures(results), *remarks(results)),
        tuple(notes),
        (*origin, *(("computed on", sentence) for sentence in provenance(results)), *_versions(results)),
    )


def _versions(results: Sequence[Result]) -> list[tuple[str, str]]:
    """The versions of all packages, the Python and the commit, each combination once."""
    found: dict[str, None] = {}
    for run in (run for result in results for run in result.provenance):
        words = [f"{name} {version}" for name, version in sorted(dict(run.get("versions", {})).items())]
        words += [f"{name} {run[name]}" for name in ("python", "commit") if run.get(name)]
        found[", ".join(words)] = None
    return [("versions", words) for words in found]
