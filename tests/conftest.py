"""Fixtures of all tests."""

import gc
import tempfile
from collections.abc import Iterator

import pytest

from bigvit_edge.devices.occupancy import OVERRIDE
from tests.app.apks import built, cache
from tests.devices.machines import adb_machine, ssh_machine

__all__ = ("adb_machine", "built", "cache", "keep_locks_apart", "ssh_machine")


def pytest_collection_finish() -> None:
    """Look no more through what the imports of all tests have made: it stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def keep_locks_apart() -> Iterator[None]:
    """Let tests that run at once measure this machine at once: its lock lies elsewhere."""
    with tempfile.TemporaryDirectory(prefix="bve-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(OVERRIDE, folder)
        yield
