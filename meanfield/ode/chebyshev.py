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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

DAMPING = 2 / 13
STABILITY = 2 / 3 * (1 - 2 * DAMPING / 15)
_SERIES_TERMS = 9


class Stage(NamedTuple):
    """A stage of the recursion: its number j, a_j, b_j, G_j, G_j - G_{j-1} and F_j."""

    number: Any
    a: Any
    b: Any
    total: Any
    difference: Any
    field: Any


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


def first_stage(field, /) -> Stage:
    """Stage 0, before the first increment.

    Args:
        field: F_0.

    Returns:
        The stage.

    >>> int(first_stage(jnp.ones(())).number)
    0
    """
    zeros = jax.tree.map(jnp.zeros_like, field)
    one = jnp.ones((), jnp.result_type(*jax.tree.leaves(field))).real
    return Stage(jnp.zeros((), jnp.int32), 0 * one, one, zeros, zeros, field)


def next_stage(stage: Stage, field, h, stages, /) -> tuple[Stage, Any]:
    """Stage j + 1 of a step, up to its field, which is left as it was.

    Args:
        stage: stage j with its field F_j.
        field: F_0.
        h: step length, a floating scalar.
        stages: s, an integer scalar, at least 2.

    Returns:
        The stage, and the share of the step at which to evaluate its field, at y_0 + b_j G_j.

    >>> one = next_stage(first_stage(jnp.ones(())), jnp.ones(()), jnp.ones(()), 2)[0]
    >>> float(one.total) > 0
    True
    """
    one = jnp.ones_like(stage.b)
    s = jnp.asarray(stages).astype(one.dtype)
    excess = DAMPING / (s * s)
    _, first, second = chebyshev_values(s, excess)
    w1 = first / second
    # Stage 0 has no predecessor: G_1 = w1 h F_0, not twice that.
    weight = jnp.where(stage.number == 0, w1, 2 * w1 / stage.b) * h.astype(one.dtype)
    difference = combine(
        (one, stage.difference),
        (2 * excess, stage.total),
        (weight, stage.field),
        (-stage.a * weight, field),
    )
    total = combine((one, stage.total), (one, difference))
    number = stage.number + 1
    a, b, slope = _stage_numbers(number.astype(one.dtype), excess)
    # The time to which stage j is consistent; exactly 1 at the last, for stiff forcing.
    share = jnp.where(number >= stages, one, w1 * slope)
    return Stage(number, a, b, total, difference, stage.field), share
