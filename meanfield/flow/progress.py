"""Progress under a label, for solves that run inside one compiled program.

One trap: a label inside the compiled program would compile it anew for every label, and solves may
run in several threads; so the program carries a number, and the host knows its label.
"""

import itertools
import threading
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import Array, Int

from meanfield.progress import Bar, Lines, shown

_numbers = itertools.count()
_labels: dict[int, str] = {}
_shown: dict[int, Bar | Lines] = {}
_lock = threading.Lock()
_NUMBER = jax.ShapeDtypeStruct((), jnp.int32)


class ProgressBar(diffrax.AbstractProgressMeter):
    """Progress over the time of one solve.

    Attributes:
        number: The solve's number, under which the host keeps its label.
        every: Steps between two updates.
    """

    number: Int[Array, ""]
    every: int = 5

    def init(self) -> tuple[Array, Array]:
        """Begins."""
        return io_callback(_open, _NUMBER, self.number), jnp.zeros((), jnp.int32)

    def step(self, state: tuple[Array, Array], progress: Any) -> tuple[Array, Array]:
        """Updates after every few steps."""
        number, steps = state
        number = jax.lax.cond(
            (steps % self.every == 0) | (progress >= 1),
            lambda: io_callback(_update, _NUMBER, number, progress),
            lambda: number,
        )
        return number, steps + 1

    def close(self, state: tuple[Array, Array]) -> None:
        """Ends where the solve ended."""
        io_callback(_close, None, state[0])


def meter(label: str | None, /) -> diffrax.AbstractProgressMeter:
    """Progress under a label, or none.

    Args:
        label: The label, which may be empty; None for none.

    >>> type(meter(None)).__name__
    'NoProgressMeter'
    """
    if label is None:
        return diffrax.NoProgressMeter()
    return ProgressBar(jnp.asarray(_numbered(label), jnp.int32))


def _numbered(label: str) -> int:
    number = next(_numbers)
    _labels[number] = label
    return number


def _open(number: Any) -> np.ndarray:
    with _lock:
        _shown[int(number)] = shown(_labels.pop(int(number), ""))
    return np.asarray(number, np.int32)


def _update(number: Any, share: Any) -> np.ndarray:
    with _lock:
        _shown[int(number)].update(float(share))
    return np.asarray(number, np.int32)


def _close(number: Any) -> None:
    with _lock:
        _shown.pop(int(number)).close()
