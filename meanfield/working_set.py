r"""How much of a computation is alive at once, and how much stays in fast memory.

A loop over samples or particles that works on a few of them at a time is fast if what those few
need stays in the cache of a core, and slow if every pass reads and writes main memory:

    chunk = budget / (bytes of the largest array that one sample makes)

A loop over samples that adds up gradients reads and writes that of every weight in each turn, so a
turn should have much more to do than that, for all cores of the device at once:

    bytes of a turn = 24 times those of the largest weight, at least LEAST, at most three budgets

Where devices share the work a turn is done by one core, and has 4 times the weight, at most the
budget; where all weights together outgrow that, turns are as few as the budget allows.

One trap: arrays that no sample enters, such as weights, are there once whatever the chunk; they
must not count among those that it makes.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import PyTree

BUDGET = {"cpu": 2**21}
"""Bytes that the largest array should have, by kind of device: about what a core's cache holds."""
LEAST = 2**17
"""Bytes below which the turns of a loop cost more than what they do."""
TURN, TURN_OF_A_CORE = (24, 3), (4, 1)
"""Bytes of a turn in those of the largest weight, at most in budgets; where devices share."""
MOST_LAYERS, LEAST_WORK = 16, 2**17
"""Layers that a program may write out one by one, and bytes of weights times tokens that pay it."""
ELSEWHERE = 2**30
"""The budget on accelerators, which want large arrays and have memory of their own to fill."""


def budget() -> int:
    """Bytes that the largest array should have on the default device.

    >>> budget() >= 2**20
    True
    """
    return BUDGET.get(jax.default_backend(), ELSEWHERE)


def turn(weight: int, weights: int, /, *, alone: bool) -> int:
    """Bytes that the largest array of one turn of a loop over samples may have.

    Args:
        weight: Bytes of the largest weight whose gradient the loop adds up.
        weights: Bytes of all of them.
        alone: Whether one device does all the work, with all cores.

    >>> turn(10**9, 10**9, alone=True) >= turn(10**9, 10**9, alone=False) == budget()
    True
    """
    if jax.default_backend() not in BUDGET or (weights > budget() and not alone):
        return budget()
    worth, most = TURN if alone else TURN_OF_A_CORE
    return min(most * budget(), max(LEAST, worth * weight))


def fitting(number: int, each: float | int, /, *, room: int | None = None) -> int:
    """How many of ``number`` alike pieces to handle at once: all, or as many as fit.

    A divisor of ``number`` is preferred: a loop over equal chunks compiles its body once.

    Args:
        number: How many pieces there are.
        each: Bytes of the largest array of one of them.
        room: Bytes that the largest array may have; :func:`budget` if None.

    >>> fitting(10, 1), fitting(10, 2**40)
    (10, 1)
    """
    room = budget() if room is None else room
    most = int(min(number, max(1, room // max(each, 1))))
    divisor = next(size for size in range(most, 0, -1) if number % size == 0)
    return divisor if 2 * divisor >= most else most


def unrolled(layers: int, work: int, /) -> bool:
    """Whether layers stand in a program one after another, and not in a loop.

    A loop copies what its turns keep for the backward pass, which on a CPU takes a quarter of the
    time; without one the program is longer, and takes a little longer to compile.

    Args:
        layers: How many there are.
        work: Bytes of the weights of one layer times the tokens that it handles.

    >>> unrolled(2, 10), unrolled(1000, 10**9)
    (False, False)
    """
    return jax.default_backend() in BUDGET and layers <= MOST_LAYERS and work >= LEAST_WORK


class Largest(NamedTuple):
    """Bytes of the largest arrays of a function.

    Attributes:
        made: Of those that the last argument enters.
        weight: Of those that it does not enter but meets: what a product takes it with.
    """

    made: int
    weight: int


def largest_arrays(function: Callable[..., Any], *arguments: PyTree) -> Largest:
    """The largest arrays in ``function(*arguments)``, with the last argument and beside it.

    Nothing is computed: the function is traced, loops and inner functions included.

    Args:
        function: Any function of trees of arrays.
        arguments: Arrays, or their shapes.

    >>> largest_arrays(lambda w, x: jnp.outer(x, x) @ w[:4], jnp.ones(99), jnp.ones(4))
    Largest(made=64, weight=16)
    """
    shapes = jax.tree.map(_shape, arguments)
    traced = jax.make_jaxpr(function)(*shapes)
    last = len(jax.tree.leaves(shapes[-1]))
    return _walk(traced.jaxpr, [False] * (len(traced.in_avals) - last) + [True] * last)


def size(tree: PyTree, /) -> int:
    """Bytes of all arrays of a tree.

    Args:
        tree: Arrays, or their shapes.

    >>> size((jnp.ones(3), jnp.ones((2, 2))))
    28
    """
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in map(_shape, jax.tree.leaves(tree))
    )


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def _walk(jaxpr: Any, entered: list[bool]) -> Largest:
    """The largest arrays that the marked inputs enter, and that they meet."""
    marked = {var for var, mark in zip(jaxpr.invars, entered, strict=True) if mark}
    made, weight = 0, 0
    for equation in jaxpr.eqns:
        marks = [not isinstance(v, core.Literal) and v in marked for v in equation.invars]
        if not any(marks):
            continue
        marked.update(equation.outvars)
        parts = _inner(equation)
        for inner in parts:
            # Where a loop's inputs are not the equation's, all of them count as entered.
            fits = len(inner.invars) == len(marks)
            found = _walk(inner, marks if fits else [True] * len(inner.invars))
            made, weight = max(made, found.made), max(weight, found.weight)
        made = max([made, *map(_bytes, equation.outvars)])
        if not parts:
            met = (v for v, mark in zip(equation.invars, marks, strict=True) if not mark)
            weight = max([weight, *map(_bytes, met)])
    return Largest(made, weight)


def _bytes(variable: Any) -> int:
    return math.prod(variable.aval.shape) * variable.aval.dtype.itemsize


def _inner(equation: Any) -> list[Any]:
    values = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_closed)
    opened = [v.jaxpr if _is_closed(v) else v for v in values]
    return [v for v in opened if isinstance(v, core.Jaxpr)]


def _is_closed(value: Any) -> bool:
    return isinstance(value, core.ClosedJaxpr)
