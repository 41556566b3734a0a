r"""What runs are compared with: a mean over wide networks, each replica's own, or exact values.

The error against a reference of finite width m fluctuates like that of a network of width M_eff
against the limit:

    own reference, of which the heads are the first      1/M_eff = 1/M - 1/m
    another draw, or the mean of S draws of width m/S    1/M_eff = 1/M + 1/m

A reference of the network's own depth leaves the fluctuation alone; one of large depth adds the
bias of the discrete depth, of order 1/L.

One trap: a mean over S replicas has the fluctuation of width S m, but the bias, O(1/m), of each.

References:
    Chizat 2025, arXiv 2509.10167 (fluctuation and bias apart).
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from meanfield.measure.chaos import Replicas, Trajectory


class Reference(NamedTuple):
    """Trajectories that stand for the limit.

    Attributes:
        trajectories: One per depth, leaves [r t ...] with r = 1, or one row per replica.
        depths: Their depths.
        limit: Whether the one trajectory stands for every depth. Otherwise each network is compared
            with that of its own depth.
        width: Width of each network behind it.
        effective: Width of one network that fluctuates as much.
        nested: Whether row s holds the wide network whose first heads are those of replica s.
    """

    trajectories: tuple[Trajectory, ...]
    depths: tuple[float | int, ...]
    limit: bool
    width: float
    effective: float
    nested: bool


def mean_reference(wide: Replicas, /, *, depth: int | None = None) -> Reference:
    """The mean over replicas of the widest networks, their clouds pooled.

    Args:
        wide: Replicas that are not those under test: draw them with another key.
        depth: The one depth that stands for the limit of infinite depth. By default every network
            is compared with its own depth.

    Raises:
        ValueError: If there is no such depth.

    >>> one = Trajectory(np.ones((5, 2, 3)), np.ones((5, 2)))
    >>> mean_reference(Replicas((64,), (8,), (one,), True)).effective
    320.0
    """
    widest = _widest(wide, depth)
    width, replicas = widest.widths[0], len(widest.trajectories[0].risk)
    return Reference(
        averaged(widest).trajectories,
        widest.depths,
        depth is not None,
        float(width),
        float(width * replicas),
        nested=False,
    )


def own_reference(runs: Replicas, /, *, depth: int | None = None) -> Reference:
    """Each replica's own widest network, of which its narrower ones are the first heads.

    Args:
        runs: Nested replicas.
        depth: The one depth that all are compared with. It is for one path over depth per head:
            networks of one width then share their heads, and what is left is the bias, O(1/L).
            By default every network is compared with its own depth.

    Raises:
        ValueError: If they are not nested, or there is no such depth.

    >>> one = Trajectory(np.ones((5, 2, 3)), np.ones((5, 2)))
    >>> own_reference(Replicas((8, 64), (1, 1), (one, one), True)).width
    64.0
    """
    if not runs.nested:
        raise ValueError(
            "widths are not nested: each configuration has heads of its own; run the replicas with "
            "nested=True, or compare with mean_reference"
        )
    widest = _widest(runs, depth)
    width = float(widest.widths[0])
    limit = depth is not None
    return Reference(widest.trajectories, widest.depths, limit, width, width, nested=True)


def exact_reference(trajectory: Trajectory, /) -> Reference:
    """Values that are known at infinite width and depth.

    Args:
        trajectory: Predictions [t ...], risk [t], and clouds [t l m p] or None.

    >>> exact_reference(Trajectory(np.ones((2, 3)), np.ones(2))).width
    inf
    """
    rows = Trajectory(*(None if leaf is None else np.asarray(leaf)[None] for leaf in trajectory))
    return Reference((rows,), (math.inf,), True, math.inf, math.inf, nested=False)


def effective_width(
    widths: ArrayLike, reference: float | int, /, *, nested: bool = False
) -> Float[np.ndarray, " c"]:
    """Width at which the error against the limit fluctuates like that against a reference.

    Args:
        widths: Widths M under test.
        reference: Width m of the reference; of a mean, the sum of the widths behind it.
        nested: Whether the heads under test are the first of the reference: m M/(m - M). Otherwise
            m M/(m + M).

    Returns:
        M_eff, the abscissa of a log-log slope. Laws of `rates` take M and m themselves.

    Raises:
        ValueError: If the reference is narrower than a width, or nested and no wider, or if there
            are no widths or one is not positive.

    >>> effective_width([12, 30], 60, nested=True).tolist(), effective_width([10], np.inf).tolist()
    ([15.0, 60.0], [10.0])
    """
    sizes = np.asarray(widths, dtype=float)
    if not sizes.size or not (sizes > 0).all():
        raise ValueError(f"widths must be positive and at least one, got {sizes.tolist()}")
    check_wider(sizes.max(), reference)
    inverse = 1 / sizes + (-1 if nested else 1) / reference
    if not (inverse > 0).all():
        raise ValueError(
            f"a network of width {sizes.max():g} nested in a reference of that width is compared "
            "with itself; leave it out, or use a wider reference"
        )
    return 1 / inverse


def check_wider(width: float | int, reference: float | int, /) -> None:
    """Nothing, if a reference is at least as wide as a network.

    Args:
        width: Of the network.
        reference: Of the reference.

    Raises:
        ValueError: Otherwise.

    >>> check_wider(8, 64)
    """
    if reference < width:
        raise ValueError(
            f"the reference is narrower than the networks under test: width {reference:g} against "
            f"{width:g}; use a wider reference or leave those networks out"
        )


def averaged(runs: Replicas, /) -> Replicas:
    """The runs averaged over replicas, their clouds pooled: one replica per configuration.

    What is left is the bias of a width and depth, and the fluctuation of a mean.

    Args:
        runs: The runs.

    >>> one = Trajectory(np.array([[[1.0]], [[3.0]]]), np.ones((2, 1)), np.ones((2, 1, 1, 4, 5)))
    >>> mean = averaged(Replicas((4,), (1,), (one,), True)).trajectories[0]
    >>> mean.predictions.tolist(), mean.clouds.shape
    ([[[2.0]]], (1, 1, 1, 8, 5))
    """

    def mean(one: Trajectory) -> Trajectory:
        pooled = None if one.clouds is None else np.concatenate(list(one.clouds), axis=2)[None]
        return Trajectory(one.predictions.mean(0)[None], one.risk.mean(0)[None], pooled)

    return runs._replace(trajectories=tuple(mean(one) for one in runs.trajectories))


def _widest(runs: Replicas, depth: int | None) -> Replicas:
    """The configurations of the largest width, at one depth or at all."""
    widest = max(runs.widths)
    grid: Any = zip(runs.widths, runs.depths, runs.trajectories, strict=True)
    kept = [row for row in grid if row[0] == widest and depth in (None, row[1])]
    if not kept:
        raise ValueError(f"depth must be one of {sorted(set(runs.depths))}, got {depth}")
    widths, depths, trajectories = zip(*kept, strict=True)
    return Replicas(widths, depths, trajectories, runs.nested)
