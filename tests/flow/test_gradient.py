import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import round_off

from meanfield import flow

RNG = np.random.default_rng(0)
THETA = {
    "body": (jnp.asarray(RNG.normal(size=3)), jnp.asarray(RNG.normal(size=(2, 2)))),
    "head": jnp.asarray(RNG.normal(size=2)),
}
SCALES = {"body": 6.0, "head": 1.0}
DECAYS = {"body": 1 / 6, "head": 0.0}


def risk(theta):
    first, second = theta["body"]
    return jnp.sum(jnp.sin(first)) * jnp.sum(theta["head"] ** 3) + jnp.sum(second @ theta["head"])


def scales(theta):
    del theta
    return SCALES


def decays(theta):
    del theta
    return DECAYS


def energy(weight_decay=0.3):
    return flow.energy(risk, decays, weight_decay=weight_decay)


def close(got, expected):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=round_off(), atol=round_off()),
        got,
        expected,
    )


def test_field_is_the_scaled_negative_gradient():
    """Closed form: -s (grad R + lambda decay theta), branch by branch."""
    field = flow.gradient_field(energy(), scales)
    slope = jax.grad(risk)(THETA)
    expected = {
        "body": jax.tree.map(lambda g, x: -6.0 * (g + 0.3 / 6 * x), slope["body"], THETA["body"]),
        "head": -slope["head"],
    }
    close(field(0.0, THETA), expected)
    close(field(3.0, THETA, "args"), expected)


def test_euler_step_is_decayed_sgd():
    """Independent library: optax add_decayed_weights + sgd on the scaled risk gradient."""
    step, weight_decay = 0.1, 0.3
    field = flow.gradient_field(flow.energy(risk, decays, weight_decay=weight_decay), scales)
    euler = jax.tree.map(lambda x, v: x + step * v, THETA, field(0.0, THETA))
    slope = jax.grad(risk)(THETA)
    scaled = {"body": jax.tree.map(lambda g: 6.0 * g, slope["body"]), "head": slope["head"]}
    mask = {"body": (True, True), "head": False}
    optimizer = optax.chain(optax.add_decayed_weights(weight_decay, mask=mask), optax.sgd(step))
    updates, _ = optimizer.update(scaled, optimizer.init(THETA), THETA)
    close(euler, optax.apply_updates(THETA, updates))


@pytest.mark.parametrize(
    ("trainable", "moving"),
    [
        (True, (True, True, True)),
        ({"body": True, "head": False}, (True, True, False)),
        ({"body": (False, True), "head": True}, (False, True, True)),
    ],
)
def test_trainable_branches(trainable, moving):
    """Closed form: a branch that is held fixed has velocity 0 exactly; the others keep theirs."""
    field = flow.gradient_field(energy(), scales, trainable=trainable)
    free = flow.gradient_field(energy(), scales)(0.0, THETA)
    for moves, got, want in zip(
        moving, jax.tree.leaves(field(0.0, THETA)), jax.tree.leaves(free), strict=True
    ):
        np.testing.assert_array_equal(got, want if moves else 0.0)


@pytest.mark.parametrize("trainable", [True, {"body": (False, True), "head": True}])
def test_dissipation(trainable):
    """Theorem: dQ/dtau = -sum s |grad Q|^2, the derivative of the energy along the field."""
    field = flow.gradient_field(energy(), scales, trainable=trainable)
    velocity, dissipation = field.velocity(THETA)
    slope = jax.jvp(field.energy, (THETA,), (velocity,))[1]
    np.testing.assert_allclose(-dissipation, slope, rtol=round_off())
    factors = jax.tree.leaves(field.metric(THETA))
    squares = [jnp.sum(v**2) for v in jax.tree.leaves(velocity)]
    metric = sum(float(v) / s for v, s in zip(squares, factors, strict=True) if s)
    np.testing.assert_allclose(dissipation, metric, rtol=round_off())


def test_dissipation_by_difference():
    """Finite difference: the energy along a short straight step, central, to its order."""
    field = flow.gradient_field(energy(), scales)
    velocity, dissipation = field.velocity(THETA)
    step = 1e-5
    ahead, behind = (
        field.energy(jax.tree.map(lambda x, v, h=h: x + h * v, THETA, velocity))
        for h in (step, -step)
    )
    np.testing.assert_allclose((ahead - behind) / (2 * step), -dissipation, rtol=1e-6)


def test_single_precision():
    """Invariance: float32 parameters have float32 velocities and dissipation."""
    theta = jax.tree.map(lambda leaf: leaf.astype(np.float32), THETA)
    velocity, dissipation = flow.gradient_field(energy(), scales).velocity(theta)
    assert {leaf.dtype for leaf in jax.tree.leaves((velocity, dissipation))} == {
        np.dtype(np.float32)
    }


def test_field_enters_jit():
    """Equality: a field is a tree; another lambda traces the risk 0 times."""
    traces = []

    def counted(theta):
        traces.append(None)
        return risk(theta)

    @jax.jit
    def velocity(field, theta):
        return field(0.0, theta)

    for weight_decay in (0.3, 0.7):
        field = flow.gradient_field(flow.energy(counted, decays, weight_decay=weight_decay), scales)
        close(velocity(field, THETA), flow.gradient_field(energy(weight_decay), scales)(0, THETA))
        if weight_decay == 0.3:
            first = len(traces)
    assert len(traces) == first > 0


@pytest.mark.parametrize("trainable", [False, {"body": (False, False), "head": False}])
def test_nothing_trainable(trainable):
    """Closed form: a mask that holds all of theta fixed is refused."""
    with pytest.raises(ValueError, match="^trainable must be True somewhere, got a mask"):
        flow.gradient_field(energy(), scales, trainable=trainable)


def test_mask_of_another_tree():
    """Closed form: a mask or time scales that are no prefix of theta are refused."""
    field = flow.gradient_field(energy(), scales, trainable={"body": True})
    with pytest.raises(ValueError, match="prefix must end no later"):
        field(0.0, THETA)
    field = flow.gradient_field(energy(), lambda theta: (1.0, 2.0))
    with pytest.raises(ValueError, match="prefix must end no later"):
        field(0.0, THETA)
