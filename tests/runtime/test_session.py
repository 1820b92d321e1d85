"""Session: our runtime from Python, against PyTorch, and what it says to wrong input."""

import gc
import math
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture
from bigvit_edge.export.emitter import emit_program
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.program import to_bytes
from bigvit_edge.models.blvit import BLViT, selected_tokens
from bigvit_edge.models.load import set_keep
from bigvit_edge.models.vit import ViT
from bigvit_edge.runtime import Session, abi, count_cores, find_library, load_library
from tests.native import need_cores

SHAPE = dict(image_size=32, patch=8, dim=64, depth=2, head_dim=32, num_classes=5)
KEEPS = (1.0, 0.5, 0.3)
CORES = os.sched_getaffinity(0)


def build(little: bool) -> ViT | BLViT:
    torch.manual_seed(0)
    model = BLViT(**SHAPE, little_dim=32, little_head_dim=16) if little else ViT(**SHAPE)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    return model.eval()


def write(model: ViT | BLViT, path: Path, keeps: tuple[float | None, ...] = KEEPS) -> Path:
    first: Graph = capture(model, 32, keeps[0])
    path.write_bytes(to_bytes(emit_program([replace(first, keep=keep) for keep in keeps], 4, {"labels": "null"})))
    return path


@pytest.fixture(scope="module")
def little() -> BLViT:
    model = build(little=True)
    assert isinstance(model, BLViT)
    return model


@pytest.fixture(scope="module")
def file(little: BLViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(little, tmp_path_factory.mktemp("session") / "little.bve")


def draw() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)


def ask(model: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(image)).numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("options", [{}, {"threads": 2}, {"threads": 2, "little_threads": 1}], ids=str)
def test_each_keep_ratio_says_what_pytorch_says(
    keep: float, options: dict[str, int], little: BLViT, file: Path
) -> None:
    set_keep(little, keep)
    need_cores(options.get("threads", 1))
    with Session(file, keep=keep, **options) as session:  # type: ignore[arg-type]
        logits = session.run(draw())
    assert (logits.dtype, logits.shape) == (np.float32, (1, 5))
    assert np.abs(logits - ask(little, draw())).max() < 1e-4


def test_a_dense_model_has_one_entry(tmp_path: Path) -> None:
    model = build(little=False)
    with Session(write(model, tmp_path / "dense.bve", (None,)), entry="main") as session:
        assert np.abs(session.run(draw()) - ask(model, draw())).max() < 1e-4
    with pytest.raises(UserError, match=r"keep 0.5 for .*; expected none: the model has no keep ratio"):
        Session(tmp_path / "dense.bve", keep=0.5)


def test_an_entry_is_found_by_its_ratio_or_its_name_or_is_the_first(file: Path) -> None:
    assert [Session(file, keep=keep).entry["name"] for keep in KEEPS] == ["keep_1", "keep_0_5", "keep_0_3"]
    assert Session(file, entry="keep_0_3").entry["keep"] == pytest.approx(0.3)
    assert Session(file).entry["name"] == "keep_1"
    assert Session(file).program["metadata"] == {"labels": "null"}


def test_numpys_whole_numbers_are_taken(file: Path) -> None:
    with Session(file, np.int64(1), np.float32(0.5), spin_us=np.uint8(3)) as session:  # type: ignore[arg-type]
        assert (session.entry["name"], session.inspect()["threads"]) == ("keep_0_5", 1)


def test_images_of_any_strides_are_taken(file: Path) -> None:
    image = draw()
    with Session(file) as session:
        assert np.array_equal(session.run(np.asfortranarray(image)), session.run(image))


def test_what_a_session_tells_of_itself(file: Path) -> None:
    with Session(file) as session:
        session.run(draw())
        assert not any("ns" in op for op in session.inspect()["ops"])
        session.trace()
        session.run(draw())
        told = session.inspect()
        assert told["repacked_bytes"] == 0
        assert told["arena_bytes"] > 0
        assert len(told["ops"]) == session.entry["ops"]
        assert "layers.1.p.mlp" in {op["name"] for op in told["ops"]}
        assert all(op["ns"] > 0 for op in told["ops"])


@pytest.mark.parametrize("keep", KEEPS)
def test_the_rows_that_each_layer_chose_are_pytorchs(keep: float, little: BLViT, file: Path) -> None:
    set_keep(little, keep)
    with torch.no_grad():
        orders = little.encode(torch.from_numpy(draw()))[2]
    k = math.ceil(keep * 17)
    masks = selected_tokens(orders, k)[:, 0].numpy()
    with Session(file, keep=keep) as session:
        session.trace()
        session.run(draw())
        rows = [rows for op in range(session.entry["ops"]) if (rows := session.rows(op)).size]
    assert [list(layer) for layer in rows] == [list(np.flatnonzero(mask)) for mask in masks]
    assert {len(layer) for layer in rows} == {k}


