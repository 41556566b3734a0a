r"""Choice among pairs of Pathfinder's paths that have been grown.

    matched    a_1 - a_0 and b_1 - a_0 lie in one cell, up to signs and order, and so for b_0
    apart      no pixel is lit by both paths

Here the paths run from a_0 to a_1 and from b_0 to b_1. The dots lie at a_0 and, by the label, at
a_1 or b_1; or at b_0 likewise. In a matched pair the cell of their displacement is one and the same
whatever the label. Ends on one spot would be matched too, and nobody could tell the label: they
must lie as far apart as the starts.

One trap: a choice may look at neither the label nor at which path holds the first dot, or the
classes would differ in the picture or in the law of the second dot.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool

from meanfield.checks import count
from meanfield.tasks.pathfinder_canvas import Plan
from meanfield.tasks.pathfinder_growth import Paths

LIT = 0.25
"""A dash lights the pixels that are so bright, of its brightest."""


def choice(
    plan: Plan, /, *, matched: int | None, apart: bool
) -> Callable[[Paths], np.ndarray] | None:
    """Which pairs of paths may be kept, None if all.

    Args:
        plan: What growth looks up.
        matched: Side of a cell of displacements, None without such a choice.
        apart: Whether paths that touch are thrown away.

    Raises:
        ValueError: If the side is no positive integer.

    >>> from meanfield.tasks import pathfinder_canvas as canvas, pathfinder_shapes as shapes
    >>> one = canvas.plan(shapes.pathfinder_design())
    >>> choice(one, matched=None, apart=False) is None
    True
    """
    if matched is not None:
        count("matched", matched)
    elif not apart:
        return None

    def keep(paths: Paths) -> np.ndarray:
        kept = np.ones(len(paths.places), bool)
        if matched is not None:
            kept &= in_one_cell(paths, matched, plan.design.spread)
        if apart:
            rows = np.flatnonzero(kept)
            kept[rows] = ~touching(plan, Paths(paths.places[rows], paths.directions[rows]))
        return kept

    return keep


def in_one_cell(paths: Paths, cell: int, spread: int, /) -> Bool[np.ndarray, " b"]:
    """Whether both ends, apart, are displaced alike from either start, up to signs and order.

    Args:
        paths: Pairs of paths.
        cell: Side of a cell of displacements.
        spread: Least distance of the ends.

    >>> places = np.array([[[[0, 0], [3, 4]], [[0, 8], [-3, 4]]]])
    >>> in_one_cell(Paths(places, places[..., 0]), 1, 6).tolist()
    [True]
    """
    starts, ends = paths.places[:, :, 0], paths.places[:, :, -1]
    cells = np.sort(np.abs(ends[:, None] - starts[:, :, None]) // cell, axis=-1)
    away = ((ends[:, 1] - ends[:, 0]) ** 2).sum(axis=-1)
    return np.all(cells[:, :, 0] == cells[:, :, 1], axis=(1, 2)) & (away >= spread**2)


def touching(plan: Plan, paths: Paths, /) -> Bool[np.ndarray, " b"]:
    """Whether some pixel is lit by both paths of a pair.

    Args:
        plan: What growth looks up.
        paths: Pairs of paths.

    >>> from meanfield.tasks import pathfinder_canvas as canvas, pathfinder_shapes as shapes
    >>> one, places = canvas.plan(shapes.pathfinder_design()), np.full((1, 2, 1, 2), 9)
    >>> touching(one, Paths(places, places[..., 0])).tolist()
    [True]
    """
    ink = plan.shapes.ink
    lit = (ink >= LIT * ink.max(axis=(1, 2), keepdims=True)).reshape(len(ink), -1)
    steps = np.arange(ink.shape[1]) - ink.shape[1] // 2
    window = (steps[:, None] * plan.side + steps[None, :]).ravel()
    places = (paths.places[..., 0] + plan.rim) * plan.side + paths.places[..., 1] + plan.rim
    rows = np.arange(len(places))[:, None]
    first = np.zeros((len(places), plan.side**2), bool)
    touch = np.zeros(len(places), bool)
    for path in range(2):
        for place, direction in zip(places[:, path].T, paths.directions[:, path].T, strict=True):
            index = place[:, None] + window[None, :]
            if path:
                touch |= (first[rows, index] & lit[direction]).any(axis=1)
            else:
                first[rows, index] |= lit[direction]
    return touch
