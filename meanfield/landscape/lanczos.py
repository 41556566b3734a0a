r"""Lanczos with full re-orthogonalisation, through matfree, on trees and past exhausted spaces.

    A Q_k = Q_k T_k + beta_k q_{k+1} e_k^T,      T_k = S diag(nodes) S^T,      weights = S[0]^2

Nodes and weights are the Gauss quadrature of v^T f(A) v / v^T v, exact for polynomials of degree up
to 2 k - 1.

One trap: a start that lies in a small invariant space (a Hessian of low rank, a multiple of the
identity) ends the recursion early with 0/0; what follows is cut off here, not passed on as NaN.

References:
    Golub and Meurant 2010, Matrices, Moments and Quadrature with Applications, chapter 6.
    Krämer et al. 2024, arXiv 2405.17277 (matfree).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree
from matfree import decomp, stochtrace

from meanfield import checks
from meanfield.landscape.inputs import check_parameters, full_marks
from meanfield.landscape.products import metric_roots, weighted_map
from meanfield.notation import Risk


class Ritz(NamedTuple):
    """Eigenpairs of T_k, increasing; those beyond an exhausted space stand at the end.

    Attributes:
        nodes: Eigenvalues of T_k.
        rotations: S, its eigenvectors as columns.
        basis: Q_k, as rows.
        alive: Which of them are: all, unless the space was exhausted.
    """

    nodes: Float[Array, "k"]
    rotations: Float[Array, "k k"]
    basis: Float[Array, "k n"]
    alive: Bool[Array, "k"]


def ritz_pairs(
    product: Callable[[Float[Array, "n"]], Float[Array, "n"]],
    start: Float[Array, "n"],
    steps: int,
    /,
) -> Ritz:
    """Ritz pairs of a symmetric operator after some Lanczos steps.

    Args:
        product: v -> A v.
        start: Where the recursion begins, not 0.
        steps: Products, at most n.

    Returns:
        The pairs; all NaN where A is not finite.

    References:
        Golub and Meurant 2010, chapter 6.

    >>> ritz_pairs(lambda v: jnp.array([1.0, -3.0]) * v, jnp.ones(2), 2).nodes.round(4).tolist()
    [-3.0, 1.0]
    """
    tridiagonal = decomp.tridiag_sym(steps, materialize=False, reortho="full", custom_vjp=False)
    found = tridiagonal(product, start)
    diagonal, beside = found.J_small
    basis: Any = found.Q_tall
    # matfree divides by the length of the next vector: 0/0 where nothing is left to find. All three
    # are asked, for a product known to be 0 lets the compiler drop the NaN from some of them.
    fine = jnp.isfinite(beside) & jnp.isfinite(diagonal[1:])
    going = jnp.cumprod(fine & jnp.all(jnp.isfinite(basis[1:]), axis=1)).astype(bool)
    alive = jnp.concatenate([jnp.ones(1, bool), going])
    beside = jnp.where(going, beside, 0)
    kept = jnp.where(alive, diagonal, 0)
    # Beyond the others, so that what was cut off is last and never extreme.
    bound = 2 * jnp.max(jnp.abs(kept)) + 4 * jnp.max(jnp.abs(beside), initial=0) + 1
    matrix = jnp.diag(jnp.where(alive, kept, bound)) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
    nodes, rotations = jnp.linalg.eigh(matrix)
    return Ritz(nodes, rotations, jnp.where(alive[:, None], basis, 0), alive)


@partial(jax.jit, static_argnames="steps")
def random_ritz_pairs(
    key: Any, risk: Any, parameters: PyTree, roots: PyTree, *, steps: int
) -> Ritz:
    """Ritz pairs of the Hessian of a risk, from a start that is uniform on a sphere.

    One compiled program for extremes and densities, of the whole and of every block.

    Args:
        key: Random key of the start.
        risk: A function of the parameters that may enter ``jit``.
        parameters: Where the Hessian is taken.
        roots: Roots of the metric, 0 for numbers that do not move, nor does the start there.
        steps: Products, at most as many as numbers move.

    >>> risk, roots = jax.tree_util.Partial(lambda x: x[0] ** 2 + x[1] ** 3), jnp.array([1.0, 0.0])
    >>> found = random_ritz_pairs(jax.random.key(0), risk, jnp.ones(2), roots, steps=1)
    >>> found.nodes.round(4).tolist()
    [2.0]
    """
    product, flat, restore = flat_product(risk, parameters, roots)
    drawn = restore(stochtrace.sampler_sphere(flat, num=1)(key)[0])
    start = jax.tree.map(lambda root, leaf: jnp.where(jnp.asarray(root) > 0, leaf, 0), roots, drawn)
    return ritz_pairs(product, ravel_pytree(start)[0], steps)


def prepared(
    parameters: PyTree, metric: PyTree, steps: int, within: PyTree | None, /
) -> tuple[PyTree, int]:
    """Roots of the metric, 0 outside the marks; Lanczos steps, no more than numbers that move.

    Args:
        parameters: Where the Hessian is taken.
        metric: s > 0, a prefix of them.
        steps: Steps asked for.
        within: Marks of 0 and 1, or None for all.

    Raises:
        ValueError: As :func:`hessian_product`, and for steps that are not a positive integer.

    >>> prepared(jnp.ones(3), 4.0, 64, None)
    (2.0, 3)
    """
    check_parameters("parameters", parameters)
    steps = checks.count("steps", steps)
    roots = metric_roots(metric, parameters)
    if within is None:
        return roots, min(steps, sum(jnp.size(leaf) for leaf in jax.tree.leaves(parameters)))
    marks = full_marks(within, parameters)
    moving = sum(int(mark.sum(dtype=float)) for mark in jax.tree.leaves(marks))
    # Of the type of the parameters: one program serves every block.
    return jax.tree.map(lambda root, mark: mark * mark.dtype.type(root), roots, marks), min(
        steps, moving
    )


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
