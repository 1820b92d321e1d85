"""What this machine can do at most, and what its kernel counts: measured by libbve.so."""

import ctypes
import json
import weakref
from dataclasses import dataclass
from typing import Any

from bigvit_edge.runtime.abi import Failure, explain, find_function


@dataclass(frozen=True)
class Roof:
    """A machine's limits, measured on so many threads at once.

    gmac_per_s: 10^9 multiply-accumulates a second of each type (f32, f16, qd8), 0 where it has no instruction for them;
    cache_gb_per_s, memory_gb_per_s: 10^9 bytes read a second, cache_bytes and memory_bytes again and again by each
    thread.
    """

    threads: int
    gmac_per_s: dict[str, float]
    cache_bytes: int
    cache_gb_per_s: float
    memory_bytes: int
    memory_gb_per_s: float


@dataclass(frozen=True)
class Count:
    """One of the kernel's counters.

    pmu: the kind of cores it counts on, '' if all; count: None if it could not be had, `missing` then says why;
    running: the share of the time, in 0..1, in which it did count, the count being what that share would be in all.
    """

    event: str
    pmu: str
    count: float | None
    running: float = 1.0
    missing: str = ""


class Counters:
    """The kernel's counters of this thread and its later ones.

    root: what stands before /sys.
    """

    def __init__(self, root: str = "") -> None:
        self._counters = find_function("bve_count")(root.encode())
        if not self._counters:
            raise MemoryError
        weakref.finalize(self, find_function("bve_uncount"), self._counters)

    def read(self) -> list[dict[str, Any]]:
        """Read the counts so far."""
        return json.loads(take_text(find_function("bve_read")(self._counters)))  # type: ignore[no-any-return]


def count_between(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> tuple[Count, ...]:
    """Count what happened between two readings of the same counters."""
    counts = []
    for old, new in zip(before, after, strict=True):
        event, pmu = str(new["event"]), str(new["pmu"])
        if "missing" in old or "missing" in new:
            counts.append(Count(event, pmu, None, 0.0, str(new.get("missing") or old["missing"])))
            continue
        count, enabled, running = (int(new[key]) - int(old[key]) for key in ("count", "enabled_ns", "running_ns"))
        if running:
            counts.append(Count(event, pmu, count * enabled / running, min(1.0, running / enabled)))
        else:
            counts.append(Count(event, pmu, None, 0.0, "it was never on: others hold the CPU's counters"))
    return tuple(counts)


def measure_roof(threads: int) -> Roof:
    """Measure this machine's limits: half a second.

    UserError on threads that it has no cores for.
    """
    error = Failure()
    text = find_function("bve_measure")(threads, ctypes.byref(error))
    if not text:
        raise explain(error.text.decode(errors="replace"))
    return parse_roof(json.loads(take_text(text)))


def parse_roof(told: dict[str, Any]) -> Roof:
    """Read what the library, or bve-run, tells of a machine's limits."""
    cache, memory = told["read_gb_per_s"]
    return Roof(
        int(told["threads"]), dict(told["gmac_per_s"]),
        cache["bytes"], cache["gb_per_s"], memory["bytes"], memory["gb_per_s"],
    )  # fmt: skip


def take_text(text: int | None) -> str:
    """Copy a text that the library made, and give its memory back."""
    if not text:
        raise MemoryError
    copied = ctypes.string_at(text).decode()
    find_function("bve_free")(text)
    return copied
