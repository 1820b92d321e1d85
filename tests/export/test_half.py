"""The graph in half precision: what is float16, what is not, and how near it stays."""

import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.half import write_as_half
from bigvit_edge.models.load import load_model


def test_everything_between_image_and_logits_is_half() -> None:
    model = load_model("blvit_demo")
    program = write_as_half(rewrite(capture(model, 64, 0.5)).exported)
    types = {t.dtype for t in program.state_dict.values()}
    assert types == {torch.float16}
    values = [n.meta["val"] for n in program.graph.nodes if n.op == "call_function"]
    floats = [v.dtype for v in values if isinstance(v, Tensor) and v.is_floating_point()]
    assert floats.count(torch.float32) == 1  # the logits, cast back
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = program.module()(image), model(image)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=0.05)
    assert not torch.equal(found, expected)


def test_the_original_stays_as_it_was() -> None:
    graph = capture(load_model("vit_demo"), 64)
    write_as_half(graph.exported)
    assert {t.dtype for t in graph.exported.state_dict.values()} == {torch.float32}
    types = {n.meta["val"].dtype for n in graph.exported.graph.find_nodes(op="placeholder")}
    assert types == {torch.float32}


def test_ops_that_ask_for_float32_get_half() -> None:
    class Casting(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return (image > 0).to(torch.float32).mean((2, 3)) + torch.zeros(3, dtype=torch.float32)

    program = write_as_half(capture(Casting(), 4).exported)
    image = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(program.module()(image), (image > 0).float().mean((2, 3)), atol=1e-3)


def test_a_weight_beyond_half_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        model[1].weight[0, 0] = 70_000
    with pytest.raises(ValueError, match=r"1.weight holds 70000; expected at most 65504"):
        write_as_half(capture(model, 4).exported)
