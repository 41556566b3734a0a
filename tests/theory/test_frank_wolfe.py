import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from theory_convex import (
    BLOCK,
    ENERGY,
    HOMOGENEOUS,
    LEVEL,
    MODEL,
    OPTIMUM,
    SLOPE,
    WEIGHT_DECAY,
    X,
    gap,
    start,
    states,
)
from theory_problems import BLOCKS, INPUTS, KAPPA, MEANS, particles, token_risk

from meanfield import flow, nn, theory

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def record():
    """Neurons along the gradient flow."""
    return flow.gradient_flow(
        flow.gradient_field(ENERGY, MODEL.time_scales),
        nn.Theta((), (start(),), ()),
        [0.0, 1.0, 2.0, 4.0, 8.0, 30.0],
        observe=lambda theta: theta.blocks[0],
    )


def rows(record):
    for row in range(len(record.times)):
        neurons = jax.tree.map(lambda leaf, row=row: jnp.asarray(leaf[row]), record.observables)
        yield neurons, record.balance.energy[row]


def test_gap_bounds_the_distance_to_the_known_optimum(record):
    """Closed form: Q* = lambda c^2 / (2 (1 + lambda)); the gap is above Q - Q*, and goes to 0."""
    gaps = []
    for neurons, energy in rows(record):
        found = gap(neurons, tolerance=TOLERANCE)
        assert found.rigorous
        assert found.gap >= energy - OPTIMUM >= -1e-12
        assert found.infimum.upper - found.infimum.lower <= TOLERANCE * (1 + 1e-9)
        gaps.append(found.gap)
    assert np.all(np.diff(gaps) < 0)
    assert gaps[0] > 1
    # What is left is the tolerance of the enclosure.
    assert gaps[-1] < 1.1 * TOLERANCE
    assert "among measures on all of particle space" in found.statement
    assert "rigorous" in found.statement


def test_infimum_at_the_optimum():
    """Closed form: at the optimum Psi is least where the Dirac mass sits, -lambda m^2 / 2."""
    mass = LEVEL / (1 + WEIGHT_DECAY)
    optimum = nn.Neuron(jnp.zeros((1, 2, 1)), jnp.zeros((1, 2)), jnp.full((1, 2, 1), mass))
    found = gap(optimum, tolerance=TOLERANCE)
    np.testing.assert_allclose(found.level, -WEIGHT_DECAY * mass**2 / 2, rtol=1e-12)
    np.testing.assert_allclose(found.infimum.upper, found.level, rtol=1e-12)


def test_estimated_gap(record):
    """Closed form: the same known optimum, with an estimated constant on a stated ball."""
    neurons, energy = list(rows(record))[2]
    found = gap(neurons, rigorous=False, reach=4.0)
    assert not found.rigorous
    assert found.gap >= energy - OPTIMUM
    assert "an estimate" in found.statement
    assert "|rest| <= 4" in found.statement


def best_on_a_grid(targets):
    """Least energy of measures on a grid of (w_in, b), by SLSQP in mass and momentum per atom."""
    grid = np.stack(np.meshgrid(np.linspace(-2, 2, 7), np.linspace(-1, 1, 5)), -1).reshape(-1, 2)
    features = np.exp(-((np.outer(np.asarray(X), grid[:, 0]) + grid[:, 1]) ** 2))
    squares, count = np.sum(grid**2, axis=1), len(grid)

    def energy(both):
        mass, momentum = np.split(both, 2)
        error = features @ momentum - targets
        decay = np.sum(momentum**2 / mass + mass * squares)
        slope_momentum = features.T @ error / len(X) + WEIGHT_DECAY * momentum / mass
        slope_mass = WEIGHT_DECAY / 2 * (squares - momentum**2 / mass**2)
        value = np.mean(error**2) / 2 + WEIGHT_DECAY / 2 * decay
        return value, np.concatenate([slope_mass, slope_momentum])

    constraint = {"type": "eq", "fun": lambda v: np.sum(v[:count]) - 1}
    bounds = [(1e-8, 1)] * count + [(None, None)] * count
    first = np.concatenate([np.full(count, 1 / count), np.zeros(count)])
    found = optimize.minimize(
        energy, first, jac=True, bounds=bounds, constraints=[constraint], method="SLSQP"
    )
    return found.fun


