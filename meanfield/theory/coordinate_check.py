r"""Coordinate check: does training move everything alike at every width and depth?

A scaling law is right if k steps of training change by O(1), at any width M and depth L,

    features         the activations, by all of the training
    particles        each particle, by the risk:          | int s grad R |
    decay            each particle, by the decay alone:   | int s lambda grad D | / |theta|

For every one of them the check fits

    log size = a + slope_M log M + slope_L log L

and passes where the interval of each slope lies within 0 +- 0.1.

One trap: activations do not show a wrong weight decay, whose drift is hidden behind that of the
risk until lambda s is large. Here the decay is measured by itself.

References:
    Yang and Hu 2021, arXiv 2011.14522; Yang et al. 2022, arXiv 2203.03466 (the check by plots).
    Dey et al. 2025, arXiv 2505.01618 (over depth; weight decay).
    Miller 1974, The jackknife: a review (intervals).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree
from scipy import stats

from meanfield.checks import count, positive
from meanfield.notation import Scalar
from meanfield.tree import leading_axis, squared_norm

Velocity = Callable[[Any], PyTree]
"""From the particles of all blocks to their velocities: a tree of the same structure."""


class Slope(NamedTuple):
    """One slope of log size, against log width or log depth, with its interval.

    Attributes:
        slope: The slope of the root mean square over seeds.
        low: Lower end of the interval.
        high: Upper end.
    """

    slope: float
    low: float
    high: float


class CoordinateCheck(NamedTuple):
    """The verdict of a coordinate check.

    Attributes:
        widths: The widths.
        depths: The depths.
        sizes: Of every term, the root mean square over seeds at each width and depth.
        slopes: Of every term, its slopes by axis (``"width"``, ``"depth"``).
        tolerance: The band around 0 in which a slope passes.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    sizes: dict[str, Float[np.ndarray, "m l"]]
    slopes: dict[str, dict[str, Slope]]
    tolerance: float

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence per slope whose interval is not within the band."""
        return tuple(
            self._sentence(term, axis, found)
            for term, axes in self.slopes.items()
            for axis, found in axes.items()
            if not (-self.tolerance <= found.low and found.high <= self.tolerance)
        )

    @property
    def passed(self) -> bool:
        """Whether every slope's interval lies within the band."""
        return not self.failures

    def _sentence(self, term: str, axis: str, found: Slope) -> str:
        interval = f"slope {found.slope:.3f} in [{found.low:.3f}, {found.high:.3f}]"
        if found.low > self.tolerance or found.high < -self.tolerance:
            verb = "grows" if found.slope > 0 else "shrinks"
            return f"{term} {verb} with {axis}: {interval}, expected 0 +- {self.tolerance}"
        return (
            f"{term} is undecided in {axis}: {interval} is not within 0 +- {self.tolerance}; "
            "add seeds or widen the range"
        )


def coordinate_check(
    sizes: Callable[[int, int], Mapping[str, Any]],
    widths: Sequence[int],
    depths: Sequence[int],
    /,
    *,
    tolerance: float = 0.1,
    confidence: float = 0.95,
) -> CoordinateCheck:
    """A coordinate check over all pairs of width and depth, with a verdict in numbers.

    Args:
        sizes: From (width, depth), the size of every term for each of a number of independent seeds
            [s]: :func:`coordinates` under ``vmap``, or anything else that should stay O(1).
        widths: One width, which leaves this axis out, or at least three.
        depths: One depth, or at least three.
        tolerance: The band around 0 in which slopes pass.
        confidence: Level of the intervals, which are those of the jackknife over seeds.

    Returns:
        Sizes, slopes and what failed.

    Raises:
        ValueError: If there are too few sizes of network or seeds, terms differ, or a size is not a
            positive finite number.

    References:
        Yang et al. 2022, arXiv 2203.03466; Dey et al. 2025, arXiv 2505.01618.

    >>> check = coordinate_check(lambda m, l: {"drift": np.array([1.0, 1.1]) / m}, [2, 4, 8], [2])
    >>> check.failures
    ('drift shrinks with width: slope -1.000 in [-1.000, -1.000], expected 0 +- 0.1',)
    """
    positive("tolerance", tolerance)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    axes = {"width": _axis("widths", widths), "depth": _axis("depths", depths)}
    fitted = [name for name, values in axes.items() if len(values) > 1]
    if not fitted:
        raise ValueError("widths or depths must hold at least three sizes, got one of each")
    grid = np.meshgrid(*axes.values(), indexing="ij")
    measured = _measured(sizes, np.column_stack([each.ravel() for each in grid]))
    logs = [np.log(each.ravel()) for name, each in zip(axes, grid, strict=True) if name in fitted]
    # The rows of the pseudo-inverse of [1, log M, log L] that give slopes.
    rows = np.linalg.pinv(np.column_stack([np.ones(grid[0].size), *logs]))[1:]
    typical, slopes = {}, {}
    for term, values in measured.items():
        typical[term] = np.sqrt(np.mean(values**2, axis=1)).reshape(grid[0].shape)
        slopes[term] = dict(zip(fitted, _slopes(rows, values, confidence), strict=True))
    return CoordinateCheck(axes["width"], axes["depth"], typical, slopes, tolerance)


