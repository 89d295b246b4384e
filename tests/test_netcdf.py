"""Draws for ArviZ: each draw at its place among replicas and chains, in the units of the data."""

from __future__ import annotations

from pathlib import Path

import arviz_base
import numpy as np
import pytest
from click.testing import CliRunner

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.entries import Trained
from gapbench.methods.cqr import CQR
from gapbench.methods.engine.model import MLP
from gapbench.methods.mclmc import MCLMC
from gapbench.methods.quantile_regression import QuantileRegression
from gapbench.methods.sgld import SGLD
from gapbench.runners.cell import Cell
from gapbench.runners.cli.main import main
from gapbench.runners.complete import complete
from gapbench.runners.netcdf import write
from gapbench.runners.store import Store, StoreError

METHODS = {
    "sgld": SGLD(batch=20, burn_in=5, draws=3, thin=2, chains=2),
    "mclmc": MCLMC(burn_in=20, draws=2, thin=2, chains=3),
    "cqr": CQR(method=QuantileRegression(steps=5), calibration=0.5),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two blocks of replicas of a sampler of θ and of a sampler of components, and a method without draws."""
    store = Store(tmp_path_factory.mktemp("results"))
    store.prepare()
    for name, method in METHODS.items():
        for first in (0, 2):
            cell = Cell(
                "sine", GappedSine(n=200, test_points=7), MLP(hidden=(4,)), name, Trained(method), first, first + 2, 0
            )
            if name != "cqr" or first == 0:
                assert complete(cell, store, "cpu").recorded
    return store.root


def stored(folder: Path, name: str) -> dict[int, dict[str, np.ndarray]]:
    """The predictions of each block, by its first replica."""
    store = Store(folder)
    records = [one for one in store.records() if one.identity["method"]["name"] == name]
    return {one.replicas[0]: store.arrays(one.arrays["predictions"]) for one in records}


def test_draws_stand_at_their_chains_and_replicas(folder: Path, tmp_path: Path) -> None:
    """Seen to catch: draws and chains exchanged, blocks in the order of their keys, the data of another replica."""
    write(folder, "sine", "sgld", tmp_path / "s.nc")
    tree = arviz_base.convert_to_datatree(str(tmp_path / "s.nc"))
    f = tree["posterior"]["f"]
    assert f.dims == ("chain", "draw", "replica", "point") and f.shape == (2, 3, 4, 7)
    blocks = stored(folder, "sgld")
    for replica in range(4):
        block = blocks[replica // 2 * 2]["location"][replica % 2]  # (S, M), chain-major
        for chain, draw in ((0, 2), (1, 0)):
            np.testing.assert_array_equal(f.values[chain, draw, replica], block[chain * 3 + draw])
    problems = GappedSine(n=200, test_points=7).problems(range(4))
    np.testing.assert_array_equal(tree["observed_data"]["y"].values, problems.y.numpy())
    np.testing.assert_array_equal(tree["constant_data"]["f_test"].values, problems.f_test.numpy())
    assert list(tree["posterior"]["replica"].values) == [0, 1, 2, 3]
    assert tree["posterior"].attrs["method"] == "sgld"


def test_components_are_told_by_their_moments(folder: Path, tmp_path: Path) -> None:
    """A draw of the collapsed posterior is a normal law of f. Seen to catch: its mean as a draw of f."""
    write(folder, "sine", "mclmc", tmp_path / "m.nc")
    posterior = arviz_base.convert_to_datatree(str(tmp_path / "m.nc"))["posterior"]
    assert set(posterior.data_vars) == {"f_mean", "f_std"} and (posterior["f_std"].values > 0).all()
    block = stored(folder, "mclmc")[2]
    np.testing.assert_array_equal(posterior["f_std"].values[1, 0, 3], block["scale"][1, 1 * 2 + 0])


def test_a_kind_of_a_method_s_own_file_has_no_draws(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not imported here. Seen to catch: a KeyError."""
    monkeypatch.setattr("gapbench.runners.netcdf.kinds", dict)
    with pytest.raises(StoreError, match="has no draws of f: it is a BandPrediction"):
        write(folder, "sine", "cqr", tmp_path / "x.nc")


def test_what_has_no_draws(folder: Path, tmp_path: Path) -> None:
    for method, why in (("cqr", "has no draws of f: it is a BandPrediction"), ("svi", "no draws of svi on sine")):
        with pytest.raises(StoreError, match=why):
            write(folder, "sine", method, tmp_path / "x.nc")
    run = CliRunner().invoke
    several = run(main, ["export", str(folder), "--format", "netcdf"])
    assert several.exit_code == 2 and "which method? --method one of cqr, mclmc, sgld" in several.stderr.replace(
        "\n", ""
    )
    done = run(main, ["export", str(folder), "--format", "netcdf", "--method", "sgld"])
    assert done.exit_code == 0 and (folder / "results.nc").is_file()
    stray = run(main, ["export", str(folder), "--method", "sgld"])
    assert stray.exit_code == 2 and "are of --format netcdf" in stray.stderr
