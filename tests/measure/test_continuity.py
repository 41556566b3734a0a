import functools

import jax.numpy as jnp
import numpy as np
import pytest
from density_problems import (
    box,
    bump,
    decay_energy,
    gaussian,
    l1_error,
    mean_energy,
    pair_energy,
    stacked,
)
from helpers import round_off

from meanfield import measure, rates

DECAY = measure.variation_of(decay_energy)
PAIRS = measure.variation_of(pair_energy)
DRIFT = measure.variation_of(mean_energy)


def scaled(time, pdf):
    """Pure decay: rho(theta, tau) = e^(p tau) rho_0(e^tau theta)."""
    return lambda x: pdf(np.asarray(x) * np.exp(time))


def attracted(time, mean, deviation):
    """Decay and attraction: Gaussians stay Gaussian, by two linear equations for the moments."""
    return gaussian(mean * np.exp(-time / 2), deviation * np.exp(-1.5 * time))


def drifted(time, pdf, start):
    """Energy of the mean: all depths move by (1 - start)(1 - e^-tau), from mean `start` to 1."""
    return lambda x: pdf(np.asarray(x) - (1.0 - start) * (1 - np.exp(-time)))


# Variation, half the box, densities at time 0 and tau of two depths, numbers of cells.
PROBLEMS = {
    "decay": (
        DECAY,
        3.0,
        lambda t: [scaled(t, gaussian(0.5, 0.4)), scaled(t, bump(0.0, 2.0))],
    ),
    "pairs": (PAIRS, 3.5, lambda t: [attracted(t, 0.8, 0.5), attracted(t, -0.3, 0.4)]),
    "drift": (
        DRIFT,
        2.5,
        lambda t: [drifted(t, gaussian(0.2, 0.3), 0.0), drifted(t, bump(-0.2, 1.0), 0.0)],
    ),
}


@functools.cache
def solved(problem, dimension, cells, time=0.5):
    variation, half, law = PROBLEMS[problem]
    grid = box(dimension, half, cells)
    start = measure.grid_density(stacked(*law(0.0)), grid)
    flow = measure.density_flow(variation, start, grid, [0.0, time / 2, time])
    expected = measure.grid_density(stacked(*law(time)), grid)
    return grid, flow, l1_error(flow.density[-1], expected, grid)


SIZES = {1: (32, 64, 128, 256, 512), 2: (10, 20, 40, 80, 160)}


CASES = [("decay", 1), ("pairs", 1), ("drift", 1), ("decay", 2), ("pairs", 2)]


@pytest.mark.parametrize(("problem", "dimension"), CASES)
def test_order_in_l1(problem, dimension):
    """Order of convergence: at least 1.5 in L^1, to densities known in closed form."""
    errors = [solved(problem, dimension, cells)[2] for cells in SIZES[dimension]]
    assert -rates.log_log_slope(list(SIZES[dimension]), errors).slope >= 1.5
    assert errors[-1] < 6e-3


@pytest.mark.parametrize(("problem", "dimension"), CASES)
def test_mass_and_sign(problem, dimension):
    """Theorem: the scheme is conservative and positive, exactly."""
    grid, flow, _ = solved(problem, dimension, SIZES[dimension][-1])
    cells = tuple(range(2, flow.density.ndim))
    masses = jnp.sum(flow.density, axis=cells) * grid.volume
    assert flow.mass_error < 1e-12
    np.testing.assert_allclose(masses, 1.0, rtol=1e-12)
    assert float(jnp.min(flow.density)) >= 0.0
    assert flow.result == "completed"
    assert not flow.warnings


@functools.cache
def step_by_step():
    """Attraction from a density with two humps, saved after every step or so."""
    grid = box(1, 3.5, 96)
    start = measure.grid_density(stacked(bump(-1.5, 1.0), gaussian(1.0, 0.5)), grid)
    start = start.at[0].set((start[0] + start[1]) / 2)
    flow = measure.density_flow(PAIRS, start, grid, np.linspace(0.0, 1.0, 201))
    energies = [pair_energy(*measure.weighted_particles(rho, grid)) for rho in flow.density]
    return flow, jnp.stack(energies)


