"""What a bench's page tells besides its table."""

from bigvit_edge.bench.pages import explain_result
from tests.bench.made import make_result, make_row


def test_the_loads_of_a_way_that_was_tried_are_told_to_include_the_trials() -> None:
    tried = {"chosen": "one thread", "medians": []}
    told = list(explain_result(make_result(make_row(policy="auto", build={"tried": tried}), make_row())))
    (line,) = (line for line in told if "auto chose" in line)
    assert line.endswith("on auto, 1 thread: auto chose one thread; its load times include the trials")
