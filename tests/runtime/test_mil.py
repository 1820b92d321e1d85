"""Our evaluator of saved Core ML packages: each op against PyTorch eager, and what it finds in spoilt packages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.runtime import mil
from bigvit_edge.runtime.mil.ops import OPS
from bigvit_edge.runtime.mil.package import MANIFEST, Model_pb2, read_folder, read_function

with silenced():
    import coremltools as ct

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
Files = dict[str, bytes]


def save(module: nn.Module, image: Tensor, folder: Path, precision: str = "FLOAT32", target: str = "iOS17") -> Files:
    """The module as coremltools saves it."""
    with silenced(), torch.no_grad():
        program = torch.export.export(module.eval(), (image,)).run_decompositions({})
        model = ct.convert(
            program,
            inputs=[ct.TensorType(name="image", shape=tuple(image.shape))],
            outputs=[ct.TensorType(name="logits", dtype=np.float32)],
            convert_to="mlprogram",
            minimum_deployment_target=ct.target[target],
            compute_precision=ct.precision[precision],
            skip_model_load=True,
        )
        model.save(str(folder / "model.mlpackage"))
    return read_folder(folder / "model.mlpackage")


class Net(nn.Module):
    """A little of everything whose attributes a damaged file could change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(8, eps=1e-3)
        self.fc = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv(image).flatten(2).transpose(1, 2)  # [1, N, 8]
        return self.fc(F.gelu(self.norm(x))).mean(1)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def saved(net: nn.Module, image: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return save(net, image, tmp_path_factory.mktemp("net"))


def evaluate(files: Files, image: Tensor, half: bool | None = None) -> Tensor:
    return torch.from_numpy(mil.load_files(files, "net", half=half)(image.numpy()))


def differ(files: Files, net: nn.Module, image: Tensor) -> float:
    with torch.no_grad():
        return float((evaluate(files, image) - net(image)).abs().max())


def test_the_saved_package_answers_as_pytorch(saved: Files, net: nn.Module, image: Tensor) -> None:
    assert differ(saved, net, image) < 1e-6


# ---- what it finds ---------------------------------------------------------------------------------------------------


def edit(files: Files, change: Callable[[Any], None]) -> Files:
    """The package with something changed in its program."""
    model = Model_pb2.Model.FromString(files[MODEL])
    (function,) = model.mlProgram.functions.values()
    change(function.block_specializations[function.opset])
    return {**files, MODEL: model.SerializeToString()}


def find_constant(block: Any, kind: str, argument: str) -> Any:
    """The constant that an argument of the first op of a kind names."""
    op = next(op for op in block.operations if op.type == kind)
    name = op.inputs[argument].arguments[0].name
    const = next(op for op in block.operations if op.outputs[0].name == name)
    return const.attributes["val"].immediateValue.tensor


def test_it_sees_one_wrong_weight(saved: Files, net: nn.Module, image: Tensor) -> None:
    weight = net.fc.weight.detach().numpy().tobytes()
    at = saved[WEIGHTS].index(weight)
    one = np.frombuffer(weight[:4], np.float32) + 0.05
    spoilt = {**saved, WEIGHTS: saved[WEIGHTS][:at] + one.astype(np.float32).tobytes() + saved[WEIGHTS][at + 4 :]}
    assert differ(spoilt, net, image) > 1e-4


def set_epsilon(block: Any) -> None:
    find_constant(block, "layer_norm", "epsilon").floats.values[0] = 1e-1


def set_mode(block: Any) -> None:
    find_constant(block, "gelu", "mode").strings.values[0] = "TANH_APPROXIMATION"


def set_axis(block: Any) -> None:
    find_constant(block, "reduce_mean", "axes").ints.values[0] = 2


def set_pad(block: Any) -> None:
    find_constant(block, "conv", "pad").ints.values[:] = [0, 2, 1, 1]


@pytest.mark.parametrize("change", [set_epsilon, set_mode, set_pad])
def test_it_sees_a_wrong_attribute(saved: Files, net: nn.Module, image: Tensor, change: Callable[[Any], None]) -> None:
    assert differ(edit(saved, change), net, image) > 1e-5


def swap_perm(block: Any) -> None:
    values = find_constant(block, "transpose", "perm").ints.values
    values[:] = [values[1], values[0], *values[2:]]


@pytest.mark.parametrize("change", [swap_perm, set_axis])
def test_what_contradicts_the_declared_shape_is_an_error(saved: Files, image: Tensor, change: Any) -> None:
    with pytest.raises(UserError, match=r"net: op (transpose|reduce_mean) \(.*\) cannot run: .* declared as"):
        evaluate(edit(saved, change), image)


def test_an_unknown_op_is_named_with_its_output(saved: Files, image: Tensor) -> None:
    def change(block: Any) -> None:
        next(op for op in block.operations if op.type == "gelu").type = "hyperspace"

    with pytest.raises(UserError, match=r"net: op hyperspace \(gelu\)"):
        evaluate(edit(saved, change), image)


class Large(nn.Module):
    """Squares of up to 10^5, which fp16 does not hold, divided again."""

    def forward(self, image: Tensor) -> Tensor:
        return (image * 300).square().mean((2, 3)) / 10000


def test_half_shows_an_overflow_that_float32_hides(image: Tensor, tmp_path: Path) -> None:
    files = save(Large(), image, tmp_path, "FLOAT16")
    expected = Large()(image)
    assert torch.allclose(evaluate(files, image, half=False), expected, rtol=1e-2)
    assert evaluate(files, image, half=True).isinf().any()
    assert evaluate(files, image).isinf().any()  # as the file declares
    whole = save(Large(), image, tmp_path)
    assert torch.allclose(evaluate(whole, image), expected, rtol=1e-5)
    assert evaluate(whole, image, half=True).isinf().any()


# ---- files that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [MANIFEST, MODEL, WEIGHTS])
@pytest.mark.parametrize("left", [0, 0.3, 0.9])
def test_a_cut_file_is_a_user_error(saved: Files, image: Tensor, name: str, left: float) -> None:
    with pytest.raises(UserError, match="net: "):
        evaluate({**saved, name: saved[name][: int(left * len(saved[name]))]}, image)


def test_a_missing_file_is_a_user_error(saved: Files, image: Tensor, tmp_path: Path) -> None:
    for name in (MANIFEST, MODEL, WEIGHTS):
        with pytest.raises(UserError, match="net: damaged"):
            evaluate({key: content for key, content in saved.items() if key != name}, image)
    with pytest.raises(UserError, match=r"an \.mlpackage folder"):
        mil.load_package(tmp_path)
    with pytest.raises(UserError, match=r"an \.mlpackage folder"):
        mil.load_package(tmp_path / "none.mlpackage")


def test_damaged_bytes_never_end_in_a_traceback(saved: Files, image: Tensor) -> None:
    generator = np.random.default_rng(0)
    for name in [MANIFEST] * 30 + [MODEL] * 120:
        content = bytearray(saved[name])
        content[generator.integers(len(content))] = generator.integers(256)
        try:
            evaluate({**saved, name: bytes(content)}, image)
        except UserError as e:
            assert "net" in str(e)  # noqa: PT017  an undamaged answer is right too: not every byte matters


def test_an_image_of_another_size_and_an_unknown_function(saved: Files) -> None:
    with pytest.raises(UserError, match=r"shape \(1, 3, 9, 9\); expected one of shape \(1, 3, 8, 8\)"):
        evaluate(saved, torch.zeros(1, 3, 9, 9))
    with pytest.raises(UserError, match="no method 'mian'; expected one of main; did you mean main"):
        read_function(saved, "net", "mian")


def pack(files: Files) -> bytes:
    """As executorch.backends.apple.coreml flattens a folder; checked against it by the ExecuTorch backend's tests."""
    nodes, data, root = [], b"", {}
    for path, content in files.items():
        node = {"name": path, "kind": 0, "dataRegion": {"offset": len(data), "size": len(content)}, "children": {}}
        root[path] = len(nodes)
        nodes.append(node)
        data += content
    empty = {"offset": 0, "size": 0}
    nodes.append({"name": "model.mlpackage", "kind": 1, "dataRegion": empty, "children": root})
    outer = {"model.mlpackage": len(nodes) - 1}
    nodes.append({"name": "lowered_module", "kind": 1, "dataRegion": empty, "children": outer})
    return data + json.dumps({"nodes": nodes}).encode()[::-1]


def test_the_package_in_a_delegates_blob(saved: Files) -> None:
    blob = pack(saved)
    assert mil.unpack_blob(blob) == saved
    for damaged in (b"", blob[: len(blob) // 2], blob[:-20], blob[:100] + blob[-500:]):
        with pytest.raises(UserError, match="the delegate's blob: damaged"):
            mil.unpack_blob(damaged)


# ---- ops -------------------------------------------------------------------------------------------------------------


class Op(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: Tensor) -> Tensor:
        return self.function(image).float().flatten(1)


INDEX = torch.tensor([2, 0, 1])
KERNEL = torch.randn(6, 1, 3, 2, generator=torch.Generator().manual_seed(1))
PROGRAMS: dict[str, Callable[[Tensor], Tensor]] = {
    "conv": lambda x: F.conv2d(x, KERNEL, torch.arange(6.0), (2, 1), (1, 2), (1, 2), 3),
    "max_pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=True),
    "avg_pool without padding": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "batch_norm": lambda x: F.batch_norm(x, torch.arange(3.0), torch.arange(1.0, 4.0), eps=0.1),
    "activations": lambda x: torch.cat([F.silu(x), x.sigmoid(), x.relu(), x.tanh(), F.gelu(x), F.elu(x), x.erf()], 1),
    "roots": lambda x: (x.abs() + 1).sqrt() + (x.abs() + 1).rsqrt() + x.exp() + (x.abs() + 1).log() + x.clamp(-1, 0.5),
    "arithmetic": lambda x: (x - 2 * x.flip(3)) / (x.square() + 1) + torch.maximum(x, -x) ** 2,
    "comparisons": lambda x: torch.where(torch.logical_and(x > 0, x <= 1), x, -x) + (x >= 0.5).float(),
    "reductions": lambda x: x.mean((2, 3)) + x.sum((2, 3)) + x.amax((2, 3)) - x.amin((2, 3)) + x.logsumexp((2, 3)),
    "topk": lambda x: torch.cat([x.topk(3, 3)[0], x.topk(2, 2, largest=False)[0].transpose(2, 3)], 3),
    "argmax": lambda x: x.argmax(2),
    "gather": lambda x: x.gather(3, x.topk(4, 3)[1]),
    "index_select": lambda x: x.index_select(1, INDEX) + x[:, INDEX],
    "places": lambda x: torch.stack([x[:, :, 1::2, -3:], x[:, :, :4, :3]], 1).squeeze(0).repeat(1, 1, 2, 1),
    "split": lambda x: x.split([1, 2], 1)[1] * x.chunk(2, 2)[0].repeat(1, 1, 2, 1)[:, :1],
    "pad": lambda x: F.pad(x, (1, 2, 0, 3), value=0.5).sum(1) + F.pad(x, (1, 2, 2, 1), mode="reflect").sum(1),
    "cumsum": lambda x: x.cumsum(2),
    "einsum": lambda x: torch.einsum("bchw,bcxw->bchx", x, x),
    "attention": lambda x: F.scaled_dot_product_attention(x, x + 1, x),
    "softmax": lambda x: x.softmax(2).unsqueeze(1).transpose(2, 4),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_ops_equal_pytorch(name: str, image: Tensor, tmp_path: Path) -> None:
    module = Op(PROGRAMS[name])
    for target in ("iOS17", "iOS18") if name == "attention" else ("iOS17",):
        got = evaluate(save(module, image, tmp_path, target=target), image)
        assert torch.allclose(got, module(image), rtol=1e-5, atol=1e-5)


def test_packed_palettes_of_both_generations() -> None:
    places, palette = torch.tensor([[1, 15, 3], [0, 7, 2]]), torch.arange(16.0) ** 2
    packed = torch.tensor([1 | 15 << 4, 3, 7 | 2 << 4], dtype=torch.int32)  # four bits each, the lowest first
    dense = OPS["constexpr_lut_to_dense"](indices=packed, lut=palette, shape=torch.tensor([2, 3]))
    assert torch.equal(dense, palette[torch.tensor([[1, 15, 3], [0, 7, 2]])])
    two = torch.stack([palette, -palette]).reshape(2, 1, 16, 1)  # one for each row
    dense = OPS["constexpr_lut_to_dense"](indices=places, lut=two)
    assert torch.equal(dense, torch.stack([palette[places[0]], -palette[places[1]]]))


def test_blocks_of_scales() -> None:
    data, scale = torch.tensor([[1, -2, 3, 4]]), torch.tensor([[0.5, 2.0]])
    shifted = OPS["constexpr_blockwise_shift_scale"](data=data, scale=scale, offset=torch.tensor([[1, 0]]))
    assert torch.equal(shifted, torch.tensor([[0.0, -1.5, 6.0, 8.0]]))
