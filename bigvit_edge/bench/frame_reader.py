"""From a camera's frame to a label, for the agent: it is copied to the device beside that, and imports nothing but the
standard library and numpy, until a frame is asked for: bigvit-edge reads those, where it is installed there."""

import importlib
import json
import sys
import time
from typing import Any

import numpy as np

WIDTH, HEIGHT, FORMAT, ROTATION = 1920, 1080, "NV21", 90
FRAME = f"{WIDTH}x{HEIGHT} {FORMAT}, turned by {ROTATION} degrees"
PREPARED_BY = "bve_read_frame_by"
PICTURES = "metadata_preprocessing"  # of a .pte: a method that says how they are prepared
UNTOLD = "neither the file nor its bundle says how pictures are prepared"


class LackError(Exception):
    """Why no frame can be prepared."""


class Labeller:
    """Turns from a frame in memory to a model's label.

    image: one that the model's file takes. preprocessing: JSON, as a manifest has it; "" for what the file says.
    """

    def __init__(self, runtime: Any, image: Any, preprocessing: str) -> None:
        self.runtime, self.lack = runtime, ""
        try:
            self.reader = FrameReader(preprocessing or read_preprocessing(runtime), image)
        except LackError as e:
            self.lack = str(e)

    def time_turn(self, turn: "tuple[float, int, int]", commands: Any) -> "dict[str, Any] | None":
        """Time frames for some seconds and a number at least.

        Paced where nanoseconds are given. None if whoever asks has gone.
        """
        if self.lack:
            return {"lack": self.lack}
        (seconds, images, period_ns), read_clock = turn, time.monotonic_ns
        label_ms: list[float] = []
        prepare_ms: list[float] = []
        prepare, run = self.reader.prepare, self.runtime.run
        int(run(prepare()).argmax())  # what rested meanwhile is awake again
        start = now = read_clock()
        due, end = start + period_ns, start + int(seconds * 1e9)
        while len(label_ms) < images or now < end:
            if commands.ended():
                return None
            if period_ns and (early := due - read_clock()) > 0:
                time.sleep(early / 1e9)
            due += period_ns
            before = read_clock()
            image = prepare()
            prepared = read_clock()
            top = int(run(image).argmax())
            now = read_clock()
            prepare_ms.append((prepared - before) / 1e6)
            label_ms.append((now - before) / 1e6)
        return {
            "frame": FRAME, "prepared_by": self.reader.prepared_by, "start_ns": start, "end_ns": now,
            "label_ms": label_ms, "prepare_ms": prepare_ms, "top": top,
        }  # fmt: skip


class FrameReader:
    """The way from the frame to the model's input.

    LackError where there is none.
    """

    def __init__(self, preprocessing: str, image: Any) -> None:
        if not preprocessing:
            raise LackError(UNTOLD)
        frames, words = import_ours("runtime.frames"), import_ours("preprocessing")
        try:
            self.how = how = words.Preprocessing(**json.loads(preprocessing))
        except (ValueError, TypeError) as e:
            raise LackError(f"a preprocessing that cannot be understood ({type(e).__name__}: {e})") from e
        if (str(image.dtype), image.shape) != (how.dtype, how.shape):
            met = f"an input of {image.dtype} {list(image.shape)}"
            raise LackError(f"{met}, where the preprocessing makes {how.dtype} {list(how.shape)}")
        self.is_float, self.is_nhwc = how.dtype == "float32", how.layout == "NHWC"
        self.prepared_by = f"{PREPARED_BY}, numpy" if self.is_float else PREPARED_BY
        self.scale = np.float32(1 / how.scale)
        self.mean, self.std = np.array(how.mean, np.float32), np.array(how.std, np.float32)
        self.read = frames.read_frame
        try:
            self.frame = frames.Frame(draw_frame(), FORMAT, ROTATION)
            self.prepare()
        except import_ours("errors").UserError as e:
            raise LackError(f"{e.met}, expected {e.expected}") from e

    def prepare(self) -> Any:
        """Prepare the frame: the model's input."""
        pixels = self.read(self.frame, self.how)
        if self.is_float:
            colors = pixels[..., ::-1] if self.how.color == "BGR" else pixels
            pixels = (colors / self.scale - self.mean) / self.std
        return np.ascontiguousarray((pixels if self.is_nhwc else pixels.transpose(2, 0, 1))[None])


def import_ours(name: str) -> Any:
    """Import a module of bigvit-edge on this machine."""
    try:
        return importlib.import_module(f"bigvit_edge.{name}")
    except ImportError as e:
        met = f"no bigvit-edge for {sys.executable} that reads frames ({e})"
        raise LackError(f"{met}; do there: pip install bigvit-edge") from e


def read_preprocessing(runtime: Any) -> str:
    """Read what a file says of pictures, if it tells."""
    if runtime.name == "onnx":
        return str(runtime.session.get_modelmeta().custom_metadata_map.get("preprocessing", ""))
    if runtime.name == "executorch":
        names = [runtime.program.get_method_name(i) for i in range(runtime.program.num_methods())]
        return str(runtime.program.load_method(PICTURES)(())[0]) if PICTURES in names else ""
    return ""


def draw_frame() -> "tuple[Any, Any]":
    """Draw the frame that every runner has.

    Planes of Y, and of pairs of V and U.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pairs = (7 * x + 11 * y)[: HEIGHT // 2].reshape(HEIGHT // 2, WIDTH // 2, 2)
    return (31 * x + 17 * y).astype(np.uint8), pairs.astype(np.uint8)
