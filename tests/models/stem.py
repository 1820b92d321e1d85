"""A small convolutional network, as a user's factory: its first convolution has zeros around the image."""

import torch
from torch import nn

LABELS = ["ant", "bee", "cat", "dog"]


def build() -> nn.Module:
    torch.manual_seed(0)
    stem = [nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1, groups=16)]
    head = [nn.Hardswish(), nn.Conv2d(16, 32, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)]
    model = nn.Sequential(*stem, *head)
    model.image_size, model.labels = 32, LABELS
    model.mean, model.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return model
