"""Pictures of every kind, against arithmetic on the known pixels; damaged ones, refused by name."""

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from bigvit_edge.errors import UserError
from bigvit_edge.export.decoding import FORMATS
from bigvit_edge.export.image import prepare
from bigvit_edge.preprocessing import Preprocessing

HOW = Preprocessing(24, (0.0,) * 3, (1.0,) * 3, scale=1.0)  # type: ignore[arg-type]
RNG = np.random.default_rng(12)
GRAY = RNG.integers(0, 256, (24, 24)).astype(np.uint8)
GRAY[0, :2] = 0, 255
COLORS = RNG.integers(0, 256, (24, 24, 3)).astype(np.uint8)
ALPHA = RNG.integers(0, 256, (24, 24)).astype(np.uint8)
TIFF_GRAY = np.repeat(GRAY[..., None], 3, -1)


def read(path: Path) -> tuple[Any, tuple[str, ...]]:
    """Pixels [24, 24, 3] as the model sees them, 0..255; nothing said but by notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared = prepare(path, HOW)
    return prepared.pixels.astype(np.float32), prepared.notes


def lay(colors: Any, alpha: Any, ground: int = 255) -> Any:
    share = alpha[..., None].astype(np.float64) / 255
    return colors * share + ground * (1 - share)


def cmyk_to_rgb(cmyk: Any) -> Any:
    ink = 255 - cmyk.astype(np.float64)
    return ink[..., :3] * ink[..., 3:] / 255


CMYK = RNG.integers(0, 256, (24, 24, 4)).astype(np.uint8)
INDEX = RNG.integers(0, 4, (24, 24)).astype(np.uint8)
PALETTE = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 99, 199]], np.uint8)


def make_palette(transparency: bytes | None = None) -> Image.Image:
    picture = Image.fromarray(INDEX, "L").copy()
    picture.putpalette(PALETTE.tobytes())
    if transparency is not None:
        picture.info["transparency"] = transparency
    return picture


def key(picture: Image.Image, transparency: Any) -> Image.Image:
    picture.info["transparency"] = transparency
    return picture


WIDE = {"suffix": ".tif"}
# name: (picture, right pixels, words of the note or None, tolerance in levels, how it is saved)
KINDS: dict[str, tuple[Image.Image, Any, str | None, float, dict[str, Any]]] = {
    "rgb": (Image.fromarray(COLORS), COLORS, None, 0, {}),
    "gray": (Image.fromarray(GRAY), TIFF_GRAY, None, 0, {}),
    "one bit": (Image.fromarray(GRAY > 99), np.repeat((GRAY > 99)[..., None] * 255, 3, -1), None, 0, {}),
    "alpha": (Image.fromarray(np.dstack([COLORS, ALPHA])), lay(COLORS, ALPHA), "laid on white", 1.01, {}),
    "gray alpha": (
        Image.fromarray(np.dstack([GRAY, ALPHA])), lay(TIFF_GRAY, ALPHA), "laid on white", 1.01, {}
    ),
    "black ink in alpha": (
        Image.fromarray(np.dstack([np.zeros_like(COLORS), ALPHA])), lay(0 * COLORS, ALPHA), "laid on white", 1.01, {}
    ),
    "white ink in alpha": (
        Image.fromarray(np.dstack([np.full_like(COLORS, 255), ALPHA])), lay(0 * COLORS + 255, ALPHA, 0),
        "laid on black", 1.01, {},
    ),
    "opaque alpha": (Image.fromarray(np.dstack([COLORS, 0 * ALPHA + 255])), COLORS, None, 0, {}),
    "alpha that was never set": (
        Image.fromarray(np.dstack([COLORS, 0 * ALPHA])), COLORS, "wholly transparent", 0, {}
    ),
    "palette": (make_palette(), PALETTE[INDEX], None, 0, {}),
    "palette with alpha": (
        make_palette(bytes([0, 100, 255, 255])),
        lay(PALETTE[INDEX], np.array([0, 100, 255, 255])[INDEX]), "laid on white", 1.01, {},
    ),
    "palette, one transparent": (
        key(make_palette(), 2), lay(PALETTE[INDEX], np.array([255, 255, 0, 255])[INDEX]), "laid on white", 0, {}
    ),
    "one transparent color": (
        key(Image.fromarray(np.maximum(COLORS, 10) * (GRAY > 50)[..., None]), (0, 0, 0)),
        np.where((GRAY > 50)[..., None], np.maximum(COLORS, 10), 255), "laid on white", 0, {},
    ),
    "16 bits": (Image.fromarray(GRAY.astype(np.uint16) * 257), TIFF_GRAY, None, 0, {}),
    "12 bits in 16": (
        Image.fromarray(np.rint(GRAY * (4095 / 255)).astype(np.uint16)), TIFF_GRAY, "as of 12 bits", 0, {}
    ),
    "14 bits in 16": (
        Image.fromarray(np.rint(GRAY * (16383 / 255)).astype(np.uint16)), TIFF_GRAY, "as of 14 bits", 0, WIDE
    ),
    "8 bits in 16": (Image.fromarray(GRAY.astype(np.uint16)), TIFF_GRAY, "as of 8 bits", 0, {}),
    "8 bits in 32": (Image.fromarray(GRAY.astype(np.int32)), TIFF_GRAY, "as of 8 bits", 0, WIDE),
    "16 bits in 32": (Image.fromarray(GRAY.astype(np.int32) * 257), TIFF_GRAY, None, 0, WIDE),
    "float 0..1": (Image.fromarray(GRAY.astype(np.float32) / 255), TIFF_GRAY, "as 0..1", 0, WIDE),
    "float 0..255": (Image.fromarray(GRAY.astype(np.float32)), TIFF_GRAY, "as 0..255", 0, WIDE),
    "float 0..65535": (Image.fromarray(GRAY.astype(np.float32) * 257), TIFF_GRAY, None, 0, WIDE),
    "HDR": (
        Image.fromarray(np.where(np.arange(576).reshape(24, 24) == 5, np.float32(40), GRAY.astype(np.float32) / 255)),
        np.where(np.arange(576).reshape(24, 24, 1) == 5, 255, TIFF_GRAY), "brighter ones", 0, WIDE,
    ),
    "CMYK": (Image.fromarray(CMYK, "CMYK"), cmyk_to_rgb(CMYK), "no profile", 1.01, WIDE),
    "QOI's neighbour, TGA": (Image.fromarray(COLORS), COLORS, None, 0, {"suffix": ".tga"}),
    "lossless WebP": (Image.fromarray(COLORS), COLORS, None, 0, {"suffix": ".webp", "lossless": True}),
    "JPEG 2000": (Image.fromarray(COLORS), COLORS, None, 0, {"suffix": ".jp2"}),
    "BMP": (Image.fromarray(COLORS), COLORS, None, 0, {"suffix": ".bmp"}),
    "PPM": (Image.fromarray(COLORS), COLORS, None, 0, {"suffix": ".ppm"}),
    "DDS": (Image.fromarray(COLORS), COLORS, None, 0, {"suffix": ".dds"}),
    "PFM": (Image.fromarray(GRAY.astype(np.float32) / 255), TIFF_GRAY, "as 0..1", 0, {"suffix": ".pfm"}),
    "LZW TIFF": (Image.fromarray(COLORS), COLORS, None, 0, {"suffix": ".tif", "compression": "tiff_lzw"}),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_seen_as_it_is(tmp_path: Path, name: str) -> None:
    picture, right, words, tolerance, options = KINDS[name]
    path = tmp_path / f"picture{options.get('suffix', '.png')}"
    picture.save(path, **{key: value for key, value in options.items() if key != "suffix"})
    pixels, notes = read(path)
    assert np.abs(pixels - right).max() <= tolerance
    assert [words in note for note in notes] == [True] if words else notes == ()  # type: ignore[operator]


def test_transparency_is_resized_as_what_is_seen(tmp_path: Path) -> None:
    """Colours below nothing must not shine through: red of alpha 0 beside opaque blue."""
    pixels = np.zeros((96, 96, 4), np.uint8)
    pixels[:] = (255, 0, 0, 0)
    pixels[:, 40:] = (0, 0, 255, 255)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    on_white = Image.fromarray(np.rint(lay(pixels[..., :3], pixels[..., 3])).astype(np.uint8))
    right = np.asarray(on_white.resize((24, 24), Image.Resampling.BILINEAR), np.float32)
    assert np.abs(read(tmp_path / "p.png")[0] - right).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_orientations(tmp_path: Path, suffix: str, orientation: int) -> None:
    """The stored picture is what a camera held so would have written of the upright one."""
    upright = np.kron(COLORS[:3, :3] // 2, np.ones((8, 8, 1), np.uint8))  # blocks that JPEG keeps
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1), 7: np.rot90(upright, 2).swapaxes(0, 1), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    picture = Image.fromarray(np.ascontiguousarray(stored))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {".jpg": dict(quality=100, subsampling=0), ".webp": dict(lossless=True)}.get(suffix, {})
    picture.save(tmp_path / f"p{suffix}", exif=exif, **options)
    assert np.abs(read(tmp_path / f"p{suffix}")[0] - upright).max() <= (4 if suffix == ".jpg" else 0)


def test_white_is_zero(tmp_path: Path) -> None:
    for values in (GRAY, GRAY.astype(np.uint16) * 257):
        Image.fromarray(values).save(tmp_path / "p.tif", tiffinfo={262: 0})
        with Image.open(tmp_path / "p.tif") as saved:
            assert saved.tag_v2[262] == 0  # type: ignore[attr-defined]
        pixels, _ = read(tmp_path / "p.tif")
        stored = values.dtype == np.uint8 and (pixels == TIFF_GRAY).all()  # Pillow inverts the narrow ones on saving
        assert stored or (pixels == 255 - TIFF_GRAY).all()


def test_lab(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    smooth = np.asarray(Image.fromarray(COLORS[:3, :3] // 4 + 90).resize((24, 24), Image.Resampling.BICUBIC))
    picture = ImageCms.profileToProfile(Image.fromarray(smooth), srgb, lab, outputMode="LAB")
    assert picture is not None
    picture.save(tmp_path / "p.tif")
    assert np.abs(read(tmp_path / "p.tif")[0] - smooth).max() <= 6  # Lab has fewer colours in eight bits


def swap_channels(name: str = "swap") -> bytes:
    """A profile of sRGB, whose red and blue change places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    for i in range(count):
        at = 132 + 12 * i
        tag = bytes(data[at : at + 4])
        if tag in (b"rXYZ", b"bXYZ"):
            data[at : at + 4] = b"bXYZ" if tag == b"rXYZ" else b"rXYZ"
    return bytes(data)


