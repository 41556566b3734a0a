"""Signed extreme eigenvalues of a symmetric operator known by its products.

    A Q_k = Q_k T_k + beta_k q_{k+1} e_k^T,      |A x - theta x| = beta_k |s_k|   for x = Q_k s

(Lanczos with full re-orthogonalisation; T_k tridiagonal with eigenpairs theta, s.)

Trap: power iteration returns the largest |eigenvalue| (12 for -12 where the largest is 10). That is
what a stability bound needs (`radius.py`); a sharpness is signed, and needs this.

References:
    Parlett, The Symmetric Eigenvalue Problem (1998), sections 6.9, 13.2 and 13.8.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from meanfield import checks
from meanfield.ode.radius import normalised, probe


class Extremes(NamedTuple):
    """Extreme eigenpairs of a symmetric operator.

    `vectors` and `residuals` are (largest, smallest) pairs. Within the residual |A x - theta x|,
    |x| = 1, of each value lies an eigenvalue of the operator.
    """

    largest: Float[Array, ""]
    smallest: Float[Array, ""]
    vectors: tuple[PyTree, PyTree]
    residuals: Float[Array, "2"]
    products: Int[Array, ""]


class _Lanczos(NamedTuple):
    """Basis (a leading axis of k on each leaf), T_k padded with zeros, next vector."""

    basis: PyTree
    matrix: Float[Array, "k k"]
    size: Int[Array, ""]
    following: PyTree
    beta: Float[Array, ""]
    extremes: Extremes


def _project(basis, vector):
    """Coefficients of a vector in a basis, and what is left of it."""
    parts = jax.tree.map(lambda q, x: jnp.tensordot(q, x, axes=x.ndim), basis, vector)
    coefficients = functools.reduce(jnp.add, jax.tree.leaves(parts))
    rest = jax.tree.map(
        lambda q, x: x - jnp.tensordot(coefficients.astype(x.dtype), q, axes=1), basis, vector
    )
    return coefficients, rest


def _ritz(basis, matrix, size, beta, products):
    """Extreme eigenpairs of the leading block of T and their residuals."""
    inside = jnp.arange(matrix.shape[0]) < size
    # The empty rows become eigenvalues beyond the others, so both ends sit at known places.
    bound = 2 * jnp.max(jnp.sum(jnp.abs(matrix), axis=1)) + 1
    values, rotations = jnp.linalg.eigh(matrix + jnp.diag(jnp.where(inside, 0, bound)))
    ends = jnp.stack([size - 1, jnp.zeros_like(size)])
    columns = rotations[:, ends]
    residuals = jnp.abs(beta * columns[size - 1])
    pair = tuple(
        jax.tree.map(lambda q, i=i: jnp.tensordot(columns[:, i].astype(q.dtype), q, axes=1), basis)
        for i in range(2)
    )
    return Extremes(values[ends[0]], values[ends[1]], pair, residuals, products)


def _grow(product, state):
    """One Lanczos step: one product."""
    index = state.size
    basis = jax.tree.map(lambda q, new: q.at[index].set(new), state.basis, state.following)
    coefficients, rest = _project(basis, product(state.following))
    # Twice is enough (Parlett, section 6.9); once leaves ghosts of converged eigenvalues.
    rest = _project(basis, rest)[1]
    following, beta = normalised(rest)
    row = coefficients.astype(state.matrix.dtype)
    matrix = state.matrix.at[index].set(row).at[:, index].set(row)
    beta = beta.astype(matrix.dtype)
    extremes = _ritz(basis, matrix, index + 1, beta, state.extremes.products + 1)
    return _Lanczos(basis, matrix, index + 1, following, beta, extremes)


def _empty(direction, steps):
    """The state before the first product."""
    dtype = jnp.result_type(*jax.tree.leaves(direction))
    zero, none = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    unknown = Extremes(zero, zero, (direction, direction), jnp.full(2, jnp.inf, dtype), none)
    basis = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), direction)
    return _Lanczos(basis, jnp.zeros((steps, steps), dtype), none, direction, zero, unknown)


def extreme_eigenvalues(
    product: Callable,
    like: PyTree,
    /,
    *,
    previous: Extremes | None = None,
    tolerance: float = 1e-3,
    max_products: int = 64,
    least_products: int = 6,
) -> Extremes:
    """Signed largest and smallest eigenvalue of a symmetric operator, by Lanczos.

    Memory: `max_products` vectors. Compiles to one product in one loop.

    Args:
        product: v -> A v, linear and symmetric, trees to trees of the same shapes.
        like: a tree of the shapes and dtypes of v (its values do not matter).
        previous: an earlier result for a nearby operator; its vectors start the iteration.
        tolerance: both residuals must fall below this times the largest |Ritz value|.
        max_products: most products, and vectors kept.
        least_products: products before convergence may be declared: a start that holds an
            eigenvector which is no longer extreme must have time to find the extreme one.

    Returns:
        Eigenvalues, vectors of norm one, residuals (compare with the eigenvalues: they are the
        check), products spent.

    Raises:
        ValueError: for options out of range.

    References:
        Parlett (1998), chapter 13.

    >>> found = extreme_eigenvalues(lambda v: jnp.array([1.0, -3.0, 2.0]) * v, jnp.zeros(3))
    >>> round(float(found.largest), 4), round(float(found.smallest), 4)
    (2.0, -3.0)
    """
    checks.positive("tolerance", tolerance)
    least = checks.count("least_products", least_products)
    total = sum(leaf.size for leaf in jax.tree.leaves(like))
    steps = min(checks.count("max_products", max_products), total)
    direction = probe(like)
    if previous is not None:
        # A tenth of the probe keeps every direction within reach of the iteration.
        direction = normalised(
            jax.tree.map(lambda a, b, p: a + b + 0.1 * p, *previous.vectors, direction)
        )[0]
    start = _empty(direction, steps)

    def unsettled(state):
        found = state.extremes
        radius = jnp.maximum(jnp.abs(found.largest), jnp.abs(found.smallest))
        rough = jnp.any(found.residuals > tolerance * radius) | (state.size < min(least, steps))
        # A vanishing next vector means an invariant subspace: nothing is left to find from here.
        exhausted = (state.size > 0) & (state.beta <= 4 * jnp.finfo(radius.dtype).eps * radius)
        return (state.size < steps) & rough & ~exhausted

    return lax.while_loop(unsettled, lambda state: _grow(product, state), start).extremes


def weighted(product: Callable, weights: PyTree, /) -> Callable:
    """The operator sqrt(s) H sqrt(s): symmetric, with the eigenvalues of s H.

    These are the curvatures seen by the flow du/dt = -s grad. An eigenvector x of this operator
    gives the eigenvector sqrt(s) x of s H, of norm one in the flow's metric <u, v/s>.

    Args:
        product: v -> H v with H symmetric.
        weights: s > 0, a tree like v, its leaves scalars or arrays of the shapes of v.

    Returns:
        v -> sqrt(s) H sqrt(s) v.

    >>> weighted(lambda v: v, jnp.array([4.0, 9.0]))(jnp.ones(2)).tolist()
    [4.0, 9.0]
    """

    def scaled(vector):
        return jax.tree.map(lambda s, x: (jnp.sqrt(s) * x).astype(x.dtype), weights, vector)

    return lambda vector: scaled(product(scaled(vector)))
