"""Second-order Runge-Kutta-Chebyshev step, one field evaluation per stage.

    P_s(z) = 1 + b_s (T_s(w0 + w1 z) - T_s(w0)),    |P_s(z)| <= 1 on -0.653 (s^2 - 1) <= z <= 0

with w0 = 1 + eps/s^2, eps = 2/13, w1 = T_s'(w0)/T_s''(w0), b_j = T_j''(w0)/T_j'(w0)^2.

Trap: the published three-term recursion multiplies round-off by s^2. Written for the scaled
increment G_j = (Y_j - Y_0)/b_j it becomes a second difference,

    G_{j+1} - 2 G_j + G_{j-1} = 2 (w0 - 1) G_j + (2 w1 h / b_j) (F_j - a_j F_0)

with a_j = 1 - b_j T_j(w0), whose small numbers come without cancellation, so that float32 stays
usable at hundreds of stages.

References:
    Sommeijer, Shampine, Verwer, RKC: an explicit solver for parabolic PDEs,
    J. Comp. Appl. Math. 88 (1998), section 2 (scheme) and section 3.1 (error estimate).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox.internal as eqxi
import jax
import jax.numpy as jnp

Loop = Literal["lax", "checkpointed"]
DAMPING = 2 / 13
STABILITY = 2 / 3 * (1 - 2 * DAMPING / 15)
_SERIES_TERMS = 9


class Point(NamedTuple):
    """A point of a solution: time, state, and the field there, whose value counts where `known`."""

    time: Any
    state: Any
    field: Any
    known: Any = True


class Step(NamedTuple):
    """One step: increment y1 - y0, field at its start and end, local error estimate."""

    increment: Any
    first: Any
    last: Any
    error: Any


def stability_interval(stages):
    """Length beta of the real interval [-beta, 0] where a step with these stages is stable.

    Args:
        stages: number of stages, at least 2.

    Returns:
        0.653 (s^2 - 1); the true interval is a little longer.

    >>> round(stability_interval(10), 2)
    64.65
    """
    return STABILITY * (stages * stages - 1)


def stage_count(scaled_radius, /):
    """Fewest stages whose stability interval covers h * radius, at least 2.

    Args:
        scaled_radius: step length times spectral radius, >= 0.

    Returns:
        A whole number in floating point: it may exceed any integer type.

    >>> float(stage_count(64.0))
    10.0
    """
    scaled = jnp.asarray(scaled_radius)
    # A small surplus: round-off in the root must not cost a stage at the edge of the interval.
    return jnp.maximum(2.0, jnp.ceil(jnp.sqrt(1 + scaled * (1.002 / STABILITY))))


def chebyshev_values(degree, excess, /):
    """T_j, T_j' and T_j'' at 1 + x, by their Taylor series at 1.

    All terms are positive, so nothing cancels, while the closed form by cosh loses a factor 1/x in
    T_j''. Nine terms reach double precision for j^2 x <= 2/13.

    Args:
        degree: j >= 0, in floating point.
        excess: x >= 0 with j^2 x <= 2/13.

    Returns:
        The three values.

    >>> [round(float(v), 4) for v in chebyshev_values(jnp.array(3.0), jnp.array(0.0))]
    [1.0, 9.0, 24.0]
    """
    square = degree * degree

    def series(order):
        at_one, total = jnp.ones_like(square), jnp.ones_like(square)
        for i in range(order):
            at_one = at_one * ((square - i * i) / (2 * i + 1))
        # Ratios of neighbouring terms, so that no power of the degree overflows float32.
        for m in reversed(range(_SERIES_TERMS)):
            i = order + m
            total = 1 + total * ((square - i * i) * excess / ((2 * i + 1) * (m + 1)))
        return at_one * total

    return series(0), series(1), series(2)


def _stage_numbers(degree, excess):
    """a_j, b_j (with b_1 = b_2) and b_j T_j'(w0) = c_j / w1, the time of stage j over w1."""
    value, first, second = chebyshev_values(degree, excess)
    b = jnp.where(degree < 2, 0.25 / (1 + excess) ** 2, second / (first * first))
    return 1 - b * value, b, b * first