@pytest.mark.parametrize("threads", [1, 2])
def test_events_are_inside_the_run_and_sum_to_the_ops_times(threads: int, file: Path) -> None:
    need_cores(threads)
    with Session(file, threads=threads) as session:
        session.run(draw())
        assert session.events() == ([], 0)
        session.trace()
        start = time.monotonic_ns()
        session.run(draw())
        end = time.monotonic_ns()
        events, lost = session.events()
        ops = session.inspect()["ops"]
    assert lost == 0
    sums = [0] * len(ops)
    for event in events:
        assert start <= event.start_ns <= event.end_ns <= end
        sums[event.op] += event.end_ns - event.start_ns
    assert sums == [op["ns"] for op in ops]


@pytest.mark.parametrize("keep", KEEPS)
def test_the_ops_work_is_that_which_the_export_counted(keep: float, file: Path) -> None:
    with Session(file, keep=keep) as session:
        ops = session.inspect()["ops"]
        assert sum(op["macs"] for op in ops) == session.entry["macs"]
    assert {op["type"] for op in ops if op["kind"] == "linear"} == {"f32"}
    assert all(op["bytes"] > 0 for op in ops)
    (mlp,) = (op for op in ops if op["name"] == "layers.0.p.mlp")
    k = math.ceil(keep * 17)
    assert mlp["macs"] == 2 * k * 64 * 256
    weights = 2 * 4 * 64 * 256  # float32 of fc1 and fc2; panels have a bias for each column besides
    assert weights < mlp["bytes"] - 2 * 4 * k * 64 < weights * 1.05


def test_threads_take_turns(file: Path) -> None:
    images = [draw() * i for i in range(4)]
    with Session(file) as session:
        expected = [session.run(image) for image in images]
        faults = []

        def run(i: int) -> None:
            faults.extend(i for _ in range(20) if not np.array_equal(session.run(images[i]), expected[i]))

        threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert faults == []


def test_a_closed_session_runs_no_more(file: Path) -> None:
    session = Session(file)
    session.close()
    session.close()
    for use in (lambda: session.run(draw()), session.inspect, session.trace):
        with pytest.raises(UserError, match="a session that was closed; expected an open one"):
            use()


def test_sessions_give_their_memory_back(file: Path) -> None:
    def count_maps() -> int:
        return Path("/proc/self/maps").read_text().count(str(file))

    before = count_maps()
    session = Session(file)
    assert count_maps() == before + 1
    del session
    gc.collect()
    assert count_maps() == before


def test_a_threads_cores_are_its_own_again(file: Path) -> None:
    need_cores(2)
    with Session(file, threads=2, little_threads=1) as session:
        session.run(draw())
    assert os.sched_getaffinity(0) == CORES


def test_the_fastest_way_is_chosen_and_why_is_told(file: Path) -> None:
    cores = count_cores()
    assert 1 <= cores <= len(CORES)
    with Session(file, threads=cores, choose=True) as session:
        told = session.inspect()
        assert np.array_equal(session.run(draw()), Session(file).run(draw()))
    tried = {way["way"]: way for way in told["tried"]["medians"]}
    assert told["tried"]["chosen"] in tried
    assert told["threads"] == tried[told["tried"]["chosen"]]["threads"]
    assert set(tried) == ({"one thread", "big cores"} if cores > 1 else {"one thread"})


def test_helpers_stay_off_their_callers_core(file: Path) -> None:
    need_cores(2)
    found = set()
    with Session(file, threads=2) as session:
        for _ in range(50):
            session.run(draw())
            caller, helper = session.inspect()["cores"]
            found.add(len(helper))
    assert set(caller) == CORES
    assert len(CORES) - 1 in found  # all of them before it has begun, and while it is lent one


def test_cpu_time_is_that_of_the_runs(file: Path) -> None:
    with Session(file) as session:
        assert session.cpu_seconds() == 0
        session.run(draw())
        first = session.cpu_seconds()
        assert first > 0
        session.run(draw())
        assert session.cpu_seconds() > first


