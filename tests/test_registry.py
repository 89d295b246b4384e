"""How methods are found: files of methods/, entry points of other packages, and files that are named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gapbench import methods as package
from gapbench.datasets.base import Dataset
from gapbench.methods import registry
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.requirements import Requirement
from gapbench.methods.engine.single_model import SingleModelMethod

METHOD = """
from dataclasses import dataclass, field
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.single_model import SingleModelMethod
from gapbench.methods.sgld import SGLD
@dataclass(frozen=True)
class {name}(SingleModelMethod):
    steps: int{default}
    def sample(self, model, theta, x, y, generator):
        return theta[None]
class NotYet(UncertaintyMethod):
    pass
"""
OURS = registry.methods()
Add = Callable[[str, str], Path]


def method(name: str, default: str = " = 1") -> str:
    return METHOD.format(name=name, default=default)


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Writes a file into a temporary folder that stands in the place of methods/."""
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        monkeypatch.delitem(sys.modules, f"gapbench.methods.{name}", raising=False)
        return path

    return write


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Announces entry points, as lines "name = module:Class", of a package with one module, as pip leaves it."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def install(entries: str, text: str) -> None:
        info = folder / "plugin-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[gapbench.methods]\n{entries}\n")
        (folder / "plugged_in_for_this_test.py").write_text(text)
        monkeypatch.delitem(sys.modules, "plugged_in_for_this_test", raising=False)

    return install


@pytest.mark.one_file
def test_the_registry_finds_the_methods_and_nothing_else() -> None:
    """Sorted by name; an abstract class is none, and neither is what methods are built from. Seen to catch: abstract
    classes listed, names split at every capital."""
    assert list(OURS) == sorted(OURS) and set(OURS) >= {"hmc", "mala", "mc_dropout", "sgld", "svi"}
    assert len(set(OURS.values())) == len(OURS) and registry.unavailable() == {}
    assert "jittered" not in OURS and "single_model_method" not in OURS and "uncertainty_method" not in OURS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MCDropout", "mc_dropout"),
        ("SGLD", "sgld"),
        ("DeepEnsemble", "deep_ensemble"),
        ("HMCMethod2", "hmc_method2"),
        ("KFACLaplace", "kfac_laplace"),
        ("Sgldσ", "sgldσ"),
    ],
)
def test_names_are_snake_case(name: str, expected: str) -> None:
    """Runs of capitals stay together. Seen to catch: a _ before every capital."""
    assert registry.method_name(type(name, (), {})) == expected


