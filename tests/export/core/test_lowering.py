"""Models that others write, and ours changed, as programs against PyTorch; and what is left over, named."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture
from bigvit_edge.export.core.lowering import list_leftovers, lower_graphs
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.program import Attention, Linear, Mlp, Program
from bigvit_edge.export.rewrite import rewrite_plainly
from bigvit_edge.models.blvit import BLViT, set_dispatch
from bigvit_edge.models.timm_models import import_timm
from bigvit_edge.models.torchvision_ops import define_torchvision_ops
from bigvit_edge.models.vit import ViT
from tests.export.program_interpreter import interpret

SIZE = 32
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra [timm]")
needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra [hf]")


def make_weights(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    return model.eval()


def make_vit(**shape: Any) -> ViT:
    sizes = {"image_size": SIZE, "patch": 8, "dim": 32, "depth": 2, "head_dim": 16, "num_classes": 5, **shape}
    model = make_weights(ViT(**sizes))
    assert isinstance(model, ViT)
    return model


def make_blvit() -> BLViT:
    little = {"little_dim": 16, "little_head_dim": 8}
    model = BLViT(image_size=SIZE, patch=8, dim=32, depth=2, head_dim=16, num_classes=5, keep=0.5, **little)
    return make_weights(model)  # type: ignore[return-value]


def read(model: nn.Module) -> Graph:
    set_dispatch(model, "kernel")
    graph = capture(model, SIZE, getattr(model, "keep", None))
    set_dispatch(model, "permute")
    return replace(graph, core=rewrite_plainly(graph.exported))


def lower(model: nn.Module) -> Program:
    return lower_graphs([read(model)], 4, {})


def check(model: nn.Module) -> Program:
    program = lower(model)
    for image in np.random.default_rng(0).standard_normal((2, 1, 3, SIZE, SIZE), dtype=np.float32):
        with torch.no_grad():
            expected = model(torch.from_numpy(image)).numpy()
        found = interpret(program, program.entries[0], image)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    return program


def list_kinds(program: Program) -> list[str]:
    return [type(op.call).__name__ for op in program.entries[0].ops]


BLOCK = ["Linear", "Attention", "Linear", "Mlp"]


# ---- models of others ------------------------------------------------------------------------------------------------


@needs_timm
@pytest.mark.parametrize(
    ("name", "options", "head"),
    [
        ("vit_tiny_patch16_224", {}, ["Linear"]),
        ("deit3_small_patch16_224", {}, ["Linear"]),  # LayerScale, positions of patches alone
        ("deit_tiny_distilled_patch16_224", {}, ["Linear", "List", "Linear"]),
    ],
)
def test_timm_models_are_as_good_as_ours(name: str, options: dict[str, Any], head: list[str]) -> None:
    sizes = {"img_size": SIZE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    kinds = list_kinds(check(make_weights(import_timm().create_model(name, **sizes, **options))))
    last = ["Linear", "Linear", *BLOCK[1:]]  # the last layer's queries are projected of fewer rows
    assert kinds[-len(head) - 9 :] == [*BLOCK, *last, *head]


@needs_transformers
def test_models_of_transformers_are_as_good_as_ours() -> None:
    define_torchvision_ops()
    from transformers import ViTConfig, ViTForImageClassification

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
            config = ViTConfig(image_size=SIZE, patch_size=8, num_labels=5, layer_norm_eps=1e-6, **sizes)
            self.net = ViTForImageClassification(config)

        def forward(self, images: Tensor) -> Tensor:
            return self.net(images).logits  # type: ignore[no-any-return]

    program = check(make_weights(Logits()))
    assert list_kinds(program)[3:7] == BLOCK
    assert "net.vit.layers.0.attention.qkv_proj" in {weight.name for weight in program.weights}


# ---- ours, changed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [make_vit, make_blvit])
def test_another_epsilon_is_followed(make: Callable[[], nn.Module]) -> None:
    model = make()
    for i, norm in enumerate(module for module in model.modules() if isinstance(module, nn.LayerNorm)):
        norm.eps = 0.1 * (i + 1)
    check(model)


class Doubled(nn.Module):
    """A block of others around one of ours."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * 2  # type: ignore[no-any-return]


def change_block(model: ViT) -> None:
    model.layers[0].norm1 = nn.Identity()  # type: ignore[union-attr, assignment]


def hook(model: ViT) -> None:
    model.layers[0].attn.proj.register_forward_hook(lambda module, args, out: out * 3)  # type: ignore[union-attr]


def scale_branches(model: ViT) -> None:
    gamma = torch.linspace(0.5, 2, 32)
    model.layers[1].mlp.register_forward_hook(lambda module, args, out: out * gamma)  # type: ignore[union-attr]


def merge_adapter(model: ViT) -> None:
    q = model.layers[0].attn.q  # type: ignore[union-attr]
    q.weight = nn.Parameter(q.weight + 0.1 * torch.randn(32, 4) @ torch.randn(4, 32))  # type: ignore[union-attr, operator]


