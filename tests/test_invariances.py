"""Laws of the whole network and of its training, from the papers.

Two more stand elsewhere: the size of updates against width (`nn/test_scaling.py`), and attention
against flax (`nn/test_attention.py`).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import round_off
from oracles import head_loop, head_pullback, neuron_loop, neuron_pullback, particle

from meanfield import flow, nn, rates

DEPTH, HEADS, NEURONS, DIM, TOKENS, SAMPLES = 3, 4, 6, 3, 4, 5
WEIGHT_DECAY = 0.3
BLOCKS = (nn.attention(dim=DIM, head_dim=2), nn.mlp(dim=DIM, activation=jnp.tanh))


def model_of(law=None, **options):
    network = nn.network(BLOCKS, depth=DEPTH, scaling=law, **options)
    return nn.model(nn.identity(), network, nn.label_read())


MODEL = model_of()


def data(seed):
    rng = np.random.default_rng(seed)
    inputs = jnp.asarray(rng.normal(size=(SAMPLES, TOKENS, DIM)))
    return inputs, jnp.asarray(rng.normal(size=SAMPLES))


INPUTS, TARGETS = data(1)


def particles(rng, depth=DEPTH, widths=(HEADS, NEURONS), leading=()):
    """Particles with a mean, so that the drift does not vanish at the start."""

    def normal(width, *shape):
        return jnp.asarray(0.3 + 0.5 * rng.normal(size=(*leading, depth, width, *shape)))

    into, back = (DIM, 2), (2, DIM)
    heads = nn.Head(*(normal(widths[0], *shape) for shape in (into, into, into, back)))
    return heads, nn.Neuron(*(normal(widths[1], *shape) for shape in ((DIM,), (), (DIM,))))


THETA = nn.Theta((), particles(np.random.default_rng(0)), ())


def energy_of(model, weight_decay=WEIGHT_DECAY):
    risk = flow.empirical_risk(model.apply, INPUTS, TARGETS)
    return flow.energy(risk, model.decay_scales, weight_decay=weight_decay)


def field_of(model):
    return flow.gradient_field(energy_of(model), model.time_scales)


@functools.partial(jax.jit, static_argnums=0)
def outputs_and_field(model, theta):
    outputs = jax.vmap(model.apply, in_axes=(None, 0))(theta, INPUTS)
    return outputs, field_of(model)(0.0, theta)


def close(got, expected, rtol=round_off(), atol=round_off()):  # noqa: B008 (a constant)
    close_leaves = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    jax.tree.map(close_leaves, got, expected)


def duplicated(theta):
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=1), theta)


def test_duplicated_particles():
    """Invariance: two copies of every particle are the same measure: output and flow."""
    outputs, velocity = outputs_and_field(MODEL, THETA)
    close(outputs_and_field(MODEL, duplicated(THETA)), (outputs, duplicated(velocity)))


def test_duplicates_see_a_lost_time_scale():
    """Invariance: without the factor L M outputs still agree; the flow is off, far above 1e-2."""
    doctored = model_of(dataclasses.replace(nn.mean_field(), time=lambda depth, width: 1.0))
    outputs, velocity = outputs_and_field(doctored, THETA)
    twice, found = outputs_and_field(doctored, duplicated(THETA))
    close(twice, outputs)
    for got, once in zip(
        jax.tree.leaves(found), jax.tree.leaves(duplicated(velocity)), strict=True
    ):
        assert np.linalg.norm(got - once) / np.linalg.norm(once) > 1e-2


def test_permuted_particles():
    """Invariance: the order of the particles of a layer changes no output; the flow follows it."""
    rng = np.random.default_rng(2)
    orders = [np.array([rng.permutation(m) for _ in range(DEPTH)]) for m in (HEADS, NEURONS)]

    def permuted(theta):
        blocks = tuple(
            jax.tree.map(lambda leaf, order=order: leaf[np.arange(DEPTH)[:, None], order], block)
            for block, order in zip(theta.blocks, orders, strict=True)
        )
        return theta._replace(blocks=blocks)

    outputs, velocity = outputs_and_field(MODEL, THETA)
    close(outputs_and_field(MODEL, permuted(THETA)), (outputs, permuted(velocity)))


def test_permuted_tokens():
    """Invariance: without positions the network commutes with permutations of the tokens."""
    tokens, order = INPUTS[0], np.array([2, 0, 3, 1])
    mask = jnp.array([True, False, True, True])
    apply = jax.jit(MODEL.network.apply)
    close(apply(THETA.blocks, tokens[order]), apply(THETA.blocks, tokens)[order])
    permuted = apply(THETA.blocks, tokens[order], mask[order])
    close(permuted, apply(THETA.blocks, tokens, mask)[order])
    assert np.max(np.abs(permuted - apply(THETA.blocks, tokens[order]))) > 1e-2


def test_causal_network():
    """Theorem: under the causal mask no token depends on a later one, through all layers."""
    mask = nn.causal_mask(TOKENS)
    jacobian = jax.jit(jax.jacobian(MODEL.network.apply, argnums=1))
    influence = np.max(np.abs(jacobian(THETA.blocks, INPUTS[0], mask)), axis=(1, 3))
    np.testing.assert_array_equal(influence[np.triu_indices(TOKENS, 1)], 0.0)
    assert np.all(influence[np.tril_indices(TOKENS)] > 1e-8)


def test_refined_depth():
    """Order: layers repeated r times at step 1/(rL) tend to the depth ODE; slope -1 +- 0.1."""
    tokens = INPUTS[0]

    def deep(repeats):
        blocks = jax.tree.map(lambda leaf: jnp.repeat(leaf, repeats, axis=0), THETA.blocks)
        return MODEL.network.apply(blocks, tokens)

    # Extrapolation of the two finest leaves an error of second order in 1/512.
    limit = 2 * deep(512) - deep(256)
    repeats = np.array([2, 4, 8, 16, 32])
    errors = np.array([np.linalg.norm(deep(r) - limit) for r in repeats.tolist()])
    assert rates.log_log_slope(repeats, errors).slope == pytest.approx(-1.0, abs=0.1)


def test_euler_step_is_decayed_sgd():
    """Independent library: optax add_decayed_weights + sgd on L M times the risk's gradient."""
    step = 0.1
    _, velocity = outputs_and_field(MODEL, THETA)
    euler = jax.tree.map(lambda x, v: x + step * v, THETA, velocity)
    gradient = jax.jit(jax.grad(flow.empirical_risk(MODEL.apply, INPUTS, TARGETS)))(THETA)
    scaled = [
        jax.tree.map(lambda leaf, width=width: DEPTH * width * leaf, block)
        for block, width in zip(gradient.blocks, (HEADS, NEURONS), strict=True)
    ]
    optimizer = optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(step))
    scaled = THETA._replace(blocks=tuple(scaled))
    updates, _ = optimizer.update(scaled, optimizer.init(THETA), THETA)
    close(euler, optax.apply_updates(THETA, updates))


