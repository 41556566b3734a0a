r"""Barriers: what a risk climbs on the way between two points.

    height        max_s R(theta_s) - ((1 - s) R(theta_0) + s R(theta_1)),      s in [0, 1]
    instability   max_s R(theta_s) - (R(theta_0) + R(theta_1)) / 2

One trap: the maximum is over the points evaluated, so a barrier narrower than their distance is
missed: more ``points`` can only raise it.

References:
    Frankle et al. 2020, arXiv 1912.05671 (instability); Entezari et al. 2022, arXiv 2110.06296
    (height); Garipov et al. 2018, arXiv 1802.10026 (polylines).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from meanfield import checks
from meanfield.landscape.inputs import check_direction, check_parameters
from meanfield.landscape.slices import CHUNK, risks_at
from meanfield.notation import Risk


class Barrier(NamedTuple):
    """What a path climbs between two points.

    Attributes:
        shares: Where on the path, in [0, 1].
        risks: The risk there.
        height: Its largest excess over the line between the risks at the two ends; at least 0.
        instability: Its largest excess over the mean of the risks at the two ends.
    """

    shares: Float[Array, "n"]
    risks: Float[Array, "n"]
    height: Float[Array, ""]
    instability: Float[Array, ""]


def barrier(
    risk: Risk,
    start: PyTree,
    end: PyTree,
    /,
    *,
    via: Sequence[PyTree] = (),
    points: int = 25,
    chunk: int = CHUNK,
) -> Barrier:
    """The barrier of a risk between two points, along the segment or a polyline.

    Args:
        risk: A function of the parameters.
        start: Where the path begins.
        end: Where it ends, of the same shapes.
        via: Corners of the path in between; every segment takes an equal share of it.
        points: Intervals on each segment, at whose ends the risk is evaluated.
        chunk: Points evaluated side by side.

    Returns:
        The risk along the path and its barrier: NaN if the risk is NaN anywhere on the path or
        infinite at an end of it, infinite if it is so in between.

    Raises:
        ValueError: Points of other structure or shapes, fewer than two intervals, a chunk that is
            not a positive integer, a risk that is not one number.

    References:
        Frankle et al. 2020, arXiv 1912.05671, section 2 (instability).

    >>> found = barrier(
    ...     lambda x: jnp.sum((x**2 - 1) ** 2), jnp.array([-1.0]), jnp.array([1.0]), points=4
    ... )
    >>> found.risks.tolist(), float(found.height)
    ([0.0, 0.5625, 1.0, 0.5625, 0.0], 1.0)
    """
    checks.count("points", points, least=2)
    check_parameters("start", start)
    corners = [start, *via, end]
    for corner in corners[1:]:
        check_direction("every point of the path", corner, start)
    inside = np.linspace(0.0, 1.0, points + 1)[:-1]
    # Hat functions: the path is a sum of its corners, so that one program serves every path.
    places = np.append((np.arange(len(corners) - 1)[:, None] + inside[None, :]).ravel(),
                       float(len(corners) - 1))  # fmt: skip
    hats = np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(len(corners))[None, :]))
    zero = jax.tree.map(jnp.zeros_like, start)
    risks = risks_at(risk, zero, tuple(corners), hats, chunk=chunk)
    shares = jnp.asarray(places / (len(corners) - 1), risks.dtype)
    level = (1 - shares) * risks[0] + shares * risks[-1]
    return Barrier(
        shares, risks, jnp.max(risks - level), jnp.max(risks) - (risks[0] + risks[-1]) / 2
    )
