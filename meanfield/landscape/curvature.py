r"""Curvature of a risk: signed extreme eigenvalues and trace of its Hessian.

    H x = lambda x                  trace H = E v^T H v,   v_i = +-1 at random (Hutchinson)

by Hessian products alone, with an optional metric s: then of sqrt(s) H sqrt(s), as for the
stability of a flow. Marks P of 0 and 1 keep to a block, P H P, of one head or one layer, say; all
blocks and the whole, marked by 1 everywhere, are one compiled program. Everything is computed in
the precision of the parameters.

matfree does the work: its Lanczos, its samplers, its integrand of the trace. Its estimators are
not used: they run all probes at once, in the memory of all of them, and another number of probes
draws all of them anew.

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
from jaxtyping import Array, Bool, Float, Int, PyTree
from matfree import stochtrace

from meanfield import checks
from meanfield.landscape.inputs import as_partial
from meanfield.landscape.lanczos import Ritz, flat_product, prepared, random_ritz_pairs
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
    within: PyTree | None = None,
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
        within: Marks of 0 and 1 that broadcast to the parameters: extremes of the block of the
            Hessian on those marked 1; of all of it if None.

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
    roots, steps = prepared(parameters, metric, steps, within)
    risk = as_partial(risk)
    pairs = random_ritz_pairs(key, risk, parameters, roots, steps=steps)
    return _ends(risk, parameters, roots, tolerance, pairs)


def hessian_trace(
    key: Any,
    risk: Risk,
    parameters: PyTree,
    /,
    *,
    probes: int = 32,
    metric: PyTree = 1.0,
    within: PyTree | None = None,
) -> Estimate:
    """The trace of the Hessian, by Hutchinson's estimator.

    Args:
        key: Random key; more probes from one key keep the first ones.
        risk: A function of the parameters, twice differentiable there.
        parameters: Where the Hessian is taken.
        probes: Random vectors of signs, a product each; two at least, for a standard error.
        metric: s > 0, a prefix of the parameters: the trace of s H.
        within: Marks of 0 and 1, as in :func:`hessian_extremes`: the trace of that block.

    Raises:
        ValueError: As :func:`hessian_product`, and for fewer than two probes.

    References:
        Hutchinson 1990. The error is that of the entries beside the diagonal alone.

    >>> found = hessian_trace(jax.random.key(0), lambda x: jnp.sum(x**3), jnp.ones(5), probes=4)
    >>> float(found.mean), float(found.standard_error)
    (30.0, 0.0)
    """
    probes = checks.count("probes", probes, least=2)
    roots, _ = prepared(parameters, metric, 1, within)
    values = _signed_products(key, as_partial(risk), parameters, roots, probes=probes)
    return Estimate(jnp.mean(values), jnp.std(values, ddof=1) / probes**0.5)


@jax.jit
def _ends(risk: Any, parameters: PyTree, roots: PyTree, tolerance: Any, pairs: Ritz) -> Extremes:
    product, _, restore = flat_product(risk, parameters, roots)
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
        jnp.asarray(len(pairs.nodes) + 2),
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
