import jax.numpy as jnp
import numpy as np
import pytest
from density_problems import box, bump, l1_error

from meanfield import measure


def random_potential(weights, points):
    # Rough in space, and of the density by its moments: the worst that an energy would do.
    waves = jnp.sin(13.0 * points[:, 0] + 7.0 * points[:, -1])
    moments = weights @ jnp.stack([points[:, 0], waves], axis=1)
    return 5.0 * moments @ jnp.stack([waves, points[:, 0] ** 2]) + 2.0 * waves[None]


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("cfl", [0.5, 0.99])
def test_mass_and_sign_of_rough_densities(dimension, cfl):
    """Theorem: positive and conservative for any density, empty cells and jumps included."""
    grid = box(dimension, 1.0, 24)
    rng = np.random.default_rng(0)
    rough = rng.exponential(size=(3, *grid.shape)) * (rng.uniform(size=(3, *grid.shape)) < 0.3)
    density = rough / (rough.reshape(3, -1).sum(axis=1) * float(grid.volume)).reshape(
        3, *[1] * dimension
    )
    flow = measure.density_flow(random_potential, density, grid, [0.0, 0.1, 0.5], cfl=cfl)
    assert flow.mass_error < 1e-12
    assert float(jnp.min(flow.density)) >= 0.0
    assert l1_error(flow.density[-1], density, grid) > 0.5


def test_growth_from_almost_rest():
    """Closed form: a mean that repels itself from 0 grows like e^(20 tau), from 1e-4 to 0.3."""
    grid = box(1, 2.0, 128)
    start = measure.grid_density(bump(1e-4, 1.0), grid)

    def repelled(weights, points):
        return -20.0 * (weights @ points) * points[None, :, 0]

    flow = measure.density_flow(repelled, start, grid, [0.0, 0.4])
    mean = float(flow.density[-1, 0] @ grid.points[:, 0] * grid.volume)
    # At the speed of the start, one step would be long enough for all of it.
    assert mean == pytest.approx(1e-4 * np.exp(8.0), rel=0.02)
    assert flow.rejected > 0


def test_settling():
    """Closed form: attraction of rate 40 comes to rest, with steps that stay within its time."""
    grid = box(1, 2.0, 32)
    start = measure.grid_density(bump(0.7, 1.0), grid)

    def drawn_to_rest(weights, points):
        return 40.0 * (weights @ points) * points[None, :, 0]

    flow = measure.density_flow(drawn_to_rest, start, grid, [0.0, 0.1, 1.0])
    means = flow.density[:, 0] @ grid.points[:, 0] * grid.volume
    np.testing.assert_allclose(means, 0.7 * np.exp(-40.0 * flow.times), atol=1e-3)
    # Speeds at rest would allow one step for all that is left, which overshoots without end.
    assert flow.result == "completed"
    assert flow.steps < 2000