def combine(*scaled):
    """Sum of scalar * tree over (scalar, tree) pairs, each scalar in the dtype of the leaf.

    Args:
        scaled: pairs of a scalar array and a tree; all trees of one structure.

    Returns:
        A tree.

    >>> float(combine((jnp.array(2.0), jnp.array(3.0)), (jnp.array(1.0), jnp.array(1.0))))
    7.0
    """
    scalars, trees = zip(*scaled, strict=True)

    def leaf(*leaves):
        return sum(c.astype(x.dtype) * x for c, x in zip(scalars, leaves, strict=True))

    return jax.tree.map(leaf, *trees)


def chebyshev_step(
    rate: Callable, start: Point, h, stages, /, *, max_stages: int, loop: Loop = "lax"
) -> Step:
    """One RKC2 step of length h with the given number of stages.

    Args:
        rate: (t, y) -> dy/dt, a tree like y.
        start: where the step begins; a field not known yet costs one evaluation more.
        h: step length, a floating scalar array.
        stages: integer scalar; 0 evaluates nothing and returns a zero increment.
        max_stages: bound on `stages`, for reverse mode.
        loop: kind of `equinox` loop: "lax" (forward mode) or "checkpointed" (reverse mode).

    Returns:
        Increment, the field at both ends (`stages` evaluations in all) and the error estimate
        0.8 (y0 - y1) + 0.4 h (F0 + F1), of third order in h.

    >>> start = Point(0.0, jnp.ones(()), -jnp.ones(()))
    >>> step = chebyshev_step(lambda t, y: -y, start, jnp.ones(()), 2, max_stages=2)
    >>> round(float(step.increment), 4)
    -0.5
    """
    t, y, field, known = start
    real = jnp.zeros((), jnp.result_type(*jax.tree.leaves(y))).real.dtype
    scale = h.astype(real)
    s = jnp.maximum(jnp.asarray(stages), 2).astype(real)
    excess = DAMPING / (s * s)
    _, first, second = chebyshev_values(s, excess)
    w1 = first / second
    one = jnp.ones((), real)

    def body(carry):
        j, a, b, total, difference, field, latest = carry
        # Stage 0 only evaluates F_0; stage 1 has no predecessor: G_1 = w1 h F_0, not twice that.
        weight = jnp.where(j == 1, w1, jnp.where(j == 0, 0.0, 2 * w1 / b)) * scale
        difference = combine(
            (one, difference), (2 * excess, total), (weight, latest), (-a * weight, field)
        )
        total = combine((one, total), (one, difference))
        a, b, slope = _stage_numbers(j.astype(real), excess)
        # The time to which stage j is consistent; exactly 1 at the last, for stiff forcing.
        fraction = jnp.where(j >= stages, one, w1 * slope)
        point = combine((one, y), (b, total))
        latest = rate(t + fraction.astype(h.dtype) * h, point)
        field = jax.tree.map(lambda new, old: jnp.where(j == 0, new, old), latest, field)
        return j + 1, jnp.where(j == 0, 0.0, a), b, total, difference, field, latest

    zeros = jax.tree.map(jnp.zeros_like, y)
    # The first field too comes from this loop: the program holds the field once.
    begin = jnp.where(known, 1, 0)
    _, _, b, total, _, field, last = eqxi.while_loop(
        lambda carry: (carry[0] <= stages) & (stages > 0),
        body,
        (begin, 0 * one, one, zeros, zeros, field, field),
        max_steps=max_stages + 1,
        kind=loop,
    )
    increment = combine((b, total))
    error = combine((-0.8 * one, increment), (0.4 * scale, field), (0.4 * scale, last))
    return Step(increment, field, last, error)
