"""The dense ViT against PyTorch's own transformer layer."""

import torch
from torch import nn

from bigvit_edge.models.vit import LAYER_NORM_EPS, Block, ViT


def test_block_equals_torch_encoder_layer() -> None:
    torch.manual_seed(0)
    block = Block(32, 8).eval()
    theirs = nn.TransformerEncoderLayer(
        32, 4, 128, dropout=0, activation="gelu", batch_first=True, norm_first=True, layer_norm_eps=LAYER_NORM_EPS
    ).eval()
    attn = theirs.self_attn
    attn.in_proj_weight.data = torch.cat([block.attn.q.weight, block.attn.k.weight, block.attn.v.weight]).data
    attn.in_proj_bias.data = torch.cat([block.attn.q.bias, block.attn.k.bias, block.attn.v.bias]).data
    attn.out_proj.load_state_dict(block.attn.proj.state_dict())
    theirs.linear1.load_state_dict(block.mlp.fc1.state_dict())
    theirs.linear2.load_state_dict(block.mlp.fc2.state_dict())
    x = torch.randn(2, 7, 32)
    torch.testing.assert_close(block(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_tokens_are_patches_in_reading_order_after_cls() -> None:
    model = ViT(image_size=16, patch=8, dim=16, depth=1, head_dim=8, num_classes=3).eval()
    images = torch.randn(1, 3, 16, 16)
    tokens = model.embedding(images) - model.embedding.position
    second = images[:, :, :8, 8:].flatten() @ model.embedding.patches.weight.flatten(1).T + model.embedding.patches.bias
    torch.testing.assert_close(tokens[0, 2], second, atol=1e-5, rtol=1e-5)
    assert tokens.shape == (1, 5, 16)
