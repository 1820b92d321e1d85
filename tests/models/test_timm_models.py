"""Models of timm's registry."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bigvit_edge.errors import UserError
from bigvit_edge.models import timm_models
from bigvit_edge.models.load import FILE, RANDOM, load
from bigvit_edge.models.weights import hash_state

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra [timm]")
TIMM_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, which timm's fastvit_t8 is trained with


@needs_timm
def test_timm_models_bring_their_own_preprocessing(tmp_path: Path) -> None:
    a, b = (load("timm:fastvit_t8", image_size=64, num_classes=3) for _ in range(2))
    assert (a.image_size, a.num_classes, a.weights, a.weights_sha256) == (64, 3, RANDOM, None)
    assert (a.preprocessing.mean, a.preprocessing.resize_to) == (TIMM_MEAN, 71)  # of 64 / 0.9
    assert hash_state(a.module) == hash_state(b.module)
    save_file(a.module.state_dict(), tmp_path / "w.safetensors")
    filled = load("timm:fastvit_t8", image_size=64, num_classes=3, weights=tmp_path / "w.safetensors")
    assert (filled.weights, hash_state(filled.module)) == (FILE, hash_state(a.module))
    with pytest.raises(UserError, match=r"misshaped \(head.fc.weight \[3, 768\] instead of \[1000, 768\]"):
        load("timm:fastvit_t8", image_size=64, weights=tmp_path / "w.safetensors")


@needs_timm
def test_timm_transformers_take_another_image_size() -> None:
    loaded = load("timm:vit_tiny_patch16_224.augreg_in21k", image_size=64, num_classes=5)
    assert loaded.module(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert loaded.preprocessing.mean == (0.5, 0.5, 0.5)
    assert timm_models.read_license(loaded.module) == {"license": "apache-2.0"}
    assert loaded.about == {}  # its weights are none of timm's


@needs_timm
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm:vit_tinny_patch16_224", "no model 'vit_tinny_patch16_224'.*did you mean vit_tiny_patch16_224"),
        ("timm:vit_tiny_patch16_224.xx", "has no weights 'xx'; expected augreg_in21k"),
        ("timm:hf-hub:somebody/something", "timm has no model 'hf-hub:somebody/something'"),
        ("timm:local-dir:somewhere", "timm has no model 'local-dir:somewhere'"),
    ],
)
def test_only_timms_own_names(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(source)


@needs_timm
def test_a_download_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(timm_models.import_timm().models._builder, "load_state_dict_from_hf", refuse)
    with pytest.raises(UserError, match=r"cannot make vit_tiny_patch16_224 \(OSError: no network\).*--weights FILE"):
        load("timm:vit_tiny_patch16_224", weights="pretrained")


@needs_timm
def test_labels_of_imagenet() -> None:
    model = load("timm:fastvit_t8", image_size=64).module
    labels = timm_models.list_labels(model, 1000)
    assert labels is not None
    assert len(labels) == 1000
    assert "goldfish" in labels[1]
    assert timm_models.list_labels(model, 5) is None


@pytest.mark.parametrize("missing", ["timm", "torchvision"])
def test_without_timm_one_line_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(timm_models, "import_module", refuse)
    with pytest.raises(UserError, match=rf"^{missing} is not installed; .*pip install 'bigvit-edge\[timm\]'$"):
        load("timm:fastvit_t8")
