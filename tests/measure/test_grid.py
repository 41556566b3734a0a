import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import measure

LINE = measure.uniform_grid([-1.0], [2.0], [6])
PLANE = measure.uniform_grid([0.0, -1.0], [1.0, 3.0], [4, 5])


def test_points_and_volumes():
    """Numpy loop: centres of the cells, the last axis fastest, and the volume of one."""
    centres = [(0.0 + (i + 0.5) * 0.25, -1.0 + (j + 0.5) * 0.8) for i in range(4) for j in range(5)]
    np.testing.assert_allclose(PLANE.points, centres, rtol=round_off())
    assert PLANE.shape == (4, 5)
    assert PLANE.dimension == 2
    np.testing.assert_allclose(PLANE.volume, 0.2, rtol=round_off())
    np.testing.assert_allclose(LINE.volume, 0.5, rtol=round_off())


def test_averages_of_polynomials():
    """Closed form: Gauss with three nodes is exact to degree 5, so x^5 is averaged exactly."""
    ends = np.linspace(-1.0, 2.0, 7)
    exact = np.diff(ends**6) / 6 + np.diff(ends)
    found = measure.grid_density(lambda x: x[:, 0] ** 5 + 1.0, LINE)[0] * LINE.volume
    np.testing.assert_allclose(found, exact / exact.sum(), rtol=round_off())


def test_averages_of_products():
    """Closed form: the averages of a product in two dimensions, one density per depth."""
    first, second = np.linspace(0.0, 1.0, 5), np.linspace(-1.0, 3.0, 6)
    exact = np.outer(np.diff(first**4), np.diff(second**3))
    found = measure.grid_density(
        lambda x: jnp.stack([x[:, 0] ** 3 * x[:, 1] ** 2, jnp.ones(len(x))]), PLANE
    )
    np.testing.assert_allclose(found[0] * PLANE.volume, exact / exact.sum(), rtol=round_off())
    np.testing.assert_allclose(found[1] * PLANE.volume, 1 / 20, rtol=round_off())


@pytest.mark.parametrize(
    ("lower", "upper", "cells", "message"),
    [
        ([0.0] * 3, [1.0] * 3, [8] * 3, "dimension must be 1 or 2.*got 3; .*weak_residual"),
        ([], [], [], "dimension must be 1 or 2"),
        ([0.0], [1.0, 2.0], [8], "one entry per axis, got 1, 2 and 1"),
        ([0.0], [1.0], [8, 8], "one entry per axis, got 1, 1 and 2"),
        ([1.0], [1.0], [8], "lower must be finite and below upper"),
        ([0.0], [np.inf], [8], "lower must be finite and below upper"),
        ([0.0], [1.0], [3], "cells must be an integer >= 4, got 3"),
    ],
)
def test_refusals_of_grids(lower, upper, cells, message):
    """Closed form: what is wrong with the box, and what to do instead."""
    with pytest.raises(ValueError, match=message):
        measure.uniform_grid(lower, upper, cells)


@pytest.mark.parametrize(
    ("pdf", "message"),
    [
        (lambda x: x[:, 0], "pdf must be >= 0 .*least value -0.9"),
        (lambda x: 0.0 * x[:, 0], r"masses \[0.0\]; move the grid"),
        (lambda x: jnp.nan * x[:, 0], "pdf must be finite"),
        (lambda x: x, r"pdf must give \[g\] or \[l g\] for the 18 points"),
        (lambda x: x[:4, 0] + 1.0, r"pdf must give \[g\] or \[l g\] for the 18 points"),
    ],
)
def test_refusals_of_densities(pdf, message):
    """Closed form: what is wrong with the function, and what to do instead."""
    with pytest.raises(ValueError, match=message):
        measure.grid_density(pdf, LINE)