def test_dissipation_is_the_mean_squared_velocity():
    """Theorem: dQ/dtau = -(average over particles of |velocity|^2), heads plus neurons."""
    _, velocity = outputs_and_field(MODEL, THETA)
    average = sum(
        sum(np.sum(np.square(leaf)) for leaf in block) / (DEPTH * width)
        for block, width in zip(velocity.blocks, (HEADS, NEURONS), strict=True)
    )

    @jax.jit
    def along_the_flow(theta):
        found, dissipation = field_of(MODEL).velocity(theta)
        return dissipation, jax.jvp(energy_of(MODEL), (theta,), (found,))[1]

    dissipation, slope = along_the_flow(THETA)
    np.testing.assert_allclose(slope, -average, rtol=round_off())
    np.testing.assert_allclose(dissipation, average, rtol=round_off())


def first_variation_gradient(inputs, targets, blocks, kappa):
    """E <p, d_theta f> per particle, by the adjoint through the half-steps, sample by sample."""
    maps = ((head_loop, head_pullback), (neuron_loop, neuron_pullback))
    total = [[np.zeros(leaf.shape) for leaf in block] for block in blocks]
    for start, target in zip(inputs, targets, strict=True):
        tokens, visited = start, []
        for layer in range(DEPTH):
            for (encoder, _), block, constant in zip(maps, blocks, kappa, strict=True):
                visited.append(tokens)
                width = block[0].shape[1]
                updates = [encoder(tokens, particle(block, layer, j)) for j in range(width)]
                tokens = tokens + constant / DEPTH * np.mean(updates, axis=0)
        adjoint = np.zeros_like(tokens)
        adjoint[-1, -1] = tokens[-1, -1] - target
        for layer in reversed(range(DEPTH)):
            for b in (1, 0):
                before, pulled = visited[2 * layer + b], []
                for j in range(blocks[b][0].shape[1]):
                    of_tokens, of_particle = maps[b][1](
                        before, particle(blocks[b], layer, j), adjoint
                    )
                    pulled.append(of_tokens)
                    for sums, part in zip(total[b], of_particle, strict=True):
                        sums[layer, j] += kappa[b] * part / len(targets)
                adjoint = adjoint + kappa[b] / DEPTH * np.mean(pulled, axis=0)
    return total


