"""The suites, and how the words of a command line choose from them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from gapbench.datasets.base import Dataset
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.uci import TABLES, UCI, download, read
from gapbench.evaluation.entries import Trained
from gapbench.methods import registry
from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.cqr import CQR
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.jitter import Jittered
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise
from gapbench.methods.mala import MALA
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.mclmc import MCLMC
from gapbench.methods.nngp import NNGP
from gapbench.methods.sgld import SGLD
from gapbench.methods.svi import SVI
from gapbench.methods.swag import SWAG
from gapbench.runners import suites
from gapbench.runners.suites import CONTROLS, Suite, Task, Unknown, select

SUITE = Suite(
    "two methods",
    {"sine": Task(GappedSine(n=12), MLP(hidden=(7,))), "noisy": Task(GappedSine(n=12, noise_std=0.1), MLP())},
    {"dropout": MCDropout(steps=3), "ensemble": MCDropout(rate=0.5)},
    on_request={"slow": MCDropout(steps=4)},
)
METHOD = """
from dataclasses import dataclass, field
from gapbench.methods.base import UncertaintyMethod
@dataclass(frozen=True)
class {name}(UncertaintyMethod):
    steps: int = 5000
    other: int{default}
    def fit(self, model, x, y, generator):
        raise NotImplementedError
"""
DATASET = """
from dataclasses import dataclass
import torch
from gapbench.datasets.base import Dataset, Problems
{top}
@dataclass(frozen=True)
class {name}(Dataset):
    n: int = 5
    def problems(self, replicas, seed=0):
        {body}
        x = torch.ones(len(replicas), self.n, 3)
        return Problems(x, x.sum(-1), x, x.sum(-1))
    {network}
