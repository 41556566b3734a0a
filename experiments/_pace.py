"""How far a loop of steps is, and how fast.

    mean_field, 40 heads: 20 %, 00:35 so far, 02:21 to go, loss 1.83, 3.4 steps/s

One trap: the first step compiles, so it does not count for the pace.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

from meanfield import progress


class Pace:
    """How far a loop is, and how fast.

    Attributes:
        steps_per_second: Steps per second of computing, NaN before the second step.
    """

    def __init__(self, update: Callable[..., None], total: int) -> None:
        self.steps_per_second = float("nan")
        self._update, self._total, self._aside = update, total, 0.0
        self._first: tuple[int, float] | None = None

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
            said = f"{said}, {self.steps_per_second:.3g} steps/s"
        self._update(done / self._total, said)


@contextlib.contextmanager
def pace(label: str | None, *, total: int) -> Iterator[Pace]:
    """A pace that ends with its loop.

    Args:
        label: What the loop is called; nothing is shown if None.
        total: Steps in all.

    >>> with pace(None, total=2) as paced:
    ...     paced.passed(1, said="")
    """
    with progress.bar(label) as update:
        yield Pace(update, total)
