"""How far a loop of steps is: a bar on a terminal, a line now and then in a log.

    mean_field, 40 heads: 120 of 600 steps, loss 1.83, 3.4 steps/s, 02:21 to go

One trap: the first step compiles, so it counts neither for the pace nor for the time left.
"""

import contextlib
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

EVERY = 20.0
"""Seconds between two lines in a log."""
FORMAT = "{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Pace:
    """How far a loop is, and how fast.

    Attributes:
        steps_per_second: Steps per second of computing, NaN before the second step.
    """

    def __init__(self, label: str | None, total: int, done: int) -> None:
        self.steps_per_second = float("nan")
        self._label, self._total, self._done = label, total, done
        self._first: tuple[int, float] | None = None
        self._aside, self._told = 0.0, time.monotonic()
        self._bar = None
        if label is not None and sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=done, desc=label, bar_format=FORMAT, mininterval=0.5
            )

    def passed(self, done: int, *, said: str, aside: float = 0.0) -> None:
        """Tells that so many steps are done.

        Args:
            done: Steps done.
            said: What to show beside.
            aside: Seconds since the step before that went into something else than steps.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = (done, now)
        else:
            self._aside += aside
            steps, seconds = done - self._first[0], now - self._first[1] - self._aside
            self.steps_per_second = steps / max(seconds, 1e-9)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{said}, {self.steps_per_second:.3g} steps/s", refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._label is not None and (now - self._told >= EVERY or done == self._total):
            self._told = now
            print(self._line(done, now, said), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the bar where the loop ended."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, done: int, now: float, said: str) -> str:
        start = f"{self._label}: {done} of {self._total} steps, {said}"
        if self._first is None or done == self._first[0]:
            return start
        # With what else the loop does: it is the time to go on the clock.
        left = (self._total - done) * (now - self._first[1]) / (done - self._first[0])
        return f"{start}, {self.steps_per_second:.3g} steps/s, {tqdm.format_interval(left)} to go"


@contextlib.contextmanager
def pace(label: str | None, *, total: int, done: int = 0) -> Iterator[Pace]:
    """A pace that ends with its loop.

    Args:
        label: What the loop is called; nothing is shown if None.
        total: Steps in all.
        done: Steps that were done before.

    >>> with pace(None, total=2) as paced:
    ...     paced.passed(1, said="")
    """
    paced = Pace(label, total, done)
    try:
        yield paced
    finally:
        paced.close()
