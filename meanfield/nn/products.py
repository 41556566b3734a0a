r"""Products of matrices whose gradients are as fast as they are.

    nn   C = A B        nt   C = A B^T        tn   C = A^T B

The cotangents of each are products of these three kinds again, so derivatives of every order in
both modes stay among them. In sixteen bits, and for whole numbers, they are jax.numpy's.

On a CPU a product whose left factor is read by columns is two to six times slower than one read by
rows, and the usual rule for the gradient of a right factor makes just such a one. Here the smaller
factor of it is laid out anew first, unless both are narrow. And a batch of products stays on one
core, where a reduction is shared by all of them, together with what it reduces: so large batches
are reduced, in two halves of the sum or by a row's largest entry, times zero. A row whose largest
entry is infinite becomes NaN by that.

One trap: the primitive is this project's own:
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

NARROW = 256
"""Columns of factors that one device reads by columns as fast as it lays them out anew."""
LEAST_WORK, LEAST_ROWS = 2**15, 4096
"""Multiplications in one product of a batch from which it is worth sharing; rows in all from which
a compiler takes a row's largest entry together with the product."""
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
    choices = {"form": form, "precision": settings.jax_default_matmul_precision}
    # Devices that share the work have a core each. Exponents of attention are summed in the end;
    # another reduction would part them from that one.
    cores = {"alone": devices.alone(), "reduced": form == "nt"}
    return product_p.bind(*factors, **choices, **cores)


def _einsum(
    left: Any, right: Any, *, form: str, precision: str | None = None, dtype: Any = None
) -> Any:
    one, other, product = FORMS[form]
    axes = f"...{one},...{other}->...{product}"
    return jnp.einsum(axes, left, right, precision=precision, preferred_element_type=dtype)


def _plain(left: Any, right: Any, *, alone: bool, reduced: bool, **choices: Any) -> Any:
    """The product as it stands, whoever shares the work."""
    del alone, reduced
    return _einsum(left, right, **choices)


def _by_rows(
    left: Any, right: Any, *, form: str, precision: str | None, alone: bool, reduced: bool
) -> Any:
    """The product in the form that processors are fast at."""
    product = functools.partial(_einsum, precision=precision)
    # What is said here of several cores is true of the library that XLA calls in float32.
    cores = alone and left.dtype == jnp.float32
    sizes = dict(zip("".join(FORMS[form][:2]), left.shape[-2:] + right.shape[-2:], strict=True))
    shared = cores and left.ndim > 2 and math.prod(sizes.values()) >= LEAST_WORK
    if form != "tn":
        found = product(left, right, form=form)
        return _reduced(found) if shared and not reduced else found
    if cores and left.ndim == 2 and max(left.shape[-1], right.shape[-1]) <= NARROW:
        return product(left, right, form=form)
    rows = left.shape[-2]
    halved = shared and rows % 2 == 0
    if halved:
        left, right = (
            leaf.reshape(*leaf.shape[:-2], 2, rows // 2, leaf.shape[-1]) for leaf in (left, right)
        )
    # Without the barriers the compiler would undo the new layout.
    swap = left.shape[-1] > right.shape[-1]
    small, large = (right, left) if swap else (left, right)
    found = product(jax.lax.optimization_barrier(small.mT), large, form="nn")
    if shared:
        found = jnp.sum(found, axis=-3) if halved else _reduced(found)
    return jax.lax.optimization_barrier(found).mT if swap else found


def _reduced(products: Any) -> Any:
    """The same numbers by way of a reduction; NaN in rows whose largest is infinite."""
    if math.prod(products.shape[:-1]) < LEAST_ROWS:
        return products
    return products + 0 * jnp.max(products, axis=-1, keepdims=True)


def _shape(left: Any, right: Any, **choices: Any) -> Any:
    return jax.make_jaxpr(functools.partial(_plain, **choices))(left, right).out_avals[0]


def _cotangent_left(cotangent: Any, left: Any, right: Any, *, form: str, **choices: Any) -> Any:
    if form == "tn":
        return _cotangent(right, cotangent, "nt", **choices)
    return _cotangent(cotangent, right, "nt" if form == "nn" else "nn", **choices)


def _cotangent_right(cotangent: Any, left: Any, right: Any, *, form: str, **choices: Any) -> Any:
    if form == "nn":
        return _cotangent(left, cotangent, "tn", **choices)
    if form == "nt":
        return _cotangent(cotangent, left, "tn", **choices)
    return _cotangent(left, cotangent, "nn", **choices)


def _cotangent(left: Any, right: Any, form: str, **choices: Any) -> Any:
    return product_p.bind(left, right, form=form, **choices | {"reduced": False})


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
product_p.def_impl(jax.jit(_plain, static_argnames=("form", "precision", "alone", "reduced")))
product_p.def_abstract_eval(_shape)
ad.defbilinear(product_p, _cotangent_left, _cotangent_right)
batching.primitive_batchers[product_p] = _batched
mlir.register_lowering(product_p, mlir.lower_fun(_plain, multiple_results=False))
mlir.register_lowering(product_p, mlir.lower_fun(_by_rows, multiple_results=False), platform="cpu")