"""
NETWORK = """
    @property
    def network(self):
        from gapbench.methods.engine.model import MLP
        return MLP(hidden=(2,), noise_std=0.5)
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the words of these tests name."""
    monkeypatch.chdir(tmp_path)

    def method(file: str, name: str, default: str = " = 1") -> None:
        Path(file).write_text(METHOD.format(name=name, default=default))

    def dataset(file: str, name: str, top: str = "", body: str = "", network: str = "") -> None:
        Path(file).write_text(DATASET.format(name=name, top=top, body=body, network=network))

    method("mine.py", "MyNet")
    method("other.py", "MyNet")
    method("dropout.py", "Dropout")
    method("slow.py", "Slow")
    method("truth.py", "Truth")
    method("sgld.py", "SGLD")
    method("demanding.py", "Demanding", " = field(kw_only=True)")
    dataset("data.py", "MyData")
    dataset("data2.py", "MyData")
    dataset("sine.py", "Sine")
    dataset("asks.py", "Asks", network=NETWORK)
    dataset("bad.py", "Bad", body="raise ZeroDivisionError('of data')")
    dataset("nan.py", "Nan", body="return Problems(*(torch.full(s, torch.nan) for s in [(1,2,1), (1,2)] * 2))")
    dataset("exits.py", "Exits", top="import sys; sys.exit(3)")
    dataset("rude.py", "Rude", top="torch.set_default_dtype(torch.float64)", body="torch.set_num_threads(2)")


def test_all_of_a_suite_is_what_it_names() -> None:
    """And the controls; not what runs on request. Seen to catch: on_request run with the others."""
    picked = select(SUITE)
    assert list(picked.entries) == ["dropout", "ensemble", "reference", "prior", "truth"]
    assert picked.entries["ensemble"] == Trained(MCDropout(rate=0.5)) and picked.entries["truth"] is CONTROLS["truth"]
    assert picked.tasks == SUITE.tasks


def test_names_and_files_are_chosen_alike() -> None:
    """In the order of the words. Seen to catch: on_request unknown, a method of the registry unknown, a control left
    out if it is not named, the same file by another path refused."""
    words = ["slow", "mine.py:MyNet", "./mine.py:MyNet", "prior", "mala", "dropout", "dropout"]
    picked = select(SUITE, words, ["noisy", "data.py:MyData"])
    assert list(picked.entries) == ["slow", "my_net", "prior", "mala", "dropout", "reference", "truth"]
    assert picked.entries["mala"] == Trained(MALA()) and list(picked.tasks) == ["noisy", "my_data"]
    own = picked.entries["my_net"]
    assert isinstance(own, Trained) and own.method.steps == 5000  # type: ignore[attr-defined]


def test_settings_are_changed_and_named() -> None:
    """In the method's class, under a name that tells them, and no other method. Seen to catch: the old row beside the
    new one, a name in the order of the command line, an int where the field is a float."""
    chosen = select(suites.suites()["default"], settings=["mc_dropout.steps=7", "mc_dropout.rate=0", "sgld.lr=1e-4"])
    renamed = {"mc_dropout": "mc_dropout[rate=0.0,steps=7]", "sgld": "sgld[lr=0.0001]"}
    rows = [renamed.get(name, name) for name in suites.suites()["default"].methods]
    assert list(chosen.entries)[: len(rows)] == rows
    changed = chosen.entries["mc_dropout[rate=0.0,steps=7]"].subject
    assert changed == MCDropout(rate=0.0, steps=7) and isinstance(changed.rate, float)
    plain = select(suites.suites()["default"]).entries
    assert chosen.entries["svi"] == plain["svi"] and chosen.entries["sgld_private"] == plain["sgld_private"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("mc_dropout", "expected NAME.FIELD=VALUE, such as mc_dropout.rate=0.2"),
        ("rate=0.2", "expected NAME.FIELD=VALUE"),
        ("mc_droput.rate=0.2", "this run has no method 'mc_droput': it has anchored_ensemble, cqr, deep_ensemble"),
        ("hmc.lr=0.1", "this run has no method 'hmc'"),
        ("mc_dropout.rat=0.2", "unknown setting of mc_dropout 'rat': did you mean rate"),
        ("mc_dropout.rate=high", "expected a finite float, as 0.05 is"),
        ("mc_dropout.steps=7.5", "expected a finite int, as 20000 is"),
        ("mc_dropout.steps=True", "expected a finite int"),
        ("mc_dropout.lr=1e999", "expected a finite float"),
        ("mc_dropout.rate=2", "ValueError: MCDropout: rate = 2.0: expected a probability"),
        ("sgld.sampling=1", "the setting is a FixedSize, not a number; set it in a file of your own"),
        ("mc_dropout.rate=__import__('os').getcwd()", "expected a finite float"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: str, said: str) -> None:
    """Before anything is trained. Seen to catch: a bool for a number, text that is run."""
    with pytest.raises(Unknown) as caught:
        select(suites.suites()["default"], settings=[setting])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_changed_method_is_run_where_the_unchanged_one_is() -> None:
    """On the tasks that name it, and on the first replicas where it is dear. Seen to catch: no cell at all, all
    replicas."""
    task = replace(SUITE.tasks["sine"], methods=("dropout",), first={"dropout": 2})
    suite = replace(SUITE, tasks={**SUITE.tasks, "sine": task})
    cells = select(suite, ["dropout"], settings=["dropout.steps=7"]).cells(5, 0, 10)
    found = {cell.dataset_name: cell.stop for cell in cells if cell.name == "dropout[steps=7]"}
    assert found == {"sine": 2, "noisy": 5}


def test_one_setting_has_one_value() -> None:
    """Seen to catch: the first of two dropped without a word."""
    with pytest.raises(Unknown, match="is set twice"):
        select(suites.suites()["default"], settings=["svi.steps=7", "svi.steps=8"])


def test_a_suite_that_cuts_budgets_cuts_those_of_a_users_method() -> None:
    """A method of 2000 steps beside others of 200 would be on top of the table. Seen to catch: not cut."""
    quick = suites.suites()["quick"]
    for word in ("mine.py:MyNet", "mala"):
        (method, *_) = select(quick, [word]).entries.values()
        assert isinstance(method, Trained) and method.method == suites.shrunk(method.method)
        assert method.method != type(method.method)()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dropuot"], "unknown method 'dropuot': did you mean dropout; `gapbench list` shows all"),
        (["MC_Dropout"], "did you mean mc_dropout;"),
        (["SVI"], "did you mean svi;"),
        (["zzz"], "unknown method 'zzz': expected one of dropout, ensemble, slow, reference, prior, truth, anchored_"),
        (["mine.py"], "mine.py: which class? mine.py has MyNet"),
        (["nowhere.py:MyNet"], "nowhere.py:MyNet: there is no file nowhere.py"),
        (["a:b"], "a:b: expected path.py:Class"),
        (["dropout.py:Dropout"], "dropout.py:Dropout: its name dropout is that of another method or a control: rename"),
        (["slow.py:Slow"], "its name slow is that of another method"),
        (["truth.py:Truth"], "its name truth is that of another method or a control"),
        (["sgld.py:SGLD"], "its name sgld is that of another method"),
        (
            ["mine.py:MyNet", "other.py:MyNet"],
            "other.py:MyNet: its name my_net is that of another class that you named",
        ),
        (["demanding.py:Demanding"], "demanding.py:Demanding: TypeError: "),
    ],
)
def test_methods_that_make_no_sense_are_refused(words: list[str], said: str) -> None:
    """Seen to catch: a user's SGLD that takes the place of the shipped one, a Truth that takes the oracle's, the second
    of two files that takes the first one's, a TypeError of a class with required fields that goes on."""
    with pytest.raises(Unknown) as caught:
        select(SUITE, words)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sin"], "unknown dataset 'sin': did you mean sine;"),
        (["sine.py:Sine"], "sine.py:Sine: its name sine is that of a dataset of the suite: rename the class"),
        (["data.py:MyData", "data2.py:MyData"], "data2.py:MyData: its name my_data is that of another class"),
        (["bad.py:Bad"], "bad.py:Bad: ZeroDivisionError: of data"),
        (["nan.py:Nan"], "nan.py:Nan: ProblemError: x[0, 0, 0] = nan"),
        (["exits.py:Exits"], "exits.py:Exits: SystemExit: 3"),
        (["mine.py:MyNet"], "it defines no Dataset MyNet; mine.py has no concrete Dataset"),
    ],
)
def test_datasets_that_make_no_sense_are_refused(words: list[str], said: str) -> None:
    """Before anything is trained. Seen to catch: the errors of a dataset's code that go on, SystemExit too."""
    with pytest.raises(Unknown) as caught:
        select(SUITE, [], words)
    assert said in str(caught.value)


