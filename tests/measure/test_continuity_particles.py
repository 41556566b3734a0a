"""The limit of particles: the same energy moves clouds of finite width and densities on a grid."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scalar_tokens
from density_problems import box, bump, pair_energy, stacked

from meanfield import measure, rates

TIMES = np.linspace(0.0, 1.0, 17)
WIDTHS = (16, 32, 64, 128, 256)
SEEDS = 96
CENTRES = ([0.3, 0.5], [0.5, -0.3], [-0.2, 0.6], [0.4, 0.4])


@functools.cache
def grid_run(cells=64):
    grid = box(2, 2.5, cells)
    start = stacked(*[bump(np.array(centre), np.array([1.2, 1.2])) for centre in CENTRES])
    variation = measure.variation_of(scalar_tokens.energy, depth=scalar_tokens.DEPTH)
    return grid, measure.density_flow(
        variation, measure.grid_density(start, grid), grid, [0.0, 0.5, 1.0]
    )


_runs = jax.jit(jax.vmap(scalar_tokens.particle_run, in_axes=(0, None)))


@functools.cache
def particle_runs(width):
    """Clouds [s t l m 2] of independent runs, from draws of the density that the grid starts at."""
    grid, flow = grid_run()
    many = jnp.concatenate([flow.density[0]] * SEEDS)
    drawn = measure.draw_particles(jax.random.key(width), many, grid, width)
    return _runs(drawn.reshape(SEEDS, 4, width, 2), jnp.asarray(TIMES))


def slope(errors):
    """Slope in the width of errors [s widths], one fit per seed, or of their root mean squares."""
    return rates.log_log_slope(list(WIDTHS), np.sqrt(np.mean(np.square(errors), axis=0))).slope


def test_the_flow_of_a_transformer():
    """Theorem: mass is kept, the energy falls, by the dissipation summed over the rows' depths."""
    grid, flow = grid_run()
    energies = [
        float(scalar_tokens.energy(*measure.weighted_particles(rho, grid))) for rho in flow.density
    ]
    assert flow.mass_error < 1e-12
    assert float(jnp.min(flow.density)) >= 0.0
    assert not flow.warnings
    assert energies[0] > energies[1] + 0.1 > energies[2] + 0.2
    lost = float(jnp.sum(flow.dissipated[-1])) / scalar_tokens.DEPTH
    assert energies[0] - energies[-1] == pytest.approx(lost, rel=1e-4)


def test_variation_against_added_mass():
    """Finite difference: dQ of a little mass put on one cell of one row, times the depth."""
    grid, flow = grid_run(24)
    weights, points = measure.weighted_particles(flow.density[1], grid)
    variation = measure.variation_of(scalar_tokens.energy, depth=scalar_tokens.DEPTH)
    found = variation(weights, grid.points)
    for row, cell in ((0, 300), (1, 17), (2, 555), (3, 290)):
        more, less = (
            scalar_tokens.energy(weights.at[row, cell].add(mass), points) for mass in (1e-5, -1e-5)
        )
        expected = scalar_tokens.DEPTH * (more - less) / 2e-5
        assert float(found[row, cell]) == pytest.approx(float(expected), rel=1e-6)


def test_outputs_at_the_rate():
    """Theorem: the outputs of m particles miss those of the density by m^(-1/2)."""
    grid, flow = grid_run()
    limit = scalar_tokens.outputs(*measure.weighted_particles(flow.density[-1], grid))
    start = scalar_tokens.outputs(*measure.weighted_particles(flow.density[0], grid))
    errors = []
    for width in WIDTHS:
        clouds = particle_runs(width)[:, -1]
        even = jnp.full(clouds.shape[1:3], 1 / width)
        gaps = jax.vmap(scalar_tokens.outputs, in_axes=(None, 0))(even, clouds) - limit[None]
        errors.append(jnp.sqrt(jnp.mean(gaps**2, axis=1)))
    assert slope(np.array(errors).T) == pytest.approx(-0.5, abs=0.1)
    # Training moved the outputs by far more than what the widest network misses.
    moved = float(jnp.sqrt(jnp.mean((limit - start) ** 2)))
    assert float(jnp.mean(errors[-1])) < 0.2 * moved


