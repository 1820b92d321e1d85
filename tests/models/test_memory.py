"""How much memory is free, and what a user's own code may take of it."""

import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from bigvit_edge.errors import UserError
from bigvit_edge.models import memory
from bigvit_edge.models.memory import GIB, bound_memory, check_memory, estimate_peak, measure_free, require_memory


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_what_is_free_is_the_least_of_what_binds(tmp_path: Path) -> None:
    assert measure_free(tmp_path) is None
    write(tmp_path, {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    2000 kB\n"})
    assert measure_free(tmp_path) == 2000 * 1024
    write(tmp_path, {"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "100\n"})
    assert measure_free(tmp_path) == 2000 * 1024
    write(tmp_path, {"sys/fs/cgroup/memory.max": "5000\n"})
    assert measure_free(tmp_path) == 4900
    write(tmp_path, {"sys/fs/cgroup/memory.stat": "anon 60\nfile 35\ninactive_file 20\nactive_file 10\nshmem 5\n"})
    assert measure_free(tmp_path) == 4930  # the cache of files is given back, shared memory is not


def test_more_than_is_free_fails_instead_of_being_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(memory, "measure_free", lambda: GIB // 4)
    with bound_memory():
        torch.empty(1000)
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            torch.empty(GIB)  # 4 GiB
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_model_too_large_to_export_is_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(1024, 1024, bias=False)  # 4 MiB
    require_memory(model, "mine")
    monkeypatch.setattr(memory, "measure_free", lambda: 8 * 2**20)
    with pytest.raises(UserError, match=r"mine has 0.0 GiB of parameters.*free 0.0 GiB"):
        require_memory(model, "mine")


def make_layers() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 1000), nn.ReLU(), nn.Linear(1000, 4))


class Attention(nn.Module):
    """Each pixel of the image against each other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = x.flatten(1)
        self.seen = q  # which a run without data must not leave in the user's module
        return (q.transpose(0, 1) @ q).softmax(-1).sum(0, keepdim=True)


def test_the_peak_is_what_lives_at_once() -> None:
    assert estimate_peak(make_layers(), 8) == 4 * (3 * 8 * 8 + 1000 + 1000)  # the ReLU's input and output
    module, count = Attention(), 3 * 16 * 16
    assert estimate_peak(module, 16) == 4 * (count + 2 * count**2)  # the softmax's input and output
    assert not hasattr(module, "seen")


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if x.mean() > 0 else x.amax((2, 3))


def test_what_cannot_be_told_beforehand() -> None:
    assert estimate_peak(Branching(), 8) is None
    check_memory(Branching(), 1024)


def test_an_image_that_needs_more_than_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "measure_free", lambda: 16 * GIB)
    with pytest.raises(UserError, match=r"1024 pixels.*needs 73,728.0 GiB .*at most the 16.0 GiB that are free"):
        check_memory(Attention(), 1024)  # 2 * (3 * 2**20)**2 * 4 bytes
    check_memory(nn.AdaptiveAvgPool2d(1), 1024)
    with pytest.raises(UserError, match=r"take a smaller --image-size"):
        check_memory(nn.AdaptiveAvgPool2d(1), 1024, images=2000)