def test_a_users_dataset_is_learned_with_its_network_or_the_suites() -> None:
    """Of as many features as its data have; the suite's with a noise that is learned. Seen to catch: one feature for
    every dataset, the noise of the suite, the network of the dataset forgotten."""
    tasks = select(SUITE, [], ["data.py:MyData", "asks.py:Asks"]).tasks
    assert tasks["my_data"].model == MLP(hidden=(7,), features=3, noise_std=LearnedNoise())
    assert tasks["asks"].model == MLP(hidden=(2,), features=3, noise_std=0.5)
    cells = select(SUITE, ["slow"], ["sine", "asks.py:Asks"]).cells(25, 7, 10)
    assert [(c.dataset_name, c.first, c.stop, c.seed) for c in cells if c.name == "slow"] == [
        (name, first, stop, 7) for name in ("sine", "asks") for first, stop in ((0, 10), (10, 20), (20, 25))
    ]
    assert {c.name: c.model for c in cells if c.dataset_name == "asks"} == dict.fromkeys(
        ("slow", *CONTROLS), tasks["asks"].model
    )


def test_a_users_file_changes_nothing_else_in_this_process() -> None:
    """Seen to catch: the file loaded without a guard, `problems` called without one."""
    select(SUITE, [], ["rude.py:Rude"])
    assert torch.get_default_dtype() is torch.float32 and torch.get_num_threads() == 1


@dataclass(frozen=True)
class Prior(UncertaintyMethod):
    """A method whose name is a control's."""

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        raise NotImplementedError