def test_energy_decreases():
    """Theorem: dQ/dtau = -int |grad dQ/drho|^2 drho <= 0 for the variation of an energy."""
    flow, energies = step_by_step()
    assert np.diff(energies).max() < 0
    assert float(energies[-1]) < 0.5 * float(energies[0])
    assert np.diff(flow.dissipated, axis=0).min() > 0


def test_energy_balance():
    """Theorem: what the energy loses is the dissipation, averaged over depths."""
    flow, energies = step_by_step()
    balance = energies[0] - energies - flow.dissipated.mean(axis=1)
    assert float(jnp.max(jnp.abs(balance))) < 1e-8 * float(energies[0])


def test_dissipation_of_a_drift():
    """Closed form: the energy of the mean falls like e^(-2 tau), alike at every depth."""
    _, flow, _ = solved("drift", 2, 80)
    expected = 1 - np.exp(-2 * flow.times)
    np.testing.assert_allclose(flow.dissipated, np.stack([expected] * 2, axis=1), atol=2e-3)


def test_single_precision():
    """Invariance: half the digits, the same density."""
    grid, flow, _ = solved("decay", 1, 128)
    coarse = measure.Grid(tuple(ends.astype(np.float32) for ends in grid.edges))
    found = measure.density_flow(
        DECAY, flow.density[0].astype(np.float32), coarse, [0.0, 0.25, 0.5]
    )
    assert found.density.dtype == np.float32
    assert found.mass_error < 1e-5
    np.testing.assert_allclose(found.density, flow.density, atol=1e-4)


def test_cells_of_another_order():
    """Invariance: what moves along one axis of two moves as on the line."""
    line, flow, _ = solved("decay", 1, 96)
    plane = measure.uniform_grid([-3.0, 0.0], [3.0, 1.0], [96, 4])
    start = jnp.broadcast_to(flow.density[0][..., None], (2, 96, 4))

    def decay_along_first(weights, points):
        return jnp.broadcast_to(points[None, :, 0] ** 2 / 2, weights.shape)

    found = measure.density_flow(decay_along_first, start, plane, [0.0, 0.25, 0.5])
    for column in range(4):
        np.testing.assert_allclose(found.density[..., column], flow.density, rtol=1e-9, atol=1e-12)
    assert line.dimension == 1


def test_walls_hold_mass_back():
    """Closed form: at speed 1 all mass comes to rest in the last cell, and the run says so."""
    grid = box(1, 1.0, 32)
    start = measure.grid_density(bump(0.0, 0.5), grid)

    def slope(weights, points):
        return jnp.broadcast_to(-points[None, :, 0], weights.shape)

    free = measure.density_flow(slope, start, grid, [0.0, 0.2])
    assert not free.warnings
    flow = measure.density_flow(slope, start, grid, [0.0, 3.0])
    assert float(flow.density[-1, 0, -1] * grid.volume) == pytest.approx(1.0, abs=1e-9)
    assert float(jnp.min(flow.density)) >= 0.0
    assert flow.mass_error < 1e-12
    (warning,) = flow.warnings
    assert "widen the grid" in warning


def test_variation_of_rows():
    """Closed form: the factor is the number of depths in the energy's mean, the rows by default."""
    weights, points = jnp.ones((4, 3)) / 3, jnp.array([[1.0], [2.0], [3.0]])
    expected = np.broadcast_to([[0.5, 2.0, 4.5]], (4, 3))
    np.testing.assert_allclose(DECAY(weights, points), expected, rtol=round_off())
    halved = measure.variation_of(decay_energy, depth=2)(weights, points)
    np.testing.assert_allclose(halved, expected / 2, rtol=round_off())


