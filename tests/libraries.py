"""Files in the mobile libraries that take them as they are."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bigvit_edge.app.packages import Package, find_package
from bigvit_edge.artifact import Array
from bigvit_edge.errors import UserError
from tests.app.chromium import open_chromium
from tests.native import ROOT, skip

MEDIAPIPE = ROOT / "build/mediapipe"
WEB = ("vision_wasm_internal.js", "vision_wasm_internal.wasm")
TASKS_VISION = Package(
    "@mediapipe/tasks-vision", "1.1.0",
    "ZJqh0wMKOINorfSffvDAxzyO1//c+FiG3IkzOdNDnLqvBB3DbMfj0bB/tys2SNf9S914sgoIbIpF4HTOi336cg==",
    {"vision_bundle.mjs": "vision_bundle.mjs"} | {name: f"wasm/{name}" for name in WEB},
)  # fmt: skip
CLASSIFY = """(async (width, height) => {
  const { FilesetResolver, ImageClassifier } = await import("./vision_bundle.mjs");
  const files = await FilesetResolver.forVisionTasks(".");
  const options = { baseOptions: { modelAssetPath: "./model.tflite", delegate: "CPU" } };
  const classifier = await ImageClassifier.createFromOptions(files, options);
  const pixels = new Uint8ClampedArray(await (await fetch("./pictures")).arrayBuffer());
  const answers = [], size = 4 * width * height;
  for (let i = 0; i < pixels.length; i += size) {
    const [head] = classifier.classify(new ImageData(pixels.slice(i, i + size), width, height)).classifications;
    answers.push(head.categories.map((each) => [each.index, each.categoryName || null, each.score]));
  }
  return answers;
})"""


class Told(NamedTuple):
    """What MediaPipe says of a file.

    metadata: by the schema's names; names [n]: of the most probable class of each picture, None where the file names
    none; scores [n, classes], by the class's number.
    """

    metadata: Any
    names: list[str | None]
    scores: Array


def ask_mediapipe(file: Path, pictures: Array, *words: str) -> Told:
    """Classify pictures [n, H, W, 3], uint8, RGB, by MediaPipe's ImageClassifier. RuntimeError if it refuses the file.

    words: of tests/mediapipe_classifier.py.
    """
    done = run_mediapipe(file, pictures, *words)
    if done.returncode:
        raise RuntimeError(done.stderr)
    told = json.loads(done.stdout)
    return Told(told["metadata"], *read_answers(told["answers"]))


def read_answers(answers: list[list[tuple[int, str | None, float]]]) -> tuple[list[str | None], Array]:
    """Read classes, the most probable first, as names and scores."""
    scores = np.zeros((len(answers), len(answers[0])), np.float32)
    for row, answer in zip(scores, answers, strict=True):
        for number, _, score in answer:
            row[number] = score
    return [answer[0][1] for answer in answers], scores


def ask_tasks_vision(file: Path, pictures: Array, folder: Path) -> tuple[list[str | None], Array]:
    """Classify as ask_mediapipe does, by MediaPipe's web library in Chromium. It works in a folder that is new."""
    try:
        package = find_package(TASKS_VISION)
    except UserError as e:
        skip(str(e), "have npm and a network")
    site = folder / "site"
    site.mkdir(parents=True)
    for name, path in {**package, "model.tflite": file}.items():
        (site / name).symlink_to(path)
    (site / "index.html").write_text("<!DOCTYPE html><title>page</title><h1>page</h1>")
    opaque = np.full((*pictures.shape[:3], 1), 255, np.uint8)
    (site / "pictures").write_bytes(np.concatenate([pictures, opaque], 3).tobytes())
    height, width = pictures.shape[1:3]
    with serving(site) as port, open_chromium(folder) as tab:
        tab.open(f"http://127.0.0.1:{port}/")
        return read_answers(tab.evaluate(f"{CLASSIFY}({width}, {height})"))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Serve a folder on a port of loopback, which is given."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(30)


def run_mediapipe(file: Path, pictures: Array, *words: str) -> subprocess.CompletedProcess[str]:
    if not (MEDIAPIPE / ".ready").is_file():
        skip("no MediaPipe", "make mediapipe")
    stored = file.with_suffix(".npy")
    np.save(stored, pictures)
    command = [sys.executable, ROOT / "tests/mediapipe_classifier.py", file, stored, *words]
    environment = os.environ | {"PYTHONPATH": str(MEDIAPIPE)}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
