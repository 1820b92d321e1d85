"""Programs on a device, tried on this machine and on none: words, lines, time-outs, and nothing left running."""

import json
import time
from pathlib import Path

import pytest

from bigvit_edge.devices import open_device
from bigvit_edge.devices.contract import Device, DeviceError, spell_command
from bigvit_edge.devices.process import Process, run_words

ODD = "a'b\"c;d $(e) `f` \\g\n-h*"


@pytest.fixture
def local() -> Device:
    return open_device("local")


def is_running(number: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return "State:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except FileNotFoundError:
        return False


def wait_for_end(numbers: list[int]) -> None:
    end = time.monotonic() + 5
    while any(map(is_running, numbers)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(is_running, numbers))


def test_words_environment_and_data_arrive_as_they_are(local: Device) -> None:
    script = 'cat; printf %s "$1" >&2; printf %s "$ODD"; exit 7'
    done = run_words(local, ("sh", "-c", script, "sh", ODD), data=b"in|", environment={"ODD": ODD})
    assert done == (7, f"in|{ODD}", ODD)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_spelled_command_is_its_words(local: Device, shell: str) -> None:
    line = spell_command(("printf", "%s|%s", ODD, ""), {"X": ODD})
    assert run_words(local, (shell, "-c", line)).out == f"{ODD}|"
    assert run_words(local, (shell, "-c", spell_command(("sh", "-c", 'printf %s "$X"'), {"X": ODD}))).out == ODD


def test_a_wrong_name_of_a_variable_is_not_spelled() -> None:
    with pytest.raises(ValueError, match="no name of a variable"):
        spell_command(("true",), {"X;reboot": "1"})


def test_a_program_that_reads_nothing_is_told_by_its_status(local: Device) -> None:
    assert run_words(local, ("true",), data=bytes(2**20)).status == 0


def test_a_missing_program_is_127(local: Device) -> None:
    assert run_words(local, ("no-such-program",)).status == 127


def test_a_time_out_kills_the_children_too(local: Device) -> None:
    with Process(local, ("sh", "-c", "sleep 100 & echo $!; echo $$; trap '' TERM HUP; sleep 100; echo")) as started:
        numbers = [int(started.read_line(5)), int(started.read_line(5))]
        with pytest.raises(DeviceError, match=r"sh on local has said nothing for 0\.1 s") as caught:
            started.read_line(0.1)
        assert not caught.value.lost
        started.close(0.1)
    wait_for_end(numbers)
    with pytest.raises(DeviceError, match=r"sleep on local has not ended after 0\.1 s"):
        run_words(local, ("sleep", "100"), timeout_s=0.1)


def test_a_program_that_listens_ends_by_itself(local: Device) -> None:
    with Process(local, ("cat",)) as started:
        assert started.ask("a line", 5) == "a line"
        assert started.close() == (0, "")


def test_an_end_says_what_the_program_said(local: Device) -> None:
    with Process(local, ("sh", "-c", "echo first; echo 'no such model' >&2; exit 3")) as started:
        assert started.read_line(5) == "first"
        for _ in range(2):
            with pytest.raises(DeviceError, match="ended with status 3 and said: no such model"):
                started.read_line(5)
        assert started.close() == (3, "no such model\n")


def test_an_interruption_leaves_nothing_running(local: Device) -> None:
    numbers: list[int] = []

    def measure() -> None:
        with Process(local, ("sh", "-c", "echo $$; sleep 100")) as started:
            numbers.append(int(started.read_line(5)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure()
    wait_for_end(numbers)


def test_null_answers_every_line_of_a_bench() -> None:
    with Process(open_device("null"), ("anything",)) as started:
        assert json.loads(started.read_line(10))["runtime"] == "none"
        assert len(json.loads(started.ask("run 0 7 0", 10))["times_ms"]) == 7
        assert json.loads(started.ask("memory", 10)) == {"peak_bytes": 0, "anonymous_bytes": 0}
        assert started.close().status == 0


@pytest.mark.parametrize(
    ("name", "told"),
    [("loacl", "did you mean local"), ("null:x", "null alone"), ("local:", "local alone"), ("", "ssh:USER@HOST")],
)
def test_wrong_names(name: str, told: str) -> None:
    with pytest.raises(DeviceError, match=told):
        open_device(name)
