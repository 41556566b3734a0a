r"""Growth of the Pathfinder's dashed paths, many images side by side.

Two paths of 14 dashes that grow in turn (:mod:`meanfield.tasks.pathfinder_canvas`) almost always
get stuck. The published way is to start afresh each time: it keeps one pair in some 260. Here an
image grows many pairs at once; a pair that is stuck becomes a copy of one that is not, and goes on
with random numbers of its own. As the number of pairs grows, the law of the pair that is kept tends
to that of the published way.

One trap: every image has its own generator of random numbers, of which each round takes a block.
So an image does not depend on the images beside it, whatever gets stuck there.

References:
    Linsley et al. 2018, arXiv 1805.08315 (Pathfinder);
    Grassberger 2002, *Go with the winners*, arXiv cond-mat/0201313.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from meanfield.tasks.pathfinder_canvas import (
    Canvases,
    Plan,
    claim,
    empty,
    extended,
    free_starts,
)
from meanfield.tasks.pathfinder_shapes import DEGREES

PAIRS = 16
"""Pairs of paths that an image grows at once."""
TRIES = 3
"""Tries to place a dash."""
RESTARTS = 5
"""Tries to grow a distractor."""
ROUNDS = 20
"""How often all pairs of an image may get stuck."""
CHOICES = 5000
"""How often an image's pairs may be thrown away by a choice among them."""


class Paths(NamedTuple):
    """Dashes of paths, in order.

    Attributes:
        places: Where each dash starts, row and column; the first is where the path starts.
        directions: The number of its direction.
    """

    places: Int[np.ndarray, "b p n 2"]
    directions: Int[np.ndarray, "b p n"]


def targets(
    plan: Plan,
    generators: Sequence[np.random.Generator],
    /,
    *,
    keep: Callable[[Paths], np.ndarray] | None = None,
) -> tuple[Paths, Canvases]:
    """Two paths for each image, and the canvases with the room that they claim.

    Args:
        plan: What growth looks up.
        generators: The random numbers of each image.
        keep: Which pairs of paths may be kept, one image each; all of them if None.

    Raises:
        ValueError: If the paths of an image get stuck, or are not kept, again and again.

    >>> from meanfield.tasks import pathfinder_canvas as canvas, pathfinder_shapes as shapes
    >>> one = canvas.plan(shapes.pathfinder_design(dashes=3))
    >>> targets(one, [np.random.default_rng(0)])[0].places.shape
    (1, 2, 3, 2)
    """
    design = plan.design
    needed = 5 + 7 * (design.dashes - 1)
    places = np.zeros((len(generators), 2, design.dashes), np.int32)
    directions = np.zeros_like(places)
    canvases, done = empty(plan, len(generators)), np.zeros(len(generators), bool)
    stuck = np.zeros(len(generators), int)
    for _ in range(CHOICES):
        waiting = np.flatnonzero(~done)
        draws = np.stack([generators[int(image)].random((PAIRS, needed)) for image in waiting])
        ended, found, pairs = _round(plan, draws, keep)
        stuck[waiting[~ended]] += 1
        new = waiting[found]
        done[new], places[new], directions[new] = True, pairs[0], pairs[1]
        canvases.claims[new], canvases.near[new] = pairs[2]
        if done.all():
            return Paths(_pixels(plan, places), directions), canvases
        if stuck.max() >= ROUNDS:
            raise ValueError(
                f"dashes must be so few that two paths of them fit into {design.size} x "
                f"{design.size} pixels, got {design.dashes}: all of {ROUNDS * PAIRS} pairs got "
                "stuck; lower dashes or enlarge size"
            )
    raise ValueError(
        f"matched and apart must leave some pairs of paths, got none among {CHOICES * PAIRS}; "
        "enlarge matched or do without one of them"
    )


def distractors(
    plan: Plan, canvases: Canvases, generators: Sequence[np.random.Generator], /
) -> tuple[Paths, Bool[np.ndarray, "b p"]]:
    """Distractor paths where there is room left, and which of them could grow.

    Args:
        plan: What growth looks up.
        canvases: The room that is claimed; the distractors claim theirs too.
        generators: The random numbers of each image.

    >>> from meanfield.tasks import pathfinder_canvas as canvas, pathfinder_shapes as shapes
    >>> one = canvas.plan(shapes.pathfinder_design(distractors=(2, 2)))
    >>> distractors(one, canvas.empty(one, 1), [np.random.default_rng(0)])[1].tolist()
    [[True, True]]
    """
    design = plan.design
    length, (least, greatest) = design.distractor_dashes, design.distractors
    shape = (greatest, RESTARTS, 2 + TRIES * (length - 1))
    asked = np.array([generator.integers(least, greatest + 1) for generator in generators])
    draws = np.stack([generator.random(shape) for generator in generators])
    places = np.zeros((len(generators), greatest, length), np.int32)
    directions = np.zeros_like(places)
    grown = np.zeros(places.shape[:2], bool)
    room = np.ones(len(generators), bool)
    for path in range(greatest):
        for restart in range(RESTARTS):
            rows = np.flatnonzero(room & (path < asked) & ~grown[:, path])
            if not len(rows):
                break
            u = draws[rows, path, restart]
            direction = (DEGREES * u[:, 0]).astype(int)
            start, room[rows] = free_starts(plan, canvases, rows, direction, draws=u[:, 1])
            rows, start, direction, u = (a[room[rows]] for a in (rows, start, direction, u))
            trial = Canvases(canvases.claims[rows], canvases.near[rows])
            path_places, path_directions, ok = _single(plan, trial, start, direction, u[:, 2:])
            done = rows[ok]
            places[done, path], directions[done, path] = path_places[ok], path_directions[ok]
            canvases.claims[done], canvases.near[done] = trial.claims[ok], trial.near[ok]
            grown[done, path] = True
    return Paths(_pixels(plan, places), directions), grown


