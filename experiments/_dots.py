"""How well the two dots of a Pathfinder image tell its label, without the picture.

    cue    the dots' distance in whole pixels, or |across| and |down| of their displacement in cells
    answer the commoner label at each value of the cue

One trap: on the images on which it is counted the answer is right too often, and the more so the
finer the cells. It is counted on one half and tested on the other.
"""

import numpy as np
from jaxtyping import Int

CELLS = (1, 2, 4)
"""Sides of the cells in which displacements are counted, in pixels."""


def displacement_accuracy(away: Int[np.ndarray, "n 2"], labels: Int[np.ndarray, " n"], /) -> float:
    """Share of right answers by the dots' displacement alone: the best of distance and cells.

    Args:
        away: Displacements of the second dot from the first, rows and columns.
        labels: Labels, 0 and 1.

    >>> displacement_accuracy(np.array([[0, 3], [2, 2], [3, 0], [-2, 2]]), np.array([1, 0, 1, 0]))
    1.0
    """
    cues = [np.linalg.norm(away.astype(float), axis=1, keepdims=True).astype(int)]
    cues += [np.abs(away) // cell for cell in CELLS]
    return max(_held_out(cue, labels) for cue in cues)


def _held_out(cue: Int[np.ndarray, "n k"], labels: Int[np.ndarray, " n"]) -> float:
    """Accuracy of the commoner label at each value of a cue, of each half as the other has it."""
    _, values = np.unique(cue, axis=0, return_inverse=True)
    values, half = values.ravel(), len(labels) // 2
    right = []
    for learnt, tested in (
        (slice(None, half), slice(half, None)),
        (slice(half, None), slice(None, half)),
    ):
        votes = np.bincount(
            values[learnt], weights=2.0 * labels[learnt] - 1, minlength=values.max() + 1
        )
        right.append((votes[values[tested]] > 0) == (labels[tested] == 1))
    return float(np.concatenate(right).mean())
