"""A run that is killed at a random moment, on dask: nothing is lost, and nothing is left behind."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from commands import gapbench

PATIENCE = 180.0  # seconds that nothing should ever take
KILLS = 1  # the script kills more often
ATONCE = 2  # cells that a killed process takes with it


@pytest.fixture(scope="module")
def survival() -> ModuleType:
    """timings/survival.py."""
    path = Path(__file__).resolve().parent.parent / "timings" / "survival.py"
    spec = importlib.util.spec_from_file_location("survival_of_runs", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    module.PATIENCE = PATIENCE  # type: ignore[attr-defined]
    return module


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
# test_crash.py has runs without an engine; the script has both, and shards.
def test_a_run_on_dask_survives_a_kill(survival: ModuleType, tmp_path: Path) -> None:
    """Of itself and of any process that it started. What is committed stays to the byte, a kill costs at most what ran,
    no process is left, and the records are those of a run that nobody disturbed.

    Seen to catch: a stream of random numbers from the time, records that are made again and written over.
    """
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    done = gapbench(undisturbed, *survival.arguments(undisturbed, undisturbed / "results"), "--jobs", "2")
    assert done.exit_code == 0, done.output
    found = survival.survive("dask", KILLS, tmp_path, undisturbed / "results", random.Random(0))
    output = "\n".join(found.outputs)
    assert found.kills >= KILLS and found.runs > 1
    assert (found.lost, found.orphans, found.same_bits) == (0, 0, True), output
    assert 0 <= found.again <= KILLS * ATONCE, output
