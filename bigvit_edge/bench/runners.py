"""A file in its runtime on a device: one process, spoken to by lines. docs/devices.md has the lines."""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from bigvit_edge.bench.cases import Case
from bigvit_edge.bench.lines import Told, parse_line
from bigvit_edge.bench.policies import Policy
from bigvit_edge.devices.contract import Device, DeviceError
from bigvit_edge.devices.process import Process, run_words
from bigvit_edge.devices.store import Store
from bigvit_edge.errors import UserError
from bigvit_edge.machine import Machine, parse_machine
from bigvit_edge.results import Memory, Turn

AGENT, FRAMES = (Path(__file__).with_name(name) for name in ("agent.py", "frame_reader.py"))
READY_S = 600.0  # a large file from a slow card, and a runtime that compiles when it loads
ANSWER_S = 60.0  # beyond what a turn takes itself
SLOWEST_S = 60.0  # an image, until one is known


@dataclass(frozen=True)
class Tools:
    """What a bench brings to a device, by their paths there.

    python: what starts Python there, () where there is none. runtimes: of each format, its version there, or why there
    is none (`lacks`). delegates: our core for a format's runtime, on this machine alone.
    """

    bve_run: str
    bve_run_sha256: str
    agent: str
    machine: Machine
    python: tuple[str, ...] = ()
    runtimes: dict[str, str] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)
    delegates: dict[str, str] = field(default_factory=dict)
    frames: str = ""


@dataclass(frozen=True)
class FrameTurn:
    """Some frames, each from memory to its label.

    label_ms: of each; prepare_ms: of that, until the model's input was ready.
    """

    frame: str
    prepared_by: str
    start_ns: int
    end_ns: int
    label_ms: tuple[float, ...]
    prepare_ms: tuple[float, ...]


@dataclass(frozen=True)
class Ready:
    """What a runner says when its file is loaded."""

    runtime: str
    build: dict[str, Any]
    load_ms: float
    first_ms: float
    cached_share: float | None
    cores_allowed: tuple[int, ...]
    image_floats: int


class Runner:
    """A process that has a file loaded and times images.

    DeviceError if it ends or stays silent; it ends when this is closed.
    """

    def __init__(self, device: Device, tools: Tools, store: Store, case: Case, policy: Policy, evict: bool) -> None:
        self.device, self._store, self._slowest_s = device, store, SLOWEST_S
        self._process = Process(device, spell(tools, store.place(case.path), case, policy, evict))
        try:
            ready = parse_line(self._process.read_line(READY_S), device, _read_ready)
            build = {**ready.build, "bve_run": tools.bve_run_sha256} if case.format == "bve" else ready.build
            self.ready = replace(ready, build=build)
        except BaseException:
            self._process.close(1)
            raise

    def run(self, seconds: float, images: int, period_ms: float = 0) -> Turn:
        """Time images, for so many seconds and at least so many."""
        wait_s = seconds + images * max(self._slowest_s, period_ms / 1e3) + ANSWER_S
        turn = self._ask(f"run {seconds:g} {images} {period_ms:g}", wait_s, _read_turn)
        self._slowest_s = max(1.0, 20 * max(turn.times_ms) / 1e3)
        return turn

    def run_frames(self, seconds: float, images: int, period_ms: float = 0) -> FrameTurn | str:
        """Time frames to their labels, as run does images.

        A text says why there are none.
        """
        wait_s = seconds + images * max(self._slowest_s, period_ms / 1e3) + ANSWER_S
        return self._ask(f"frame {seconds:g} {images} {period_ms:g}", wait_s, _read_frames)

    def read_memory(self) -> Memory:
        """Read the process's peak of memory until now."""
        return self._ask("memory", ANSWER_S, lambda told: Memory(**told))

    def answer(self, images: Path, logits: Path, count: int) -> None:
        """Answer a file of images.

        They are of the type that the model's file takes; count: how many. The file of their logits, of float32, is
        brought here.
        """
        source, target = self._store.place(images), self._store.reserve("logits.f32")
        paths = " ".join(quote(os.fsencode(path)) for path in (source, target))
        told = self._ask(f"answer {paths}", count * self._slowest_s + ANSWER_S, lambda told: int(told["images"]))
        if told != count:
            raise DeviceError(f"{told} of {count} answers from {self.device.name}", "all of them", "try again")
        self._store.fetch(target, logits)

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, line: str, timeout_s: float, read: Callable[[dict[str, Any]], Told]) -> Told:
        return parse_line(self._process.ask(line, timeout_s), self.device, read)


def spell(tools: Tools, file: str, case: Case, policy: Policy, evict: bool) -> list[str]:
    """Spell the command that serves a file."""
    options = ["--threads", str(policy.threads)]
    lanes = policy.little_threads > 0
    if policy.cores is not None:
        options += ["--cores", ",".join(map(str, policy.cores))]
    if evict:
        options.append("--evict")
    if case.format == "bve":
        keep = ["--keep", f"{case.keep:g}"] if case.keep is not None else []
        little = ["--little-threads", str(policy.little_threads)] if lanes else []
        return [tools.bve_run, "serve", file, *options, *keep, *little, *(["--choose"] if policy.choose else [])]
    method = ["--method", case.method.name] if case.method else []
    delegate = ["--delegate", tools.delegates[case.format]] if case.native else []
    saturating = ["--saturating"] if case.format == "onnx" and saturates(tools.machine) else []
    pictures = ["--frames", tools.frames, "--preprocessing", case.spell_preprocessing()]
    return [
        *tools.python, tools.agent, case.format, file, *options, "--clock", tools.bve_run, *method, *delegate,
        *saturating, *pictures,
    ]  # fmt: skip


