"""Results made by hand."""

import subprocess
from collections.abc import Sequence
from typing import Any

from bigvit_edge.devices.local import Local
from bigvit_edge.machine import Cluster, Core, Limits, Machine, Reading, Sensor
from bigvit_edge.results import Frames, Protocol, Result, Row, Turn

PROTOCOL = Protocol(0.1, 3, 10, 0, 0, None, "none")


def make_machine(clusters: Sequence[tuple[str, int]] = (("big", 4), ("little", 4)), **limits: Any) -> Machine:
    """Clusters by word and count, cores numbered from 0 in that order."""
    cores, made = [], []
    for word, count in clusters:
        numbers = tuple(range(len(cores), len(cores) + count))
        capacity = 1024 if word == "big" else 400
        made.append(Cluster(word, f"{word} core", numbers, capacity, None))
        cores += [Core(n, True, "", "", capacity, None, None, None, "", None) for n in numbers]
    told = {"allowed": None, "group": "", "cpuset": None, "quota_cores": None, "throttled_periods": None,
            "throttled_us": None, "usable": len(cores), **limits}  # fmt: skip
    return Machine("a CPU", "a board", cores=tuple(cores), clusters=tuple(made), limits=Limits(**told))


def make_sensor(kind: str, *readings: tuple[str, str, str], **fields: object) -> Sensor:
    """readings: quantity, unit and what it said, at the path of its quantity."""
    told = {"chip": "a_chip", "label": "", "total": False, "wraps_at": None, "readable": True, "why": "", **fields}
    made = tuple(Reading(name, unit, f"/sys/{name}", raw) for name, unit, raw in readings)
    return Sensor(kind, readings=made, **told)  # type: ignore[arg-type]


def make_turn(times_ms: Sequence[float] = (1.0, 1.1, 0.9), number: int = 0, **fields: Any) -> Turn:
    start = number * 200_000_000
    end = start + int(sum(times_ms) * 1e6)
    told = {"cpu_ms": 1.0, "clock_mhz": (2000.0, 2000.0), "cores": {"0": len(times_ms)}, "thread_ms": {"0": 3.0}}
    return Turn(start, end, tuple(times_ms), **{**told, **fields})


def make_frames(label_ms: Sequence[float], prepare_ms: Sequence[float], turns: Sequence[int]) -> Frames:
    return Frames("a frame", "somebody", tuple(turns), tuple(label_ms), tuple(prepare_ms))


def make_row(turns: Sequence[Turn] | None = None, **fields: Any) -> Row:
    told = {
        "file": "a.bve", "sha256": "0" * 64, "bytes": 1000, "format": "bve", "precision": "int8", "keep": 0.5,
        "method": "keep_0_5", "delegated_share": 1.0, "policy": "big", "threads": 1, "cores_asked": (0, 1, 2, 3),
        "launch": "local", "cores_allowed": (0, 1, 2, 3), "warm": True,
        "turns": tuple(turns if turns is not None else (make_turn(number=n) for n in range(10))),
    }  # fmt: skip
    return Row(**{**told, **fields})


def make_result(*rows: Row, **fields: Any) -> Result:
    told = {
        "device": "local", "machine": make_machine(), "protocol": PROTOCOL, "rows": rows,
        "date": "2026-01-02T03:04:05+00:00", "tool": "0", "command": ("bigvit-edge", "bench"), "key": "k",
        "complete": True,
    }  # fmt: skip
    return Result(**{**told, **fields})


class Watched(Local):
    """This machine, and what was started on it."""

    def __init__(self) -> None:
        super().__init__("local")
        self.started: list[subprocess.Popen[bytes]] = []

    def shell(self, *words: object, **more: object) -> subprocess.Popen[bytes]:
        self.started.append(super().shell(*words, **more))  # type: ignore[arg-type]
        return self.started[-1]

    def list_runners(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in self.started if "serve" in process.args and process.poll() is None]  # type: ignore[operator]

    def runs_nothing(self) -> bool:
        return bool(self.started) and all(process.poll() is not None for process in self.started)
