"""Frames of cameras, as our runtime takes them: pixels in memory of 8 bits, in RGB or YUV, and how they are turned."""

import ctypes
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.errors import UserError, suggest
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.runtime import abi

Pixels = NDArray[np.uint8]
Shape = tuple[int, ...]

ROTATIONS = (0, 90, 180, 270)
MATRICES = {"BT.601 full": 0, "BT.601": 1, "BT.709 full": 2, "BT.709": 3}  # bve.h's numbers
MOST_SIDE = 2**24


def _halve(height: int, width: int) -> Shape:
    return (height + 1) // 2, (width + 1) // 2


@dataclass(frozen=True)
class _Format:
    number: int  # bve.h's
    list_shapes: Callable[[int, int], tuple[Shape, ...]]  # of the planes, of a frame of that height and width


FORMATS = {
    "RGB": _Format(1, lambda height, width: ((height, width, 3),)),
    "RGBA": _Format(2, lambda height, width: ((height, width, 4),)),
    "BGRA": _Format(3, lambda height, width: ((height, width, 4),)),
    "NV12": _Format(4, lambda height, width: ((height, width), (*_halve(height, width), 2))),
    "NV21": _Format(5, lambda height, width: ((height, width), (*_halve(height, width), 2))),
    "YUV420": _Format(6, lambda height, width: ((height, width), _halve(height, width), _halve(height, width))),
}


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame as it lies in memory, which is not copied.

    planes: uint8; RGB [H, W, 3]; RGBA, BGRA [H, W, 4], taken as opaque; NV12, NV21: Y [H, W], then pairs of U and V, of
    V and U [H / 2, W / 2, 2], halves rounded up; YUV420: Y, U, V. Rows may lie apart, and U's and V's pixels of YUV420
    by two bytes, as Android's. format: one of FORMATS; rotation: degrees clockwise that turn it upright, 0, 90, 180 or
    270; matrix: of YUV, one of MATRICES: 'BT.601 full' is what Android's cameras and JPEG files have.

    UserError on what cannot be.
    """

    planes: tuple[Pixels, ...]
    format: str
    rotation: int = 0
    matrix: str = "BT.601 full"

    def __post_init__(self) -> None:
        for name, value, known in (("format", self.format, FORMATS), ("matrix", self.matrix, MATRICES)):
            if not isinstance(value, str) or value not in known:
                met = f"a frame with {name} {value!r}"
                raise UserError(met, f"one of {', '.join(known)}", suggest(str(value), list(known)))
        if not isinstance(self.rotation, Integral) or self.rotation not in ROTATIONS:
            raise UserError(
                f"a frame with rotation {self.rotation!r}",
                "0, 90, 180 or 270 degrees",
                "give how far it is to be turned clockwise",
            )
        for plane in self.planes:
            if not (isinstance(plane, np.ndarray) and plane.dtype == np.uint8):
                raise UserError(
                    f"a frame with a plane of {_describe(plane)}",
                    "numpy arrays of uint8",
                    "give its planes as they lie",
                )
        sides = self.planes[0].shape[:2] if len(self.planes) else ()
        height, width = sides if len(sides) == 2 and min(sides) > 0 else (2, 2)  # whatever shows the shapes
        wanted = FORMATS[self.format].list_shapes(height, width)
        if tuple(plane.shape for plane in self.planes) != wanted:
            met = f"a frame with planes {_list_shapes(plane.shape for plane in self.planes) or 'missing'}"
            raise UserError(met, f"of {self.format} such as {_list_shapes(wanted)}", "give its planes as they lie")
        if max(height, width) > MOST_SIDE:
            raise UserError(f"a frame of {width} x {height} pixels", f"at most {MOST_SIDE} a side", "make it smaller")
        self._measure()

    @property
    def height(self) -> int:
        """Rows, as it lies in memory."""
        return int(self.planes[0].shape[0])

    @property
    def width(self) -> int:
        """Pixels of a row, as it lies in memory."""
        return int(self.planes[0].shape[1])

    @classmethod
    def from_bytes(
        cls, data: bytes | bytearray | memoryview | Pixels, width: int, height: int, format: str,
        rotation: int = 0, matrix: str = "BT.601 full",
    ) -> Self:  # fmt: skip
        """Take a frame whose rows and planes lie without gaps.

        Such as NV21 of a camera. Nothing is copied. UserError where the bytes are not as many as that.
        """
        if not isinstance(format, str) or format not in FORMATS:
            raise UserError(f"format {format!r}", f"one of {', '.join(FORMATS)}", suggest(str(format), list(FORMATS)))
        if not (isinstance(width, Integral) and isinstance(height, Integral)):
            met = f"a frame of {width!r} x {height!r} pixels"
            raise UserError(met, "two whole numbers", "give its width and height")
        width, height = int(width), int(height)
        try:
            given = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
        except (TypeError, ValueError, BufferError) as e:
            met = f"a frame's bytes of {type(data).__name__} ({e})"
            raise UserError(met, "bytes that lie one after the other, or a numpy array", "copy them") from e
        flat = np.ascontiguousarray(given).ravel()
        shapes = FORMATS[format].list_shapes(height, width)
        counts = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
        if width < 1 or height < 1 or flat.size != sum(counts) or flat.dtype != np.uint8:
            met = f"{flat.size} numbers of {flat.dtype} for a frame of {width} x {height} pixels"
            raise UserError(met, f"{max(0, sum(counts))} bytes, as {format} has them", "give its size, without padding")
        parts = np.split(flat, np.cumsum(counts)[:-1])
        planes = tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
        return cls(planes, format, rotation, matrix)

    def to_struct(self) -> abi.Frame:
        """Describe it in C; valid as long as the planes are."""
        frame = abi.Frame()
        strides, frame.pixel_stride = self._measure()
        for i, (plane, stride) in enumerate(zip(self.planes, strides, strict=True)):
            frame.planes[i], frame.stride_bytes[i] = plane.ctypes.data, stride
        frame.width, frame.height, frame.format = self.width, self.height, FORMATS[self.format].number
        frame.rotation, frame.matrix = int(self.rotation), MATRICES[self.matrix]
        return frame

    def _measure(self) -> tuple[list[int], int]:
        """Bytes from a row to the next, of each plane, and of YUV420 from a U to the next; else 0. UserError where rows
        or pixels lie otherwise."""
        strides, apart = [], 0
        for i, plane in enumerate(self.planes):
            pixel = plane.shape[2] if plane.ndim == 3 else 1
            step = plane.strides[1] if plane.shape[1] > 1 else pixel
            if self.format == "YUV420" and i > 0:
                apart = apart or step
                pixel = apart if apart in (1, 2) else 1
            row = step * (plane.shape[1] - 1) + (plane.shape[2] if plane.ndim == 3 else 1)
            stride = plane.strides[0] if plane.shape[0] > 1 else row
            if step != pixel or stride < row or (plane.ndim == 3 and plane.strides[2] != 1):
                met = f"a plane {list(plane.shape)} with strides {list(plane.strides)}"
                raise UserError(
                    met, "rows one below the other, their pixels side by side", "numpy.ascontiguousarray(it)"
                )
            strides.append(stride)
        return strides, apart


def read_frame(frame: Frame, how: Preprocessing) -> Pixels:
    """Read from a frame the pixels that a model sees.

    Turned upright, cropped and resized as `how` says, for files of any format: uint8 [size, size, 3], RGB.
    """
    metadata = json.dumps({"preprocessing": json.dumps(how.spell())})
    return read_pixels("bve_read_frame_by", metadata.encode(), frame, how.size)


def read_pixels(function: str, whose: bytes | int, frame: Frame, size: int) -> Pixels:
    """Call the library for the pixels that a model sees.

    function: bve_read_frame with a program, or bve_read_frame_by with metadata. UserError where it refuses the frame.
    """
    pixels, error = np.empty((size, size, 3), np.uint8), abi.Failure()
    read, struct = abi.find_function(function), frame.to_struct()
    if read(whose, ctypes.byref(struct), pixels.ctypes.data, pixels.size, ctypes.byref(error)):
        raise abi.explain(error.text.decode(errors="replace"))
    return pixels


def _list_shapes(shapes: Iterable[Shape]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)


def _describe(plane: object) -> str:
    return f"{plane.dtype} {list(plane.shape)}" if isinstance(plane, np.ndarray) else type(plane).__name__
