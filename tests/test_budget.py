"""Equal budgets: the steps that follow from published costs, and a run with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import gapbench

from gapbench.evaluation.entries import Trained
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.cqr import CQR
from gapbench.methods.deep_ensemble import DeepEnsemble
from gapbench.methods.evidential import Evidential
from gapbench.methods.mclmc import MCLMC
from gapbench.methods.nngp import NNGP
from gapbench.methods.quantile_regression import QuantileRegression
from gapbench.methods.svgd import SVGD
from gapbench.runners import costs
from gapbench.runners.budget import Unmeasured, budgeted, changes, scaled
from gapbench.runners.costs import expected
from gapbench.runners.suites import Selection, Unknown, select, suites


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs that are easy to reckon with."""
    known = {"evidential": {"gapped_sine": 2.0, costs.ANY: 4.0}, "nngp": {costs.ANY: 1.0}, "mclmc": {costs.ANY: 5.0}}
    monkeypatch.setattr(costs, "measured", lambda: known)


@pytest.mark.parametrize(
    ("method", "factor", "expected"),
    [
        (DeepEnsemble(steps=8000), 2.5, DeepEnsemble(steps=20_000)),
        (DeepEnsemble(steps=7), 1.3, DeepEnsemble(steps=9)),
        (DeepEnsemble(steps=10), 1e-6, DeepEnsemble(steps=10)),
        (DeepEnsemble(steps=0), 3, DeepEnsemble(steps=0)),
        (MCLMC(burn_in=400, thin=34), 0.5, MCLMC(burn_in=200, thin=17)),
        (MCLMC(burn_in=30, thin=3), 1.6, MCLMC(burn_in=50, thin=5)),
        (CQR(QuantileRegression(steps=100)), 3, CQR(QuantileRegression(steps=300))),
        (NNGP(), 9, NNGP()),
    ],
)
def test_steps_are_multiplied(method: UncertaintyMethod, factor: float, expected: UncertaintyMethod) -> None:
    """Draws and members are not. Seen to catch: a wrapper that keeps its steps, 0 that becomes 1, a last 0 lost."""
    assert scaled(method, factor) == expected


def test_the_factor_is_budget_over_cost(table: None) -> None:
    """Of the dataset, else the median; variants cost what their method does. Seen to catch: the factor turned around,
    the median where the dataset is known; chains of the fewest steps that take more than the budget, for their burn-in
    or for their draws."""
    method = Evidential(steps=1000)
    assert budgeted(method, "evidential", "gapped_sine", 6.0) == replace(method, steps=3000)
    assert budgeted(method, "evidential[beta=1]", "elsewhere", 6.0) == replace(method, steps=1500)
    assert budgeted(NNGP(), "mine", "gapped_sine", 6.0) == NNGP()
    assert budgeted(Evidential(steps=0), "evidential", "gapped_sine", 6.0) == Evidential(steps=0)
    assert budgeted(MCLMC(draws=100, thin=20), "mclmc", "gapped_sine", 1.0).thin == 4  # not refused
    with pytest.raises(Unmeasured, match=r"budget 0.1s: mclmc takes 0\.\d+ s at least"):
        budgeted(MCLMC(draws=100, thin=5), "mclmc", "gapped_sine", 0.1)
    with pytest.raises(Unmeasured, match=r"budget 2.5s: mclmc takes 3\.\d s at least"):
        budgeted(MCLMC(burn_in=1000, draws=1000, thin=1), "mclmc", "gapped_sine", 2.5)
    with pytest.raises(Unmeasured, match=r"budget 0.1s: mclmc takes 0\.\d+ s at least"):
        budgeted(CQR(MCLMC(draws=100, thin=5)), "mclmc", "gapped_sine", 0.1)
    with pytest.raises(Unmeasured, match="what svgd costs was not measured"):
        budgeted(SVGD(), "svgd", "gapped_sine", 6.0)


def within(seconds: float, *methods: str, settings: tuple[str, ...] = ()) -> Selection:
    return select(suites()["default"], methods, ["gapped_sine"], settings).within(seconds)


def test_a_budget_stands_in_the_names_and_the_users_own_settings_stay(table: None) -> None:
    """Controls keep their names. Seen to catch: --set that is undone, a row that has the name of one without a budget,
    an expected time that is not the budget's."""
    picked = within(6.0, "evidential", "nngp")
    assert list(picked.entries)[:2] == ["evidential[budget=6s]", "nngp"]
    assert {name for name in picked.entries if "budget" not in name} == {*("nngp", "reference", "prior", "truth")}
    cell = picked.cells(10, 0, 10)[0]
    assert isinstance(cell.entry, Trained) and cell.entry.method == replace(Evidential(), steps=3 * Evidential().steps)
    assert expected(cell) == 60.0
    assert picked.changes() == [
        "gapped_sine · evidential[budget=6s]: steps 5000 → 15000",
        "gapped_sine · nngp: no steps to change",
    ]
    own = within(6.0, "evidential", settings=("evidential.steps=70",))
    cell = own.cells(1, 0, 10)[0]
    assert cell.name == "evidential[steps=70,budget=6s]" and cell.entry == Trained(Evidential(steps=70))
    for words, settings, says in (
        ("svgd", (), "--budget: what svgd costs was not measured: leave it out"),
        ("validated", (), "--budget: validated is a search of settings"),
        ("mclmc", ("mclmc.chains=3",), r"--budget: what mclmc\[chains=3\] costs was not measured with another chains"),
    ):
        with pytest.raises(Unknown, match=says):
            within(6.0, words, settings=settings)
    other = select(suites()["notebooks"], ["nngp"]).within(6.0)
    assert len(other.changes()) == sum(not task.methods for task in suites()["notebooks"].tasks.values())


def test_a_wrapper_tells_of_the_method_inside() -> None:
    assert changes(CQR(QuantileRegression(steps=5)), CQR(QuantileRegression(steps=8))) == "steps 5 → 8"


def test_a_run_with_a_budget(tmp_path: Path) -> None:
    """Its steps are told and stand in the record; what makes no sense is one line. Seen to catch: a budget that is told
    and not kept."""
    words = ("run", "--methods", "evidential", "--datasets", "gapped_sine", "--replicas", 1, "--jobs", 1)
    done = gapbench(tmp_path, *words, "--device", "cpu", "--budget", "0.02s", "--out", "here")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "evidential[budget=0.02s]: steps" in line]
    steps = int(line.split("→")[1])
    assert 10 <= steps < 500
    records = [json.loads(path.read_text("utf-8")) for path in (tmp_path / "here" / "cells").rglob("*.json")]
    found = [one for one in map(json.dumps, records) if "evidential[budget=0.02s]" in one]
    assert found and all(f'"steps": {steps}' in one for one in found)
    for value, says in (("0", "expected a time above 0"), ("soon", "expected a time above 0")):
        refused = gapbench(tmp_path, *words, "--budget", value, "--out", "here")
        assert refused.returncode == 2 and says in refused.stderr and len(refused.stderr.splitlines()) <= 3
