"""Times of functions that do the same, side by side.

    round:  one sample of each, in an order that turns;    time: median over the rounds

One trap: what else runs on the machine slows down whatever runs at that moment, so samples of two
functions are comparable only if taken in turns; the processor's own time is kept beside the wall's.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Timing(NamedTuple):
    """Seconds of one function: of its first call, and of the calls after it, round by round."""

    value: float
    first_seconds: float
    samples: list[float]
    processor_samples: list[float]

    @property
    def seconds(self) -> float:
        """Median over the rounds."""
        return float(np.median(self.samples))

    @property
    def processor_seconds(self) -> float:
        """Median over the rounds of the time that all threads of this process took."""
        return float(np.median(self.processor_samples))


def interleaved(
    functions: Mapping[str, Callable[[], float]],
    *,
    rounds: int,
    least_seconds: float,
    patience: float,
) -> dict[str, Timing]:
    """Times of all functions, taken in turns after one call of each.

    Args:
        functions: The functions, whose values are numbers.
        rounds: Samples of each.
        least_seconds: A sample holds as many calls as fill this time, by the second call.
        patience: Seconds for the samples of one function; slower ones get fewer, at least two.
    """
    firsts: dict[str, tuple[float, float]] = {}
    calls: dict[str, int] = {}
    turns: dict[str, int] = {}
    for name, function in functions.items():
        value, first = _timed(function)
        _, second = _timed(function)
        firsts[name] = (value, first)
        calls[name] = max(1, int(np.ceil(least_seconds / second)))
        turns[name] = int(np.clip(patience / (second * calls[name]), 2, rounds))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    names = list(functions)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            # The slow ones are sampled early, among all the others.
            if turn < turns[name]:
                samples[name].append(_sample(functions[name], calls[name]))
    found = {}
    for name, (value, first) in firsts.items():
        walls, processors = zip(*samples[name], strict=True)
        found[name] = Timing(value, first, list(walls), list(processors))
    return found


def _timed(function: Callable[[], float]) -> tuple[float, float]:
    begin = time.perf_counter()
    value = float(function())
    return value, time.perf_counter() - begin


def _sample(function: Callable[[], float], calls: int) -> tuple[float, float]:
    begin, processor = time.perf_counter(), time.process_time()
    for _ in range(calls):
        function()
    taken = time.perf_counter() - begin, time.process_time() - processor
    return taken[0] / calls, taken[1] / calls
