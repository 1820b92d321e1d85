"""From a camera's frame to a label, for the agent: it is copied to the device beside that, and imports nothing but the
standard library and numpy. The pixels are libbve.so's (runtime/bve.h), which bigvit-edge brings there."""

import ctypes
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

LIBRARY, OVERRIDE = "libbve.so", "BVE_LIBRARY"  # as bigvit_edge.runtime has them
WIDTH, HEIGHT, NV21, ROTATION = 1920, 1080, 5, 90
FRAME = f"{WIDTH}x{HEIGHT} NV21, turned by {ROTATION} degrees"
PREPARED_BY = "bve_read_frame_by"
PICTURES = "metadata_preprocessing"  # of a .pte: a method that says how they are prepared
UNTOLD = "neither the file nor its bundle says how pictures are prepared"


class LackError(Exception):
    """Why no frame can be prepared."""


class _Error(ctypes.Structure):
    _fields_ = (("text", ctypes.c_char * 512),)


class _Frame(ctypes.Structure):
    _fields_ = (
        ("planes", ctypes.c_void_p * 3), ("stride_bytes", ctypes.c_size_t * 3), ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32), ("format", ctypes.c_uint32), ("rotation", ctypes.c_uint32),
        ("matrix", ctypes.c_uint32), ("pixel_stride", ctypes.c_uint32), ("reserved", ctypes.c_uint32 * 2),
    )  # fmt: skip


class Frames:
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
        try:
            how = json.loads(preprocessing)
            self.size, self.is_bgr = int(how["size"]), how["color"] == "BGR"
            self.scale = np.float32(1 / how["scale"])
            self.mean, self.std = (np.array(how[name], np.float32) for name in ("mean", "std"))
            dtype, self.is_nhwc = how.get("dtype", "float32"), how["layout"] == "NHWC"
        except (ValueError, TypeError, KeyError, ArithmeticError) as e:
            raise LackError(f"a preprocessing that cannot be understood ({type(e).__name__}: {e})") from e
        expected = (1, self.size, self.size, 3) if self.is_nhwc else (1, 3, self.size, self.size)
        if (str(image.dtype), image.shape) != (dtype, expected):
            met = f"an input of {image.dtype} {list(image.shape)}"
            raise LackError(f"{met}, where the preprocessing makes {dtype} {list(expected)}")
        self.is_float = dtype == "float32"
        self.prepared_by = f"{PREPARED_BY}, numpy" if self.is_float else PREPARED_BY
        pixels = {name: value for name, value in how.items() if name not in ("dtype", "layout")}
        self.metadata = json.dumps({"preprocessing": json.dumps(pixels)}).encode()
        self.pixels, self.error = np.empty((self.size, self.size, 3), np.uint8), _Error()
        self.read, self.planes = find_function(), draw_frame()
        places = (ctypes.c_void_p * 3)(*(plane.ctypes.data for plane in self.planes))
        self.frame = _Frame(places, (ctypes.c_size_t * 3)(WIDTH, WIDTH), WIDTH, HEIGHT, NV21, ROTATION)
        self.prepare()

    def prepare(self) -> Any:
        """Prepare the frame: the model's input."""
        status = self.read(
            self.metadata, ctypes.byref(self.frame), self.pixels.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_size_t(self.pixels.size), ctypes.byref(self.error),
        )  # fmt: skip
        if status:
            raise LackError(self.error.text.decode(errors="replace"))
        image: Any = self.pixels
        if self.is_float:
            colors = image[..., ::-1] if self.is_bgr else image
            image = (colors / self.scale - self.mean) / self.std
        return np.ascontiguousarray((image if self.is_nhwc else image.transpose(2, 0, 1))[None])


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
    planes = 31 * x + 17 * y, (7 * x + 11 * y)[: HEIGHT // 2]
    first, second = (np.ascontiguousarray(plane & 255, np.uint8) for plane in planes)
    return first, second


def find_function() -> Any:
    """Find the library's function on this machine."""
    named, spec = os.environ.get(OVERRIDE), importlib.util.find_spec("bigvit_edge")
    if not named and not (spec and spec.origin):
        raise LackError(f"no bigvit-edge for {sys.executable}, which reads frames; do there: pip install bigvit-edge")
    path = named or Path(spec.origin).parent / "runtime" / LIBRARY  # type: ignore[union-attr, arg-type]
    try:
        return getattr(ctypes.CDLL(str(path)), PREPARED_BY)
    except (OSError, AttributeError) as e:
        raise LackError(f"{path} reads no frames ({e})") from e
