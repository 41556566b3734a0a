r"""Products of matrices whose gradients are as fast as they are.

    nn   C = A B        nt   C = A B^T        tn   C = A^T B

The cotangents of each are products of these three kinds again, so derivatives of every order in
both modes stay among them. In sixteen bits, and for whole numbers, they are jax.numpy's.

One trap: on a CPU a product whose left factor is read by columns is two to six times slower than
one read by rows, and the usual rule for the gradient of a right factor makes just such a one. Here
the smaller factor of it is laid out anew first. The primitive is this project's own:
``jax.checkpoint_policies.dots_saveable`` does not count it among the dots, and ``jax.experimental.
jet`` does not know it.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Num

from meanfield import devices

FORMS = {"nn": ("ab", "bc", "ac"), "nt": ("ab", "cb", "ac"), "tn": ("ab", "ac", "bc")}
"""Axes of the left factor, of the right one and of the product, by form."""


def matmul(
    left: Num[Array, "*_ _ _"],
    right: Num[Array, "*_ _ _"],
    form: str = "nn",
    *,
    dtype: Any = None,
) -> Num[Array, "*_ _ _"]:
    """The product of two matrices, or of many along equal leading axes.

    Args:
        left: A.
        right: B.
        form: ``"nn"`` for A B, ``"nt"`` for A B^T, ``"tn"`` for A^T B.
        dtype: Of the sums and the product; that of the factors if None.

    Raises:
        ValueError: If the leading axes differ.

    >>> matmul(jnp.ones((2, 3)), jnp.ones((4, 3)), "nt").shape
    (2, 4)
    """
    if left.shape[:-2] != right.shape[:-2]:
        raise ValueError(
            f"leading axes of the factors must be equal, got shapes {left.shape} and {right.shape}"
        )
    given = jnp.result_type(left, right)
    if not jnp.issubdtype(given, jnp.floating) or jnp.finfo(given).bits < 32:
        return _einsum(left, right, form=form, dtype=dtype)
    dtype = jnp.promote_types(given, dtype or given)
    factors = devices.aligned(jnp.asarray(left, dtype), jnp.asarray(right, dtype))
    # Read here: at the time of lowering the user's context is gone.
    settings: Any = jax.config
    precision = settings.jax_default_matmul_precision
    return product_p.bind(*factors, form=form, precision=precision)


def _einsum(
    left: Any, right: Any, *, form: str, precision: str | None = None, dtype: Any = None
) -> Any:
    one, other, product = FORMS[form]
    axes = f"...{one},...{other}->...{product}"
    return jnp.einsum(axes, left, right, precision=precision, preferred_element_type=dtype)


def _by_rows(left: Any, right: Any, *, form: str, precision: str | None) -> Any:
    """The product in the form that processors are fast at."""
    if form != "tn":
        return _einsum(left, right, form=form, precision=precision)
    rows = functools.partial(_einsum, form="nn", precision=precision)
    # Without the barriers the compiler would undo the new layout.
    if left.shape[-1] <= right.shape[-1]:
        return rows(jax.lax.optimization_barrier(left.mT), right)
    turned = rows(jax.lax.optimization_barrier(right.mT), left)
    return jax.lax.optimization_barrier(turned).mT


def _shape(left: Any, right: Any, **choices: Any) -> Any:
    return jax.make_jaxpr(functools.partial(_einsum, **choices))(left, right).out_avals[0]


def _cotangent_left(cotangent: Any, left: Any, right: Any, *, form: str, **choices: Any) -> Any:
    if form == "tn":
        return product_p.bind(right, cotangent, form="nt", **choices)
    return product_p.bind(cotangent, right, form="nt" if form == "nn" else "nn", **choices)


def _cotangent_right(cotangent: Any, left: Any, right: Any, *, form: str, **choices: Any) -> Any:
    if form == "nn":
        return product_p.bind(left, cotangent, form="tn", **choices)
    if form == "nt":
        return product_p.bind(cotangent, left, form="tn", **choices)
    return product_p.bind(left, cotangent, form="nn", **choices)


def _batched(factors: Any, axes: Any, **choices: Any) -> Any:
    """The product along an axis more, which one factor may lack."""
    mapped = [axis is not None for axis in axes]
    if all(mapped):
        moved = (jnp.moveaxis(leaf, axis, 0) for leaf, axis in zip(factors, axes, strict=True))
        return product_p.bind(*moved, **choices), 0
    # One large product: the new axis joins the one that the other factor does not have.
    place, names = mapped.index(True), FORMS[choices["form"]]
    lead = factors[1 - place].ndim - 2
    free = lead + next(axis for axis in (0, 1) if names[place][axis] not in names[1 - place])
    moved = jnp.moveaxis(factors[place], axes[place], free)
    both, sizes = [*factors], moved.shape[free : free + 2]
    both[place] = moved.reshape(*moved.shape[:free], math.prod(sizes), *moved.shape[free + 2 :])
    product, out = product_p.bind(*both, **choices), lead + place
    return product.reshape(*product.shape[:out], *sizes, *product.shape[out + 1 :]), out


product_p = Primitive("meanfield_product")
product_p.def_impl(jax.jit(_einsum, static_argnames=("form", "precision")))
product_p.def_abstract_eval(_shape)
ad.defbilinear(product_p, _cotangent_left, _cotangent_right)
batching.primitive_batchers[product_p] = _batched
mlir.register_lowering(product_p, mlir.lower_fun(_einsum, multiple_results=False))
mlir.register_lowering(product_p, mlir.lower_fun(_by_rows, multiple_results=False), platform="cpu")
