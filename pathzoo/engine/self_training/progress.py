"""Says how far a long round is."""

import logging
import time
from collections.abc import Callable, Sequence

from mmengine import dist

_SECONDS_BETWEEN = 30.0


class Progress:
    """Writes a line to the log every half minute: share of the pixels done, rate, time left.

    Args:
        name: begins each line.
        todo: indices of the regions that are to be done, by all processes.
        pixels: of every region.
        logger: where to.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        name: str,
        todo: Sequence[int],
        pixels: Sequence[int],
        logger: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        own = todo[dist.get_rank() :: dist.get_world_size()]  # as `share_out` gives them
        self._name, self._pixels, self._logger, self._clock = name, pixels, logger, clock
        self._total, self._done, self._regions, self._all = sum(pixels[i] for i in own), 0, 0, len(own)
        self._started = self._told = clock()

    def done(self, index: int) -> None:
        """One region is done."""
        self._done += self._pixels[index]
        self._regions += 1
        now = self._clock()
        if now - self._told < _SECONDS_BETWEEN and self._regions < self._all:
            return
        self._told = now
        seconds = now - self._started
        text = f"self-training: {self._name}: {self._regions}/{self._all} regions, {self._done / self._total:.0%}"
        text += f", {seconds / self._done * 1e6:.2f} s per megapixel"
        if self._regions < self._all:
            text += f", about {_clock_time(seconds / self._done * (self._total - self._done))} left"
        elif dist.get_world_size() > 1:
            text += " (of this process's share)"
        self._logger.info(text)


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
