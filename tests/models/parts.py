"""A tiny model of two parts, as segmentation has them: an encoder of ours, and a decoder of its features and points."""

import torch
from torch import Tensor, nn

from bigvit_edge.models.vit import ViT

SIZE, DIM = 32, 32


class Encoder(nn.Module):
    """Images [B, 3, 32, 32] -> features [B, 17, 32]: all tokens of a ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = ViT(image_size=SIZE, patch=8, dim=DIM, depth=1, head_dim=16, num_classes=2)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.vit.embedding(images)
        for layer in self.vit.layers:
            tokens = layer(tokens)
        return self.vit.norm(tokens)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Features [1, 17, 32] and points [1, n, 2] in 0..1 -> masks [1, n, 4, 4] and scores [1, n]."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.query, self.score = nn.Linear(2, DIM), nn.Linear(DIM, DIM), nn.Linear(DIM, 1)

    def forward(self, features: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        queries = self.query(self.place(points))  # [1, n, 32]
        found = queries + nn.functional.scaled_dot_product_attention(queries, features, features)
        masks = found @ features[:, 1:].transpose(1, 2)  # [1, n, 16]
        return masks.unflatten(2, (4, 4)), self.score(found).squeeze(2)


def draw_points(count: int, points: int = 3) -> Tensor:
    """Draw points for so many images, [count, points, 2]."""
    return torch.rand(count, points, 2, generator=torch.Generator().manual_seed(0))
