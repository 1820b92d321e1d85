"""Reference answers: on which images, and what PyTorch says of them."""

import pytest
import torch

from bigvit_edge.errors import UserError
from bigvit_edge.export.parity import compare
from bigvit_edge.export.references import make_references
from bigvit_edge.models.load import load


def test_a_model_without_images_of_its_own_gets_photographs() -> None:
    reference = make_references(load("vit_ti"), (None,), 2)[None]
    assert reference.images.shape == (2, 3, 224, 224)
    assert reference.labels is None
    own = make_references(load("vit_demo"), (None,), 2)[None]
    assert own.images.shape == (2, 3, 64, 64)
    assert own.labels is not None


def test_each_keep_ratio_has_answers_of_its_own() -> None:
    references = make_references(load("blvit_demo"), (0.25, 1.0), 3)
    assert set(references) == {0.25, 1.0}
    assert compare(references[0.25].logits, references[1.0].logits).max_abs > 0.1


def test_a_reference_that_is_not_finite_is_the_models_fault() -> None:
    model = load("vit_demo")
    model.module.layers[2].mlp.fc1.weight.data[3, 3] = torch.nan
    with pytest.raises(
        UserError, match=r"logits of vit_demo are NaN or infinite on 3 of 3 images, first in layers.2.mlp.fc1"
    ):
        make_references(model, (None,), 3)


def test_a_model_that_changes_its_input_changes_no_other_answer() -> None:
    model = load("vit_demo")
    expected = make_references(model, (None,), 2)[None]
    model.module.register_forward_pre_hook(lambda module, inputs: inputs[0].sub_(0.5).add_(0.5).clamp_(-0.2, 0.2))
    changing = make_references(model, (None,), 2)[None]
    assert (changing.images == expected.images).all()
    assert compare(changing.logits, expected.logits).max_abs > 0.01
