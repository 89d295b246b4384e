"""The commands that README and docs print: each is one that gapbench understands, and those that only read run. And the
pages that are made of the code, and the site."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from gapbench.runners.cli.console import words
from gapbench.runners.cli.how import How
from gapbench.runners.cli.main import main
from gapbench.runners.commands_page import commands, commands_page
from gapbench.runners.readme import TABLES, with_table
from gapbench.runners.suites import is_source, method_of, one_of, suites, task_of, with_settings

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = ("houses.csv", "new_houses.csv", "mine.toml", "FILE", "FILE.toml", "README.md")  # that commands name
ALONE = ("suite show", "doctor", "data list", "reference show", "reference check")
OF_A_FOLDER = ("table", "compare", "ranks", "coverage", "export")  # test_report.py and test_cli.py run report and plot
NAMES = [[name] for name in main.commands]  # a sentence may name a command without its arguments


def printed() -> Iterator[tuple[str, list[str]]]:
    """The commands: their page and the words behind `gapbench`, in blocks of shell or between backticks."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found = [line for language, block in BLOCK.findall(text) if not language for line in block.splitlines()]
        told = [one.split() for one in re.findall(r"`(gapbench\s[^`]+)`", BLOCK.sub("", text))]
        found += [" ".join(one) for one in told if one[1:] not in NAMES]
        for line in found:
            for part in re.split(r"&&|[|>]", line.partition(" #")[0]):
                if part.strip().startswith("gapbench "):
                    yield page.name, shlex.split(part)[1:]


def understood(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The name of the command, and its parameters as it reads them itself. Raises click's errors, and KeyError for a
    command that is not there."""
    command: click.Command = main
    names = []
    while isinstance(command, click.Group):
        name, *words = words
        command = command.commands[name]
        names.append(name)
    return " ".join(names), command.make_context(names[-1], words).params


def check_names(options: dict[str, Any]) -> None:
    """The suite, methods, datasets and settings of `run` are there. Raises Unknown."""
    How(**{name: options[name] for name in How.__dataclass_fields__}).check()
    if not (options["csv"] or options["source"]):
        suite = one_of("suite", options["suite"], suites())
        methods = [word for word in words(options["methods"], "--methods") if not is_source(word)]
        chosen = dict(method_of(word, suite) for word in methods) or dict(suite.methods)
        with_settings(chosen, options["settings"])
        for word in words(options["datasets"], "--datasets"):
            assert is_source(word) or task_of(word, suite)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, which has the files that commands name; DIR is three datasets that are published."""
    for name in FILES:
        (tmp_path / name).touch()
    shutil.copytree(ROOT / "results" / "published" / "data_size", tmp_path / "DIR")
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)


def test_every_command_of_the_docs_is_understood(folder: None) -> None:
    """Seen to catch: an option that was renamed, a command or a suite that is not there, a shard 65/64, a method
    misspelt, a word too many."""
    found, wrong = list(printed()), []
    for page, line in found:
        try:
            name, options = understood(line)
            if name == "run":
                check_names(options)
        except (click.ClickException, KeyError, ValueError) as error:
            wrong.append(f"{page}: gapbench {' '.join(line)}: {error}")
    assert len(found) > 80 and not wrong, "\n".join(wrong)


def test_the_commands_that_only_read_run(folder: None) -> None:
    """Seen to catch: a score that is not there, a folder of two datasets for ranks."""
    ran = set()
    for line in dict.fromkeys(tuple(line) for _, line in printed()):
        name, options = understood(list(line))
        if name in ALONE or (name in OF_A_FOLDER and options["folder"] and options.get("form") != "netcdf"):
            result = CliRunner().invoke(main, line)
            assert result.exit_code == 0 and result.output, (line, result.output)
            ran.add(name)
    assert ran == {*ALONE, *OF_A_FOLDER}


@pytest.mark.one_file
def test_generated_pages_are_of_the_code() -> None:
    """Seen to catch: an option that was added, a score whose definition was reworded, a suite with another method."""
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert text == commands_page(main), "run `gapbench readme` and commit what it writes"
    assert all(f"\n## {name}\n" in text for name, _ in commands(main)) and "\n## publish\n" not in text
    codes = re.findall(r"^\| (\d+) \| ", text.partition("## Exit codes")[2], re.MULTILINE)
    assert codes == ["0", "1", "2", "3", "4", "5", "130", "141"]
    for name in TABLES:
        page = DOCS / f"{name}.md"
        assert f"<!-- {name} -->" in page.read_text(encoding="utf-8")
        assert page.read_text(encoding="utf-8") == with_table(page), "run `gapbench readme` and commit what it writes"


def test_the_site_has_every_page_once() -> None:
    """In its menu. Seen to catch: a page that was added and is not in it."""
    site = yaml.safe_load((DOCS / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = [
        page for part in site["nav"] for page in (next(iter(part.values())) if isinstance(part, dict) else [part])
    ]
    there = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *DOCS.glob("*.ipynb")]
    assert sorted(listed) == sorted(path.relative_to(ROOT).as_posix() for path in there)


def test_the_workflow_runs_the_gate() -> None:
    """With the Python that the gate asks for. Seen to catch: a step that does something else."""
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    [job] = flow["jobs"].values()
    *before, last = job["steps"]
    assert last == {"run": ".ci/run"} and (ROOT / ".ci" / "run").is_file() and job["timeout-minutes"] == 45
    assert [step["with"]["python-version"] for step in before if "with" in step] == ["3.11"]
