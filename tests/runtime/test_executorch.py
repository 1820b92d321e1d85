"""The door to ExecuTorch from Python: a .pte says what Session says of the same program, and what is wrong in words."""

import gc
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("executorch")

from bigvit_edge import runtime
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import executorch as backend
from bigvit_edge.runtime import Session, executorch
from tests.native import HOST, ROOT, SECONDS, emulate, need_cores, skip
from tests.runtime.doors import made, write_pte
from tests.runtime.test_session import KEEPS, build, draw, write

ARM = "cortex-a76"
WORDS = {executorch.ORDER: "keep_1,keep_0_5,keep_0_3", executorch.KEEP: "1,0.5,0.3"}


@pytest.fixture(scope="module")
def bve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(build(little=True), tmp_path_factory.mktemp("executorch") / "little.bve")


@pytest.fixture(scope="module")
def pte(bve: Path) -> Path:
    path = bve.with_suffix(".pte")
    path.write_bytes(write_pte.make_file(bve.read_bytes(), WORDS, {}))
    return path


def patch(pte: Path, bve: Path, offset: int, to: Path) -> Path:
    """The file with another byte there in its program."""
    data = bytearray(pte.read_bytes())
    data[data.index(bve.read_bytes()) + offset] ^= 8
    to.write_bytes(data)
    return to


