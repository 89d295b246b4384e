"""The folders' order, which keeps a method from ever seeing a dataset or a test point, and the names in them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

MAY_IMPORT = {
    "methods": ["methods"],
    "datasets": ["datasets", "methods.engine.model", "methods.engine.noise"],
    "evaluation": ["evaluation", "methods", "datasets"],
    "runners": ["runners", "evaluation", "methods", "datasets"],
}
FILES = {folder: list((Path(__file__).parents[1] / folder).rglob("*.py")) for folder in MAY_IMPORT}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_what_lies_below_it(folder: str) -> None:
    """Seen to catch, in methods/sgld.py: `from gapbench.datasets.base import Problems`, `from gapbench import
    runners`, `import gapbench.evaluation.scores` inside a function, `from ..datasets import base`; in
    datasets/base.py: `from gapbench.methods import sgld`."""
    allowed = tuple(f"gapbench.{name}." for name in MAY_IMPORT[folder])
    for file in FILES[folder]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                lead = f"{'.' * node.level}{node.module or ''}." if isinstance(node, ast.ImportFrom) else ""
                for name in (f"{lead}{alias.name}." for alias in node.names):
                    assert not name.startswith(("gapbench.", ".")) or name.startswith(allowed), (file.name, name)


def test_no_folder_has_an_init_and_every_file_is_named_for_one_idea() -> None:
    """With an __init__.py our `datasets/` would shadow Hugging Face's `datasets` wherever the root is on sys.path
    (as under `python -m pytest`). Seen to catch: datasets/__init__.py, methods/utils.py."""
    names = [file.stem for files in FILES.values() for file in files]
    assert "sgld" in names and not {"__init__", "utils", "helpers"} & set(names)
