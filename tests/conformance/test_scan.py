"""The scan of our rewrites sees a rewrite that is wrong, and what rewrites left."""

import pytest
import torch
from torch import nn

from tests.conformance.scan import Scan, describe, scan
from tests.conformance.weights import pretend_training


def test_the_scan_finds_a_rewrite_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.BatchNorm2d(8))
    model.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)])
    pretend_training(model, 16)
    found = scan(model, 16)
    assert (found.right, found.left) == (True, {"batch_norm": 1})  # the one that no convolution is next to
    assert describe("some", found).endswith("; left: 1 batch_norm")
    monkeypatch.setattr("bigvit_edge.export.factors.scale_outputs", lambda *_: None)
    assert describe("some", scan(model, 16)).endswith(", WRONG; left: 1 batch_norm")
    assert not Scan(reason="it fell over").right
