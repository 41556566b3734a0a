"""Gradients on one device and on several virtual ones, in a process of its own.

    python -m benchmarks.width_spread SEEDS HEADS HEAD_DIM DIM TOKENS BATCH DEPTH ROUNDS HORIZON

runs with as many devices as ``XLA_FLAGS`` makes and prints one line of JSON: wall and processor
seconds of every program and, of the same gradient on one device and on all, the largest difference
relative to the largest entry. One seed: particles and samples are spread, and a flow is solved as
well. Several: samples alone.

One trap: virtual devices share the cores of one processor. They cannot be faster than one device;
what they show is the work that the spreading adds.
"""

import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from benchmarks import attention_problem, width_flows, width_networks
from benchmarks.attention_problem import Contender, Shape, risk_gradient
from benchmarks.attention_rows import finished
from benchmarks.distance_timing import interleaved
from meanfield import devices, flow, replicas


def measured(
    shape: Shape, depth: int, *, devices: int, rounds: int, seeds: int = 1, horizon: float = 0.0
) -> dict[str, Any]:
    """What a process with so many virtual devices says.

    Args:
        shape: Sizes of the network.
        depth: Its layers.
        devices: Virtual devices. For one seed, two of them along the samples and the others along
            the heads; all along the samples for several.
        rounds: Samples of each program, taken in turns.
        seeds: Networks whose gradients one program takes.
        horizon: Time to which the flow of one seed is solved.
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    words = [sys.executable, "-m", __name__, *map(str, (seeds, *shape, depth, rounds, horizon))]
    told = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if told.returncode:
        raise RuntimeError(f"the process with {devices} devices failed: {told.stderr}")
    return json.loads(told.stdout.splitlines()[-1])


def main(words: Sequence[str]) -> None:
    """The programs in this process."""
    seeds, *sizes, depth, rounds = map(int, words[:-1])
    shape, horizon = Shape(*sizes), float(words[-1])
    programs = _spread(shape, depth) if seeds == 1 else _seeds(shape, depth, seeds)
    timings = interleaved(
        {name: functools.partial(finished, it) for name, it in programs.items()},
        rounds=rounds,
        least_seconds=0.0 if seeds == 1 else 0.1,
        patience=math.inf,
    )
    said: dict[str, Any] = {"devices": jax.device_count()}
    if seeds == 1:
        said["apart"] = attention_problem.apart(programs["several"].run(), programs["one"].run())
    for name, timing in timings.items():
        program = programs[name]
        said[name] = {
            "seconds": timing.seconds,
            "processor_seconds": timing.processor_seconds,
            "scratch_bytes": program.scratch_bytes,
            "argument_bytes": program.argument_bytes,
            "output_bytes": program.output_bytes,
        }
    if seeds == 1:
        said |= _flows(shape, depth, rounds, horizon)
    print(json.dumps(said))


def _spread(shape: Shape, depth: int) -> dict[str, Contender]:
    """The same gradient on one device and on all."""
    given = attention_problem.problem(width_networks.SEED, shape, "float32", depth=depth)
    mesh = _mesh()
    along = PartitionSpec(None, "heads")
    alone = flow.empirical_risk(width_networks.network(shape, depth), given.tokens, given.targets)
    spread = flow.empirical_risk(
        width_networks.network(shape, depth, axis="heads"),
        given.tokens, given.targets, mesh=mesh, partition=along,
    )  # fmt: skip
    return {
        "one": attention_problem.compiled(risk_gradient, alone, given.heads),
        "several": attention_problem.compiled(
            risk_gradient, spread, devices.spread(given.heads, mesh, along)
        ),
    }


def _flows(shape: Shape, depth: int, rounds: int, horizon: float) -> dict[str, Any]:
    """The same flow on one device and on all."""
    fields = {
        "one": width_flows.field(shape, depth),
        "several": width_flows.field(shape, depth, _mesh()),
    }
    found = width_flows.solved(fields, horizon, rounds=rounds, patience=0.0)
    ends = (found[name][1] for name in ("several", "one"))
    costs = {f"flow {name}": costs for name, (costs, _) in found.items()}
    return costs | {"flow apart": attention_problem.apart(*ends)}


def _mesh() -> Mesh:
    return devices.mesh(data=2, heads=jax.device_count() // 2)


def _seeds(shape: Shape, depth: int, seeds: int) -> dict[str, Contender]:
    """Gradients of one network and of several, on one device and with samples spread over all."""
    drawn = [
        attention_problem.problem(width_networks.SEED + seed, shape, "float32", depth=depth)
        for seed in range(seeds)
    ]
    heads = {
        "one": drawn[0].heads,
        "several": jax.tree.map(lambda *leaves: np.stack(leaves), *(each.heads for each in drawn)),
    }
    gradients = {"one": risk_gradient, "several": _gradients}
    mesh, found = devices.mesh(data=jax.device_count()), {}
    for place, over in (("alone", None), ("spread", mesh)):
        net = width_networks.network(shape, depth)
        risk = flow.empirical_risk(net, drawn[0].tokens, drawn[0].targets, mesh=over)
        for number, gradient in gradients.items():
            theta = heads[number]
            if over is not None:
                theta = devices.spread(theta, over, PartitionSpec())
            found[f"{number}, {place}"] = attention_problem.compiled(gradient, risk, theta)
    return found


def _gradients(risk: Any, heads: Any) -> Any:
    return replicas.batched(functools.partial(risk_gradient, risk))(heads)


if __name__ == "__main__":
    main(sys.argv[1:])
