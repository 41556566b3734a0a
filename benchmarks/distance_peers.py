"""The same distance of two clouds by this library, by POT and by ott-jax.

    exact W_2,    sliced SW_2 over one set of directions,    root of the Sinkhorn divergence

Every contender is a function of nothing that returns a number, as its user would call it, jitted
where its library leaves that to the user, with the conversions that its library asks for.

One trap: POT stops at the Euclidean norm of the marginal error, ott-jax and this library at the sum
of its absolute values; POT is asked for tolerance/sqrt(n), which keeps the sum below tolerance.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import ot
from ott.geometry import geometry
from ott.tools import sinkhorn_divergence, sliced, unreg

from meanfield import measure

Contender = Callable[[], float]
OURS = "meanfield"


class Clouds(NamedTuple):
    """Two clouds, on the host and on the device, and what a distance of them needs."""

    x: np.ndarray
    y: np.ndarray
    on_device: tuple[jax.Array, jax.Array]
    key: jax.Array
    directions: np.ndarray
    epsilon: float
    tolerance: float


def clouds(seed: int, size: int, dim: int, *, projections: int, tolerance: float) -> Clouds:
    """Two normal clouds of one size, the second shifted and stretched."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(size, dim)), 0.3 + 1.2 * rng.normal(size=(size, dim))
    key = jax.random.key(seed)
    # Those that `sliced_wasserstein` draws from this key: all libraries get one set.
    normals = np.asarray(jax.random.normal(key, (dim, projections)))
    directions = normals / np.linalg.norm(normals, axis=0)
    epsilon = 0.05 * float(x.var(axis=0).sum() + y.var(axis=0).sum())
    on_device = jnp.asarray(x), jnp.asarray(y)
    return Clouds(x, y, on_device, key, directions, epsilon, tolerance)


def exact(pair: Clouds) -> dict[str, Contender]:
    """Exact W_2: assignment from potentials, network simplex, Hungarian algorithm."""
    hungarian = jax.jit(unreg.wassdis_p)
    return {
        OURS: lambda: measure.wasserstein(pair.x, pair.y),
        "POT": lambda: _pot_exact(pair),
        "ott-jax": lambda: float(hungarian(*pair.on_device)),
    }


def slices(pair: Clouds) -> dict[str, Contender]:
    """Sliced SW_2 along the same directions; only this library draws them anew."""
    count = pair.directions.shape[1]
    project = jnp.asarray(pair.directions)
    squared = jax.jit(
        lambda x, y: sliced.sliced_wasserstein(x, y, proj_fn=lambda points, *_: points @ project)[0]
    )
    return {
        OURS: lambda: float(
            measure.sliced_wasserstein(pair.key, pair.x, pair.y, projections=count)
        ),
        "POT": lambda: _pot_slices(pair),
        "ott-jax": lambda: float(squared(*pair.on_device)) ** 0.5,
    }


def sinkhorn(pair: Clouds) -> dict[str, Contender]:
    """Root of the divergence: kernels with potentials, kernels, and ott-jax in both its modes."""
    solve = {"threshold": pair.tolerance}
    logarithms = jax.jit(
        lambda x, y: sinkhorn_divergence.sinkdiv(x, y, epsilon=pair.epsilon, solve_kwargs=solve)[0]
    )
    kernels = jax.jit(
        lambda x, y: sinkhorn_divergence.sinkhorn_divergence(
            geometry.Geometry, _costs(x, y), _costs(x, x), _costs(y, y),
            epsilon=pair.epsilon, solve_kwargs={**solve, "lse_mode": False},
        )[0]
    )  # fmt: skip
    return {
        # Without epsilon, which is the one of `pair` by default: the benchmark checks that.
        OURS: lambda: float(measure.sinkhorn_divergence(pair.x, pair.y, tolerance=pair.tolerance)),
        "POT": lambda: _pot_divergence(pair) ** 0.5,
        "ott-jax": lambda: float(logarithms(*pair.on_device)) ** 0.5,
        "ott-jax, kernels": lambda: float(kernels(*pair.on_device)) ** 0.5,
    }


def _pot_exact(pair: Clouds) -> float:
    cost: Any = ot.emd2([], [], ot.dist(pair.x, pair.y), numItermax=10**8)
    return float(cost) ** 0.5


def _pot_slices(pair: Clouds) -> float:
    root: Any = ot.sliced_wasserstein_distance(pair.x, pair.y, projections=pair.directions)
    return float(root)


def _costs(x: jax.Array, y: jax.Array) -> jax.Array:
    squares = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None, :]
    return jnp.maximum(squares - 2.0 * x @ y.T, 0.0)


def _pot_divergence(pair: Clouds) -> float:
    """Debiased from POT's scalings: its own loss leaves the entropy out."""
    term = functools.partial(_pot_transport, epsilon=pair.epsilon, tolerance=pair.tolerance)
    return term(pair.x, pair.y) - (term(pair.x, pair.x) + term(pair.y, pair.y)) / 2


def _pot_transport(x: np.ndarray, y: np.ndarray, *, epsilon: float, tolerance: float) -> float:
    a, b = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
    stop = tolerance / np.sqrt(len(y))
    _, log = ot.sinkhorn(
        a, b, ot.dist(x, y), epsilon, stopThr=stop, numItermax=10_000, log=True, warn=False
    )
    return epsilon * float(a @ np.log(log["u"] / a) + b @ np.log(log["v"] / b))


KINDS: dict[str, Callable[[Clouds], dict[str, Contender]]] = {
    "exact": exact,
    "sliced": slices,
    "sinkhorn": sinkhorn,
}
