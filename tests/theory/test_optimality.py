import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from theory_convex import BLOCK, ENERGY, HOMOGENEOUS, MODEL, OPTIMUM, gap, start, states
from theory_convex import WEIGHT_DECAY as DECAY
from theory_problems import (
    BLOCKS,
    DEPTH,
    HEADS,
    INPUTS,
    KAPPA,
    MEANS,
    NEURONS,
    energy_with,
    particles,
    token_risk,
)

from meanfield import flow, nn, theory

WEIGHT_DECAY = 0.05
KEY = jax.random.key(3)
PARTICLES = particles(0)
STATES = theory.network_states(MEANS, token_risk, PARTICLES, INPUTS, kappa=KAPPA)
MARKS = (nn.Head(False, False, False, True), nn.Neuron(False, False, True))
ENCODERS = [block.particle for block in BLOCKS]
DRAWS = [block.draw for block in BLOCKS]


def of_transformer(**options):
    settings = {"draws": DRAWS, "homogeneous": MARKS, "weight_decay": WEIGHT_DECAY} | options
    return theory.certificate(KEY, ENCODERS, PARTICLES, STATES, **settings)


@pytest.fixture(scope="module")
def found():
    return of_transformer(restarts=16, steps=60)


def one_layer(tree, layer):
    """A particle as the one probe of every layer; only one layer gets mass."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[layer][None, None], DEPTH, axis=0), tree)


def test_added_particle_lowers_the_energy(found):
    """Theorem: Q falls by mass * |value| / L to first order when the found particle is added."""
    assert found.kind == "first-order certificate"
    assert found.value < -0.01
    probes = [jax.tree.map(jnp.zeros_like, one_layer(s.particle, 0)) for s in found.searches]
    probes[found.block] = one_layer(found.searches[found.block].particle, found.layer)
    energy = jax.jit(lambda m: energy_with(m, found.layer, probes, PARTICLES, WEIGHT_DECAY))
    before = float(energy(0.0))
    assert float(energy(1e-2)) < before
    drop = (float(energy(1e-5)) - float(energy(-1e-5))) / 2e-5
    np.testing.assert_allclose(drop, found.value / DEPTH, rtol=1e-6)


def test_values_are_first_variations(found):
    """Closed form: the reported values are those of the particles, in the balls that are stated."""
    for search, encoder, at, mask in zip(found.searches, ENCODERS, STATES, MARKS, strict=True):
        probe = jax.tree.map(lambda leaf: leaf[:, None], search.particle)
        value = theory.first_variation(encoder, at, probe, weight_decay=WEIGHT_DECAY).value[:, 0]
        np.testing.assert_allclose(search.value, value, rtol=round_off(), atol=round_off())
        lengths = {True: 0.0, False: 0.0}
        for leaf, mark in zip(search.particle, mask, strict=True):
            lengths[mark] += np.sum(np.square(leaf).reshape(DEPTH, -1), axis=1)
        assert np.all(lengths[True] <= found.radius**2 * (1 + 1e-9))
        assert np.all(lengths[False] <= search.reach**2 * (1 + 1e-9))
    excess = [np.maximum(search.level - search.value, 0) for search in found.searches]
    np.testing.assert_allclose(found.gap, np.sum(excess) / DEPTH, rtol=round_off())
    values = [search.value for search in found.searches]
    assert found.value == np.min(values) == values[found.block][found.layer]
    assert found.depth == pytest.approx(found.layer / DEPTH)


def test_descent_beats_what_it_started_from(found):
    """Invariance: more steps from the same starts never end higher; the effort is counted."""
    short = of_transformer(restarts=16, steps=1)
    for more, less in zip(found.searches, short.searches, strict=True):
        assert np.all(more.value <= less.value)
        assert np.any(more.value < less.value - 1e-3)
    assert found.evaluations == DEPTH * (2 * 16 * 62 + HEADS + NEURONS)
    assert f"16 restarts of 60 steps, {found.evaluations} evaluations" in found.statement


def test_levels_residuals_and_forces(found):
    """Closed form: means over the network's own particles, and lambda max |theta_1|."""
    parts = zip(found.searches, ENCODERS, PARTICLES, STATES, strict=True)
    for search, encoder, tree, at in parts:
        own = theory.first_variation(encoder, at, tree, weight_decay=WEIGHT_DECAY)
        np.testing.assert_allclose(search.level, np.mean(own.value, axis=1), rtol=round_off())
        residual = theory.stationarity(encoder, at, tree, weight_decay=WEIGHT_DECAY)
        np.testing.assert_allclose(search.residual, residual, rtol=round_off())
        outer = np.asarray(tree[-1]).reshape(DEPTH, tree[-1].shape[1], -1)
        largest = np.max(np.linalg.norm(outer, axis=-1), axis=1)
        np.testing.assert_allclose(search.decay_force, WEIGHT_DECAY * largest, rtol=round_off())
        assert np.all(search.covering > 0)
        # |g| at the particle found, from the value: -|g| + lambda/2 (1 + |theta_2|^2).
        assert np.all(search.force >= -np.asarray(search.value))


