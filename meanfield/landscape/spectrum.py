r"""The spectral density of a Hessian, by stochastic Lanczos quadrature.

    mu = (1/n) sum_i delta(lambda_i)  ~  mean over probes of sum_j w_j delta(node_j),
    E int f dmu_probe = int f dmu     for polynomials f of degree up to 2 k - 1

with probes that are uniform on a sphere, so that the weights of one probe are the squared
coordinates of a random unit vector in the eigenbasis, and k Lanczos steps each. Densities have mass
one, whatever the number n of parameters; n times the first moment is the trace.

One trap: the peaks of the broadened density are of the width asked for and not of the spectrum: a
bulk narrower than that is drawn as wide.

References:
    Ubaru, Chen and Saad 2017, Fast estimation of tr(f(A)) via stochastic Lanczos quadrature.
    Ghorbani, Krishnan and Xiao 2019, arXiv 1901.10159 (Hessians of networks; broadening).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from meanfield import checks
from meanfield.landscape.inputs import as_partial
from meanfield.landscape.lanczos import prepared, random_ritz_pairs
from meanfield.notation import Risk


class SpectralDensity(NamedTuple):
    """A spectral measure of mass one, as the quadratures of several probes.

    Attributes:
        nodes: Ritz values of every probe.
        weights: The mass at each, >= 0, of sum one for every probe.
    """

    nodes: Float[Array, "probes k"]
    weights: Float[Array, "probes k"]


class Moments(NamedTuple):
    """Moments of a spectral density, the first one first.

    Attributes:
        mean: The mean of lambda^p over the eigenvalues, for p = 1, 2, ...
        standard_error: Of each, from the spread of the probes.
    """

    mean: Float[np.ndarray, "p"]
    standard_error: Float[np.ndarray, "p"]


class Broadened(NamedTuple):
    """A spectral density as a function: each node a normal density of one width.

    Attributes:
        grid: Eigenvalues.
        density: The density there, of integral one over the line.
        standard_error: Of the density, from the spread of the probes.
        width: The standard deviation of the normal density.
    """

    grid: Float[np.ndarray, "n"]
    density: Float[np.ndarray, "n"]
    standard_error: Float[np.ndarray, "n"]
    width: float


def spectral_density(
    key: Any,
    risk: Risk,
    parameters: PyTree,
    /,
    *,
    probes: int = 10,
    steps: int = 64,
    metric: PyTree = 1.0,
    within: PyTree | None = None,
) -> SpectralDensity:
    """The spectral density of the Hessian of a risk.

    Costs ``probes`` times ``steps`` Hessian products, and the memory of ``steps`` vectors.

    Args:
        key: Random key; more probes from one key keep the first ones.
        risk: A function of the parameters, twice differentiable there.
        parameters: Where the Hessian is taken.
        probes: Random starts, two at least, for standard errors.
        steps: Lanczos steps of each; no more are taken than there are parameters.
        metric: s > 0, a prefix of the parameters: the density of s H.
        within: Marks of 0 and 1, as in :func:`hessian_extremes`: the density of that block.

    Raises:
        ValueError: As :func:`hessian_product`, for options out of range, and where the Hessian is
            not finite.

    References:
        Ubaru, Chen and Saad 2017, algorithm 1.

    >>> found = spectral_density(jax.random.key(0), lambda x: jnp.sum(x**2), jnp.ones(3), probes=2)
    >>> jnp.sum(found.nodes * found.weights, axis=1).round(4).tolist()
    [2.0, 2.0]
    """
    probes = checks.count("probes", probes, least=2)
    roots, steps = prepared(parameters, metric, steps, within)
    risk = as_partial(risk)
    nodes, weights = [], []
    for number in range(probes):
        start = jax.random.fold_in(key, number)
        pairs = random_ritz_pairs(start, risk, parameters, roots, steps=steps)
        values, rotations, alive = map(np.asarray, (pairs.nodes, pairs.rotations, pairs.alive))
        # What lies beyond an exhausted space has no mass; it must not widen the range of nodes.
        nodes.append(np.where(alive, values, values[0]))
        weights.append(np.where(alive, rotations[0] ** 2, 0))
    found = SpectralDensity(jnp.asarray(np.stack(nodes)), jnp.asarray(np.stack(weights)))
    sums = np.sum(np.asarray(found.weights, float), axis=1)
    slack = 100 * steps * float(jnp.finfo(found.weights.dtype).eps)
    # Squares of a row of a rotation: only a Hessian that is not finite can break their sum.
    if not (np.isfinite(found.nodes).all() and np.all(np.abs(sums - 1) <= slack)):
        raise ValueError(
            f"the Hessian must be finite at the parameters, got weights that sum to {sums.tolist()}"
            "; look for NaN in the risk and its gradient there"
        )
    return found


def spectral_moments(density: SpectralDensity, /, *, number: int = 4) -> Moments:
    """The first moments of a spectral density, with standard errors.

    Args:
        density: From :func:`spectral_density`; moments up to 2 steps - 1 have no bias.
        number: How many moments.

    Raises:
        ValueError: If the number is not a positive integer.

    >>> density = SpectralDensity(jnp.array([[1.0, 3.0]] * 2), jnp.full((2, 2), 0.5))
    >>> spectral_moments(density, number=2).mean.tolist()
    [2.0, 5.0]
    """
    powers = np.arange(1, checks.count("number", number) + 1)
    nodes, weights = (np.asarray(array, np.float64) for array in density)
    values = np.sum(weights[:, :, None] * nodes[:, :, None] ** powers[None, None, :], axis=1)
    return Moments(*_mean_and_error(values))


def broadened_density(
    density: SpectralDensity,
    /,
    *,
    grid: Any = None,
    width: float | None = None,
) -> Broadened:
    """A spectral density as a curve: every node becomes a normal density.

    Args:
        density: From :func:`spectral_density`.
        grid: Eigenvalues at which it is wanted; if None, 400 that hold every node and four widths
            on either side.
        width: Standard deviation of the normal density; a hundredth of the range of the nodes if
            None.

    Raises:
        ValueError: If the width is not positive, or the grid is empty or not finite.

    References:
        Ghorbani, Krishnan and Xiao 2019, arXiv 1901.10159, equation 4.

    >>> density = SpectralDensity(jnp.zeros((2, 1)), jnp.ones((2, 1)))
    >>> broadened_density(density, grid=[0.0], width=1.0).density.round(4).tolist()
    [0.3989]
    """
    nodes, weights = (np.asarray(array, np.float64) for array in density)
    low, high = float(nodes.min()), float(nodes.max())
    if width is None:
        # A spectrum of one point has no range: its own size stands in, or 1 for the zero Hessian.
        width = (high - low or abs(high) or 1.0) / 100
    checks.positive("width", width)
    if grid is None:
        grid = np.linspace(low - 4 * width, high + 4 * width, 400)
    grid = np.asarray(grid, np.float64)
    if grid.ndim != 1 or len(grid) == 0:
        raise ValueError(f"grid must be a non-empty list of numbers, got shape {grid.shape}")
    checks.finite("grid", grid)
    curves = np.stack([
        np.exp(-(((grid[:, None] - row[None, :]) / width) ** 2) / 2) @ mass
        for row, mass in zip(nodes, weights, strict=True)
    ])  # fmt: skip
    mean, error = _mean_and_error(curves / (width * np.sqrt(2 * np.pi)))
    return Broadened(grid, mean, error, float(width))


def _mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the probes, along the first axis, and its standard error."""
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
