"""Commands of gapbench. What takes long is to start a process that imports everything."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

from click.testing import CliRunner, Result

from gapbench.runners.cli.main import main


def gapbench(folder: Path, *words: object) -> Result:
    """`gapbench WORDS`, given in this folder, in the tests' own process. Cells have children as always, of a server
    that may be older than the test: what is set in the environment now does not reach them."""
    with chdir(folder):
        return CliRunner().invoke(main, list(map(str, words)), prog_name="gapbench")


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


def elsewhere(folder: Path, *lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`gapbench LINE` for each line, in this folder, in one process of its own; the first that fails ends it."""
    words = [sys.executable, "-c", ONE_BY_ONE, *lines]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True)


def line(*words: object) -> str:
    """Words as one line."""
    return shlex.join(map(str, words))