def test_colour_profiles(tmp_path: Path) -> None:
    picture = Image.fromarray(COLORS)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(tmp_path / "srgb.png", icc_profile=srgb)
    pixels, notes = read(tmp_path / "srgb.png")
    assert ((pixels == COLORS).all(), notes) == (True, ())
    picture.save(tmp_path / "swapped.jpg", icc_profile=swap_channels(), quality=100, subsampling=0)
    with Image.open(tmp_path / "swapped.jpg") as saved:
        stored = np.asarray(saved)
    pixels, (note,) = read(tmp_path / "swapped.jpg")
    assert np.abs(pixels - stored[..., ::-1]).max() <= 2
    assert note.startswith("its colours are converted from")
    picture.save(tmp_path / "damaged.png", icc_profile=srgb[:100])
    pixels, (note,) = read(tmp_path / "damaged.png")
    assert (pixels == COLORS).all()
    assert "profile is damaged" in note


def test_several_pictures_in_a_file(tmp_path: Path) -> None:
    first, second = Image.fromarray(COLORS), Image.fromarray(255 - COLORS)
    for suffix, options in ((".tif", {}), (".png", {}), (".webp", dict(lossless=True))):
        first.save(tmp_path / f"p{suffix}", save_all=True, append_images=[second], **options)
        pixels, (note,) = read(tmp_path / f"p{suffix}")
        assert (pixels == COLORS).all()
        assert "the first is taken" in note