def saturates(machine: Machine) -> bool:
    """Tell whether the CPU's int8 products saturate: x86 without VNNI."""
    return machine.architecture == "x86_64" and not any("vnni" in flag for flag in machine.isa)


def explain_absence(tools: Tools, case: Case) -> str:
    """Explain why a case cannot run there; "" if it can."""
    if case.runs_nowhere:
        return case.runs_nowhere
    if case.format == "bve":
        return ""
    if case.format in tools.lacks:
        return tools.lacks[case.format]
    if case.native and case.format not in tools.delegates:
        return "its ops are our core's, whose library for this runtime is brought to no other machine yet"
    return ""


def find_tools(device: Device, store: Store, bve_run: str, formats: set[str]) -> Tools:
    """Bring a bench's tools to a device; find what is there.

    bve_run: that program's path there. formats: those that are to be measured.
    """
    digest = run_words(device, ("sha256sum", bve_run)).out.partition(" ")[0]
    tools = Tools(bve_run, digest, "", probe(device, bve_run))
    wanted = sorted(formats - {"bve"})
    if not wanted:
        return tools
    python = find_python(device)
    if not python:
        why = "no Python 3 there, in which this format's runtime would run"
        return replace(tools, lacks=dict.fromkeys(wanted, why))
    agent, frames = store.place(AGENT), store.place(FRAMES)
    told = {name: run_words(device, (*python, agent, name, "--probe"), 120) for name in wanted}
    return replace(
        tools,
        agent=agent,
        frames=frames,
        python=python,
        runtimes={
            name: parse_line(done.out, device, lambda told: str(told["version"]))
            for name, done in told.items()
            if not done.status
        },
        lacks={name: _take_last(done.err) for name, done in told.items() if done.status},
        delegates=_find_delegates() if device.in_place else {},
    )


def probe(device: Device, bve_run: str) -> Machine:
    """Ask a device what it is."""
    done = run_words(device, (bve_run, "probe"))
    if done.status:
        met = f"bve-run on {device.name} ended with status {done.status} ({_take_last(done.err)})"
        raise DeviceError(met, "one that runs there", "see what it says")
    return parse_machine(done.out)


def find_python(device: Device) -> tuple[str, ...]:
    """Find what starts Python 3 there.

    This interpreter itself on this machine; () if there is none.
    """
    if device.in_place:
        return (sys.executable,)
    done = run_words(device, ("python3", "-c", "import sys; print(sys.version_info >= (3, 8))"))
    return ("python3",) if done.status == 0 and done.out.strip() == "True" else ()


def _find_delegates() -> dict[str, str]:
    from bigvit_edge.runtime import find_library

    found = {}
    for name, library in (("litert", "libbve_litert.so"), ("executorch", "libbve_executorch.so")):
        try:
            found[name] = str(find_library(library))
        except UserError:
            continue
    return found


def _read_ready(told: dict[str, Any]) -> Ready:
    build = {**told["build"], **{k: v for k, v in told["session"].items() if k not in ("ops", "cores")}}
    return Ready(
        f"{told['runtime']} {told['version']}".strip(), build, float(told["load_ms"]), float(told["first_ms"]),
        told["cached_share"], tuple(told["cores_allowed"]), int(told["image_floats"]),
    )  # fmt: skip


def _read_turn(told: dict[str, Any]) -> Turn:
    turn = Turn(
        start_ns=int(told["start_ns"]), end_ns=int(told["end_ns"]), times_ms=tuple(map(float, told["times_ms"])),
        cpu_ms=float(told["cpu_ms"]), clock_mhz=tuple(told["clock_mhz"]), cores=dict(told["cores"]),
        thread_ms=dict(told["thread_ms"]),
        throttled_periods=None if (periods := told["throttled_periods"]) is None else int(periods),
    )  # fmt: skip
    if not turn.times_ms or not all(0 < ms < math.inf for ms in turn.times_ms) or turn.end_ns <= turn.start_ns:
        raise ValueError("times that no clock tells")
    return turn


def _read_frames(told: dict[str, Any]) -> FrameTurn | str:
    if "lack" in told:
        return str(told["lack"])
    label_ms, prepare_ms = (tuple(map(float, told[name])) for name in ("label_ms", "prepare_ms"))
    turn = FrameTurn(
        str(told["frame"]), str(told["prepared_by"]), int(told["start_ns"]), int(told["end_ns"]), label_ms, prepare_ms
    )
    pairs = list(zip(prepare_ms, label_ms, strict=True))
    if not pairs or not all(0 < part <= whole < math.inf for part, whole in pairs) or turn.end_ns <= turn.start_ns:
        raise ValueError("times that no clock tells")
    return turn


def _take_last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it says nothing"
