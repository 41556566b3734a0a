r"""The law of the heads along training, as their number grows.

If the heads of two independent networks of widths m and M are samples of one limit law, then

    distance = O((1/m + 1/M)^{1/2}),      1/m + 1/M = 1/effective width,

so the sliced W_2 distance to the widest networks of *other* seeds falls at slope -1/2 against the
effective width m M/(m + M), and the widest width itself takes part in the fit.

One trap: widths of one seed are nested (the first m of M heads): no independent samples.

References:
    Gao et al. 2024, arXiv 2410.23610, Theorem 3.1 (finite to infinite width).
    Nadjahi et al. 2020, arXiv 2003.05783 (sample complexity of sliced distances).
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from meanfield import measure

Clouds = Mapping[int, Sequence[np.ndarray]]
"""For each width, one array [t l m p] for each seed: the heads of each layer over time."""

DIRECTIONS = 0
"""Seed of the projections: one set for all distances, so that they compare."""


def effective_width(heads: np.ndarray) -> np.ndarray:
    """The width m M/(m + M): the sample size that two independent clouds amount to."""
    return heads * heads[-1] / (heads + heads[-1])


@functools.partial(jax.jit, static_argnames="projections")
def _distance(xs: jax.Array, ys: jax.Array, *, projections: int) -> jax.Array:
    """Sliced W_2 for each time, root mean square over layers."""
    key = jax.random.key(DIRECTIONS)
    sliced = functools.partial(measure.sliced_wasserstein, key, projections=projections)
    return jnp.sqrt(jnp.mean(jax.vmap(jax.vmap(sliced))(xs, ys) ** 2, axis=1))


def distances(clouds: Clouds, width: int, /, *, times: int, projections: int) -> np.ndarray:
    """For each seed and time, the mean distance to the widest networks of the other seeds.

    A run that stopped early leaves NaN from there on.
    """
    widest = clouds[max(clouds)]
    result = np.full((len(widest), times), np.nan)
    for seed, cloud in enumerate(clouds[width]):
        others = [other for index, other in enumerate(widest) if index != seed]
        reached = min(len(one) for one in (cloud, *others))
        to_others = [
            _distance(cloud[:reached], other[:reached], projections=projections) for other in others
        ]
        result[seed, :reached] = np.mean(to_others, axis=0)
    return result


def projected(clouds: Clouds, *, layer: int) -> dict[str, np.ndarray]:
    """Heads of one layer [t, s m, 2], fewest and most, where the widest network's vary most.

    All seeds are put together: their law is the same, and few heads alone show little.
    """
    last = clouds[max(clouds)][0][-1, layer]
    center = last.mean(axis=0)
    plane = np.linalg.svd(last - center, full_matrices=False)[2][:2].T
    result = {}
    for width in (min(clouds), max(clouds)):
        reached = min(len(cloud) for cloud in clouds[width])
        together = np.concatenate([cloud[:reached, layer] for cloud in clouds[width]], axis=1)
        result[str(width)] = (together - center) @ plane
    return result
