"""Loading .onnx files: what is refused, and in which words."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import onnx as backend
from bigvit_edge.export.graph import Graph, Ranges
from bigvit_edge.target import Target

TARGET = cast(Target, SimpleNamespace())  # not read by this backend
IMAGE = np.linspace(-1, 1, 192, dtype=np.float32).reshape(1, 3, 8, 8)


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.GELU(), nn.Linear(64, 10)).eval()
    return Graph(torch.export.export(model, (torch.zeros(1, 3, 8, 8),), strict=False))


def lower(graph: Graph, precision: str) -> bytes:
    layers = dict.fromkeys(("1", "3"), precision) if "int" in precision else {}
    ranges = dict.fromkeys(layers, Ranges((-1, 1), (-2, 2)))
    return cast(bytes, backend.lower([Graph(graph.exported, precision, layers, ranges)], TARGET, {}).data)


@pytest.fixture(scope="module")
def data(graph: Graph) -> bytes:
    return lower(graph, "int8")


def outside(make: Callable[[TensorProto], onnx.NodeProto | None]) -> Callable[[bytes], bytes]:
    """A file with one more tensor, which lies in /etc/passwd."""

    def spoil(data: bytes) -> bytes:
        model = onnx.load_from_string(data)
        tensor = TensorProto(name="far", data_type=TensorProto.UINT8, dims=[4], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="../../../etc/passwd")
        node = make(tensor)
        if node is None:
            model.graph.initializer.append(tensor)
        else:
            model.graph.node.append(node)
        return model.SerializeToString()

    return spoil


def nest(tensor: TensorProto) -> onnx.NodeProto:
    branch = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "branch", [], [])
    return helper.make_node("If", ["pixel_values"], ["x"], then_branch=branch, else_branch=branch)


def stamp(opset: int, ir: int) -> Callable[[bytes], bytes]:
    def spoil(data: bytes) -> bytes:
        model = onnx.load_from_string(data)
        model.opset_import[0].version, model.ir_version = opset, ir
        return model.SerializeToString()

    return spoil


def rename(old: str, new: str) -> Callable[[bytes], bytes]:
    def spoil(data: bytes) -> bytes:
        model = onnx.load_from_string(data)
        for port in (*model.graph.input, *model.graph.output):
            port.name = new if port.name == old else port.name
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
        return model.SerializeToString()

    return spoil


def unknown_op(data: bytes) -> bytes:
    model = onnx.load_from_string(data)
    model.graph.node[0].op_type = "Nothing"
    return model.SerializeToString()


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "it has no graph"),
    "junk": (lambda data: b"no model" * 100, "no ONNX model"),
    "half": (lambda data: data[: len(data) // 2], "no ONNX model"),
    "cut short": (lambda data: data[:-8], "no ONNX model"),
    "newer opset": (stamp(99, 9), "pset 99"),
    "newer IR": (stamp(20, 99), "IR version"),
    "other output": (rename("logits", "scores"), r"from and to pixel_values \(tensor\(float\)\), scores"),
    "unknown op": (unknown_op, "Nothing"),
    "tensor outside": (outside(lambda tensor: None), "'far' is in another file"),
    "tensor outside, in an attribute": (
        outside(lambda tensor: helper.make_node("Constant", [], ["x"], value=tensor)), "'far' is in another file",
    ),
    "tensor outside, in a branch": (outside(nest), "'far' is in another file"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(damage: str, data: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spoil, words = DAMAGES[damage]
    (tmp_path / "m.onnx").write_bytes(spoil(data))
    with pytest.raises(UserError, match=rf"m\.onnx: ONNX Runtime cannot load it \([^\n]*{words}") as e:
        backend.load(tmp_path / "m.onnx")
    assert (e.value.expected, e.value.do) == ("an .onnx file as exported", "export the model again")
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m\.onnx: ONNX Runtime cannot load it"):
        backend.load(tmp_path / "m.onnx")


def test_a_file_of_before_whose_input_is_called_image_keeps_opening(data: bytes, tmp_path: Path) -> None:
    answers = []
    for name, content in (("new.onnx", data), ("old.onnx", rename("pixel_values", "image")(data))):
        (tmp_path / name).write_bytes(content)
        answers.append(backend.load(tmp_path / name)(IMAGE))
    assert (answers[0] == answers[1]).all()


def test_a_method_that_is_not_there_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    assert backend.load(tmp_path / "m.onnx", method="main")(IMAGE).shape == (1, 10)
    with pytest.raises(UserError, match=r"no method 'keep_0_5'; expected main"):
        backend.load(tmp_path / "m.onnx", method="keep_0_5")


def test_the_terminal_stays_clean(graph: Graph, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for precision in ("fp32", "fp16", "int8", "int8-static", "int4"):
        (tmp_path / "m.onnx").write_bytes(lower(graph, precision))
        backend.load(tmp_path / "m.onnx")(IMAGE)
    assert capfd.readouterr() == ("", "")


def test_many_threads(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    answers = [backend.load(tmp_path / "m.onnx", threads)(IMAGE) for threads in (1, 64)]
    assert np.allclose(*answers, atol=1e-6)
