"""Models that cannot be captured: the line in the user's own source is named."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.console import silenced
from bigvit_edge.export.capture_errors import explain_capture_failure, find_dynamic_shape, find_random, noting_lines


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))  # branch


class Loop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(x.sum().item())):  # loop
            x = x * 2
        return x.mean((2, 3))


class Helper(nn.Module):
    def is_bright(self, x: Tensor) -> bool:
        return bool((x > 1).any())  # helper

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if self.is_bright(x) else -x.mean((2, 3))


class Mask(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0.5].mean().expand(1, 3)  # mask


class Number(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * x.amax().item()  # number


class Numpy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy()).mean((2, 3))  # numpy


class Shapes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ torch.zeros(4, 5)  # shapes


class Noise(nn.Module):
    def add(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)  # noise

    def forward(self, x: Tensor) -> Tensor:
        return self.add(x).mean((2, 3))


class Dropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5).mean((2, 3))  # dropout


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.sum() > 0, x.mean((2, 3)), x.amax((2, 3)))


def place(word: str) -> str:
    """file:number of the line of this file that is marked with the word."""
    lines = Path(__file__).read_text().splitlines()
    return f"{__file__}:{next(i for i, line in enumerate(lines, 1) if line.endswith(f'# {word}'))}: "


def export(model: nn.Module) -> torch.export.ExportedProgram:
    with torch.no_grad(), silenced():
        return torch.export.export(model.eval(), (torch.zeros(1, 3, 8, 8),), strict=False)


@pytest.mark.parametrize(("model", "word"), [(Branch(), "branch"), (Loop(), "loop"), (Helper(), "helper")])
def test_control_flow_that_depends_on_the_image(model: nn.Module, word: str) -> None:
    with pytest.raises(Exception) as failure:  # noqa: PT011  torch.export's own, of no documented kind
        export(model)
    told = explain_capture_failure(failure.value)
    assert told.startswith(f"what the model does depends on the values in a tensor at {place(word)}")
    assert "torch.where" in told


@pytest.mark.parametrize(("model", "word", "kind"), [(Numpy(), "numpy", "numpy()"), (Shapes(), "shapes", "reduction")])
def test_other_failures_keep_their_own_words(model: nn.Module, word: str, kind: str) -> None:
    with pytest.raises(Exception) as failure:  # noqa: PT011  torch.export's own, of no documented kind
        export(model)
    told = explain_capture_failure(failure.value)
    assert told.startswith("RuntimeError: ")
    assert kind in told
    assert f" at {place(word)}" in told
    assert "\n" not in told


@pytest.mark.parametrize(("model", "op", "word"), [(Mask(), "aten.index", "mask"), (Number(), "aten.item", "number")])
def test_what_torch_takes_and_no_backend_does(model: nn.Module, op: str, word: str) -> None:
    with noting_lines():
        exported = export(nn.Sequential(model))
    told = find_dynamic_shape(exported)
    assert told is not None
    assert f" depends on the values in a tensor: {op} in layer 0 at {place(word)}" in told


@pytest.mark.parametrize(
    ("model", "op", "word"), [(Noise(), "aten.randn_like", "noise"), (Dropout(), "aten.dropout", "dropout")]
)
def test_random_numbers(model: nn.Module, op: str, word: str) -> None:
    with noting_lines():
        exported = export(nn.Sequential(nn.Identity(), model))
    told = find_random(exported)
    assert told is not None
    assert f"random numbers are drawn, so that each run gives another answer: {op} in layer 1 at {place(word)}" in told


def test_dropout_that_rests_draws_nothing() -> None:
    resting = nn.Sequential(
        nn.Dropout(0.5), nn.RReLU(), nn.AlphaDropout(), nn.Flatten(2), nn.TransformerEncoderLayer(64, 4, 8)
    )
    assert find_random(export(resting)) is None


def test_a_fixed_graph_is_found_so() -> None:
    assert find_dynamic_shape(export(Fixed())) is None


def test_an_error_without_a_trace_has_no_line() -> None:
    assert explain_capture_failure(ValueError("so")) == "ValueError: so"
