"""dispatch=kernel: the op bve::dispatch between XNNPACK's delegates, run by libbve_executorch's kernel."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("executorch")

from bigvit_edge.artifact import Artifact, write_data
from bigvit_edge.errors import UserError
from bigvit_edge.export.assignment import assign_layers
from bigvit_edge.export.backends import executorch
from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.graph import Graph, matrix_products
from bigvit_edge.export.quantization import insert_quantization
from bigvit_edge.models.blvit import BLViT, set_dispatch
from bigvit_edge.models.dispatch import DISPATCH
from bigvit_edge.models.load import set_keep
from bigvit_edge.runtime import find_library
from bigvit_edge.runtime.executorch import LIBRARY
from bigvit_edge.runtime.executorch import load as load_ours
from bigvit_edge.target import Quant, Target
from tests.native import ROOT, skip

TARGET = Target("test", "", ("executorch",), dispatch="kernel")
KEEPS = (1.0, 0.5, 0.25)
SIZE, LAYERS, TOKENS, LITTLE = 48, 2, 37, 16
IMAGE = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model() -> BLViT:
    torch.manual_seed(0)
    sizes = dict(image_size=SIZE, patch=8, dim=32, depth=LAYERS, head_dim=16, num_classes=5)
    model = BLViT(**sizes, little_dim=LITTLE, little_head_dim=8)
    for parameter in model.parameters():  # the start has gammas of 1e-4: make every path count
        parameter.data.normal_(0, 0.3)
    set_dispatch(model, "kernel")
    return model.eval()


def make_graph(model: BLViT, precision: str, keep: float) -> Graph:
    graphs = [rewrite(capture(model, SIZE, keep))]
    (graph,) = assign_layers(graphs, precision, TARGET, IMAGE.numpy(), False, lambda *_: None)
    return graph


def lower(*graphs: Graph) -> Artifact:
    return executorch.lower(graphs, TARGET, {})


@pytest.fixture(scope="module")
def library() -> Path:
    try:
        return find_library(LIBRARY)
    except UserError as e:
        skip(e.met, "make native")
        raise


def write(artifact: Artifact, folder: Path) -> Path:
    write_data(artifact.data, folder / "model.pte")
    return folder / "model.pte"


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8"])
def graph(model: BLViT, request: pytest.FixtureRequest) -> Graph:
    return make_graph(model, request.param, 0.5)


@pytest.fixture(scope="module")
def artifact(graph: Graph) -> Artifact:
    return lower(graph)


def test_a_layer_leaves_one_op_outside(graph: Graph, artifact: Artifact) -> None:
    assert ("layers.0.p.mlp.fc1" in graph.layers) == (graph.precision == "int8")
    (method,) = artifact.methods
    total = sum(macs for _, macs in matrix_products(graph.exported))
    assert Counter((left.op, left.layer, left.reason, left.mac_share) for left in method.leftovers) == {
        ("bve.dispatch.default", f"layers.{i}", "run by libbve_executorch's kernel", TOKENS * LITTLE / total): 1
        for i in range(LAYERS)
    }
    assert method.delegates == LAYERS + 1
    pieces = 2 if graph.precision == "fp16" else 1  # the op is in float: what it reads is cast before it
    assert {method.fragments[f"layers.{i}"] for i in range(LAYERS)} == {pieces}


@torch.no_grad()
def test_the_kernel_computes_what_pytorch_computes(
    model: BLViT, graph: Graph, artifact: Artifact, library: Path, tmp_path: Path
) -> None:
    set_keep(model, 0.5)
    expected = insert_quantization(graph).module()(IMAGE) if graph.precision == "int8" else model(IMAGE)
    answer = executorch.load(write(artifact, tmp_path))(IMAGE.numpy())
    limit = {"fp32": 2e-6, "fp16": 2e-2, "int8": 1e-5}[graph.precision]
    assert np.abs(answer - expected.numpy()).max() < limit


@torch.no_grad()
def test_each_keep_ratio_is_a_method(model: BLViT, library: Path, tmp_path: Path) -> None:
    artifact = lower(*(make_graph(model, "fp32", keep) for keep in KEEPS))
    path, answers = write(artifact, tmp_path), []
    for method in artifact.methods:
        assert method.keep is not None
        set_keep(model, method.keep)
        answers.append(executorch.load(path, method=method.name)(IMAGE.numpy()))
        assert np.abs(answers[-1] - model(IMAGE).numpy()).max() < 2e-6
    assert np.abs(answers[0] - answers[2]).max() > 1e-3


def test_routers_cannot_be_quantised(model: BLViT) -> None:
    graph = rewrite(capture(model, SIZE, 0.5))
    target = replace(TARGET, quant=Quant(router="int8"))
    with pytest.raises(UserError, match=r"quant\.router=int8; expected a model with Linears in a 'router'"):
        assign_layers([graph], "mixed", target, IMAGE.numpy(), False, lambda *_: None)


# ---- what the kernel refuses -----------------------------------------------------------------------------------------


class Alone(nn.Module):
    """The op alone, on an input [B, N, C] of which the first columns are the LITTLE stream."""

    def __init__(self, little_dim: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.norm, self.score = nn.LayerNorm(little_dim, dtype=dtype), nn.Linear(little_dim, 1, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        norm, score, dtype = self.norm, self.score, self.score.weight.dtype
        x, z = x.to(dtype), x[:, :, : norm.normalized_shape[0]].to(dtype)
        results = DISPATCH(x, z, norm.weight, norm.bias, score.weight, score.bias, 1e-6, 3)
        return results[0].float()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("shape", "module", "words"),
    [
        ((1, 5, 16), Alone(4), "tokens of 16 and 4 floats; expected at least 32 and 1"),
        ((2, 5, 32), Alone(4), r"other shapes; expected x \[1, n, C\], z \[1, n, c\]"),
        ((1, 5, 32), Alone(4, torch.float64), "other types; expected packed floats"),
    ],
    ids=["narrow", "batch", "double"],
)
def test_what_it_cannot_take_is_refused(
    shape: tuple[int, ...], module: Alone, words: str, library: Path, tmp_path: Path
) -> None:
    graph = Graph(torch.export.export(module.eval(), (torch.zeros(shape),)))
    program = load_ours(write(lower(graph), tmp_path))
    with pytest.raises(UserError, match=words):
        program.run(np.zeros(shape, np.float32))


def test_the_op_alone_runs_where_it_is_right(library: Path, tmp_path: Path) -> None:
    module = Alone(4).eval()
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(2))
    path = write(lower(Graph(torch.export.export(module, (x,)))), tmp_path)
    with torch.no_grad():
        assert np.array_equal(load_ours(path).run(x.numpy()), module(x).numpy())


# ---- the library -----------------------------------------------------------------------------------------------------


def call(code: str, *arguments: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own: what is loaded here stays loaded."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def file(model: BLViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(lower(make_graph(model, "fp32", 0.5)), tmp_path_factory.mktemp("dispatch"))


LOAD = "import sys; from pathlib import Path; from bigvit_edge.export.backends import executorch as e; "


def test_without_the_library_the_error_names_it(file: Path, tmp_path: Path) -> None:
    (tmp_path / "libbve.so").touch()
    alone = "from bigvit_edge.runtime import abi; abi.__file__ = '/nowhere/__init__.py'; "
    alone += "abi.sysconfig.get_path = lambda kind: '/nowhere'; "
    done = call(LOAD + alone + "e.load(Path(sys.argv[1]))", file, BVE_LIBRARY=str(tmp_path / "libbve.so"))
    last = done.stderr.splitlines()[-1]
    assert "no libbve_executorch.so beside" in last
    assert "pip install" in last


def test_two_copies_of_the_library_do_no_harm(file: Path, library: Path, tmp_path: Path) -> None:
    copy = shutil.copy(library, tmp_path / "copy.so")
    run = "import ctypes, numpy as np; run = e.load(Path(sys.argv[1])); ctypes.CDLL(sys.argv[2]); "
    run += f"print(run(np.zeros((1, 3, {SIZE}, {SIZE}), np.float32)).shape)"
    done = call(LOAD + run, file, copy)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["(1, 5)"]), done.stderr
    assert "expected one copy; load one alone" in done.stderr