def test_gap_against_an_independent_solver():
    """Independent library: Q - gap <= Q*, which is at most scipy's optimum over a grid of atoms."""
    targets = 1.5 * np.sin(2 * np.asarray(X))
    best = best_on_a_grid(targets)

    def risk(final):
        return jnp.mean((final[:, 0, 0] - X - targets) ** 2) / 2

    energy = flow.energy(
        flow.empirical_risk(MODEL.apply, X[:, None, None], X + targets),
        MODEL.decay_scales,
        weight_decay=WEIGHT_DECAY,
    )
    record = flow.gradient_flow(
        flow.gradient_field(energy, MODEL.time_scales),
        nn.Theta((), (start(40),), ()),
        [0.0, 40.0],
    )
    neurons = record.theta.blocks[0]
    (at,) = theory.network_states([BLOCK.mean], risk, (neurons,), X[:, None, None])
    bound, lipschitz = theory.neuron_bounds(at, slope=SLOPE)
    found = theory.frank_wolfe_gap(
        BLOCK.particle,
        neurons,
        at,
        homogeneous=HOMOGENEOUS,
        weight_decay=WEIGHT_DECAY,
        bound=bound,
        lipschitz=lipschitz,
        tolerance=TOLERANCE,
    )
    lower = record.balance.energy[-1] - found.gap
    assert lower <= best
    # The flow's measure is free of the grid: it is lower, and the bound is not an empty one.
    assert record.balance.energy[-1] <= best
    assert best - lower < 0.05 * best


@pytest.mark.parametrize("linear", [True, False])
def test_whole_space_from_a_bound(linear):
    """Numpy loop: a far narrow optimum, 9/10 of the way to the edge that the bound promises."""
    edge = 1 / 0.5 if linear else 2 * np.sqrt(1 / 0.5)

    def bump(x):
        return jnp.maximum(0.0, 1 - 5 * jnp.abs(x - 0.9 * edge))

    def encoder(tokens, theta, mask):
        return (theta[0] * bump(theta[1]) if linear else 1 - 2 * bump(theta[1])) * tokens

    at = theory.States(jnp.zeros(1), jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
    line = np.linspace(-2 * edge, 2 * edge, 200_001)
    height = np.asarray(bump(line))
    exact = np.min((-(height**2) / (2 * 0.5) if linear else 1 - 2 * height) + 0.25 * line**2)
    if linear:
        particles, mask = (jnp.zeros((1, 2)), jnp.zeros((1, 2))), (True, False)
    else:
        particles, mask = {1: jnp.zeros((1, 2))}, False
    found = theory.frank_wolfe_gap(
        encoder,
        particles,
        at,
        homogeneous=mask,
        weight_decay=0.5,
        bound=1.0,
        lipschitz=10.0,
        tolerance=1e-3,
    )
    np.testing.assert_allclose(found.reach, edge, rtol=1e-12)
    assert found.infimum.lower <= exact + 1e-6
    assert found.infimum.upper >= exact - 1e-6
    assert found.infimum.upper < found.level - 0.05


def test_neuron_bounds():
    """Theorem: no particle has a larger force, no pair of them a steeper slope."""
    rng = np.random.default_rng(8)
    at = states(start())
    bound, lipschitz = theory.neuron_bounds(at, slope=SLOPE)
    points = rng.normal(size=(2, 500, 2)) * 2
    force = np.sum(
        np.exp(-((points[..., :1] * np.asarray(X) + points[..., 1:]) ** 2))
        * np.asarray(at.forces)[0, :, 0, 0],
        axis=-1,
    )
    gaps = np.abs(force[0] - force[1]) / np.linalg.norm(points[0] - points[1], axis=-1)
    assert 0.3 * bound < np.max(np.abs(force)) <= bound
    assert 0.3 * lipschitz < np.max(gaps) <= lipschitz


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_decay": -1.0}, "weight_decay must be >= 0, got -1.0"),
        ({"weight_decay": 0.0, "reach": 9.0}, "radius must be a finite number > 0, got inf"),
        ({}, "the domain must be bounded, got neither reach nor"),
        ({"weight_decay": 0.0, "bound": 1.0, "radius": 9.0}, "the domain must be bounded"),
        ({"reach": 0.1}, "reach and radius must hold the particles.*got 0.1 and inf: raise them"),
        ({"reach": 9.0, "lipschitz": -1.0}, "lipschitz must be a finite number > 0, got -1.0"),
        ({"reach": 9.0, "tolerance": 0.0}, "tolerance must be a finite number > 0"),
        ({"reach": 9.0, "max_evaluations": 0}, "max_evaluations must be an integer >= 1"),
        ({"reach": 9.0, "homogeneous": True}, "homogeneous must mark a part"),
    ],
)
def test_refusals(options, message):
    """Closed form: got, expected, remedy."""
    options = {"homogeneous": HOMOGENEOUS, "weight_decay": WEIGHT_DECAY, **options}
    with pytest.raises(ValueError, match=f"^{message}"):
        theory.frank_wolfe_gap(BLOCK.particle, start(), states(start()), **options)


def test_refused_depth_and_dimension():
    """Closed form: more than one layer, and four dimensions beside the homogeneous part."""
    options = {"weight_decay": 0.1, "reach": 9.0}
    deep = particles(0)
    at = theory.network_states(MEANS, token_risk, deep, INPUTS, kappa=KAPPA)
    mask = nn.Neuron(False, False, True)
    with pytest.raises(ValueError, match="one layer and 1 to 3 dimensions.*got 3 layers and 4"):
        theory.frank_wolfe_gap(BLOCKS[1].particle, deep[1], at[1], homogeneous=mask, **options)
