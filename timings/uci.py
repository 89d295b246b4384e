"""The protocols on UCI tables: all 20 splits as one stack, against a loop of plain torch over the splits.

python timings/uci.py [--device cuda] [--rounds 5] [--steps 200]

MC dropout trains on the first 4/5 of the training rows of each split, as every point of its grid does; the ensemble has
five members. The loop is what published code does: torch.nn, torch.optim.Adam, shuffled minibatches, one network after
another. The data have the shapes of the tables, and random numbers.
"""

import time
from collections.abc import Callable, Iterator

import torch
from side_by_side import arguments, cost, ratio, synchronise, timed
from torch import Generator, Tensor, nn

from gapbench.datasets.uci import SPLITS, TABLES
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.deep_ensemble import DeepEnsemble
from gapbench.methods.engine.model import MLP
from gapbench.methods.mc_dropout import MCDropout

RATE, MEMBERS = 0.05, 5


def batches(n: int, size: int) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(n).split(size)


def dropout_alone(x: Tensor, y: Tensor, steps: int) -> None:
    """One network with dropout on inputs and hidden units."""
    parts = [nn.Dropout(RATE), nn.Linear(x.shape[1], 50), nn.ReLU(), nn.Dropout(RATE), nn.Linear(50, 1)]
    network = nn.Sequential(*parts).to(x.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-6)
    index = batches(len(y), 128)
    for _ in range(steps):
        rows = next(index)
        loss = (network(x[rows]).squeeze(-1) - y[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def member_alone(x: Tensor, y: Tensor, steps: int) -> None:
    """One network of mean and variance."""
    network = nn.Sequential(nn.Linear(x.shape[1], 50), nn.ReLU(), nn.Linear(50, 2)).to(x.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    index = batches(len(y), 100)
    for _ in range(steps):
        rows = next(index)
        mean, z = network(x[rows]).unbind(-1)
        variance = nn.functional.softplus(z) + 1e-6
        loss = ((y[rows] - mean).square() / variance + variance.log()).mean() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def stacked(method: UncertaintyMethod, x: Tensor, y: Tensor, model: MLP) -> None:
    method.fit(model, x, y, Generator(device=x.device).manual_seed(0))


def seconds(work: Callable[[], None], device: str) -> float:
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


if __name__ == "__main__":
    options = arguments(__doc__, rounds=5, steps=200)
    plain = {"prior_std": 1e3, "scale_by_fan_in": False, "default_init": True, "hidden": (50,)}
    common = {"steps": options.steps, "by_epochs": True}
    dropout = MCDropout(rate=RATE, inputs=True, lr=1e-3, batch=128, draws=1, **common)
    ensemble = DeepEnsemble(members=MEMBERS, mean_variance=True, beta=0.0, softplus=True, lr=0.01, batch=100, **common)
    print(f"{'protocol':14} {'table':10} {'ms a step of 20 splits':>23} {'× faster than the loop':>23}")
    for name in ("boston", "concrete", "energy", "yacht"):
        table = TABLES[name]
        train, features = round(0.9 * table.rows), table.features
        torch.manual_seed(0)
        x, y = (torch.randn(SPLITS, train, *shape, device=options.device) for shape in ((features,), ()))
        kept = int(0.8 * train)
        model = MLP(features=features, noise_std=0.3, **plain)
        for protocol, method, alone, count, n in (
            ("MC dropout", dropout, dropout_alone, 1, kept),
            ("ensemble", ensemble, member_alone, MEMBERS, train),
        ):
            given = x[:, :n], y[:, :n]

            def loop(alone=alone, given=given) -> float:
                """Of one split and member: the loop over all takes as many times as long."""
                return seconds(lambda: alone(given[0][0], given[1][0], options.steps), options.device)

            def stack(method=method, given=given, model=model) -> float:
                return seconds(lambda: stacked(method, *given, model), options.device)

            rounds = timed({"loop": loop, "stack": stack}, options.rounds)
            gain = SPLITS * count * ratio(rounds, "loop", "stack")
            print(
                f"{protocol:14} {name:10} {cost(rounds, 'stack') / options.steps * 1e3:23.2f} {gain:23.1f}", flush=True
            )
