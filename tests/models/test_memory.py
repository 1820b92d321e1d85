"""How much memory is free, and what a user's own code may take of it."""

import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from bigvit_edge.errors import UserError
from bigvit_edge.models import memory
from bigvit_edge.models.memory import GIB, bounded, measure_free, require_memory


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


def test_more_than_is_free_fails_instead_of_being_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(memory, "measure_free", lambda: GIB // 4)
    with bounded():
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
