"""A measurement as a file: what was measured, of what, where, how, and whether it may be believed.

One file a bench, `results/*.json`. There is one version so far, and readers take no other.
"""

import hashlib
import json
import math
import os
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bigvit_edge.errors import UserError
from bigvit_edge.machine import Machine

VERSION = 1
MOST_BYTES = 2**30  # of a result file
LEAST_BYTES = 2**14  # of one of a row
# What a row may be called; more than one where more than one is true. A row with no other is valid.
VERDICTS = VALID, NOISY, THROTTLED, QUOTA, NOT_PINNED, FAILED = (
    "valid", "noisy", "throttled", "quota", "not pinned", "failed"
)  # fmt: skip
NOT_AVAILABLE = "not available"


@dataclass(frozen=True)
class Times:
    """The distribution of some images' times, in milliseconds."""

    p50: float
    p90: float
    p99: float
    min: float
    mean: float
    max: float
    images: int


@dataclass(frozen=True)
class Turn:
    """Some images of one file, one after the other or paced.

    start_ns, end_ns: of the device's monotonic clock. times_ms: of each image. cpu_ms: the process's CPU time, of all
    its threads, over the turn, an image; None in a browser, which does not tell. clock_mhz: of the calling thread's
    core, before and after; None where it cannot be measured. cores: how often the caller was on which after an image.
    throttled_periods: those of the cgroup's quota that were cut meanwhile. temp_c: the CPU's hottest, after it. part:
    0, or higher after each time that the bench was resumed.
    """

    start_ns: int
    end_ns: int
    times_ms: tuple[float, ...]
    cpu_ms: float | None
    clock_mhz: tuple[float | None, float | None]
    cores: dict[str, int]
    thread_ms: dict[str, float]
    throttled_periods: int | None = None
    temp_c: float | None = None
    part: int = 0


@dataclass(frozen=True)
class Load:
    """How long a file takes until its first answer, in milliseconds.

    Cold and warm in processes of their own whose runtime is imported already. cold: the file's pages had left the
    system's cache, but for `cached_share` of them (None: not told); warm: they were in it. first: the first image after
    each load; of formats that are mapped, the first cold one reads the weights.
    """

    cold_ms: float
    cold_first_ms: float
    cached_share: float | None
    warm_ms: float
    first_ms: float


@dataclass(frozen=True)
class Memory:
    """Peak resident memory of a process with the file.

    In a pass of its own, which loads it and runs it. peak: of everything, the runtime's own code and Python too;
    anonymous: what is no file's, at the end.
    """

    peak_bytes: int
    anonymous_bytes: int


@dataclass(frozen=True)
class Energy:
    """Energy an image, in a pass of its own, in millijoules.

    image_mj: of all that the sensor sees; above_idle_mj: less what it saw of the idle machine. power_w: mean over
    `seconds`. source: sensor and rail; scale: how its unit and sign were established.
    """

    image_mj: float
    above_idle_mj: float
    power_w: float
    idle_w: float
    seconds: float
    samples: int
    source: str
    scale: str


@dataclass(frozen=True)
class Answers:
    """What a file answered to pictures there.

    top1: the share that is right; pictures: which they are.
    """

    top1: float
    images: int
    pictures: str


@dataclass(frozen=True)
class Frames:
    """What an app pays from a camera's frame to a label.

    frame: what lay in memory; prepared_by: whose code made the model's input of it. turns: those of the row that frames
    followed, by number; model_ms: the median of just these. label_times_ms: of each frame, until its class was known;
    prepare_times_ms: of these, until the input was ready. ratio: of label_ms' median to model_ms.
    """

    frame: str
    prepared_by: str
    turns: tuple[int, ...] = ()
    label_times_ms: tuple[float, ...] = ()
    prepare_times_ms: tuple[float, ...] = ()
    label_ms: Times | None = None
    prepare_ms: Times | None = None
    model_ms: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Surroundings:
    """What an app or a browser ran in while it measured.

    foreground: whether a person saw it from the first turn to the last. cpuset: of the process that measured, as the
    system names it ("/top-app"). thermal_status: Android's, 0 (none) to 6 (shutdown), before and after;
    thermal_headroom: its forecast, 1 where it throttles severely. agent: what a browser calls itself; isolated: whether
    its page was isolated across origins, without which it has no threads. None, "": not told.
    """

    foreground: bool | None = None
    cpuset: str = ""
    thermal_status: tuple[int | None, int | None] = (None, None)
    thermal_headroom: tuple[float | None, float | None] = (None, None)
    agent: str = ""
    isolated: bool | None = None


