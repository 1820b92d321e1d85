"""big.LITTLE Vision Transformer (arXiv 2410.10267; the full text was not at hand, so this is our reading of its method
section).

Two streams of N tokens: x [B, N, C] for the big P-blocks and z [B, N, c] for the LITTLE E-blocks. In each layer a
router picks k = ceil(keep * N) tokens, CLS always among them. The P-block spends its attention queries and its MLP on
those k only; the E-block treats all N. Tokens are permuted so that the selected ones come first, and never permuted
back: attention does not care, positions were added at the embedding. So the graph has no scatter, no sort and no shape
that depends on data, and k is a constant of it.

The permutation comes in three forms of one function (set_dispatch). "permute": indices from a top-k, and a gather.
"onehot": a permutation matrix from comparisons, and a matrix product, for accelerators that have neither top-k nor
gather; it costs zoo.count_dispatch_macs more. "kernel": one op, router and gate included (dispatch.py), for a runtime
that our library gives the kernel of it.
"""

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from bigvit_edge.models.dispatch import DISPATCH
from bigvit_edge.models.vit import LAYER_NORM_EPS, Block, Embedding, attend, initialize
from bigvit_edge.models.zoo import count_selected

FUSE_START = 1e-4  # the streams start (almost) independent and learn how much to take from each other


def permute(t: Tensor, order: Tensor) -> Tensor:
    """Take the tokens of t [B, N, ...] in the given order.

    order: indices [B, N], or a permutation matrix [B, N, N], which takes t [B, N] or [B, N, C]. Batch 1 with indices is
    a plain index_select: the one gather all runtimes have.
    """
    if order.dim() == 3:
        return torch.bmm(order, t) if t.dim() == 3 else torch.bmm(order, t.unsqueeze(-1)).squeeze(-1)
    if t.shape[0] == 1:
        return t.index_select(1, order[0])
    order = order.long()  # a kernel's is int32
    return t.gather(1, order if t.dim() == 2 else order.unsqueeze(-1).expand(-1, -1, t.shape[-1]))


def restore(t: Tensor, orders: list[Tensor]) -> Tensor:
    """Undo every layer's permutation.

    t [B, N, ...] in final order -> in image order. For dense tasks, distillation and pictures.
    """
    for order in reversed(orders):
        t = permute(t, order.argsort(1) if order.dim() == 2 else order.transpose(1, 2))
    return t


