"""Files that take pixels in a real browser's runtimes, and the sample of docs/libraries.md as it is written there."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigvit_edge.app.offers import Offer, list_offers
from bigvit_edge.export.inference import classify, find_entry
from bigvit_edge.runtime.opening import open_entry
from tests.app.chromium import Tab, open_chromium
from tests.app.made import export_tiny, make_page, serving
from tests.app.test_browser import ask, enter, list_methods, pick
from tests.onnx_libraries import IMAGES, ask_canvas


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Offer]:
    """Files that take pixels: a .tflite, and an .onnx in either layout."""
    folder = tmp_path_factory.mktemp("pixels")
    export_tiny(folder / "first", "--format", "litert,onnx", "--input", "image")
    export_tiny(folder / "last", "--format", "onnx", "--input", "image", "--set", "layout=NHWC")
    found, left_out = list_offers([folder / "first", folder / "last"])
    assert left_out == []
    shapes = sorted((offer.told["format"], offer.told["preprocessing"]["layout"]) for offer in found.values())
    assert shapes == [("litert", "NHWC"), ("onnx", "NCHW"), ("onnx", "NHWC")]
    return found


@pytest.fixture(scope="module")
def tab(pixels: dict[str, Offer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    folder = tmp_path_factory.mktemp("chromium")
    with serving(make_page(pixels, folder)) as port, open_chromium(folder) as tab:
        tab.port = port
        enter(tab, "127.0.0.1")
        yield tab


def test_pixels_are_answered_as_by_the_native_runtimes(tab: Tab, pixels: dict[str, Offer]) -> None:
    """Of probabilities a page can tell the logarithms alone: here too, without what is in front of the softmax."""
    noise = np.random.default_rng(1)
    give = "return await host.classify(w0, w1, {}.from(w2)).catch((error) => error.message)"
    for offer, method in list_methods(pixels):
        run = replace(open_entry(offer.path.parent, find_entry(offer.path), 1, method["name"]), read_logits=None)
        assert (run.dtype, run.probabilities) == ("uint8", offer.told["format"] == "litert")
        image = noise.integers(0, 256, run.image, np.uint8)
        told = ask(tab, give.format("Uint8Array"), offer.told, method, image.ravel().tolist())
        np.testing.assert_allclose(told, run(image)[0], atol=1e-4, rtol=0, err_msg=f"{offer.told['name']} {method}")
        assert np.abs(np.array(told) - run(np.zeros_like(image))[0]).max() > 1e-3  # it looks at the image
        said = ask(tab, give.format("Float32Array"), offer.told, method, image.ravel().tolist())
        assert "an image of 3072 numbers in Float32Array; expected 3072 numbers in Uint8Array" in said


def test_a_picture_is_classified_by_pixels_as_by_the_command(
    tab: Tab, pixels: dict[str, Offer], tmp_path: Path
) -> None:
    Image.effect_noise((70, 48), 90).convert("RGB").save(path := tmp_path / "a.png")
    tab.evaluate("location.hash = '#picture'")
    tab.wait("document.querySelector('#screen select')")
    for number, (offer, _) in enumerate(list_methods(pixels)):
        tab.evaluate("document.querySelector('#found').textContent = ''")
        tab.evaluate(f"document.querySelector('#screen select').value = {number}")
        pick(tab, "a.png", path.read_bytes(), "document.querySelector('#screen button').click(); await 0")
        tab.wait("document.querySelector('#found ol')")
        said = tab.evaluate("[...document.querySelectorAll('#found ol li')].map(item => item.textContent)")
        guesses = classify(offer.path, path).guesses
        assert said == [f"{guess.label}: {guess.probability:.1%}" for guess in guesses][: len(said)]


def test_the_sample_for_onnxruntime_web_runs_as_it_is_written(
    tab: Tab, pixels: dict[str, Offer], tmp_path: Path
) -> None:
    """docs/libraries.md's: a picture of the model's size is given as it is, of a larger one the middle.

    However large the element that shows it is on the screen.
    """
    colours = np.random.default_rng(2).integers(0, 256, (32, 32, 3), np.uint8)
    (number, offer), *_ = [(n, each) for n, each in pixels.items() if each.told["preprocessing"]["layout"] == "NCHW"]
    Image.fromarray(colours).save(own := tmp_path / "own.png")
    wide = Image.fromarray(colours).resize((96, 96), Image.Resampling.NEAREST)
    canvas = Image.new("RGB", (200, 96), (255, 0, 0))
    canvas.paste(wide, (52, 0))
    canvas.save(larger := tmp_path / "larger.png")
    run = open_entry(offer.path.parent, find_entry(offer.path), 1, None)
    expected = run(np.ascontiguousarray(colours.transpose(2, 0, 1)[None]))[0]
    for image in IMAGES:
        exact, near = np.array(ask_canvas(tab, f"models/{number}", 32, [own, larger], image))
        np.testing.assert_allclose(exact, expected, atol=1e-4, err_msg=image)
        np.testing.assert_allclose(near, expected, atol=0.2 * np.ptp(expected), err_msg=image)