@pytest.mark.parametrize(
    "image",
    [
        draw()[0],
        draw().astype(np.float64),
        draw()[..., :-1],
        np.concatenate([draw(), draw()]),
        draw().tolist(),
        torch.from_numpy(draw()),
    ],
    ids=["three dimensions", "float64", "too narrow", "two", "list", "tensor"],
)
def test_other_images_are_refused(image: object, file: Path) -> None:
    with Session(file) as session, pytest.raises(UserError, match=r"an image of .*; expected a numpy array, float32"):
        session.run(image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0.4}, r"keep 0.4 for .*little.bve; expected one of 1, 0.5, 0.3"),
        ({"keep": float("nan")}, r"keep nan for"),
        ({"keep": "half"}, r"keep='half'; expected a number"),
        ({"entry": "keep_0_4"}, r"no entry 'keep_0_4'; expected one of keep_1, .*did you mean keep_0"),
        ({"entry": "keep_1", "keep": 0.5}, r"keep 0.5 for"),
        ({"threads": 0}, r"threads=0, little_threads=0; expected at least one thread"),
        ({"threads": 2**32 + 1}, r"threads=4294967297"),
        ({"threads": 1.5}, r"threads=1.5; expected a whole number"),
        ({"threads": "2"}, r"threads='2'; expected a whole number"),
        ({"threads": None}, r"threads=None; expected a whole number"),
        ({"threads": 2, "little_threads": 1.0}, r"little_threads=1.0; expected a whole number"),
        ({"spin_us": float("nan")}, r"spin_us=nan; expected a whole number"),
        ({"threads": 1000}, r"1000 threads; expected 1 to \d+, the cores"),
        ({"threads": 2, "little_threads": 2}, r"threads=2, little_threads=2"),
        ({"little_threads": -1}, r"little_threads=-1"),
        ({"spin_us": -1}, r"spin_us=-1; expected 0 to 1000000 microseconds"),
        ({"threads": 2, "little_threads": 1, "choose": True}, r"1 LITTLE threads with choose; expected 0"),
    ],
)
def test_other_settings_are_refused(options: dict[str, object], message: str, file: Path) -> None:
    with pytest.raises(UserError, match=message):
        Session(file, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"BVE1", b"x" * 5000, "cut", "flipped"])
def test_other_files_are_refused(content: bytes | str, file: Path, tmp_path: Path) -> None:
    data = bytearray(file.read_bytes())
    data[300] ^= 1
    chosen = {"cut": bytes(data[:-64]), "flipped": bytes(data)}.get(str(content), content)
    (tmp_path / "other.bve").write_bytes(chosen)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"other\.bve.*expected"):
        Session(tmp_path / "other.bve")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.bve.*No such file"):
        Session(tmp_path / "nothing.bve")
    with pytest.raises(UserError, match="is not a file"):
        Session(tmp_path)


@pytest.fixture
def fresh() -> object:
    load_library.cache_clear()
    yield
    load_library.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_a_library_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BVE_LIBRARY", str(tmp_path / "libbve.so"))
    with pytest.raises(UserError, match=r"BVE_LIBRARY=.*which is no file; expected the path of libbve.so"):
        load_library()
    (tmp_path / "libbve.so").write_bytes(b"no library")
    with pytest.raises(UserError, match=r"libbve.so: .*expected a libbve.so for this machine"):
        load_library()


@pytest.mark.usefixtures("fresh")
def test_a_library_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "ABI_VERSION", 3)
    with pytest.raises(UserError, match=r"has ABI version 2; expected version 3; build it again"):
        load_library()


def test_without_a_library_it_is_told_where_one_was_sought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BVE_LIBRARY", raising=False)
    monkeypatch.setattr(abi, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(abi.sysconfig, "get_path", lambda kind: str(tmp_path / kind))
    with pytest.raises(UserError, match=r"no libbve.so beside .*; expected one built for this machine; pip install"):
        find_library()
    installed = tmp_path / "purelib/bigvit_edge/runtime/libbve.so"
    installed.parent.mkdir(parents=True)
    installed.touch()
    assert find_library() == installed
    (tmp_path / "libbve.so").touch()
    assert find_library() == tmp_path / "libbve.so"


def test_a_session_needs_numpy_alone(file: Path) -> None:
    code = f"""
import sys
from bigvit_edge.runtime import Session
Session({str(file)!r})
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_process_may_end_while_a_daemon_thread_runs(file: Path) -> None:
    code = """
import sys, threading, time
import numpy as np
from bigvit_edge.runtime import Session

session = Session(sys.argv[1])
image = np.zeros(session.shape, np.float32)
def run():
    while True:
        session.run(image)
threading.Thread(target=run, daemon=True).start()
time.sleep(0.2)
"""
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", code, file], check=False).returncode == 0


def test_damaged_weights_are_found_when_asked_for(file: Path, tmp_path: Path) -> None:
    with Session(file) as session:
        session.verify()
    data = bytearray(file.read_bytes())
    data[-100] ^= 16
    damaged = tmp_path / "damaged.bve"
    damaged.write_bytes(data)
    with Session(damaged) as session, pytest.raises(UserError, match=r"weight layers.1.kv_from_e at offset \d+ has"):
        session.verify()
