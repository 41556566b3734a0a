import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from density_problems import box, bump, gaussian
from helpers import round_off
from scipy import stats

from meanfield import measure, rates

LINE = measure.uniform_grid([-1.0], [2.0], [6])
PLANE = measure.uniform_grid([0.0, -1.0], [1.0, 3.0], [4, 5])


def test_histogram_against_a_loop():
    """Numpy loop: every particle adds 1/m to the mass of its cell, ends of the box included."""
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(0, 1, (3, 50)), rng.uniform(-1, 3, (3, 50))], axis=-1)
    points[0, 0], points[0, 1] = (0.0, -1.0), (1.0, 3.0)
    masses = np.zeros((3, 4, 5))
    for depth in range(3):
        for x, y in points[depth]:
            masses[depth, min(int(x * 4), 3), min(int((y + 1) / 0.8), 4)] += 1 / 50
    found = measure.histogram(points, PLANE)
    np.testing.assert_allclose(found * PLANE.volume, masses, rtol=round_off(), atol=round_off())


WIDTHS = 4 ** np.arange(2, 7)


@pytest.mark.parametrize("dimension", [1, 2])
def test_rate_of_the_histogram(dimension):
    """Theorem: for draws E int |hist - rho| is sqrt(2/(pi m)) sum sqrt(p (1 - p)), by the CLT."""
    grid = box(dimension, 1.0, 8)
    density = jnp.ones((40, *grid.shape)) * measure.grid_density(bump(0.0, 1.3), grid)
    masses = np.asarray(density[0] * grid.volume)
    errors = []
    for seed, width in enumerate(WIDTHS):
        drawn = measure.draw_particles(jax.random.key(seed), density, grid, int(width))
        gaps = np.abs(measure.histogram(drawn, grid) - density) * float(grid.volume)
        errors.append(gaps.reshape(40, -1).sum(axis=1))
    errors = np.array(errors).T
    expected = math.sqrt(2 / math.pi / WIDTHS[-1]) * np.sum(np.sqrt(masses * (1 - masses)))
    sample_error = errors[:, -1].std(ddof=1) / math.sqrt(40)
    assert sample_error < 0.06 * expected
    assert abs(errors[:, -1].mean() - expected) < 4 * sample_error
    assert rates.log_log_slope(WIDTHS[1:], errors[:, 1:]).slope == pytest.approx(-0.5, abs=0.1)


def test_draws_against_the_density():
    """Independent library: scipy's Kolmogorov-Smirnov test of each depth's draws."""
    density = measure.grid_density(
        lambda x: jnp.stack([x[:, 0] + 1.0, jnp.where(x[:, 0] > 0.5, 1.0, 0.0)]), LINE
    )
    drawn = np.asarray(measure.draw_particles(jax.random.key(1), density, LINE, 4000))[..., 0]
    for depth in range(2):
        cumulative = np.concatenate([[0.0], np.cumsum(density[depth] * LINE.volume)])
        assert stats.kstest(drawn[depth], np.interp, (LINE.edges[0], cumulative)).pvalue > 1e-3
    assert drawn[1].min() >= 0.5


def test_depths_are_drawn_afresh():
    """Invariance: equal densities at two depths give unequal, uncorrelated draws."""
    drawn = measure.draw_particles(jax.random.key(2), jnp.full((2, 4, 5), 0.25), PLANE, 4000)
    uniform = (np.asarray(drawn) - [0.5, 1.0]) / [1.0, 4.0]
    correlation = (uniform[0] * uniform[1]).mean(axis=0) * 12
    assert np.abs(correlation).max() < 4 / math.sqrt(4000)


def test_weighted_particles():
    """Closed form: weights sum to one, and the mean of x is that of the density."""
    density = measure.grid_density(lambda x: x[:, 0] + 1.0, LINE)
    weights, points = measure.weighted_particles(density, LINE)
    assert points.shape == (1, 6, 1)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=round_off())
    ends = np.linspace(-1.0, 2.0, 7)
    masses = np.diff((ends + 1) ** 2) / 9
    np.testing.assert_allclose(
        jnp.sum(weights * points[..., 0]), masses @ ((ends[1:] + ends[:-1]) / 2), rtol=round_off()
    )


@pytest.mark.parametrize("width", [1, 6, 7, 24])
def test_distance_of_midpoints(width):
    """Closed form: m midpoints and the uniform density of length s are s/(m sqrt 12) apart."""
    points = -1.0 + 3.0 * (np.arange(width) + 0.5) / width
    found = measure.wasserstein_to_density(points[None, ::-1, None], np.ones((1, 6)) / 3, LINE)
    np.testing.assert_allclose(found, 3.0 / (width * math.sqrt(12)), rtol=round_off())


