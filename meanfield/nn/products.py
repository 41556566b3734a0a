r"""Products of matrices whose gradients are as fast as they are.

    nn   C = A B        nt   C = A B^T        tn   C = A^T B

The cotangents of each are products of these three kinds again, so derivatives of every order in
both modes stay among them.

One trap: on a CPU a product whose left factor is read by columns is two to six times slower than
one read by rows, and the usual rule for the gradient of a right factor makes just such a one. Here
the smaller factor of it is laid out anew first.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from meanfield import devices

FORMS = {"nn": ("ab", "bc", "ac"), "nt": ("ab", "cb", "ac"), "tn": ("ab", "ac", "bc")}
"""Axes of the left factor, of the right one and of the product, by form."""


def matmul(
    left: Float[Array, "*_ _ _"],
    right: Float[Array, "*_ _ _"],
    form: str = "nn",
    *,
    dtype: Any = None,
) -> Float[Array, "*_ _ _"]:
    """The product of two matrices, or of many along equal leading axes.

    Args:
        left: A.
        right: B.
        form: ``"nn"`` for A B, ``"nt"`` for A B^T, ``"tn"`` for A^T B.
        dtype: Of the sums and the product; that of the factors if None.

    >>> matmul(jnp.ones((2, 3)), jnp.ones((4, 3)), "nt").shape
    (2, 4)
    """
    given = jnp.result_type(left, right)
    if jnp.finfo(given).bits < 32:
        return _einsum(left, right, form, dtype)
    dtype = jnp.promote_types(given, dtype or given)
    factors = devices.aligned(jnp.asarray(left, dtype), jnp.asarray(right, dtype))
    return product_p.bind(*factors, form=form)


def _einsum(left: Any, right: Any, form: str, dtype: Any = None) -> Any:
    one, other, product = FORMS[form]
    axes = f"...{one},...{other}->...{product}"
    return jnp.einsum(axes, left, right, preferred_element_type=dtype)


def _by_rows(left: Any, right: Any, *, form: str) -> Any:
    """The product in the form that processors are fast at."""
    if form != "tn":
        return _einsum(left, right, form)
    # Without the barriers the compiler would undo the new layout.
    if left.shape[-1] <= right.shape[-1]:
        return _einsum(jax.lax.optimization_barrier(left.mT), right, "nn")
    turned = _einsum(jax.lax.optimization_barrier(right.mT), left, "nn")
    return jax.lax.optimization_barrier(turned).mT


def _shape(left: Any, right: Any, *, form: str) -> Any:
    return jax.make_jaxpr(_einsum, static_argnums=2)(left, right, form).out_avals[0]


def _cotangent_left(cotangent: Any, left: Any, right: Any, *, form: str) -> Any:
    if form == "tn":
        return product_p.bind(right, cotangent, form="nt")
    return product_p.bind(cotangent, right, form="nt" if form == "nn" else "nn")


def _cotangent_right(cotangent: Any, left: Any, right: Any, *, form: str) -> Any:
    if form == "nn":
        return product_p.bind(left, cotangent, form="tn")
    if form == "nt":
        return product_p.bind(cotangent, left, form="tn")
    return product_p.bind(left, cotangent, form="nn")


def _batched(factors: Any, axes: Any, *, form: str) -> Any:
    """The product along an axis more, which one factor may lack."""
    mapped = [axis is not None for axis in axes]
    if all(mapped):
        moved = (jnp.moveaxis(leaf, axis, 0) for leaf, axis in zip(factors, axes, strict=True))
        return product_p.bind(*moved, form=form), 0
    place = mapped.index(True)
    number = factors[place].shape[axes[place]]
    if factors[1 - place].ndim > 2:
        copies = jnp.broadcast_to(factors[1 - place][None], (number, *factors[1 - place].shape))
        both = [copies, copies]
        both[place] = jnp.moveaxis(factors[place], axes[place], 0)
        return product_p.bind(*both, form=form), 0
    # One large product: the new axis joins the one that the other factor does not have.
    names = FORMS[form]
    free = next(axis for axis in (0, 1) if names[place][axis] not in names[1 - place])
    moved = jnp.moveaxis(factors[place], axes[place], free)
    merged = moved.reshape(*moved.shape[:free], -1, *moved.shape[free + 2 :])
    both = [merged, merged]
    both[1 - place] = factors[1 - place]
    product = product_p.bind(*both, form=form)
    shape = list(product.shape)
    shape[place : place + 1] = [number, shape[place] // number]
    return product.reshape(shape), place


product_p = Primitive("meanfield_product")
product_p.def_impl(jax.jit(_einsum, static_argnames="form"))
product_p.def_abstract_eval(_shape)
ad.defbilinear(product_p, _cotangent_left, _cotangent_right)
batching.primitive_batchers[product_p] = _batched
mlir.register_lowering(product_p, mlir.lower_fun(_einsum, multiple_results=False))
mlir.register_lowering(product_p, mlir.lower_fun(_by_rows, multiple_results=False), platform="cpu")
