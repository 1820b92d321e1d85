"""A camera's frame to a model's input: `python tests/bench_frames.py FILE.bve`. On a quiet machine.

Ours: bve_set_frame, to the packed patches of a session. OpenCV's: the frame's square converted to RGB, resized, turned,
normalised in float32 and laid out as [1, 3, S, S]; by INTER_AREA at once, and in two steps, by INTER_AREA and a whole
factor and then by INTER_LINEAR. One thread on one core, a few frames each in turns; medians of its CPU time, and how
far the pixels of each are from Pillow's of the frame converted in floats.

--opencv: a Python interpreter with numpy and opencv-python-headless.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

Planes = list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]

SIZES = {"1080p": (1920, 1080), "720p": (1280, 720), "VGA": (640, 480)}
CASES = (
    ("1080p", "NV21", 90), ("1080p", "NV21", 0), ("1080p", "NV12", 270), ("1080p", "YUV420", 90), ("1080p", "BGRA", 90),
    ("1080p", "RGB", 90), ("720p", "NV21", 90), ("VGA", "NV21", 90),
)  # fmt: skip
LIMITED_601 = 1  # BVE_BT601, the only matrix of YUV that OpenCV has
WAYS = ("at once", "in two steps")  # of OpenCV
TITLE = ("frame", "turned by", "ours", "levels from Pillow", *[f"OpenCV {way}, ours to it, its levels" for way in WAYS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--opencv", metavar="PYTHON", help="an interpreter")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--frames", type=int, default=10, help="of a turn")
    options = parser.parse_args()

    from bigvit_edge import machine, runtime
    from bigvit_edge.tables import print_rows

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with runtime.Session(options.file) as session, tempfile.TemporaryDirectory() as folder:
        other = Other(options.opencv) if options.opencv else None
        rows = [measure(session, case, other, options, Path(folder)) for case in CASES]
        if other:
            other.close()
    print_rows(TITLE if other else TITLE[:4], rows)
    print(f"{options.rounds} turns of {options.frames} frames, {date.today()}")
    print(machine.describe(runtime.probe()))


def measure(
    session: Any, case: tuple[str, str, int], other: "Other | None", options: argparse.Namespace, folder: Path
) -> tuple[str, ...]:
    """Time a case in turns, and compare what comes out."""
    from tests.runtime.test_frame_reader import Frame, read

    size, format, rotation = case
    planes = draw(*SIZES[size], format)
    pixels = planes if format != "BGRA" else [np.ascontiguousarray(planes[0][..., 2::-1])]
    frame = Frame(tuple(pixels), format, rotation, LIMITED_601 if len(planes) > 1 else 0)
    set_frame = prepare_ours(session, frame)
    words = {"size": SIZES[size], "format": format, "rotation": rotation, "frames": options.frames}
    ours: list[float] = []
    theirs: dict[str, list[float]] = {way: [] for way in WAYS if other}
    for _ in range(options.rounds):
        ours += time_calls(set_frame, options.frames)
        for way, times in theirs.items():
            times += other.ask({**words, "way": way, "path": str(folder / f"{way}.npy")}) if other else ()
    exact, median = resize(frame.convert(), session.shape[2]), statistics.median(ours)
    metadata = json.dumps(session.program["metadata"]).encode()
    away = tell_distance(read(frame, metadata, session.shape[2]), exact)
    told = [
        f"{statistics.median(times):.2f} ms, {median / statistics.median(times):.2f}, "
        f"{tell_distance(np.load(folder / f'{way}.npy'), exact)}"
        for way, times in theirs.items()
    ]
    return f"{size} {format}", f"{rotation}°", f"{median:.2f} ms", away, *told


def prepare_ours(session: Any, frame: Any) -> Callable[[], None]:
    """A call that sets the frame for the session's next run."""
    import ctypes

    from bigvit_edge.runtime import load_library

    function, described, error = load_library().bve_set_frame, frame.describe(), ctypes.create_string_buffer(512)
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    at = ctypes.byref(described)

    def set_frame() -> None:
        if function(session._session, at, error):
            raise RuntimeError(error.value.decode())

    return set_frame


def resize(rgb: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """The square in the middle by Pillow, antialiased."""
    from PIL import Image

    picture = Image.fromarray(rgb)
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box))


