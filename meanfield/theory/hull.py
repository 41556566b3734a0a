r"""Reach of one attention row: targets that no attention weights can produce.

Row a of head h is sum_b S_ab u_b with values u_b = (X W_h^V W_h^O)_b. Whatever W^Q and W^K are,

    softmax    S_ab > 0, sum_b S_ab = 1:   the row lies in the convex hull of the values
    Gaussian   0 < S_ab <= 1 (c > 0):      the row lies in the zonotope {sum_b w_b u_b, 0 <= w <= 1}

and with several heads in the sum of the heads' sets. A target at distance d_ia from that set leaves

    f >= (s/2) sum_ia d_ia^2                  for every W^Q and W^K, at fixed W^V and W^O.

This is a theorem for any H as long as W^V and W^O do not move, and the hull is exact. It says
nothing where they are trained. Distances are certified: the plane that separates the target from
the set proves the lower bound, whatever the solver did.

One trap: the converse fails. All rows share one W^Q, so targets inside may still be out of reach,
and a target on the boundary is approached only as weights grow without bound.

References:
    Song et al. 2024, arXiv 2411.07538 (query-only training of softmax attention).
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy import optimize

from meanfield.checks import choice
from meanfield.theory.attention_layer import AttentionLayer, check_layer, risk_share

MOST_VERTICES = 4096
ROWS = ("simplex", "box")


class Reach(NamedTuple):
    """What no W^Q and W^K can bring the risk below.

    Attributes:
        distances: Certified lower bounds of the distance of each target row to its set; 0 where
            that is round-off of the values in their own precision.
        slack: How much larger the distances of the points found are: how tight the bounds are.
        outside: Rows out of reach, beyond round-off.
        least_risk: The lower bound (s/2) sum of squares of the distances.
    """

    distances: Float[np.ndarray, "b n"]
    slack: float
    outside: Bool[np.ndarray, "b n"]
    least_risk: float

    @property
    def reachable(self) -> bool:
        """Whether no row is out of reach."""
        return not self.outside.any()


def reach_test(
    layer: AttentionLayer,
    inputs: Float[Array, "b n d"],
    targets: Float[Array, "b n c"],
    /,
    *,
    rows: str = "simplex",
    average: bool = False,
) -> Reach:
    """The hull test: which target rows no W^Q and W^K can reach, at fixed W^V and W^O.

    Args:
        layer: Parameters, of which W^V and W^O matter.
        inputs: The samples X_i.
        targets: The targets y_i.
        rows: What a row of weights is: ``"simplex"`` (softmax, any normalised kernel) or ``"box"``
            (in [0, 1], the Gaussian kernel without normalisation).
        average: Whether the sum over samples is divided by N.

    Raises:
        ValueError: If sizes do not match, a value is not finite, ``rows`` is something else, or
            n^H exceeds 4096 vertices of a simplex test.

    >>> layer = AttentionLayer(*[jnp.ones((1, 1, 1))] * 4)
    >>> data = jnp.array([[[1.0], [2.0]]]), jnp.array([[[0.5], [1.5]]])
    >>> reach_test(layer, *data).least_risk, reach_test(layer, *data, rows="box").least_risk
    (0.125, 0.0)
    """
    choice("rows", rows, ROWS)
    check_layer(layer, inputs, targets)
    heads, tokens = len(layer.value), inputs.shape[1]
    if rows == "simplex" and tokens**heads > MOST_VERTICES:
        raise ValueError(
            f"the hull of {heads} heads must have at most {MOST_VERTICES} vertices n^H, got "
            f"{tokens}^{heads}; test fewer heads or tokens"
        )
    values = np.asarray(jnp.einsum("bnd,mdk,mkc->bmnc", inputs, layer.value, layer.output), float)
    distance = hull_distance if rows == "simplex" else zonotope_distance
    found = np.array(
        [
            [distance(_generators(sample, rows), row) for row in wanted]
            for sample, wanted in zip(values, np.asarray(targets, float), strict=True)
        ]
    )
    lower, upper = found[..., 0], found[..., 1]
    # The values carry the round-off of the layer's own precision, which is no distance.
    slack = max(1e-9, 200 * float(jnp.finfo(layer.value.dtype).eps))
    size = slack * max(float(np.abs(values).max()), float(np.abs(targets).max()), 1e-300)
    certain = np.where(lower > size, lower, 0.0)
    share = risk_share(inputs, average=average)
    return Reach(
        certain, float(np.max(upper - certain)), certain > 0, share / 2 * float(np.sum(certain**2))
    )


def hull_distance(
    points: Float[np.ndarray, "p c"], target: Float[np.ndarray, " c"], /
) -> tuple[float, float]:
    """Distance of a point to a convex hull: a certified lower bound, and that of the point found.

    With v_b = points - target, nonnegative least squares |sum l_b v_b|^2 + (sum l_b - 1)^2 has its
    optimum at a multiple of the weights of the nearest point, exactly.

    Args:
        points: The points that span the hull.
        target: The point whose distance is asked for.

    Raises:
        ValueError: If there is no point, or the dimensions differ.

    References:
        Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23.

    >>> hull_distance(np.array([[1.0], [2.0]]), np.array([0.5]))
    (0.5, 0.5)
    """
    _check(points, target)
    shifted = np.asarray(points, float) - np.asarray(target, float)[None]
    size = float(np.linalg.norm(shifted, axis=1).max())
    if size == 0.0:
        return 0.0, 0.0
    system = np.vstack([shifted.T / size, np.ones(len(shifted))])
    weights = optimize.nnls(system, np.append(np.zeros(shifted.shape[1]), 1.0))[0]
    nearest = weights / weights.sum() @ shifted
    return _certified(nearest, lambda direction: float((shifted @ direction).min()))


def zonotope_distance(
    generators: Float[np.ndarray, "p c"], target: Float[np.ndarray, " c"], /
) -> tuple[float, float]:
    """Distance of a point to {sum_b w_b u_b, 0 <= w <= 1}: a certified bound, and the one found.

    Args:
        generators: The vectors u_b.
        target: The point whose distance is asked for.

    Raises:
        ValueError: If there is no generator, or the dimensions differ.

    >>> zonotope_distance(np.array([[1.0], [2.0]]), np.array([4.0]))[0]
    1.0
    """
    _check(generators, target)
    vectors, wanted = np.asarray(generators, float), np.asarray(target, float)
    weights = optimize.lsq_linear(vectors.T, wanted, bounds=(0.0, 1.0), method="bvls").x
    nearest = np.clip(weights, 0.0, 1.0) @ vectors - wanted
    return _certified(
        nearest,
        lambda direction: float(np.minimum(vectors @ direction, 0).sum() - wanted @ direction),
    )


def _certified(nearest: np.ndarray, support: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """The set lies beyond the plane through its least value along the direction to the point."""
    found = float(np.linalg.norm(nearest))
    if found == 0.0:
        return 0.0, 0.0
    return min(max(0.0, support(nearest / found)), found), found


def _generators(values: np.ndarray, rows: str) -> np.ndarray:
    if rows == "box":
        return values.reshape(-1, values.shape[-1])
    # The sum of hulls is the hull of the sums of one vertex each.
    return np.array([sum(chosen) for chosen in itertools.product(*values)])


def _check(points: np.ndarray, target: np.ndarray) -> None:
    shapes = np.shape(points), np.shape(target)
    if len(shapes[0]) != 2 or not shapes[0][0] or shapes[0][1:] != shapes[1]:
        raise ValueError(
            f"points must be [p c] with p >= 1 and the target [c], got {shapes[0]} and {shapes[1]}"
        )
