"""A network on eight devices, of one process or of several, against the same on one device.

    python spread_program.py DUMP [COORDINATOR NUMBER_OF_PROCESSES PROCESS]

DUMP is the folder to which ``XLA_FLAGS`` sends the compiled programs. Prints one line of JSON: the
largest differences relative to the largest entry, and what the compiled programs communicate.
"""

import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec

from meanfield import devices, flow, nn, replicas, tree

DUMP, *PROCESS = sys.argv[1:]
DEPTH, DIM, WIDTH, SAMPLES = 3, 4, 8, 8
COLLECTIVES = re.compile(
    r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
)
TIMES = np.linspace(0.0, 2.0, 3)
BOUND = 0.5


def regression(axis=None, chunk=None):
    """A small Transformer."""
    blocks = (nn.attention(dim=DIM, head_dim=2), nn.mlp(dim=DIM))
    network = nn.network(blocks, depth=DEPTH, axis=axis, chunk=chunk)
    patches = nn.patches(shape=(4, 4, 1), patch=2, dim=DIM)
    return nn.model(patches, network, nn.class_read(dim=DIM, classes=2))


def risk(model, mesh=None, chunk=None):
    """The mean loss over the samples."""
    images = jnp.asarray(np.random.default_rng(0).normal(size=(SAMPLES, 4, 4, 1)))
    spread = {} if mesh is None else {"mesh": mesh, "partition": model.partition("heads")}
    return flow.empirical_risk(
        model.apply, images, jnp.arange(SAMPLES) % 2, loss="cross_entropy", chunk=chunk, **spread
    )


def energy(model, mesh=None, chunk=None):
    """The regularised energy."""
    return flow.energy(risk(model, mesh, chunk), model.decay_scales, weight_decay=0.01)


@jax.jit
def derivatives(energy, theta):
    """Energy, gradient, and a Hessian product."""
    value, gradient = jax.value_and_grad(energy)(theta)
    tangent = jax.tree.map(jnp.cos, theta)
    product = jax.jvp(jax.grad(energy), (theta,), (tangent,))[1]
    return {"energy": value, "gradient": gradient, "product": product}


def flowing(model, energy, theta):
    """The record of a flow, with an event asked after every step."""
    field = flow.gradient_field(energy, model.time_scales)
    stop = {"low": flow.gradient_below(field, 1e-6)}
    return flow.gradient_flow(field, theta, TIMES, observe=energy, stop=stop)


def halting(energy, model, theta):
    """The record of a flow that an event ends, where the gradient has come down to BOUND."""
    field = flow.gradient_field(energy, model.time_scales)
    stop = {"low": flow.gradient_below(field, BOUND)}
    return flow.gradient_flow(field, theta, TIMES, stop=stop)


def curvature(energy, model, theta):
    """The extreme eigenvalues of the Hessian in the flow's metric."""
    found = flow.sharpness(flow.gradient_field(energy, model.time_scales))(theta)
    return {"largest": found.largest, "smallest": found.smallest}


def descending(model, mesh=None):
    """From theta and a decay to where the flow's velocity is small, and the steps to there."""
    loss = risk(model, mesh)

    def solve(theta, decay):
        decayed = flow.energy(loss, model.decay_scales, weight_decay=decay)
        field = flow.gradient_field(decayed, model.time_scales)

        def fast(state):
            return (tree.squared_norm(state[1]) > 4.0) & (state[2] < 100)

        def step(state):
            theta = jax.tree.map(lambda leaf, rate: leaf + 0.01 * rate, *state[:2])
            return theta, field(0.0, theta), state[2] + 1

        theta, _, steps = jax.lax.while_loop(fast, step, (theta, field(0.0, theta), 0))
        return theta, steps

    return solve


def several(alone, model, start):
    """Descents of four replicas, two by two on four devices each, against all on one device."""
    mesh = devices.mesh(replicas=2, data=2, heads=2)
    decays = jnp.array([5.0, 8.0, 12.0, 20.0])
    start = jax.tree.map(
        lambda leaf: np.stack([leaf * sign for sign in (1.0, -1.0, 0.5, -0.5)]), start
    )
    expected = jax.jit(jax.vmap(descending(alone)))(start, decays)
    each = replicas.each_replica(descending(model, mesh), mesh)
    lying = replicas.of_replicas((model.partition("heads"), PartitionSpec()))
    given = devices.spread((start, decays), mesh, lying)
    compiled = each.lower(*given).compile()
    found = compiled(*given)
    return {
        "ends": apart(found[0], expected[0]),
        "steps": [expected[1].tolist(), found[1].tolist()],
        "groups": groups(compiled.as_text()),
    }


def groups(text):
    """The kinds of collectives of a program, and the groups of devices within which they talk."""
    found = {}
    for line in text.splitlines():
        for name in COLLECTIVES.findall(line):
            (given,) = re.findall(r"replica_groups=\{(\{.*?\})\}", line)
            found.setdefault(name, set()).update(re.findall(r"\{([\d,]+)\}", given))
    return {name: sorted(each) for name, each in found.items()}


def apart(found, expected):
    """The largest difference of two trees, relative to the largest entry."""
    whole = jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), found)
    gaps = [
        np.max(np.abs(np.asarray(a) - np.asarray(b))) / np.max(np.abs(np.asarray(b)))
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(expected), strict=True)
    ]
    return float(max(gaps))


def solve_collectives():
    """What the solves on several devices communicate, one list for each of them."""
    programs = [path.read_text() for path in Path(DUMP).glob("*after_optimizations.txt")]
    found = [sorted(set(COLLECTIVES.findall(text))) for text in programs]
    return [names for names in found if names]


def main():
    """Everything on one device and on all of them."""
    jax.config.update("jax_enable_x64", True)
    if PROCESS:
        jax.distributed.initialize(PROCESS[0], *map(int, PROCESS[1:]))
    mesh = devices.mesh(data=2, heads=4)
    alone = regression()
    start = alone.init(jax.random.key(0), width=WIDTH)
    expected = derivatives(energy(alone), start)
    said = {"devices": jax.device_count()}
    for name, chunks in (("whole", (None, None)), ("chunks", (3, 1))):
        model = regression("heads", chunks[1])
        theta = devices.spread(start, mesh, model.partition("heads"))
        spread = energy(model, mesh, chunks[0])
        found = derivatives(spread, theta)
        said[name] = {key: apart(value, expected[key]) for key, value in found.items()}
        if name == "whole":
            one, all_of_them = flowing(alone, energy(alone), start), flowing(model, spread, theta)
            said["flow"] = apart(all_of_them.theta, one.theta)
            said["statistics"] = [one.statistics, all_of_them.statistics]
        if PROCESS:
            break
        if name == "whole":
            said["solve"] = solve_collectives()
            compiled = jax.jit(lambda e, at: jax.grad(e)(at)).lower(spread, theta).compile()
            said["gradient"] = COLLECTIVES.findall(compiled.as_text())
            ended = halting(energy(alone), alone, start), halting(spread, model, theta)
            said["event"] = [[each.result, each.end_time] for each in ended]
            said["event apart"] = apart(ended[1].theta, ended[0].theta)
            known = curvature(energy(alone), alone, start)
            said["curvature"] = apart(curvature(spread, model, theta), known)
            said["replicas"] = several(alone, model, start)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
