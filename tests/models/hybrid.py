"""A small convolution-and-attention hybrid, as a user's factory would give it: MODEL `tests.models.hybrid:build`."""

import torch
from torch import nn

from bigvit_edge.models.timm_models import import_timm

SIZE = 64  # pixels
CLASSES = 10


def build() -> nn.Module:
    """timm's MaxViT (arXiv 2204.01697) with two blocks: 0.22 M parameters, images [B, 3, 64, 64] -> logits [B, 10].

    The ops that no model of ours has: strided and depthwise convolution, batch norm, SiLU, squeeze-and-excitation,
    pooling, padding, attention in windows and grids with a relative position bias (einsum, SDPA).
    """
    timm = import_timm()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = timm.create_model(
            "maxvit_tiny_tf_224",
            img_size=SIZE,
            num_classes=CLASSES,
            embed_dim=(32, 64),
            depths=(1, 1),
            block_type=("M", "M"),
            stem_width=16,
        )
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # at its start it does nothing, and could be lost unseen
                for vector in (module.running_mean, module.bias.data):
                    vector.normal_(0, 0.2)
                for vector in (module.running_var, module.weight.data):
                    vector.uniform_(0.5, 1.5)
    model.image_size = SIZE  # type: ignore[assignment]
    return model.eval()
