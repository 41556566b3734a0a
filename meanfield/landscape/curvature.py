r"""Curvature of a risk: signed extreme eigenvalues and trace of its Hessian.

    H x = lambda x                  trace H = E v^T H v,   v_i = +-1 at random (Hutchinson)

by Hessian products alone, with an optional metric s: then of sqrt(s) H sqrt(s), as for the
stability of a flow. Everything is computed in the precision of the parameters.

One trap: an eigenvalue whose ``converged`` is False must not be trusted: the largest is then too
low and the smallest too high, by an amount that nobody knows.

References:
    Parlett, The Symmetric Eigenvalue Problem (1998), chapter 13 (Lanczos).
    Hutchinson 1990, A stochastic estimator of the trace of the influence matrix.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree
from matfree import stochtrace

from meanfield import checks
from meanfield.landscape.inputs import as_partial, check_parameters
from meanfield.landscape.lanczos import ritz_pairs
from meanfield.landscape.products import metric_roots, weighted_map
from meanfield.notation import Risk


class Extremes(NamedTuple):
    """The extreme eigenpairs of a Hessian.

    Attributes:
        largest: The largest eigenvalue.
        smallest: The smallest one, negative where the risk curves down.
        vectors: Eigenvectors of norm one, of the (largest, smallest); signs are arbitrary.
        residuals: |H x - lambda x| of both pairs, computed from two more products: within that
            distance of each value lies an eigenvalue.
        products: Hessian products spent.
        converged: Whether both residuals are within the tolerance.
    """

    largest: Float[Array, ""]
    smallest: Float[Array, ""]
    vectors: tuple[PyTree, PyTree]
    residuals: Float[Array, "2"]
    products: Int[Array, ""]
    converged: Bool[Array, ""]


class Estimate(NamedTuple):
    """A mean over random probes.

    Attributes:
        mean: The estimate.
        standard_error: That of the mean, from the spread of the probes.
    """

    mean: Float[Array, ""]
    standard_error: Float[Array, ""]


def hessian_extremes(
    key: Any,
    risk: Risk,
    parameters: PyTree,
    /,
    *,
    steps: int = 64,
    tolerance: float = 1e-3,
    metric: PyTree = 1.0,
) -> Extremes:
    """Signed largest and smallest eigenvalue of the Hessian, by Lanczos from a random start.

    Memory: ``steps`` vectors. Along a flow, ``flow.sharpness_along`` is cheaper: it starts warm and
    stops early.

    Args:
        key: Random key of the start.
        risk: A function of the parameters, twice differentiable there.
        parameters: Where the Hessian is taken.
        steps: Lanczos steps, a product each; no more are taken than there are parameters, which
            find the whole spectrum.
        tolerance: Both residuals must fall below this times the larger |eigenvalue|.
        metric: s > 0, a prefix of the parameters: eigenvalues of s H, vectors of sqrt(s) H sqrt(s).

    Raises:
        ValueError: As :func:`hessian_product`, and for options out of range.

    References:
        Parlett (1998), chapter 13.

    >>> found = hessian_extremes(
    ...     jax.random.key(0), lambda x: x[0] ** 2 - 3 * x[1] ** 2, jnp.ones(2)
    ... )
    >>> round(float(found.largest), 4), round(float(found.smallest), 4), bool(found.converged)
    (2.0, -6.0, True)
    """
    checks.positive("tolerance", tolerance)
    roots, steps = prepared(parameters, metric, steps)
    return _extremes(key, as_partial(risk), parameters, roots, tolerance, steps=steps)


def hessian_trace(
    key: Any, risk: Risk, parameters: PyTree, /, *, probes: int = 32, metric: PyTree = 1.0
) -> Estimate:
    """The trace of the Hessian, by Hutchinson's estimator.

    Args:
        key: Random key; more probes from one key keep the first ones.
        risk: A function of the parameters, twice differentiable there.
        parameters: Where the Hessian is taken.
        probes: Random vectors of signs, a product each; two at least, for a standard error.
        metric: s > 0, a prefix of the parameters: the trace of s H.

    Raises:
        ValueError: As :func:`hessian_product`, and for fewer than two probes.

    References:
        Hutchinson 1990. The error is that of the entries beside the diagonal alone.

    >>> found = hessian_trace(jax.random.key(0), lambda x: jnp.sum(x**3), jnp.ones(5), probes=4)
    >>> float(found.mean), float(found.standard_error)
    (30.0, 0.0)
    """
    probes = checks.count("probes", probes, least=2)
    roots, _ = prepared(parameters, metric, 1)
    values = _signed_products(key, as_partial(risk), parameters, roots, probes=probes)
    return Estimate(jnp.mean(values), jnp.std(values, ddof=1) / probes**0.5)


def prepared(parameters: PyTree, metric: PyTree, steps: int, /) -> tuple[PyTree, int]:
    """Roots of the metric, and Lanczos steps, no more than there are parameters.

    Args:
        parameters: Where the Hessian is taken.
        metric: s > 0, a prefix of them.
        steps: Steps asked for.

    Raises:
        ValueError: As :func:`hessian_product`, and for steps that are not a positive integer.

    >>> prepared(jnp.ones(3), 4.0, 64)
    (2.0, 3)
    """
    check_parameters("parameters", parameters)
    total = sum(jnp.size(leaf) for leaf in jax.tree.leaves(parameters))
    return metric_roots(metric, parameters), min(checks.count("steps", steps), total)


def flat_product(risk: Risk, parameters: PyTree, roots: PyTree, /) -> tuple[Any, Array, Any]:
    """The Hessian as a map of flat vectors, the parameters as one, and the way back to a tree.

    Args:
        risk: A function of the parameters.
        parameters: Where the Hessian is taken.
        roots: Roots of the metric.

    >>> product, flat, restore = flat_product(lambda x: x["a"] ** 2, {"a": jnp.ones(())}, 1.0)
    >>> restore(product(flat))["a"].tolist()
    2.0
    """
    flat, restore = ravel_pytree(parameters)
    linear = weighted_map(risk, parameters, roots)
    return lambda vector: ravel_pytree(linear(restore(vector)))[0], flat, restore


@partial(jax.jit, static_argnames="steps")
def _extremes(
    key: Any, risk: Any, parameters: PyTree, roots: PyTree, tolerance: Any, *, steps: int
) -> Extremes:
    product, flat, restore = flat_product(risk, parameters, roots)
    start = stochtrace.sampler_sphere(flat, num=1)(key)[0]
    pairs = ritz_pairs(product, start, steps)
    ends = jnp.stack([jnp.sum(pairs.alive) - 1, jnp.zeros((), int)])
    values = pairs.nodes[ends]
    vectors = pairs.rotations[:, ends].T @ pairs.basis
    # Not from the recursion: computed anew, they also see orthogonality that was lost.
    rest = jax.lax.map(product, vectors) - values[:, None] * vectors
    residuals = jnp.linalg.norm(rest, axis=1)
    return Extremes(
        values[0],
        values[1],
        (restore(vectors[0]), restore(vectors[1])),
        residuals,
        jnp.asarray(steps + 2),
        jnp.all(residuals <= tolerance * jnp.max(jnp.abs(values))),
    )


@partial(jax.jit, static_argnames="probes")
def _signed_products(
    key: Any, risk: Any, parameters: PyTree, roots: PyTree, *, probes: int
) -> Float[Array, "probes"]:
    product, flat, _ = flat_product(risk, parameters, roots)
    integrand = stochtrace.monte_carlo_trace()

    def at(number: Array) -> Array:
        sampler = stochtrace.sampler_signs(flat, num=1)
        return integrand(product, sampler(jax.random.fold_in(key, number))[0])

    return jax.lax.map(at, jnp.arange(probes))
