"""Sweeps and rows made by hand."""

from pathlib import Path
from typing import Any

from bigvit_edge.sweep.jobs import Bench, Export
from bigvit_edge.sweep.rows import Point
from bigvit_edge.sweep.settings import Model, Sweep

FACTORY = """
from torch import nn

def build():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model.image_size, model.labels = 16, ["a", "b", "c"]
    model.mean, model.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return model
"""


def make_point(**fields: Any) -> Point:
    told = {
        "model": "m", "format": "bve", "precision": "int8", "keep": 0.5, "device": "local", "cores": "big",
        "threads": 1, "p50_ms": 2.0, "p50_low_ms": 1.9, "p50_high_ms": 2.1, "p90_ms": 2.5, "p99_ms": 3.0,
        "accuracy": 0.9, "accuracy_low": 0.88, "accuracy_high": 0.92, "agreement": 0.99, "verdict": "valid",
    }  # fmt: skip
    return Point(**{**told, **fields})


def make_sweep(**fields: Any) -> Sweep:
    told = {
        "models": (Model("m"),), "formats": ("bve",), "precisions": ("fp32", "int8"), "keeps": (0.5,),
        "devices": ("local", "null"), "clusters": (), "threads": (None,), "target": "host", "settings": (),
        "images": None, "rounds": 3, "minutes": 0.0, "fps": 0.0, "cool": None, "text": 'models = ["m"]',
    }  # fmt: skip
    return Sweep(**{**told, **fields})


def make_export(name: str = "m_bve_int8-000000000000", **fields: Any) -> Export:
    told = {
        "shown": "m bve int8", "model": Model("m"), "format": "bve", "precision": "int8", "keeps": (0.5,),
        "target": "host", "settings": (), "images": None,
    }  # fmt: skip
    return Export(name, **{**told, **fields})


def make_bench(name: str = "m_bve_int8_null-000000000000", **fields: Any) -> Bench:
    told = {
        "export": make_export(), "device": "null", "clusters": (), "threads": None, "images": None, "rounds": 3,
        "minutes": 0.0, "fps": 0.0, "cool": None,
    }  # fmt: skip
    return Bench(name, **{**told, **fields})


def write_factory(folder: Path) -> None:
    """A model of a few weights, as a user's own function `mine:build`."""
    (folder / "mine.py").write_text(FACTORY)
