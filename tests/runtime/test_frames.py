"""Frames from Python: what a session makes of them, against numpy, and what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture
from bigvit_edge.export.emitter import emit_program
from bigvit_edge.export.program import to_bytes
from bigvit_edge.models.vit import ViT
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.runtime import Frame, Session
from bigvit_edge.runtime.frames import FORMATS, MATRICES, ROTATIONS, read_frame

SIZE = 16
HOW = Preprocessing(SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Of red, green, blue and of luma; the range of luma and of chroma, from zero and from the middle.
WEIGHTS = {"BT.601": (0.299, 0.587, 0.114), "BT.709": (0.2126, 0.7152, 0.0722)}
COLORS = ((230, 40, 20), (30, 200, 60), (20, 60, 220), (240, 240, 200))

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    model = ViT(image_size=SIZE, patch=8, dim=32, depth=1, head_dim=32, num_classes=3).eval()
    path = tmp_path_factory.mktemp("frames") / "tiny.bve"
    path.write_bytes(
        to_bytes(emit_program([capture(model, SIZE, None)], 4, {"preprocessing": json.dumps(HOW.spell())}))
    )
    with Session(path) as session:
        yield session


def paint() -> Pixels:
    """Four fields of one colour each, 32 x 32 in all: of them no resize and no chroma makes anything else inside."""
    fields = np.array(COLORS, np.uint8).reshape(2, 2, 3)
    return fields.repeat(SIZE, 0).repeat(SIZE, 1)


def to_yuv(rgb: Pixels, matrix: str) -> tuple[Pixels, Pixels, Pixels]:
    """By the definition of ITU-R BT.601 and BT.709; U and V of every second pixel."""
    name, _, full = matrix.partition(" ")
    red, green, blue = WEIGHTS[name]
    colors = rgb / 255
    luma = colors @ np.array((red, green, blue))
    u, v = (colors[..., 2] - luma) / (2 - 2 * blue), (colors[..., 0] - luma) / (2 - 2 * red)
    planes = (255 * luma, 255 * u + 128, 255 * v + 128) if full else (219 * luma + 16, 224 * u + 128, 224 * v + 128)
    y, u, v = (plane.round().clip(0, 255).astype(np.uint8) for plane in planes)
    return y, u[::2, ::2], v[::2, ::2]


def make(rgb: Pixels, format: str, rotation: int = 0, matrix: str = "BT.601 full") -> Frame:
    opaque = np.full((*rgb.shape[:2], 1), 255, np.uint8)
    y, u, v = to_yuv(rgb, matrix)
    planes = {
        "RGB": (rgb,),
        "RGBA": (np.concatenate((rgb, opaque), -1),),
        "BGRA": (np.concatenate((rgb[..., ::-1], opaque), -1),),
        "NV12": (y, np.stack((u, v), -1)),
        "NV21": (y, np.stack((v, u), -1)),
        "YUV420": (y, u, v),
    }
    return Frame(planes[format], format, rotation, matrix)


def list_centres(pixels: Pixels) -> list[list[int]]:
    quarter = SIZE // 4
    return pixels[quarter :: 2 * quarter, quarter :: 2 * quarter].reshape(4, 3).astype(int).tolist()


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_frame_is_read_in_its_colours_and_turned(format: str, rotation: int, session: Session) -> None:
    fields = np.array(COLORS).reshape(2, 2, 3)
    expected = np.rot90(fields, -rotation // 90).reshape(4, 3)  # clockwise
    pixels = session.read_frame(make(paint(), format, rotation))
    assert (pixels.shape, pixels.dtype) == ((SIZE, SIZE, 3), np.uint8)
    assert np.abs(np.array(list_centres(pixels)) - expected).max() <= 3  # YUV is of whole levels


@pytest.mark.parametrize("matrix", MATRICES)
def test_each_matrix_means_its_colours(matrix: str, session: Session) -> None:
    for other in MATRICES:
        frame = make(paint(), "NV12", matrix=matrix)
        pixels = session.read_frame(Frame(frame.planes, "NV12", matrix=other))
        apart = np.abs(np.array(list_centres(pixels)) - np.array(COLORS)).max()
        assert (apart <= 3) == (other == matrix)


def test_a_run_is_that_of_the_pixels_read(session: Session) -> None:
    rng = np.random.default_rng(0)
    nv21 = rng.integers(0, 256, 37 * 23 + 2 * 19 * 12, dtype=np.uint8)
    for rotation in (0, 90):
        frame = Frame.from_bytes(nv21.tobytes(), 37, 23, "NV21", rotation)
        pixels = session.read_frame(frame)
        image = (pixels / 255 - HOW.mean) / HOW.std
        expected = session.run(np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32))
        np.testing.assert_allclose(session.run(frame), expected, atol=1e-4)
        assert np.array_equal(read_frame(frame, HOW), pixels)
    assert np.array_equal(session.run(frame), session.run(frame))


def test_a_picture_is_run_as_it_is_prepared(session: Session) -> None:
    rng = np.random.default_rng(0)
    for channels in (3, 4):
        picture = rng.integers(0, 256, (40, 61, channels), dtype=np.uint8)
        assert np.array_equal(session.run(picture), session.run(session.prepare(picture)))
    frame = Frame((picture[..., :3].copy(),), "RGB")
    opaque = session.prepare(frame.planes[0])
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (HOW.mean, HOW.std))
    levels = (opaque[0] * std + mean) * 255
    assert np.abs(session.read_frame(frame).transpose(2, 0, 1) - levels).max() < 1.01


def test_rows_and_pixels_may_lie_apart(session: Session) -> None:
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (20, 60, 4), dtype=np.uint8)
    part = wide[3:17, 5:42]
    assert np.array_equal(session.read_frame(Frame((part,), "BGRA")), session.read_frame(Frame((part.copy(),), "BGRA")))
    nv21 = Frame.from_bytes(rng.integers(0, 256, 36, dtype=np.uint8), 6, 4, "NV21")
    chroma = nv21.planes[1]
    android = Frame((nv21.planes[0], chroma[..., 1], chroma[..., 0]), "YUV420")  # two bytes apart
    assert android.to_struct().pixel_stride == 2
    packed = Frame((nv21.planes[0], chroma[..., 1].copy(), chroma[..., 0].copy()), "YUV420")
    assert packed.to_struct().pixel_stride == 1
    for frame in (android, packed):
        assert np.array_equal(session.read_frame(frame), session.read_frame(nv21))
    one = Frame.from_bytes(b"\x80" * 3, 1, 1, "YUV420")
    assert (session.read_frame(one) == 128).all()


GRAY = np.zeros((4, 6), np.uint8)
PAIRS = np.zeros((2, 3, 2), np.uint8)
RGB = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("planes", "format", "options", "says"),
    [
        ((RGB,), "RBG", {}, "format 'RBG'; expected one of RGB, RGBA.*RGB"),
        ((RGB,), 1, {}, "format 1; expected one of RGB"),
        ((RGB,), "RGB", {"rotation": 45}, "rotation 45; expected 0, 90, 180 or 270"),
        ((RGB,), "RGB", {"rotation": 90.0}, "rotation 90.0; expected 0, 90"),
        ((RGB,), "RGB", {"matrix": "BT.2020"}, "matrix 'BT.2020'; expected one of BT.601 full"),
        ((), "RGB", {}, "planes missing; expected of RGB such as"),
        ((None,), "RGB", {}, "a plane of NoneType; expected numpy arrays of uint8"),
        ((RGB.astype(float),), "RGB", {}, r"a plane of float64 \[4, 6, 3\]"),
        ((RGB,), "RGBA", {}, r"planes \[4, 6, 3\]; expected of RGBA such as \[4, 6, 4\]"),
        ((RGB, RGB), "RGB", {}, r"planes \[4, 6, 3\], \[4, 6, 3\]; expected of RGB such as \[4, 6, 3\]"),
        ((RGB[:0],), "RGB", {}, r"planes \[0, 6, 3\]"),
        ((GRAY,), "NV12", {}, r"planes \[4, 6\]; expected of NV12 such as \[4, 6\], \[2, 3, 2\]"),
        ((GRAY, PAIRS[:1]), "NV21", {}, r"such as \[4, 6\], \[2, 3, 2\]"),
        ((GRAY, PAIRS[..., 0]), "YUV420", {}, r"such as \[4, 6\], \[2, 3\], \[2, 3\]"),
        ((RGB[::-1],), "RGB", {}, r"a plane \[4, 6, 3\] with strides \[-18, 3, 1\]"),
        ((RGB[:, ::-1],), "RGB", {}, r"strides \[18, -3, 1\]"),
        ((RGB[..., ::-1],), "RGB", {}, r"strides \[18, 3, -1\].*ascontiguousarray"),
        ((np.broadcast_to(RGB[:1], RGB.shape),), "RGB", {}, r"strides \[0, 3, 1\]"),
        ((RGB[:, ::2],), "RGB", {}, r"strides \[18, 6, 1\]"),
        ((GRAY, GRAY[::2, ::2], PAIRS[..., 0].copy()), "YUV420", {}, r"strides \[3, 1\]"),
        ((GRAY[:, ::2].repeat(2, 1)[:, ::1], PAIRS[..., 0][::-1], PAIRS[..., 0]), "YUV420", {}, "strides"),
    ],
)
def test_what_is_no_frame_is_refused(
    planes: tuple[Pixels, ...], format: str, options: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        Frame(planes, format, **options)  # type: ignore[arg-type]


def test_bytes_of_another_count_are_refused() -> None:
    with pytest.raises(UserError, match="35 numbers of uint8 for a frame of 6 x 4 pixels; expected 36 bytes, as NV21"):
        Frame.from_bytes(b"\0" * 35, 6, 4, "NV21")
    with pytest.raises(UserError, match="-6 x -4 pixels"):
        Frame.from_bytes(b"\0" * 36, -6, -4, "NV21")
    with pytest.raises(UserError, match="36 numbers of float32"):
        Frame.from_bytes(np.zeros(36, np.float32), 6, 4, "NV21")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="format 'nv21'"):
        Frame.from_bytes(b"\0" * 36, 6, 4, "nv21")


def test_sides_are_whole_numbers_and_frames_are_compared_as_themselves() -> None:
    with pytest.raises(UserError, match="a frame of 'a' x 3 pixels; expected two whole numbers"):
        Frame.from_bytes(bytes(27), "a", 3, "RGB")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="a frame's bytes of list"):
        Frame.from_bytes([0] * 27, 3, 3, "RGB")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"format \['RGB'\]"):
        Frame.from_bytes(bytes(27), 3, 3, ["RGB"])  # type: ignore[arg-type]
    assert Frame.from_bytes(bytes(255 * 255 * 3), np.uint8(255), np.uint8(255), "RGB").width == 255
    frame = Frame.from_bytes(bytes(27), 3, 3, "RGB")
    assert frame == frame
    assert frame != Frame.from_bytes(bytes(27), 3, 3, "RGB")


def test_a_closed_session_takes_no_frame(session: Session, tmp_path: Path) -> None:
    (tmp_path / "none.bve").write_bytes(Path(Path(__file__).parent / "corpus/valid_tiny.bve").read_bytes())
    frame = Frame((RGB,), "RGB")
    silent = Session(tmp_path / "none.bve")
    for use in (silent.run, silent.read_frame):
        with pytest.raises(UserError, match="says nothing of pictures; expected 'preprocessing' in its metadata"):
            use(frame)
    silent.close()
    for use in (silent.run, silent.read_frame):
        with pytest.raises(UserError, match="a session that was closed"):
            use(frame)
