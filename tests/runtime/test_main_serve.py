"""bve-run's verbs for a bench on another machine: lines in, lines of JSON out."""

import json
import os
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from bigvit_edge.bench.frame_reader import FRAME, FrameReader
from bigvit_edge.export.convert import capture
from bigvit_edge.export.emitter import emit_program
from bigvit_edge.export.image import normalize
from bigvit_edge.export.program import to_bytes
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.runtime import Session
from tests.native import CPUS, HOST, ROOT, SECONDS, emulate, run_program
from tests.runtime.test_session import build

FILE = ROOT / "tests/runtime/corpus/valid_tiny.bve"
PIXELS, CLASSES = 3 * 4 * 4, 3


def speak(lines: str, *words: str | Path, machine: str = HOST) -> list[Any]:
    run_program("bve-run", "--version", machine=machine)  # or skip
    program = ROOT / "build" / ("host" if machine == HOST else "aarch64") / "bve-run"
    command = [*emulate(machine), program, *words]
    run = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    return [json.loads(line) for line in run.stdout.splitlines()]


def refuse(lines: str, *words: str | Path) -> str:
    run_program("bve-run", "--version")
    run = subprocess.run(
        [ROOT / "build/host/bve-run", *words], input=lines, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2
    assert run.stderr.startswith("bve-run: ")
    return run.stderr


@pytest.mark.parametrize("machine", [HOST, CPUS[-1]])
def test_turns_are_timed_as_asked(machine: str) -> None:
    ready, short, paced, memory = speak(
        "run 0 7 0\nrun 0 3 20\nmemory\n", "serve", FILE, "--keep=0.5", "--evict", machine=machine
    )
    assert (ready["runtime"], ready["image_floats"], ready["threads"]) == ("bve", PIXELS, 1)
    assert ready["load_ms"] > 0 < ready["first_ms"]
    assert 0 <= ready["cached_share"] <= 1
    assert len(short["times_ms"]) == sum(short["cores"].values()) == 7
    assert sum(short["times_ms"]) <= (short["end_ns"] - short["start_ns"]) / 1e6
    assert short["end_ns"] < paced["start_ns"]
    assert (paced["end_ns"] - paced["start_ns"]) / 1e6 > 2 * 20
    assert sum(short["thread_ms"].values()) > 0
    assert all(mhz > 0 for turn in (short, paced) for mhz in turn["clock_mhz"])
    assert 0 < memory["anonymous_bytes"] < memory["peak_bytes"]


def test_seconds_are_at_least_that_long() -> None:
    _, turn, _ = speak("run 0.2 1 0\nmemory\n", "serve", FILE)
    assert turn["end_ns"] - turn["start_ns"] >= 0.2e9
    assert len(turn["times_ms"]) > 1


def test_cores_are_set_and_read_back() -> None:
    core = max(os.sched_getaffinity(0))
    ready, turn, _ = speak("run 0 20 0\nmemory\n", "serve", FILE, "--cores", str(core))
    assert ready["cores_allowed"] == [core]
    assert turn["cores"] == {str(core): 20}
    assert "may not run on" in refuse("", "serve", FILE, "--cores=1020-1023")


def test_answers_are_those_of_run(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(3, PIXELS)).astype("<f4")
    (tmp_path / "in").write_bytes(images.tobytes())
    odd = tmp_path / "100% out\nof 'it';\u00e9"
    _, told = speak(f"answer {tmp_path / 'in'} {quote(str(odd))}\n", "serve", FILE)
    assert told == {"images": 3}
    logits = np.frombuffer(odd.read_bytes(), "<f4").reshape(3, CLASSES)
    for image, row in zip(images, logits, strict=True):
        (tmp_path / "one").write_bytes(image.tobytes())
        run = run_program("bve-run", "run", FILE, "--input", tmp_path / "one")
        assert json.loads(run.stdout)["logits"] == pytest.approx(list(row))


def test_a_program_without_preprocessing_has_no_frames_and_goes_on() -> None:
    _, lack, turn, again = speak("frame 0 1 0\nrun 0 1 0\nframe 0 1 0\n", "serve", FILE)
    assert lack == again
    assert "a program that says nothing of pictures" in lack["lack"]
    assert len(turn["times_ms"]) == 1


@pytest.mark.parametrize("machine", [HOST, CPUS[-1]])
def test_frames_are_labelled_as_their_pixels_are(machine: str, tmp_path: Path) -> None:
    how = Preprocessing(32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "BGR")
    graph = capture(build(little=True), 32, None)
    words = {"preprocessing": json.dumps(how.spell())}
    (file := tmp_path / "tiny.bve").write_bytes(to_bytes(emit_program([replace(graph, keep=0.5)], 4, words)))
    lines = "frame 0 3 0\nframe 0 2 20\nframe 0.05 1 0\nmemory\n"
    _, turn, paced, long, _ = speak(lines, "serve", file, machine=machine)
    assert turn.keys() == {"frame", "prepared_by", "start_ns", "end_ns", "label_ms", "prepare_ms", "top"}
    assert (turn["frame"], turn["prepared_by"], len(turn["label_ms"])) == (FRAME, "bve_set_frame", 3)
    assert all(0 < part < whole for part, whole in zip(turn["prepare_ms"], turn["label_ms"], strict=True))
    assert sum(turn["label_ms"]) <= (turn["end_ns"] - turn["start_ns"]) / 1e6 * 1.001
    assert paced["end_ns"] - paced["start_ns"] >= 20e6
    assert long["end_ns"] - long["start_ns"] >= 50e6
    words = json.dumps(asdict(how) | {"dtype": "uint8", "layout": "NHWC"})
    pixels = FrameReader(words, np.empty((1, 32, 32, 3), np.uint8)).prepare()
    with Session(file) as session:
        logits = session.run(normalize(pixels.transpose(0, 3, 1, 2).astype(np.float32), how))
    assert turn["top"] == paced["top"] == logits.argmax()
    assert np.ptp(logits) > 0.1


def test_the_end_of_stdin_ends_a_run() -> None:
    run_program("bve-run", "--version")
    with subprocess.Popen(
        [ROOT / "build/host/bve-run", "serve", FILE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        process.stdin.write("run 3600 1 0\n")
        process.stdin.flush()
        process.stdin.close()
        assert process.wait(timeout=30) == 0
        assert process.stdout.read() == ""


def test_files_are_watched(tmp_path: Path) -> None:
    (tmp_path / "temperature").write_text('45"2\n')
    sources = (tmp_path / "temperature", "|echo hi", tmp_path / "none", tmp_path, "|exit 3")
    first, second = speak("sample\nsample\n", "watch", *sources)
    assert first["texts"] == second["texts"] == ['45"2\n', "hi\n", None, None, None]
    assert first["t_ns"] < second["t_ns"]
    *samples, end = speak("every 1\nstop\n", "watch", tmp_path / "temperature")
    assert [sample["texts"] for sample in samples] == [['45"2\n']]
    assert end == {"stopped": True}


def test_the_clock_is_told() -> None:
    told = json.loads(run_program("bve-run", "clock").stdout)
    assert told["clock_mhz"] > 0
    assert (
        told["throttled_periods"] == json.loads(run_program("bve-run", "probe").stdout)["limits"]["throttled_periods"]
    )
    core = max(os.sched_getaffinity(0))
    assert json.loads(run_program("bve-run", "clock", f"--cores={core}").stdout)["clock_mhz"] > 0
    assert "--cores that this process may not run on" in refuse("", "clock", "--cores=1023")


@pytest.mark.parametrize(
    ("lines", "words", "says"),
    [
        ("walk\n", ("serve", FILE), "'walk', expected run, frame, memory or answer"),
        ("run 1 0 0\n", ("serve", FILE), "expected run or frame SECONDS"),
        ("frame 1 0 0\n", ("serve", FILE), "expected run or frame SECONDS"),
        ("frames 1 1 0\n", ("serve", FILE), "expected run, frame, memory or answer"),
        ("run nan 1 0\n", ("serve", FILE), "expected run or frame SECONDS"),
        ("run 1 1 0 0\n", ("serve", FILE), "expected run or frame SECONDS"),
        ("answer nowhere /tmp\n", ("serve", FILE), "expected a file"),
        ("answer a b c\n", ("serve", FILE), "expected run, frame, memory or answer"),
        ("answer a%2 b\n", ("serve", FILE), "expected a path with % as %25"),
        (f"answer {FILE} /dev/full\n", ("serve", FILE), "No space left on device, expected room for the answers"),
        (f"answer {ROOT / 'README.md'} /dev/null\n", ("serve", FILE), "ends within an image"),
        ("every 0\n", ("watch", FILE), "expected sample"),
        ("", ("watch",), "no file"),
        ("", ("serve", FILE, "--cores", "3-1"), "--cores 3-1"),
        ("", ("serve", FILE, "--cores", "0-"), "--cores"),
        ("", ("serve", "nowhere.bve"), "nowhere.bve"),
    ],
)
def test_wrong_input_is_refused(lines: str, words: tuple[str | Path, ...], says: str) -> None:
    assert says in refuse(lines, *words)
