"""Observables of a run: functions of theta, saved along the way.

One trap: a compiled program is reused for the same function *objects*; a lambda written anew in
each call compiles anew.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from meanfield.flow.risk import as_partial

Observe = Callable[[Any], Any] | Mapping[str, Callable[[Any], Any]] | None
"""A function of theta, a dictionary of them, or nothing."""


def observables(observe: Observe) -> Any:
    """Observables as a tree that may enter ``jit``: a function, or a dictionary of functions.

    Args:
        observe: A function of theta, a dictionary of them, or None.

    >>> observables({"total": sum})["total"]([3.0, 4.0])
    7.0
    """
    if isinstance(observe, Mapping):
        return {name: as_partial(function) for name, function in observe.items()}
    return {} if observe is None else as_partial(observe)


def observed(functions: Any, theta: PyTree) -> Any:
    """The values of observables at theta.

    Args:
        functions: What :func:`observables` returned.
        theta: Parameters.

    >>> observed(observables({"total": sum}), [1.0, 2.0])["total"]
    3.0
    """
    if isinstance(functions, dict):
        return {name: function(theta) for name, function in functions.items()}
    return functions(theta)


def packed(functions: Any, theta: PyTree) -> list[Array]:
    """The leaves of what is observed at theta, in a form that diffrax saves.

    diffrax fills what it has not saved yet with infinity and warns that no integer is infinite: an
    integer becomes the floating number of the same bits. Leaves, because branches may be empty.

    Args:
        functions: What :func:`observables` returned.
        theta: Parameters.

    >>> packed(observables({"count": len, "total": sum}), [1.0, 2.0])[1].tolist()
    3.0
    """
    return [_floating(jnp.asarray(leaf)) for leaf in jax.tree.leaves(observed(functions, theta))]


def unpacked(functions: Any, theta: PyTree, rows: Iterable[Array]) -> Any:
    """What was observed at several times, from the rows of :func:`packed`.

    Args:
        functions: What :func:`observables` returned.
        theta: Parameters, of which the shapes and types count.
        rows: For each leaf that ``packed`` returned, an array of a new leading axis.

    >>> functions = observables({"count": len})
    >>> unpacked(functions, [1.0], [row[None] for row in packed(functions, [1.0])])["count"]
    Array([1], dtype=int32)
    """
    leaves, structure = jax.tree.flatten(jax.eval_shape(partial(observed, functions), theta))
    pairs = zip(rows, leaves, strict=True)
    return jax.tree.unflatten(structure, [_typed(row, leaf.dtype) for row, leaf in pairs])


def _floating(leaf):
    if not jnp.issubdtype(leaf.dtype, jnp.integer):
        return leaf
    if leaf.dtype.itemsize == 8:
        return lax.bitcast_convert_type(leaf, jnp.float64)
    return lax.bitcast_convert_type(leaf.astype(jnp.int32), jnp.float32)


def _typed(row, dtype):
    if not jnp.issubdtype(dtype, jnp.integer):
        return row
    return lax.bitcast_convert_type(row, f"int{8 * row.dtype.itemsize}").astype(dtype)