def test_equal_problems_compile_once():
    """Equality: another density, energy of the same function, times and limits trace nothing."""
    traced = []

    def energy(weights, points):
        traced.append(True)
        return decay_energy(weights, points)

    grid = box(1, 1.0, 16)
    start = measure.grid_density(bump(0.0, 0.8), grid)
    measure.density_flow(measure.variation_of(energy), start, grid, [0.0, 1.0])
    before = len(traced)
    other = measure.grid_density(bump(0.1, 0.7), grid)
    variation = measure.variation_of(energy)
    measure.density_flow(variation, other, grid, [1.0, 3.0], cfl=0.3, max_steps=500)
    assert len(traced) - before <= 1  # the check of its shape, outside the program


@pytest.mark.parametrize(
    ("variation", "options", "result", "message"),
    [
        (DECAY, {"max_steps": 10}, "exhausted", "10 steps used up; raise max_steps"),
        (lambda w, x: w + jnp.where(w[:1, :1] > 1e-3, jnp.nan, 0.0), {}, "diverged", "not finite"),
    ],
)
def test_runs_that_break_off(variation, options, result, message):
    """Closed form: the result, where the run stopped, and what it had saved until then."""
    grid = box(1, 1.0, 64)
    start = measure.grid_density(lambda x: jnp.where(jnp.abs(x[:, 0]) < 0.9, 1.0, 0.0), grid)
    flow = measure.density_flow(variation, start, grid, [0.0, 0.01, 2.0, 3.0], **options)
    assert flow.result == result
    assert message in flow.message
    assert len(flow.times) == len(flow.density) == len(flow.dissipated) < 4
    np.testing.assert_allclose(flow.density[0], start, rtol=round_off())


GRID = measure.uniform_grid([0.0], [1.0], [8])
FLAT = np.ones((2, 8))


@pytest.mark.parametrize(
    ("density", "ts", "options", "message"),
    [
        (-FLAT, [0, 1], {}, "density must be >= 0, got -1.0; clip and normalise"),
        (2 * FLAT, [0, 1], {}, "must have mass 1 at every depth, got .*2.0.*; divide by"),
        (np.nan * FLAT, [0, 1], {}, "density must be finite"),
        (FLAT[0], [0, 1], {}, r"density must have shape \[l, 8\].*one depth is density\[None\]"),
        (FLAT[:0], [0, 1], {}, "with l >= 1 depths"),
        (FLAT[:, 1:], [0, 1], {}, r"density must have shape \[l, 8\]"),
        (FLAT, [0], {}, "ts must be at least two increasing times"),
        (FLAT, [0, 2, 1], {}, "ts must be at least two increasing times"),
        (FLAT, [0, np.inf], {}, "ts must be at least two increasing times"),
        (FLAT, [0, 1], {"cfl": 1.0}, r"cfl must lie in \(0, 1\)"),
        (FLAT, [0, 1], {"cfl": -0.1}, "cfl must be"),
        (FLAT, [0, 1], {"max_steps": 0}, "max_steps must be"),
        (FLAT, [0, 1], {"blocked_bound": 0.0}, "blocked_bound must be"),
    ],
)
def test_refusals(density, ts, options, message):
    """Closed form: what is wrong with the input, and what to do instead."""
    with pytest.raises(ValueError, match=message):
        measure.density_flow(DECAY, density, GRID, ts, **options)


def test_refusal_of_variations():
    """Closed form: a variation of another shape, such as an energy, is named as such."""
    with pytest.raises(ValueError, match=r"must give \[l g\] = \[2, 8\].*variation_of"):
        measure.density_flow(lambda w, x: jnp.sum(w), FLAT, GRID, [0.0, 1.0])
    with pytest.raises(ValueError, match="depth must be an integer"):
        measure.variation_of(decay_energy, depth=0)


def test_refusal_of_unequal_cells():
    """Closed form: a grid built by hand must be uniform."""
    grid = measure.Grid((jnp.linspace(0.0, 1.0, 9) ** 2,))
    with pytest.raises(ValueError, match="equal cells"):
        measure.density_flow(DECAY, FLAT, grid, [0.0, 1.0])