def adapt(model: ViT) -> None:
    proj = model.layers[0].attn.proj  # type: ignore[union-attr]
    down, up = (make_weights(nn.Linear(*sizes, bias=False)) for sizes in ((32, 4), (4, 32)))
    proj.register_forward_hook(lambda module, args, out: out + 0.5 * up(down(args[0])))  # type: ignore[union-attr]


def drop_bias(model: ViT) -> None:
    model.layers[0].attn.v.bias = None  # type: ignore[union-attr]


def share(model: ViT) -> None:
    model.layers[1] = model.layers[0]


class FusedKv(nn.Module):
    """Attention with keys and values of one Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.proj = nn.Linear(32, 32), nn.Linear(32, 64), nn.Linear(32, 32)
        self.mask: Tensor
        self.register_buffer("mask", torch.zeros(17, 17))  # open to all
        make_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (2, 16)).transpose(1, 2) for part in (self.q(x), *self.kv(x).chunk(2, -1)))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def fuse_kv(model: ViT) -> None:
    model.layers[0].attn = FusedKv()  # type: ignore[union-attr]


def take_head_off(model: ViT) -> None:
    model.head = nn.Identity()  # type: ignore[assignment]


@pytest.mark.parametrize(
    "change",
    [change_block, hook, scale_branches, merge_adapter, adapt, drop_bias, share, fuse_kv, take_head_off],
)
def test_a_changed_model_is_right(change: Callable[[ViT], None]) -> None:
    model = make_vit()
    with torch.no_grad():
        before = model(torch.ones(1, 3, SIZE, SIZE))
        change(model)
        assert model(torch.ones(1, 3, SIZE, SIZE)).shape != before.shape or not torch.allclose(
            model(torch.ones(1, 3, SIZE, SIZE)), before
        )
    check(model)


def test_tied_layers_share_their_weights() -> None:
    model = make_vit()
    share(model)
    names = [weight.name for weight in lower(model).weights if weight.name.startswith("layers.")]
    assert len(names) == len({name.partition(".")[2].partition(".")[2] for name in names}) == 8


def test_a_router_beside_other_blocks_is_right() -> None:
    model = make_blvit()
    model.layers[0].p.mlp.register_forward_hook(lambda module, args, out: out * 2)  # type: ignore[union-attr]
    model.head = nn.Sequential(nn.Linear(32, 8), nn.GELU(), nn.Linear(8, 3))  # type: ignore[assignment]
    program = check(make_weights(model))
    assert list_kinds(program).count("Route") == 2


def test_dead_rows_are_dropped_of_any_model() -> None:
    program = check(make_vit(depth=1))
    calls = [op.call for op in program.entries[0].ops]
    assert [call.queries for call in calls if isinstance(call, Attention)] == [1]
    assert [call.rows for call in calls if isinstance(call, Mlp)] == [1]
    assert [call.rows for call in calls if isinstance(call, Linear)] == [16, 1, 17, 1, 1]


# ---- what is left over -----------------------------------------------------------------------------------------------


def leave(change: Callable[[ViT], None]) -> str:
    model = make_vit()
    change(model)
    core = read(model).core
    assert core is not None
    return "\n".join(str(leftover) for leftover in list_leftovers(core))


def test_a_leftover_is_named_with_layer_and_reason() -> None:
    def use_relu(model: ViT) -> None:
        model.layers[1].mlp.register_forward_hook(lambda module, args, out: out.relu())  # type: ignore[union-attr]

    assert leave(use_relu) == "aten.relu in layers.1.mlp: bve has no such op"
    assert leave(hook) == ""

    def approximate(model: ViT) -> None:
        mlp: Any = model.layers[0].mlp  # type: ignore[union-attr]
        mlp.forward = lambda x: mlp.fc2(nn.functional.gelu(mlp.fc1(x), approximate="tanh"))

    assert leave(approximate) == "aten.gelu in layers.0.mlp: gelu by tanh, where bve has the exact one"


def test_a_mask_that_hides_something_is_left_over() -> None:
    def hide(model: ViT) -> None:
        fused, hidden = FusedKv(), torch.ones(17, 17, dtype=torch.bool).tril()
        fused.mask.copy_(torch.zeros(17, 17).masked_fill(~hidden, -1e9))
        model.layers[0].attn = fused  # type: ignore[union-attr]

    reason = "bve attends to all rows alike, without mask, dropout or shared heads"
    assert f"aten.scaled_dot_product_attention in layers.0.attn: {reason}" in leave(hide).splitlines()


def test_rows_of_different_orders_are_not_mixed() -> None:
    model = make_blvit()
    shift = torch.arange(17.0)[None, :, None].expand(1, 17, 16).clone()
    model.layers[1].e.norm1.register_forward_hook(lambda module, args, out: out + shift)  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"in layers\.1\.e\.norm1: .* that a router reordered"):
        lower(model)


def test_an_image_that_is_no_whole_number_of_patches_is_named() -> None:
    model = make_vit()
    graph = capture(model, 36)
    leftover, *_ = list_leftovers(rewrite_plainly(graph.exported))
    assert str(leftover).startswith("aten.conv2d in embedding.patches: an image of 36 pixels; expected a multiple of")
