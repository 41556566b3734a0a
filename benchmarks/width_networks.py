r"""Gradients of a deep attention network by this library and by others, and what bounds them.

    T  <-  T + (1/L) (1/M) sum_j f(T, theta_{l,j})        for l = 1..L,    loss (1/2B) sum_b |T_b -
    Y_b|^2

The matrix products of a gradient are counted as three times those of the forward pass: work that is
done twice to save memory does not count as work.

One trap: the fraction of a peak means something only if the peak was measured beside it, on the
machine as busy as it was.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import attention_peers, attention_problem, attention_torch
from benchmarks.attention_peers import LINEN, OURS, TORCH, Peer
from benchmarks.attention_problem import Contender, Problem, Shape
from benchmarks.attention_rows import finished
from benchmarks.distance_timing import interleaved
from meanfield import nn

SEED = 0
MORE = 8
"""Times the samples whose activations are told from copies of the parameters."""


class Peaks(NamedTuple):
    """What the machine did in this run: matrix products, and reading and writing of memory."""

    flops_per_second: float
    bytes_per_second: float


def contenders(shape: Shape, depth: int, libraries: Sequence[str]) -> dict[str, Contender | str]:
    """The gradient of one network by this library and others, or why one has none."""
    given = attention_problem.problem(SEED, shape, "float32", depth=depth)
    found: dict[str, Contender | str] = {
        OURS: attention_peers.of_ours(network(shape, depth), given.heads, given)
    }
    step = 1 / (depth * shape.heads)
    for library, peer in attention_peers.peers(shape, "float32").items():
        if library in libraries:
            found[library] = peer if isinstance(peer, str) else _deep(peer, step, given)
    if TORCH in libraries:
        found[TORCH] = attention_torch.torch_layers(given, residual=step)
    return found


def activations(shape: Shape, depth: int) -> dict[str, float]:
    """Scratch bytes that more samples add to a gradient of them all at once, and linen's."""
    several = [scratch(shape._replace(batch=times * shape.batch), depth) for times in (1, MORE)]
    return {name: several[1][name] - several[0][name] for name in several[0]}


def scratch(shape: Shape, depth: int) -> dict[str, float]:
    """Scratch bytes of a gradient, all samples at once, here and in flax.linen."""
    given = attention_problem.problem(SEED, shape, "float32", depth=depth)
    linen: Any = attention_peers.peers(shape, "float32")[LINEN]
    own = attention_peers.of_ours(network(shape, depth), given.heads, given, chunk=shape.batch)
    other = _deep(linen, 1 / (depth * shape.heads), given)
    return {OURS: own.scratch_bytes, LINEN: other.scratch_bytes}


def network(shape: Shape, depth: int, *, axis: str | None = None) -> Callable[[Any, Any], Any]:
    """This library's network, as a map of (heads, tokens of one sample)."""
    block = nn.attention(dim=shape.dim, head_dim=shape.head_dim)
    layers = nn.network((block,), depth=depth, axis=axis)
    return lambda heads, tokens: layers.apply((heads,), tokens)


def peaks(size: int, dtype: str = "float32") -> Peaks:
    """The fastest matrix product of a size, and the fastest sweep through large arrays."""
    square = jnp.ones((size, size), dtype)
    # Far larger than any cache; two arrays are read and one written.
    long = jnp.ones(8 * size**2, dtype)
    matrix = attention_problem.compiled(jnp.dot, square, square)
    sweep = attention_problem.compiled(lambda a, b: a + b / 2, long, 2 * long)
    timings = interleaved(
        {
            "matrix": functools.partial(finished, matrix),
            "sweep": functools.partial(finished, sweep),
        },
        rounds=5,
        least_seconds=0.0,
        patience=math.inf,
    )
    fastest = {name: min(timing.samples) for name, timing in timings.items()}
    moved = 3 * long.dtype.itemsize * long.size
    return Peaks(2 * size**3 / fastest["matrix"], moved / fastest["sweep"])


def _deep(peer: Peer, step: float, given: Problem) -> Contender:
    def apply(layers: Any, tokens: jax.Array) -> jax.Array:
        def layer(tokens: jax.Array, parameters: Any) -> tuple[jax.Array, None]:
            return tokens + step * peer.apply(parameters, tokens), None

        return jax.lax.scan(layer, tokens, layers)[0]

    return attention_peers.of_peer(peer._replace(apply=apply), given.heads, given)