@dataclass(frozen=True)
class Row:
    """One file on one set of cores.

    file: its name, after as much of its folders as tells it from the others of the bench. sha256, bytes, format,
    precision, keep, method: as of the bundle's manifest (precision "" of a file alone).
    delegated_share: of the multiply-accumulates, that the intended unit takes, None if nobody says. policy: the cluster
    words asked for, or cores; cores_asked: what they are here; cores_allowed: what the system left of them, read back.
    runtime: its name and version, build: what else it says of itself; launch: local, ssh, adb shell, app or browser.
    error: why there is no measurement. energy, answers: or a text that says why not. throttled_share: of the measured
    time, that of turns whose clock was lower than that of the first by what counts as throttled. reasons: of the
    verdicts. surroundings: of an app's or a browser's row. frame: or a text that says why not; None in an older result.
    """

    file: str
    sha256: str
    bytes: int
    format: str
    precision: str
    keep: float | None
    method: str | None
    delegated_share: float | None
    policy: str
    threads: int
    cores_asked: tuple[int, ...] | None
    launch: str
    runtime: str = ""
    build: dict[str, Any] | None = None
    cores_allowed: tuple[int, ...] = ()
    warmup_images: int = 0
    warm: bool = False
    turns: tuple[Turn, ...] = ()
    latency_ms: Times | None = None
    cpu_ms: float | None = None
    first_minute_ms: float | None = None
    last_minute_ms: float | None = None
    load: Load | None = None
    memory: Memory | None = None
    energy: Energy | str = NOT_AVAILABLE
    answers: Answers | str = NOT_AVAILABLE
    verdicts: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    error: str = ""
    throttled_share: float | None = None
    surroundings: Surroundings | None = None
    frame: Frames | str | None = None

    def name(self) -> str:
        """Name the row apart from its neighbours."""
        keep = "" if self.keep is None else f" keep {self.keep:g}"
        return f"{self.file}{keep} on {self.policy}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def times_ms(self) -> tuple[float, ...]:
        """List the times of all images, in order."""
        return tuple(ms for turn in self.turns for ms in turn.times_ms)


@dataclass(frozen=True)
class Protocol:
    """How a bench was run.

    turn_s, turn_images: the least that a turn takes; rounds: turns of each row (0: by `minutes`). fps: 0 back to back,
    else images come at that pace. cool_c: a turn waited for the CPU to be below it. images: what the answers are of.
    """

    turn_s: float
    turn_images: int
    rounds: int
    minutes: float
    fps: float
    cool_c: float | None
    pictures: str


@dataclass(frozen=True)
class Result:
    """A bench: a device, and rows whose turns were interleaved.

    key: of the same device, files and protocol, which `--resume` looks for; complete: whether all rounds were run.
    date: UTC, of the start. tool: bigvit-edge's version. machine: as probed before. notes: of the pictures.
    throttled_bits: as a Raspberry Pi's firmware tells them, before and at the end; None where it does not.
    """

    device: str
    machine: Machine
    protocol: Protocol
    rows: tuple[Row, ...]
    date: str
    tool: str
    command: tuple[str, ...]
    key: str
    complete: bool = False
    notes: tuple[str, ...] = ()
    throttled_bits: tuple[int | None, int | None] = (None, None)
    version: int = VERSION
    sha256: str | None = None


