import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import flow, nn, rates, theory

RNG = np.random.default_rng(0)
INPUTS, OTHERS = (jnp.asarray(RNG.normal(size=(count, 3))) for count in (6, 4))
TARGETS = jnp.asarray(RNG.normal(size=(6, 2)))
THETA = {
    "first": jnp.asarray(RNG.normal(size=(4, 3))),
    "second": jnp.asarray(RNG.normal(size=(2, 4))),
}
SCALES = {"first": 2.0, "second": 0.5}
TIMES = np.array([0.0, 0.3, 1.0, 4.0])
TIGHT = {"rtol": 1e-9, "atol": 1e-11}
ALPHAS = 2.0 ** np.arange(3, 8)


def network(theta, x):
    return theta["second"] @ jnp.tanh(theta["first"] @ x)


def affine(theta, x):
    """Linear in the parameters, with features that are not."""
    return (
        theta["second"] @ jnp.sin(4 * x[:1] * jnp.arange(4.0)) + jnp.sum(theta["first"] @ x) * x[:2]
    )


def predictions(apply, theta, inputs):
    return jax.vmap(apply, in_axes=(None, 0))(theta, inputs)


def trained(apply, *, time_scales, decay_scales, weight_decay, inputs=INPUTS, targets=TARGETS):
    """Predictions at both sets by the solver of the flow."""
    risk = flow.empirical_risk(apply, inputs, targets)
    energy = flow.energy(risk, decay_scales, weight_decay=weight_decay)
    seen = {"train": inputs, "test": OTHERS}
    observe = {
        name: lambda theta, data=data: predictions(apply, theta, data)
        for name, data in seen.items()
    }
    field = flow.gradient_field(energy, time_scales)
    return flow.gradient_flow(field, THETA, TIMES, observe=observe, **TIGHT).observables


@pytest.mark.parametrize(("weight_decay", "linear"), [(0.0, True), (0.4, False)])
def test_closed_form_against_the_flow(weight_decay, linear):
    """Order of the solver: the flow solved in time; linear models themselves, others linearised."""
    scales = {
        "time_scales": lambda theta: SCALES,
        "decay_scales": lambda theta: {name: 1.5 / scale for name, scale in SCALES.items()},
        "weight_decay": weight_decay,
    }
    apply = affine if linear else network
    solved = trained(apply if linear else theory.linearised(apply, THETA), **scales)
    found = theory.linearised_flow(
        apply, THETA, INPUTS, TARGETS, TIMES, test=OTHERS, chunk=4, **scales
    )
    np.testing.assert_allclose(found.train, solved["train"], atol=1e-6)
    np.testing.assert_allclose(found.test, solved["test"], atol=1e-6)
    assert np.max(np.abs(found.test[-1] - found.test[0])) > 0.1
    kernel = theory.tangent_kernel(apply, THETA, INPUTS, time_scales=scales["time_scales"])
    np.testing.assert_allclose(
        found.eigenvalues[0], theory.smallest_eigenvalue(kernel), atol=1e-11, rtol=0
    )


def test_held_parameters():
    """Closed form: f = a x + b x^2, b held: a flows as one number, b neither moves nor decays."""
    x, y = jnp.array([1.0, -2.0]), jnp.array([3.0, 0.5])
    start, decay = (jnp.array(0.7), jnp.array(-0.3)), 0.6
    found = theory.linearised_flow(
        lambda theta, x: theta[0] * x + theta[1] * x**2,
        start,
        x,
        y,
        TIMES,
        time_scales=lambda theta: (2.0, 0.0),
        weight_decay=decay,
    )
    curvature = 2.0 * (np.mean(x**2) + decay)
    pull = 2.0 * np.mean(x * (y + 0.3 * x**2))
    a = pull / curvature + (0.7 - pull / curvature) * np.exp(-curvature * TIMES)
    expected = a[:, None] * np.asarray(x)[None] - 0.3 * np.asarray(x**2)[None]
    np.testing.assert_allclose(found.train, expected, rtol=round_off(), atol=round_off())