def one_layer_certificate(neurons, **options):
    settings = {"draws": [BLOCK.draw], "homogeneous": [HOMOGENEOUS], "weight_decay": DECAY}
    return theory.certificate(
        KEY, [BLOCK.particle], (neurons,), [states(neurons)], **settings, **options
    )


def test_convex_problem_along_its_flow():
    """Closed form: the searched gap is above Q - Q*, agrees with the rigorous one, tends to 0.

    At the end |g| on the support is lambda |w_out|, and no probe has a larger force.
    """
    record = flow.gradient_flow(
        flow.gradient_field(ENERGY, MODEL.time_scales),
        nn.Theta((), (start(),), ()),
        [0.0, 2.0, 8.0, 40.0],
        observe=lambda theta: theta.blocks[0],
    )
    gaps = []
    for row, energy in enumerate(record.balance.energy):
        neurons = jax.tree.map(lambda leaf, row=row: jnp.asarray(leaf[row]), record.observables)
        found = one_layer_certificate(neurons, convex=True)
        assert found.kind == "Frank-Wolfe estimate"
        assert found.gap >= energy - OPTIMUM - 1e-12
        rigorous = gap(neurons, tolerance=1e-3)
        assert rigorous.infimum.lower - 1e-9 <= found.value <= rigorous.infimum.upper + 1e-9
        gaps.append(found.gap)
    assert gaps[0] > 1
    assert gaps[-1] < 1e-6
    (search,) = found.searches
    assert search.residual[0] < 1e-6
    np.testing.assert_allclose(search.force, search.decay_force, rtol=1e-3)


def test_moved_mass_lowers_the_energy():
    """Theorem: (1 - m) rho + m delta lowers Q at the rate level - value, by mixed outputs."""
    neurons = start()
    found = one_layer_certificate(neurons, radius=1.0)
    x = np.asarray(states(neurons).tokens)[0, :, 0, 0]

    def parts(tree):
        w_in, bias, w_out = (np.asarray(leaf).reshape(-1) for leaf in tree)
        update = np.exp(-((np.outer(x, w_in) + bias) ** 2)) @ w_out / len(bias)
        return update, np.mean(w_in**2 + bias**2 + w_out**2)

    own, added = parts(neurons), parts(found.particle)

    def energy(mass):
        update, square = ((1 - mass) * a + mass * b for a, b in zip(own, added, strict=True))
        return np.mean((update - 1.5) ** 2) / 2 + DECAY / 2 * square

    np.testing.assert_allclose(energy(0.0), ENERGY(nn.Theta((), (neurons,), ())), rtol=1e-12)
    slope = (energy(1e-5) - energy(-1e-5)) / 2e-5
    np.testing.assert_allclose(slope, found.value - found.level, rtol=1e-8)
    assert energy(1e-2) < energy(0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": DRAWS[:1]}, r"there must be one encoder, .* got \(2, 2, 2, 1, 2\)"),
        ({"convex": True}, "convex must be False for 2 blocks of 3 layers"),
        ({"restarts": 0}, "restarts must be an integer >= 1, got 0"),
        ({"steps": -1}, "steps must be an integer >= 1, got -1"),
        ({"radius": -1.0}, "radius must be a finite number > 0, got -1.0"),
        ({"radius": np.inf, "weight_decay": 0.0}, "radius must be a finite number > 0, got inf"),
        ({"reach": 0.0}, "reach must be a finite number > 0, got 0.0"),
        ({"weight_decay": -0.1}, "weight_decay must be >= 0, got -0.1"),
        ({"homogeneous": (True, MARKS[1])}, "homogeneous must mark a part"),
    ],
)
def test_refusals(options, message):
    """Closed form: got, expected, remedy."""
    with pytest.raises(ValueError, match=f"^{message}"):
        of_transformer(**options)


def test_refused_ball():
    """Closed form: a gap among measures that do not hold the network's own is none."""
    with pytest.raises(ValueError, match="^radius and reach must hold the network's own particles"):
        one_layer_certificate(start(), convex=True, reach=0.1)


@pytest.mark.parametrize(
    ("cut", "message"),
    [(np.s_[:, :0], "probes .* got an empty cloud"), (np.s_[:1], "probes .* got 1; take states")],
)
def test_refused_clouds(cut, message):
    """Closed form: no particles, or not those of the states; for the rigorous gap as well."""
    few = tuple(jax.tree.map(lambda leaf: leaf[cut], tree) for tree in PARTICLES)
    settings = {"weight_decay": WEIGHT_DECAY}
    with pytest.raises(ValueError, match=message):
        theory.certificate(KEY, ENCODERS, few, STATES, draws=DRAWS, homogeneous=MARKS, **settings)
    with pytest.raises(ValueError, match=message):
        theory.frank_wolfe_gap(ENCODERS[1], few[1], STATES[1], homogeneous=MARKS[1], **settings)
