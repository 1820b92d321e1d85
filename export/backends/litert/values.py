"""What the tensors of a float .tflite hold: the values of which nodes, measured on one image.

The converter names a tensor after what it was made of, but moves factors and numbers that are added from one op to the
next: behind a hard sigmoid it leaves six times its value, and a sixth in the weights that read it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Interpreter as FxInterpreter
from torch.fx import Node

from bigvit_edge.artifact import Array
from bigvit_edge.console import silenced
from bigvit_edge.export.backends.litert.contents import read_model
from bigvit_edge.export.graph import Graph, read_constants
from bigvit_edge.export.integers import Range
from bigvit_edge.runtime.tflite import list_methods, select_method

with silenced():
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

NEAR = 0.01  # of a value's standard deviation, by which a tensor may differ from it in float arithmetic
Fit = tuple[float, float]  # a factor and a number to add
SAME: Fit = (1.0, 0.0)


class Values:
    """The values of tensors and nodes on one image."""

    def __init__(self, data: bytes, number: int, graph: Graph) -> None:
        """Run both.

        data: a float file with a signature for each subgraph. The image is of the calibration where there is one.
        """
        (method,) = (name for name, subgraph in list_methods(data).items() if subgraph == number)
        self.places = {t.name.decode(): i for i, t in enumerate(read_model(data).subgraphs[number].tensors)}
        (image,), _ = graph.exported.example_inputs
        random = torch.Generator().manual_seed(0)
        if image.dtype == torch.uint8:
            image = torch.randint(256, image.shape, generator=random, dtype=torch.uint8)
        else:
            image = torch.randn(image.shape, generator=random)
        if graph.calibration is not None:
            image = torch.from_numpy(graph.calibration[:1])
        with silenced():
            self.interpreter = Interpreter(
                model_content=select_method(data, method),
                num_threads=1,
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self.interpreter.allocate_tensors()
        self.interpreter.set_tensor(self.interpreter.get_input_details()[0]["index"], image.numpy())
        self.interpreter.invoke()
        self.nodes = _Watch(graph).answer(image)
        self.fits: dict[tuple[str, str], Fit | None] = {}

    def fit(self, tensor: str, node: str) -> Fit | None:
        """Find what multiple of a node's value a tensor holds.

        And what number is added. None where there are none, or either is not known.
        """
        if (tensor, node) not in self.fits:
            known = tensor in self.places and node in self.nodes
            held = self.interpreter.get_tensor(self.places[tensor]) if known else None
            self.fits[tensor, node] = None if held is None else _fit(held, self.nodes[node])
        return self.fits[tensor, node]


class _Watch(FxInterpreter):
    """Keeps the value of every op that has one in float32, and of the image."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.exported.graph_module)
        self.data = {node.name: value for node, value in read_constants(graph.exported).items()}
        self.ends = graph.exported.graph.find_nodes(op="placeholder")
        self.kept: dict[str, Array] = {}

    def answer(self, image: Tensor) -> dict[str, Array]:
        with torch.no_grad():
            self.run(*(self.data.get(node.name, image) for node in self.ends))
        return self.kept

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name not in self.data and isinstance(value, Tensor) and value.dtype == torch.float32:
            self.kept[n.name] = value.numpy()
        return value


def apply_fit(fit: Fit, span: Range) -> Range:
    """Convert what a node's value spans to what the tensor does."""
    ends = [fit[0] * end + fit[1] for end in span]
    return min(ends), max(ends)


def _fit(held: Array, value: Array) -> Fit | None:
    """The tensor is laid out as the value is, or channels-last."""
    if held.size != value.size or held.dtype != np.float32:
        return None
    layouts: Sequence[Array] = [value] if value.ndim != 4 else [value, value.transpose(0, 2, 3, 1)]
    for x, y in ((layout.ravel().astype(np.float64), held.ravel().astype(np.float64)) for layout in layouts):
        spread = x.std()
        if not spread:
            if np.allclose(x, y, rtol=NEAR):
                return SAME
            continue
        factor = ((x - x.mean()) * (y - y.mean())).mean() / spread**2
        shift = y.mean() - factor * x.mean()
        if not factor or np.sqrt(np.mean((factor * x + shift - y) ** 2)) > NEAR * abs(factor) * spread:
            continue
        same = abs(factor - 1) < NEAR and abs(shift) < NEAR * spread
        return SAME if same else (float(factor), float(shift))
    return None
