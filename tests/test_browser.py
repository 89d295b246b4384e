"""The page of a report in a real browser: what its script and its style do, how it prints, and who can read it."""

from __future__ import annotations

import base64
import csv
import json
import math
import os
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import axe_core_python
import numpy as np
import pytest
from made_reports import make
from scipy import stats
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait
from statsmodels.stats.multitest import multipletests

from gapbench.evaluation.drawing import styles
from gapbench.evaluation.report import Section, report
from gapbench.evaluation.report_board import About
from gapbench.evaluation.report_page import page
from gapbench.evaluation.report_ranks import ranks
from gapbench.evaluation.results import Result
from gapbench.runners.load import Collected, collect
from gapbench.runners.report import write

PUBLISHED = Path(__file__).parents[1] / "results" / "published"
AXE = Path(axe_core_python.__file__).with_name("axe.min.js")
HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "`${alert(1)}`\\",
    "\u202eevil",
    "x" * 200,
    "🦆",
]
QUIET = (
    *("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "disable-quic"),
)
SHOWN = "[...document.querySelectorAll(arguments[0])].filter(one => one.checkVisibility({ checkVisibilityCSS: true }))"
OPEN = "document.querySelectorAll('details').forEach(one => one.open = true)"
ROWS = "[...document.querySelectorAll('.board')[arguments[0]].tBodies].map(body => body.dataset.name)"
RUN = """
const [only, done] = arguments;
axe.run(document, { resultTypes: ["violations"], ...(only && { runOnly: only }) }).then(
  found => done(found.violations.map(one => [one.id, one.impact, one.nodes.map(node => node.failureSummary)])),
  error => done([["axe", "critical", String(error)]]));
"""


@dataclass(frozen=True)
class Browser:
    """Chromium. A page is opened by its file."""

    driver: Chrome

    def tell(self, command: str, **values: Any) -> Any:
        """A command of the DevTools."""
        return self.driver.execute_cdp_cmd(command, values)

    def ask(self, expression: str, *values: Any) -> Any:
        return self.driver.execute_script(f"return {expression}", *values)

    def open(self, path: Path, *, width: int = 1200, scripts: bool = True) -> None:
        self.resize(width)
        self.tell("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.look("screen", "light")
        self.driver.get(path.as_uri())

    def resize(self, width: int) -> None:
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)

    def look(self, media: str, scheme: str) -> None:
        """As on a screen or on paper, in a light or a dark scheme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.tell("Emulation.setEmulatedMedia", media=media, features=features)

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def count(self, selector: str) -> int:
        """How many elements are shown."""
        return int(self.ask(f"{SHOWN}.length", selector))

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]


def numbers(colour: str) -> tuple[int, ...]:
    """Of `rgb(1, 2, 3)`."""
    return tuple(map(int, re.findall(r"\d+", colour)))


def heights(limits: tuple[float, float], values: Any) -> list[float]:
    """Where numbers stand in the viewer's window: it is 270 high, and what is far outside is cut."""
    low, high = limits
    at = [270 * (high - value) / (high - low) for value in values]
    return [min(max(one, -270.0), 540.0) for one in at]


def points(d: str) -> list[float]:
    """The heights of a path's points."""
    return [float(pair.split(" ")[1]) for pair in re.split("[ML]", d.rstrip("Z"))[1:]]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not driver:
        words = "no browser looks at the report: expected chromium and chromedriver on the PATH"
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*QUIET, f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with Chrome(options, Service(driver)) as chrome:  # told its driver, selenium looks for none
        chrome.set_script_timeout(120)
        yield Browser(chrome)


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """Whatever a test does, the console has nothing to say."""
    started.requests()
    yield started
    assert not started.driver.get_log("browser")


@pytest.fixture(scope="module")
def found() -> dict[str, Collected]:
    return {name: collect(PUBLISHED / name) for name in ("default", "uci_gap")}


@pytest.fixture(scope="module")
def pages(found: dict[str, Collected], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Published results, and results whose methods and dataset have hostile names."""
    folder = tmp_path_factory.mktemp("pages")
    paths = {name: folder / f"{name}.html" for name in (*found, "hostile")}
    for name, collected in found.items():
        write(collected, PUBLISHED / name, paths[name])
    one = next(one for one in found["default"].results if one.method == "mclmc")
    named = [replace(one, dataset=HOSTILE[0], method=name) for name in HOSTILE]
    paths["hostile"].write_text(page(report(named, HOSTILE[1])), encoding="utf-8")
    return paths


@pytest.fixture(scope="module")
def section(found: dict[str, Collected]) -> Section:
    """What the page of the default suite shows first."""
    of = "gapped_sine"
    return report([one for one in found["default"].results if one.dataset == of], "default").sections[0]


@pytest.mark.parametrize("name", ["default", "uci_gap", "hostile"])
def test_a_page_asks_for_nothing_and_is_as_wide_as_its_window(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    """With all that folds out. Seen to catch: an image from elsewhere, with the policy and without, a style attribute,
    an error and a warning of the script, a list of methods as wide as the longest name, tables that do not scroll."""
    browser.open(pages[name])
    assert browser.requests() == [pages[name].as_uri()] and browser.count("#tools") == 1
    browser.ask(OPEN)
    for width in (360, 1600):
        browser.resize(width)
        assert browser.ask("document.documentElement.scrollWidth <= innerWidth") and browser.ask("innerWidth") == width


def test_a_column_sorts_its_table(browser: Browser, pages: dict[str, Path], section: Section) -> None:
    """Seen to catch: words compared in place of numbers, unknown values first or anywhere, controls among the methods,
    another column's values, no way down, all tables sorted into one, two columns marked."""
    browser.open(pages["default"])
    order = list(section.board.rows)
    assert browser.ask(ROWS, 0) == [row.method for row in order]
    elsewhere = browser.ask(ROWS, 1)
    for column in (1, 2, 7):
        for sign, state in ((1, "ascending"), (-1, "descending")):
            browser.click(f".board th:nth-child({column + 1}) button")

            def place(row: Any, column: int = column, sign: int = sign) -> tuple[bool, bool, float]:
                value = row.values[column - 1]
                return row.control, math.isnan(value), 0 if math.isnan(value) else sign * value

            order.sort(key=place)
            assert browser.ask(ROWS, 0) == [row.method for row in order]
            marked = "[...document.querySelectorAll('[aria-sort]')].map(one => [one.cellIndex, one.ariaSort])"
            assert browser.ask(marked) == [[column, state]]
    browser.click(".board th button")
    names = [row.method for row in sorted(order, key=lambda row: (row.control, row.method))]
    assert browser.ask(ROWS, 0) == names and browser.ask(ROWS, 1) == elsewhere


def test_what_is_searched_or_did_not_converge(browser: Browser, pages: dict[str, Path], section: Section) -> None:
    """Seen to catch: capitals that find nothing, a search that forgets the other tool, a button that hides for good,
    rows hidden and not told, Enter that sends the form; marks in charts that stay as they are, or stay faint."""
    browser.open(pages["default"])
    shown = f"{SHOWN}.map(one => one.dataset.name)"
    board, rows = "section[aria-labelledby=d0] .board tbody", section.board.rows
    sound = [row.method for row in rows if row.status != "not converged"]
    assert 0 < len(sound) < len(rows)
    browser.click("#sound")
    assert browser.ask(shown, board) == sound
    browser.click("#search")
    browser.press("SG")
    assert browser.ask(shown, board) == [name for name in sound if "sg" in name]
    browser.click("#sound")
    found = [row.method for row in rows if "sg" in row.method]
    assert browser.ask(shown, board) == found
    assert re.fullmatch(r"\d+ of \d+ rows are hidden", browser.ask("document.getElementById('told').textContent"))
    faint = """[...new Set([...document.querySelectorAll("svg g[data-name][opacity]")].filter(
        one => one.getAttribute("opacity") < 1).map(one => one.dataset.name))].sort()"""
    drawn = {*re.findall(r'<g data-name="([^"]+)">', pages["default"].read_text())}
    assert set(found) < drawn and browser.ask(faint) == sorted(drawn - set(found))
    browser.click("#search")
    browser.press(Keys.ENTER, Keys.BACKSPACE, Keys.BACKSPACE)
    assert browser.ask(faint) == []
    assert browser.ask(shown, board) == [row.method for row in rows]
    assert browser.ask("document.getElementById('told').textContent") == ""


def test_a_method_folds_open_by_mouse_and_by_keys(browser: Browser, pages: dict[str, Path]) -> None:
    """Seen to catch: a row that stays hidden, all rows opened at once, a summary that keys do not reach."""
    browser.open(pages["default"])
    first, second = (f".board tbody:nth-of-type({at}) summary" for at in (1, 2))
    assert browser.count(".more") == 0
    browser.click(first)
    assert browser.count(".more") == 1
    browser.press(Keys.ENTER)
    assert browser.count(".more") == 0
    browser.press(Keys.TAB, Keys.SPACE)
    assert browser.count(".more") == 1
    assert browser.ask("document.activeElement === document.querySelector(arguments[0])", second)
    settings = "document.activeElement.closest('tbody').querySelector('.more').innerText"
    assert "gapbench run --suite default --methods " in browser.ask(settings)


def test_arrow_keys_move_through_replicas_and_methods(
    browser: Browser, pages: dict[str, Path], section: Section
) -> None:
    """The band that is drawn is that of the results. Seen to catch: levels exchanged, the first replica's
    band for all, the arrows exchanged, no way round the end, a method chosen and not drawn."""
    bands = section.bands
    assert bands is not None
    browser.open(pages["default"])
    state = """(() => {
      const figure = document.querySelector(".viewer"), group = figure.querySelector("svg svg g");
      const method = figure.querySelector("select").selectedOptions[0].text;
      const lines = [...group.querySelectorAll("path")].map(one => one.getAttribute("d"));
      return [method, figure.querySelector("output").textContent, lines];
    })()"""
    drawn = [browser.ask(state)]
    browser.ask("document.querySelector('.viewer').focus()")
    down, up, left, right = Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ARROW_LEFT, Keys.ARROW_RIGHT
    for key in (right, down, down, left, left, up, up, up):
        browser.press(key)
        drawn.append(browser.ask(state))
    last = f"replica {bands.replicas[-1]}"
    expected = [
        *((0, "replica 0"), (0, "replica 1"), (1, "replica 1"), (2, "replica 1"), (2, "replica 0")),
        *((2, last), (1, last), (0, last), (-1, last)),
    ]
    assert [f"{words[0]}, {words[1]}" for words in drawn] == [
        f"{bands.methods[at].label}, {replica}" + (", of y" if bands.methods[at].of == "y" else "")
        for at, replica in expected
    ]
    assert len({str(lines) for *_, lines in drawn}) == len(drawn)
    for at, replica, (*_, (area, line)) in ((0, 0, drawn[0]), (2, 1, drawn[3]), (2, len(bands.replicas) - 1, drawn[5])):
        low, middle, high = (heights(bands.limits, values[replica]) for values in bands.methods[at].quantiles)
        assert points(line) == pytest.approx(middle, abs=0.1)
        assert points(area) == pytest.approx([*low, *high[::-1]], abs=0.1)


def test_a_chart_is_saved_as_it_is_drawn(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    """Seen to catch: a name with a slash, a file without its namespace."""
    browser.tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.open(pages["hostile"])
    browser.click(".save button")
    (saved,) = WebDriverWait(browser.driver, 30).until(lambda _: list(tmp_path.glob("*.svg")))
    assert re.fullmatch(r"[\w-]+\.svg", saved.name)
    assert ET.parse(saved).getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.fixture(scope="module")
def eight() -> list[Result]:
    """Five methods on eight datasets, the scores all different; a name has what a table must quote."""
    random, found = np.random.default_rng(2), []
    for dataset in range(8):
        for at, name in enumerate(("a", "b", 'say "c", d', "e", "=f")):
            one = make(name, dataset=f"d{dataset}", curves=False)
            distance = np.exp(2 * at + random.standard_normal()) * np.ones(len(one.replicas))
            by_region = {region: distance for region in one.scores["reference_w1"]}
            found.append(replace(one, scores={**one.scores, "reference_w1": by_region}))
    return found


def test_methods_that_are_left_out_are_ranked_no_more(browser: Browser, eight: list[Result], tmp_path: Path) -> None:
    """The script's ranks are scipy's, and its correction that of statsmodels, on the methods that are left. What is
    saved is what is shown, read by the csv module.

    Seen to catch: ranks among all methods, p corrected for all pairs, no way back, another family shown, quotes that
    are not doubled, all tables in one file, a word that a spreadsheet would compute.
    """
    known = {(one.dataset, one.method): About("first" if one.method == "a" else "rest") for one in eight}
    path = tmp_path / "ranked.html"
    path.write_text(page(report(eight, "eight", known)), encoding="utf-8")
    browser.open(path)
    table = """[...document.querySelectorAll("#ranking tbody tr:not([hidden])")].map(
      one => [...one.children].map(cell => cell.textContent))"""
    whole, made = browser.ask(table), ranks(eight, styles(eight))
    assert made is not None
    browser.ask(OPEN)
    browser.ask("document.querySelector(arguments[0]).click()", "tbody[data-name=b] .leave")
    kept = [at for at, row in enumerate(made.rows) if row.method != "b"]
    names = [made.rows[at].method for at in kept]
    mean = stats.rankdata(made.goodness[:, kept], axis=1).mean(0)
    upper, p = np.triu_indices(len(kept), 1), np.ones((len(kept), len(kept)))
    p[upper] = p.T[upper] = multipletests(made.p[np.ix_(kept, kept)][upper], method="holm")[1]
    order = np.argsort(mean, kind="stable")
    alike = [[names[k] for k in order if k != at and p[at, k] >= 0.05] for at in order]
    expected = [
        [names[at], f"{mean[at] + 1e-9:.2f}", "all others" if len(same) == len(kept) - 1 else ", ".join(same) or "none"]
        for at, same in zip(order, alike, strict=True)
    ]
    assert browser.ask(table) == expected and browser.count("#diagram") == 0 and "none" in expected[0]
    browser.tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.ask("document.querySelector('#ranking').closest('figure').querySelector('button').click()")
    (saved,) = WebDriverWait(browser.driver, 30).until(lambda _: list(tmp_path.glob("*.csv")))
    head, *lines = csv.reader(saved.read_text(encoding="utf-8").splitlines())
    assert head == ["method", "average rank", "not told apart from"]
    assert lines == [[word.replace("=f", "'=f") if word.startswith("=") else word for word in row] for row in expected]
    browser.click("#again")
    assert browser.ask(table) == whole and browser.count("#diagram") == 1
    Select(browser.driver.find_element("id", "family")).select_by_visible_text("first")
    assert set(browser.ask(f"{SHOWN}.map(one => one.dataset.name)", ".board tbody")) == {"a"}


def test_the_contents_lead_to_headings_that_are_seen(browser: Browser, pages: dict[str, Path]) -> None:
    """Seen to catch: a heading under the tools, which stay at the top."""
    browser.open(pages["uci_gap"])
    browser.click("a[href='#d2']")
    seen = """(() => {
      const heading = document.getElementById("d2"), { left, top, height } = heading.getBoundingClientRect();
      return [top > 0, document.elementFromPoint(left + 5, top + height / 2) === heading];
    })()"""
    assert browser.ask(seen) == [True, True]


@pytest.mark.parametrize("name", ["default", "uci_gap"])
def test_everybody_can_read_the_page(browser: Browser, pages: dict[str, Path], name: str) -> None:
    """axe finds nothing that is serious, and no faint text in either scheme. It looks at one dataset, and at the first
    rows of the tables of numbers: the others are alike. Seen to catch: grey text on white, black text on black,
    links too dark for it, no dark ground, a search without a label, a chart without words."""
    browser.open(pages[name])
    alike = ".plain tr:nth-child(n + 3), main > section:has(> [id^='d']:not(#d0))"
    browser.ask("document.querySelectorAll(arguments[0]).forEach(one => one.remove())", alike)
    browser.driver.execute_script(AXE.read_text(encoding="utf-8"))  # the driver may what the page's policy forbids
    for scheme, only in (("light", None), ("dark", ["color-contrast"])):
        browser.look("screen", scheme)
        found = browser.driver.execute_async_script(RUN, only)
        assert not [one for one in found if one[1] in ("serious", "critical")]
        ground = numbers(browser.ask("getComputedStyle(document.body).backgroundColor"))
        assert max(ground) < 64 if scheme == "dark" else min(ground) > 192


def test_the_page_prints_on_white_without_its_tools(browser: Browser, pages: dict[str, Path]) -> None:
    """From a dark screen too. Seen to catch: tools on paper, the colours of the dark scheme on white, a page wider than
    paper."""
    browser.open(pages["default"], width=700)
    browser.look("print", "dark")
    assert browser.count("#tools, .viewer, .save, nav") == 0 and browser.count(".board, .panels svg") > 2
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    colours = "[one.getAttribute('color'), getComputedStyle(one).color]"
    for own, printed in browser.ask(f"[...document.querySelectorAll('g[color]')].map(one => {colours})"):
        assert tuple(bytes.fromhex(own[1:])) == numbers(printed)
    assert browser.ask("document.documentElement.scrollWidth") <= 700  # as wide as A4 without its margins
    pdf = base64.b64decode(browser.tell("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) > 1


def test_without_scripts_all_is_read_and_nothing_is_offered(browser: Browser, pages: dict[str, Path]) -> None:
    """Seen to catch: tools and a viewer that do nothing, panels that the script opens."""
    browser.open(pages["default"], scripts=False)
    assert browser.count("#tools, .viewer, .save, thead button") == 0
    for shown in (".board", ".panels svg", "figure:not(.viewer) > svg"):
        assert browser.count(shown) == browser.ask("document.querySelectorAll(arguments[0]).length", shown) > 1


def test_hostile_names_are_shown_as_they_are(browser: Browser, pages: dict[str, Path]) -> None:
    """And nothing of them runs. Seen to catch: autoescape off, a name put into the list of methods or into its line as
    markup."""
    browser.open(pages["hostile"])
    browser.ask(OPEN)
    texts = "[...document.querySelectorAll(arguments[0])].map(one => one.textContent.replace(/ †$/, ''))"
    for place in (".board summary", ".viewer option", ".panels figcaption"):
        assert set(browser.ask(texts, place)) == set(HOSTILE), place
    assert browser.ask("document.querySelector('h2#d0').textContent") == HOSTILE[0]
    assert browser.ask("document.title") == f"gapbench: {HOSTILE[1]}"
    assert browser.ask("document.scripts.length") == 3 and browser.ask("document.images.length") == 0