def test_scaled_gradient_is_the_first_variation():
    """Theorem: L M grad Q = E <p, d_theta f> + lambda theta, p by hand in numpy; 1e-12."""
    kappa = (0.7, 1.3)
    _, velocity = outputs_and_field(model_of(kappa=kappa), THETA)
    expected = first_variation_gradient(
        np.asarray(INPUTS),
        np.asarray(TARGETS),
        [[np.asarray(leaf) for leaf in block] for block in THETA.blocks],
        kappa,
    )
    for block, parts, found in zip(THETA.blocks, expected, velocity.blocks, strict=True):
        for leaf, part, got in zip(block, parts, found, strict=True):
            np.testing.assert_allclose(-got, part + WEIGHT_DECAY * leaf, rtol=1e-12, atol=1e-12)


def test_wide_networks_converge_at_the_root_of_their_width():
    """Order: distance to a wide network after a short flow; slope -1/2 within its interval."""
    widths, groups, draws = np.array([8, 16, 32, 64]), 8, 16

    @jax.jit
    @jax.vmap
    def trained_outputs(blocks):
        field = field_of(MODEL)

        def euler(_, theta):
            return jax.tree.map(lambda x, v: x + 0.2 * v, theta, field(0.0, theta))

        theta = jax.lax.fori_loop(0, 3, euler, nn.Theta((), blocks, ()))
        return jax.vmap(MODEL.apply, in_axes=(None, 0))(theta, INPUTS)

    def drawn(width, count):
        rng = np.random.default_rng(width)
        blocks = particles(rng, widths=(width, width), leading=(count,))
        return np.asarray(trained_outputs(blocks))

    wide = np.mean(drawn(1024, 4), axis=0)
    errors = []
    for width in widths.tolist():
        squares = np.mean((drawn(width, groups * draws) - wide) ** 2, axis=1)
        errors.append(np.sqrt(np.mean(squares.reshape(groups, draws), axis=1)))
    fit = rates.log_log_slope(widths, np.array(errors).T)
    assert fit.low < -0.5 < fit.high
    assert fit.high - fit.low < 0.2


def test_second_solve_compiles_nothing():
    """Equality: other data, decay, times and tolerance trace the network 0 times."""
    traces = []

    def counted(theta, sample):
        traces.append(None)
        return MODEL.apply(theta, sample)

    def solve(seed, weight_decay, rtol, times):
        risk = flow.empirical_risk(counted, *data(seed))
        energy = flow.energy(risk, MODEL.decay_scales, weight_decay=weight_decay)
        field = flow.gradient_field(energy, MODEL.time_scales)
        return flow.gradient_flow(field, THETA, times, rtol=rtol, observe={"energy": energy})

    first = solve(1, 0.3, 1e-2, [0.0, 0.1])
    before = len(traces)
    second = solve(2, 0.1, 1e-3, [0.0, 0.2])
    assert len(traces) == before > 0
    assert first.result == second.result == "completed"
    energies = second.observables["energy"]
    assert energies[1] < energies[0]