@pytest.mark.parametrize("time", [0, 1])
def test_histograms_at_the_rate(time):
    """Theorem: at every depth, histograms in 8 x 8 cells approach the density like m^(-1/2)."""
    _, flow = grid_run()
    coarse = box(2, 2.5, 8)
    density = flow.density[2 * time].reshape(4, 8, 8, 8, 8).mean(axis=(2, 4))
    expected = np.concatenate([density] * SEEDS)
    errors = np.zeros((SEEDS, len(WIDTHS), 4))
    for column, width in enumerate(WIDTHS):
        clouds = particle_runs(width)[:, -time].reshape(-1, width, 2)
        gaps = np.abs(measure.histogram(clouds, coarse) - expected) * float(coarse.volume)
        errors[:, column] = gaps.reshape(SEEDS, 4, -1).sum(axis=2)
    for depth in range(4):
        assert slope(errors[:, :, depth]) == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize("axis", [0, 1])
def test_marginal_distances_at_the_rate(axis):
    """Theorem: the exact W_2 of both marginals at every depth falls like m^(-1/2)."""
    grid, flow = grid_run()
    marginals = flow.density[-1].sum(axis=2 - axis) * grid.spacing[1 - axis]
    line = measure.Grid((grid.edges[axis],))
    limits = jnp.concatenate([marginals] * SEEDS)
    errors = np.zeros((SEEDS, len(WIDTHS), 4))
    for column, width in enumerate(WIDTHS):
        clouds = particle_runs(width)[:, -1, ..., axis].reshape(-1, width, 1)
        errors[:, column] = measure.wasserstein_to_density(clouds, limits, line).reshape(SEEDS, 4)
    for depth in range(4):
        assert slope(errors[:, :, depth]) == pytest.approx(-0.5, abs=0.1)


def test_attraction_on_the_line():
    """Closed form: attracted particles shrink about their mean; W_2 to the grid is m^(-1/2)."""
    grid = box(1, 2.0, 400)
    start = measure.grid_density(stacked(bump(0.5, 1.0), bump(-0.3, 1.2)), grid)
    flow = measure.density_flow(measure.variation_of(pair_energy), start, grid, [0.0, 0.6])
    errors = np.zeros((SEEDS, len(WIDTHS), 2))
    for column, width in enumerate(WIDTHS):
        many = jnp.concatenate([start] * SEEDS)
        drawn = np.asarray(measure.draw_particles(jax.random.key(width), many, grid, width))
        means = drawn.mean(axis=1, keepdims=True)
        clouds = means * np.exp(-0.3) + (drawn - means) * np.exp(-0.9)
        limits = jnp.concatenate([flow.density[-1]] * SEEDS)
        errors[:, column] = measure.wasserstein_to_density(clouds, limits, grid).reshape(SEEDS, 2)
    for depth in range(2):
        assert slope(errors[:, :, depth]) == pytest.approx(-0.5, abs=0.1)


def test_weak_residual_of_the_run():
    """Theorem: particles of the flow solve the continuity equation; at 3 % more speed they do not.

    Velocities are those of the energy, so that this is the equation of the paper.
    """
    clouds = particle_runs(32)[0]
    velocities = jax.vmap(scalar_tokens.particle_velocity)(clouds)

    def phi(theta):
        return jnp.stack([theta[0], jnp.sin(theta[0] + theta[1]), jnp.exp(-theta @ theta)])

    exact = measure.weak_residual(phi, TIMES, clouds, velocities)
    doctored = measure.weak_residual(phi, TIMES, clouds, 1.03 * velocities)
    scale = np.abs(exact.rate).max()
    assert np.abs(exact.residual).max() < 3e-4 * scale
    assert np.abs(doctored.residual).max() > 0.02 * scale