class Router(nn.Module):
    """Scores from the LITTLE stream.

    z [B, N, c] -> softmax over tokens [B, N].
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.score = nn.Linear(dim, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.score(self.norm(z)).flatten(1).softmax(-1)  # type: ignore[no-any-return]


def order_tokens(score: Tensor) -> Tensor:
    """Order token indices by falling score, CLS first.

    [B, N] -> [B, N]. CLS is always token 0, and stays so.
    """
    first = torch.cat([score[:, :1] + 2, score[:, 1:]], dim=1)  # a softmax is at most 1
    return torch.topk(first, score.shape[1], dim=1).indices


class Ranking:
    """A permutation matrix in place of order_tokens.

    score [B, N] -> [B, N, N] of 0 and 1, row p naming the token at place p; equal scores keep their order. Comparisons,
    sums and float constants alone, exact in float16 up to 2048 tokens. The constants are each layer's own: partitioners
    stumble over one that layers share.
    """

    def __init__(self, tokens: int) -> None:
        self.zero, self.one = torch.zeros(1), torch.ones(1)
        self.places = torch.arange(float(tokens)).view(1, tokens, 1)  # [1, N, 1]
        self.earlier = torch.ones(tokens, tokens).tril(-1)  # [N, N]: 1 where token j stands before token i
        self.lead = torch.cat([torch.tensor([2.0]), torch.zeros(tokens - 1)])  # [N]: CLS first; a softmax is at most 1

    def __call__(self, score: Tensor) -> Tensor:
        score = score + self.lead
        mine, other = score.unsqueeze(2), score.unsqueeze(1)  # [B, N, 1], [B, 1, N]
        tied = torch.where(other == mine, self.earlier, self.zero)  # [B, N, N]
        rank = torch.where(other > mine, self.one, tied).sum(2)  # [B, N]
        return torch.where(rank.unsqueeze(1) == self.places, self.one, self.zero)  # [B, N, N]


def gate_from(score: Tensor, tokens: int) -> Tensor:
    """Compute the gate on the P-MLP's residual.

    [B, k] -> [B, k, 1], in (0, 2): 1 where the score is the mean 1/N, so a uniform router leaves a pretrained P-block
    as it was. It is how the router gets its gradient (top-k has none).
    """
    odds = score * tokens
    return (2 * odds / (1 + odds)).unsqueeze(-1)


class Layer(nn.Module):
    """One big.LITTLE layer: a P-block beside an E-block.

    The P-block has width C and k tokens, the E-block width c and all N; they exchange what they know.
    """

    def __init__(self, dim: int, head_dim: int, little_dim: int, little_head_dim: int) -> None:
        super().__init__()
        self.router = Router(little_dim)
        # Score to order. Ablations put another choice here (random, oracle); None: one op routes and permutes.
        self.arrange: Callable[[Tensor], Tensor] | None = order_tokens
        self.p = Block(dim, head_dim)
        self.e = Block(little_dim, little_head_dim)
        self.k_from_e = nn.Linear(little_dim, dim)  # keys and values of the tokens that the P-block skips
        self.v_from_e = nn.Linear(little_dim, dim)
        self.up = nn.Linear(little_dim, dim)
        self.down = nn.Linear(dim, little_dim)
        self.gamma_up = nn.Parameter(torch.full((dim,), FUSE_START))
        self.gamma_down = nn.Parameter(torch.full((little_dim,), FUSE_START))

    def forward(self, x: Tensor, z: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Run the layer on both streams.

        x [B, N, C], z [B, N, c] -> both in this layer's order, and that order, [B, N] or [B, N, N] (see permute).
        """
        n = x.shape[1]
        x, z, gate, order = self.dispatch_tokens(x, z, k)
        xs, skipped, zn = x[:, :k], x[:, k:], self.e.norm1(z)  # [B, k, C], [B, N-k, C], [B, N, c]
        xs = xs + self.cross_attend(self.p.norm1(xs), zn[:, k:])  # [B, k, C]  } these two need only the layer's inputs:
        z = z + self.e.attn(zn)  #                                 [B, N, c]  } they can run on different cores

        xs = xs + self.gamma_up * self.up(z[:, :k])  # [B, k, C]
        zs = z[:, :k] + self.gamma_down * self.down(xs)  # [B, k, c]
        z = torch.cat([zs, z[:, k:]], dim=1) if k < n else zs  # [B, N, c]

        xs = xs + gate * self.p.mlp(self.p.norm2(xs))  # [B, k, C]
        z = z + self.e.mlp(self.e.norm2(z))  # [B, N, c]
        x = torch.cat([xs, skipped], dim=1) if k < n else xs  # [B, N, C]
        return x, z, order

    def dispatch_tokens(self, x: Tensor, z: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Put the selected tokens of both streams first.

        x [B, N, C], z [B, N, c] -> both in the new order, the gate on the selected tokens [B, k, 1], and the order, [B,
        N] or [B, N, N].
        """
        if self.arrange is None:
            norm, linear = self.router.norm, self.router.score
            return DISPATCH(x, z, norm.weight, norm.bias, linear.weight, linear.bias, norm.eps, k)  # type: ignore[no-any-return]
        score = self.router(z)  # [B, N]
        order = self.arrange(score)  # [B, N] or [B, N, N]
        ranked = permute(score, order)[:, :k] if order.dim() == 2 else permute(score, order[:, :k])  # [B, k]
        return permute(x, order), permute(z, order), gate_from(ranked, x.shape[1]), order

    def cross_attend(self, xs: Tensor, skipped: Tensor) -> Tensor:
        """Attend from the k selected tokens to all N.

        Semi-cross attention: the keys of the skipped tokens [B, N-k, c] are projected from the LITTLE stream -> [B, k,
        C].
        """
        attn = self.p.attn
        keys, values = attn.k(xs), attn.v(xs)  # [B, k, C]
        if skipped.shape[1]:
            keys = torch.cat([keys, self.k_from_e(skipped)], dim=1)  # [B, N, C]
            values = torch.cat([values, self.v_from_e(skipped)], dim=1)  # [B, N, C]
        return attn.proj(attend(attn.q(xs), keys, values, attn.heads))  # type: ignore[no-any-return]


class BLViT(nn.Module):
    """big.LITTLE Vision Transformer.

    forward: float images [B, 3, image_size, image_size] -> logits [B, num_classes].

    `keep` in (0, 1] is the share of tokens that the P-blocks treat; it may be set at any time, and one set of weights
    can serve several.
    """

    def __init__(
        self, *, image_size: int, patch: int, dim: int, little_dim: int, depth: int, head_dim: int,
        little_head_dim: int, num_classes: int, keep: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.keep = keep
        self.embedding = Embedding(image_size, patch, dim)
        self.little = nn.Linear(dim, little_dim)
        self.layers = nn.ModuleList(Layer(dim, head_dim, little_dim, little_head_dim) for _ in range(depth))
        self.up = nn.Linear(little_dim, dim)
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(dim, num_classes)
        self.apply(initialize)
        nn.init.trunc_normal_(self.embedding.position, std=0.02)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Encode images [B, 3, S, S] as tokens of both streams.

        Returns x [B, N, C] and z [B, N, c] in the last layer's order, and each layer's order (see permute).
        """
        x = self.embedding(images)  # [B, N, C]
        z = self.little(x)  # [B, N, c]
        k = count_selected(self.keep, x.shape[1])
        orders = []
        for layer in self.layers:
            x, z, order = layer(x, z, k)
            orders.append(order)
        return x, z, orders

    def forward(self, images: Tensor) -> Tensor:
        x, z, _ = self.encode(images)
        return self.classify(x, z)

    def classify(self, x: Tensor, z: Tensor) -> Tensor:
        """Compute logits [B, num_classes] from the CLS of both streams.

        x [B, N, C] and z [B, N, c] are as encode gives them.
        """
        return self.head(self.norm(x[:, 0] + self.up(z[:, 0])))  # type: ignore[no-any-return]


def set_dispatch(model: nn.Module, dispatch: str) -> None:
    """Set how the layers arrange their tokens from now on.

    'permute', 'onehot' or 'kernel', in every big.LITTLE ViT that the model is or has in it. Without routers nothing is
    done.
    """
    for inside in model.modules():
        if not isinstance(inside, BLViT):
            continue
        tokens = inside.embedding.position.shape[1]
        for layer in cast(Iterable[Layer], inside.layers):
            layer.arrange = None if dispatch == "kernel" else Ranking(tokens) if dispatch == "onehot" else order_tokens


def selected_tokens(orders: list[Tensor], k: int) -> Tensor:
    """Mark the image tokens that each layer's P-block treated.

    orders as from encode -> bool [layers, B, N] in image order.
    """
    indices = [order.long() if order.dim() == 2 else order.argmax(2) for order in orders]  # [B, N] each
    place = torch.arange(indices[0].shape[1]).expand_as(indices[0])  # place[b, i]: image position of the token now at i
    masks = []
    for order in indices:
        place = place.gather(1, order)
        masks.append(torch.zeros_like(place, dtype=torch.bool).scatter(1, place[:, :k], True))
    return torch.stack(masks)
