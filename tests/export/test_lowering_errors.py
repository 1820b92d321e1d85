"""An op that a format cannot hold is named with its layer and its line in the model's own source."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture, lower, rewrite
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.lowering_errors import explain_lowering_failure
from bigvit_edge.export.quantization import quantize_groups_weight
from bigvit_edge.target import load_target


class Mixer(nn.Module):
    """Tokens through an op, which it calls by a helper and not in `forward`."""

    def mix(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, 1)  # mix

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x) * 2


class Frequencies(Mixer):
    def mix(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x, dim=1).real  # frequencies


class Values(Mixer):
    def mix(self, x: Tensor) -> Tensor:
        return torch.kthvalue(x, 3, 1, keepdim=True).values  # values


class Around(nn.Module):
    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.patches, self.blocks, self.head = nn.Conv2d(3, 8, 4, 4), nn.ModuleList([mixer]), nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))  # type: ignore[no-any-return]


def place(word: str) -> str:
    """file:number of the line of this file that is marked with the word."""
    lines = Path(__file__).read_text().splitlines()
    return f"{__file__}:{next(i for i, line in enumerate(lines, 1) if line.endswith(f'# {word}'))}: "


def make(mixer: nn.Module) -> Graph:
    torch.manual_seed(1)
    return rewrite(capture(Around(mixer), 16))


class ConverterError(Exception):
    """One that names no node, as an MLIR pass's."""


def refuse_cumsum(graph: Graph) -> None:
    """A converter that fails somewhere in the graph and does not say where."""
    if any(node.target is torch.ops.aten.cumsum.default for node in graph.exported.graph.nodes):
        raise ConverterError("\x1b[96mpass 3/7\x1b[0m failed: " + "words " * 100 + "\nsee the log")


def fail(graph: Graph) -> ConverterError:
    with pytest.raises(ConverterError) as failure:
        refuse_cumsum(graph)
    # as if a converter's own frames were the innermost
    return failure.value.with_traceback(None)


def test_an_op_that_no_error_names_is_found_by_itself() -> None:
    graph = make(Mixer())
    told = explain_lowering_failure(fail(graph), graph, "litert", refuse_cumsum)
    assert told is not None
    assert told.met.startswith(
        f"litert does not take aten.cumsum in layer blocks.0 at {place('mix')}return torch.cumsum"
    )
    assert "pass 3/7 failed: words" in told.met
    assert "\x1b" not in str(told)
    assert "see the log" not in str(told)
    assert told.met.endswith("words ...)")
    assert "the model itself is sound" in told.expected
    assert "onnx" in told.do


def test_of_a_graph_that_fails_as_a_whole_no_op_is_blamed() -> None:
    graph = make(Mixer())
    told = explain_lowering_failure(fail(graph), graph, "onnx", lambda _: None)
    assert told is not None
    assert "on no op of it alone" in told.met
    assert "cumsum" not in str(told)
    assert "litert" in told.do


def test_a_fault_of_our_own_stays_one() -> None:
    with pytest.raises(ValueError, match="multiple of the group") as failure:
        quantize_groups_weight(torch.zeros(2, 3), 2)
    assert explain_lowering_failure(failure.value, make(Mixer()), "litert", refuse_cumsum) is None


@pytest.mark.parametrize(
    "shortage",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), OSError(28, "full")],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_where_memory_or_disk_runs_out_no_op_is_blamed(
    shortage: Exception, wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def run_out(*_: object, **options: object) -> None:
        calls.append(1)
        if not wrapped:
            raise shortage
        try:
            raise shortage
        except Exception as e:
            raise ConverterError("pass 3/7 failed") from e

    monkeypatch.setattr("bigvit_edge.export.backends.onnx.lower", run_out)
    monkeypatch.setattr(torch.export, "export", run_out)
    graph = Graph(torch.export.ExportedProgram.__new__(torch.export.ExportedProgram))
    for step in (lambda: capture(Around(Mixer()), 16), lambda: lower([graph], "onnx", load_target("host"), {})):
        with pytest.raises(type(shortage)) as error:
            step()
        assert error.value is shortage
    assert len(calls) == 2  # nothing was tried again


class Branch(Mixer):
    def mix(self, x: Tensor) -> Tensor:
        taken: Tensor = torch.cond(x.sum() > 0, lambda y: y.relu() + 1, lambda y: y.sin(), (x,))  # branch
        return taken


@pytest.mark.parametrize(
    ("name", "mixer", "op", "word"),
    [
        ("onnx", Values(), "aten.kthvalue", "values"),
        ("litert", Values(), "aten.kthvalue", "values"),
        ("litert", Frequencies(), "aten.fft_rfft", "frequencies"),
        ("executorch", Values(), "aten.kthvalue", "values"),
        ("onnx", Branch(), "cond", "branch"),
        ("litert", Branch(), "cond", "branch"),
    ],
)
def test_what_converters_refuse(
    name: str, mixer: nn.Module, op: str, word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError) as failure:
        lower([make(mixer)], name, load_target("host"), {"precision": "fp32"})
    told = failure.value
    assert f"{name} does not take {op} in layer blocks.0 at {place(word)}" in told.met
    assert "site-packages" not in str(told)
    assert "\n" not in str(told)
    assert capfd.readouterr() == ("", "")
