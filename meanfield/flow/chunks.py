r"""Sums over samples, and their gradients, a chunk of samples at a time.

    S(theta) = sum_c total(theta; chunk c),      grad S = sum_c grad total(theta; chunk c)

One trap: reverse-mode differentiation of a loop keeps what every turn of it computed. Here each
chunk's gradient is taken in its turn and added up, in float32 at least, so memory is that of one
chunk; the forward-mode derivative costs a whole gradient.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from meanfield import devices
from meanfield.notation import Scalar
from meanfield.tree import leading_axis


def chunked_sum(
    total: Callable[..., Scalar], data: PyTree, theta: PyTree, /, *, chunk: int
) -> Scalar:
    """The sum of ``total(theta, *chunk of data)`` over chunks, its gradient summed beside it.

    Args:
        total: A sum over samples, of theta and some of them.
        data: Samples along the leading axis of every leaf, a sequence of trees.
        theta: Parameters.
        chunk: Samples at once; a shorter last chunk takes the rest.

    >>> float(chunked_sum(lambda theta, x: theta * jnp.sum(x), [jnp.ones(3)], 2.0, chunk=2))
    6.0
    """
    if leading_axis(data) == chunk:
        return total(theta, *data)

    @jax.custom_jvp
    def accumulated(theta: PyTree) -> Scalar:
        return _over_chunks(total, chunk, data, theta)

    @accumulated.defjvp
    def _(primals: Any, tangents: Any) -> tuple[Scalar, Scalar]:
        value, gradient = _over_chunks(jax.value_and_grad(total), chunk, data, *primals)
        return value, devices.dot(gradient, tangents[0], value)

    return accumulated(theta)


def _over_chunks(function: Callable, chunk: int, data: PyTree, theta: PyTree) -> Any:
    chunks, rest = divmod(leading_axis(data), chunk)
    whole = jax.tree.map(
        lambda leaf: leaf[: chunks * chunk].reshape(chunks, chunk, *leaf.shape[1:]), data
    )

    def wide(part: PyTree) -> Any:
        # Many sums of numbers with few digits keep none.
        return jax.tree.map(_widened, function(theta, *part))

    def add(total: Any, part: PyTree) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, wide(part)), None

    one = jax.tree.map(lambda leaf: leaf[0], whole)
    summed = jax.lax.scan(add, devices.zeros(jax.eval_shape(wide, one)), whole)[0]
    if rest:
        tail = jax.tree.map(lambda leaf: leaf[chunks * chunk :], data)
        summed = jax.tree.map(jnp.add, summed, wide(tail))
    shapes = jax.eval_shape(function, theta, *one)
    return jax.tree.map(lambda leaf, shape: leaf.astype(shape.dtype), summed, shapes)


def _widened(leaf: Any) -> Any:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
