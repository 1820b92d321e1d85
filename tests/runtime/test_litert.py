"""The door to LiteRT: both of its runtimes, here and on an ARM CPU that qemu plays, say what Session says."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, load_delegate

from bigvit_edge import runtime
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import litert as backend
from bigvit_edge.export.backends.litert import contents
from bigvit_edge.export.backends.litert.native import write_file
from bigvit_edge.export.program import from_bytes
from bigvit_edge.runtime import Session, litert
from bigvit_edge.target import load_target
from tests.models import around
from tests.native import ARM_ROOT, HOST, ROOT, SECONDS, emulate, need_cores, skip
from tests.runtime.doors import made, write_tflite
from tests.runtime.test_session import KEEPS, SHAPE, build, draw, write

ARM = "cortex-a76"
DOORS = ROOT / "build/aarch64-linux"


@pytest.fixture(scope="module")
def bve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(build(little=True), tmp_path_factory.mktemp("litert") / "little.bve")


@pytest.fixture(scope="module")
def tflite(bve: Path) -> Path:
    program = bve.read_bytes()
    path = bve.with_suffix(".tflite")
    path.write_bytes(write_file(program, from_bytes(program).entries, {"model": "tiny"}))
    return path


@pytest.fixture(scope="module")
def around_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, path = around.build(), tmp_path_factory.mktemp("around") / "around.tflite"
    graphs = [around.part_model(model, keep=keep) for keep in (1.0, 0.5)]
    artifact = backend.lower(graphs, load_target("android-native"), {})
    assert isinstance(artifact.data, bytes)
    path.write_bytes(artifact.data)
    return path


# ---- both runtimes ---------------------------------------------------------------------------------------------------


def find_arm_python() -> Path:
    """Debian's own, whichever it has."""
    return next((ARM_ROOT / "usr/bin").glob("python3.1[0-9]"), ARM_ROOT / "usr/bin/python3")