def tell_distance(found: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> str:
    away = np.abs(found.astype(int) - exact)
    return f"{away.mean():.2f}, at most {away.max()}"


def draw(width: int, height: int, format: str) -> Planes:
    """Soft shapes with noise on them, as a camera has: RGB, BGRA, or Y, U and V."""
    rng = np.random.default_rng(0)
    x, y = np.arange(width), np.arange(height)[:, None]

    def shape(step: int, phase: float) -> Any:
        wave = 110 + 60 * np.sin(x[::step] / 71 + phase) * np.cos(y[::step] / 53)
        return (wave + rng.normal(0, 8, wave.shape)).clip(0, 255).astype(np.uint8)

    if format in ("RGB", "BGRA"):
        channels = [shape(1, i) for i in range(3)] + [np.full((height, width), 255, np.uint8)] * (format == "BGRA")
        return [np.ascontiguousarray(np.stack(channels, axis=2))]
    return [shape(1, 0), shape(2, 1), shape(2, 2)]


def time_calls(call: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of CPU time of each call, after one that is not counted."""
    call()
    times = []
    for _ in range(count):
        start = time.thread_time()
        call()
        times.append(1e3 * (time.thread_time() - start))
    return times


# ---- OpenCV, in a process of an interpreter that has it --------------------------------------------------------------


class Other:
    """That process."""

    def __init__(self, interpreter: str) -> None:
        words = [interpreter, __file__, "--answer"]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, words: dict[str, Any]) -> list[float]:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(words), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("OpenCV's process ended: see above")
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def answer() -> None:
    """Time what is asked for, line by line."""
    import cv2  # type: ignore[import-not-found]

    cv2.setNumThreads(1)
    drawn: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        words = json.loads(line)
        key = words["path"] + json.dumps([words["size"], words["format"], words["rotation"]])
        if key not in drawn:
            width, height = words["size"]
            drawn[key] = prepare_theirs(
                cv2, draw(width, height, words["format"]), words["format"], words["rotation"], words["way"]
            )
            np.save(words["path"], drawn[key]()[1])
        print(json.dumps(time_calls(drawn[key], words["frames"])), flush=True)


def prepare_theirs(cv2: Any, planes: Planes, format: str, rotation: int, way: str) -> Callable[[], Any]:
    """A call that makes [1, 3, 224, 224] of a frame, and returns it and its pixels."""
    height, width = planes[0].shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    turn = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}.get(rotation)
    mean, std = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)
    factor, shift = 1 / (255 * std), -mean / std
    if format in ("NV12", "NV21"):
        order = planes[1:] if format == "NV12" else planes[:0:-1]
        pairs = np.ascontiguousarray(np.stack(order, axis=2))
        code = cv2.COLOR_YUV2RGB_NV12 if format == "NV12" else cv2.COLOR_YUV2RGB_NV21
    elif format == "YUV420":  # which OpenCV takes whole only
        whole = np.concatenate([plane.ravel() for plane in planes]).reshape(height * 3 // 2, width)
        whole_rgb = np.empty((height, width, 3), np.uint8)

    # Memory is taken once: fresh pages cost more than the work.
    between, channels = side // (side // 224), planes[0].shape[2] if planes[0].ndim == 3 else 3
    middle, small = (np.empty((length, length, channels), np.uint8) for length in (between, 224))
    rgb = np.empty((side, side, 3), np.uint8)
    colored, turned = np.empty((224, 224, 3), np.uint8), np.empty((224, 224, 3), np.uint8)
    image = np.empty((1, 3, 224, 224), np.float32)

    def convert() -> Any:
        if format in ("NV12", "NV21"):
            luma = planes[0][top : top + side, left : left + side]
            chroma = pairs[top // 2 : (top + side) // 2, left // 2 : (left + side) // 2]
            return cv2.cvtColorTwoPlane(luma, chroma, code, rgb)
        if format == "YUV420":
            return cv2.cvtColor(whole, cv2.COLOR_YUV2RGB_I420, whole_rgb)[top : top + side, left : left + side]
        return planes[0][top : top + side, left : left + side]

    def prepare() -> Any:
        pixels = convert()
        if way == WAYS[1]:
            pixels = cv2.resize(pixels, (between, between), middle, interpolation=cv2.INTER_AREA)
        linear_or_area = cv2.INTER_LINEAR if way == WAYS[1] else cv2.INTER_AREA
        pixels = cv2.resize(pixels, (224, 224), small, interpolation=linear_or_area)
        if format == "BGRA":
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB, colored)
        if turn is not None:
            pixels = cv2.rotate(pixels, turn, turned)
        for c in range(3):
            np.multiply(pixels[..., c], factor[c], out=image[0, c])
            image[0, c] += shift[c]
        return image, pixels

    return prepare


if __name__ == "__main__":
    if sys.argv[1:] == ["--answer"]:
        answer()
    else:
        main()
