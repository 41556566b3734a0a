r"""Gradient flows of a deep attention network, on one device and on several.

    theta' = -l m grad (1/2B) sum_b mean |T_b - Y_b|^2            from its start to a horizon

One trap: the mean over tokens, not the sum, keeps the flow as stiff for many tokens as for few.
"""

import functools
from collections.abc import Mapping
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from benchmarks import attention_problem, width_networks
from benchmarks.attention_problem import Shape
from benchmarks.distance_timing import interleaved
from meanfield import devices, flow, ode
from meanfield.flow.program import whole

ATOL = 1e-3


def field(shape: Shape, depth: int, mesh: Mesh | None = None) -> tuple[Any, Any]:
    """The flow's velocity and its start; on a mesh, samples and heads are spread over it."""
    given = attention_problem.problem(width_networks.SEED, shape, "float32", depth=depth)
    along = PartitionSpec(None, "heads")
    net = width_networks.network(shape, depth, axis=None if mesh is None else "heads")
    risk = flow.empirical_risk(
        net, given.tokens, given.targets, loss=mean_square, mesh=mesh, partition=along
    )
    heads = jax.tree.map(jnp.asarray, given.heads)
    if mesh is not None:
        heads = devices.spread(heads, mesh, along)
    return flow.gradient_field(risk, lambda heads: float(depth * shape.heads)), heads


def solved(
    fields: Mapping[str, tuple[Any, Any]], horizon: float, *, rounds: int, patience: float
) -> dict[str, tuple[dict[str, float], Any]]:
    """Costs of every flow and its end; they are solved in turns, compiled before.

    Args:
        fields: Velocities and starts.
        horizon: Time to which they are solved.
        rounds: Solves of each.
        patience: Seconds for all solves of one; a slow one gets fewer, at least two.
    """
    records: dict[str, Any] = {}

    def solve(name: str) -> float:
        records[name] = flow.gradient_flow(*fields[name], [0.0, horizon], atol=ATOL)
        return float(records[name].statistics["gradients"])

    timings = interleaved(
        {name: functools.partial(solve, name) for name in fields},
        rounds=rounds, least_seconds=0.0, patience=patience,
    )  # fmt: skip
    found = {}
    for name, timing in timings.items():
        memory = _memory(*fields[name], horizon)
        costs = {
            "gradients": records[name].statistics["gradients"],
            "products": records[name].statistics["products"],
            "seconds": timing.seconds,
            "processor_seconds": timing.processor_seconds,
            "scratch_bytes": memory.temp_size_in_bytes,
            "argument_bytes": memory.argument_size_in_bytes,
            "output_bytes": memory.output_size_in_bytes,
        }
        found[name] = costs, records[name].theta
    return found


def _memory(field: Any, heads: Any, horizon: float) -> Any:
    """What the program of the whole flow says that it allocates, on each device."""
    numbers = (jnp.asarray(given, jnp.float32) for given in ([0.0, horizon], 0.1, [1e-3, ATOL]))
    choices = {"solver": ode.RKC2(), "max_steps": 1000, "meter": diffrax.NoProgressMeter()}
    program: Any = whole
    lowered = program.lower((field, heads, {}, {}), *numbers, **choices)
    return lowered.compile().compiled.memory_analysis()


def mean_square(output: Any, target: Any) -> Any:
    """Half the mean squared error of one sample, whose flow is no stiffer for more tokens."""
    return jnp.mean((output - target) ** 2) / 2
