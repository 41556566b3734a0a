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
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from matfree import decomp


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
