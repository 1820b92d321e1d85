"""Every end of a verb is one message and a fixed exit code; what nobody foresaw is ours, with a log."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import typer

from bigvit_edge.errors import InternalError, LimitError, UserError
from bigvit_edge.exits import explained
from bigvit_edge.interruption import Interrupted


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


def noted(e: BaseException) -> BaseException:
    e.add_note("nothing was written")
    return e


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where logs go."""
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "logs"))
    return tmp_path / "logs"


def end(e: BaseException) -> int:
    @explained
    def verb() -> None:
        raise e

    with pytest.raises(typer.Exit) as caught:
        verb()
    return caught.value.exit_code


@pytest.mark.parametrize(
    ("e", "code", "message"),
    [
        (UserError("this", "that", "do it"), 2, "error: this; expected that; do it"),
        (noted(LimitError("a.pte: bad")), 1, "past the target's limits:\na.pte: bad\nnothing was written"),
        (UserError("\x1b[2J\x9b2J caf\u00e9", "b"), 2, "error: \\x1b[2J\\x9b2J caf\u00e9; expected b"),
        (noted(OSError(28, "No space left on device")), 2,
         "error: No space left on device; expected room on the disk; free some, or write elsewhere; nothing was "
         "written"),
        (PermissionError(13, "Permission denied", "/a/b"), 2,
         "error: /a/b: Permission denied; expected what this user may read and write"),
        (noted(KeyboardInterrupt()), 130, "interrupted; nothing was written"),
        (noted(Interrupted(signal.SIGINT)), 130, "interrupted; nothing was written"),
        (noted(Interrupted(signal.SIGTERM)), 143, "interrupted; nothing was written"),
        (Interrupted(signal.SIGHUP), 129, "interrupted"),
        (typer.Exit(1), 1, ""),
        (BrokenPipeError(), 141, ""),
    ],
)  # fmt: skip
def test_ends_that_are_known(
    e: BaseException, code: int, message: str, logs: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # of which a broken pipe takes leave
    assert end(e) == code
    assert capfd.readouterr().err.strip() == message
    assert not list(logs.iterdir())


@pytest.mark.parametrize("text", ["", "Unable to allocate 200. GiB for an array"])
def test_too_little_memory_is_said_so(text: str, logs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert end(MemoryError(text)) == 2
    assert f"error: not enough memory (MemoryError{': ' + text if text else ''})" in capfd.readouterr().err
    assert end(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")) == 2
    assert "you tried to allocate 9 bytes" in capfd.readouterr().err
    assert end(OSError(12, "Cannot allocate memory")) == 2
    assert not list(logs.iterdir())


@pytest.mark.parametrize(
    ("e", "words"),
    [
        (KeyError("x"), "KeyError: x"),
        (OSError("libx.so: cannot open shared object file"), "OSError: libx.so: cannot open shared object file"),
        (FileNotFoundError(2, "No such file or directory", "own.toml"), "No such file or directory: 'own.toml'"),
        (SyntaxError("invalid syntax", ("gen.py", 3, 1, "x x", 3, 2)), "SyntaxError: invalid syntax (gen.py, line 3)"),
        (noted(InternalError("the quantiser took other layers")), "error: the quantiser took other layers; this is"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum recursion depth exceeded"),
        (AssertionError(), "AssertionError"),
        (GeneratorExit(), "GeneratorExit"),
        (SystemExit(0), "SystemExit: 0"),
        (RuntimeError("first line\nsecond line"), "RuntimeError: first line; this is"),
        (ExceptionGroup("several", [ValueError("a")]), "ExceptionGroup: several (1 sub-exception)"),
        (Mute(), "Mute: <exception str() failed>"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "UnicodeDecodeError"),
    ],
)
def test_what_nobody_foresaw_is_ours(
    e: BaseException, words: str, logs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert end(e) == 3
    said = capfd.readouterr().err
    (log,) = logs.iterdir()
    assert words in said
    assert "this is a fault of bigvit-edge, not of the input" in said
    assert ("nothing was written" in said) == bool(getattr(e, "__notes__", ()))
    assert said.rstrip().endswith(f"details: {log}")
    assert len(said.splitlines()) == 1
    assert "Traceback" in log.read_text()
    assert type(e).__name__ in log.read_text()
    assert "raise e" in log.read_text()


def test_no_place_for_a_log(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:  # pytest wants a file of its own afterwards
        patch.setattr(tempfile, "tempdir", "/nowhere")
        assert end(KeyError("x")) == 3
    assert "details: none could be written" in capfd.readouterr().err


TALK = """
from bigvit_edge.exits import explained, prepare_streams
import typer
app = typer.Typer(pretty_exceptions_enable=False)
@app.command()
@explained
def talk():
    for i in range(30000):
        print("caf\\u00e9 \\u2192 \\udcff")
prepare_streams()
app()
"""


@pytest.mark.parametrize(("reader", "code"), [("head -1", 141), ("cat >/dev/null", 0)])
def test_a_reader_that_goes_and_an_encoding_that_lacks_letters(reader: str, code: int) -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" | {reader}; echo ${{PIPESTATUS[0]}} >&2', sys.executable, TALK],
        capture_output=True, text=True, env=environment, encoding="latin-1", check=False,
    )  # fmt: skip
    assert done.stderr == f"{code}\n"
    assert done.stdout == ("caf\u00e9 \\u2192 \\udcff\n" if code else "")


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>&-"])
def test_streams_that_the_caller_has_closed(closed: str) -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    code = TALK.replace("prepare_streams()\n", "prepare_streams()\nimport os; assert os.open('.', 0) > 2\n")
    command = ["bash", "-c", f'"$0" -c "$1" {closed}', sys.executable, code]
    environment = os.environ | {"PYTHONPATH": paths}
    assert subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL).returncode == 0
