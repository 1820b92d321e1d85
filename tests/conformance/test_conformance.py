"""The part of conformance that CI runs, and that its weights let no layer idle."""

import pytest
import torch
from torch import nn

from bigvit_edge.measures import Parity
from tests.conformance.cells import CELLS, Result, is_near, try_model
from tests.conformance.models import MODELS, build, cut_short
from tests.conformance.page import write_cell, write_misses, write_table
from tests.conformance.weights import pretend_training

SMALL = ("mobilevit_xxs",)


def test_there_are_sixty_models_of_three_libraries() -> None:
    assert len(MODELS) >= 60
    assert {name.partition("_")[0] for name in MODELS} >= {"hf", "tv", "vit", "swin", "mobilevit", "efficientvit"}


@pytest.mark.parametrize("name", SMALL)
def test_every_cell_of_a_model_is_right(name: str) -> None:
    results = list(try_model(f"tests.conformance.models:{name}", CELLS))
    assert {result.cell for result in results} == set(CELLS)
    assert {result.cell: result.reason for result in results if not result.right} == {}


def test_every_parameter_matters() -> None:
    model = build("fastvit_t8")  # LayerScale and BatchNorm in many places
    image = torch.randn(1, 3, model.image_size, model.image_size)
    loss = model.eval()(image).square().sum()
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    idle = [
        name for (name, _), grad in zip(model.named_parameters(), grads, strict=True) if grad is None or not grad.any()
    ]
    assert idle == []
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(norm.running_mean.abs().max() > 1e-3 and (norm.running_var - 1).abs().max() > 1e-3 for norm in norms)


def test_equal_blocks_are_dropped_and_others_stay() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)), nn.ReLU(), nn.Linear(4, 2))
    assert cut_short(model) == 3
    assert [type(layer) for layer in model] == [nn.Linear, nn.Linear, nn.ReLU, nn.Linear]
    pretend_training(model, 4)
    assert model(torch.zeros(1, 4)).shape == (1, 2)


def test_the_page_names_what_is_not_right_and_why() -> None:
    good, bad = Result("litert/fp32", True, delegates=3, outside=0.02), Result("onnx/int8", False, "it fell over")
    assert write_cell(good) == "3; 2.0%"
    results = {"some": {good.cell: good, bad.cell: bad}}
    assert "| some |  | 3; 2.0% |  |  |  |  |  | **–** |" in write_table(results)
    assert "- some, onnx/int8: it fell over" in write_misses(results)


def test_int8_may_be_as_far_off_as_its_emulation() -> None:
    def parity(smallest: float, centred: float) -> Parity:
        return Parity(1.0, smallest, 1.0, 1.0, 16, centred_cosine=centred)

    assert is_near(parity(0.96, 0.97), parity(0.98, 0.985))
    assert not is_near(parity(0.95, 0.97), parity(0.98, 0.985))
    assert not is_near(parity(0.96, 0.96), parity(0.98, 0.985))
    cell = Result("onnx/int8", True, "smallest cosine 0.96", emulated=0.985)
    assert write_cell(cell) == "≈ right"
    assert "- some, onnx/int8: smallest cosine 0.96; centred cosine of the emulation 0.98500" in write_misses(
        {"some": {cell.cell: cell}}
    )
