"""Recorded functions: the tensor operations of a function, run again without the Python and the autograd around them.

In training, every step does the same operations on other numbers. On networks as small as ours, autograd, Pyro and
Python take up to half of its time.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Generator, Tensor, fx

from gapbench.methods.engine.streams import restored

Function = Callable[..., tuple[Tensor, ...]]

WORTH = 200  # calls before the recording, which takes as long as some hundred calls


class Recorded:
    """The function of tensors, recorded after some calls and replayed from then on. Results have no gradients.

    Calls may differ by their inputs, by tensors that the function finds elsewhere and that change in place, and by
    random numbers of any generator. All else must be the same in each call, and nothing but tensor operations is
    repeated. To record it, the function is called once more. A recording is used only if it repeats a call bit for bit.
    A function whose numbers decide what it does next cannot be recorded, and runs as it is. Inputs of other shapes have
    a recording of their own.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self.calls: Counter[object] = Counter()
        self.recordings: dict[object, Recording] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        key = tuple((part.shape, part.dtype, part.device) for part in inputs)
        self.calls[key] += 1
        if self.calls[key] == WORTH:
            return self._record(key, inputs)
        return self.recordings.get(key, self._plain)(*inputs)

    def _plain(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.detach() for part in self.function(*inputs))

    def _record(self, key: object, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The results of this call. Its recording is kept if it gives the same."""
        from torch.fx.experimental.proxy_tensor import make_fx  # half a second, which most commands need not wait

        try:
            # "fake": the function runs without numbers, and draws none.
            recording = Recording(make_fx(self._plain, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs))
            with restored(next(part.device for part in (*inputs, *recording.constants)), recording.generators):
                replayed = recording(*inputs)
        except Exception:  # of whatever kind: if the function itself is wrong, it says so when it runs
            return self._plain(*inputs)
        found = self._plain(*inputs)
        if all(map(torch.equal, found, replayed)):
            self.recordings[key] = recording
        return found


class Recording:
    """The operations of a function in two parts: its random draws, then all others, which take the draws as inputs.

    TorchScript runs the second part on a CPU; it cannot draw from a given generator. constants: tensors that the
    function found elsewhere. generators: those that it drew from.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        *nodes, output = module.graph.nodes
        draws = [node for node in nodes if is_draw(node)]
        found = [node for node in nodes if node.op == "get_attr" and isinstance(getattr(module, node.target), Tensor)]
        self.constants = [getattr(module, str(node.target)) for node in found]
        self.generators = [value for value in vars(module).values() if isinstance(value, Generator)]
        before = ancestors(draws)
        self.draws = part(module, [node for node in nodes if node in before or node.op == "placeholder"], [], draws)
        self.rest = part(module, nodes, [*found, *draws], output.args[0])
        self.replay: Callable[..., tuple[Tensor, ...]] | None = None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            given = *inputs, *self.constants, *self.draws(*inputs)
            if self.replay is None:
                self.replay = interpreted(self.rest, given)
            return self.replay(*given)


def is_draw(node: fx.Node) -> bool:
    """Whether the node draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def ancestors(of: Iterable[fx.Node]) -> set[fx.Node]:
    """These nodes and all that they are made from."""
    found: set[fx.Node] = set()
    waiting = list(of)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def part(
    module: fx.GraphModule, nodes: Iterable[fx.Node], given: Iterable[fx.Node], results: fx.node.Argument
) -> fx.GraphModule:
    """The module of these nodes, which makes the results. given: nodes that become further inputs, after its own."""
    graph, copies = fx.Graph(), {}
    for node in nodes:
        if node.op == "placeholder":
            copies[node] = graph.node_copy(node)
    for node in given:
        copies[node] = graph.placeholder(node.name)
    for node in nodes:
        if node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(fx.node.map_arg(results, copies.__getitem__))
    return fx.GraphModule(module, graph)


def interpreted(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """The module; on a CPU run by TorchScript, which needs a tenth of the time that Python needs for an operation.

    TorchScript is deprecated. What is recommended instead needs Python or a compiler.
    """
    if any(one.device.type != "cpu" for one in inputs):
        return module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # Of copies, since the module may change its inputs in place.
        replay: Callable[..., tuple[Tensor, ...]] = torch.jit.trace(
            module, tuple(one.clone() for one in inputs), check_trace=False
        )
    return replay
