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

import diffrax
import jax
import jax.numpy as jnp

from benchmarks import attention_peers, attention_problem, attention_torch
from benchmarks.attention_peers import LINEN, OURS, TORCH, Peer
from benchmarks.attention_problem import Contender, Problem, Shape
from benchmarks.attention_rows import finished
from benchmarks.distance_timing import interleaved
from meanfield import flow, nn, ode
from meanfield.flow.program import whole

SEED = 0


class Peaks(NamedTuple):
    """What the machine did in this run: matrix products, and reading and writing of memory."""

    flops_per_second: float
    bytes_per_second: float


class Flow(NamedTuple):
    """A solved gradient flow: gradients, seconds of a second solve, bytes of its program."""

    gradients: int
    seconds: float
    processor_seconds: float
    scratch_bytes: float
    argument_bytes: float
    output_bytes: float


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


def activations(shape: Shape, depth: int, scratch: dict[str, float]) -> dict[str, float]:
    """Scratch bytes that as many samples again add to a gradient, here and in flax.linen."""
    twice = shape._replace(batch=2 * shape.batch)
    given = attention_problem.problem(SEED, twice, "float32", depth=depth)
    linen: Any = attention_peers.peers(twice, "float32")[LINEN]
    more = {
        OURS: attention_peers.of_ours(network(twice, depth), given.heads, given),
        LINEN: _deep(linen, 1 / (depth * shape.heads), given),
    }
    return {name: it.scratch_bytes - scratch[name] for name, it in more.items()}


def network(shape: Shape, depth: int, *, axis: str | None = None) -> Callable[[Any, Any], Any]:
    """This library's network, as a map of (heads, tokens of one sample)."""
    block = nn.attention(dim=shape.dim, head_dim=shape.head_dim)
    layers = nn.network((block,), depth=depth, axis=axis)
    return lambda heads, tokens: layers.apply((heads,), tokens)


def flowing(shape: Shape, depth: int, horizon: float) -> Flow:
    """The gradient flow of the mean square error from its start to a horizon, solved twice."""
    given = attention_problem.problem(SEED, shape, "float32", depth=depth)
    risk = flow.empirical_risk(network(shape, depth), given.tokens, given.targets, loss=mean_square)
    field = flow.gradient_field(risk, lambda heads: float(depth * shape.heads))
    heads = jax.tree.map(jnp.asarray, given.heads)
    record: Any = None

    def solve() -> float:
        nonlocal record
        record = flow.gradient_flow(field, heads, [0.0, horizon], atol=1e-3)
        return float(record.statistics["gradients"])

    timing = interleaved({OURS: solve}, rounds=1, least_seconds=0.0, patience=0.0)[OURS]
    memory = _flow_memory(field, heads, horizon)
    return Flow(
        record.statistics["gradients"],
        timing.seconds,
        timing.processor_seconds,
        memory.temp_size_in_bytes,
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
    )


def _flow_memory(field: Any, heads: Any, horizon: float) -> Any:
    """What the program of the whole flow says that it allocates."""
    numbers = (jnp.asarray(given, jnp.float32) for given in ([0.0, horizon], 0.1, [1e-3, 1e-3]))
    choices = {"solver": ode.RKC2(), "max_steps": 1000, "meter": diffrax.NoProgressMeter()}
    program: Any = whole
    lowered = program.lower((field, heads, {}, {}), *numbers, **choices)
    return lowered.compile().compiled.memory_analysis()


def mean_square(output: Any, target: Any) -> Any:
    """Half the mean squared error of one sample, whose flow is no stiffer for more tokens."""
    return jnp.mean((output - target) ** 2) / 2


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
