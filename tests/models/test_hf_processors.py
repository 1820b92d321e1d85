"""Image processors of transformers: what is measured of one prepares pictures as it does itself."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bigvit_edge.errors import UserError
from bigvit_edge.export.image import read_image
from bigvit_edge.models.hf_models import Folder, import_transformers
from bigvit_edge.models.hf_processors import read_processor
from bigvit_edge.preprocessing import Preprocessing

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra [hf]")

SQUARE_36 = {"size": {"height": 36, "width": 36}}
SHORT_72 = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}
PROCESSORS = [
    ("ViTImageProcessor", {**SQUARE_36, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}),
    ("ViTImageProcessor", {**SQUARE_36, "resample": 0, "do_normalize": False}),
    ("ViTImageProcessor", {**SQUARE_36, "resample": 1, "do_rescale": False, "do_normalize": False}),
    ("DeiTImageProcessor", {**SQUARE_36, "crop_size": {"height": 32, "width": 32}}),  # squashed, then cropped
    ("BeitImageProcessor", {**SQUARE_36, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 64}, "crop_pct": 0.8}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}, "crop_pct": 0.8}),  # from 384 on: squashed
    ("MobileViTImageProcessor", SHORT_72),  # BGR, and no mean
    ("LevitImageProcessor", {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}),  # 256 / 224
    ("PoolFormerImageProcessor", {"size": {"shortest_edge": 72}, "crop_pct": 0.9, **SHORT_72}),
    ("MobileNetV2ImageProcessor", SHORT_72),
    ("CLIPImageProcessor", SHORT_72),
    ("EfficientNetImageProcessor", {**SQUARE_36, "rescale_factor": 1 / 127.5, "rescale_offset": True,
                                    "do_normalize": False, "include_top": False}),
    ("EfficientNetImageProcessor", SQUARE_36),  # divided by std twice
]  # fmt: skip


def write(kind: str, options: dict[str, Any], folder: Path) -> tuple[Any, Folder]:
    """A processor, and the folder that it is saved in."""
    transformers = import_transformers()
    processor = getattr(transformers, f"{kind}Pil")(**options)
    processor.save_pretrained(folder)
    return processor, Folder(f"hf:{folder}", str(folder), True, transformers.ViTConfig(image_size=48))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth picture of random colours: 72 pixels down are 107 across, of which 21 or 22 are cut off."""
    blocks = np.random.default_rng(0).integers(0, 256, (14, 20, 3), np.uint8)
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.fromarray(blocks).resize((268, 180), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.mark.parametrize(("kind", "options"), PROCESSORS)
def test_pictures_are_prepared_as_the_processor_does(
    kind: str, options: dict[str, Any], tmp_path: Path, picture: Path
) -> None:
    processor, folder = write(kind, options, tmp_path)
    how, notes = read_processor(folder, None)
    expected = np.asarray(processor(Image.open(picture), return_tensors="np")["pixel_values"])
    spread = expected.max() - expected.min()
    assert np.abs(read_image(picture, how) - expected).max() < 1e-5 * spread
    assert notes == ()


def test_what_it_says_is_rounded_as_it_was_written(tmp_path: Path) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    _, folder = write("MobileNetV2ImageProcessor", {**SHORT_72, "image_mean": mean, "image_std": std}, tmp_path)
    how, _ = read_processor(folder, None)
    assert how == Preprocessing(
        64, mean, std, crop="center", resize="bilinear, antialiased", resize_to=72, crop_rounding="down"
    )
    larger, _ = read_processor(folder, 128)
    assert (larger.size, larger.resize_to) == (128, 144)


def test_what_cannot_be_carried_is_said(tmp_path: Path) -> None:
    _, folder = write("CLIPImageProcessor", {"size": {"shortest_edge": 64}, "do_center_crop": False}, tmp_path)
    how, (note,) = read_processor(folder, None)
    assert (how.size, how.crop, how.resize) == (48, "largest centre square", "bicubic, antialiased")
    assert "cannot be carried" in note


@pytest.mark.parametrize("answer", [False, True, None])
def test_a_hub_that_says_it_has_no_processor_and_one_that_cannot_be_asked(
    answer: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = import_transformers()

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Can't load image processor")

    def ask(name: str, file: str) -> bool:
        assert (name, file) == ("no-such/name-at-all", "preprocessor_config.json")
        if answer is None:
            raise ConnectionError("no network")
        return answer

    monkeypatch.setattr(transformers.AutoImageProcessor, "from_pretrained", refuse)
    monkeypatch.setattr("huggingface_hub.file_exists", ask)
    folder = Folder("hf:no-such/name-at-all", "no-such/name-at-all", False, transformers.ViTConfig(image_size=48))
    if answer is False:
        assert "no preprocessor_config.json" in read_processor(folder, None)[1][0]
        return
    with pytest.raises(UserError, match=r"cannot be had from the hub \(OSError: Can't load image processor\)"):
        read_processor(folder, None)


def test_a_folder_without_a_processor(tmp_path: Path) -> None:
    folder = Folder(f"hf:{tmp_path}", str(tmp_path), True, import_transformers().ViTConfig(image_size=48))
    how, (note,) = read_processor(folder, None)
    assert how == Preprocessing(48, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert "image_size 48, mean and std 0.5 are assumed" in note


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ('{"image_processor_type": "ViTImageProcessor", "size": {"width": 32}}', "cannot be read"),
        ('{"image_processor_type": "ViTImageProcessor", "resample": 9}', "fails on a picture"),
        ('{"image_processor_type": "ViTImageProcessor", "image_std": [-1, 1, 1]}', "does more to colours"),
    ],
)
def test_a_processor_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    folder = Folder("hf:mine", str(tmp_path), True, import_transformers().ResNetConfig())
    with pytest.raises(UserError, match=message):
        read_processor(folder, None)


def test_code_of_the_folders_does_not_run_unsaid(tmp_path: Path) -> None:
    _, folder = write("ViTImageProcessor", SQUARE_36, tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(path.read_text().replace("{", '{"auto_map": {"AutoImageProcessor": "code.Processor"},', 1))
    how, (note,) = read_processor(folder, None)
    assert how.size == 36
    assert "code of its own, which was not run; ViTImageProcessorPil is taken" in note
