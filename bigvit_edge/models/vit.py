"""The dense Vision Transformer: baseline, teacher, and the parts the big.LITTLE model is built from.

Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), section 3.1, pre-norm blocks. Shapes: B images, N tokens (patches +
CLS), C channels, H heads of width d = C / H. Written so that every mobile converter keeps it whole: separate q, k, v
Linears, three-dimensional batched matrix products, no shape that depends on data.
"""

import torch
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-6


def split_heads(t: Tensor, heads: int) -> Tensor:
    """Split C into heads: [B, N, C] -> [B*H, N, C/H]."""
    b, n, c = t.shape
    return t.reshape(b, n, heads, c // heads).transpose(1, 2).reshape(b * heads, n, c // heads)


def merge_heads(t: Tensor, heads: int) -> Tensor:
    """Merge heads again: [B*H, N, d] -> [B, N, H*d]."""
    bh, n, d = t.shape
    return t.reshape(bh // heads, heads, n, d).transpose(1, 2).reshape(bh // heads, n, heads * d)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Compute softmax(q k^T / sqrt(d)) v.

    [B, n, C] queries over [B, N, C] keys and values -> [B, n, C].
    """
    q, k, v = (split_heads(t, heads) for t in (q, k, v))
    score = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2))  # [B*H, n, N]
    return merge_heads(torch.bmm(score.softmax(-1), v), heads)  # [B, n, C]


class Attention(nn.Module):
    """Multi-head self-attention at width C."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.heads = dim // head_dim
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(attend(self.q(x), self.k(x), self.v(x), self.heads))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Linear(C -> 4C), GELU, Linear(4C -> C)."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.fc2 = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One pre-norm transformer block.

    The big.LITTLE layer calls its four parts one by one.
    """

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, head_dim)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Embedding(nn.Module):
    """The embedding of images as tokens.

    Patches go through a Linear (written as a strided convolution), CLS comes in front, positions are added.
    """

    def __init__(self, image_size: int, patch: int, dim: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, stride=patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.zeros(1, 1 + (image_size // patch) ** 2, dim))

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)  # [B, N-1, C]
        return torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.position  # [B, N, C]


class ViT(nn.Module):
    """The dense Vision Transformer.

    forward: float images [B, 3, image_size, image_size] -> logits [B, num_classes].
    """

    def __init__(self, *, image_size: int, patch: int, dim: int, depth: int, head_dim: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = Embedding(image_size, patch, dim)
        self.layers = nn.ModuleList(Block(dim, head_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(dim, num_classes)
        self.apply(initialize)
        nn.init.trunc_normal_(self.embedding.position, std=0.02)

    def encode(self, images: Tensor) -> Tensor:
        """Encode images [B, 3, S, S] as tokens [B, N, C].

        They are those after the last block, before the final norm.
        """
        x = self.embedding(images)
        for layer in self.layers:
            x = layer(x)
        return x  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.encode(images)[:, 0]))  # type: ignore[no-any-return]


def initialize(module: nn.Module) -> None:
    """Give a module the usual start of a ViT.

    Linear weights from a truncated normal of 0.02, biases 0 (timm, DeiT).
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
