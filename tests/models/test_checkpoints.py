"""Other people's checkpoints against their own implementations and against hand-made inverse mappings."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bigvit_edge.errors import UserError
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.load import load
from bigvit_edge.models.timm_models import import_timm
from bigvit_edge.models.vit import ViT
from bigvit_edge.models.weights import read_weights

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra [timm]")
SHAPE = dict(image_size=32, patch=8, dim=32, depth=2, head_dim=16, num_classes=7)


def dense(seed: int = 0) -> ViT:
    """A small ViT in which every parameter counts."""
    torch.manual_seed(seed)
    model = ViT(**SHAPE)  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    return model.eval()


def timm_model(name: str = "vit_tiny_patch16_224", **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = import_timm().create_model(name, **options).eval()
    for parameter in model.parameters():  # biases, CLS and norms start at 0 or 1 and would hide a mix-up
        parameter.data += torch.randn_like(parameter) * 0.02
    return model


def compare(ours: nn.Module, theirs: nn.Module, size: int) -> None:
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-4, rtol=1e-4)


@needs_timm
def test_vit_small_from_timm_answers_as_timm_does(tmp_path: Path) -> None:
    theirs = timm_model("vit_small_patch16_224")
    save_file(theirs.state_dict(), tmp_path / "small.safetensors")
    loaded = load("vit_s", weights=tmp_path / "small.safetensors")
    compare(loaded.module, theirs, 224)
    assert "timm" in loaded.notes[0]
    assert "mean 0.5" in loaded.notes[0]


@needs_timm
def test_deit_under_model_as_a_path(tmp_path: Path) -> None:
    theirs = timm_model("deit_tiny_patch16_224", depth=3, img_size=64, num_classes=5)
    torch.save({"model": theirs.state_dict(), "epoch": 3}, tmp_path / "deit.pth")
    loaded = load(str(tmp_path / "deit.pth"))
    assert (loaded.image_size, loaded.num_classes, loaded.weights) == (64, 5, "file")
    assert "those under 'model'" in loaded.notes[0]
    assert "3 heads of 64 channels" in loaded.notes[1]  # of depth 3 there is no known model
    compare(loaded.module, theirs, 64)


@needs_timm
@pytest.mark.parametrize("size", [48, 96])
def test_positions_for_another_image_size_are_timms(size: int, tmp_path: Path) -> None:
    theirs = timm_model(depth=2, img_size=64, num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    theirs.set_input_size(img_size=(size, size))
    loaded = load(str(tmp_path / "w.pth"), image_size=size)
    compare(loaded.module, theirs, size)
    assert any(f"from 4 x 4 patches to {size // 16} x {size // 16}" in note for note in loaded.notes)


@needs_timm
def test_distilled_deit_loads_without_its_second_head_and_says_so(tmp_path: Path) -> None:
    theirs = timm_model("deit_tiny_distilled_patch16_224", depth=2, img_size=32, num_classes=5)
    torch.save({"model": theirs.state_dict()}, tmp_path / "d.pth")
    loaded = load(str(tmp_path / "d.pth"))
    note = next(note for note in loaded.notes if "distilled" in note)
    assert "dist_token, head_dist.weight, head_dist.bias" in note
    position = theirs.state_dict()["pos_embed"]
    assert torch.equal(loaded.module.embedding.position, torch.cat([position[:, :1], position[:, 2:]], dim=1))


@needs_timm
@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"init_values": 1e-5}, "unexpected .blocks.0.ls1.gamma"),
        ({"qk_norm": True}, "unexpected .blocks.0.attn.q_norm"),
        ({"reg_tokens": 3}, "reg_token|no square"),
        ({"global_pool": "avg"}, "unexpected .fc_norm.weight"),
    ],
)
def test_what_would_change_the_function_is_refused(options: dict[str, Any], key: str, tmp_path: Path) -> None:
    torch.save(timm_model(depth=1, img_size=32, **options).state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=key):
        load(str(tmp_path / "w.pth"))


def write_jax(model: ViT, path: Path, prefix: str = "") -> None:
    """A dense model as the original's .npz: kernels [in, out], attention by heads (google-research)."""
    state, heads = {key: t.numpy() for key, t in model.state_dict().items()}, model.layers[0].attn.heads
    dim = state["embedding.cls"].shape[-1]
    arrays = {
        "cls": state["embedding.cls"],
        "Transformer/posembed_input/pos_embedding": state["embedding.position"],
        "embedding/kernel": state["embedding.patches.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["embedding.patches.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for i in range(len(model.layers)):
        block, own = f"Transformer/encoderblock_{i}/", f"layers.{i}."
        for theirs, ours in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            arrays[f"{block}{theirs}/scale"] = state[f"{own}{ours}.weight"]
            arrays[f"{block}{theirs}/bias"] = state[f"{own}{ours}.bias"]
        for j in (0, 1):
            arrays[f"{block}MlpBlock_3/Dense_{j}/kernel"] = state[f"{own}mlp.fc{j + 1}.weight"].T
            arrays[f"{block}MlpBlock_3/Dense_{j}/bias"] = state[f"{own}mlp.fc{j + 1}.bias"]
        attention = f"{block}MultiHeadDotProductAttention_1/"
        for theirs in ("query", "key", "value"):
            weight = state[f"{own}attn.{theirs[0]}.weight"]  # [H * d, C]
            arrays[f"{attention}{theirs}/kernel"] = weight.T.reshape(dim, heads, -1)
            arrays[f"{attention}{theirs}/bias"] = state[f"{own}attn.{theirs[0]}.bias"].reshape(heads, -1)
        arrays[f"{attention}out/kernel"] = state[f"{own}attn.proj.weight"].T.reshape(heads, -1, dim)
        arrays[f"{attention}out/bias"] = state[f"{own}attn.proj.bias"]
    np.savez(path, **{prefix + key: array for key, array in arrays.items()})


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_the_original_npz(prefix: str, tmp_path: Path) -> None:
    theirs = dense()
    write_jax(theirs, tmp_path / "w.npz", prefix)
    loaded = load(str(tmp_path / "w.npz"))
    assert loaded.image_size == 32
    assert loaded.module.layers[0].attn.heads == 2  # written in the kernels' shapes, so nothing is assumed
    compare(loaded.module, theirs, 32)
    assert [note for note in loaded.notes if "heads" in note] == []
    with pytest.raises(UserError, match=r"--heads 4; expected 2, which the checkpoint's shapes show"):
        load(str(tmp_path / "w.npz"), heads=4)


def test_the_original_npz_has_its_own_heads_in_a_known_model_too(tmp_path: Path) -> None:
    theirs = ViT(image_size=64, patch=8, dim=96, depth=5, head_dim=16, num_classes=10).eval()  # vit_demo has 32
    write_jax(theirs, tmp_path / "w.npz")
    for loaded in (load(str(tmp_path / "w.npz")), load("vit_demo", weights=tmp_path / "w.npz")):
        assert loaded.module.layers[0].attn.heads == 6
        compare(loaded.module, theirs, 64)


def test_a_new_head_replaces_the_old_one_and_what_belongs_to_it(tmp_path: Path) -> None:
    theirs = dense()
    write_jax(theirs, tmp_path / "w.npz")
    arrays = dict(np.load(tmp_path / "w.npz")) | {"pre_logits/kernel": np.eye(32, dtype=np.float32)}
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(UserError, match=r"1 unexpected \(pre_logits/kernel\)"):
        load(str(tmp_path / "w.npz"))
    loaded = load(str(tmp_path / "w.npz"), num_classes=3)
    assert torch.equal(loaded.module.norm.weight, theirs.norm.weight)
    assert (loaded.module.head.bias == 0).all()
    assert "the head for 3 classes keeps its random start (the checkpoint has one for 7)" in loaded.notes[-1]


def test_a_checkpoint_without_a_head_asks_for_the_number_of_classes(tmp_path: Path) -> None:
    state = {key: tensor for key, tensor in dense().state_dict().items() if not key.startswith("head.")}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"2 missing \(head.weight, head.bias\).*--num-classes N starts one"):
        load(str(tmp_path / "w.safetensors"))
    assert load(str(tmp_path / "w.safetensors"), num_classes=3).num_classes == 3


def name_as_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for key, tensor in state.items():
        for ours, theirs in (
            ("embedding.cls", "vit.embeddings.cls_token"),
            ("embedding.position", "vit.embeddings.position_embeddings"),
            ("embedding.patches", "vit.embeddings.patch_embeddings.projection"),
            ("layers.", "vit.encoder.layer."),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("attn.q.", "attention.attention.query."),
            ("attn.k.", "attention.attention.key."),
            ("attn.v.", "attention.attention.value."),
            ("attn.proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
            ("head.", "classifier."),
        ):
            key = key.replace(ours, theirs)
        named["vit.layernorm." + key[5:] if key.startswith("norm.") else key] = tensor
    return named


def test_transformers_keys(tmp_path: Path) -> None:
    theirs = dense()
    named = name_as_transformers(theirs.state_dict())
    assert "vit.encoder.layer.1.attention.attention.query.weight" in named
    save_file(named | {"vit.pooler.dense.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    loaded = load(str(tmp_path / "w.safetensors"))
    ours = loaded.module.state_dict()
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.state_dict().items())
    assert any("not used: pooler.dense.weight" in note for note in loaded.notes)


def test_a_dense_checkpoint_fills_the_p_stream(tmp_path: Path) -> None:
    dense_model = load("vit_demo").module
    save_file(dense_model.state_dict(), tmp_path / "w.safetensors")
    start, loaded = load("blvit_demo"), load("blvit_demo", weights=tmp_path / "w.safetensors")
    model = loaded.module
    assert isinstance(model, BLViT)
    for i, block in enumerate(dense_model.layers):
        for key, tensor in block.state_dict().items():
            assert torch.equal(model.state_dict()[f"layers.{i}.p.{key}"], tensor)
    heads, note = loaded.notes
    assert "3 heads of 32 channels" in heads
    assert "E-blocks, routers, exchange between the streams, the LITTLE stream's way in and out" in note
    assert "train the model" in note
    assert (model.layers[0].gamma_up == 1e-4).all()  # its start, not the shipped weights'
    assert not torch.equal(model.little.weight, start.module.little.weight)
    with torch.no_grad():  # with a uniform router and nothing from the LITTLE stream it is the dense model
        for layer in model.layers:
            layer.router.score.weight.zero_()
            layer.gamma_up.zero_()
        model.up.weight.zero_()
    model.keep = 1.0
    compare(model, dense_model, 64)


def test_a_small_blvit_of_unknown_shapes_comes_back_from_its_path(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BLViT(**SHAPE, little_dim=16, little_head_dim=16).eval()  # type: ignore[arg-type]
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    broken = model.state_dict() | {"embedding.position": torch.zeros(1, 12, 32)}
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(UserError, match=r"positions are no square"):
        load(str(tmp_path / "broken.safetensors"))
    loaded = load(str(tmp_path / "w.safetensors"))
    assert "1 head of 32 (P) and 1 head of 16 (E) channels (--heads N" in loaded.notes[0]
    assert load(str(tmp_path / "w.safetensors"), heads=4).module.layers[0].p.attn.heads == 4
    assert torch.equal(loaded.module.little.weight, model.little.weight)


def test_an_unknown_checkpoint_names_its_keys(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}, tmp_path / "resnet.safetensors")
    with pytest.raises(
        UserError, match=r"it has conv1 \(1 tensors: weight\), fc \(1 tensors: bias\).*timm or DeiT.*timm:NAME"
    ):
        load(str(tmp_path / "resnet.safetensors"))


def test_a_half_fitting_checkpoint_names_keys_and_the_nearest_model(tmp_path: Path) -> None:
    state = load("vit_demo").module.state_dict()
    del state["layers.3.mlp.fc1.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"1 missing \(layers.3.mlp.fc1.weight\).*nearest known one is vit_demo"):
        load(str(tmp_path / "w.safetensors"))
    with pytest.raises(UserError, match=r"missing.*misshaped.*nearest known one is vit_demo"):
        load("vit_ti", weights=tmp_path / "w.safetensors")


def test_an_npz_with_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", cls=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"allow_pickle=False.*nothing in it was executed"):
        read_weights(tmp_path / "w.npz")


def test_a_cut_npz_is_unreadable(tmp_path: Path) -> None:
    write_jax(dense(), tmp_path / "w.npz")
    whole = (tmp_path / "w.npz").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "w.npz").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cannot be read as tensors|is empty|is cut short"):
            read_weights(tmp_path / "w.npz")


# ---- heads, wrappers and prefixes, against timm ---------------------------------------------------------------------


@needs_timm
@pytest.mark.parametrize(
    ("source", "own"), [("{file}", 3), ("vit_ti", 3), ("timm:vit_tiny_patch16_224", 3)], ids=["path", "name", "timm"]
)
def test_heads_are_assumed_aloud_and_taken_from_the_option(source: str, own: int, tmp_path: Path) -> None:
    theirs = timm_model(num_heads=12, img_size=32, num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    weights = None if source == "{file}" else tmp_path / "w.pth"
    words: dict[str, Any] = dict(source=source.format(file=tmp_path / "w.pth"), weights=weights)
    words |= dict(image_size=32, num_classes=5)
    right, assumed = load(**words, heads=12), load(**words)
    compare(right.module, theirs, 32)
    assert not any("heads" in note for note in right.notes)
    (note,) = [note for note in assumed.notes if "heads" in note]
    assert f"{own} heads" in note
    assert "--heads N" in note
    with pytest.raises(AssertionError):
        compare(assumed.module, theirs, 32)
    with pytest.raises(UserError, match=r"heads.*(5|: 5)"):
        load(**words, heads=5)


@needs_timm
@pytest.mark.parametrize("source", ["timm:fastvit_t8", "timm:resnet18"])
def test_timm_models_without_one_number_of_heads_refuse_another(source: str) -> None:
    with pytest.raises(UserError, match=r"heads"):
        load(source, image_size=64, heads=4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"source": "vit_demo", "heads": 6}, "--heads 6 for vit_demo; expected 3, as it was trained"),
        (
            {"source": "vit_ti", "heads": 7},
            "--heads 7 for a width of 192; expected a divisor.*for example 3, 6, 12, 24",
        ),
        ({"source": "vit_ti", "heads": 0}, "--heads 0"),
        ({"source": "vit_ti", "heads": 384}, "--heads 384 for a width of 192"),
        ({"source": "vit_ti", "weights_key": "ema"}, "--weights-key ema; expected a checkpoint to look in"),
    ],
)
def test_heads_and_keys_that_cannot_be(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(**words)


def test_heads_of_a_random_start() -> None:
    assert load("vit_ti", heads=12).module.layers[0].attn.heads == 12
    assert load("vit_demo", heads=3).weights == "shipped"


@needs_timm
@pytest.mark.parametrize("source", ["{file}", "timm:vit_tiny_patch16_224"], ids=["path", "timm"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "model.backbone."])
def test_wrapped_weights_answer_as_timm_does(source: str, prefix: str, tmp_path: Path) -> None:
    raw, averaged = (timm_model(img_size=32, num_classes=5) for _ in range(2))
    for parameter in averaged.parameters():
        parameter.data *= 0.9
    wrap = {
        name: {prefix + key: tensor for key, tensor in model.state_dict().items()}
        for name, model in (("state_dict", raw), ("state_dict_ema", averaged))
    }
    beside = {"args": argparse.Namespace(lr=0.1), "epoch": 3, "projector.weight": torch.ones(2)}
    torch.save(wrap | beside, tmp_path / "w.pth")
    weights = None if source == "{file}" else tmp_path / "w.pth"
    words: dict[str, Any] = dict(source=source.format(file=tmp_path / "w.pth"), weights=weights, num_classes=5)
    words["image_size"] = 32
    loaded = load(**words)
    compare(loaded.module, averaged, 32)
    assert f"those under 'state_dict_ema.{prefix[:-1]}', the averaged ones" in loaded.notes[0]
    compare(load(**words, weights_key="state_dict").module, raw, 32)


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
@pytest.mark.parametrize("dialect", ["ours", "transformers"])
def test_prefixes_of_other_dialects(dialect: str, prefix: str, tmp_path: Path) -> None:
    theirs = dense()
    state = theirs.state_dict()
    named = name_as_transformers(state) if dialect == "transformers" else state
    save_file({prefix + key: tensor for key, tensor in named.items()}, tmp_path / "w.safetensors")
    compare(load(str(tmp_path / "w.safetensors"), heads=2).module, theirs, 32)


def test_a_blvits_own_checkpoint_under_a_prefix(tmp_path: Path) -> None:
    state = load("blvit_demo").module.state_dict()
    torch.save({"state_dict": {f"model.{key}": tensor for key, tensor in state.items()}}, tmp_path / "w.ckpt")
    loaded = load(str(tmp_path / "w.ckpt"))
    assert isinstance(loaded.module, BLViT)
    assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.module.state_dict().items())


def test_what_shapes_do_not_show_is_said(tmp_path: Path) -> None:
    save_file(name_as_transformers(dense().state_dict()), tmp_path / "w.safetensors")
    (note,) = load(str(tmp_path / "w.safetensors")).notes
    for word in ("1 head of 32", "exact GELU", "epsilon 1e-06", "pre-norm", "class token", "mean 0.5", "hf:FOLDER"):
        assert word in note


def test_layers_without_a_number_are_refused(tmp_path: Path) -> None:
    state = dense().state_dict() | {"layers.1000000000.norm1.weight": torch.ones(32)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"layers are numbered up to 1000000000, with gaps"):
        load(str(tmp_path / "w.safetensors"))
