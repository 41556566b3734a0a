import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from theory_problems import (
    BLOCKS,
    DEPTH,
    HEADS,
    INPUTS,
    KAPPA,
    LABELS,
    MEANS,
    MODEL,
    NEURONS,
    READOUT,
    energy_of,
    energy_with,
    particles,
    token_risk,
)

from meanfield import flow, nn, theory

WEIGHT_DECAY = 0.3
PARTICLES = particles(0)
STATES = theory.network_states(MEANS, token_risk, PARTICLES, INPUTS, kappa=KAPPA)


def variations(probes, states=STATES, weight_decay=WEIGHT_DECAY):
    return [
        theory.first_variation(block.particle, at, probe, weight_decay=weight_decay)
        for block, at, probe in zip(BLOCKS, states, probes, strict=True)
    ]


@pytest.mark.parametrize("weight_decay", [0.0, WEIGHT_DECAY])
def test_gradient_is_the_scaled_gradient_of_the_energy(weight_decay):
    """Theorem: at the network's particles it is L M grad Q by autodiff, in both half-steps; 1e-12.

    Attention and neurons, kappa not 1, cross-entropy, weight decay.
    """
    energy = jax.jit(jax.grad(lambda blocks: energy_of(MODEL, weight_decay, blocks)))
    gradient = energy(PARTICLES)
    for found, expected, width in zip(
        variations(PARTICLES, weight_decay=weight_decay), gradient, (HEADS, NEURONS), strict=True
    ):
        for got, leaf in zip(found.gradient, expected, strict=True):
            scale = float(np.max(np.abs(DEPTH * width * leaf)))
            error = np.max(np.abs(got - DEPTH * width * leaf)) / scale
            assert error < 1e-12
            assert scale > 1e-3


def test_masked_users_blocks():
    """Theorem: the same identity for a user's own encoder, a functional risk, under masks."""

    def shear(tokens, theta, mask):
        return jnp.tanh(tokens * theta["rate"][None, :]) * (mask[:, None] * theta["size"])

    block = nn.block(shear, lambda key: {"rate": jnp.zeros(3), "size": jnp.zeros(())})
    rng = np.random.default_rng(3)
    tree = {
        "rate": jnp.asarray(rng.normal(size=(DEPTH, 5, 3))),
        "size": jnp.asarray(rng.normal(size=(DEPTH, 5))),
    }
    masks = jnp.asarray(rng.uniform(size=INPUTS.shape[:2]) > 0.3)
    network = nn.network([block, block], depth=DEPTH)
    both = (tree, jax.tree.map(jnp.cos, tree))

    def risk(final):  # of all samples at once: no mean over them
        return jnp.std(final) + jnp.sum(final[0] * final[-1])

    def by_autodiff(blocks):
        return risk(jax.vmap(network.apply, in_axes=(None, 0, 0))(blocks, INPUTS, masks))

    states = theory.network_states([block.mean] * 2, risk, both, INPUTS, masks=masks)
    for state, probes, leaf in zip(states, both, jax.grad(by_autodiff)(both), strict=True):
        found = theory.first_variation(shear, state, probes).gradient
        jax.tree.map(
            lambda got, want: np.testing.assert_allclose(
                got, DEPTH * 5 * want, rtol=1e-12, atol=1e-13
            ),
            found,
            leaf,
        )


@pytest.mark.parametrize("layer", [0, 2])
def test_value_is_the_derivative_along_added_mass(layer):
    """Finite difference: Q(rho + mass delta) at one layer, central, both blocks at once."""
    probes = particles(11, widths=(1, 1))
    step = 1e-4
    energy = jax.jit(energy_with, static_argnums=1)
    ahead, behind = (energy(h, layer, probes, PARTICLES, WEIGHT_DECAY) for h in (step, -step))
    expected = sum(found.value[layer, 0] for found in variations(probes)) / DEPTH
    np.testing.assert_allclose((ahead - behind) / (2 * step), expected, rtol=1e-6)


