"""bve-run's pictures and frames: what Pillow decodes and Session answers, and whatever is no picture."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from bigvit_edge.export.decoding import TURNS
from bigvit_edge.runtime import Frame, Session
from tests.native import ROOT, run_program, skip
from tests.runtime.doors import made

DECODERS = {"JPEG": "libturbojpeg0-dev", "PNG": "libpng-dev"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("main") / "tiny.bve"
    path.write_bytes(made.read_program())
    return path


@pytest.fixture(autouse=True, scope="module")
def _decoders(file: Path) -> None:
    """Both of them are there, of a bve-run that is."""
    for format, package in DECODERS.items():
        Image.new("RGB", (4, 4)).save(file.with_name("any"), format)
        if "built without" in run_program("bve-run", "run", file, file.with_name("any")).stderr:
            skip(f"a bve-run without {format}", f"apt-get install {package}, make native")


def ask(*arguments: str | Path) -> Any:
    run = run_program("bve-run", "run", *arguments)
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


def refuse(*arguments: str | Path) -> str:
    run = run_program("bve-run", "run", *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("bve-run: ")
    assert run.stderr.count("\n") == 1
    return run.stderr


def expect(file: Path, image: Any) -> list[float]:
    with Session(file) as session:
        return session.run(image)[0].tolist()  # type: ignore[no-any-return]


def draw(mode: str = "RGB", size: tuple[int, int] = (23, 17)) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = size[::-1] if channels == 1 else (*size[::-1], channels)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), mode)


def same(found: Any, expected: list[float]) -> bool:
    return np.array_equal(np.float32(found["logits"]), np.float32(expected))


SAVED = {
    "RGB.ppm": ("RGB", {}),
    "L.pgm": ("L", {}),
    "RGB.jpg": ("RGB", {"quality": 90}),
    "L.jpg": ("L", {}),
    "progressive.jpg": ("RGB", {"progressive": True, "quality": 40}),
    "RGB.png": ("RGB", {}),
    "RGBA.png": ("RGBA", {}),
    "L.png": ("L", {}),
    "LA.png": ("LA", {}),
    "P.png": ("P", {}),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_picture_is_pillows_to_the_bit(name: str, file: Path, tmp_path: Path) -> None:
    mode, options = SAVED[name]
    picture = draw("RGB").quantize(7) if mode == "P" else draw(mode)
    picture.save(tmp_path / name, **options)
    with Image.open(tmp_path / name) as decoded:
        pixels = np.asarray(decoded.convert("RGBA" if mode.endswith("A") else "RGB"))
    found = ask(file, tmp_path / name)
    assert same(found, expect(file, pixels))
    assert (found["label"], found["notes"], found["top"]) == (None, [], int(np.argmax(found["logits"])))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P"])
def test_a_gamma_changes_no_pixel(mode: str, file: Path, tmp_path: Path) -> None:
    picture = draw("RGB").quantize(7) if mode == "P" else draw(mode)
    picture.save(tmp_path / "any.png")
    data = (tmp_path / "any.png").read_bytes()
    primaries = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    for kind, values in ((b"gAMA", (100_000,)), (b"cHRM", primaries)):
        chunk = kind + struct.pack(f">{len(values)}I", *values)
        data = data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    (tmp_path / "any.png").write_bytes(data)
    with Image.open(tmp_path / "any.png") as decoded:
        assert decoded.info["gamma"] == 1
        pixels = np.asarray(decoded.convert("RGBA" if mode.endswith("A") else "RGB"))
    assert same(ask(file, tmp_path / "any.png"), expect(file, pixels))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_it_is_turned_upright(ending: str, orientation: int, file: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    draw().save(tmp_path / f"turned.{ending}", exif=exif)
    with Image.open(tmp_path / f"turned.{ending}") as decoded:
        turn = TURNS[orientation - 1] if 1 <= orientation <= 8 else None
        pixels = np.asarray(decoded if turn is None else decoded.transpose(turn))
    assert same(ask(file, tmp_path / f"turned.{ending}"), expect(file, pixels))


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_colour_profile_is_told(ending: str, file: Path, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    draw().save(tmp_path / f"any.{ending}", icc_profile=profile)
    assert ask(file, tmp_path / f"any.{ending}")["notes"] == ["its colour profile is not applied: it is taken as sRGB"]


def test_a_comment_in_a_header_is_no_pixel(file: Path, tmp_path: Path) -> None:
    pixels = np.asarray(draw())
    (tmp_path / "any.ppm").write_bytes(b"P6 # 1\n#2 3\n23\t17\r\n255\n" + pixels.tobytes() + b"more")
    assert same(ask(file, tmp_path / "any.ppm"), expect(file, pixels))


@pytest.mark.parametrize("rotation", [0, 270])
def test_a_frame_of_nv21(rotation: int, file: Path, tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, 23 * 17 + 2 * 12 * 9, dtype=np.uint8).tobytes()
    (tmp_path / "frame").write_bytes(data)
    found = ask(file, tmp_path / "frame", "--nv21=23x17", f"--rotation={rotation}")
    assert same(found, expect(file, Frame.from_bytes(data, 23, 17, "NV21", rotation)))
    says = "of 607 bytes, expected 576 for NV21 of 24 x 16; check --nv21"
    assert says in refuse(file, tmp_path / "frame", "--nv21", "24x16")
    assert "45" in refuse(file, tmp_path / "frame", "--nv21=23x17", "--rotation=45")


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def widen(data: bytes) -> bytes:
    """A PNG that says it is of 30,000 x 30,000 pixels."""
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


BAD: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "cut.jpg": ("JPEG", cut, "a damaged JPEG"),
    "cut.png": ("PNG", cut, "a damaged PNG"),
    "cut.ppm": ("PPM", cut, "cut short, expected 1173 bytes"),
    "start.jpg": ("JPEG", lambda data: data[:3], "a damaged JPEG (no size)"),
    "tables.jpg": ("JPEG", lambda data: data[: data.index(b"\xff\xc0")] + b"\xff\xd9", "a damaged JPEG (no size)"),
    "start.png": ("PNG", lambda data: data[:8], "a damaged PNG"),
    "start.ppm": ("PPM", lambda data: data[:2], "header is damaged"),
    "bits.png": ("PNG", lambda data: data[:60] + bytes(b ^ 255 for b in data[60:90]) + data[90:], "a damaged PNG"),
    "wide.png": ("PNG", widen, "30000 x 30000 pixels, expected 1 to 100 megapixels"),
    "none.ppm": ("PPM", lambda _: b"P6 0 5 255 ", "0 x 5 pixels"),
    "wide.ppm": ("PPM", lambda _: b"P6 99999999999999999999 5 255 ", "pixels, expected 1 to 100 megapixels"),
    "deep.ppm": ("PPM", lambda _: b"P6 1 1 65535 \0\0\0\0\0\0", "levels up to 65535"),
    "text": ("PPM", lambda _: b"a text", "begins as no picture, expected a PPM, JPEG or PNG"),
    "empty": ("PPM", lambda _: b"", "begins as no picture"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_named(name: str, file: Path, tmp_path: Path) -> None:
    format, damage, says = BAD[name]
    draw().save(tmp_path / "sound", format)
    (tmp_path / name).write_bytes(damage((tmp_path / "sound").read_bytes()))
    assert f"{tmp_path / name}: " in refuse(file, tmp_path / name)
    assert says in refuse(file, tmp_path / name)


def test_what_stands_beside_the_pixels_may_be_anything(file: Path, tmp_path: Path) -> None:
    """EXIF data, each byte of it damaged in turn: it says something else, or nothing."""
    exif = Image.Exif()
    exif[0x0112] = 6
    draw().save(tmp_path / "sound.jpg", exif=exif)
    data = (tmp_path / "sound.jpg").read_bytes()
    start, pixels = data.index(b"Exif"), np.asarray(Image.open(tmp_path / "sound.jpg"))
    turned = [expect(file, np.ascontiguousarray(np.rot90(pixels, -1))), expect(file, pixels)]
    for at in range(start, start + 32, 3):
        (tmp_path / "any.jpg").write_bytes(data[:at] + b"\xff" + data[at + 1 :])
        found = ask(file, tmp_path / "any.jpg")
        assert any(same(found, expected) for expected in turned), at


def test_what_cannot_be_read_so_is_refused(file: Path, tmp_path: Path) -> None:
    draw("RGB").convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert "a JPEG of CMYK" in refuse(file, tmp_path / "cmyk.jpg")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    assert "16 bits a channel" in refuse(file, tmp_path / "deep.png")
    assert "No such file" in refuse(file, tmp_path / "none.ppm")
    assert "Is a directory" in refuse(file, tmp_path)
    draw().save(tmp_path / "any.ppm")
    silent = ROOT / "tests/runtime/corpus/valid_tiny.bve"
    assert "says nothing of pictures" in refuse(silent, tmp_path / "any.ppm")
    for options, says in (
        (("--input", "x"), "expected one of them"),
        (("--nv21", "4"), "--nv21 4, expected as 1920x1080"),
        (("--nv21", "4x0"), "--nv21 0, expected a whole number from 1"),
        (("--rotation", "90"), "expected a frame by --nv21"),
        ((tmp_path / "more.ppm",), "expected one file"),
    ):
        assert says in refuse(file, tmp_path / "any.ppm", *options)
    assert "expected the frame's file" in refuse(file, "--nv21=4x4")
