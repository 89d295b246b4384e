"""Commands of gapbench, run to their end. What takes long is to start a process that imports everything."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from nursery import started

PATIENCE = 300.0  # seconds that nothing should ever take
ONE_BY_ONE = """
import shlex, sys
from gapbench.runners.cli.main import main
for line in sys.argv[1:]:
    try:
        main(shlex.split(line), prog_name="gapbench")
    except SystemExit as end:
        if end.code:
            raise
"""


def gapbench(folder: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`gapbench WORDS` in this folder, in a process that need not import everything."""
    with tempfile.TemporaryDirectory() as name:
        output, errors = Path(name) / "output", Path(name) / "errors"
        command = started(*words, folder=folder, output=output, errors=errors, environment=environment)
        code = command.wait(PATIENCE)
        return subprocess.CompletedProcess(words, code, output.read_text("utf-8"), errors.read_text("utf-8"))


def elsewhere(folder: Path, *lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`gapbench LINE` for each line, in this folder, in one fresh process, which ends with the first that fails. For
    another gapbench on PYTHONPATH, and for locales, which Python reads when it starts."""
    words = [sys.executable, "-c", ONE_BY_ONE, *lines]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True)


def line(*words: object) -> str:
    """Words as one line."""
    return shlex.join(map(str, words))
