import numpy as np
import pytest
import torch

from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture
from bigvit_edge.export.quantization import quantize_rows_weight
from bigvit_edge.export.rounding import BLOCK, measure_moments, round_weight


def make_inputs(count: int, inputs: int) -> torch.Tensor:
    """Rows whose inputs vary together, as those of a trained model do: [count, inputs]."""
    generator = torch.Generator().manual_seed(0)
    causes = torch.randn(count, inputs // 4, generator=generator)
    mixed = causes @ torch.randn(inputs // 4, inputs, generator=generator)
    return mixed + 0.3 * torch.randn(count, inputs, generator=generator)


def measure_error(inputs: torch.Tensor, weight: torch.Tensor, integers: torch.Tensor, scale: torch.Tensor) -> float:
    return float((inputs @ (integers * scale.unsqueeze(1) - weight).T).square().mean())


def test_rounding_by_moments_changes_outputs_less_than_the_nearest_integers() -> None:
    for inputs in (48, BLOCK + 20):  # one block, and more than one
        weight = torch.randn(24, inputs, generator=torch.Generator().manual_seed(1))
        seen, unseen = make_inputs(2000, inputs).split(1000)
        nearest, scale = quantize_rows_weight(weight)
        chosen, same = round_weight(weight, seen.T @ seen)
        assert torch.equal(scale, same)
        assert chosen.dtype == torch.int8
        assert int(chosen.abs().max()) <= 127
        limit = 0.5 * measure_error(unseen, weight, nearest, scale)
        assert measure_error(unseen, weight, chosen, scale) < limit


def test_nothing_to_make_up_for_means_the_nearest_integers() -> None:
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(2))
    nearest, _ = quantize_rows_weight(weight)
    for moment in (None, torch.zeros(32, 32), torch.eye(32)):
        assert torch.equal(round_weight(weight, moment)[0], nearest)


def test_weight_stays_as_it_was() -> None:
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(3))
    before, inputs = weight.clone(), make_inputs(100, 32)
    round_weight(weight, inputs.T @ inputs)
    assert torch.equal(weight, before)


def test_inputs_that_are_not_finite_are_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    graph = capture(model, 2)
    images = np.full((1, 3, 2, 2), np.inf, np.float32)
    with pytest.raises(UserError, match="1 meets NaN or infinity on calibration images; expected finite numbers"):
        measure_moments([graph], ["1"], images)
