"""The report: the right numbers, in one sound HTML file that asks no network and that no name can break."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from click.testing import Result as Ran
from made_reports import Checked, make, page_of, rows_of

from gapbench.evaluation import report_svg
from gapbench.evaluation.compare import Estimate
from gapbench.evaluation.headline import headlines
from gapbench.evaluation.report import report
from gapbench.evaluation.report_board import reasons
from gapbench.evaluation.report_charts import Dots, Measured
from gapbench.evaluation.report_findings import verdict
from gapbench.evaluation.results import Result
from gapbench.runners.cli.main import main
from gapbench.runners.load import results as read
from gapbench.runners.report import settings

PUBLISHED = Path(__file__).parents[1] / "results" / "published"
SOUND = [make("right", ratio=2.0), make("narrow"), make("reference", kind="reference")]


@pytest.mark.one_file
@pytest.mark.parametrize("suite", ["default", "uci_gap"])
def test_the_leaderboards_are_the_headlines(suite: str) -> None:
    """Of what is published, with the limits of size. Seen to catch: columns in reverse order, the name of
    another row, stars left in."""
    results = read(PUBLISHED / suite)
    text = page_of(results)
    shown = rows_of(text)
    for headline in headlines(results):
        assert ["method", *headline.headings] in shown
        for name, _, words in headline.lines:
            assert [name, *(word.rstrip("*") for word in words)] in shown
    pairs = re.findall(r'<tbody data-name="([^"]*)".*?<summary>([^<]*)</summary>', text, re.DOTALL)
    assert len(pairs) == len(results) and all(words.split(" ")[0] == name for name, words in pairs)
    bold = sum(word.endswith("*") for one in headlines(results) for *_, words in one.lines for word in words)
    assert len(re.findall(r"<td data-v[^>]*><b>", text)) == bold
    assert len(text.encode()) <= (1_000_000 if suite == "default" else 3_000_000)
    assert page_of(results) == text  # the same results give the same bytes


def test_the_page_in_the_docs_is_of_the_published_results() -> None:
    """Seen to catch: a page of other numbers. `python docs/screenshot.py` writes it."""
    shown = rows_of((PUBLISHED.parents[1] / "docs" / "report.html").read_text(encoding="utf-8"))
    told = [words for one in headlines(read(PUBLISHED / "default")) for words in one.lines]
    for name, _, words in told:
        assert [name, *(word.rstrip("*") for word in words)] in [
            [word.removesuffix(" ᵉ") for word in row] for row in shown if row[:1] == [name]
        ]


def test_the_findings_say_what_the_intervals_say() -> None:
    """Seen to catch: the interval's other end compared, values among the data in place of the gap, methods that are not
    ranked named as right."""
    loose = make("loose", ratio=2.0)
    values = np.log(np.linspace(0.6, 1.4, 6))
    scores = {**loose.scores, "reference_log_std": {**loose.scores["reference_log_std"], "gap": values}}
    results = [*SOUND, replace(loose, scores=scores), make("stuck", ratio=2.0, rhat=2.0), make("wide", ratio=8.0)]
    ((name, sentences),) = report(results, "trial").findings
    assert name == "sine"
    assert sentences[0] == "Right in the gap (std 0.8 to 1.25 of the true posterior's): right 1.00 [1.00, 1.00]."
    assert sentences[1].startswith("Too narrow in the gap: narrow 0.25 [0.25, 0.25]")
    assert sentences[2].startswith("Too wide in the gap: wide 4.00 [")
    assert sentences[3].startswith("Open, as the interval crosses a limit: loose 0.9")
    assert (
        sentences[4]
        == "The best predictions of y in the gap, by CRPS, whatever their bars: loose 0.2, narrow 0.2, right 0.2."
    )
    assert sentences[5] == "Not ranked, as some of their replicas did not converge: stuck."
    assert sentences[6] == "What right error bars cost, in CPU seconds a replica: right 1; the others from 1 to 1."
    limits = (0.8, 1.25)
    verdicts = [verdict(Estimate(1.0, *ends), limits) for ends in ((0.9, 1.1), (0.7, 1.1), (0.1, 0.2), (2, 3))]
    assert verdicts == ["right", "open", "too narrow", "too wide"]
    assert verdict(Estimate(0.5, np.nan, np.nan), limits) == "too narrow"  # too few replicas for an interval


def test_the_reason_is_that_of_the_method() -> None:
    """Chains of which R-hat is known disagree; else the loss still falls. Seen to catch: R-hat that is nan."""
    trained = make("trained", rhat=np.nan)
    falling = {"loss fall": np.ones(6), "loss fall error": np.full(6, 1e-3)}
    assert reasons(replace(trained, diagnostics=falling)) == ["6 of 6 replicas: its loss still falls"]
    assert reasons(make("chains", rhat=2.0)) == ["6 of 6 replicas: its chains disagree (R-hat)"]
    assert reasons(make("sound", rhat=1.0)) == []


def test_many_datasets_are_counted() -> None:
    """Seen to catch: counts over all datasets in place of those where a method is ranked."""
    results = [make("a", ratio=2.0, dataset=f"d{k}") for k in range(4)]
    results += [make("b", ratio=2.0 if k else 0.5, dataset=f"d{k}", rhat=2.0 if k == 3 else None) for k in range(4)]
    ((heading, sentences),) = report(results, "trial").findings
    cost = "The cost, in CPU seconds a replica, median over datasets: a 1, b 1."
    assert heading == "4 datasets, in the gap; each method on those where it is ranked"
    assert sentences == ("Right: a on 4 of 4, b on 2 of 3.", "Too narrow: b on 1 of 3.", "Too wide: no method.", cost)
    assert "Contents" in page_of(results)


def test_a_std_of_nothing_has_an_axis() -> None:
    """Its ratio is 0, which a log axis does not have. Seen to catch: no number left to begin the axis with."""
    one = make("marginal")
    nothing = {name: np.full(6, -1000.0) for name in one.scores["reference_log_std"]}
    answer = report([replace(one, scores={**one.scores, "reference_log_std": nothing})], "mine").sections[0].answer
    assert answer is not None and answer.log and answer.limits == (0.4, 2.5)


def test_without_a_reference_coverage_answers() -> None:
    """Seen to catch: the true posterior named where there is none, a ratio to it asked for."""
    results = [make("good", ratio=None, coverage=0.9), make("bad", ratio=None, coverage=0.6)]
    made = report(results, "trial")
    assert made.sections[0].answer is not None and not made.sections[0].answer.log
    text = page_of(results)
    assert "Right in the gap (90 % intervals hold 85 % to 95 %): good 90 %" in text
    assert "Too narrow in the gap (they hold less): bad 60 %" in text and "true posterior" not in " ".join(text.split())


@pytest.mark.parametrize(
    "results",
    [
        [make("only", curves=False)],
        [make("only", gap=False)],
        [make("only", count=1)],
        [make("only", ratio=None)],
        [make("none", failures=dict.fromkeys(range(6), "by nought"))],
        [make("only", failures={0: "by nought"})],
        [make("prior", kind="baseline")],
    ],
    ids=["no curves", "no gap", "one replica", "no reference", "failed", "one failure", "no method"],
)
def test_every_folder_has_a_sound_page(results: list[Result]) -> None:
    """Seen to catch: a chart without a row, a std of nothing, bands of no method."""
    text = page_of(results)
    assert any(word.startswith(results[0].method) for word in Checked(text).inside["summary"])
    if results[0].failures:
        assert any(row[:2] == ["sine", results[0].method] and "by nought" in row[3] for row in rows_of(text))
    if not results[0].curves:
        assert "<h3>Bands" not in text and "<h3>Std" not in text


def test_no_name_and_no_reason_is_markup() -> None:
    """Seen to catch: autoescape off, a label put into an SVG as it is, JSON that closes its script."""
    names = [
        "<script>alert(1)</script>",
        "\"'><img src=x onerror=alert(1)>",
        "</script><b>",
        "\u202eevil",
        "x" * 200,
        "🦆",
    ]
    results = [make(name, failures={0: f"because of {name}"}) for name in names]
    text = page_of(results, notes=["<i>note</i>"], origin=[("<u>", "<u>")])
    checked = Checked(text)
    assert checked.tags["script"] == 3 and not checked.tags["img"] and not checked.tags["u"]
    assert not [name for _, name, _ in checked.attributes if name.startswith("on")]
    for name in names:
        assert any(row[:1] == [name] for row in rows_of(text))
    embedded, _, _ = checked.inside["script"]
    (bands,) = json.loads(embedded)
    assert {one["name"] for one in bands["methods"]} == set(names) and "<" not in embedded


def test_the_page_loads_nothing_and_allows_its_own_script_alone() -> None:
    """Seen to catch: a font with url(), a style attribute, a hash of another text, a policy without default-src."""
    text = page_of(SOUND)
    assert not re.search(r"https?:|\bsrc=|@import|url\(|//\w+\.\w|\bstyle=", text)
    checked = Checked(text)
    ((policy,),) = [[value for _, name, value in checked.attributes if name == "content" and "default-src" in value]]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    *_, script = checked.inside["script"]
    (style,) = checked.inside["style"]
    for kind, body in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert len(script.encode()) <= 60_000


def test_embedded_curves_are_those_of_the_results() -> None:
    """Decoded as the page's script does it. Seen to catch: replicas and levels exchanged, big-endian codes, the window
    in place of three of its heights."""
    moved = make("moved")
    shift = np.arange(6)[:, None] / 10
    moved = replace(moved, curves={**moved.curves, "f_95": moved.curves["f_95"] + shift})
    made = report([moved], "trial")
    bands = made.sections[0].bands
    assert bands is not None
    (coded,) = json.loads(Checked(page_of([moved])).inside["script"][0])
    codes = np.frombuffer(base64.b64decode(coded["methods"][0]["band"]), "<u2").astype(float).reshape(3, 6, 13)
    low, high = bands.limits
    values = low + (3 * codes / 65534 - 1) * (high - low)
    for level, name in enumerate(("f_05", "f_50", "f_95")):
        np.testing.assert_allclose(values[level], moved.curves[name], atol=1e-4 * (high - low))


def test_marks_stand_where_their_numbers_are() -> None:
    """By hand: on a log axis from 0.1 to 10 the value 1 is in the middle. Seen to catch: a linear axis, intervals drawn
    from the value, the wrong region's marks filled."""
    style = ("#0072B2", "-")
    estimates = (Estimate(1.0, 0.1, 10.0), Estimate(10.0, np.nan, np.nan))
    row = Measured("mm", "mm", style, estimates)
    chart = Dots("t", "a", ("data", "gap"), (row,), 1.0, (0.8, 1.25), True, (0.1, 10.0), str)
    drawn = str(report_svg.dots(chart, width=400))
    left, right = 14 + 2 * report_svg.LETTER, 376.0
    middle = (left + right) / 2
    assert f'<circle cx="{middle:.1f}" cy="36.5" r="3.2" fill="none"' in drawn
    assert f'<circle cx="{right:.1f}" cy="43.5" r="3.8" fill="currentColor"' in drawn
    assert f'd="M{left:.1f} 36.5H{right:.1f}"' in drawn and f'd="M{middle:.1f} 30V50"' in drawn
    assert report_svg.log_ticks(0.1, 10) == pytest.approx([0.1, 0.3, 1, 3, 10])
    assert report_svg.ticks(-4, 4) == [-4, -2, 0, 2, 4] and report_svg.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert report_svg.path([0, 1, 2, 3], [0, np.nan, 1, 2], float, float) == "M0.0 0.0M2.0 1.0L3.0 2.0"


