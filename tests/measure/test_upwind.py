import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield.measure.upwind import crossings, upwind_tendency


def limited(left, right):
    if left * right <= 0:
        return 0.0
    return np.sign(left) * min(2 * abs(left), abs(left + right) / 2, 2 * abs(right))


def tendency_loop(density, potential, spacing):
    """Change, dissipation and blocked mass per time of one depth, face by face."""
    change, volume = np.zeros_like(density), np.prod(spacing)
    dissipation = blocked = 0.0
    for axis, step in enumerate(spacing):
        for here in np.ndindex(density.shape):
            ahead = tuple(k + (a == axis) for a, k in enumerate(here))
            behind = tuple(k - (a == axis) for a, k in enumerate(here))
            if ahead[axis] == density.shape[axis]:
                out = -(potential[here] - potential[behind]) / step
                blocked += max(out, 0.0) * density[here] / step * volume
                continue
            velocity = -(potential[ahead] - potential[here]) / step
            if here[axis] == 0:
                blocked += max(-velocity, 0.0) * density[here] / step * volume
            cell, side = (here, 0.5) if velocity > 0 else (ahead, -0.5)
            last = density.shape[axis] - 1
            before, after = (
                tuple(k + shift * (a == axis) for a, k in enumerate(cell)) for shift in (-1, 1)
            )
            slope = 0.0
            if 0 < cell[axis] < last:
                slope = limited(density[cell] - density[before], density[after] - density[cell])
            flux = velocity * (density[cell] + side * slope)
            change[here] -= flux / step
            change[ahead] += flux / step
            dissipation += flux * velocity * volume
    return change, dissipation, blocked


@pytest.mark.parametrize(("cells", "spacing"), [((9,), (0.3,)), ((5, 7), (0.4, 0.1))])
def test_against_a_loop(cells, spacing):
    """Numpy loop: the flux through every face, from the cell that the mass leaves."""
    rng = np.random.default_rng(0)
    density = rng.exponential(size=(3, *cells)) * (rng.uniform(size=(3, *cells)) < 0.8)
    potential = rng.normal(size=(3, *cells))
    found = upwind_tendency(
        jnp.asarray(density), jnp.asarray(potential), tuple(map(jnp.asarray, spacing))
    )
    for depth in range(3):
        change, dissipation, blocked = tendency_loop(density[depth], potential[depth], spacing)
        np.testing.assert_allclose(found.change[depth], change, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.dissipation[depth], dissipation, rtol=round_off())
        np.testing.assert_allclose(found.blocked[depth], blocked, rtol=round_off())
    assert float(found.dissipation.min()) > 0


def test_crossings():
    """Numpy loop: greatest speed along each axis in cells per time, summed over axes."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 6, 4))
    found = crossings(
        (jnp.asarray(first), jnp.asarray(second)), (jnp.asarray(0.5), jnp.asarray(2.0))
    )
    expected = np.abs(first).max() / 0.5 + np.abs(second).max() / 2.0
    np.testing.assert_allclose(found, expected, rtol=round_off())


def test_linear_densities_are_exact():
    """Closed form: at constant speed a linear density changes by -u rho', away from the walls."""
    density = jnp.linspace(1.0, 2.0, 11)[None]
    potential = -3.0 * jnp.linspace(0.0, 10.0, 11)[None]
    change = upwind_tendency(density, potential, (jnp.asarray(1.0),)).change
    np.testing.assert_allclose(change[0, 2:-2], -3.0 * 0.1, rtol=1e-12)
