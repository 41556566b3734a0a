r"""Canvases of room that dashes claim, many side by side, and the step that adds a dash.

The next dash of a path starts at a pixel c on a circle round the pivot q, drawn with weight

    cos(continuity D(q -> c, direction before))^2 (1 - claim near c),

and is refused where its footprint and the claims add up to 1.8 or more.

One trap: all windows are looked up in one flat array of all canvases, whose rim is claimed and wide
enough that no window leaves its canvas.

References:
    Linsley et al. 2018, arXiv 1805.08315 (Pathfinder).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from meanfield.tasks.pathfinder_shapes import DEGREES, Design, Shapes, shapes

TOUCH = 459
"""Two claims of 255 at most that add up to so much or more touch."""
FREE = 76
"""A claim up to so much, of 255, leaves a pixel free for a distractor to start."""


class Canvases(NamedTuple):
    """The room that is claimed on each canvas, as flat arrays with a claimed rim.

    Attributes:
        claims: 255 = claimed.
        near: The same, dilated by a disc of radius gap.
    """

    claims: UInt8[np.ndarray, "b a"]
    near: UInt8[np.ndarray, "b a"]


class Plan(NamedTuple):
    """What growth looks up.

    Attributes:
        design: How the image looks.
        shapes: The templates.
        rim: Width of the rim.
        side: Side of a canvas, rim included.
        limits: By direction, claims above this touch the dash.
        window: Of a footprint, as steps in a flat canvas.
        wide: Of a footprint dilated by the gap, likewise.
        ahead: From pivot to pivot, likewise.
        candidates: From a pivot to where the next dash may start, likewise.
    """

    design: Design
    shapes: Shapes
    rim: int
    side: int
    limits: UInt8[np.ndarray, "k w"]
    window: Int[np.ndarray, " w"]
    wide: Int[np.ndarray, " v"]
    ahead: Int[np.ndarray, " k"]
    candidates: Int[np.ndarray, " c"]


def plan(design: Design, /) -> Plan:
    """Everything that growth looks up, for one design.

    Args:
        design: How the image looks.

    >>> from meanfield.tasks.pathfinder_shapes import pathfinder_design
    >>> plan(pathfinder_design()).side
    46
    """
    made = shapes(design)
    half, wide = made.footprint.shape[1] // 2, made.near.shape[1] // 2
    # A pivot lies at most so far outside, and its candidates one circle further.
    rim = max(wide, design.dash + 3 * design.gap + 2)
    side = design.size + 2 * rim

    def flat(steps: np.ndarray) -> np.ndarray:
        return (steps[..., 0] * side + steps[..., 1]).astype(np.int32)

    def window(half: int) -> np.ndarray:
        return flat(np.indices((2 * half + 1, 2 * half + 1)).transpose(1, 2, 0) - half).ravel()

    everywhere = made.footprint.reshape(len(made.footprint), -1)
    return Plan(
        design=design,
        shapes=made,
        rim=rim,
        side=side,
        limits=np.minimum(TOUCH - 1 - everywhere.astype(int), 255).astype(np.uint8),
        window=window(half),
        wide=window(wide),
        ahead=flat(made.ahead),
        candidates=flat(made.candidates),
    )


def empty(plan: Plan, number: int, /) -> Canvases:
    """Canvases on which only the rim and the outermost pixels are claimed.

    Args:
        plan: What growth looks up.
        number: How many.

    >>> from meanfield.tasks.pathfinder_shapes import pathfinder_design
    >>> empty(plan(pathfinder_design()), 2).claims.shape
    (2, 2116)
    """
    claims = np.full((plan.side, plan.side), 255, np.uint8)
    near = claims.copy()
    inner = slice(plan.rim + 1, plan.side - plan.rim - 1)
    claims[inner, inner] = 0
    gap = plan.design.gap
    inner = slice(plan.rim + 1 + gap, plan.side - plan.rim - 1 - gap)
    near[inner, inner] = 0
    return Canvases(*(np.tile(one.ravel(), (number, 1)) for one in (claims, near)))


def extended(
    plan: Plan,
    canvases: Canvases,
    rows: Int[np.ndarray, " b"],
    pivots: Int[np.ndarray, " b"],
    directions: Int[np.ndarray, " b"],
    /,
    *,
    draws: Float[np.ndarray, "b t"],
) -> tuple[Bool[np.ndarray, " b"], Int[np.ndarray, " b"], Int[np.ndarray, " b"]]:
    """Whether a next dash finds its place on each canvas, where, and in which direction.

    Args:
        plan: What growth looks up.
        canvases: Many canvases.
        rows: Those on which a path grows, each once.
        pivots: The pivot of each path.
        directions: The direction of its last dash.
        draws: Uniform random numbers, one for each try to place the dash.

    >>> from meanfield.tasks.pathfinder_shapes import pathfinder_design
    >>> one, pivot = plan(pathfinder_design()), np.array([23 * 46 + 23])
    >>> extended(one, empty(one, 1), pivot * 0, pivot, pivot * 0, draws=np.full((1, 1), 0.5))[0]
    array([ True])
    """
    area = plan.side**2
    candidates = pivots[:, None] + plan.candidates[None, :]
    offsets = (rows * area)[:, None]
    free = 255 - canvases.near.ravel()[offsets + candidates]
    steps = np.cumsum(plan.shapes.bend[directions] * free, axis=1)
    ok, chosen = np.zeros(len(rows), bool), np.zeros(len(rows), int)
    left = np.flatnonzero(steps[:, -1] > 0)
    for draw in draws.T:
        aim = draw[left] * steps[left, -1]
        choice = np.minimum((steps[left] <= aim[:, None]).sum(axis=1), len(plan.candidates) - 1)
        place = offsets[left] + candidates[left, choice][:, None]
        claimed = canvases.claims.ravel()[place + plan.window[None, :]]
        clear = (claimed <= plan.limits[DEGREES + choice]).all(axis=1)
        ok[left[clear]], chosen[left[clear]] = True, choice[clear]
        left = left[~clear]
    return ok, candidates[np.arange(len(rows)), chosen], DEGREES + chosen


def claim(
    plan: Plan,
    canvases: Canvases,
    rows: Int[np.ndarray, " b"],
    places: Int[np.ndarray, " b"],
    directions: Int[np.ndarray, " b"],
    /,
) -> None:
    """Claims the room of one dash on each canvas, in place.

    Args:
        plan: What growth looks up.
        canvases: Many canvases.
        rows: Those on which a dash claims its room, each once.
        places: Where each dash starts.
        directions: Its direction.

    >>> from meanfield.tasks.pathfinder_shapes import pathfinder_design
    >>> one, start = plan(pathfinder_design()), np.array([23 * 46 + 23])
    >>> claim(one, taken := empty(one, 1), start * 0, start, start * 0)
    >>> int(taken.claims[0, start[0]])
    255
    """
    offsets = (rows * plan.side**2 + places)[:, None]
    for canvas, window, templates in (
        (canvases.claims, plan.window, plan.shapes.footprint),
        (canvases.near, plan.wide, plan.shapes.near),
    ):
        index = offsets + window[None, :]
        flat = canvas.reshape(-1)
        flat[index] = np.maximum(flat[index], templates.reshape(len(templates), -1)[directions])


def free_starts(
    plan: Plan,
    canvases: Canvases,
    rows: Int[np.ndarray, " b"],
    directions: Int[np.ndarray, " b"],
    /,
    *,
    draws: Float[np.ndarray, " b"],
) -> tuple[Int[np.ndarray, " b"], Bool[np.ndarray, " b"]]:
    """A place where a distractor may start on each canvas, and whether there is room for more.

    Args:
        plan: What growth looks up.
        canvases: Many canvases.
        rows: Those on which a distractor starts.
        directions: The direction of its first dash.
        draws: A uniform random number for each.

    >>> from meanfield.tasks.pathfinder_shapes import pathfinder_design
    >>> one, zero = plan(pathfinder_design()), np.array([0])
    >>> free_starts(one, empty(one, 1), zero, zero, draws=np.array([0.5]))[1].tolist()
    [True]
    """
    claims = canvases.claims[rows].reshape(-1, plan.side, plan.side)
    free = ~_spread_over(plan, claims > FREE, directions).reshape(len(rows), -1)
    ranks = np.cumsum(free, axis=1, dtype=np.int32)
    numbers = ranks[:, -1]
    aim = (numbers * draws).astype(int)
    return (ranks <= aim[:, None]).sum(axis=1), numbers >= plan.design.size**2 / 100


def _spread_over(plan: Plan, taken: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Where a first dash of each direction would cover a taken pixel [b side side]."""
    full = plan.shapes.footprint[directions] == 255
    half = full.shape[-1] // 2
    covered = np.zeros_like(taken)
    for row in range(2 * half + 1):
        for column in range(2 * half + 1):
            if full[:, row, column].any():
                seen = np.roll(taken, (half - row, half - column), (1, 2))
                covered |= seen & full[:, row, column][:, None, None]
    return covered
