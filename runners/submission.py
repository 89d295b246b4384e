"""A submission: what a suite says of one method of somebody's file, in a folder that is ready for a pull request.

README.md        what is in it, how it was made, and how it is verified
method.py        the file, as it was run
check.txt        the verdicts of `gapbench check`
report.html      the report page
submission.json  the names of class, method and suite, and the sha256 of what the rest depends on
SUITE/           what `gapbench publish` writes
local/           records and predictions, from which the same command goes on; git leaves them out
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from gapbench.methods.base import UncertaintyMethod
from gapbench.runners import load, report
from gapbench.runners.code import imports, modules
from gapbench.runners.complete import Outcome
from gapbench.runners.publish import CURVES, MANIFEST, SCORES, publish, read_manifest
from gapbench.runners.store import Store, StoreError, first_line, put, sha256
from gapbench.runners.suites import suites

FORMAT = 1
ABOUT, METHOD, CHECK, REPORT, README = "submission.json", "method.py", "check.txt", "report.html", "README.md"


@dataclass(frozen=True)
class Submission:
    """A submission in a folder. cls: the name of the method's class. method: that of its row."""

    folder: Path
    cls: str
    method: str
    suite: str

    @property
    def source(self) -> str:
        """The method's class, as `gapbench run --methods` takes it."""
        return f"{self.folder / METHOD}:{self.cls}"

    @property
    def published(self) -> Path:
        return self.folder / self.suite

    @property
    def store(self) -> Path:
        return self.folder / "local"

    def names(self) -> dict[str, str]:
        return {"class": self.cls, "method": self.method, "suite": self.suite}

    def claim(self) -> None:
        """Raises StoreError if the folder holds anything but this submission, finished or not."""
        there = _about(self.folder)
        if not there and (self.folder.is_file() or (self.folder.is_dir() and any(self.folder.iterdir()))):
            raise StoreError(
                f"{self.folder} is not empty: expected an empty folder, or an earlier submission of {self.method}: "
                "choose another --out"
            )
        if there and any(there[name] != own for name, own in self.names().items()):
            raise StoreError(
                f"{self.folder} holds a submission of {there['method']} on suite {there['suite']}, not of "
                f"{self.method} on {self.suite}: choose another --out"
            )

    def begin(self, code: bytes) -> None:
        """Write the method's file, and mark the submission as one that is not finished."""
        self.store.mkdir(parents=True, exist_ok=True)
        (self.store / ".gitignore").write_text("*\n", encoding="utf-8")
        put(self.folder / ABOUT, _json(self.names()))
        put(self.folder / METHOD, code)

    def finish(
        self, keys: Collection[str], verdicts: str, settings: Mapping[str, str], problems: Sequence[str], command: str
    ) -> None:
        """Write everything else. keys: of the records. settings: dataset -> the method, as one writes it in Python.

        problems: sentences on what failed or was skipped.
        """
        publish(self.store, self.published, keys=keys)
        report.write(load.collect(self.published), self.published, self.folder / REPORT)
        put(self.folder / CHECK, verdicts.encode())
        manifest = read_manifest(self.published)
        put(self.folder / README, readme(self, manifest, settings, problems, command).encode())
        shown = {**self.names(), "command": command, "settings": settings, "problems": problems}
        put(self.folder / ABOUT, _json({**shown, "sha256": self._digests()}))

    def _digests(self) -> dict[str, str]:
        files = (METHOD, CHECK, f"{self.suite}/{MANIFEST}")
        return {name: sha256((self.folder / name).read_bytes()) for name in files}


def _json(about: Mapping[str, Any]) -> bytes:
    return (json.dumps({"format": FORMAT, **about}, indent=1, ensure_ascii=False) + "\n").encode()


def _about(folder: Path) -> dict[str, Any]:
    """What a submission says of itself; nothing if there is none. Raises StoreError."""
    path = folder / ABOUT
    if not path.is_file():
        return {}
    try:
        about = dict(json.loads(path.read_text(encoding="utf-8")))
        newer, names = about["format"] > FORMAT, [about[name] for name in ("class", "method", "suite")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{path}: damaged: {type(error).__name__}: {error}; remove it, or `git checkout` it"
        ) from error
    if newer:
        raise StoreError(f"{path} was written by a newer gapbench: upgrade gapbench")
    # These become paths, and names of things to run.
    if not all(isinstance(name, str) for name in names) or not names[0].isidentifier() or names[2] not in suites():
        raise StoreError(
            f"{path}: it names the class {names[0]!r} and the suite {names[2]!r}: expected names that exist"
        )
    return about


def read(folder: Path) -> Submission | None:
    """The submission in a folder; None if it is another kind of folder. Runs nothing of it.

    Raises StoreError if it is not finished, or its files are not those that were submitted.
    """
    about = _about(folder)
    if not about:
        return None
    found = Submission(folder, about["class"], about["method"], about["suite"])
    if "sha256" not in about:
        raise StoreError(f"{folder}: the submission is not finished: run the same `gapbench submit` again")
    try:
        digests = found._digests()
    except OSError as error:
        raise StoreError(f"{error.filename}: {error.strerror}; `git checkout` it, or submit again") from error
    for name, digest in digests.items():
        if about["sha256"] != {**about["sha256"], name: digest}:
            raise StoreError(f"{folder / name}: its content is not what {ABOUT} says; `git checkout` it")
    return found


