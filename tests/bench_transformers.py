"""The demo's .onnx in other libraries, each with its own resize: `python tests/bench_transformers.py BUNDLE ...`.

On the demo's held-out pictures, in their own size (64 px, where nothing is resized) and enlarged to 256 px: of how many
the first class is the one that PyTorch finds on the picture as Pillow resizes it, and by how much a probability differs
at the most. Wants `make transformers-js` and Chromium.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from PIL import Image

from bigvit_edge.app.inbox import Inbox
from bigvit_edge.app.offers import list_offers
from bigvit_edge.app.packages import find_packages
from bigvit_edge.app.server import Site
from bigvit_edge.app.web import list_page
from bigvit_edge.artifact import Array
from bigvit_edge.demo.digits import held_out
from bigvit_edge.export.image import make_input, prepare
from bigvit_edge.models.hf_models import import_transformers, silence_transformers
from bigvit_edge.models.load import load
from bigvit_edge.preprocessing import NHWC
from bigvit_edge.runtime.formats.onnx import set_options
from bigvit_edge.tables import print_rows
from tests.app.chromium import open_chromium
from tests.app.made import serving
from tests.onnx_libraries import ask_canvas, ask_pipeline

SIDES = (64, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=1000, help="of pictures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in SIDES:
            pictures = draw_pictures(options.count, side, folder / str(side))
            right = ask_pytorch(pictures)
            for bundle in options.bundles:
                for file, library, found in ask_libraries(bundle, pictures, Path(tempfile.mkdtemp(dir=folder))):
                    same, most = (found.argmax(1) == right.argmax(1)).sum(), np.abs(found - right).max()
                    rows.append((file, f"{side} px", library, f"{same} of {len(right)}", f"{most:.2g}"))
                    print("  ".join(rows[-1]), flush=True)
    print_rows(("file", "pictures", "library", "same top-1", "largest difference"), rows)


def draw_pictures(count: int, side: int, folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(count)]
    for path, image in zip(paths, (held_out().images * 255).round().byte().permute(0, 2, 3, 1).numpy(), strict=False):
        Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC).save(path, compress_level=1)
    return paths


def ask_pytorch(pictures: Sequence[Path]) -> Array:
    """Probabilities [n, 10]."""
    model = load("blvit_demo")
    pixels = np.stack([prepare(path, model.preprocessing).pixels for path in pictures])
    with torch.no_grad():
        parts = torch.from_numpy(make_input(pixels, model.preprocessing)).split(50)
        answers: Array = torch.cat([model.module(part) for part in parts]).softmax(1).numpy()
    return answers


def ask_libraries(bundle: Path, pictures: Sequence[Path], folder: Path) -> Iterator[tuple[str, str, Array]]:
    """The file, the library, and its probabilities."""
    offers, _ = list_offers([bundle])
    files = list_page() | {f"npm/{file}": path for file, path in find_packages().items()}
    for number, offer in offers.items():
        if offer.told["format"] != "onnx":
            continue
        told, path = offer.told["preprocessing"], offer.path.resolve()
        name, takes_pixels = f"{bundle.name}/{path.name}", told["dtype"] == "uint8"
        if told["layout"] != NHWC:
            (empty := folder / number).mkdir()
            answers = ask_pipeline(path, takes_pixels, pictures, empty)
            scores = [[answer[label] for label in offer.told["labels"]] for answer in answers]
            yield name, "transformers.js", np.array(scores, np.float32)
            yield name, "transformers", soften(ask_transformers(path, pictures))
            if takes_pixels:
                site = Site(files, offers, Inbox(folder / "results"), frozenset({"localhost"}))
                with serving(site) as port, open_chromium(folder / f"{number}-chromium") as tab:
                    tab.open(f"http://127.0.0.1:{port}/")
                    yield (
                        name,
                        "onnxruntime-web, canvas",
                        soften(ask_canvas(tab, f"models/{number}", told["size"], pictures)),
                    )


def ask_transformers(file: Path, pictures: Sequence[Path]) -> list[Array]:
    """Logits of each, by its processor and ONNX Runtime."""
    with silence_transformers():
        processor = import_transformers().AutoImageProcessor.from_pretrained(file.parent, local_files_only=True)
    session = onnxruntime.InferenceSession(file, set_options(1), providers=["CPUExecutionProvider"])
    given = (processor(Image.open(path), return_tensors="np")["pixel_values"] for path in pictures)
    return [session.run(["logits"], {"pixel_values": pixels})[0][0] for pixels in given]


def soften(logits: Any) -> Array:
    answers: Array = torch.tensor(np.array(logits)).softmax(1).numpy()
    return answers


if __name__ == "__main__":
    main()
