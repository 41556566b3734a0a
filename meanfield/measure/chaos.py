r"""Replicas of one network at many widths and depths, to be compared with their limit.

    sup_{tau <= horizon} |f(x; Theta_{M,L}(tau)) - f(x; rho(tau))| = O(1/L + 1/sqrt(L M))

with 1/sqrt(M) in the place of 1/sqrt(L M) where one path over depth belongs to each head. A run is
any function of particles; :mod:`meanfield.measure.references` says what its trajectories are
compared with, :mod:`meanfield.measure.sup_errors` by how much they differ.

One trap: from a rho_0 with centred outputs the drift vanishes at time 0, and with it the 1/L term;
start from a measure that is not centred, or look at later times.

References:
    Gao et al. 2024, arXiv 2410.23610; Chizat 2025, arXiv 2509.10167 (independence over depth).
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import ArrayLike, PRNGKeyArray, PyTree, Shaped

from meanfield.checks import count
from meanfield.notation import Risk, Scalar
from meanfield.tree import leading_axis


class Trajectory(NamedTuple):
    """What one run saves at its times; of many runs, behind an axis of replicas [s].

    Attributes:
        predictions: At the probes [t ...], of any shape behind the times.
        risk: One number per time [t].
        clouds: Particles of every layer [t l m p], or None.
    """

    predictions: Any
    risk: Any
    clouds: Any = None


class Replicas(NamedTuple):
    """Runs of s replicas at each configuration of width and depth.

    Attributes:
        widths: Width of each configuration [c].
        depths: Depth of each configuration [c].
        trajectories: What the replicas saved, one entry per configuration, leaves [s t ...].
        nested: The heads of a replica are the first heads of the same replica at larger widths.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    trajectories: tuple[Trajectory, ...]
    nested: bool


class SideBySide(NamedTuple):
    """Energy, time scales and observables of s parameters stacked along a leading axis."""

    energy: Risk
    time_scales: Callable[[Any], PyTree]
    observe: Callable[[Any], Any]


def replicas(
    key: PRNGKeyArray,
    draw: Callable[[Any, int, int], PyTree],
    run: Callable[[PyTree], Any],
    /,
    *,
    widths: Sequence[int],
    depths: Sequence[int],
    seeds: int,
    nested: bool = True,
    batched: bool = False,
) -> Replicas:
    """Runs of one network at every width and depth, all replicas of a configuration at once.

    Args:
        key: Random key.
        draw: Particles from (key, width, depth), every leaf with leading axes [l m], i.i.d. over
            [m]. Called once per depth, at the largest width.
        run: From particles to a :class:`Trajectory`. It is compiled once per width and depth, with
            the replicas as a batch; the same function compiles nothing in a second call.
        widths: Increasing widths.
        depths: Depths.
        seeds: Number of replicas.
        nested: Whether each replica has one cloud of heads per depth, of which every width takes
            the first. Otherwise every configuration draws its own.
        batched: Whether `run` takes all replicas at once, as leaves [s l m ...], and returns leaves
            [t s ...], as a flow of :func:`side_by_side` saves them. It is not compiled here.

    Returns:
        The runs, depth by depth and in each by width.

    Raises:
        ValueError: If widths do not increase, a size is no positive integer, there are no depths,
            leaves have other leading axes, or `run` returns no trajectory.

    References:
        Gao et al. 2024, arXiv 2410.23610.

    >>> draw = lambda key, width, depth: jax.random.normal(key, (depth, width))
    >>> run = lambda heads: Trajectory(jnp.mean(heads)[None, None], jnp.mean(heads**2)[None])
    >>> replicas(jax.random.key(0), draw, run, widths=[2, 8], depths=[3], seeds=5).depths
    (3, 3)
    """
    widths, depths = _widths(widths), _depths(depths)
    keys = jax.random.split(key, count("seeds", seeds))
    program = _times_behind(run) if batched else functools.partial(_compiled, Partial(run))
    grid, found = [], []
    for depth in depths:
        # One program draws for all widths of a depth: the first of i.i.d. heads are i.i.d.
        drawn = jax.jit(jax.vmap(lambda one, depth=depth: draw(one, widths[-1], depth)))
        clouds = drawn(keys) if nested else None
        for width in widths:
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, len(grid))
            particles = first_particles(drawn(own) if clouds is None else clouds, width, axis=2)
            _check_depth(particles, depth)
            found.append(_trajectory(jax.tree.map(np.asarray, program(particles)), seeds))
            grid.append((width, depth))
    sizes = list(zip(*grid, strict=True))
    return Replicas(sizes[0], sizes[1], tuple(found), nested)