def problems(store: Store, outcomes: Sequence[Outcome], method: str) -> list[str]:
    """Sentences on what failed, and on what of the method was skipped; the same when the same command is run again."""
    said, notes = list[str](), dict(store.attempts())  # the last note of each cell
    for outcome in sorted(outcomes, key=lambda one: one.cell.title):
        title, note = outcome.cell.title, notes.get(outcome.key)
        if outcome.status == "failed" and note:
            said.append(f"{title} failed: {note['status']}: {first_line(note['reason'])}")
        elif outcome.failed:
            said.append(f"{title} failed: {outcome.reason}")
        elif outcome.status == "skipped" and outcome.cell.name == method:
            said.append(f"{title} was skipped: {outcome.reason}")
    return said


def strangers(method: UncertaintyMethod, file: Path) -> list[Path]:
    """The files that a method's file imports and that belong to no installed package: a submission lacks them."""
    reached = modules(method)
    return sorted(path for name, path in reached.items() if not name.startswith("gapbench.") and path != file.resolve())


# The page -------------------------------------------------------------------------------------------------------------


def readme(
    submission: Submission,
    manifest: Mapping[str, Any],
    settings: Mapping[str, str],
    problems: Sequence[str],
    command: str,
) -> str:
    """The page that says what is in a submission, how it was made and how it is verified."""
    suite, cls = submission.suite, submission.cls
    parts = [
        f"# `{submission.method}` on suite {suite}",
        "A submission, written by `gapbench submit`.",
        "\n".join(
            (
                f"* [{suite}/]({suite}/README.md): the tables and figures, with what `gapbench table`, `plot` and "
                f"`export` read; `{suite}/{MANIFEST}` has the sha256 of what they depend on",
                f"* [{REPORT}]({REPORT}): one page with findings, charts, tables and every band",
                f"* [{METHOD}]({METHOD}): the method's file, as it was run",
                f"* [{CHECK}]({CHECK}): the verdicts of `gapbench check`",
                f"* `{ABOUT}`: names, and the sha256 of the files",
            )
        ),
        "\n".join(_problems(problems)),
        "## How it was made",
        f"```\n{command}\n```",
        "\n".join((*_settings(settings), *_replicas(submission, manifest), *_machines(submission, manifest))),
        "## How it is verified",
        f"**Read `{METHOD}` first: these commands run its code.** In this folder:",
        f"```\ngapbench check {METHOD}:{cls}\ngapbench verify . --sample 5\n```",
        "`verify` trains cells again, those of the method first, and compares every replica's scores. On the same kind "
        'of machine, with the same versions, the verdict is "same bits"; and the command above then writes the same '
        f"`{SCORES}` and `{CURVES}`, byte for byte.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _problems(problems: Sequence[str]) -> Iterator[str]:
    if problems:
        yield "**Not everything went well:**\n"
        yield from (f"* {line}" for line in problems)


def _settings(settings: Mapping[str, str]) -> Iterator[str]:
    """One line, or one for each dataset where the suite adapts the settings."""
    different = len(set(settings.values())) > 1
    for dataset, words in settings.items() if different else list(settings.items())[:1]:
        yield f"* settings{f' on {dataset}' if different else ''}: `{words}`"


def _replicas(submission: Submission, manifest: Mapping[str, Any]) -> Iterator[str]:
    suite = suites()[submission.suite]
    left_out = [name for name in suite.tasks if name not in {one["name"] for one in manifest["datasets"]}]
    for one in manifest["datasets"]:
        runs = ", ".join(f"{first}–{last}" for first, last in one["replicas"])
        yield f"* {one['name']}: replicas {runs}, seed {one['seed']}"
    if left_out:
        yield f"* left out, though the suite has them: {', '.join(left_out)}"


def _machines(submission: Submission, manifest: Mapping[str, Any]) -> Iterator[str]:
    imported = needs(submission.folder / METHOD)
    for machine in manifest["machines"]:
        packages = {**imported, **machine["versions"]}
        versions = ", ".join(f"{name} {version}" for name, version in packages.items())
        yield f"* machine: {machine['device']}, {machine['cpu capability']}, CUDA {machine['cuda'] or 'none'}"
        yield f"* versions: python {machine['python']}, {versions}; commit {machine['commit'] or 'none'}"


def needs(file: Path) -> dict[str, str]:
    """The installed packages that a file imports, with their versions."""
    top = {name.partition(".")[0] for name in imports(file, "")}
    of = _distributions()
    return {name: metadata.version(name) for name in sorted({one for module in top for one in of.get(module, ())})}


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    return metadata.packages_distributions()  # it reads the files of all packages: seconds