def _round(
    plan: Plan, draws: np.ndarray, keep: Callable[..., np.ndarray] | None
) -> tuple[Any, Any, tuple]:
    """In which images pairs came to their end and may be kept, and the first such pair of each."""
    images, pairs = draws.shape[:2]
    u = draws.reshape(images * pairs, -1)
    dashes = plan.design.dashes
    places = np.zeros((len(u), 2, dashes), np.int32)
    directions = np.zeros_like(places)
    places[:, :, 0], directions[:, :, 0] = _starts(plan, u)
    pivots = places[:, :, 0] + plan.ahead[directions[:, :, 0]]
    canvases = empty(plan, len(u))
    alive = np.ones(len(u), bool)
    state = (places, directions, pivots, *canvases)
    for step in range(1, dashes):
        for path in range(2):
            rows = np.flatnonzero(alive)
            column = 5 + TRIES * (2 * (step - 1) + path)
            old = directions[rows, path, step - 1]
            ok, place, direction = extended(
                *(plan, canvases, rows, pivots[rows, path], old),
                draws=u[rows, column : column + TRIES],
            )
            alive[rows[~ok]] = False
            rows, place, direction = rows[ok], place[ok], direction[ok]
            # A dash may lie close to the one before it, which claims its room only now.
            claim(plan, canvases, rows, places[rows, path, step - 1], old[ok])
            places[rows, path, step], directions[rows, path, step] = place, direction
            pivots[rows, path] += plan.ahead[direction]
        into, source = _copies(alive.reshape(images, pairs), u[:, 5 + 6 * (dashes - 1) + step - 1])
        for array in state:
            array[into] = array[source]
        alive[into] = True
        if not alive.any():
            break
    kept = alive.copy()
    if keep is not None:
        rows = np.flatnonzero(alive)
        kept[rows] = keep(Paths(_pixels(plan, places[rows]), directions[rows]))
    ended = alive.reshape(images, pairs).any(axis=1)
    found = kept.reshape(images, pairs).any(axis=1)
    # All pairs have one law, so the first is as good as any.
    first = (np.arange(images) * pairs + kept.reshape(images, pairs).argmax(axis=1))[found]
    for path in range(2):
        claim(plan, canvases, first, places[first, path, -1], directions[first, path, -1])
    room = (canvases.claims[first], canvases.near[first])
    return ended, found, (places[first], directions[first], room)


def _single(
    plan: Plan, trial: Canvases, start: np.ndarray, direction: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One path on each canvas, which is left with the room that the path claims."""
    length = plan.design.distractor_dashes
    places = np.zeros((len(start), length), np.int32)
    directions = np.zeros_like(places)
    places[:, 0], directions[:, 0] = start, direction
    pivots = start + plan.ahead[direction]
    rows = np.arange(len(start))
    for step in range(1, length):
        old = directions[rows, step - 1]
        tries = u[rows, TRIES * (step - 1) : TRIES * step]
        ok, place, direction = extended(plan, trial, rows, pivots[rows], old, draws=tries)
        rows, place, direction = rows[ok], place[ok], direction[ok]
        claim(plan, trial, rows, places[rows, step - 1], old[ok])
        places[rows, step], directions[rows, step] = place, direction
        pivots[rows] += plan.ahead[direction]
    claim(plan, trial, rows, places[rows, -1], directions[rows, -1])
    ended = np.zeros(len(start), bool)
    ended[rows] = True
    return places, directions, ended


def _starts(plan: Plan, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and directions of both paths' first dashes [b 2]: one in the middle, one near it."""
    design = plan.design
    edge = plan.rim + 2 * design.spread
    inner = plan.side - 2 * edge - 1
    row, column = (edge + (inner * u[:, index]).astype(int) for index in (0, 1))
    directions = (DEGREES * u[:, 2:4]).astype(int)
    angle = np.deg2rad((DEGREES * u[:, 4]).astype(int) - 180)
    away = np.rint(design.spread * np.stack([np.sin(angle), np.cos(angle)])).astype(int)
    first = row * plan.side + column
    return np.stack([first, first + away[0] * plan.side + away[1]], axis=1), directions


def _copies(alive: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs become copies, and of which: any of their image's that are not stuck."""
    numbers = alive.sum(axis=1)
    order = np.argsort(~alive, axis=1, kind="stable")
    rank = (u.reshape(alive.shape) * numbers[:, None]).astype(int)
    source = (
        np.take_along_axis(order, rank, axis=1) + alive.shape[1] * np.arange(len(alive))[:, None]
    )
    stuck = ~alive & (numbers > 0)[:, None]
    return np.flatnonzero(stuck), source[stuck]


def _pixels(plan: Plan, places: np.ndarray) -> np.ndarray:
    rows, columns = np.divmod(places, plan.side)
    return np.stack([rows - plan.rim, columns - plan.rim], axis=-1)