def test_what_no_value_range_explains(tmp_path: Path) -> None:
    unclear = {
        "nan": np.where(GRAY > 99, np.float32("nan"), 0.5).astype(np.float32),
        "negative": GRAY.astype(np.float32) - 9,
        "signed": GRAY.astype(np.int32) - 9,
        "between": GRAY.astype(np.float32) / 64,
        "huge": GRAY.astype(np.int32) * 2**20,
    }
    for name, values in unclear.items():
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
        with pytest.raises(UserError, match=rf"{name}\.tif: values .*; expected values in 0\.\.1, in 0\.\.255"):
            read(tmp_path / f"{name}.tif")


def test_dark_and_empty_pictures_are_told(tmp_path: Path) -> None:
    Image.new("RGB", (30, 30)).save(tmp_path / "black.png")
    assert read(tmp_path / "black.png")[1] == ("what the model sees of it is all of one colour",)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    # 12 bits in 16
    rows = b"".join(b"\0" + (row * np.uint16(16)).astype(">u2").tobytes() for row in COLORS.reshape(24, 72))
    header = struct.pack(">IIBBBBB", 24, 24, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert "16-bit colours use less than a quarter" in read(tmp_path / "deep.png")[1][0]


def test_size_is_refused_by_the_header_alone(tmp_path: Path) -> None:
    Image.new("1", (10_001, 10_000)).save(tmp_path / "large.png")
    data = (tmp_path / "large.png").read_bytes()[:45]  # the header, and no pixel
    (tmp_path / "large.png").write_bytes(data)
    with pytest.raises(UserError, match=r"large\.png: 100\.0 megapixels; expected 100 at the most"):
        read(tmp_path / "large.png")
    (tmp_path / "vast.png").write_bytes(data[:16] + (60_000).to_bytes(4, "big") * 2 + data[24:29])
    with pytest.raises(UserError, match=r"vast\.png"):
        read(tmp_path / "vast.png")


@pytest.mark.parametrize("suffix", [".eps", ".pdf", ".fits", ".png"])
def test_only_named_formats_are_opened(tmp_path: Path, suffix: str) -> None:
    """An EPS by any name runs no Ghostscript."""
    Image.fromarray(COLORS).save(tmp_path / "p.eps")
    path = (tmp_path / "p.eps").rename(tmp_path / f"q{suffix}")
    with pytest.raises(
        UserError, match=rf"q\{suffix} cannot be read as a picture \(unknown format\); expected one of PNG"
    ):
        read(path)


SAVED: dict[str, dict[str, Any]] = {
    "png": {}, "jpg": {}, "webp": {}, "gif": {}, "bmp": {}, "tif": {"compression": "tiff_lzw"}, "ppm": {}, "avif": {},
    "jp2": {}, "tga": {}, "ico": {}, "dds": {},
}  # fmt: skip


@pytest.mark.parametrize("suffix", SAVED)
def test_damaged_files_end_in_words(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Cut off or with bits turned: a picture or a UserError, nothing else, and nothing on the terminal."""
    whole = tmp_path / f"whole.{suffix}"
    smooth = Image.fromarray(COLORS).resize((64, 48), Image.Resampling.BICUBIC)
    smooth.save(whole, **SAVED[suffix])
    data, rng = whole.read_bytes(), np.random.default_rng(len(suffix))
    right, _ = read(whole)
    path = tmp_path / f"damaged.{suffix}"
    for cut in (0, 1, 7, 40, len(data) // 3, len(data) * 2 // 3):
        path.write_bytes(data[:cut])
        with pytest.raises(UserError, match=r"damaged\.\w+ cannot be read as a picture"):
            read(path)
    for _ in range(30):
        turned = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            turned[at] ^= 1 << rng.integers(8)
        path.write_bytes(turned)
        told = path.name
        try:
            assert prepare(path, HOW).pixels.shape == (24, 24, 3)
        except UserError as e:
            told = str(e)
        assert path.name in told
    assert right.shape == (24, 24, 3)
    assert capfd.readouterr() == ("", "")


def test_every_format_that_is_named_is_tried() -> None:
    names = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}
    assert {names.get(suffix, suffix.upper()) for suffix in SAVED} == set(FORMATS)


def test_a_folder_is_no_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, a pipe or a device; expected a picture's file"):
        prepare(tmp_path, HOW)
