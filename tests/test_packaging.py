"""What is installed: the code of the four folders and nothing else, and it runs away from the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("datasets", "methods", "evaluation", "runners")


def run(*command: object, **more: object) -> str:
    """Standard output; with everything that was printed where it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing of a build is left in the tree, and without the network."""
    copy = tmp_path_factory.mktemp("copy") / "tree"
    # The folders by name: an environment may lie in the checkout, whatever it is called.
    for folder in (*FOLDERS, "tests", "timings"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    (copy / "results" / "published").mkdir(parents=True)
    (copy / "results" / "published" / "record.json").write_text("{}")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy / "out", copy)
    (found,) = (copy / "out").glob("*.whl")
    return found


def test_the_wheel_holds_the_code_its_data_and_nothing_else(wheel: Path) -> None:
    """Seen to catch: a folder left out of pyproject.toml, references or costs left out,
    the templates of reports left out, tests packed, results packed,
    `datasets` at the top where it would shadow another package."""
    code = {f"gapbench/{path.relative_to(ROOT)}" for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    folder = ROOT / "evaluation" / "references"
    references = {
        f"gapbench/{path.relative_to(ROOT)}" for ending in ("json", "npz") for path in folder.glob(f"*.{ending}")
    }
    names = ("report.html", "report.css", "report.js", "report_moved.html")
    page = {f"gapbench/evaluation/{name}" for name in names}
    assert len(code) > 20 and references
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    about = {name for name in held if ".dist-info/" in name}
    assert held - about == code | references | page | {"gapbench/runners/costs.json"}
    expected = {"METADATA", "WHEEL", "RECORD", "LICENSE", "entry_points.txt", "top_level.txt"}
    assert {Path(name).name for name in about} == expected


def test_the_wheel_runs_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    """In an environment that has the dependencies, but not the repository. Seen to catch: an import of `methods`
    instead of `gapbench.methods`, a module left out of the wheel, the command's entry point misspelt."""
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Folders named by a .pth file are searched, but .pth files in them are not read: so no editable install is seen.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)

    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    command = environment / "bin" / "gapbench"
    assert "Usage: gapbench" in run(command, "--help", cwd=tmp_path, env=clean)
    # Where it is found, and what `gapbench list` says, in one process: each imports everything.
    where = "import sys, gapbench.runners.cli.main as cli; print(cli.__file__, *sys.path); cli.main(['list'])"
    found, _, text = run(python, "-c", where, cwd=tmp_path, env=clean).partition("\n")
    assert found.startswith(str(packages))
    assert all(f"\n{name} " in text for name in ("mc_dropout", "sgld", "svi", "default", "gapped_sine", "crps_y"))
    # The tests' own environment may lie in the checkout; the checkout's code must not be found.
    searched = {Path(word).resolve() for word in found.split()[1:] if word}
    assert not searched & {ROOT, *(ROOT / folder for folder in FOLDERS)}
    chosen = ("--suite", "quick", "--replicas", "1", "--methods", "svi", "--datasets", "gapped_sine_noisy")
    table = run(command, "run", *chosen, "--out", tmp_path / "out", cwd=tmp_path, env=clean)
    assert "\nsvi " in table and "distance to it" in " ".join(table.split())
