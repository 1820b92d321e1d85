"""What a profile tells of a bve-run that fails: its own three parts, or what it said last."""

import json
from pathlib import Path

import numpy as np
import pytest

from bigvit_edge.devices.local import Local
from bigvit_edge.devices.store import Store
from bigvit_edge.errors import UserError
from bigvit_edge.profile.core import measure_core
from bigvit_edge.runtime.abi import ANY

PARTS = {"met": "a, expected b; c.bve: has 7 bytes", "expected": "9: it is truncated", "to_do": "copy it again"}


def fail(folder: Path, script: str) -> UserError:
    """What is raised where bve-run is that script."""
    program = folder / "bve-run"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    device = Local("local")
    with pytest.raises(UserError) as caught, Store(device) as store:
        measure_core(device, store, str(program), program, np.zeros((1, 3, 4, 4), np.float32), 0.5, 1, 2, 0)
    return caught.value


@pytest.mark.parametrize(
    ("said", "expected"),
    [(PARTS, PARTS), (PARTS | {"expected": "", "to_do": ""}, PARTS | {"expected": ANY, "to_do": ""})],
)
def test_the_parts_of_an_error_are_bve_runs(said: dict[str, str], expected: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "said").write_text(json.dumps({"error": said}))
    error = fail(tmp_path, f"cat {tmp_path}/said; echo bve-run: something else >&2; exit 2")
    assert {"met": error.met, "expected": error.expected, "to_do": error.do} == expected


@pytest.mark.parametrize(
    ("script", "met"),
    [
        ("echo first >&2; echo 'bve-run: no such core' >&2; exit 2", "no such core"),
        ("echo '{\"machine\": {}}'; echo killed >&2; exit 2", "killed"),
        ("echo '{\"error\": []}'; exit 2", "status 2"),
        ("exit 3", "status 3"),
    ],
)
def test_of_one_that_says_no_parts_it_is_the_last_line_of_stderr(script: str, met: str, tmp_path: Path) -> None:
    error = fail(tmp_path, script)
    assert (error.met, error.expected, error.do) == (met, ANY, "")
