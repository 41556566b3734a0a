"""How far a training has come: its state, and what was measured so far; saved now and then.

    load or begin  ->  (a segment of steps  ->  save, if due) ...

A segment depends on the state alone, so a training that goes on from a checkpoint measures what it
would have measured, bit for bit.

One trap: a training that has diverged is not saved any more (:mod:`experiments._state`).
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments import _state


class Journal:
    """The state of a training, the points it passed, and a row of what was measured at each.

    Attributes:
        carry: Parameters and optimiser state.
        points: Parameters at all times, or the last ones only.
        rows: What was measured at each time.
    """

    def __init__(
        self, checkpoints: Any, carry: tuple, points: list[Any], rows: list[dict], *, keep: bool
    ) -> None:
        self.checkpoints, self.keep = checkpoints, keep
        self.carry, self.points, self.rows = carry, points, rows
        self.saved = time.monotonic()

    def add(self, carry: tuple, row: dict[str, np.ndarray]) -> None:
        """Takes the state after a segment, and saves it if that is due.

        Args:
            carry: The state.
            row: What was measured there.

        Raises:
            KeyboardInterrupt: If the training is to stop; it has been saved.
        """
        self.carry, self.rows = carry, [*self.rows, row]
        self.points = [*self.points, carry[0]] if self.keep else [carry[0]]
        if self.checkpoints is None:
            return
        stopping = self.checkpoints.stopping()
        if stopping or time.monotonic() - self.saved >= self.checkpoints.seconds:
            self.save()
        if stopping:
            raise KeyboardInterrupt

    def save(self) -> None:
        """Saves all of it, unless it has diverged."""
        state = _state.saved(self.carry, self.rows)
        if state is not None:
            passed = [jax.tree.leaves(point) for point in self.points]
            points = _state.numbered([np.stack(leaf) for leaf in zip(*passed, strict=True)])
            self.checkpoints.save(state | {"points": points})
        self.saved = time.monotonic()


def opened(
    checkpoints: Any, carry: tuple, measured: Callable[[], Any], /, *, keep: bool
) -> Journal:
    """The journal of a training, from its last checkpoint or from its start.

    Args:
        checkpoints: Where it saves itself; nowhere if None.
        carry: The state at the start.
        measured: What gives the row of the start.
        keep: Whether to keep the points at all times, or the last one only.
    """
    known = checkpoints.load() if checkpoints is not None else None
    if known is None:
        return Journal(checkpoints, carry, [carry[0]], [jax.device_get(measured())], keep=keep)
    restored, rows = _state.restored(known, carry)
    passed, shape = known["points"], jax.tree.structure(carry[0])
    points = [
        jax.tree.unflatten(shape, [passed[str(at)][time] for at in range(len(passed))])
        for time in range(len(passed["0"]))
    ]
    return Journal(checkpoints, restored, points, rows, keep=keep)
