"""The permute form against plain gather and scatter, written image by image in image order."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, scaled_dot_product_attention

from bigvit_edge.models.blvit import BLViT, Layer, order_tokens, permute, restore, selected_tokens
from bigvit_edge.models.vit import Attention
from bigvit_edge.models.zoo import count_selected


def tiny(keep: float = 0.5, seed: int = 0) -> BLViT:
    torch.manual_seed(seed)
    model = BLViT(
        image_size=24, patch=8, dim=32, little_dim=16, depth=3, head_dim=16, little_head_dim=8, num_classes=5, keep=keep
    )
    for parameter in model.parameters():  # the start has gammas of 1e-4: make every path count
        parameter.data.normal_(0, 0.3)
    return model.eval()


def heads(t: Tensor, attention: Attention) -> Tensor:
    return t.unflatten(-1, (attention.heads, -1)).transpose(0, 1)  # [H, n, d]


def attention(q: Tensor, k: Tensor, v: Tensor, module: Attention) -> Tensor:
    out = scaled_dot_product_attention(heads(q, module), heads(k, module), heads(v, module))
    return module.proj(out.transpose(0, 1).flatten(1))


def reference_layer(layer: Layer, x: Tensor, z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """One image, tokens never move: x [N, C], z [N, c]."""
    n = len(x)
    score = layer.router.score(layer.router.norm(z)).squeeze(-1).softmax(0)
    others = sorted(range(1, n), key=lambda i: -score[i].item())
    chosen = torch.tensor([0, *others[: k - 1]])
    left = torch.tensor(sorted(set(range(n)) - set(chosen.tolist())), dtype=torch.long)
    p, e = layer.p, layer.e

    zn, xn = e.norm1(z), p.norm1(x)
    keys, values = torch.empty_like(x), torch.empty_like(x)
    keys[chosen], values[chosen] = p.attn.k(xn[chosen]), p.attn.v(xn[chosen])
    keys[left], values[left] = layer.k_from_e(zn[left]), layer.v_from_e(zn[left])
    x = x.index_add(0, chosen, attention(p.attn.q(xn[chosen]), keys, values, p.attn))
    z = z + attention(e.attn.q(zn), e.attn.k(zn), e.attn.v(zn), e.attn)

    x = x.index_add(0, chosen, layer.gamma_up * layer.up(z[chosen]))
    z = z.index_add(0, chosen, layer.gamma_down * layer.down(x[chosen]))
    odds = score[chosen] * n
    gate = (2 * odds / (1 + odds)).unsqueeze(1)
    x = x.index_add(0, chosen, gate * p.mlp.fc2(gelu(p.mlp.fc1(p.norm2(x[chosen])))))
    return x, z + e.mlp.fc2(gelu(e.mlp.fc1(e.norm2(z))))


def reference(model: BLViT, images: Tensor) -> Tensor:
    logits = []
    for image in images:
        x = model.embedding(image.unsqueeze(0))[0]
        z = model.little(x)
        for layer in model.layers:
            x, z = reference_layer(layer, x, z, count_selected(model.keep, len(x)))
        logits.append(model.head(model.norm(x[0] + model.up(z[0]))))
    return torch.stack(logits)


@pytest.mark.parametrize("keep", [0.1, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("batch", [1, 3])
def test_permute_form_equals_gather_and_scatter(keep: float, batch: int) -> None:
    model = tiny(keep)
    images = torch.randn(batch, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(model, images), atol=1e-5, rtol=1e-5)


def test_keep_changes_the_answer() -> None:
    images = torch.randn(2, 3, 24, 24)
    assert (tiny(0.3)(images) - tiny(1.0)(images)).abs().max() > 1e-3


def test_router_gets_a_gradient_in_every_layer() -> None:
    model = tiny().train()
    model(torch.randn(2, 3, 24, 24)).square().sum().backward()
    for layer in model.layers:
        assert layer.router.score.weight.grad.abs().max() > 0


def test_cls_stays_first_whatever_its_score() -> None:
    score = torch.tensor([[0.0, 0.1, 0.7, 0.2], [0.4, 0.3, 0.2, 0.1]])
    assert order_tokens(score).tolist() == [[0, 2, 3, 1], [0, 1, 2, 3]]


@pytest.mark.parametrize(("keep", "tokens", "k"), [(0.5, 197, 99), (0.1, 30, 3), (1.0, 65, 65), (0.001, 10, 1)])
def test_count_selected(keep: float, tokens: int, k: int) -> None:
    assert count_selected(keep, tokens) == k


def test_restore_undoes_every_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.arange(6.0).expand(2, 6).unsqueeze(-1)
    orders = [order_tokens(torch.rand(2, 6, generator=generator)) for _ in range(4)]
    moved = start
    for order in orders:
        moved = permute(moved, order)
    assert not torch.equal(moved, start)
    assert torch.equal(restore(moved, orders), start)


def test_selected_tokens_are_named_in_image_order() -> None:
    orders = [torch.tensor([[0, 3, 1, 2]]), torch.tensor([[0, 2, 1, 3]])]  # second: places 0, 1, 3, 2 of the image
    assert selected_tokens(orders, 2).tolist() == [[[True, False, False, True]], [[True, True, False, False]]]