def test_a_plugin_that_is_called_like_a_control_or_a_setting_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is not available is told by its reason if it is named. Seen to catch: `prior` of a plugin that is
    hidden by the control, without a word."""
    found = registry.Registry({**registry.methods(), "prior": Prior, "sgld_private": Prior}, {"vogn": "needs x"})
    monkeypatch.setattr(suites, "registry", lambda: replace(found, methods=dict(found.methods)))
    left = suites.discovered()
    assert left.methods == registry.methods() and set(left.unavailable) == {"prior", "sgld_private", "vogn"}
    with pytest.raises(Unknown, match=r"^vogn is not available: needs x$"):
        select(SUITE, ["vogn"])


# The shipped suites ---------------------------------------------------------------------------------------------------


def test_the_default_suite_names_its_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file is not in it, and the suite "all" has it. Seen to catch: whatever lies in methods/ taken into the
    default, the settings of private SGLD forgotten in "all"."""
    found = registry.Registry({**registry.methods(), "new": Prior})
    monkeypatch.setattr(suites, "registry", lambda: found)
    made = suites.suites()
    rows = "anchored_ensemble cqr deep_ensemble evidential laplace mc_dropout mclmc nngp sgld sgld_private svi swag"
    assert list(made["default"].methods) == rows.split()
    assert list(made["default"].on_request) == ["hmc", "mams", "mile"]
    assert {name: type(one) for name, one in made["all"].methods.items()} == {
        **found.methods,
        "sgld_private": type(made["default"].methods["sgld_private"]),
    }
    assert made["all"].methods["svi"] == made["default"].methods["svi"] and made["all"].methods["new"] == Prior()


@pytest.mark.parametrize("name", [name for name in suites.suites() if name != "all"])
def test_suites_do_not_look_into_the_registry(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does a name that a suite has: no plugin is imported for them. Seen to catch: the registry asked."""

    def fail() -> None:
        raise AssertionError

    monkeypatch.setattr(suites, "registry", fail)
    monkeypatch.setattr(UCI, "missing", None)
    suite = suites.suites()[name]
    select(suite, list(suite.methods), list(suite.tasks))


@pytest.mark.one_file
def test_every_suite_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, network and every method fit each other: its noise is a field of the network, one feature each. But for
    nngp with a noise that depends on x, and cqr on 50 points and fewer. Seen to catch: a field that was renamed, a
    network of two features."""

    def refused(method: UncertaintyMethod, task: Task, n: int) -> bool:
        if isinstance(method, NNGP):
            return isinstance(task.model.noise_std, HeteroscedasticNoise)
        return isinstance(method, CQR) and n <= 50

    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path))
    tables = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "uci"
    for table in TABLES if tables.is_dir() else ():
        download(table).take(tables / table / "data.txt")
    read.cache_clear()
    for name, suite in suites.suites().items():
        assert suite.description and suite.replicas >= 2 and suite.methods, name
        for task in suite.tasks.values():
            if task.dataset.missing:
                assert not tables.is_dir()
                continue
            x = task.dataset.problems([0]).inputs[0]
            assert x.shape[2] == task.model.features
            for method in suite.methods.values():
                reason = suite.adapted(method, task).skip(task.model, x)
                assert (reason is not None) == refused(method, task, x.shape[1]), (name, method)


def test_a_gap_of_another_width_has_the_same_density() -> None:
    """And every other knob changes itself alone. Seen to catch: n kept, the density of one side doubled."""
    centre = suites.suites()["knobs"].tasks["gapped_sine_noisy"]
    assert suites.knobs_task() == replace(centre, mcse=suites.knobs_task().mcse)
    for gap, n in ((0.25, 250), (0.5, 234), (1.5, 166), (2.0, 134)):
        data = suites.knobs_task(gap=gap).dataset
        assert data == GappedSine(n=n, noise_std=0.1, gap=(-gap, gap))
        assert n / (8 - 2 * gap) == pytest.approx(200 / 6, rel=0.01)
    assert suites.knobs_task(width=10, layers=3).model == replace(centre.model, hidden=(10, 10, 10))
    quiet = suites.knobs_task(noise=0.03)
    assert quiet.model.noise_std == 0.03 == quiet.dataset.noise_std  # type: ignore[attr-defined]