def run_python(machine: str, folder: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A script with the packages of that folder of build/, or '' for what is installed."""
    packages = ROOT / "build" / folder if folder else None
    if packages is not None and not any(packages.glob("*/interpreter.py")):
        if machine == HOST and sys.version_info >= (3, 12):
            pytest.skip("tflite-runtime 2.14 has no wheel for Python 3.12")
        skip(f"no packages in build/{folder}", "make doors-arm" if machine != HOST else "make tflite-runtime")
    if machine != HOST and not (DOORS / litert.LIBRARY).is_file():
        skip(f"no {litert.LIBRARY} in build/aarch64-linux", "make doors-arm")
    library = runtime.find_library() if machine == HOST else DOORS / runtime.LIBRARY
    paths = [str(path) for path in (packages, ROOT) if path]
    python = [*emulate(machine), sys.executable if machine == HOST else find_arm_python()]
    environment = os.environ | {"PYTHONPATH": ":".join(paths), runtime.OVERRIDE: str(library)}
    return subprocess.run(
        [*python, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )


PLACES = {
    "LiteRT": (HOST, "", "ai_edge_litert"),
    "tflite-runtime": (HOST, "tflite_runtime", "tflite_runtime"),
    "LiteRT on ARM": (ARM, "arm64-root/litert", "ai_edge_litert"),
    "tflite-runtime on ARM": (ARM, "arm64-root/tflite_runtime", "tflite_runtime"),
}


@pytest.fixture(scope="module", params=PLACES.values(), ids=PLACES)
def asked(
    request: pytest.FixtureRequest, tflite: Path, bve: Path, around_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """What ask_litert.py was told there, and the logits it got."""
    machine, packages, framework = request.param
    folder = tmp_path_factory.mktemp("asked")
    np.save(folder / "image.npy", draw())
    keeps = ",".join(map(str, KEEPS))
    files = tflite, bve, keeps, folder / "image.npy", around_file, folder / "answers.npz"
    run = run_python(machine, packages, "tests/runtime/ask_litert.py", framework, *files)
    assert run.returncode == 0, run.stderr
    with np.load(folder / "answers.npz") as answers:
        return json.loads(run.stdout), dict(answers)


def test_each_runtime_says_what_session_says(asked: Any) -> None:
    _, answers = asked
    for keep in KEEPS:
        assert np.array_equal(answers[f"door {keep:g}"], answers[f"session {keep:g}"])
    assert np.array_equal(answers["content"], answers["door 1"])
    assert np.abs(answers["door 1"] - answers["door 0.5"]).max() > 1e-3 < np.abs(answers["door 0.5"]).max()


def test_each_runtime_runs_what_is_around_ours(asked: Any) -> None:
    model = around.build()
    model.keep = 0.5
    with torch.no_grad():
        expected = model(torch.from_numpy(draw())).numpy()
    np.testing.assert_allclose(asked[1]["around"], expected, atol=1e-5)


def test_each_runtime_hands_over_the_whole_graph(asked: Any) -> None:
    assert asked[0]["ops"] == ["libbve_litert", "DELEGATE"]  # as it was, and what took its place


def test_each_runtime_tells_what_is_wrong(asked: Any) -> None:
    told, _ = asked
    refusals = {
        "option": "libbve_litert: unknown option thread, expected threads, little_threads, pin, spin_us or choose",
        "number": "libbve_litert: threads=two, expected a whole number from 1",
        "threads": "libbve_litert: 4000 threads, expected 1 to ",
        "shape": "libbve_litert: image is float32 [1, 32, 32, 3], expected float32 [1, 3, 32, 32] or uint8 "
        "[1, 32, 32, 3] or uint8 [1, 3, 32, 32]\n",
        "version": "libbve_litert: version at offset 4 is 9, this library reads 1: update bigvit-edge\n",
        "no delegate": "Encountered unresolved custom op: libbve_litert.",
        "load threads": ".tflite: 4000 threads; expected 1 to ",
        "load keep": "keep 0.75 for ",
    }
    for case, text in refusals.items():
        assert text in told[case], case
    assert told["many threads"] == ""  # of the interpreter's, as many as there are cores
    kinds = {case: text.partition(":")[0] for case, text in told.items() if case not in ("ops", "many threads")}
    values = dict.fromkeys(("option", "number"), "ValueError") | dict.fromkeys(
        ("load threads", "load keep"), "UserError"
    )
    assert kinds == {case: values.get(case, "RuntimeError") for case in kinds}


@pytest.mark.parametrize("machine", [HOST, ARM])
@pytest.mark.parametrize("name", ["test_litert", "test_litert_context"])
def test_program(machine: str, name: str, tmp_path: Path) -> None:
    program = (ROOT / "build/host" if machine == HOST else DOORS) / f"tests/runtime/doors/{name}"
    command = [*emulate(machine), program]
    if not program.is_file():
        skip(f"no {program.relative_to(ROOT)}", "make native" if machine == HOST else "make doors-arm")
    environment = os.environ | {"BVE_TINY_TFLITE": str(write_tflite.write(tmp_path / "tiny.tflite"))}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "SUCCESS" in run.stdout


# ---- from Python -----------------------------------------------------------------------------------------------------


def test_a_session_of_each_kind_of_choice(tflite: Path, bve: Path) -> None:
    expected = {keep: Session(bve, keep=keep).run(draw()) for keep in KEEPS}
    assert np.array_equal(litert.load(tflite).run(draw()), expected[1.0])
    assert np.array_equal(litert.load(str(tflite), method="keep_0_3").run(draw()), expected[0.3])
    session = litert.load(tflite, keep=0.5, method="keep_0_5")
    assert (session.shape, session.classes) == ((1, 3, SHAPE["image_size"], SHAPE["image_size"]), 5)
    assert np.array_equal(session.run(np.asfortranarray(draw())), expected[0.5])
    for wrong, met in ((draw()[0], r"float32 \[3, 32, 32\]"), (draw().astype(float), "float64"), ([1], "list")):
        with pytest.raises(UserError, match=rf"an image of {met}.*; expected a numpy array, float32 \[1, 3, 32, 32\]"):
            session.run(wrong)  # type: ignore[arg-type]


def test_pixels_are_run_where_the_file_takes_them(tmp_path: Path) -> None:
    path = write_tflite.write(tmp_path / "tiny.tflite")
    (tmp_path / "tiny.bve").write_bytes(made.read_program())
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    session = litert.load(f"{path}.pixels", 0.5)
    assert (session.shape, session.dtype) == ((1, 4, 4, 3), "uint8")
    assert np.array_equal(session.run(pixels), Session(tmp_path / "tiny.bve", keep=0.5).run(pixels[0]))
    with pytest.raises(UserError, match=r"an image of float32 .*; expected a numpy array, uint8 \[1, 4, 4, 3\]"):
        session.run(np.zeros((1, 3, 4, 4), np.float32))


def test_signatures_share_one_copy_of_the_program(tflite: Path, bve: Path) -> None:
    def count_mappings() -> int:
        return sum(str(tflite) in line for line in Path("/proc/self/maps").read_text().splitlines())

    before = count_mappings()
    sessions = [litert.load(tflite, keep=KEEPS[0])]
    alone = count_mappings()
    assert alone > before
    sessions += [sessions[0].load(keep) for keep in KEEPS[1:]]
    assert count_mappings() == alone
    image = draw()
    for session, keep in zip(sessions, KEEPS, strict=True):
        assert np.array_equal(session.run(image), Session(bve, keep=keep).run(image))
    with pytest.raises(UserError, match=r"keep 0\.7 for .*one of its signatures"):
        sessions[0].load(0.7)


@pytest.mark.parametrize(
    "options", [{}, {"little_threads": 1}, {"pin": True}, {"spin_us": 5}, {"choose": True}], ids=str
)
def test_threads_change_nothing(options: dict[str, Any], tflite: Path) -> None:
    need_cores(2)
    assert np.array_equal(litert.load(tflite, threads=2, **options).run(draw()), litert.load(tflite).run(draw()))


def test_one_signature_is_found_by_its_keep_ratio(tmp_path: Path, bve: Path) -> None:
    for keep in (0.5, None):
        program = write(build(little=keep is not None), tmp_path / "one.bve", (keep,)).read_bytes()
        path = tmp_path / "one.tflite"
        path.write_bytes(write_file(program, from_bytes(program).entries, {}))
        expected = Session(tmp_path / "one.bve").run(draw())
        assert np.array_equal(litert.load(path, keep).run(draw()), expected)
        with pytest.raises(
            UserError, match=r"keep 0\.3 for .*one\.tflite; expected one of its signatures, serving_default"
        ):
            litert.load(path, 0.3)


def test_what_cannot_work_is_refused(tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no signature 'keep_0_7'; expected one of keep_1, keep_0_5, keep_0_3"):
        litert.load(tflite, method="keep_0_7")
    with pytest.raises(UserError, match="keep 1 for"):
        litert.load(tflite, 1.0, method="keep_0_5")
    model = contents.read_model(tflite.read_bytes())
    model.signatureDefs[0].inputs[0].name = b"picture"
    (tmp_path / "other.tflite").write_bytes(contents.write_model(model))
    with pytest.raises(UserError, match=r"other\.tflite with signatures .*'picture'.*take a \.tflite of bigvit-edge"):
        litert.load(tmp_path / "other.tflite")
    for options, message in (
        ({"threads": 1.5}, "^threads=1.5; expected a whole number"),
        ({"threads": 0}, "^threads=0, little_threads=0; expected at least one thread"),
        ({"threads": 2, "little_threads": -1}, "^threads=2, little_threads=-1; expected at least one thread"),
        ({"spin_us": -1}, "^spin_us=-1; expected 0 to 1000000 microseconds"),
    ):
        with pytest.raises(UserError, match=message):
            litert.load(tflite, **options)
    for size in (0, 10, tflite.stat().st_size // 2, tflite.stat().st_size - 8):
        (tmp_path / "cut.tflite").write_bytes(tflite.read_bytes()[:size])
        with pytest.raises(UserError, match=r"cut\.tflite: LiteRT cannot load it \(.*\); expected a \.tflite file"):
            litert.load(tmp_path / "cut.tflite")
    monkeypatch.setattr(litert, "FRAMEWORKS", ("no_such_runtime",))
    litert.import_framework.cache_clear()
    with pytest.raises(UserError, match=r"no_such_runtime is installed.*pip install ai-edge-litert"):
        litert.load(tflite)
    litert.import_framework.cache_clear()


def test_a_signature_that_is_not_ours_is_refused(tflite: Path, bve: Path, tmp_path: Path) -> None:
    model = contents.read_model(tflite.read_bytes())
    graph, code = model.subgraphs[1], schema.BuiltinOperator.ABS
    model.operatorCodes.append(schema.OperatorCodeT(code, None, 1, code))
    graph.tensors = [graph.tensors[0], graph.tensors[2]]
    graph.tensors[1].shape = graph.tensors[0].shape
    op = graph.operators[0]
    op.opcodeIndex, op.inputs, op.outputs, op.customOptions = 1, np.int32([0]), np.int32([1]), None
    graph.outputs = np.int32([1])
    model.signatureDefs[1].outputs[0].tensorIndex = 1
    path = tmp_path / "mixed.tflite"
    path.write_bytes(contents.write_model(model, 64))
    assert np.array_equal(litert.load(path).run(draw()), Session(bve).run(draw()))
    runner = Interpreter(str(path)).get_signature_runner("keep_0_5")
    assert np.array_equal(runner(image=draw())["logits"], np.abs(draw()))  # a sound file for LiteRT itself
    with pytest.raises(UserError, match=r"mixed\.tflite without an op libbve_litert in .*keep_0_5.*backend=native"):
        litert.load(path, 0.5)


def test_without_the_library_it_says_what_to_install(
    tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    litert.load_library.cache_clear()
    shutil.copy(runtime.find_library(), tmp_path / runtime.LIBRARY)
    monkeypatch.setenv(runtime.OVERRIDE, str(tmp_path / runtime.LIBRARY))
    (tmp_path / litert.LIBRARY).write_bytes(b"no library")
    with pytest.raises(UserError, match=r"libbve_litert\.so: .*; expected a libbve_litert\.so for this machine"):
        litert.load_library()
    with pytest.raises(UserError, match=r"little\.tflite is run by libbve_litert\.so: .*for this machine"):
        backend.load(tflite)
    litert.load_library.cache_clear()


def test_eight_interpreters_in_eight_threads_while_others_come_and_go(tflite: Path) -> None:
    images = [draw() * scale for scale in range(1, 9)]
    expected = [litert.load(tflite, 0.5).run(image) for image in images]
    sessions = [litert.load(tflite, 0.5) for _ in images]
    wrong: list[int] = []

    def work(number: int) -> None:
        for round_ in range(20):
            if not np.array_equal(sessions[number].run(images[number]), expected[number]):
                wrong.append(number)
            if number % 2 and round_ % 5 == 0:  # the old one goes while the others run
                sessions[number] = litert.load(tflite, 0.5)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_two_copies_of_the_library_work_side_by_side(tflite: Path, tmp_path: Path) -> None:
    copy = shutil.copy(litert.load_library(), tmp_path / "libcopy.so")
    answers = []
    interpreters = [
        Interpreter(str(tflite), experimental_delegates=[load_delegate(str(path))])
        for path in (copy, litert.load_library())
    ]
    for interpreter in interpreters:
        interpreter.allocate_tensors()
    for interpreter in interpreters:
        interpreter.set_tensor(0, draw())
        interpreter.invoke()
        answers.append(interpreter.get_tensor(2))
    assert np.array_equal(*answers)


def test_ops_of_two_programs_in_one_graph(bve: Path, tmp_path: Path) -> None:
    """Neighbours that the runtime would hand over together: each gets a kernel of its own."""
    program = bve.read_bytes()
    model = contents.read_model(write_file(program, from_bytes(program).entries[:2], {}))
    first, second = model.subgraphs
    second.tensors[0] = None
    first.tensors += second.tensors[1:]
    second.operators[0].inputs, second.operators[0].outputs = np.int32([0, 3]), np.int32([4])
    first.operators += second.operators
    first.outputs = np.int32([2, 4])
    model.subgraphs, model.signatureDefs = [first], None
    (tmp_path / "two.tflite").write_bytes(contents.write_model(model, 64))
    interpreter = Interpreter(str(tmp_path / "two.tflite"), experimental_delegates=[litert.load_delegate()])
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, draw())
    interpreter.invoke()
    for tensor, keep in ((2, 1.0), (4, 0.5)):
        assert np.array_equal(interpreter.get_tensor(tensor), Session(bve, keep=keep).run(draw()))
