"""Attention of any rank and with any mask, in ONNX Runtime as in PyTorch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attend

from bigvit_edge.export.backends import onnx
from bigvit_edge.export.convert import capture, lower, rewrite
from bigvit_edge.target import load_target

torch.manual_seed(1)
DEAD = torch.rand(16, 16) > 0.4
DEAD[3] = False  # this query has no key
BIAS = torch.randn(4, 16, 16)


class Attention(nn.Module):
    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.patches, self.head, self.body = nn.Conv2d(3, 32, 4, 4), nn.Linear(32, 5), body

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2) * 4  # [1, 16, 32]
        return self.head(self.body(tokens).reshape(16, 32)).mean(0, keepdim=True)  # type: ignore[no-any-return]


def heads(x: Tensor) -> Tensor:
    return x.reshape(1, 16, 4, 8).transpose(1, 2)  # [1, 4, 16, 8]


@pytest.mark.parametrize(
    "body",
    [
        lambda x: attend(x, x, x),
        lambda x: attend(x[0], x[0], x[0]),
        lambda x: attend(heads(x)[None], heads(x)[None] * 2, heads(x)[None]),
        lambda x: attend(heads(x)[0], heads(x)[0], heads(x)[0], attn_mask=BIAS),
        lambda x: attend(x, x, x, is_causal=True, scale=0.3),
        lambda x: attend(x, x, x, attn_mask=DEAD[None]),
        lambda x: attend(x[0], x[0], x[0], attn_mask=DEAD),
        lambda x: attend(heads(x), heads(x), heads(x), attn_mask=DEAD),
        lambda x: attend(x, x, x, attn_mask=(x @ x.transpose(1, 2)) > 200),
        lambda x: attend(heads(x), heads(x)[:, :2], heads(x)[:, :2], enable_gqa=True),
        lambda x: attend(heads(x), x[:, None, :, :8], x[:, None, :, :8]),
    ],
)
def test_attention(body: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    model, image = Attention(body).eval(), torch.randn(1, 3, 16, 16)
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes(lower([rewrite(capture(model, 16))], "onnx", load_target("host"), {}).data))  # type: ignore[arg-type]
    with torch.no_grad():
        np.testing.assert_allclose(onnx.load(file)(image.numpy()), model(image).numpy(), atol=1e-5)
