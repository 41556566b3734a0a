r"""A measure at every depth, from particles at some.

    rho_t = (1/M) sum_j delta_{theta_j(t)},    theta_j(t_i) given at depths t_1 < t_2 < ...

and elsewhere

    "constant"   theta_j(t) = theta_j(t_i) for t_i <= t < t_{i+1} (before t_1, that of t_1): layers
    "linear"     straight lines between the depths (constant outside): for paths, where j is one
                 path at every depth.

One trap: for particles independent over depth the straight lines are another measure, whose
variance shrinks between the depths; use them for coupling "path" alone.

References:
    Ding et al., eq. (7) (one measure per depth); Chizat 2025, arXiv 2509.10167 (couplings).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from meanfield.checks import choice

INTERPOLATIONS = ("constant", "linear")


def layer_at(
    particles: PyTree, depths: Float[Array, "l"], interpolation: str, /
) -> Callable[[Any], PyTree]:
    """The function t -> particles [m, ...] at depth t.

    Args:
        particles: A tree with leading axes [l, m].
        depths: Their increasing depths.
        interpolation: ``"constant"`` or ``"linear"``.

    Raises:
        ValueError: If the interpolation is unknown.

    >>> layer_at(jnp.array([[0.0], [4.0]]), jnp.array([0.0, 0.5]), "linear")(0.25).tolist()
    [2.0]
    """
    choice("interpolation", interpolation, INTERPOLATIONS)
    end = len(depths) - 1

    def constant(t: Any) -> PyTree:
        last = jnp.clip(jnp.searchsorted(depths, t, side="right") - 1, 0, end)
        return jax.tree.map(lambda leaf: leaf[last], particles)

    def linear(t: Any) -> PyTree:
        last = jnp.clip(jnp.searchsorted(depths, t, side="right") - 1, 0, end)
        following = jnp.minimum(last + 1, end)
        gap = depths[following] - depths[last]
        share = jnp.clip((t - depths[last]) / jnp.where(gap > 0, gap, 1), 0, 1)
        return jax.tree.map(
            lambda leaf: leaf[last] + share * (leaf[following] - leaf[last]), particles
        )

    return {"constant": constant, "linear": linear}[interpolation]
