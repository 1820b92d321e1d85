"""Pillow's images in a session: what the exporter makes of the same picture's file, and what is refused."""

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms

from bigvit_edge.errors import UserError
from bigvit_edge.export.image import read_image
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.runtime import Session
from tests.native import skip
from tests.runtime.doors import made

HOW = Preprocessing(4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # made.py's
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    path = tmp_path_factory.mktemp("pictures") / "tiny.bve"
    path.write_bytes(made.read_program())
    with Session(path) as session:
        yield session


def draw(mode: str) -> Image.Image:
    """Fields rather than noise: of these a resize makes nothing else inside."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    fields = np.random.default_rng(1).integers(0, 256, (4, 4, channels), dtype=np.uint8)
    if mode.endswith("A"):
        fields[..., -1] = 255 - fields[..., -1] % 128
    pixels = fields.repeat(4, 0).repeat(6, 1)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)


def turn_to_jpeg(picture: Image.Image, **options: object) -> bytes:
    with io.BytesIO() as file:
        picture.save(file, "JPEG", **options)
        return file.getvalue()


def orient(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def write_profile() -> bytes:
    """One that turns red and green about, which no screen has."""
    swapped = bytearray(SRGB)
    red, green = swapped.index(b"rXYZ"), swapped.index(b"gXYZ")
    swapped[red : red + 4], swapped[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(swapped)


KINDS: dict[str, Callable[[Path], None]] = {
    "rgb": lambda path: draw("RGB").save(path, "PNG"),
    "alpha": lambda path: draw("RGBA").save(path, "PNG"),
    "gray": lambda path: draw("L").save(path, "PNG"),
    "gray alpha": lambda path: draw("LA").save(path, "PNG"),
    "bits": lambda path: draw("L").convert("1").save(path, "PNG"),
    "palette": lambda path: draw("RGB").quantize(9).save(path, "PNG"),
    "see-through colour": lambda path: draw("L").save(path, "PNG", transparency=0),
    "turned": lambda path: draw("RGB").save(path, "PNG", exif=orient(6)),
    "mirrored": lambda path: path.write_bytes(turn_to_jpeg(draw("RGB"), exif=orient(5))) and None,
    "sRGB": lambda path: draw("RGB").save(path, "PNG", icc_profile=SRGB),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_prepared_as_its_file_is(kind: str, session: Session, tmp_path: Path) -> None:
    if int(PIL.__version__.split(".")[0]) < 13:
        skip("an older Pillow, which resizes tall pictures in another order", "pip install 'pillow>=13'")
    KINDS[kind](tmp_path / "picture")
    with Image.open(tmp_path / "picture") as image, warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is assumed of these
        prepared = session.prepare(image)
        assert np.array_equal(prepared, read_image(tmp_path / "picture", HOW))
        assert np.array_equal(session.run(image), session.run(prepared))


@pytest.mark.parametrize("drawn", [draw("RGB"), draw("RGB").quantize(9)], ids=["rgb", "palette"])
def test_a_colour_profile_is_applied_and_told(drawn: Image.Image, session: Session, tmp_path: Path) -> None:
    drawn.save(tmp_path / "picture.png", icc_profile=write_profile())
    with Image.open(tmp_path / "picture.png") as image:
        with pytest.warns(UserWarning, match=r"its colours are converted from .* to sRGB"):
            prepared = session.prepare(image)
        plain = session.prepare(drawn.convert("RGB"))
    expected = read_image(tmp_path / "picture.png", HOW)
    assert np.abs(prepared - expected).max() <= 2 / 255 < np.abs(prepared - plain).max()
    drawn.save(tmp_path / "picture.png", icc_profile=b"no profile")
    with (
        Image.open(tmp_path / "picture.png") as image,
        pytest.warns(UserWarning, match="its colour profile is damaged, or of a kind that is not known: not applied"),
    ):
        assert np.array_equal(session.prepare(image), plain)


def test_cmyk_without_a_profile_is_told(session: Session) -> None:
    with pytest.warns(UserWarning, match="its CMYK colours have no profile of their own"):
        session.prepare(draw("CMYK"))


def test_what_is_no_picture_of_8_bits_is_refused(session: Session, tmp_path: Path) -> None:
    for mode in ("I", "F", "I;16"):
        with pytest.raises(UserError, match=f"an image of mode {mode}; expected 8 bits a channel; save it, and let"):
            session.run(Image.new(mode, (8, 8)))
    cut = turn_to_jpeg(draw("RGB"))
    with Image.open(io.BytesIO(cut[: len(cut) - 60])) as image, pytest.raises(UserError, match="cannot be read"):
        session.run(image)
    with pytest.raises(UserError, match=r"a picture of str; expected a numpy array, .* or an image of Pillow"):
        session.prepare("picture.png")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"an image of str; expected a numpy array, float32 \[1, 3, 4, 4\]"):
        session.run("picture.png")  # type: ignore[arg-type]
