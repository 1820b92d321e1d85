"""What MediaPipe's own resize changes: `python tests/bench_mediapipe.py BUNDLE`, of the demo, with --input image.

Each .tflite of one keep ratio in MediaPipe's ImageClassifier beside PyTorch, which is given the same pictures by
Pillow's resize: the 1,000 held-out ones as they are; enlarged to 480 x 480, with the noise of a camera; 640 x 480, with
margins, as a whole and by their centre square. How often the most probable class is another, and both accuracies.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bigvit_edge.artifact import Array, Pixels
from bigvit_edge.demo.digits import HELD_OUT_SEED, held_out
from bigvit_edge.export.image import make_input, prepare
from bigvit_edge.manifest import read_manifest
from bigvit_edge.models.load import Loaded, load, set_keep
from bigvit_edge.tables import print_rows
from tests.libraries import ask_mediapipe

HEIGHT, MARGIN, NOISE = 480, 80, 8.0  # pixels, pixels, levels
AT_ONCE = 50  # pictures
TITLE = ("file", "pictures", "MediaPipe sees", "other top-1", "accuracy", "PyTorch's", "largest difference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--pictures", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    manifest, rows = read_manifest(options.bundle), []
    model = load(manifest.model)
    for entry in manifest.artifacts:
        if entry.format == "litert" and len(entry.methods) == 1:
            if entry.methods[0].keep is not None:
                set_keep(model.module, entry.methods[0].keep)
            rows += [(entry.file, *row) for row in measure(options.bundle / entry.file, model, options.pictures)]
    print_rows(TITLE, rows)


def measure(file: Path, model: Loaded, count: int) -> Iterator[tuple[str, ...]]:
    labels = held_out().labels[:count].numpy()
    for size, side, margin, words in (
        ("64 x 64", 0, 0, ()), ("480 x 480", HEIGHT, 0, ()), ("640 x 480", HEIGHT, MARGIN, ()),
        ("640 x 480", HEIGHT, MARGIN, ("--centre",)),
    ):  # fmt: skip
        told, expected = [], []
        for pictures in draw(count, side, margin):
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / file.name
                copy.symlink_to(file.resolve())
                told.append(ask_mediapipe(copy, pictures, *words).scores)
                expected.append(answer(model, pictures, Path(folder) / "picture.png"))
        found, right = np.concatenate(told), np.concatenate(expected)
        yield (
            size, "the centre square" if words else "all", f"{(found.argmax(1) != right.argmax(1)).sum()} of {count}",
            f"{(found.argmax(1) == labels).mean():.1%}", f"{(right.argmax(1) == labels).mean():.1%}",
            f"{np.abs(found - right).max():.1e}",
        )  # fmt: skip


def draw(count: int, side: int, margin: int) -> Iterator[Pixels]:
    """The held-out pictures [n, H, W, 3], some at a time."""
    random = np.random.default_rng(HELD_OUT_SEED)
    pixels = (held_out().images[:count] * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for start in range(0, count, AT_ONCE):
        some = pixels[start : start + AT_ONCE]
        yield np.stack([enlarge(each, side, margin, random) for each in some]) if side else some


def enlarge(pixels: Pixels, side: int, margin: int, random: np.random.Generator) -> Pixels:
    large = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    wide = np.pad(large, ((0, 0), (margin, margin), (0, 0)), "reflect")
    return np.clip(np.rint(wide + random.normal(0, NOISE, wide.shape)), 0, 255).astype(np.uint8)


@torch.no_grad()
def answer(model: Loaded, pictures: Pixels, path: Path) -> Array:
    """PyTorch's probabilities [n, classes]."""
    prepared = []
    for picture in pictures:
        Image.fromarray(picture).save(path, compress_level=0)
        prepared.append(prepare(path, model.preprocessing).pixels)
    images = torch.from_numpy(make_input(np.stack(prepared), model.preprocessing))
    found: Array = torch.cat([model.module(image[None]) for image in images]).softmax(1).numpy()
    return found


if __name__ == "__main__":
    main()
