"""How far a training has come: its state, and what was measured so far; saved now and then.

    load or begin  ->  (a segment of steps  ->  save, if due) ...

A segment depends on the state alone, so a training that goes on from a checkpoint measures what it
would have measured, bit for bit.

One trap: what is not finite is never saved over what is. A training that diverges can be looked at
where it last was finite, and one that goes on from there diverges again.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


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
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(self.carry)]
        if all(np.isfinite(leaf).all() for leaf in leaves):
            passed = [jax.tree.leaves(point) for point in self.points]
            names = self.rows[0]
            self.checkpoints.save(
                {
                    "carry": _numbered(leaves),
                    "points": _numbered([np.stack(leaf) for leaf in zip(*passed, strict=True)]),
                    "rows": {name: np.stack([row[name] for row in self.rows]) for name in names},
                }
            )
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
    leaves, structure = jax.tree.flatten(carry)
    restored = [jnp.asarray(known["carry"][str(at)], leaf.dtype) for at, leaf in enumerate(leaves)]
    passed, shape = known["points"], jax.tree.structure(carry[0])
    points = [
        jax.tree.unflatten(shape, [passed[str(at)][time] for at in range(len(passed))])
        for time in range(len(passed["0"]))
    ]
    times = range(len(next(iter(known["rows"].values()))))
    rows = [{name: values[at] for name, values in known["rows"].items()} for at in times]
    return Journal(checkpoints, jax.tree.unflatten(structure, restored), points, rows, keep=keep)


def _numbered(leaves: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {str(at): leaf for at, leaf in enumerate(leaves)}