def describe_times(times_ms: Sequence[float]) -> Times:
    """Describe times by rank.

    As MLPerf does: the p-th is the smallest that p of all do not exceed. The median of an even number is the mean of
    the middle two. ValueError if there are none.
    """
    if not times_ms:
        raise ValueError("no times")
    ordered = sorted(times_ms)
    p90, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.9, 0.99))
    return Times(statistics.median(ordered), p90, p99, ordered[0], statistics.fmean(ordered), ordered[-1], len(ordered))


def spell_path(path: str | Path) -> str:
    """Spell a path so that JSON can hold it.

    Bytes that are no text come as '\\xe9'.
    """
    return os.fsencode(path).decode(errors="backslashreplace")


def write_result(result: Result, path: Path) -> Result:
    """Write a result whole, or leave what is there.

    Returns it with the hash that was written.
    """
    data = asdict(result)
    data["sha256"] = _hash(json.loads(json.dumps(data)))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _name_part(path)
    try:
        part.write_text(_layout(data))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return replace(result, sha256=data["sha256"])


def check_writable(path: Path) -> None:
    """Check that a result could be written to `path`, and leave nothing.

    UserError if not.
    """
    part = _name_part(path)
    made = [folder for folder in part.parents if not os.path.lexists(folder)]
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            file.write(bytes(LEAST_BYTES))
    except OSError as e:
        raise UserError(
            f"{path} cannot be written ({e.strerror})", "a file in a folder with room", "choose another"
        ) from e
    finally:
        for leave in (part.unlink, *(folder.rmdir for folder in made)):
            with suppress(OSError):
                leave()


def _name_part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def read_result(path: Path) -> Result:
    """Read a result.

    UserError if it is none of this version, was edited by hand, or contradicts itself.
    """
    from pydantic import TypeAdapter, ValidationError

    data = _parse(path)
    again = "measure again"
    if data.get("version") != VERSION:
        has = f"version {data['version']}" if "version" in data else "no version"
        raise UserError(f"{path} has {has}", f"version {VERSION} of a result of bigvit-edge bench", again)
    try:
        result = TypeAdapter(Result).validate_json(json.dumps(data))
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        met = f"{path} cannot be understood ({where}: {first['msg']})"
        raise UserError(met, "a result as bigvit-edge bench writes it", again) from e
    if data.get("sha256") != _hash(data):
        raise UserError(f"{path} was edited after the measurement", "a result as it was measured", again)
    return result


def find_schema() -> dict[str, Any]:
    """Find the JSON schema of a result file."""
    from pydantic import TypeAdapter

    return TypeAdapter(Result).json_schema()


def _hash(data: dict[str, Any]) -> str:
    text = json.dumps({key: value for key, value in data.items() if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _layout(data: dict[str, Any]) -> str:
    """Indented by one, with lists of numbers on one line: they are most of the file."""

    def spell(value: Any, indent: int) -> str:
        inner = " " * (indent + 1)
        if isinstance(value, dict) and value:
            fields = (f"{inner}{json.dumps(key)}: {spell(item, indent + 1)}" for key, item in value.items())
            return "{\n" + ",\n".join(fields) + "\n" + " " * indent + "}"
        if isinstance(value, list | tuple) and any(isinstance(item, dict | list | tuple) for item in value):
            return "[\n" + ",\n".join(inner + spell(item, indent + 1) for item in value) + "\n" + " " * indent + "]"
        return json.dumps(value, allow_nan=False)

    return spell(data, 0) + "\n"


def _parse(path: Path) -> dict[str, Any]:
    expected = "a result file of bigvit-edge bench"
    if not os.path.lexists(path):
        raise UserError(f"no file {path}", expected, "check the path")
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path} is no plain file, or is larger than {MOST_BYTES} bytes", expected, "check the path")

    def refuse(word: str) -> float:
        raise ValueError(f"the number {word}")

    try:
        data = json.loads(path.read_bytes(), parse_constant=refuse)
        if not isinstance(data, dict):
            raise ValueError("no object")
    except OSError as e:
        raise UserError(f"{path} cannot be read ({e.strerror})", expected, "check the path") from e
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path} cannot be understood ({e})", expected, "measure again, if it was one") from e
    return data