def run_python(code: str, *arguments: Path, library: Path) -> str:
    """What a process prints that finds its library there alone."""
    start = "import sys\nfrom bigvit_edge.runtime import abi\nabi.sysconfig.get_path = lambda kind: '/nowhere'\n"
    run = subprocess.run(
        [sys.executable, "-c", start + code, *arguments],
        env=os.environ | {runtime.OVERRIDE: str(library), "PYTHONPATH": str(ROOT)},
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_each_kind_of_choice_says_what_session_says(pte: Path, bve: Path) -> None:
    expected = {keep: Session(bve, keep=keep).run(draw()) for keep in KEEPS}
    assert np.array_equal(executorch.load(pte).run(draw()), expected[1.0])
    assert np.array_equal(executorch.load(str(pte), method="keep_0_3").run(draw()), expected[0.3])
    program = executorch.load(pte, keep=0.5, method="keep_0_5")
    assert (program.method, program.shape, program.classes) == ("keep_0_5", (1, 3, 32, 32), 5)
    assert np.array_equal(program.run(np.asfortranarray(draw())), expected[0.5])
    assert not np.array_equal(expected[0.5], expected[0.3])


def test_a_file_with_one_method_tells_its_ratio(tmp_path: Path) -> None:
    bve = write(build(little=True), tmp_path / "one.bve", (0.5,))
    pte = bve.with_suffix(".pte")
    pte.write_bytes(write_pte.make_file(bve.read_bytes(), {executorch.KEEP: "0.5"}, {}))
    for program in (executorch.load(pte, 0.5), executorch.load(pte)):
        assert program.method == "forward"
        assert np.array_equal(program.run(draw()), Session(bve).run(draw()))
    with pytest.raises(UserError, match=r"keep 1 for .*one\.pte; expected one of its methods, forward"):
        executorch.load(pte, keep=1)


def count_threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def test_two_threads_say_the_same(pte: Path) -> None:
    need_cores(2)
    program = executorch.load(pte, keep=0.5, threads=2)
    assert executorch.framework._threadpool_get_thread_count() == 2
    assert np.array_equal(program.run(draw()), executorch.load(pte, keep=0.5).run(draw()))
    assert executorch.framework._threadpool_get_thread_count() == 1
    alone = count_threads()
    other = program.load(1.0)  # with the two of its file, whatever was loaded since
    assert count_threads() > alone
    assert np.array_equal(other.run(draw()), executorch.load(pte, keep=1).run(draw()))


def test_methods_share_one_copy_of_the_program(pte: Path, bve: Path) -> None:
    def count_copies() -> int:
        """Mappings of the file that are as large as the program."""
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(pte) in line]
        sizes = [int(end, 16) - int(start, 16) for start, end in (line[0].split("-") for line in lines)]
        return sum(size >= bve.stat().st_size // 4096 * 4096 for size in sizes)

    gc.collect()
    assert count_copies() == 0
    programs = [executorch.load(pte)]
    programs += [programs[0].load(0.5), programs[0].load(0.3), programs[0].load(method="keep_0_3")]
    assert [program.method for program in programs] == ["keep_1", "keep_0_5", "keep_0_3", "keep_0_3"]
    assert count_copies() == 1
    del programs[:3]
    gc.collect()
    assert count_copies() == 1
    assert np.array_equal(programs[0].run(draw()), Session(bve, keep=0.3).run(draw()))
    programs.clear()
    gc.collect()
    assert count_copies() == 0


def test_threads_of_python_run_at_once(pte: Path, bve: Path) -> None:
    expected = {keep: Session(bve, keep=keep).run(draw()) for keep in KEEPS}
    faults = []

    def work(i: int) -> None:
        keep = KEEPS[i % len(KEEPS)]
        for _ in range(5):
            program = executorch.load(pte, keep=keep)
            faults.extend(i for _ in range(10) if not np.array_equal(program.run(draw()), expected[keep]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_neither_the_exporter_nor_its_packages_are_imported(pte: Path) -> None:
    code = """
from bigvit_edge.runtime import executorch
print(executorch.load(sys.argv[1]).shape, *{"executorch.exir", "torchao"} & set(sys.modules))
"""
    assert run_python(code, pte, library=runtime.find_library()) == "(1, 3, 32, 32)\n"


# ---- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [draw()[0], draw().astype(np.float64), draw()[..., :-1], torch.from_numpy(draw())])
def test_other_images_are_refused(image: object, pte: Path) -> None:
    with pytest.raises(UserError, match=r"an image of .*; expected a numpy array, float32 \[1, 3, 32, 32\]"):
        executorch.load(pte).run(image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0.4}, r"keep 0.4 for .*little.pte; expected one of its methods, keep_1, keep_0_5, keep_0_3"),
        ({"keep": 0.5, "method": "keep_1"}, r"keep 0.5 for"),
        ({"method": "keep_0_4"}, r"no method 'keep_0_4'; expected one of keep_.*did you mean keep_0"),
        ({"method": executorch.ORDER}, r"no method 'metadata_methods'"),
        ({"threads": 0}, r"0 threads; expected 1 to"),
        ({"threads": 1.5}, r"1.5 threads; expected 1 to"),
        ({"threads": 1000}, r"1000 threads; expected 1 to \d+, the cores"),
    ],
)
def test_other_settings_are_refused(options: dict[str, object], message: str, pte: Path) -> None:
    with pytest.raises(UserError, match=message):
        executorch.load(pte, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offset", "fault"),
    [(4, r"version at offset 4 is 9, this library reads \d"), (40, r"checksum at offset 24 is \d+; .*damaged")],
)
def test_a_bad_program_is_told_of_in_the_cores_words(
    offset: int, fault: str, pte: Path, bve: Path, tmp_path: Path
) -> None:
    bad = patch(pte, bve, offset, tmp_path / "bad.pte")
    for load in (executorch.load, backend.load):
        with pytest.raises(UserError, match=rf"bad\.pte: .*{fault}".replace("; ", ".*")):
            load(bad)
        assert load(pte)  # and the next is not held to it


