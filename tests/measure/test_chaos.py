import functools

import jax
import jax.numpy as jnp
import linear_heads
import numpy as np
import pytest
from helpers import round_off

from meanfield import flow, measure
from meanfield.measure import Trajectory

KEY = jax.random.key(5)


def normals(key, width, depth):
    """Heads [l m 2], all independent."""
    return jax.random.normal(key, (depth, width, 2))


def moments(heads):
    """A run of two times: the mean head at the first, its double at the second."""
    mean, square = jnp.mean(heads, axis=(0, 1)), jnp.mean(heads**2)
    clouds = measure.clouds(heads)
    return Trajectory(
        jnp.stack([mean, 2 * mean]), jnp.stack([square, 2 * square]), jnp.stack([clouds, clouds])
    )


def test_one_program_per_shape():
    """Equality: one trace per width and depth, none where run and shapes were met before."""
    traces = []

    def counted(heads):
        traces.append(heads.shape)
        return moments(heads)

    for seeds in (6, 6):
        measure.replicas(KEY, normals, counted, widths=[2, 4, 8], depths=[1, 3], seeds=seeds)
        assert traces == [(depth, width, 2) for depth in (1, 3) for width in (2, 4, 8)]


def test_values_are_those_of_each_replica():
    """Numpy loop: every replica drawn, cut to its width and run alone."""
    runs = measure.replicas(KEY, normals, moments, widths=[2, 5], depths=[1, 3], seeds=4)
    assert (runs.widths, runs.depths, runs.nested) == ((2, 5, 2, 5), (1, 1, 3, 3), True)
    for width, depth, seen in zip(runs.widths, runs.depths, runs.trajectories, strict=True):
        for seed, key in enumerate(jax.random.split(KEY, 4)):
            heads = np.asarray(normals(key, 5, depth))[:, :width]
            mean = heads.mean(axis=(0, 1))
            np.testing.assert_allclose(
                seen.predictions[seed], [mean, 2 * mean], rtol=0, atol=round_off()
            )
            np.testing.assert_array_equal(seen.clouds[seed], [heads, heads])


def test_independent_configurations_share_no_head():
    """Invariance: no number occurs twice, neither in two configurations nor in two replicas."""
    runs = measure.replicas(
        KEY, normals, moments, widths=[2, 4], depths=[1, 2], seeds=3, nested=False
    )
    drawn = np.concatenate([seen.clouds[:, 0].ravel() for seen in runs.trajectories])
    assert not runs.nested
    assert np.unique(drawn).size == drawn.size


@pytest.mark.parametrize("coupling", ["independent", "path"])
def test_widths_of_a_network_are_nested(coupling):
    """Equality: the narrow run starts from the first heads of the wide one, in either coupling."""

    def start(theta):
        clouds = measure.clouds(theta.blocks[0])
        return Trajectory(jnp.zeros((1, 1)), jnp.zeros(1), clouds[None])

    runs = measure.replicas(
        KEY, linear_heads.draw(coupling), start, widths=[3, 7], depths=[2], seeds=2
    )
    narrow, wide = (seen.clouds for seen in runs.trajectories)
    np.testing.assert_array_equal(narrow, wide[:, :, :, :3])
    assert (wide[:, :, 0] == wide[:, :, 1]).all() == (coupling == "path")


def test_flows_side_by_side():
    """Independent library: one gradient flow of all replicas, against each by Heun's method."""
    both = measure.side_by_side(
        linear_heads.ENERGY, linear_heads.MODEL.time_scales, linear_heads.observe
    )
    field = flow.gradient_field(both.energy, both.time_scales)

    def run(theta):
        return flow.gradient_flow(
            field, theta, linear_heads.TIMES, observe=both.observe, rtol=1e-5, atol=1e-8
        ).observables

    options = {"widths": [8], "depths": [2], "seeds": 3}
    draw = linear_heads.draw("independent")
    flows = measure.replicas(KEY, draw, run, batched=True, **options).trajectories[0]
    small = functools.partial(linear_heads.run, steps=60)
    steps = measure.replicas(KEY, draw, small, **options).trajectories[0]
    assert flows.predictions.shape == (3, 3, 6)
    assert np.ptp(flows.risk[:, -1]) > 1e-3
    np.testing.assert_allclose(steps.predictions, flows.predictions, rtol=0, atol=2e-5)
    np.testing.assert_allclose(steps.risk, flows.risk, rtol=0, atol=2e-5)


def test_heads_of_the_battery():
    """Numpy loop: the fast mean of the heads is the mean of single heads."""
    block, tokens = linear_heads.BLOCK, linear_heads.PROMPTS.tokens[0]
    thetas = jax.vmap(block.draw)(jax.random.split(KEY, 3))
    alone = np.mean([block.particle(tokens, theta, None) for theta in thetas], axis=0)
    np.testing.assert_allclose(
        block.mean(tokens, thetas, None), alone, rtol=round_off(), atol=round_off()
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"widths": [4, 2]}, r"widths must increase, got \[4, 2\]; sort them"),
        ({"widths": []}, "widths must increase"),
        ({"widths": [0, 2]}, "width must be an integer >= 1, got 0"),
        ({"depths": []}, "depths must hold at least one depth, got none"),
        ({"depths": [0]}, "depth must be an integer >= 1, got 0"),
        ({"seeds": 0}, "seeds must be an integer >= 1, got 0"),
    ],
)
def test_refused_sizes(options, said):
    """Closed form: the message says what was got and what to do."""
    sizes = {"widths": [2, 4], "depths": [1], "seeds": 2, **options}
    with pytest.raises(ValueError, match=said):
        measure.replicas(KEY, normals, moments, **sizes)


@pytest.mark.parametrize(
    ("draw", "run", "said"),
    [
        (
            lambda key, width, depth: normals(key, width - 1, depth),
            moments,
            "widths are not nested: 4 particles",
        ),
        (
            lambda key, width, depth: normals(key, width, depth + 1),
            moments,
            r"\[l m\] = \[1 ...\], got depth 2",
        ),
        (normals, jnp.mean, "run must return a Trajectory, got ndarray"),
        (normals, lambda x: Trajectory(jnp.zeros((3, 1)), jnp.zeros(2)), r"predictions \[t ...\]"),
        (
            normals,
            lambda x: moments(x)._replace(clouds=jnp.zeros((2, 1, 0, 2))),
            "with particles in them, got .2, 1, 0, 2.; pass clouds",
        ),
    ],
)
def test_refused_functions(draw, run, said):
    """Closed form: the message says what was got and what to do."""
    with pytest.raises(ValueError, match=said):
        measure.replicas(KEY, draw, run, widths=[4], depths=[1], seeds=2)


def test_what_is_trained_beside_the_heads():
    """Closed form: a readout held in the run, and none of the axes of width asked of it."""
    weights = jnp.array([1.0, -2.0])
    runs = measure.replicas(
        KEY,
        normals,
        lambda x: Trajectory(jnp.tanh(x @ weights).mean()[None], jnp.zeros(1)),
        widths=[3],
        depths=[1],
        seeds=2,
    )
    assert runs.trajectories[0].predictions.shape == (2, 1)
    assert runs.trajectories[0].clouds is None
