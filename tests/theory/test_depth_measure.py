import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield.theory.depth_measure import layer_at

DEPTHS = jnp.array([0.2, 0.5, 0.6])
PARTICLES = {"a": jnp.array([[1.0, 2.0], [3.0, -1.0], [0.0, 5.0]])}
AT = (0.0, 0.2, 0.35, 0.5, 0.57, 0.6, 1.0)


def test_constant():
    """Closed form: the layer whose depth is the last before; the first layer before all."""
    layer = layer_at(PARTICLES, DEPTHS, "constant")
    found = [layer(t)["a"] for t in AT]
    np.testing.assert_array_equal(found, PARTICLES["a"][np.array([0, 0, 0, 1, 1, 2, 2])])


def test_linear():
    """Independent library: numpy.interp along every path."""
    layer = layer_at(PARTICLES, DEPTHS, "linear")
    found = np.array([layer(t)["a"] for t in AT])
    for path in range(2):
        expected = np.interp(AT, DEPTHS, PARTICLES["a"][:, path])
        np.testing.assert_allclose(found[:, path], expected, rtol=round_off(), atol=round_off())


def test_one_layer():
    """Closed form: one layer is the measure at every depth."""
    for interpolation in ("constant", "linear"):
        layer = layer_at(jnp.ones((1, 2)), jnp.zeros(1), interpolation)
        np.testing.assert_array_equal(layer(0.7), jnp.ones(2))


def test_unknown_interpolation():
    """Closed form: the nearest name is suggested."""
    with pytest.raises(ValueError, match="^interpolation must be one of .*did you mean 'linear'"):
        layer_at(jnp.ones((1, 2)), jnp.zeros(1), "lineal")
