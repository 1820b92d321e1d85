"""bve-run's command line, on the small program that the fuzzer starts from."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.native import CPUS, HOST, ROOT, run_program

FILE = ROOT / "tests/runtime/corpus/valid_tiny.bve"
PIXELS, CLASSES, KEEPS = 3 * 4 * 4, 3, [1.0, 0.5]


def bve_run(*arguments: str | Path, machine: str = HOST) -> Any:
    run = run_program("bve-run", *arguments, machine=machine)
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


def refuse(*arguments: str | Path) -> str:
    run = run_program("bve-run", *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("bve-run: ")
    assert run.stderr.count("\n") == 1
    return run.stderr


def test_info_says_what_the_file_holds() -> None:
    found = bve_run("info", FILE)
    assert [entry["keep"] for entry in found["program"]["entries"]] == KEEPS
    assert found["program"]["metadata"]["model"] == "tiny"
    assert found["machine"]["cores"] == len(os.sched_getaffinity(0))


def test_info_finds_a_damaged_weight(tmp_path: Path) -> None:
    data = bytearray(FILE.read_bytes())
    data[-1] ^= 1
    (tmp_path / "damaged.bve").write_bytes(data)
    assert "damaged.bve: weight head at offset " in refuse("info", tmp_path / "damaged.bve")


def test_run_reads_an_image(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(2, PIXELS)).astype("<f4")
    logits = []
    for image in images:
        (tmp_path / "image").write_bytes(image.tobytes())
        found = bve_run("run", FILE, "--input", tmp_path / "image", "--keep=0.5")
        assert len(found["logits"]) == CLASSES
        assert found["top"] == np.argmax(found["logits"])
        logits.append(found["logits"])
    assert not np.allclose(*logits)


@pytest.mark.parametrize("machine", CPUS)
def test_every_machine_gives_the_same_logits(machine: str) -> None:
    here, there = (bve_run("run", FILE, machine=name)["logits"] for name in (HOST, machine))
    assert there == pytest.approx(here, abs=0.02)


def test_scalar_gives_the_same_logits() -> None:
    assert bve_run("run", FILE, "--isa", "scalar")["logits"] == pytest.approx(bve_run("run", FILE)["logits"], abs=0.02)


def test_isa_is_obeyed() -> None:
    found = bve_run("bench", FILE, "--isa=scalar", "--runs=1")
    assert {kernel.rpartition("_")[2] for kernel in found["sessions"][0]["session"]["kernels"]} == {"scalar"}


def test_bench_measures() -> None:
    found = bve_run("bench", "--keeps", "1,0.5", FILE, "--runs", "7", "--warmup=2", "--ops")
    assert [session["keep"] for session in found["sessions"]] == KEEPS
    memory = found["memory"]
    assert 0 < memory["anonymous_bytes"] <= memory["peak_bytes"]
    for session in found["sessions"]:
        times, parts = session["latency_ms"], session["parts_ms"]
        assert times["images"] == 7
        assert 0 < times["min"] <= times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
        assert times["min"] < times["mean"] < times["max"]
        assert session["load_ms"] == pytest.approx(parts["open"] + parts["start"], rel=1e-4)
        assert session["first_ms"] > 0
        total = sum(op["ms"] for op in session["ops"])
        assert [op["name"] for op in session["ops"]] == [op["name"] for op in session["session"]["ops"]]
        assert sum(layer["ms"] for layer in session["layers"]) == pytest.approx(total, rel=1e-4)
        assert session["traced"]["ops_ms"] == pytest.approx(total, rel=1e-4)


def test_the_median_of_two_runs_is_their_mean() -> None:
    times = bve_run("bench", FILE, "--runs=2")["sessions"][0]["latency_ms"]
    assert times["p50"] == pytest.approx(times["mean"], rel=1e-4) == pytest.approx((times["min"] + times["max"]) / 2)
    assert times["p90"] == times["max"]


def test_bench_pauses_chooses_and_tells_cpu_time() -> None:
    options = ("--pause-ms=400", "--choose", "--spin-us=5", "--runs=3", "--warmup=1")
    found = bve_run("bench", FILE, *options)
    (session,) = found["sessions"]
    assert (found["pause_ms"], found["choose"]) == (400, True)
    assert session["latency_ms"]["max"] < 400  # the pauses are not in it
    assert 0 < session["cpu_ms"] < 400
    assert session["session"]["tried"]["chosen"] == "one thread"  # of one


def test_profile_tells_every_op_of_every_traced_run() -> None:
    found = bve_run("profile", FILE, "--runs=3", "--warmup=1", "--keep=0.5")
    assert len(found["times_ms"]) == 3
    ops, traced = found["session"]["ops"], found["traced"]
    assert (len(traced["runs"]), traced["lost"]) == (20, 0)
    assert {(run, op) for run, op, *_ in traced["events"]} == {(r, op) for r in range(20) for op in range(len(ops))}
    for run, _, _, _, start, end in traced["events"]:
        assert traced["runs"][run][0] <= start <= end <= traced["runs"][run][1]
    assert {ops[op]["kind"] for op, _ in traced["rows"]} == {"route"}
    assert all(rows[0] == 0 and len(rows) == 3 for _, rows in traced["rows"])
    assert [counter["event"] for counter in found["counts"][0][0]][:2] == ["task clock (ns)", "page faults"]
    assert found["roof"]["gmac_per_s"]["f32"] > 0


def test_profile_keeps_to_cores() -> None:
    core = max(os.sched_getaffinity(0))
    found = bve_run("profile", FILE, "--runs=2", f"--cores={core}")
    assert {event[3] for event in found["traced"]["events"]} == {core}
    assert "--cores that this process may not run on" in refuse("profile", FILE, "--cores=1020-1023")


def test_bench_runs_for_seconds() -> None:
    session = bve_run("bench", FILE, "--seconds=0.2", "--warmup=0")["sessions"][0]
    assert session["latency_ms"]["images"] > 1
    assert "ops" not in session


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--help"),
        (("bnch", FILE), "did you mean bench?"),
        (("bench",), "no file"),
        (("bench", FILE, FILE), "one file"),
        (("bench", FILE, "--thread", "1"), "did you mean --threads?"),
        (("info", FILE, "--threads", "1"), "no option for info"),
        (("bench", FILE, "--threads"), "expected a value"),
        (("bench", FILE, "--threads", "0"), "--threads 0, expected a whole number from 1"),
        (("bench", FILE, "--threads", "1e3"), "--threads 1e3"),
        (("bench", FILE, "--threads", "99999999999999999999"), "--threads 9"),
        (("bench", FILE, "--threads", "1000000"), "1000000 threads"),
        (("bench", FILE, "--little-threads", "1"), "1 of 1 threads"),
        (("bench", FILE, "--runs", "-1"), "--runs -1"),
        (("bench", FILE, "--spin-us", "0"), "--spin-us 0, expected a whole number from 1"),
        (("bench", FILE, "--spin-us", "1000000", "--pause-ms", "x"), "--pause-ms x"),
        (("bench", FILE, "--seconds", "nan"), "--seconds nan"),
        (("bench", FILE, "--keep", "0"), "--keep 0, expected a number above 0"),
        (("bench", FILE, "--keeps", "0.5,,1"), "--keeps"),
        (("run", FILE, "--keep", "0.3"), "0.5"),
        (("bench", FILE, "--keep", "1", "--keeps", "1"), "leave one out"),
        (("bench", FILE, "--runs", "1", "--seconds", "1"), "leave one out"),
        (("bench", FILE, "--ops", "--ops"), "--ops twice"),
        (("bench", FILE, "--pin=1"), "without a value"),
        (("bench", FILE, "--isa", "sse9"), "expected of scalar"),
        (("run", FILE, "--input", ROOT), "Is a directory"),
        (("run", FILE, "--input", FILE), f"expected {PIXELS * 4}"),
        (("run", "nowhere.bve"), "nowhere.bve"),
        (("run", FILE.with_name("bad_version.bve")), "version"),
        (("run", FILE.with_name("bad_truncated.bve")), "bad_truncated.bve"),
    ],
)
def test_wrong_input_is_refused(arguments: tuple[str | Path, ...], says: str) -> None:
    assert says in refuse(*arguments)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.bve")
    assert "pipe.bve: is not a file; give the path of a .bve file" in refuse("info", tmp_path / "pipe.bve")


def test_help_names_every_verb() -> None:
    run = run_program("bve-run", "--help")
    assert run.returncode == 0
    assert all(f"bve-run {verb}" in run.stdout for verb in ("info", "run", "bench", "kernels"))


def test_output_that_cannot_be_written_is_an_error() -> None:
    run_program("bve-run", "--version")  # or skip
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [ROOT / "build/host/bve-run", "info", FILE], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert run.returncode == 2
    assert run.stderr


def test_kernels_are_checked_and_timed() -> None:
    found = bve_run("kernels", "--filter", "gemm_f32_qd8", "--seconds=0.001")["kernels"]
    assert found
    assert all(kernel["correct"] and kernel["us"] > 0 and kernel["gmac_per_s"] > 0 for kernel in found)
    assert all("gemm_f32_qd8" in kernel["kernel"] for kernel in found)
    assert "expected part of a kernel's name" in refuse("kernels", "--filter", "nothing")
