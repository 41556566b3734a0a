"""How far a computation is: a bar on a terminal, whole lines in a log file.

    training: 37 %, 01:12 so far, 02:03 to go

Where the error stream is no terminal, a line is written after a second, then every half minute at
most, and at the end.

One trap: what goes on from a checkpoint begins in the middle. The time to go is told from what was
done since the first word of it, and not from 0.
"""

import contextlib
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import tqdm

FIRST, EVERY = 1.0, 30.0
"""Seconds until the first line, and between two."""
Item = TypeVar("Item")


class Lines:
    """Progress in whole lines.

    >>> lines = Lines("training", sys.stdout, iter([0.0, 0.0, 2.0, 4.0]).__next__)
    >>> lines.update(0.0)
    >>> lines.update(0.5)
    training: 50 %, 00:02 so far, 00:02 to go
    >>> lines.close()
    training: ended at 50 %, 00:04 so far
    """

    def __init__(self, label: str, stream: Any, clock: Callable[[], float]):
        self.label, self.stream, self.clock = label or "progress", stream, clock
        self.share, self.origin = 0.0, None
        self.began = clock()
        self.due = self.began + FIRST

    def update(self, share: float, said: str = "", /) -> None:
        """Writes a line, if one is due, with what else is to be said."""
        now = self.clock()
        self.share = min(max(float(share), 0.0), 1.0)
        if self.origin is None:
            self.origin = (now, self.share)
        # What is done is said by the last line.
        if now >= self.due and self.share < 1:
            self.due = now + EVERY
            self._write(
                f"{self._percent()}, {self._elapsed(now)}{self._to_go(now)}{said and f', {said}'}"
            )

    def close(self) -> None:
        """Writes the last line."""
        ended = "" if self.share >= 1 else "ended at "
        self._write(f"{ended}{self._percent()}, {self._elapsed(self.clock())}")

    def _percent(self) -> str:
        # Rounded down: what is not done is not called done.
        return f"{int(100 * self.share)} %"

    def _elapsed(self, now: float) -> str:
        return f"{tqdm.tqdm.format_interval(now - self.began)} so far"

    def _to_go(self, now: float) -> str:
        began, first = self.origin or (now, self.share)
        if self.share <= first:
            return ""
        rest = (now - began) * (1 - self.share) / (self.share - first)
        return f", {tqdm.tqdm.format_interval(round(rest))} to go"

    def _write(self, said: str) -> None:
        self.stream.write(f"{self.label}: {said}\n")
        self.stream.flush()


class Bar:
    """Progress as a bar that is drawn again and again.

    >>> import io
    >>> Bar("training", io.StringIO()).close()
    """

    def __init__(self, label: str, stream: Any):
        self.begun = False
        self.bar = tqdm.tqdm(
            total=100,
            desc=f"{label} " if label else None,
            file=stream,
            bar_format="{desc}{percentage:3.0f}% |{bar:30}| {elapsed}<{remaining}{postfix}",
        )

    def update(self, share: float, said: str = "", /) -> None:
        """Draws the bar, with what else is to be said."""
        self.bar.set_postfix_str(said, refresh=False)
        self.bar.n = round(100 * float(share), 1)
        if not self.begun:
            self.begun, self.bar.initial = True, self.bar.n
        self.bar.refresh()

    def close(self) -> None:
        """Leaves the bar where it is."""
        self.bar.close()


def shown(
    label: str, /, *, stream: Any = None, clock: Callable[[], float] = time.monotonic
) -> Bar | Lines:
    """A bar where the stream is a terminal, lines where it is not.

    Args:
        label: What is done; it may be empty.
        stream: Where to write; the error stream if None.
        clock: Seconds since whenever.

    >>> import io
    >>> type(shown("training", stream=io.StringIO())).__name__
    'Lines'
    """
    stream = sys.stderr if stream is None else stream
    return Bar(label, stream) if stream.isatty() else Lines(label, stream, clock)


@contextlib.contextmanager
def bar(label: str | None, /) -> Iterator[Callable[..., None]]:
    """Progress of a block: a function that takes the share done, and what else is to be said.

    Args:
        label: What is done; None for nothing to be shown.

    Yields:
        The function, which may be called from any thread.

    >>> with bar(None) as drawn:
    ...     drawn(0.5)
    """
    if label is None:
        yield lambda share, said="": None
        return
    lock, here = threading.Lock(), shown(label)

    def update(share: Any, said: str = "") -> None:
        with lock:
            here.update(float(share), said)

    try:
        yield update
    finally:
        here.close()


@contextlib.contextmanager
def counted(label: str | None, total: int, /) -> Iterator[Callable[[], None]]:
    """Progress of a block with so many parts: a function to be called after each.

    Args:
        label: What is done; None for nothing to be shown.
        total: How many parts.

    Yields:
        The function, which may be called from any thread.

    >>> with counted(None, 2) as done:
    ...     done()
    """
    parts = itertools.count(1)
    with bar(label) as update:
        update(0.0)
        yield lambda: update(next(parts) / total)


def through(items: Sequence[Item], label: str | None, /) -> Iterator[Item]:
    """The items one by one, with the progress of a loop over them.

    Args:
        items: The items.
        label: What is done; None for nothing to be shown.

    >>> list(through([1, 2], None))
    [1, 2]
    """
    with counted(label, len(items)) as done:
        for item in items:
            yield item
            done()
