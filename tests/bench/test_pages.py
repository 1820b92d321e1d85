"""What a bench's page tells besides its table."""

import pytest

from bigvit_edge.bench.comparison import compare
from bigvit_edge.bench.pages import explain_result, print_compared, spell_frame
from bigvit_edge.bench.verdicts import judge
from tests.bench.made import make_frames, make_machine, make_result, make_row


def test_the_loads_of_a_way_that_was_tried_are_told_to_include_the_trials() -> None:
    tried = {"chosen": "one thread", "medians": []}
    told = list(explain_result(make_result(make_row(policy="auto", build={"tried": tried}), make_row())))
    (line,) = (line for line in told if "auto chose" in line)
    assert line.endswith("on auto, 1 thread: auto chose one thread; its load times include the trials")


def test_frames_are_told_beside_the_model_alone_or_why_there_are_none() -> None:
    framed = judge(make_row(frame=make_frames([1.5, 2.5, 2.0], [0.5, 1.5, 1.0], (0,))), make_machine())
    told = "\n".join(explain_result(make_result(framed, make_row(file="b.onnx", frame="not available: it is foreign"))))
    assert (
        "a.bve keep 0.5 on big, 1 thread: frame to label 2.00 ms (p90 2.50), of it 1.00 ms preparing by somebody; "
        "2.00 times the model alone, 3 frames"
    ) in told
    assert "frame to label: a frame in memory, a frame, prepared, run" in told
    assert "frame to label of b.onnx: not available: it is foreign" in told
    assert (spell_frame(framed), spell_frame(make_row()), spell_frame(make_row(frame="none"))) == ("2.00 ms", "–", "–")
    assert "frame to label" not in "\n".join(explain_result(make_result(make_row())))  # of an older result


def test_a_comparison_says_why_a_frame_to_label_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    older, newer = (make_result(make_row(frame=frame)) for frame in (None, "not available: this app times no frames"))
    print_compared(*compare(older, newer))
    print_compared(*compare(newer, newer))
    said = [line for line in capsys.readouterr().out.splitlines() if "not available" in line]
    assert said == ["frame to label of a.bve: not available: this app times no frames"] * 2