def test_gradient_at_probes():
    """Finite difference: the gradient is that of the value, at particles that are not its own."""
    probes, step = particles(12, widths=(2, 2)), 1e-5
    rng = np.random.default_rng(4)
    directions = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), probes)
    ahead, behind = (
        variations(jax.tree.map(lambda x, v, h=h: x + h * v, probes, directions))
        for h in (step, -step)
    )
    for up, down, found, way in zip(ahead, behind, variations(probes), directions, strict=True):
        slope = (up.value - down.value) / (2 * step)
        expected = sum(
            jnp.sum((g * v).reshape(DEPTH, 2, -1), axis=-1)
            for g, v in zip(found.gradient, way, strict=True)
        )
        np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-8)


def test_dissipation():
    """Theorem: dQ/dtau = -sum of the residuals, both half-steps, as the flow's field has it."""
    model_energy = flow.energy(
        flow.empirical_risk(MODEL.apply, INPUTS, LABELS, loss="cross_entropy"),
        MODEL.decay_scales,
        weight_decay=WEIGHT_DECAY,
    )
    trainable = nn.Theta(True, True, False)
    field = flow.gradient_field(model_energy, MODEL.time_scales, trainable=trainable)
    expected = jax.jit(field.velocity)(nn.Theta((), PARTICLES, READOUT))[1]
    residuals = tuple(
        theory.stationarity(block.particle, at, tree, weight_decay=WEIGHT_DECAY)
        for block, at, tree in zip(BLOCKS, STATES, PARTICLES, strict=True)
    )
    found = theory.dissipation(residuals, STATES[0].depths)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_dissipation_along_a_flow():
    """Finite difference: the energy between neighbouring times of a flow, against the residuals."""
    block = BLOCKS[1]
    model = nn.model(nn.identity(), nn.network([block], depth=DEPTH), nn.label_read())
    risk = flow.empirical_risk(model.apply, INPUTS, INPUTS[:, 0, 0])
    energy = flow.energy(risk, model.decay_scales, weight_decay=WEIGHT_DECAY)

    def dissipation(theta):
        (at,) = theory.network_states(
            [block.mean],
            lambda final: jnp.mean((final[:, -1, -1] - INPUTS[:, 0, 0]) ** 2) / 2,
            theta.blocks,
            INPUTS,
        )
        residual = theory.stationarity(
            block.particle, at, theta.blocks[0], weight_decay=WEIGHT_DECAY
        )
        return theory.dissipation((residual,), at.depths)

    theta, times = nn.Theta((), PARTICLES[1:], ()), [0.0, 0.001, 0.002, 1.0, 1.001, 1.002]
    record = flow.gradient_flow(
        flow.gradient_field(energy, model.time_scales),
        theta,
        times,
        solver=diffrax.Tsit5(),
        rtol=1e-9,
        atol=1e-11,
        observe=dissipation,
    )
    for before, at, after in ((0, 1, 2), (3, 4, 5)):
        drop = record.balance.energy[before] - record.balance.energy[after]
        rate = drop / (times[after] - times[before])
        np.testing.assert_allclose(record.observables[at], rate, rtol=1e-5)
    # The flow has moved: these are two different numbers.
    assert record.observables[4] < 0.9 * record.observables[1]


@pytest.mark.parametrize(
    ("probes", "weight_decay", "message"),
    [
        (particles(0, depth=2)[0], 0.1, "probes must have the states' 3 depths.*got 2"),
        (PARTICLES[0], -1.0, "weight_decay must be >= 0, got -1.0"),
        (jax.tree.map(lambda leaf: leaf[:, :0], PARTICLES[0]), 0.1, "probes .* empty cloud"),
    ],
)
def test_refusals(probes, weight_decay, message):
    """Closed form: got, expected, remedy."""
    with pytest.raises(ValueError, match=f"^{message}"):
        theory.first_variation(BLOCKS[0].particle, STATES[0], probes, weight_decay=weight_decay)


def test_refused_integral():
    """Closed form: one residual per depth, and the whole of [0, 1]."""
    with pytest.raises(ValueError, match=r"one residual per depth, \(2,\), got \[\(2,\), \(3,\)"):
        theory.dissipation((jnp.ones(2), jnp.ones(3)), jnp.array([0.0, 0.5]))
    with pytest.raises(ValueError, match="the first at 0, got 0.25; take states at 0 too"):
        theory.dissipation((jnp.ones(2),), jnp.array([0.25, 0.5]))
