"""Warming a runner up: until its times settle, however fast or slow it is."""

import statistics
import time

from bigvit_edge.bench.runners import Runner

IMAGES = 10  # of which the median must be stable
SLOW_MS, SLOW_IMAGES = 200.0, 3  # of what takes longer, so many
BLOCKS, SPREAD = 3, 1.03  # of the last so many blocks, the slowest's median to the fastest's
MOST_S, MOST_IMAGES = 30.0, 1000  # after BLOCKS


def warm_up(runner: Runner) -> tuple[int, bool]:
    """Run blocks of images until the last medians agree.

    Returns how many images that took, and whether they do.
    """
    images, start = IMAGES if runner.ready.first_ms < SLOW_MS else SLOW_IMAGES, time.monotonic()
    medians: list[float] = []
    while True:
        medians.append(statistics.median(runner.run(0, images).times_ms))
        last = medians[-BLOCKS:]
        is_warm = len(last) == BLOCKS and max(last) <= SPREAD * min(last)
        late = time.monotonic() - start > MOST_S or len(medians) * images >= MOST_IMAGES
        if is_warm or (late and len(last) == BLOCKS):
            return len(medians) * images, is_warm
