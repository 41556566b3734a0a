"""The same gradient on one device and on several virtual ones, in a process of its own.

    python -m benchmarks.width_spread HEADS HEAD_DIM DIM TOKENS BATCH DEPTH ROUNDS

runs with as many devices as ``XLA_FLAGS`` makes and prints one line of JSON: the largest difference
relative to the largest entry, and wall and processor seconds of both.

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
from jax.sharding import PartitionSpec

from benchmarks import attention_peers, width_networks
from benchmarks.attention_peers import Shape
from benchmarks.distance_timing import interleaved
from meanfield import devices, flow


def measured(shape: Shape, depth: int, *, devices: int, rounds: int) -> dict[str, Any]:
    """What a process with so many virtual devices says.

    Args:
        shape: Sizes of the network; devices divide its heads, and two of them its batch.
        depth: Its layers.
        devices: Virtual devices: half of them along the heads, two along the samples.
        rounds: Samples of each, taken in turns.
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    words = [sys.executable, "-m", __name__, *map(str, (*shape, depth, rounds))]
    told = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if told.returncode:
        raise RuntimeError(f"the process with {devices} devices failed: {told.stderr}")
    return json.loads(told.stdout.splitlines()[-1])


def main(words: Sequence[str]) -> None:
    """Both gradients in this process."""
    *sizes, depth, rounds = map(int, words)
    shape = Shape(*sizes)
    given = attention_peers.problem(width_networks.SEED, shape, "float32", depth=depth)
    mesh = devices.mesh(data=2, heads=jax.device_count() // 2)
    along = PartitionSpec(None, "heads")
    alone = flow.empirical_risk(width_networks.network(shape, depth), given.tokens, given.targets)
    spread = flow.empirical_risk(
        width_networks.network(shape, depth, axis="heads"),
        given.tokens, given.targets, mesh=mesh, partition=along,
    )  # fmt: skip
    pair = {
        "one": attention_peers.compiled(attention_peers.risk_gradient, alone, given.heads),
        "several": attention_peers.compiled(
            attention_peers.risk_gradient, spread, devices.spread(given.heads, mesh, along)
        ),
    }
    found = {name: jax.tree.map(np.asarray, it.run()) for name, it in pair.items()}
    timings = interleaved(
        {name: functools.partial(width_networks.finished, it) for name, it in pair.items()},
        rounds=rounds,
        least_seconds=0.0,
        patience=math.inf,
    )
    said: dict[str, Any] = {"devices": jax.device_count(), "apart": _apart(found)}
    for name, timing in timings.items():
        said[name] = {"seconds": timing.seconds, "processor_seconds": timing.processor_seconds}
    print(json.dumps(said))


def _apart(found: dict[str, Any]) -> float:
    leaves = zip(*(jax.tree.leaves(found[name]) for name in ("several", "one")), strict=True)
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in leaves)


if __name__ == "__main__":
    main(sys.argv[1:])
