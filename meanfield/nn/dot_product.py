r"""Softmax attention by ``jax.nn.dot_product_attention``, for every ``vmap`` and Hessian products.

    attended("cudnn")(t)(q, k, v, pairs)_a = sum_b exp(t q_a . k_b) v_b / sum_b exp(t q_a . k_b)

cuDNN's attention has a gradient and no derivative of it, and maps over one leading axis that all of
its arrays share. Here the derivative of its value and of its gradient are those of the plain form,
some rows at a time, and axes that are mapped over become its batch.

One trap: the backward pass computes the forward pass anew, unless the compiler finds the one that
is there: it does where layers are recomputed anyway, and not across a scan over layers.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from meanfield.nn.fused import Attend
from meanfield.nn.kernels import softmax
from meanfield.nn.rows import mixed_in_rows, rows_at_once

Implementation = Literal["cudnn", "xla"]


def attended(implementation: Implementation, /) -> Callable[[float], Attend]:
    """From the factor in the exponent, softmax attention ``(queries, keys, values, pairs)``.

    Args:
        implementation: ``"cudnn"``, in bfloat16 or float16 on a GPU, or ``"xla"``, which has the
            weights [n n] in memory. Both want the sizes that :mod:`meanfield.nn.fused` makes.

    Raises:
        NotImplementedError: By jax, for arrays that cuDNN cannot attend to.

    >>> ones = jnp.ones((3, 2, 8))
    >>> attended("xla")(1.0)(ones, ones, ones, None)[0, 0, :2].tolist()
    [1.0, 1.0]
    """
    return functools.partial(_attended, implementation)


def _attended(implementation: Implementation, factor: float) -> Attend:
    choices = {"implementation": implementation, "factor": factor}

    def of_one(bound: Callable, arrays: tuple[Array, ...], pairs: Array | None) -> Any:
        masks = () if pairs is None else (pairs,)
        batch = (leaf[None] for leaf in (*arrays, *masks))
        return tuple(leaf[0] for leaf in bound(*batch, **choices))

    @jax.custom_vjp
    def attend(queries: Array, keys: Array, values: Array, pairs: Array | None) -> Array:
        return of_one(_VALUE, (queries, keys, values), pairs)[0]

    def forward(*given: Any) -> tuple[Array, Any]:
        return of_one(_VALUE, given[:3], given[3])[0], given

    def backward(given: Any, upstream: Array) -> Any:
        return (*of_one(_PULLBACK, (*given[:3], upstream), given[3]), None)

    attend.defvjp(forward, backward)
    return attend


def _value(attend: Callable[..., Array], *arrays: Array) -> tuple[Array, ...]:
    """The value, by the program that the pullback runs too: a compiler keeps one of the two."""
    inputs, masks = arrays[:3], arrays[3:]
    return (jax.vjp(lambda *inputs: attend(*inputs, *masks), *inputs)[0],)


def _pullback(attend: Callable[..., Array], *arrays: Array) -> tuple[Array, ...]:
    """The gradient of the value; ``arrays`` has what the value's has, upstream."""
    inputs, upstream, masks = arrays[:3], arrays[3], arrays[4:]
    return jax.vjp(lambda *inputs: attend(*inputs, *masks), *inputs)[1](upstream)


def _native(
    queries: Array,
    keys: Array,
    values: Array,
    pairs: Array | None = None,
    *,
    implementation: Implementation,
    factor: float,
) -> Array:
    """Attention of a batch [b n m h]."""
    mask = None if pairs is None else pairs[:, None]
    return jax.nn.dot_product_attention(
        queries, keys, values, mask=mask, scale=factor, implementation=implementation
    )


def _plain(
    queries: Array, keys: Array, values: Array, pairs: Array | None = None, *, factor: float
) -> Array:
    """The same by rows, for derivatives."""
    kernel = softmax(factor)

    def one(queries: Array, keys: Array, values: Array, pairs: Array | None) -> Array:
        rows = rows_at_once(kernel, queries, keys)
        return mixed_in_rows(kernel, queries, keys, values, pairs, rows=rows)

    if pairs is not None:
        pairs = jnp.broadcast_to(pairs, (len(queries), *pairs.shape[1:]))
    return jax.vmap(one)(queries, keys, values, pairs)


def _primitive(name: str, take: Callable[..., tuple[Array, ...]], inputs: int) -> Callable:
    """``take`` of the device's attention, with the derivative of ``take`` of the plain form."""
    primitive = Primitive(name)
    primitive.multiple_results = True

    def bound(*arrays: Any, **choices: Any) -> list[Array]:
        # The program is there to be seen: jax looks in it for what needs to know the devices.
        call = jax.make_jaxpr(lambda *a: take(functools.partial(_native, **choices), *a))(*arrays)
        return primitive.bind(*arrays, call=call, **choices)

    def run(*arrays: Any, call: ClosedJaxpr, **_: Any) -> list[Array]:
        return jaxpr_as_fun(call)(*arrays)

    def jvp(primals: Any, tangents: Any, *, call: ClosedJaxpr, **choices: Any) -> tuple[Any, Any]:
        given, masks = primals[:inputs], primals[inputs:]
        plain = functools.partial(_plain, factor=choices["factor"])
        moves = tuple(ad.instantiate_zeros(tangent) for tangent in tangents[:inputs])
        moved = jax.jvp(lambda *given: take(plain, *given, *masks), tuple(given), moves)[1]
        return primitive.bind(*primals, call=call, **choices), moved

    def batched(arrays: Any, axes: Any, *, call: ClosedJaxpr, **choices: Any) -> tuple[Any, Any]:
        size, batch, joined = _joined(inputs, arrays, axes)
        found = bound(*joined, **choices)
        return [leaf.reshape(size, batch, *leaf.shape[1:]) for leaf in found], [0] * len(found)

    primitive.def_impl(run)
    primitive.def_abstract_eval(lambda *_, call, **__: call.out_avals)
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=True))
    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batched
    return bound


def _joined(inputs: int, arrays: Any, axes: Any) -> tuple[int, int, list[Array]]:
    """Length of the axis that is mapped over, that of the batch, and arrays where both are one."""
    size = next(a.shape[i] for a, i in zip(arrays, axes, strict=True) if i is not None)
    batch, joined = 0, []
    for index, (array, axis) in enumerate(zip(arrays, axes, strict=True)):
        if index >= inputs and axis is None and len(array) == 1:
            # A mask that all samples share stays one, or each of them would hold it.
            joined.append(array)
            continue
        lead = array[None] if axis is None else jnp.moveaxis(array, axis, 0)
        batch = batch or lead.shape[1]
        full = jnp.broadcast_to(lead, (size, batch, *lead.shape[2:]))
        joined.append(full.reshape(size * batch, *full.shape[2:]))
    return size, batch, joined


_VALUE = _primitive("softmax_attention", _value, 3)
_PULLBACK = _primitive("softmax_attention_pullback", _pullback, 4)
