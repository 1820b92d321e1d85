"""Tables and progress on the terminal, whoever reads them."""

import os
import sys

import pytest

from bigvit_edge.tables import print_rows, print_step, watch


def test_a_step_is_named_with_its_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with print_step("lower litert int8"):
        pass
    assert capsys.readouterr().err.split() == ["lower", "litert", "int8", "0.0", "s"]


@pytest.mark.parametrize("name", ["program, built once: minutes", "demo, exported once: a minute"])
def test_a_step_that_takes_long_is_named_when_it_begins(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with print_step(name):
        assert capsys.readouterr().err == f"  {name} ...\n"
    assert capsys.readouterr().err.startswith(f"  {name} ")


def test_a_progress_bar_changes_nothing_and_is_silent_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(watch(iter("abc"), "pictures", 3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_went_away_is_a_broken_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(BrokenPipeError):
            print_rows(("a", "b"), [("1", "2")])
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)  # what is left to write has somewhere to go
