r"""The law of the heads along training, as their number grows: two measures of one limit.

*Law.* Two networks of widths m and M from different seeds have independent heads. If those are
samples of one law, the sliced W_2 distance of the two clouds falls about like

    (1/m + 1/M)^{1/2} = (effective width)^{-1/2},       effective width = m M/(m + M).

*Paths.* Widths of one seed are nested: the first m of M heads start at the same points. In the
limit each head moves by the law alone, so how far the paths part,

    gap(m) = rms_{l, j <= m} |theta_j^m - theta_j^M| / rms_{l, j <= M} |theta_j^M - theta_j(0)|,

falls like (1/m - 1/M)^{1/2}: what the m heads miss of the law of all M.

One trap: the law's distance is mostly sampling, present before training; only its change and the
gap of paths speak of the dynamics.

References:
    Gao et al. 2024, arXiv 2410.23610 (finite to infinite width, 1/sqrt(M)).
    Sznitman 1991, *Topics in propagation of chaos* (coupled paths).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

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


def nested_width(heads: np.ndarray) -> np.ndarray:
    """The width m M/(M - m) of all but the widest: what m of M heads miss of their law."""
    return heads[:-1] * heads[-1] / (heads[-1] - heads[:-1])


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


def path_gaps(clouds: Clouds, width: int, /, *, times: int) -> np.ndarray:
    """For each seed and time, how far paths part from those of the widest network of the seed.

    Relative to the way that the widest network's heads have come; NaN at the start and where a
    run stopped early.
    """
    widest = clouds[max(clouds)]
    result = np.full((len(widest), times), np.nan)
    for seed, (cloud, reference) in enumerate(zip(clouds[width], widest, strict=True)):
        reached = min(len(cloud), len(reference))
        apart = np.sum((cloud[:reached] - reference[:reached, :, :width]) ** 2, axis=-1)
        way = np.sum((reference[1:reached] - reference[:1]) ** 2, axis=-1)
        result[seed, 1:reached] = np.sqrt(
            apart[1:].mean(axis=(1, 2)) / np.maximum(way.mean(axis=(1, 2)), 1e-30)
        )
    return result


def strengths(heads: Any, /, *, layer: int) -> jax.Array:
    """Two numbers of each head of a layer [t m 2] that do not depend on the basis of its keys.

    |W_Q W_K^T| says how sharply it can attend, |W_V W_O| how much it writes.
    """
    query, key, value, output = (leaf[:, layer] for leaf in heads)
    attends = jnp.linalg.norm(jnp.einsum("tmdk,tmek->tmde", query, key), axis=(-2, -1))
    writes = jnp.linalg.norm(jnp.einsum("tmdk,tmke->tmde", value, output), axis=(-2, -1))
    return jnp.stack([attends, writes], axis=-1)
