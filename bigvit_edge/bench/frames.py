"""Frames beside the model alone: what an app pays from a camera's frame to a label."""

from dataclasses import dataclass, replace

from bigvit_edge.bench.runners import Runner
from bigvit_edge.results import NOT_AVAILABLE, Frames, Protocol, Row

SHARE = 0.125  # of the time of a row's turns, that frames may take


@dataclass
class Spent:
    """The time that a row's turns have taken, and frames after them."""

    turns_ns: int = 0
    frames_ns: int = 0

    def is_due(self) -> bool:
        """Tell whether frames may follow the last turn."""
        return self.frames_ns <= SHARE * self.turns_ns


def begin_frames(row: Row, runner: Runner) -> Row:
    """Try a first frame on a row that is warm.

    It is not counted. The row's `frame` then says who prepares frames, or why nobody does.
    """
    if isinstance(row.frame, Frames):  # of an earlier part
        return row
    told = runner.run_frames(0, 1)
    frame = f"{NOT_AVAILABLE}: {told}" if isinstance(told, str) else Frames(told.frame, told.prepared_by)
    return replace(row, frame=frame)


def add_frames(row: Row, runner: Runner, protocol: Protocol, spent: Spent) -> Row:
    """Let frames follow the row's last turn, where they are due."""
    turn, frames = row.turns[-1], row.frame
    spent.turns_ns += turn.end_ns - turn.start_ns
    if not isinstance(frames, Frames) or not spent.is_due():
        return row
    told = runner.run_frames(protocol.turn_s, protocol.turn_images, 1e3 / protocol.fps if protocol.fps else 0)
    if isinstance(told, str):
        return replace(row, frame=f"{NOT_AVAILABLE}: {told}")
    spent.frames_ns += told.end_ns - told.start_ns
    frames = replace(
        frames, turns=(*frames.turns, len(row.turns) - 1), label_times_ms=(*frames.label_times_ms, *told.label_ms),
        prepare_times_ms=(*frames.prepare_times_ms, *told.prepare_ms),
    )  # fmt: skip
    return replace(row, frame=frames)