def first_particles(
    particles: PyTree[Shaped[ArrayLike, "..."]], width: int, /, *, axis: int = 1
) -> PyTree[Shaped[ArrayLike, "..."]]:
    """The first particles of every layer: a narrow network nested in a wide one.

    Args:
        particles: Tree of parameters [l m ...].
        width: How many to keep.
        axis: Axis of the width; 2 behind an axis of replicas.

    Raises:
        ValueError: If there are fewer, or the leaves have different widths.

    >>> first_particles(jnp.arange(6).reshape(2, 3), 2).tolist()
    [[0, 1], [3, 4]]
    """
    wide = leading_axis(particles, axis)
    if not 1 <= width <= wide:
        raise ValueError(
            f"widths are not nested: {width} particles cannot be the first of {wide}; draw the "
            "wide cloud at the largest width"
        )
    kept = (slice(None),) * axis + (slice(width),)
    return jax.tree.map(lambda leaf: leaf[kept], particles)


def side_by_side(
    energy: Risk, time_scales: Callable[[Any], PyTree], observe: Callable[[Any], Any], /
) -> SideBySide:
    """Replicas of a gradient flow as one flow, that of the sum of their energies.

    The gradient of sum_s Q(theta_s) by theta_s is that of Q, so replicas do not feel each other;
    the steps of the solver are those of the whole.

    Args:
        energy: Q, from theta to a number.
        time_scales: From theta, one factor of the gradient per branch.
        observe: From theta to what is saved, such as a :class:`Trajectory`.

    Returns:
        The same of theta [s ...]. Keep the object: a flow compiles anew for other functions.

    >>> both = side_by_side(lambda theta: theta**2, lambda theta: 3.0, lambda theta: theta)
    >>> float(both.energy(jnp.array([1.0, 2.0])))
    5.0
    """

    def total(thetas: PyTree) -> Scalar:
        return jnp.sum(jax.vmap(energy)(thetas))

    def scales(thetas: PyTree) -> PyTree:
        # They depend on shapes alone, and each replica has those of the first.
        return time_scales(jax.tree.map(lambda leaf: leaf[0], thetas))

    return SideBySide(total, scales, jax.vmap(observe))


def _times_behind(run: Callable[[PyTree], Any]) -> Callable[[PyTree], Any]:
    """The run with the replicas first and the times behind them."""
    return lambda particles: jax.tree.map(lambda leaf: np.swapaxes(leaf, 0, 1), run(particles))


@jax.jit
def _compiled(run: Callable[[PyTree], Any], particles: PyTree) -> Any:
    return jax.vmap(run)(particles)


def _depths(depths: Sequence[int]) -> tuple[int, ...]:
    if not len(depths):
        raise ValueError("depths must hold at least one depth, got none")
    return tuple(count("depth", depth) for depth in depths)


def _widths(widths: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(count("width", width) for width in widths)
    if not sizes or any(wide <= narrow for narrow, wide in itertools.pairwise(sizes)):
        raise ValueError(f"widths must increase, got {list(sizes)}; sort them and drop repetitions")
    return sizes


def _check_depth(particles: PyTree, depth: int) -> None:
    if (drawn := leading_axis(particles, 1)) != depth:
        raise ValueError(
            f"draw must return leaves with leading axes [l m] = [{depth} ...], got depth {drawn}; "
            "hold what is not drawn per head inside run"
        )


def _trajectory(seen: Any, seeds: int) -> Trajectory:
    """The trajectory, if replicas and times come first in each of its entries."""
    if not isinstance(seen, Trajectory):
        raise ValueError(f"run must return a Trajectory, got {type(seen).__name__}")
    rows = np.shape(seen.risk)
    fits = len(rows) == 2 and rows[0] == seeds and np.shape(seen.predictions)[:2] == rows
    if not fits or (seen.clouds is not None and np.shape(seen.clouds)[:2] != rows):
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(seen)]
        raise ValueError(
            f"a trajectory of one run must be predictions [t ...], risk [t] and clouds [t l m p] "
            f"or None, got shapes {shapes} for {seeds} replicas"
        )
    if seen.clouds is not None and (np.ndim(seen.clouds) != 5 or 0 in np.shape(seen.clouds)):
        raise ValueError(
            f"clouds must be [t l m p] with particles in them, got {np.shape(seen.clouds)[1:]}; "
            "pass clouds(particles) of one block, or None"
        )
    return seen