def test_every_method_has_the_same_budget_on_every_task() -> None:
    """Point gradients within a tenth, whatever n is; the steps of SGLD and SWAG go with σ².

    Seen to catch: steps for point gradients, σ for σ², the inverse share, Adam's steps on top of the budget, a budget
    of SWAG without its SGD, its batch of all points.
    """
    suite, tasks = suites.suites()["knobs"], suites.suites()["tasks"].tasks

    def gradients(method: UncertaintyMethod, n: int) -> float:
        if isinstance(method, MCLMC):
            return (method.steps + method.adam_steps) * method.chains * n
        if isinstance(method, SGLD):
            return (method.burn_in + method.draws * method.thin) * method.batch * method.chains
        assert isinstance(method, SVI | AdamTrained)
        sgd = method.burn_in + method.snapshots * method.thin if isinstance(method, SWAG) else 0
        return (method.steps + sgd) * method.batch

    for name, method in suite.methods.items():
        if isinstance(method, CQR | NNGP):  # CQR is not run on so few points; NNGP has no steps
            continue
        wanted = gradients(method, 200)
        for task in (*suite.tasks.values(), *tasks.values()):
            n = task.dataset.problems([0]).x.shape[1]
            assert gradients(suite.adapted(method, task), n) == pytest.approx(wanted, rel=0.1), (name, n)
    sgld, louder = suite.methods["sgld"], suite.tasks["noise@0.3"]
    assert isinstance(sgld, SGLD)
    assert suite.adapted(sgld, louder) == replace(sgld, lr=sgld.lr * (0.3 / 0.1) ** 2)
    swag = suite.methods["swag"]
    assert isinstance(swag, SWAG)
    for n in (20, 50):  # SWAG's law is that of SGD's noise
        few = suite.adapted(swag, suite.tasks[f"n@{n}"])
        assert isinstance(few, SWAG) and few.batch == n // 2
    on_prior = suites.suites()["prior"].methods["swag"]
    assert isinstance(on_prior, SWAG) and on_prior.batch == 20
    assert suite.adapted(swag, louder) == replace(swag, sgd_lr=swag.sgd_lr * (0.3 / 0.1) ** 2)
    mclmc = suite.adapted(suite.methods["mclmc"], tasks["gapped_heteroscedastic"])
    assert isinstance(mclmc, MCLMC) and mclmc.adam_steps == 100


def test_a_setting_of_the_user_is_not_adapted() -> None:
    """The row's name says it. Seen to catch: the step size that was set times nine."""
    suite = suites.suites()["knobs"]
    selection = select(suite, ["sgld", "svi"], ["noise@0.3"], ["sgld.lr=0.001"])
    entries = {cell.name: cell.entry for cell in selection.cells(5, 0, 10)}
    one = entries["sgld[lr=0.001]"]
    assert isinstance(one, Trained) and isinstance(one.method, SGLD) and one.method.lr == 0.001
    assert one.method == replace(suite.methods["sgld"], lr=0.001)


def test_the_notebooks_settings_are_those_of_the_notebook() -> None:
    """100 epochs of 63 steps at batches of 16, with 0.01 added to the std of f. Seen to catch: the jitter forgotten."""
    suite = suites.suites()["notebook_sgld"]
    for method in suite.methods.values():
        assert isinstance(method, Jittered) and method.f_std == 0.01
        assert {"batch": 16, "draws": 100, "thin": 63}.items() <= vars(method.method).items()
    assert suite.tasks["gapped_sine_notebook"].dataset == GappedSine(extrapolation=0.0, test_points=100)


def test_quick_is_quick() -> None:
    """Every budget is cut, of the method inside another too. Seen to catch: `shrunk` that leaves one."""

    def budgets(value: object) -> dict[str, int]:
        assert is_dataclass(value)
        return {one.name: getattr(value, one.name) for one in fields(value) if one.type in (int, "int")}

    quick = suites.suites()["quick"]
    limits = {"steps": 200, "burn_in": 100, "draws": 20, "thin": 5, "chains": 4}
    cqr = quick.methods["cqr"]
    assert isinstance(cqr, CQR)
    jittered = suites.shrunk(Jittered(MCDropout(), 0.1))
    for method in (*quick.methods.values(), cqr.method, jittered.method):  # type: ignore[attr-defined]
        own = budgets(method)
        assert own or method in (cqr, quick.methods["nngp"])  # which have no budget of their own
        assert all(own[name] <= limit for name, limit in limits.items() if name in own)


def test_a_user_dataset_is_a_dataset() -> None:
    """The contract has no abstract member that `DATASET` lacks. Seen to catch: `problems` renamed."""
    assert Dataset.__abstractmethods__ == {"problems"}


def test_suites_are_cheap_to_import() -> None:
    """Building all of them costs less than a tenth of a second once torch is there. Seen to catch: a suite that makes
    its data."""
    code = (
        "import time; from gapbench.runners.suites import suites; suites()['all']; start = time.process_time()\n"
        "[suite for suite in suites().values()]; print(time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.1
