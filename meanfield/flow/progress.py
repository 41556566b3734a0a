"""Progress bars with a label, for solves that run inside one compiled program.

One trap: a label inside the compiled program would compile it anew for every label, and solves may
run in several threads; so the program carries a number, and the host knows its label.
"""

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.experimental import io_callback
from jaxtyping import Array, Int

_numbers = itertools.count()
_labels: dict[int, str] = {}
_bars: dict[int, tqdm.tqdm] = {}
_lock = threading.Lock()
_NUMBER = jax.ShapeDtypeStruct((), jnp.int32)


class ProgressBar(diffrax.AbstractProgressMeter):
    """A tqdm bar over the time of one solve.

    Attributes:
        number: The bar's number, under which the host keeps its label.
        every: Steps between two redraws.
    """

    number: Int[Array, ""]
    every: int = 5

    def init(self) -> tuple[Array, Array]:
        """Draws the empty bar."""
        return io_callback(_open, _NUMBER, self.number), jnp.zeros((), jnp.int32)

    def step(self, state: tuple[Array, Array], progress: Any) -> tuple[Array, Array]:
        """Redraws the bar after every few steps."""
        number, steps = state
        number = jax.lax.cond(
            (steps % self.every == 0) | (progress >= 1),
            lambda: io_callback(_update, _NUMBER, number, progress),
            lambda: number,
        )
        return number, steps + 1

    def close(self, state: tuple[Array, Array]) -> None:
        """Leaves the bar where the solve ended."""
        io_callback(_close, None, state[0])


def meter(label: str | None, /) -> diffrax.AbstractProgressMeter:
    """A progress bar under a label, or none.

    Args:
        label: The label, which may be empty; None for no bar.

    >>> type(meter(None)).__name__
    'NoProgressMeter'
    """
    if label is None:
        return diffrax.NoProgressMeter()
    return ProgressBar(jnp.asarray(_numbered(label), jnp.int32))


@contextlib.contextmanager
def bar(label: str | None, /) -> Iterator[Callable[[Any], Any]]:
    """A bar for a solve that the host drives: a function of the share done; without a label, none.

    Args:
        label: The label, which may be empty; None for no bar.

    Yields:
        The function.

    >>> with bar(None) as drawn:
    ...     drawn(0.5)
    """
    if label is None:
        yield lambda progress: None
        return
    number = _open(_numbered(label))
    try:
        yield functools.partial(_update, number)
    finally:
        _close(number)


def _numbered(label: str) -> int:
    number = next(_numbers)
    _labels[number] = f"{label} " if label else ""
    return number


def _open(number: Any) -> np.ndarray:
    with _lock:
        _bars[int(number)] = tqdm.tqdm(
            total=100,
            desc=_labels.pop(int(number), "") or None,
            bar_format="{desc}{percentage:3.0f}% |{bar:30}| {elapsed}<{remaining}",
        )
    return np.asarray(number, np.int32)


def _update(number: Any, progress: Any) -> np.ndarray:
    with _lock:
        bar = _bars[int(number)]
        bar.n = round(100 * float(progress), 1)
        bar.refresh()
    return np.asarray(number, np.int32)


def _close(number: Any) -> None:
    with _lock:
        _bars.pop(int(number)).close()