def test_distance_of_thin_tails():
    """Closed form: to a point at the mean it is the deviation, cells of mass 1e-300 included."""
    grid = box(1, 12.0, 400)
    density = measure.grid_density(gaussian(0.0, 0.35), grid)
    centres, step = np.asarray(grid.points)[:, 0], float(grid.volume)
    masses = np.asarray(density)[0] * step
    expected = math.sqrt(masses @ centres**2 + step**2 / 12)
    for width in (1, 7, 64):
        found = measure.wasserstein_to_density(np.zeros((1, width, 1)), density, grid)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_distance_across_empty_cells():
    """Independent library: the cloud distance to 60,000 quantiles of a density with gaps."""
    rng = np.random.default_rng(3)
    density = np.array([[0.0, 2.0, 0.0, 0.0, 1.0, 3.0], [1.0, 0.0, 4.0, 0.0, 1.0, 0.0]]) / 3
    points = rng.uniform(-1.5, 2.5, (2, 13, 1))
    found = measure.wasserstein_to_density(points, density, LINE)
    for depth in range(2):
        cumulative = np.concatenate([[0.0], np.cumsum(density[depth]) / 2])
        starts = np.asarray(LINE.edges[0])[:-1]
        levels = (np.arange(60_000) + 0.5) / 60_000
        cell = np.searchsorted(cumulative, levels, side="right") - 1
        quantiles = starts[cell] + (levels - cumulative[cell]) / density[depth, cell]
        expected = measure.wasserstein_1d(points[depth, :, 0], quantiles)
        assert found[depth] == pytest.approx(float(expected), rel=1e-4)


def test_rate_of_the_distance():
    """Theorem: W_2 of m draws falls like m^(-1/2) where the density is bounded below."""
    grid = measure.uniform_grid([0.0], [1.0], [16])
    density = jnp.ones((60, 16))
    errors = np.array(
        [
            measure.wasserstein_to_density(
                measure.draw_particles(jax.random.key(seed), density, grid, int(width)),
                density,
                grid,
            )
            for seed, width in enumerate(WIDTHS)
        ]
    ).T
    fit = rates.log_log_slope(WIDTHS, errors)
    assert fit.slope == pytest.approx(-0.5, abs=0.1)
    # E W_2^2 = int F (1 - F)/rho / m = 1/(6 m) for the uniform density.
    squares = errors[:, -1] ** 2 * WIDTHS[-1]
    sample_error = squares.std(ddof=1) / math.sqrt(60)
    assert abs(squares.mean() - 1 / 6) < 4 * sample_error
    assert sample_error < 0.04


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((1, 0, 1)), r"non-empty clouds \[l m 1\]"),
        (np.zeros((0, 5, 1)), r"non-empty clouds \[l m 1\]"),
        (np.zeros((1, 5, 2)), r"non-empty clouds \[l m 1\]"),
        (np.zeros((5, 1)), r"single cloud of points \[m p\] is points\[None\]"),
        (np.full((1, 5, 1), np.nan), "points must be finite"),
        (np.array([[[0.0], [5.0]]]), "1 of 2 particles lie off the grid.*widen it"),
    ],
)
def test_refusals_of_clouds(points, message):
    """Closed form: what is wrong with the clouds, and what to do instead."""
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(measure.histogram)(points, LINE)


@pytest.mark.parametrize("shape", [(6,), (1, 12), (0, 6), (1, 6, 6)])
def test_refusals_of_weighted_particles(shape):
    """Closed form: masses of another grid would not be those of the points handed back."""
    with pytest.raises(ValueError, match=r"density must have shape \[l, 6\]"):
        inspect.unwrap(measure.weighted_particles)(np.ones(shape), LINE)


def test_refusals_of_distances():
    """Closed form: what is wrong with the pair, and what to do instead."""
    with pytest.raises(ValueError, match="grid of dimension 1, got 2; compare marginals"):
        measure.wasserstein_to_density(np.zeros((1, 3, 1)), np.ones((1, 20)), PLANE)
    with pytest.raises(ValueError, match="equal depth, got 2 and 1"):
        inspect.unwrap(measure.wasserstein_to_density)(
            np.zeros((2, 3, 1)), np.ones((1, 6)) / 3, LINE
        )
    with pytest.raises(ValueError, match="mass 1 at every depth"):
        measure.wasserstein_to_density(np.zeros((1, 3, 1)), np.ones((1, 6)), LINE)
    with pytest.raises(ValueError, match="width must be an integer"):
        measure.draw_particles(jax.random.key(0), np.ones((1, 6)) / 3, LINE, 0)
