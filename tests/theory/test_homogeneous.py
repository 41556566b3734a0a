import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from theory_problems import BLOCKS, INPUTS, KAPPA, MEANS, particles, token_risk

from meanfield import nn, theory
from meanfield.theory.homogeneous import check_linear, flat, reduced

PARTICLES = particles(0)
STATES = theory.network_states(MEANS, token_risk, PARTICLES, INPUTS, kappa=KAPPA)
MARKS = (True, False)


def risk_part(theta):
    """Linear in the first leaf: <g(theta_2), theta_1>, g in the plane."""
    return theta[0][0] * jnp.sin(theta[1][0]) + theta[0][1] * theta[1][1]


REST = jnp.array([0.7, -1.2])
FORCE = np.hypot(np.sin(0.7), 1.2)


@pytest.mark.parametrize(
    ("weight_decay", "radius", "length"),
    [
        (0.0, 2.0, 2.0),
        (0.5, 2.0, 2.0),
        (0.5, math.inf, FORCE / 0.5),
        (0.5, 100.0, FORCE / 0.5),
    ],
)
def test_best_homogeneous_part(weight_decay, radius, length):
    """Closed form: against the force, as long as decay and ball allow; and no worse than a grid."""

    def value(first):
        squares = jnp.sum(first**2) + jnp.sum(REST**2)
        return risk_part((first, REST)) + weight_decay / 2 * squares

    found = reduced(risk_part, MARKS, weight_decay, radius)((jnp.ones(2), REST))
    np.testing.assert_allclose(found.force, FORCE, rtol=round_off())
    np.testing.assert_allclose(np.linalg.norm(found.particle[0]), length, rtol=round_off())
    np.testing.assert_array_equal(found.particle[1], REST)
    np.testing.assert_allclose(found.value, value(found.particle[0]), rtol=round_off())
    grid = np.random.default_rng(0).normal(size=(2000, 2))
    grid *= min(radius, 10) / np.maximum(np.linalg.norm(grid, axis=1, keepdims=True), 1)
    assert np.all(found.value <= jax.vmap(value)(jnp.asarray(grid)))


def test_envelope():
    """Finite difference: the slope of V in theta_2, whose best theta_1 moves along."""
    least = jax.jit(lambda rest: reduced(risk_part, MARKS, 0.3, 4.0)((jnp.zeros(2), rest)).value)
    slope, step = jax.grad(least)(REST), 1e-6
    for axis in range(2):
        shift = step * jnp.eye(2)[axis]
        expected = (least(REST + shift) - least(REST - shift)) / (2 * step)
        np.testing.assert_allclose(slope[axis], expected, rtol=1e-7)


def test_no_force():
    """Closed form: where the force vanishes the best homogeneous part is 0, also without decay."""
    for weight_decay in (0.0, 0.5):
        least = reduced(risk_part, MARKS, weight_decay, 1.0)
        found = least((jnp.ones(2), jnp.zeros(2)))
        np.testing.assert_array_equal(found.particle[0], 0.0)
        assert float(found.value) == float(found.force) == 0.0


def test_no_homogeneous_part():
    """Closed form: nothing is minimised out; V is the first variation itself."""
    theta = (jnp.array([0.3, 0.4]), REST)
    found = reduced(risk_part, (False, False), 0.5, 1.0)(theta)
    expected = float(risk_part(theta)) + 0.25 * (0.25 + float(jnp.sum(REST**2)))
    np.testing.assert_allclose(found.value, expected, rtol=round_off())


@pytest.mark.parametrize(
    ("block", "mask", "marks"),
    [
        (1, nn.Neuron(False, False, True), (False, False, True)),
        (0, nn.Head(False, False, False, True), (False, False, False, True)),
        (0, nn.Head(False, False, True, False), (False, False, True, False)),
        (0, False, (False,) * 4),
    ],
)
def test_linear_parts(block, mask, marks):
    """Theorem: heads are linear in the output matrix and in the value matrix, neurons in w_out."""
    found = check_linear(BLOCKS[block].particle, mask, PARTICLES[block], STATES[block])
    assert found == marks


@pytest.mark.parametrize(
    ("block", "mask"),
    [
        (1, nn.Neuron(False, True, True)),
        (1, True),
        (0, nn.Head(False, False, True, True)),
        (0, nn.Head(True, False, False, False)),
    ],
)
def test_parts_that_are_not_linear(block, mask):
    """Theorem: no bias, no query; value and output are linear each, not together."""
    with pytest.raises(ValueError, match="^homogeneous must mark a part .* is linear.*mark fewer"):
        check_linear(BLOCKS[block].particle, mask, PARTICLES[block], STATES[block])


def test_one_particle_is_not_linear_by_accident():
    """Theorem: a layer of one particle is refused as well as one of many."""
    alone = jax.tree.map(lambda leaf: leaf[:, :1], PARTICLES[1])
    mask = nn.Neuron(False, True, True)
    with pytest.raises(ValueError, match="^homogeneous must mark"):
        check_linear(BLOCKS[1].particle, mask, alone, STATES[1])


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize(
    "encoder",
    [
        lambda tokens, theta, mask: theta["in"] ** 2 * tokens,
        lambda tokens, theta, mask: theta["out"] * jnp.tanh(theta["in"]) * tokens,
        lambda tokens, theta, mask: theta["out"] * jnp.maximum(theta["in"], 0.0) * tokens,
    ],
)
def test_special_weights_are_not_linear_by_accident(encoder, value):
    """Theorem: no square, tanh or ReLU is linear, though it looks so at weights all 0 or all 1."""
    tree = {"in": jnp.full((1, 2), value), "out": jnp.full((1, 2), value)}
    at = theory.States(jnp.zeros(1), jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
    with pytest.raises(ValueError, match="^homogeneous must mark"):
        check_linear(encoder, {"in": True, "out": False}, tree, at)


def test_covering_angle():
    """Closed form: four axes of the plane leave 45 degrees; the half-plane leaves 90 and more."""
    axes = jnp.array([[3.0, 0.0], [0.0, 0.1], [-1.0, 0.0], [0.0, -7.0]])
    angle, _ = theory.covering_angle(jax.random.key(0), axes, probes=4000)
    assert np.pi / 4 * 0.99 < float(angle) <= np.pi / 4
    angle, uniform = theory.covering_angle(jax.random.key(0), axes[:1], probes=4000)
    assert np.pi * 0.99 < float(angle) <= np.pi
    assert 0 < float(uniform) <= np.pi
    assert np.isnan(theory.covering_angle(jax.random.key(0), jnp.zeros((3, 0)))[0])
    with pytest.raises(ValueError, match="directions must be those of at least one particle"):
        theory.covering_angle(jax.random.key(0), jnp.zeros((0, 3)))


def test_parts_as_vectors():
    """Closed form: marked leaves one after the other, as in the tree."""
    tree = (jnp.arange(4.0).reshape(2, 2), jnp.array([9.0, 8.0]))
    np.testing.assert_array_equal(flat(tree, (True, True)), [[0, 1, 9], [2, 3, 8]])
    np.testing.assert_array_equal(flat(tree, (False, True)), [[9], [8]])