def coordinates(
    features: Callable[[Any], PyTree],
    risk_velocity: Velocity,
    decay_velocity: Velocity | None,
    particles: tuple[Any, ...],
    /,
    *,
    step: float | Scalar,
    steps: int = 1,
) -> dict[str, Scalar]:
    """How far Euler's steps of the flow move features and particles, the decay apart.

    Args:
        features: From the particles, the activations to watch: any tree of arrays.
        risk_velocity: From the particles, -s grad R: the velocity without decay.
        decay_velocity: From the particles, what the decay adds to it; None for no decay.
        particles: A tuple, one tree per block, leading axes [l, m].
        step: Length of a step in training time.
        steps: Number of steps k.

    Returns:
        Root mean squares: of the features' change; for each block of a particle's displacement by
        the risk, and of its displacement by the decay relative to its own length.

    Raises:
        ValueError: If ``steps`` is not a positive integer.

    >>> halve = lambda blocks: jax.tree.map(lambda leaf: -leaf / 2, blocks)
    >>> sizes = coordinates(lambda blocks: blocks, halve, halve, (jnp.ones((1, 2, 4)),), step=0.1)
    >>> {term: round(float(size), 3) for term, size in sizes.items()}
    {'features': 0.1, 'particles[0]': 0.1, 'decay[0]': 0.05}
    """
    count("steps", steps)
    zeros = jax.tree.map(jnp.zeros_like, particles)
    velocities = risk_velocity, decay_velocity or (lambda particles: zeros)

    def euler(_, carry):
        at, sums = carry
        moves = [jax.tree.map(lambda v: step * v, velocity(at)) for velocity in velocities]
        at = jax.tree.map(lambda x, *parts: x + parts[0] + parts[1], at, *moves)
        return at, jax.tree.map(jnp.add, sums, moves)

    end, (by_risk, by_decay) = jax.lax.fori_loop(0, steps, euler, (particles, [zeros, zeros]))
    change = jax.tree.map(jnp.subtract, features(end), features(particles))
    entries = sum(leaf.size for leaf in jax.tree.leaves(change))
    found = {"features": jnp.sqrt(squared_norm(change) / entries)}
    for index, (block, risk, decay) in enumerate(zip(particles, by_risk, by_decay, strict=True)):
        number = leading_axis(block) * leading_axis(block, 1)
        found[f"particles[{index}]"] = jnp.sqrt(squared_norm(risk) / number)
        if decay_velocity:
            found[f"decay[{index}]"] = jnp.sqrt(squared_norm(decay) / squared_norm(block))
    return found


def _axis(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    values = tuple(count(name, value) for value in sizes)
    if len(set(values)) != len(values) or len(values) in {0, 2}:
        raise ValueError(f"{name} must be one size, or at least three different ones, got {values}")
    return values


def _measured(
    sizes: Callable[[int, int], Mapping[str, Any]], pairs: Float[np.ndarray, "p 2"] | Any
) -> dict[str, Float[np.ndarray, "p s"]]:
    found = [dict(sizes(*pair)) for pair in pairs.tolist()]
    terms = list(found[0])
    shapes = {np.shape(value) for each in found for value in each.values()}
    if any(list(each) != terms for each in found) or len(shapes) != 1:
        raise ValueError(
            "every width and depth must give the same terms and number of seeds [s], got terms "
            f"{sorted({term for each in found for term in each})} of shapes {sorted(shapes)}"
        )
    (shape,) = shapes
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(f"a term must hold one size for each of >= 2 seeds, got shape {shape}")
    stacked = {term: np.array([np.asarray(each[term], float) for each in found]) for term in terms}
    for term, values in stacked.items():
        bad = ~np.isfinite(values) | (values <= 0)
        if bad.any():
            raise ValueError(
                f"sizes must be positive and finite, got {term} = {values[bad][0]} at width and "
                f"depth {pairs[bad.any(axis=1)][0]}; shorten the step, leave out what stands still"
            )
    return stacked


def _slopes(
    rows: Float[np.ndarray, "x p"], sizes: Float[np.ndarray, "p s"], confidence: float
) -> list[Slope]:
    squares, seeds = sizes**2, sizes.shape[1]
    total = np.sum(squares, axis=1)
    slopes = rows @ np.log(total / seeds) / 2
    left_out = rows @ np.log((total[:, None] - squares) / (seeds - 1)) / 2
    error = np.sqrt((seeds - 1) * np.var(left_out, axis=1))
    half = stats.t.ppf(0.5 + confidence / 2, seeds - 1) * error
    ends = np.stack([slopes, slopes - half, slopes + half], axis=1)
    return [Slope(*row) for row in ends.tolist()]
