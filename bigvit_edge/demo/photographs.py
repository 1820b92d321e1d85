"""Windows of the photographs that come with scikit-learn and scikit-image, for models that see photographs."""

from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bigvit_edge.demo.digits import PHOTOS, SplitName, find_photo

SMALLEST = 0.4  # of a photograph's shorter side that a window spans


def draw_photographs(split: SplitName, count: int, size: int, seed: int) -> Tensor:
    """Draw square windows of a split's photographs.

    float [count, 3, size, size] in 0..1, whole 255ths, mirrored at random, the photographs in turn. Drawn from `seed`
    alone. UserError if scikit-learn or scikit-image is not installed.
    """
    photos, random = _load(split), np.random.default_rng(seed)
    windows = []
    for i in range(count):
        photo = photos[i % len(photos)]
        side = int(min(photo.size) * random.uniform(SMALLEST, 1))
        left, top = (int(random.integers(0, length - side + 1)) for length in photo.size)
        window = photo.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side), 3.0)
        pixels = np.asarray(window)
        windows.append(pixels[:, ::-1] if random.random() < 0.5 else pixels)
    return torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2).float() / 255


@cache
def _load(split: SplitName) -> tuple[Image.Image, ...]:
    return tuple(Image.open(find_photo(name)).convert("RGB") for name in PHOTOS[split])
