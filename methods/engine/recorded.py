"""Recorded functions: the tensor operations of a function, run again without the Python and the autograd around them.

In training, every step does the same operations on other numbers. On networks as small as ours, autograd, Pyro and
Python take up to half of its time.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
            device = next(part.device for part in (*inputs, *recording.constants))
            with restored(device, recording.generators), unchanged(recording.constants):
                replayed = recording(*inputs)
        except Exception:  # of whatever kind: if the function itself is wrong, it says so when it runs
            return self._plain(*inputs)
        found = self._plain(*inputs)
        if all(map(torch.equal, found, replayed)):
            self.recordings[key] = recording
        return found


class Recording:
    """The operations of a function in two parts: its random draws, then all others, which take the draws as inputs.

    On a CPU, TorchScript runs the second part; it cannot draw from a given generator. On a GPU, a CUDA graph does.
    constants: tensors that the function found elsewhere. generators: those that it drew from.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        *nodes, output = module.graph.nodes
        draws = [node for node in nodes if is_draw(node)]
        found = [node for node in nodes if node.op == "get_attr" and isinstance(getattr(module, node.target), Tensor)]
        self.constants = [getattr(module, str(node.target)) for node in found]
        self.generators = [value for value in vars(module).values() if isinstance(value, Generator)]
        before = ancestors(draws)
        self.draws = part(module, [node for node in nodes if node in before or node.op == "placeholder"], [], draws)
        self.rest = part(module, nodes, [*draws, *found], output.args[0])
        self.replay: Callable[..., tuple[Tensor, ...]] | None = None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            given = *inputs, *self.draws(*inputs)
            if self.replay is None:
                self.replay = faster(self.rest, given, self.constants)
            return self.replay(*given, *self.constants)


@contextmanager
def unchanged(tensors: Sequence[Tensor]) -> Iterator[None]:
    """At the end, these tensors hold the numbers of before."""
    before = [one.detach().clone() for one in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for one, numbers in zip(tensors, before, strict=True):
                if not torch.equal(one, numbers):  # what never changes may be expanded, and refuse to be written
                    one.copy_(numbers)


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


def faster(module: fx.GraphModule, inputs: Sequence[Tensor], constants: Sequence[Tensor]) -> Function:
    """The module of inputs and constants, without Python between its operations if the device has a way for that.

    Later calls bring other inputs, and the same constants, whose numbers may have changed in place.
    """
    kinds = {one.device.type for one in (*inputs, *constants)}
    way = interpreted if kinds == {"cpu"} else captured if kinds == {"cuda"} else None
    return way(module, inputs, constants) if way else module


def interpreted(module: fx.GraphModule, inputs: Sequence[Tensor], constants: Sequence[Tensor]) -> Function:
    """The module run by TorchScript, which needs a tenth of the time that Python needs for an operation.

    TorchScript is deprecated. What is recommended instead needs Python or a compiler.
    """
    copies = tuple(one.clone() for one in (*inputs, *constants))  # since the module may change them in place
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        replay: Function = torch.jit.trace(module, copies, check_trace=False)
    return replay


def captured(module: fx.GraphModule, inputs: Sequence[Tensor], constants: Sequence[Tensor]) -> Function:
    """The module captured in a CUDA graph, which starts all operations at once.

    The graph reads constants where they are, and inputs from copies, which every call fills. It writes its results to
    the same memory each time, so they are copied from there.
    """
    copies = [one.clone() for one in inputs]
    # A function around the module, since a module itself would be changed.
    graph: Any = torch.cuda.make_graphed_callables(lambda *given: module(*given), (*copies, *constants))
    return lambda *given: tuple(one.clone() for one in graph(*given))