class Marks(HTMLParser):
    """The coloured marks in a page's charts. unsaid: the charts of those that do not say of which method they are.
    words: the method and the words of those that are named."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inside: list[dict[str, str | None]] = []
        self.unsaid: list[str | None] = []
        self.words: set[tuple[str, str]] = set()
        self.feed(page)

    def said(self, name: str) -> str | None:
        return next((found for each in self.inside if (found := each.get(name))), None)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("svg", "g"):
            self.inside.append(dict(attrs))
            if re.fullmatch(r"c\d+", dict(attrs).get("class") or "") and not self.said("data-name"):
                self.unsaid.append(self.said("aria-label"))

    def handle_data(self, data: str) -> None:
        if (owner := self.said("data-name")) and data.strip():
            self.words.add((owner, data.strip()))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("svg", "g"):
            self.inside.pop()


@pytest.mark.parametrize("suite", ["default", "knobs", "uci"])
def test_marks_say_whose_they_are(suite: str) -> None:
    """So a search finds them. Seen to catch: rows, lines, spots or ranks that do not say it, or say another name."""
    marks = Marks(page_of(read(PUBLISHED / suite)))
    assert all(chart and "the band of" in chart for chart in marks.unsaid)  # such a chart is of one method
    assert len(marks.words) >= 10 and all(
        owner.startswith(words.split()[0].rstrip("…")) for owner, words in marks.words
    )


def command(*words: object) -> Ran:
    return CliRunner().invoke(main, ["report", *map(str, words)])


def test_the_command_writes_beside_published_files_only_if_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to catch: an untracked page in results/published, the command of another suite, a float in hexadecimal."""
    monkeypatch.chdir(tmp_path)
    ran = command(PUBLISHED / "uci_mc_dropout")
    path = tmp_path / "uci_mc_dropout-report.html"
    assert ran.exit_code == 0 and ran.stdout == f"{path}\n"
    text = path.read_text(encoding="utf-8")
    assert "gapbench run --suite uci_mc_dropout --methods mc_dropout_grid --datasets yacht" in text
    assert "MCDropout(" in text and "0x1." not in text and "sha256 of its manifest" in text
    assert command(PUBLISHED / "uci_mc_dropout", "--out", "mine.html").exit_code == 0
    assert (tmp_path / "mine.html").read_bytes() == path.read_bytes()
    nowhere = command("nowhere")
    assert nowhere.exit_code == 3 and nowhere.stderr.count("\n") == 1 and "no results there" in nowhere.stderr
    assert command(PUBLISHED / "uci_mc_dropout", "--out", tmp_path).exit_code == 2
    assert settings({"class": "A", "fields": {"lr": {"float": "0x1.0p-1"}, "b": [1, None]}}) == "A(lr=0.5, b=[1, None])"
