"""The agent as a program: it answers as bve-run serve does, in each runtime, and what it says to wrong input."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from bigvit_edge.bench import agent
from bigvit_edge.bench.cases import Case
from bigvit_edge.bench.frame_reader import FRAME, PICTURES, FrameReader
from bigvit_edge.bench.runners import AGENT, FRAMES
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends.litert.native import write_file
from bigvit_edge.export.image import normalize
from bigvit_edge.export.program import from_bytes
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.runtime import executorch, find_library
from bigvit_edge.runtime.opening import load_file
from tests.native import ROOT, run_program, skip
from tests.runtime.doors import write_pte
from tests.runtime.test_session import build, write

SERVED = ROOT / "tests/runtime/corpus/valid_tiny.bve"
SIDE, CLASSES = 32, 5
KEEPS = (1.0, 0.5)
HOW = json.dumps(asdict(Preprocessing(SIDE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "BGR")))
TFLITE_RUNTIME = ROOT / "build/tflite_runtime"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """one.FORMAT holds one entry point, two.FORMAT two; .onnx can hold one alone."""
    folder = tmp_path_factory.mktemp("agent")
    model = build(little=True)
    for name, keeps in (("one", KEEPS[1:]), ("two", KEEPS)):
        program = write(model, folder / f"{name}.bve", keeps).read_bytes()
        (folder / f"{name}.tflite").write_bytes(
            write_file(program, from_bytes(program).entries, {"model": "tiny", "preprocessing": HOW})
        )
        order = {executorch.ORDER: "keep_1,keep_0_5"} if len(keeps) > 1 else {}
        words = order | {executorch.KEEP: ",".join(f"{keep:g}" for keep in keeps), PICTURES: HOW}
        (folder / f"{name}.pte").write_bytes(write_pte.make_file(program, words, {}))
    make_onnx(folder / "one.onnx")
    make_onnx(folder / "pixels.onnx", (1, SIDE, SIDE, 3), pixels=True)
    return folder


def make_onnx(
    path: Path, shape: tuple[int | str, ...] = (1, 3, SIDE, SIDE), more: tuple[str, ...] = (), pixels: bool = False
) -> None:
    """Means of the colours, times a matrix. pixels: it takes them as uint8, [1, S, S, 3]."""
    weight = np.random.default_rng(0).standard_normal((3, CLASSES), np.float32)
    image, logits = (
        helper.make_tensor_value_info(
            name, TensorProto.UINT8 if name == "image" and pixels else TensorProto.FLOAT, sides
        )
        for name, sides in (("image", shape), ("logits", (shape[0], CLASSES)))
    )
    nodes = [
        *(
            (
                helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
                helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
            )
            if pixels
            else ()
        ),
        helper.make_node("GlobalAveragePool", ["planes" if pixels else "image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("MatMul", ["means", "weight"], ["logits"]),
        *(helper.make_node("Identity", ["logits"], [name]) for name in more),
    ]
    outputs = [logits, *(helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, CLASSES)) for name in more)]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, [onnx.numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    words = {"dtype": "uint8", "layout": "NHWC"} if pixels else {}
    helper.set_model_props(model, {"preprocessing": json.dumps({**json.loads(HOW), **words})})
    onnx.save(model, str(path))


def find_door(format_: str) -> list[str]:
    if format_ == "onnx":
        return []
    try:
        return ["--delegate", str(find_library(f"libbve_{format_}.so"))]
    except UserError as e:
        skip(e.met, "make native")
        raise


def spell(path: Path, *options: str) -> list[str]:
    format_ = {".tflite": "litert", ".pte": "executorch", ".onnx": "onnx"}[path.suffix]
    case = Case(path.name, path, "", 0, format_)
    frames = ("--frames", str(FRAMES), "--preprocessing", case.spell_preprocessing())
    return [sys.executable, str(AGENT), format_, str(path), *find_door(format_), *frames, *options]


def speak(lines: str, words: list[str], **environment: str) -> list[Any]:
    run = subprocess.run(
        words, input=lines, capture_output=True, text=True, timeout=120, check=False, env=os.environ | environment
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def refuse(lines: str, words: list[str]) -> str:
    """What it says last, and that it says no more than one of ours."""
    run = subprocess.run(words, input=lines, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode != 0
    assert "Traceback" not in run.stderr
    return run.stderr.strip().splitlines()[-1]


def draw(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, SIDE, SIDE), np.float32)


@pytest.fixture(scope="module")
def served() -> list[Any]:
    run_program("bve-run", "--version")  # or skip
    return speak("run 0 7 0\nmemory\n", [str(ROOT / "build/host/bve-run"), "serve", str(SERVED)])


@pytest.mark.parametrize("file", ["one.tflite", "one.onnx", "one.pte"])
def test_it_speaks_as_bve_run_does(file: str, folder: Path, served: list[Any]) -> None:
    core, clock = max(os.sched_getaffinity(0)), ["--clock", str(ROOT / "build/host/bve-run")]
    told = speak(
        "run 0 7 0\nmemory\nrun 0 3 20\nmemory\n", spell(folder / file, "--cores", str(core), "--evict", *clock)
    )
    for ours, theirs in zip(told, (*served, *served[1:]), strict=True):
        assert ours.keys() == theirs.keys()
    ready, turn, memory, paced, _ = told
    assert (ready["cores_allowed"], ready["image_floats"], ready["threads"]) == ([core], 3 * SIDE * SIDE, 1)
    assert ready["load_ms"] > 0 < ready["first_ms"]
    assert len(turn["times_ms"]) == 7
    assert turn["cores"] == {str(core): 7}
    assert sum(turn["times_ms"]) <= (turn["end_ns"] - turn["start_ns"]) / 1e6
    assert all(mhz > 0 for mhz in turn["clock_mhz"])
    assert paced["end_ns"] - paced["start_ns"] >= 40e6
    assert 0 < memory["anonymous_bytes"] < memory["peak_bytes"]


@pytest.mark.parametrize(("counts", "cut"), [("4 9", 5), ("null null", None)])
def test_the_clock_is_of_the_callers_core_and_what_is_not_told_is_none(
    counts: str, cut: int | None, folder: Path, tmp_path: Path
) -> None:
    program, asked = tmp_path / "bve-run", tmp_path / "asked"
    first, second = counts.split()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {asked}\nn={first}; [ $(wc -l < {asked}) = 1 ] || n={second}\n'
        'echo "{\\"clock_mhz\\": 1234.5, \\"throttled_periods\\": $n}"\n'
    )
    program.chmod(0o700)
    core = min(os.sched_getaffinity(0))
    words = spell(folder / "one.onnx", "--cores", str(core), "--clock", str(program))
    _, turn, _ = speak("run 0 3 0\nmemory\n", words)
    assert asked.read_text() == f"clock --cores {core}\n" * 2
    assert (turn["clock_mhz"], turn["throttled_periods"]) == ([1234.5, 1234.5], cut)


@pytest.mark.parametrize(
    ("file", "method"),
    [
        ("one.tflite", None), ("two.tflite", None), ("two.tflite", "keep_0_5"), ("one.pte", None), ("two.pte", None),
        ("two.pte", "keep_0_5"), ("one.onnx", None),
    ],
)  # fmt: skip
def test_answers_are_those_of_its_runtime(file: str, method: str | None, folder: Path, tmp_path: Path) -> None:
    words = spell(folder / file, *(["--method", method] if method else []))
    images, odd = draw(3), tmp_path / "100% of\nit; é"
    (tmp_path / "in").write_bytes(images.tobytes())
    _, told = speak(f"answer {tmp_path / 'in'} {quote(str(odd))}\n", words)
    assert told == {"images": 3}
    logits = np.frombuffer(odd.read_bytes(), "<f4").reshape(3, CLASSES)
    runner = load_file(words[2], folder / file, 1, method)
    assert np.allclose(logits, np.concatenate([runner(image[None]) for image in images]), atol=1e-6)
    if file.startswith("two"):
        other = load_file(words[2], folder / file, 1, "keep_1" if method else "keep_0_5")
        assert not np.allclose(logits, np.concatenate([other(image[None]) for image in images]), atol=1e-3)


def read_pixels() -> np.ndarray:
    """The frame as a file of that preprocessing sees it, uint8 [S, S, 3]."""
    image = np.empty((1, SIDE, SIDE, 3), np.uint8)
    reader = FrameReader(json.dumps({**json.loads(HOW), "dtype": "uint8", "layout": "NHWC"}), image)
    return reader.prepare()[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("file", ["one.tflite", "one.onnx", "one.pte", "pixels.onnx"])
def test_frames_are_labelled_as_their_pixels_are(file: str, folder: Path) -> None:
    words = spell(folder / file)
    _, turn, paced, _ = speak("frame 0 3 0\nframe 0 2 20\nmemory\n", words)
    assert turn.keys() == {"frame", "prepared_by", "start_ns", "end_ns", "label_ms", "prepare_ms", "top"}
    assert (turn["frame"], len(turn["label_ms"])) == (FRAME, 3)
    assert all(0 < part < whole for part, whole in zip(turn["prepare_ms"], turn["label_ms"], strict=True))
    assert paced["end_ns"] - paced["start_ns"] >= 20e6
    pixels = read_pixels()
    if file == "pixels.onnx":
        assert turn["prepared_by"] == "bve_read_frame_by"
        session = onnxruntime.InferenceSession(str(folder / file))
        logits = session.run(None, {"image": pixels[None]})[0]
    else:
        assert turn["prepared_by"] == "bve_read_frame_by, numpy"
        image = normalize(pixels.transpose(2, 0, 1)[None].astype(np.float32), Preprocessing(**json.loads(HOW)))
        logits = load_file(words[2], folder / file)(image)
    assert turn["top"] == logits.argmax()


def test_an_image_file_answers_pixels(folder: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    (tmp_path / "in").write_bytes(images.tobytes())
    ready, told = speak(f"answer {tmp_path / 'in'} {tmp_path / 'out'}\n", spell(folder / "pixels.onnx"))
    assert (ready["image_floats"], told) == (3 * SIDE * SIDE, {"images": 3})
    session = onnxruntime.InferenceSession(str(folder / "pixels.onnx"))
    logits = [session.run(None, {"image": image[None]})[0] for image in images]
    assert np.allclose(np.fromfile(tmp_path / "out", "<f4").reshape(3, CLASSES), np.concatenate(logits))


def test_where_there_are_no_frames_images_go_on(folder: Path, tmp_path: Path) -> None:
    make_onnx(tmp_path / "other.onnx", (1, 3, SIDE + 1, SIDE + 1))
    lines = "frame 0 1 0\nrun 0 1 0\nframe 0 1 0\n"
    _, lack, turn, again = speak(lines, spell(tmp_path / "other.onnx"))
    assert (
        lack
        == again
        == {"lack": "an input of float32 [1, 3, 33, 33], where the preprocessing makes float32 [1, 3, 32, 32]"}
    )
    assert len(turn["times_ms"]) == 1
    _, old, *_ = speak(lines, spell(folder / "one.onnx"), BVE_LIBRARY=str(tmp_path / "none.so"))
    assert "none.so, which is no file, expected the path of libbve.so" in old["lack"]


def test_the_older_runtime_of_litert_serves_too(folder: Path, tmp_path: Path) -> None:
    if not (TFLITE_RUNTIME / "tflite_runtime").is_dir():
        skip("no build/tflite_runtime", "make tflite-runtime")
    blocked = tmp_path / "ai_edge_litert"  # as where it is not installed
    blocked.mkdir()
    (blocked / "__init__.py").write_text("raise ModuleNotFoundError(name='ai_edge_litert')")
    (tmp_path / "in").write_bytes(draw(1).tobytes())
    ready, _ = speak(
        f"answer {tmp_path / 'in'} {tmp_path / 'out'}\n", spell(folder / "two.tflite"),
        PYTHONPATH=f"{tmp_path}:{TFLITE_RUNTIME}",
    )  # fmt: skip
    assert ready["version"].startswith("tflite_runtime 2.14")
    runner = load_file("litert", folder / "two.tflite")
    assert np.allclose(np.fromfile(tmp_path / "out", "<f4"), runner(draw(1))[0], atol=1e-6)


def test_seconds_are_at_least_that_long_and_the_end_of_stdin_ends_a_run(folder: Path) -> None:
    with subprocess.Popen(
        spell(folder / "one.onnx"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        process.stdin.write("run 0.2 1 0\n")
        process.stdin.flush()
        turn = json.loads(process.stdout.readline())
        assert turn["end_ns"] - turn["start_ns"] >= 0.2e9
        process.stdin.write("run 3600 1 0\n")
        process.stdin.close()
        assert process.wait(timeout=30) == 0
        assert process.stdout.read() == ""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("walk", "'walk', expected run, frame, memory or answer IN OUT; check who asks"),
        ("run 1 0 0", "expected run or frame SECONDS IMAGES PERIOD_MS"),
        ("frame 1 0 0", "expected run or frame SECONDS IMAGES PERIOD_MS"),
        ("frames 1 1 0", "expected run, frame, memory or answer"),
        ("run nan 1 0", "expected run or frame SECONDS"),
        ("run 1 inf 0", "expected run or frame SECONDS"),
        ("run 1 1 -1", "expected run or frame SECONDS"),
        ("run 1 1 0 0", "expected run or frame SECONDS"),
        ("run one two three", "expected run or frame SECONDS"),
        ("answer /tmp", "expected run, frame, memory or answer"),
        ("answer a b c", "expected run, frame, memory or answer"),
        ("answer /nowhere /dev/null", "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere'"),
        (f"answer {ROOT}/README.md /dev/null", "ValueError: cannot reshape"),
        ("answer IN /dev/full", "No space left on device"),
    ],
)
def test_wrong_lines_are_refused(line: str, says: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(draw(1).tobytes())
    assert says in refuse(line.replace("IN ", f"{tmp_path / 'in'} ", 1) + "\n", spell(folder / "one.onnx"))


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    make_onnx(tmp_path / "open.onnx", ("batch", 3, SIDE, SIDE))
    make_onnx(tmp_path / "several.onnx", more=("again",))
    for suffix in ("onnx", "tflite", "pte"):
        (tmp_path / f"damaged.{suffix}").write_bytes(b"no model")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "options", "says"),
    [
        ("open.onnx", (), "an image of shape ('batch', 3, 32, 32), expected one of a fixed size"),
        ("several.onnx", (), "1 inputs and 2 outputs, expected an image and its logits"),
        ("none.onnx", (), "NoSuchFile"),
        ("damaged.onnx", (), "InvalidProtobuf"),
        ("damaged.tflite", (), "ValueError"),
        ("damaged.pte", (), "RuntimeError"),
        ("damaged.onnx", ("--cores", "1020-1023"), "--cores that this process may not run on"),
        ("damaged.onnx", ("--cores", "a"), "--cores"),
    ],
)
def test_files_and_words_that_cannot_be_served_are_refused(
    file: str, options: tuple[str, ...], says: str, strange: Path
) -> None:
    assert says in refuse("", spell(strange / file, *options))


@pytest.mark.parametrize(
    ("format_", "pip"), [("litert", "ai-edge-litert"), ("onnx", "onnxruntime"), ("executorch", "executorch")]
)
def test_a_missing_runtime_names_what_brings_it(format_: str, pip: str, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("float32 = 1")
    words = [sys.executable, "-S", str(AGENT), format_, "--probe"]
    assert refuse("", words).startswith("no numpy for ")
    assert refuse("", words).endswith("do there: pip install numpy")
    run = subprocess.run(words, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(tmp_path)})
    assert run.returncode == 1
    assert run.stderr.strip().endswith(f"expected this file's runtime; do there: pip install {pip}")


def test_a_runtime_that_lacks_something_itself_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("import flatbuffers_of_old")
    words = [sys.executable, str(AGENT), "onnx", "--probe"]
    run = subprocess.run(
        words, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(tmp_path)}
    )
    assert run.stderr.strip() == "ModuleNotFoundError: No module named 'flatbuffers_of_old'"


def test_its_types_of_a_pte_are_those_of_the_runtime() -> None:
    """It has them twice, since nothing of ours need be on a board."""
    assert agent.DTYPES == executorch.DTYPES


def test_what_a_runtime_prints_is_none_of_our_lines(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os\nprint('hello')\nos.write(1, b'hi')\n__version__ = '0'")
    (told,) = speak("", [sys.executable, str(AGENT), "onnx", "--probe"], PYTHONPATH=str(tmp_path))
    assert told == {"runtime": "onnx", "version": "onnxruntime 0"}


@pytest.mark.parametrize("path", [AGENT, FRAMES], ids=lambda path: path.name)
def test_it_is_written_in_the_python_of_old_boards(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        for alias in (node.names if isinstance(node, ast.Import) else ())
    } | {str(node.module).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {*sys.stdlib_module_names, "numpy"}
    annotations = [n.annotation for n in ast.walk(tree) if isinstance(n, ast.arg) and n.annotation]
    annotations += [n.returns for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.returns]
    assert not [ast.unparse(n) for n in annotations if isinstance(n, ast.Subscript | ast.BinOp)]  # not known in 3.8
    newer = {"removeprefix", "removesuffix", "pairwise", "cache", "bit_count", "file_digest", "batched", "zip_strict"}
    assert not newer & {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
