"""Singular values and eigenvalues of many small matrices, one matrix after the other.

One trap, and the reason for this file: on a CPU a *batched* decomposition of jaxlib 0.10 shares its
batch out over the thread pool and waits inside a thread of that pool. As many of them at once as
the pool has threads, in one program or in two, wait for each other for ever. Under ``vmap`` these
run in a loop, each for one matrix, which needs no pool. Derivatives of both modes are those of
simple values, d sigma_i = u_i' dA v_i; of values that coincide there are none.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def singular_values(matrices: Float[Array, "*batch r c"], /) -> Float[Array, "*batch q"]:
    """Singular values, from large to small.

    Args:
        matrices: One matrix or many.

    >>> singular_values(jnp.array([[3.0, 4.0]])).tolist()
    [5.0]
    """
    return _one_by_one(_singular_values, matrices)


def eigenvalues(matrices: Float[Array, "*batch r r"], /) -> Float[Array, "*batch r"]:
    """Eigenvalues of symmetric matrices, from small to large.

    Args:
        matrices: One matrix or many.

    >>> eigenvalues(jnp.array([[0.0, 2.0], [2.0, 0.0]])).tolist()
    [-2.0, 2.0]
    """
    return _one_by_one(_eigenvalues, matrices)


def spectral_norm(matrices: Float[Array, "*batch r c"], /) -> Float[Array, "*batch"]:
    """Largest singular value.

    Args:
        matrices: One matrix or many.

    >>> float(spectral_norm(jnp.array([[3.0, 4.0]])))
    5.0
    """
    return singular_values(matrices)[..., 0]


def least_of_rows(matrices: Float[Array, "*batch r c"], /) -> Float[Array, "*batch"]:
    """The least singular value of the rows: |M' v| >= sigma |v| for every v.

    It is 0 if r > c, and where it is round-off of the largest one.

    Args:
        matrices: One matrix or many.

    >>> float(least_of_rows(jnp.array([[3.0, 4.0]]))), float(least_of_rows(jnp.ones((2, 1))))
    (5.0, 0.0)
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        return jnp.zeros(matrices.shape[:-2], matrices.dtype)
    values = singular_values(matrices)
    cut = jnp.finfo(values.dtype).eps * max(matrices.shape[-2:]) * values[..., 0]
    return jnp.where(values[..., -1] > cut, values[..., -1], 0)


@jax.custom_batching.sequential_vmap
def _alone(matrix: Array) -> Array:
    return jnp.linalg.svd(matrix, compute_uv=False)


@jax.custom_batching.sequential_vmap
def _alone_with_vectors(matrix: Array) -> tuple[Array, Array, Array]:
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    return left, values, right


@jax.custom_batching.sequential_vmap
def _symmetric_alone(matrix: Array) -> Array:
    return jnp.linalg.eigvalsh(matrix)


@jax.custom_batching.sequential_vmap
def _symmetric_alone_with_vectors(matrix: Array) -> tuple[Array, Array]:
    return tuple(jnp.linalg.eigh(matrix))


# What runs alone has no derivative of reverse mode: it is given one.
_singular_values, _eigenvalues = jax.custom_jvp(_alone), jax.custom_jvp(_symmetric_alone)


@_singular_values.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    left, values, right = _alone_with_vectors(*primals)
    return values, jnp.einsum("ri,rc,ic->i", left, *tangents, right)


@_eigenvalues.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    values, vectors = _symmetric_alone_with_vectors(*primals)
    return values, jnp.einsum("ri,rc,ci->i", vectors, *tangents, vectors)


def _one_by_one(function, matrices: Array) -> Array:
    *batch, rows, columns = matrices.shape
    if not batch:
        return function(matrices)
    found = jax.lax.map(function, matrices.reshape(math.prod(batch), rows, columns))
    return found.reshape(*batch, -1)