def test_a_new_file_is_found(add: Add) -> None:
    """Adding a method is adding one file; what it imports, and what is abstract, is not listed. Seen to catch: classes
    that a file imports from another."""
    add("dropped_in_for_this_test", method("HMCMethod2"))
    found = registry.registry()
    assert {name: cls.__name__ for name, cls in found.methods.items()} == {"hmc_method2": "HMCMethod2"}
    assert found.unavailable == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class Half(\n", "SyntaxError: "),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3: mend broken_in_this_test.py"),
        ("raise KeyError('x')\n", "KeyError: 'x': mend broken_in_this_test.py, or take it out of methods/"),
        ("import a_package_that_is_not_there.part\n", "needs a_package_that_is_not_there: pip install a_package_that"),
        ("import gapbench.methods.not_there\n", "ModuleNotFoundError: No module named 'gapbench.methods.not_there'"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_and_spoils_no_other(add: Add, text: str, said: str) -> None:
    """Whatever it raises; a missing package is told as what to install. Seen to catch: an error that goes on,
    SystemExit that goes on, `pip install gapbench.methods.…`."""
    add("broken_in_this_test", text)
    add("sound_in_this_test", method("Sound"))
    found = registry.registry()
    assert list(found.methods) == ["sound"] and list(found.unavailable) == ["broken_in_this_test"]
    assert found.unavailable["broken_in_this_test"].startswith(said)


def test_a_package_of_an_extra_is_installed_by_the_extra(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to catch: `pip install gpytorch`, without the range that this version needs."""
    known = [Requirement("a_package_that_is_not_there", "a_package_that_is_not_there>=2", "gp")]
    monkeypatch.setattr(registry, "requirements", lambda: known)
    add("broken_in_this_test", "import a_package_that_is_not_there.part\n")
    assert registry.registry().unavailable == {
        "broken_in_this_test": "needs a_package_that_is_not_there: pip install 'gapbench[gp]'"
    }


def test_a_method_that_needs_arguments_is_not_available(add: Add) -> None:
    """Methods are run with their default settings. Seen to catch: no trial (a TypeError in every suite)."""
    add("demanding_in_this_test", method("Demanding", default=" = field(kw_only=True)"))
    found = registry.registry()
    assert found.methods == {} and "give every field a default" in found.unavailable["demanding"]


def test_two_files_with_one_name_are_told(add: Add) -> None:
    """The first of them stays. Seen to catch: the last taken, without a word."""
    add("one_in_this_test", method("Twice"))
    add("two_in_this_test", method("Twice"))
    found = registry.registry()
    assert found.methods["twice"].__module__.endswith("one_in_this_test")
    assert found.unavailable == {"twice (two_in_this_test.py)": "the name is taken; choose another"}


def test_an_entry_point_is_a_method(plugin: Callable[[str, str], None]) -> None:
    """Under its own name, among the others. Seen to catch: the group's name misspelt, plugins listed last."""
    plugin("another = plugged_in_for_this_test:Mine", method("Mine"))
    found = registry.registry()
    assert list(found.methods) == sorted([*OURS, "another"]) and found.unavailable == {}


@pytest.mark.parametrize(
    ("entry", "text", "said"),
    [
        ("bad = plugged_in_for_this_test:Mine", "import a_package_that_is_not_there", "needs a_package_that_is_not_"),
        ("bad = plugged_in_for_this_test:Mine", "import sys\nsys.exit(3)", "SystemExit: 3: mend or uninstall"),
        ("bad = plugged_in_for_this_test:Mine", "", "AttributeError"),
        ("bad = plugged_in_for_this_test:NotYet", method("Mine"), "expected a concrete UncertaintyMethod class"),
        ("bad = plugged_in_for_this_test", "", "expected a concrete UncertaintyMethod class"),
        ("sgld = plugged_in_for_this_test:Mine", method("Mine"), "the name is taken; choose another"),
    ],
)
def test_a_broken_plugin_is_named_and_spoils_no_other(
    plugin: Callable[[str, str], None], entry: str, text: str, said: str
) -> None:
    """Seen to catch: the error of entry.load() that goes on, a shipped method that gives way to a plugin."""
    plugin(entry, text)
    found = registry.registry()
    assert found.methods == OURS
    ((name, why),) = found.unavailable.items()
    assert name.startswith(entry.partition(" ")[0]) and said in why and entry in name + why


def test_a_file_is_loaded_once(tmp_path: Path) -> None:
    """One class, however its path is written, not a new one each time: records and pickles name it. Seen to catch: no
    look into sys.modules, the path not resolved."""
    (tmp_path / "mine.py").write_text(method("Mine"))
    cls = registry.class_from_file(f"{tmp_path}/mine.py:Mine", UncertaintyMethod)
    assert registry.class_from_file(f"{tmp_path}/../{tmp_path.name}/mine.py:Mine", UncertaintyMethod) is cls
    assert issubclass(cls, SingleModelMethod) and registry.methods() == OURS
    assert registry.file_of(cls) == str(tmp_path / "mine.py") and registry.file_of(SingleModelMethod) is None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere.py:Mine", "nowhere.py:Mine: there is no file nowhere.py"),
        (":", "expected path.py:Class"),
        ("mine", "mine: expected path.py:Class"),
        ("notes.txt:Mine", "notes.txt:Mine: expected path.py:Class"),
        ("folder.py:Mine", "there is no file folder.py"),
        ("mine.py", "mine.py: which class? mine.py has Mine"),
        ("mine.py:", "which class? mine.py has Mine"),
        ("mine.py:Other", "mine.py:Other: it defines no UncertaintyMethod Other; mine.py has Mine"),
        ("mine.py:SGLD", "it defines no UncertaintyMethod SGLD; mine.py has Mine"),
        ("mine.py:NotYet", "NotYet does not define fit; mine.py has Mine"),
        ("empty.py:Mine", "empty.py has no concrete UncertaintyMethod"),
    ],
)
def test_a_source_that_is_no_method_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    """Seen to catch: "the path is not a file" of a file whose class was forgotten, a class that the file only
    imports."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(method("Mine"))
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ValueError) as caught:
        registry.class_from_file(source, UncertaintyMethod)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "import beside_this_test",
        "from .beside_this_test import x",
        "from . import x",
        "from folder_beside.part import x",
    ],
)
def test_a_sibling_that_cannot_be_imported_is_explained(tmp_path: Path, line: str) -> None:
    """A file is loaded alone. Seen to catch: no hint at PYTHONPATH, none where a package stands beside."""
    (tmp_path / "folder_beside").mkdir()
    (tmp_path / "beside_this_test.py").write_text("x = 1")
    (tmp_path / "mine.py").write_text(line)
    with pytest.raises(ImportError, match=r"a file beside mine\.py is only found if its folder is on PYTHONPATH"):
        registry.class_from_file(f"{tmp_path}/mine.py:Mine", UncertaintyMethod)
    (tmp_path / "other.py").write_text("import a_package_that_is_not_there")
    with pytest.raises(ImportError, match=r"^No module named 'a_package_that_is_not_there'$"):
        registry.class_from_file(f"{tmp_path}/other.py:Mine", UncertaintyMethod)


def test_a_dataset_comes_from_a_file_too(tmp_path: Path) -> None:
    """Seen to catch: `classes` asked for methods whatever the base."""
    text = "from gapbench.datasets.gapped_sine import GappedSine\nclass Mine(GappedSine):\n    pass\n"
    (tmp_path / "mine.py").write_text(text + method("Method"))
    assert registry.class_from_file(f"{tmp_path}/mine.py:Mine", Dataset).__name__ == "Mine"
    with pytest.raises(ValueError, match=r"it defines no Dataset Method; .*mine.py has Mine"):
        registry.class_from_file(f"{tmp_path}/mine.py:Method", Dataset)
