"""Densities that gradient flows carry in closed form, and energies of weighted particles."""

import jax.numpy as jnp
import numpy as np

from meanfield import measure


def gaussian(mean, deviation):
    """Density of independent coordinates; constants are left to the normalisation."""
    return lambda x: np.exp(-np.sum((np.asarray(x) - mean) ** 2, axis=-1) / (2 * deviation**2))


def bump(centre, radius):
    """Smooth to first order, and 0 outside a box around the centre."""
    return lambda x: np.prod(
        np.maximum(1 - ((np.asarray(x) - centre) / radius) ** 2, 0.0) ** 2, axis=-1
    )


def stacked(*pdfs):
    """One density per depth."""
    return lambda x: np.stack([pdf(x) for pdf in pdfs])


def box(dimension, half, cells):
    return measure.uniform_grid([-half] * dimension, [half] * dimension, [cells] * dimension)


def decay_energy(weights, points):
    """(1/2) int |theta|^2 drho, mean over depths: every point moves by -theta."""
    return jnp.mean(jnp.sum(weights * jnp.sum(points**2, axis=-1), axis=1)) / 2


def pair_energy(weights, points):
    """Decay of rate 1/2, and attraction of all pairs of rate 1."""
    norms = jnp.sum(weights * jnp.sum(points**2, axis=-1), axis=1)
    means = jnp.sum(weights[..., None] * points, axis=1)
    pairs = norms * jnp.sum(weights, axis=1) - jnp.sum(means**2, axis=-1)
    return jnp.mean(norms / 4 + pairs / 2)


def mean_energy(weights, points):
    """(1/2) |mean over depths and particles - 1|^2: all depths drift alike, coupled by the mean."""
    means = jnp.mean(jnp.sum(weights[..., None] * points, axis=1), axis=0)
    return jnp.sum((means - 1.0) ** 2) / 2


def l1_error(found, expected, grid):
    """Greatest over depths of int |found - expected|."""
    gaps = np.abs(np.asarray(found) - np.asarray(expected))
    return float(gaps.reshape(len(gaps), -1).sum(axis=1).max() * float(grid.volume))
