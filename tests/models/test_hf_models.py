"""Folders that transformers writes, read back without a network and without running code of theirs."""

import json
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bigvit_edge.errors import UserError
from bigvit_edge.models import hf_models
from bigvit_edge.models.hf_models import find_folder, import_transformers
from bigvit_edge.models.load import PRETRAINED, RANDOM, is_factory, load

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra [hf]")

NAMES = ("ant", "bee", "cat", "dog")
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
VIT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32,
       "patch_size": 8}  # fmt: skip
STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("ViT", VIT),
    ("DeiT", VIT),
    ("Beit", {**VIT, "use_relative_position_bias": True, "use_mean_pooling": True}),
    ("Swin", {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2],
              "window_size": 4}),
    ("ConvNext", {**STAGES, "image_size": 32}),
    ("MobileViT", {"image_size": 32, "hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 16, 16, 16],
                   "num_attention_heads": 2}),
    ("PoolFormer", STAGES),
]  # fmt: skip


def make(kind: str = "ViT", options: dict[str, Any] = VIT, part: str = "ForImageClassification", **more: Any) -> Any:
    transformers = import_transformers()
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}{part}")(getattr(transformers, f"{kind}Config")(**options, **more)).eval()


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """A folder with a ViT and its processor."""
    make(**LABELS).save_pretrained(tmp_path)
    import_transformers().ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("kind", "options"), MODELS)
def test_logits_are_the_models_own(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = make(kind, options, **LABELS)
    model.save_pretrained(tmp_path)
    loaded = load(f"hf:{tmp_path}", image_size=32)
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(loaded.module(image), model(image).logits, atol=1e-6)
    assert (loaded.labels, loaded.num_classes, loaded.weights) == (NAMES, 4, PRETRAINED)
    assert not loaded.module.training


def test_a_folder_says_labels_and_pictures(vit: Path) -> None:
    loaded = load(f"hf:{vit}")
    assert (loaded.labels, loaded.notes) == (NAMES, ())
    assert (loaded.preprocessing.size, loaded.preprocessing.crop) == (32, "squash")
    assert not is_factory(f"hf:{vit}")


def test_the_hash_is_of_what_says_which_model_it_is(vit: Path) -> None:
    before = load(f"hf:{vit}").weights_sha256
    (vit / "README.md").write_text("a note")
    assert load(f"hf:{vit}").weights_sha256 == before
    config = json.loads((vit / "config.json").read_text())
    (vit / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert load(f"hf:{vit}").weights_sha256 != before


@pytest.mark.parametrize("form", ["sharded", "bin", "half"])
def test_weights_in_every_form(form: str, vit: Path) -> None:
    expected = load(f"hf:{vit}").module
    model = make(**LABELS)
    (vit / "model.safetensors").unlink()
    if form == "sharded":
        model.save_pretrained(vit, max_shard_size="20KB")
        assert len(list(vit.glob("model-*.safetensors"))) > 1
    elif form == "bin":
        torch.save(model.state_dict(), vit / "pytorch_model.bin")
    else:
        model.half().save_pretrained(vit)
    loaded = load(f"hf:{vit}")
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(loaded.module(image), expected(image), atol=1e-3 if form == "half" else 1e-6)


def test_another_head_and_another_size(vit: Path) -> None:
    loaded = load(f"hf:{vit}", num_classes=7, image_size=64)
    assert loaded.module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert (loaded.labels, loaded.weights, loaded.weights_sha256) == (None, RANDOM, None)
    assert any("at a random start: classifier.bias" in note for note in loaded.notes)
    assert any("positions interpolated from 32 px to 64" in note for note in loaded.notes)


def test_a_backbone_without_a_head_is_no_classifier(tmp_path: Path) -> None:
    make(part="Model").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lacks weights of a ViTForImageClassification: classifier.bias, classifier.w"):
        load(f"hf:{tmp_path}")
    loaded = load(f"hf:{tmp_path}", num_classes=3)
    assert any("not used: pooler" in note for note in loaded.notes)


class Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


def test_no_code_of_the_folders_runs(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(vit)
    (vit / "model.safetensors").unlink()
    (vit / "pytorch_model.bin").write_bytes(pickle.dumps({"classifier.bias": Bomb()}))
    with pytest.raises(UserError, match="cannot be read"):
        load(f"hf:{vit}")
    (vit / "code.py").write_text("open('exploded', 'w')\nclass Config: pass\n")
    (vit / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}))
    with pytest.raises(UserError, match="wants code of its own, which was not run"):
        load(f"hf:{vit}")
    assert not (vit / "exploded").exists()


def change(folder: Path, **entries: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda vit: (vit / "config.json").unlink(), "no config.json in .*save_pretrained"),
        (lambda vit: (vit / "config.json").write_text("{"), "cannot be read"),
        (lambda vit: (vit / "model.safetensors").unlink(), "no weights in .*; expected model.safetensors"),
        (lambda vit: (vit / "model.safetensors").write_bytes(b"12345678" * 9), "cannot be read .*copy or download"),
        (lambda vit: change(vit, model_type="bert"), "is a bert, of which transformers has no image classifier"),
        (lambda vit: change(vit, model_type="nothing_known"), "of a kind that the installed transformers"),
        (lambda vit: change(vit, quantization_config={"quant_method": "gptq"}), "is quantised .*--set precisions=int8"),
        (
            lambda vit: change(vit, num_hidden_layers=2),
            "lacks weights of a ViTForImageClassification: vit.*and 11 more",
        ),
        (lambda vit: change(vit, image_size=64), r"lacks weights .*position_embeddings \[1, 17, 32\] instead of"),
    ],
)
def test_what_can_be_wrong_with_a_folder(spoil: Any, message: str, vit: Path) -> None:
    spoil(vit)
    with pytest.raises(UserError, match=message):
        load(f"hf:{vit}")


def test_labels_that_fit_nothing_are_left_out(tmp_path: Path) -> None:
    make("Pvt", {"hidden_sizes": [8] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4, "image_size": 32},
         **LABELS).save_pretrained(tmp_path)  # fmt: skip
    loaded = load(f"hf:{tmp_path}")
    assert (loaded.labels, loaded.num_classes) == (None, 1000)
    assert "labels left out: 4 for 1000 classes" in loaded.notes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"source": "hf:./nowhere"}, "no folder ./nowhere; expected a folder, or a name on the hub"),
        ({"source": "hf:x", "weights": "w.safetensors"}, "--weights w.safetensors for hf:x; expected none"),
        ({"source": "hf:x", "heads": 3}, "--heads 3 for hf:x; expected none"),
    ],
)
def test_what_cannot_be_asked_for(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(**words)


def test_a_name_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **options: object) -> None:
        assert options["local_files_only"] is False
        assert options["trust_remote_code"] is False
        raise OSError("no network")

    monkeypatch.setattr(import_transformers().AutoConfig, "from_pretrained", refuse)
    with pytest.raises(UserError, match=r"no folder here, and cannot be had from the hub \(OSError: no network\)"):
        find_folder("hf:somebody/something", None)


def test_without_transformers_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> nn.Module:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(hf_models, "import_module", refuse)
    with pytest.raises(UserError, match=r"^transformers is not installed; .*pip install 'bigvit-edge\[hf\]'$"):
        load("hf:somebody/something")