def test_what_failed_before_is_not_held_against_another_file(pte: Path, bve: Path, tmp_path: Path) -> None:
    bad = patch(pte, bve, 4, tmp_path / "bad.pte")
    with pytest.raises(RuntimeError):
        executorch.framework._load_program(str(bad)).load_method("keep_1")  # and nobody asks why
    with (
        pytest.raises(UserError, match=r"other\.pte: ExecuTorch cannot run it \(no reason\)"),
        executorch.explained("other.pte"),
    ):
        raise RuntimeError("no reason")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.pte", tmp_path):
        with pytest.raises(UserError, match=r", which is no file; expected a \.pte file"):
            executorch.load(path)


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.9, 0.9999])
def test_a_file_cut_short_is_refused(share: float, pte: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pte"
    cut.write_bytes(pte.read_bytes()[: int(share * pte.stat().st_size)])
    for load in (executorch.load, backend.load):
        with pytest.raises(UserError, match=r"cut\.pte: .*; export the model again"):
            load(cut)


def test_pixels_are_run_where_the_file_takes_them(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    planar = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    others = {"packed": torch.from_numpy(pixels), "planar": torch.from_numpy(planar)}
    (tmp_path / "tiny.pte").write_bytes(write_pte.make_file(made.read_program(), {}, others))
    (tmp_path / "tiny.bve").write_bytes(made.read_program())
    expected = Session(tmp_path / "tiny.bve").run(pixels[0])
    for name, image in (("packed", pixels), ("planar", planar)):
        session = executorch.load(tmp_path / "tiny.pte", method=name)
        assert (session.shape, session.dtype) == (image.shape, "uint8")
        assert np.array_equal(session.run(image), expected)
        with pytest.raises(UserError, match=r"an image of float32 .*; expected a numpy array, uint8 \[1, "):
            session.run(np.zeros((1, 3, 4, 4), np.float32))


def test_without_the_library_the_file_says_what_it_needs(pte: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(runtime.find_library(), tmp_path / "libbve.so"))
    code = """
from pathlib import Path
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import executorch as backend
from bigvit_edge.runtime import executorch
abi.__file__ = "/nowhere/__init__.py"
def import_exporter(path):
    import bigvit_edge.export.backends.executorch.native
for use in (backend.load, executorch.load, import_exporter):
    try:
        use(Path(sys.argv[1]))
    except UserError as e:
        print(e)
"""
    of_file, of_library, of_exporter = run_python(code, pte, library=alone).splitlines()
    expected = (
        f"no libbve_executorch.so beside {tmp_path}; expected one built for this machine; pip install 'bigvit-edge["
    )
    assert of_file.startswith(f"{pte} is run by libbve_executorch.so: {expected}")
    assert of_library.startswith(expected)
    assert of_exporter.startswith(expected)
    assert of_exporter.endswith("or add --set backend=xnnpack")


def test_a_second_copy_in_a_process_is_refused_by_name(pte: Path, tmp_path: Path) -> None:
    library = runtime.find_library()
    for name in (runtime.LIBRARY, executorch.LIBRARY):
        shutil.copy(library.parent / name, tmp_path / name)
    code = """
import ctypes
from bigvit_edge.errors import UserError
from bigvit_edge.runtime import executorch
first = ctypes.CDLL(sys.argv[2])
try:
    executorch.load(sys.argv[1])
except UserError as e:
    print(e)
"""
    told = run_python(code, pte, library.parent / executorch.LIBRARY, library=tmp_path / runtime.LIBRARY)
    version = r"version [\d.]+ for ExecuTorch [\d.]+"
    assert told.startswith(f"{tmp_path / executorch.LIBRARY}: version ")
    assert re.search(rf": {version} beside {version[8:]} in one process; expected one copy; load one alone", told)


@pytest.fixture
def fresh() -> object:
    executorch.load_library.cache_clear()
    yield
    executorch.load_library.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_a_library_for_another_executorch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executorch, "framework_version", "9.9.0+cpu")
    with pytest.raises(UserError, match=r"is version .*; expected one for ExecuTorch 9.9.0, .*; build it again"):
        executorch.load_library()


@pytest.mark.usefixtures("fresh")
def test_a_library_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (runtime.LIBRARY, executorch.LIBRARY):
        (tmp_path / name).write_bytes(b"no library")
    monkeypatch.setenv(runtime.OVERRIDE, str(tmp_path / runtime.LIBRARY))
    with pytest.raises(UserError, match=r"libbve_executorch.so: .*; expected a libbve_executorch.so for this machine"):
        executorch.load_library()


# ---- without Python --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", [HOST, ARM])
@pytest.mark.parametrize("name", ["test_executorch", "test_executorch_dispatch"])
def test_program(name: str, machine: str, tmp_path: Path) -> None:
    program = ROOT / "build" / ("host" if machine == HOST else "aarch64-linux") / "tests/runtime/doors" / name
    emulator = emulate(machine)
    if not program.is_file():
        skip(f"no {program.relative_to(ROOT)}", "make native doors-arm")
    environment = os.environ | {
        "BVE_TINY_PTE": str(write_pte.write(tmp_path / "tiny.pte")),
        "BVE_DISPATCH_PTE": str(write_pte.write_dispatch(tmp_path / "dispatch.pte")),
    }
    run = subprocess.run(
        [*emulator, program], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "SUCCESS" in run.stdout
