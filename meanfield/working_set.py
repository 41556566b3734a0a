r"""How much of a computation is alive at once, and how much stays in fast memory.

A loop over samples or particles that works on a few of them at a time is fast if what those few
need stays in the cache of a core, and slow if every pass reads and writes main memory:

    chunk = budget / (bytes of the largest array that one sample makes)

One trap: arrays that no sample enters, such as weights, are there once whatever the chunk; they
must not count.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import PyTree

BUDGET = {"cpu": 2**21}
"""Bytes that the largest array may have, by kind of device: about what a core's cache holds."""
ELSEWHERE = 2**30
"""The same on accelerators, which want large arrays and have memory of their own to fill."""


def budget() -> int:
    """Bytes that the largest array may have on the default device.

    >>> budget() >= 2**20
    True
    """
    return BUDGET.get(jax.default_backend(), ELSEWHERE)


def fitting(number: int, each: float | int, /) -> int:
    """How many of ``number`` alike pieces to handle at once: all, or as many as fit the budget.

    A divisor of ``number`` is preferred: a loop over equal chunks compiles its body once.

    Args:
        number: How many pieces there are.
        each: Bytes of the largest array of one of them.

    >>> fitting(10, 1), fitting(10, 2**40)
    (10, 1)
    """
    most = int(min(number, max(1, budget() // max(each, 1))))
    divisor = next(size for size in range(most, 0, -1) if number % size == 0)
    return divisor if 2 * divisor >= most else most


def largest_array(function: Callable[..., Any], *arguments: PyTree) -> int:
    """Bytes of the largest array in ``function(*arguments)`` that the last argument enters.

    Nothing is computed: the function is traced, loops and inner functions included.

    Args:
        function: Any function of trees of arrays.
        arguments: Arrays, or their shapes.

    >>> largest_array(lambda w, x: jnp.outer(x, x) @ w[:4], jnp.ones(99), jnp.ones(4))
    64
    """
    shapes = jax.tree.map(_shape, arguments)
    traced = jax.make_jaxpr(function)(*shapes)
    last = len(jax.tree.leaves(shapes[-1]))
    return _walk(traced.jaxpr, [False] * (len(traced.in_avals) - last) + [True] * last)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def _walk(jaxpr: Any, entered: list[bool]) -> int:
    """The largest array that the marked inputs enter."""
    marked = {var for var, mark in zip(jaxpr.invars, entered, strict=True) if mark}
    largest = 0
    for equation in jaxpr.eqns:
        marks = [not isinstance(v, core.Literal) and v in marked for v in equation.invars]
        if not any(marks):
            continue
        marked.update(equation.outvars)
        for inner in _inner(equation):
            # Where a loop's inputs are not the equation's, all of them count as entered.
            fits = len(inner.invars) == len(marks)
            largest = max(largest, _walk(inner, marks if fits else [True] * len(inner.invars)))
        sizes = (math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in equation.outvars)
        largest = max([largest, *sizes])
    return largest


def _inner(equation: Any) -> list[Any]:
    values = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_closed)
    opened = [v.jaxpr if _is_closed(v) else v for v in values]
    return [v for v in opened if isinstance(v, core.Jaxpr)]


def _is_closed(value: Any) -> bool:
    return isinstance(value, core.ClosedJaxpr)
