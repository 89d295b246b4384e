"""The examples for clusters: each says what gapbench, the shell and the cluster understand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from distributed.cli import dask_scheduler, dask_worker

from gapbench.runners.cli.main import main

DOCS = Path(__file__).resolve().parent.parent / "docs"
CLUSTER = DOCS / "cluster"


def parsed(words: list[str]) -> dict[str, Any]:
    """The options of a `gapbench` command line, as the command itself reads them. Raises click's errors."""
    command = main.commands[words[0]]
    return command.make_context(words[0], words[1:]).params


def test_the_command_lines_of_dask_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dask takes a word that it does not know as one for a preloaded module. Seen to catch: an option that was renamed,
    a worker with two threads."""
    text = (DOCS / "cluster.md").read_text(encoding="utf-8") + (CLUSTER / "compose.yaml").read_text(encoding="utf-8")
    lines = re.findall(r"^(?: +command: )?dask (scheduler|worker) (.*?)(?: +#.*)?$", text, re.MULTILINE)
    assert len(lines) == 6
    monkeypatch.chdir(tmp_path)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        Path(name).touch()
    for name, words in lines:
        command = {"scheduler": dask_scheduler, "worker": dask_worker}[name].main
        options = command.make_context(name, shlex.split(words)).params
        assert options["preload_argv"] == () and options.get("nthreads", 1) == 1
        assert options["port"] == "8786" if name == "scheduler" else options["scheduler"].endswith(":8786")


def test_the_build_leaves_out_what_is_not_needed() -> None:
    """Seen to catch: a name that docker does not look for."""
    (beside,) = CLUSTER.glob("*ignore")
    assert beside.name == "Dockerfile.dockerignore" and ".git" in beside.read_text().splitlines()


@pytest.fixture
def stub(tmp_path: Path) -> dict[str, str]:
    """The environment in which `gapbench` only writes its words to the file SEEN, a line each."""
    (tmp_path / "gapbench").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$SEEN"\n')
    (tmp_path / "gapbench").chmod(0o755)
    return {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SEEN": str(tmp_path / "seen")}


def said(command: Sequence[str | Path], environment: dict[str, str]) -> dict[str, Any]:
    """The options with which a shell command runs gapbench."""
    subprocess.run(command, check=True, env=environment)
    return parsed(Path(environment["SEEN"]).read_text().splitlines())


def test_the_array_script_runs_the_shard_of_its_task(stub: dict[str, str]) -> None:
    """Seen to catch: shards from 0, quotes forgotten around a path with a space."""
    stub |= {"SLURM_ARRAY_TASK_ID": "64", "SLURM_ARRAY_TASK_COUNT": "64"}
    options = said(["sh", CLUSTER / "slurm_array.sh", "uci", "a folder"], stub)
    assert (options["suite"], options["shard"], options["out"]) == ("uci", "64/64", Path("a folder").absolute())
    (array,) = re.findall(r"^#SBATCH --array=1-(\d+)$", (CLUSTER / "slurm_array.sh").read_text(), re.MULTILINE)
    assert array == "64"


def test_the_job_has_a_pod_for_each_shard(stub: dict[str, str]) -> None:
    """Its indices are from 0, shards from 1. Seen to catch: another number of shards than of pods, an index that is not
    raised by one, a volume that is not mounted, pods that do not divide the shards, a try that fails again."""
    job = yaml.safe_load((CLUSTER / "kubernetes_job.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    assert pod["restartPolicy"] == "Never"  # as backoffLimitPerIndex and podFailurePolicy ask
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule == {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1, 2]}}
    assert spec["completions"] % spec["parallelism"] == 0
    (shard,) = pod["containers"]
    indices = [stub | {"JOB_COMPLETION_INDEX": str(index)} for index in range(spec["completions"])]
    seen = [said([*shard["command"], *shard["args"]], one)["shard"] for one in indices]
    assert seen == [f"{which}/{spec['completions']}" for which in range(1, spec["completions"] + 1)]
    (mount,) = shard["volumeMounts"]
    assert mount["name"] == pod["volumes"][0]["name"] and f"--out {mount['mountPath']}/" in shard["args"][0]


def test_the_containers_know_each_other() -> None:
    """Seen to catch: a service that is not there, workers that do not see the folder of results, an image that is not
    built, a port that is open to all."""
    compose = yaml.safe_load((CLUSTER / "compose.yaml").read_text())
    services = compose["services"]
    address = "tcp://scheduler:8786"
    assert address in services["worker"]["command"] and "--nthreads 1" in services["worker"]["command"]
    assert parsed(services["run"]["command"].split()[1:])["engine"] == f"dask={address}"
    assert "8786" in services["scheduler"]["command"]
    for one in services.values():
        assert set(one.get("depends_on", ())) <= set(services) and one["image"] == "gapbench" and "ports" not in one
        assert (CLUSTER / one["build"]["context"] / one["build"]["dockerfile"]).resolve().is_file()
    assert services["worker"]["volumes"] == services["run"]["volumes"] == ["results:/results"]
    assert set(compose["volumes"]) == {"results"}


def test_a_word_that_is_no_option_is_refused() -> None:
    """So that the tests above can fail."""
    with pytest.raises(click.ClickException):
        parsed(["run", "--shards", "1/2"])