def test_linearisation():
    """Order of convergence: exact at theta_0, error of order 2 around it; any loss trains it."""
    tangent = theory.linearised(network, THETA)
    steps = 2.0 ** -np.arange(3, 8)
    moves = jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape)), THETA)
    errors = []
    for step in [0.0, *steps]:
        near = jax.tree.map(lambda leaf, move, h=step: leaf + h * move, THETA, moves)
        gap = predictions(tangent, near, INPUTS) - predictions(network, near, INPUTS)
        errors.append(np.max(np.abs(gap)))
    assert errors[0] < round_off()
    assert rates.log_log_slope(steps, errors[1:]).slope == pytest.approx(2, abs=0.1)
    risk = flow.empirical_risk(tangent, INPUTS, jnp.arange(6) % 2, loss="cross_entropy")
    end = flow.gradient_flow(flow.gradient_field(risk), THETA, [0.0, 5.0])
    assert end.result == "completed"
    assert risk(end.theta) < 0.5 * risk(THETA)


def test_lazy_limit():
    """Theorem: at output scale alpha flow and kernel are those of alpha = infinity to order 1."""

    def risk(alpha, theta):
        scaled = theory.output_scale(network, flow.square, THETA, alpha)
        return flow.empirical_risk(scaled.apply, INPUTS, TARGETS, loss=scaled.loss)(theta)

    def risks(thetas):  # Runs that do not meet: one program for all scales.
        return jnp.sum(jax.vmap(risk)(jnp.asarray(ALPHAS), thetas))

    every = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(ALPHAS)), THETA)
    ends = flow.gradient_flow(flow.gradient_field(risks), every, [0.0, 4.0], **TIGHT).theta
    start = theory.tangent_kernel(network, THETA, INPUTS)
    centred = theory.output_scale(network, flow.square, THETA, 1.0).apply
    limit = theory.linearised_flow(centred, THETA, INPUTS, TARGETS, [4.0]).train[0]
    kernels = jax.vmap(lambda theta: theory.tangent_kernel(network, theta, INPUTS))(ends)
    found = theory.kernel_distance(kernels, start)
    outputs = jax.vmap(lambda theta: predictions(centred, theta, INPUTS))(ends)
    errors = np.linalg.norm(ALPHAS[:, None, None] * outputs - limit[None], axis=(1, 2))
    assert rates.log_log_slope(ALPHAS, errors).slope == pytest.approx(-1, abs=0.1)
    assert rates.log_log_slope(ALPHAS, found.relative).slope == pytest.approx(-1, abs=0.1)
    # An angle of order 1/alpha has a cosine 1 - O(1/alpha^2).
    turned = 1 - np.asarray(found.alignment)
    assert rates.log_log_slope(ALPHAS, turned).slope == pytest.approx(-2, abs=0.1)


def test_duplicated_particles():
    """Invariance: duplicating every particle of a mean-field model, scales and decay its own."""
    model = nn.model(
        nn.identity(), nn.network((nn.mlp(dim=3, activation=jnp.tanh),), depth=2), nn.label_read()
    )
    theta, tokens = model.init(jax.random.key(0), width=4), INPUTS[:, None]
    twice = theta._replace(blocks=jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, 1), theta.blocks))
    scales = {"time_scales": model.time_scales, "decay_scales": model.decay_scales}
    one, two = (
        theory.linearised_flow(
            model.apply, each, tokens, TARGETS[:, 0], TIMES, weight_decay=0.2, **scales
        ).train
        for each in (theta, twice)
    )
    np.testing.assert_allclose(two, one, rtol=round_off(), atol=round_off())
    assert np.max(np.abs(one[-1] - one[0])) > 0.1
    with pytest.raises(ValueError, match="must act alike on all parameters"):
        theory.linearised_flow(
            *(network, THETA, INPUTS, TARGETS, [2.0]),
            time_scales=lambda theta: SCALES,
            weight_decay=0.2,
        )


def test_refusals():
    """Closed form: scales, times and targets that cannot be."""
    with pytest.raises(ValueError, match="^alpha must be a finite number > 0, got 0"):
        theory.output_scale(network, flow.square, THETA, 0.0)
    for times in ([[0.0]], [-1.0], [np.inf], []):
        with pytest.raises(ValueError, match="^ts must be a vector of finite times >= 0"):
            theory.linearised_flow(network, THETA, INPUTS, TARGETS, times)
    with pytest.raises(ValueError, match=r"^targets must have the outputs' shape \(6, 2\)"):
        theory.linearised_flow(network, THETA, INPUTS, TARGETS[:5], TIMES)
    with pytest.raises(ValueError, match="^time_scales must be > 0 somewhere"):
        theory.linearised_flow(
            network, THETA, INPUTS, TARGETS, TIMES, time_scales=lambda theta: 0.0
        )
