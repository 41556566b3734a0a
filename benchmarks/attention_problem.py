r"""One attention network, the same for every library, and what a library answers to it.

    gradient of (1/2B) sum_b |A(T_b) - Y_b|^2 in the heads,      A(T) = sum_j S_j(T) T W_V^j W_O^j

Answers are compared entry by entry, in heads and tokens: outputs, and gradients in each library's
own parameters, laid out as heads again.

    apart = max over arrays of  max |a - b| / max |b|

One trap: squared norms agree where entries do not, as when two heads are exchanged.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from meanfield import nn


class Shape(NamedTuple):
    """Sizes of a layer and of its batch."""

    heads: int
    head_dim: int
    dim: int
    tokens: int
    batch: int


class Problem(NamedTuple):
    """Heads with leading axes [l, m] and samples [b n d], on the host."""

    heads: nn.Head
    tokens: np.ndarray
    targets: np.ndarray


class Contender(NamedTuple):
    """A gradient ready to be taken; bytes of its program are NaN where nobody counts them.

    Attributes:
        run: The gradient, in the parameters of the library.
        output: What the network makes of the tokens.
        heads: From the gradient of the library to that of the heads.
    """

    run: Callable[[], Any]
    output: Callable[[], Any]
    heads: Callable[[Any], nn.Head]
    compile_seconds: float = 0.0
    scratch_bytes: float = np.nan
    argument_bytes: float = np.nan
    output_bytes: float = np.nan


def problem(seed: int, shape: Shape, dtype: str, *, depth: int = 1) -> Problem:
    """Normal heads of variance 1/fan-in, tokens and targets: the same numbers in every dtype."""
    rng = np.random.default_rng(seed)

    def normal(*sizes: int, scale: float = 1.0) -> np.ndarray:
        # Numbers of sixteen bits in every precision: one problem for all of them.
        numbers = (scale * rng.standard_normal(sizes, np.float32)).astype(jnp.bfloat16)
        return numbers.astype(dtype)

    into = (depth, shape.heads, shape.dim, shape.head_dim)
    fan_in = shape.dim**-0.5
    query, key, value = (normal(*into, scale=fan_in) for _ in range(3))
    back = (depth, shape.heads, shape.head_dim, shape.dim)
    output = normal(*back, scale=shape.head_dim**-0.5)
    tokens, targets = (normal(shape.batch, shape.tokens, shape.dim) for _ in range(2))
    heads: Any = (query, key, value, output)
    return Problem(nn.Head(*heads), tokens, targets)


def only_layer(given: Problem) -> nn.Head:
    """The heads of the one layer, without the axis of layers."""
    return nn.Head(*(leaf[0] for leaf in given.heads))


def products(shape: Shape, depth: int) -> float:
    """Floating-point operations in the matrix products of one gradient, none done twice."""
    rows, size = shape.batch * shape.tokens, shape.heads * shape.head_dim
    projections = 4 * 2 * rows * shape.dim * size
    mixing = 2 * 2 * rows * shape.tokens * size
    return 3.0 * depth * (projections + mixing)


def merged(heads: nn.Head) -> tuple[Any, Any]:
    """Kernels [l d 3mk] into queries, keys and values of all heads, and [l mk d] back."""
    *lead, width, dim, size = heads.query.shape
    kernels: Any = heads[:3]
    into = [np.moveaxis(leaf, -3, -2).reshape(*lead, dim, width * size) for leaf in kernels]
    return np.concatenate(into, axis=-1), heads.output.reshape(*lead, width * size, dim)


def parted(size: int, kernels: tuple[Any, Any], /) -> nn.Head:
    """The heads of a size whose kernels :func:`merged` gives."""
    into, back = map(np.asarray, kernels)
    *lead, dim, _ = into.shape
    each = np.split(into, 3, axis=-1)
    query, key, value = (np.moveaxis(leaf.reshape(*lead, dim, -1, size), -2, -3) for leaf in each)
    heads: Any = (query, key, value, back.reshape(*lead, -1, size, dim))
    return nn.Head(*heads)


def compiled(
    gradient: Callable[..., Any],
    *arguments: Any,
    output: Callable[[], Any] = tuple,
    heads: Callable[[Any], nn.Head] = lambda gradient: gradient,
) -> Contender:
    """The gradient as one program for these arguments, and what that program needs."""
    arguments = jax.tree.map(jnp.asarray, arguments)
    begin = time.perf_counter()
    program = jax.jit(gradient).lower(*arguments).compile()
    seconds = time.perf_counter() - begin
    memory: Any = program.memory_analysis()
    return Contender(
        lambda: jax.block_until_ready(program(*arguments)),
        output,
        heads,
        seconds,
        memory.temp_size_in_bytes,
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
    )


def risk_gradient(risk: Any, heads: Any) -> Any:
    """The gradient of a risk, as a function of its data too: they are no constants of a program."""
    return jax.grad(risk)(heads)


def answer(contender: Contender) -> Any:
    """Outputs, and the gradient in the heads, as arrays on the host."""
    return jax.tree.map(np.asarray, (contender.output(), contender.heads(contender.run())))


def apart(found: Any, truth: Any) -> float:
    """The largest difference of entries, each array's over its own largest entry.

    Args:
        found: Arrays, in any precision.
        truth: What they should be.
    """

    def worst(one: Any, other: Any) -> float:
        one, other = (np.asarray(leaf, np.float64) for leaf in (one, other))
        return float(np.max(np.abs(one - other)) / np.max(np.abs(other)))

    # A NaN must come through, which max() would lose.
    return float(np.max(jax.tree.leaves(jax.tree.map(worst, found, truth))))
