"""Runs that are killed at random moments, on each engine: nothing is lost, and nothing is left behind."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from nursery import Command, started

PATIENCE = 180.0  # seconds that nothing should ever take
KILLS = 2
ATONCE = {"dask": 2, "shards": 1}  # cells that a killed process takes with it


# Dask starts each worker as a fresh Python, which takes ten seconds. Forked from a server it is there at once.
FORKED = {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver"}


def launch(words: list[str], environment: dict[str, str], log: Path) -> Command:
    return started(*words, folder=log.parent, output=log, environment=environment | FORKED)


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
    module.REPLICAS = 20  # type: ignore[attr-defined]
    module.launch = launch  # type: ignore[attr-defined]
    module.ENGINES["dask"] = [("--engine", "dask", "--jobs", "1")]
    return module


@pytest.fixture(scope="module")
def undisturbed(survival: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = survival.undisturbed_run(tmp_path_factory.mktemp("undisturbed"))
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
@pytest.mark.parametrize("engine", ["dask", "shards"])  # test_crash.py has "local"
def test_a_run_survives_kills(engine: str, survival: ModuleType, undisturbed: Path, tmp_path: Path) -> None:
    """Of itself and of any process that it started. What is committed stays to the byte, a kill costs at most what ran,
    no process is left, and the records are those of a run that nobody disturbed.

    Seen to catch: a stream of random numbers from the time, records that are made again and written over.
    """
    found = survival.survive(engine, KILLS, tmp_path, undisturbed, random.Random(0))
    output = "\n".join(found.outputs)
    assert found.kills >= KILLS and found.runs > 1
    assert (found.lost, found.orphans, found.same_bits) == (0, 0, True), output
    assert 0 <= found.again <= KILLS * ATONCE[engine], output
