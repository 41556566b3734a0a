import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distance_family import (
    FAMILY,
    FIXED,
    KEY,
    TRACED,
    TRANSPORT,
    assert_round_off,
    draws,
    every_case,
    every_distance,
    every_distance_and_case,
    every_distance_and_order,
    every_size,
    two_clouds,
    weights,
)
from helpers import round_off
from scipy import stats

from meanfield import measure

every_order = pytest.mark.parametrize("p", [1, 1.5, 5])
every_transport = pytest.mark.parametrize("name", TRANSPORT)
every_traced = pytest.mark.parametrize("name", TRACED)


@every_distance_and_order
def test_zero_exactly_between_permutations(name, p):
    """Theorem: a distance is 0 between a cloud and its permutation, and positive otherwise."""
    distance, dim = FAMILY[name]
    x, y = two_clouds(9, 9, dim)
    assert distance(x, x[::-1], p=p) <= round_off()
    assert distance(x, y, p=p) > 0.1


@every_distance
def test_point_masses(name):
    """Closed form: collapsed clouds, where every pair has the same distance, 0 among them."""
    distance, dim = FAMILY[name]
    x, y = np.ones((11, dim)), np.ones((7, dim))
    assert distance(x, y) == 0.0
    assert_round_off(distance(x, y + 2.0), FAMILY[name][0](x[:1], y[:1] + 2.0))


@every_distance_and_case
def test_symmetry(name, m, n, p):
    """Theorem: d(x, y) = d(y, x)."""
    distance, dim = FAMILY[name]
    x, y = two_clouds(m, n, dim)
    assert_round_off(distance(x, y, p=p), distance(y, x, p=p))


@every_distance_and_case
def test_triangle_inequality(name, m, n, p):
    """Theorem: d(x, z) <= d(x, y) + d(y, z), also where y lies between x and z."""
    if name == "sinkhorn":
        pytest.skip("no theorem says it of the Sinkhorn divergence")
    distance, dim = FAMILY[name]
    distance = functools.partial(distance, **FIXED.get(name, {}))
    for seed in range(3):
        x, z = two_clouds(m, n, dim, seed)
        for y in (two_clouds(8, 1, dim, seed + 50)[0], np.concatenate([x, z])):
            through = distance(x, y, p=p) + distance(y, z, p=p)
            assert distance(x, z, p=p) <= through * (1 + round_off())


@pytest.mark.parametrize(
    ("name", "p"),
    [("exact", 1), ("exact", 1.5), ("exact", 5), ("line", 1), ("line", 5), ("sinkhorn", 2)],
)
def test_translation(name, p):
    """Closed form: W_p(x, x + c) = |c|, and the same of the debiased Sinkhorn divergence."""
    distance, dim = FAMILY[name]
    x, _ = two_clouds(9, 9, dim)
    shift = np.array([[3.0, -4.0, 12.0]])[:, :dim]
    assert_round_off(distance(x, x[::-1] + shift, p=p), np.linalg.norm(shift))


@every_distance
@pytest.mark.parametrize("factor", [-2.0, 1e-60, 1e60])
def test_scaling(name, factor):
    """Invariance: d(a x, a y) = |a|^h d(x, y), at orders that would over- or underflow."""
    distance, dim = FAMILY[name]
    # The default bandwidth grows with the points.
    power = {"gaussian": 0.0, "energy": 0.5}.get(name, 1.0)
    x, y = two_clouds(11, 7, dim)
    scaled = distance(factor * x, factor * y, p=8) / abs(factor) ** power
    assert_round_off(scaled, distance(x, y, p=8))


@every_distance_and_case
def test_common_translation_and_order_of_points(name, m, n, p):
    """Invariance: moving both clouds by one vector, and numbering the points otherwise."""
    distance, dim = FAMILY[name]
    x, y = two_clouds(m, n, dim)
    assert_round_off(
        distance(x[::-1] + 3.0, np.roll(y, 2, axis=0) + 3.0, p=p), distance(x, y, p=p), 10.0
    )


@every_distance_and_order
@pytest.mark.parametrize(("left", "right"), [(2, 1), (1, 3), (5, 7)])
def test_duplication_of_points(name, p, left, right):
    """Invariance: the measure, hence the distance, is that of the cloud with points repeated."""
    distance, dim = FAMILY[name]
    distance = functools.partial(distance, **FIXED.get(name, {}))
    x, y = two_clouds(4, 4, dim)
    many = distance(np.repeat(x, left, axis=0), np.tile(y, (right, 1)), p=p)
    assert_round_off(many, distance(x, y, p=p))


@every_transport
@every_size
def test_increases_with_the_order(name, m, n):
    """Theorem: W_p <= W_q for p <= q (Jensen), and W_p <= the largest distance of two points."""
    distance, dim = FAMILY[name]
    x, y = two_clouds(m, n, dim)
    values = [float(distance(x, y, p=p)) for p in (1, 1.5, 2, 4, 20)]
    assert values == sorted(values)
    assert values[-1] <= np.linalg.norm(x[:, None] - y[None], axis=-1).max()


@every_case
def test_sliced_is_below_exact(m, n, p):
    """Theorem: projections are 1-Lipschitz, so SW_p <= W_p for any directions."""
    x, y = two_clouds(m, n, 3)
    for key in jax.random.split(KEY, 3):
        sliced = measure.sliced_wasserstein(key, x, y, p=p, projections=3)
        assert sliced <= measure.wasserstein(x, y, p=p)


def test_one_dimension_is_a_single_slice():
    """Theorem: on the line the exact, the quantile and the sliced distance are one."""
    x, y = two_clouds(10, 23, 1)
    values = [FAMILY[name][0](x, y, p=3) for name in TRANSPORT]
    assert_round_off(values[0], values[1])
    assert_round_off(values[2], values[1])


def test_rotation():
    """Invariance: one rotation of both clouds; for slices in expectation, error below 2 %."""
    x, y = two_clouds(7, 10, 4)
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))[0]
    assert_round_off(measure.wasserstein(x @ rotation, y @ rotation), measure.wasserstein(x, y))
    plain = draws(x, y, repeats=60, projections=100) ** 2
    turned = draws(x @ rotation, y @ rotation, repeats=60, projections=100, seed=9) ** 2
    error = math.hypot(stats.sem(plain), stats.sem(turned))
    assert error < 0.02 * plain.mean()
    assert abs(plain.mean() - turned.mean()) < 4 * error


@pytest.mark.parametrize(
    ("name", "p"),
    [("line", 1), ("line", 2), ("line", 3), ("sliced", 1), ("sliced", 2), ("sliced", 3)]
    + [(name, 2) for name in TRACED[2:]],
)
def test_gradient(name, p):
    """Finite difference: central, along a random direction, through jit."""
    distance, dim = FAMILY[name]
    x, y = two_clouds(6, 9, dim)
    along = np.random.default_rng(2).normal(size=x.shape)
    # What is chosen from the clouds is a constant for derivatives.
    fixed = FIXED.get(name, {})
    function = jax.jit(lambda t: distance(x + t * along, y, p=p, **fixed))
    difference = (function(1e-5) - function(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(function))(0.0), difference, rtol=1e-8)


@every_traced
def test_gradient_at_zero_distance(name):
    """Theorem: 0 is the least value, and the derivative there is set to 0, not to NaN."""
    distance, dim = FAMILY[name]
    x = jnp.asarray(two_clouds(6, 6, dim)[0])
    np.testing.assert_array_equal(jax.grad(lambda z: distance(z, x, p=2))(x), 0.0)


@every_traced
def test_not_finite_inside_jit(name):
    """Theorem: nothing raises inside jit; trouble is data, here a NaN."""
    distance, dim = FAMILY[name]
    x, y = two_clouds(6, 9, dim)
    x[2, 0] = np.nan
    assert np.isnan(jax.jit(distance)(x, y))


@every_traced
def test_traced_values(name):
    """Invariance: under jit and vmap as outside, where slices are sorted by numpy."""
    distance, dim = FAMILY[name]
    x, y = two_clouds(6, 9, dim)
    stacked = jax.jit(jax.vmap(distance, in_axes=(0, None)))(np.stack([x, 2.0 * x]), y)
    assert_round_off(stacked, [distance(x, y), distance(2.0 * x, y)])


@every_distance
def test_weights_count_points(name):
    """Invariance: a point of weight k/n is k points of n, and one of weight 0 is none."""
    distance, dim = FAMILY[name]
    x, y = two_clouds(4, 5, dim)
    counts = np.array([3, 0, 2, 4])
    many = distance(np.repeat(x, counts, axis=0), y)
    assert_round_off(distance(x, y, x_weights=counts / counts.sum()), many)
    assert_round_off(distance(y, x, y_weights=counts / counts.sum()), many)
    assert_round_off(distance(x, y, x_weights=np.full(4, 0.25)), distance(x, y))


@every_traced
def test_gradient_of_weights(name):
    """Finite difference: central, mass moved between the points of one cloud."""
    distance, dim = FAMILY[name]
    x, y = two_clouds(6, 9, dim)
    first, moved = weights(6), weights(6, 1) - weights(6, 2)
    fixed = FIXED.get(name, {})
    function = jax.jit(lambda t: distance(x, y, x_weights=first + t * moved, **fixed))
    difference = (function(1e-5) - function(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(function))(0.0), difference, rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_of_the_input(dtype):
    """Closed form: a shift, in the precision of the points for slices, in float64 when exact."""
    x = np.arange(12, dtype=dtype).reshape(12, 1)
    sliced = measure.sliced_wasserstein(KEY, x, x + 4)
    assert sliced.dtype == dtype
    np.testing.assert_allclose(sliced, 4.0, rtol=round_off(dtype))
    assert_round_off(measure.wasserstein(x, x + 4), 4.0)


def test_integers_count_as_numbers():
    """Closed form: points given as integers are not truncated weights."""
    line = inspect.unwrap(measure.wasserstein_1d)
    assert_round_off(line(np.array([0, 2]), np.array([1, 2, 3]), p=1), 1.0)


@pytest.mark.parametrize(
    "distance", [measure.wasserstein, functools.partial(measure.sliced_wasserstein, KEY)]
)
def test_networks_layer_by_layer(distance):
    """Numpy loop: the distance of the flattened particles of each layer, widths differing."""
    rng = np.random.default_rng(0)
    xs, ys = (
        {"bias": rng.normal(size=(3, m)), "weight": rng.normal(size=(3, m, 2, 2))} for m in (6, 9)
    )
    expected = [
        distance(*(np.c_[z["bias"][t], z["weight"][t].reshape(-1, 4)] for z in (xs, ys)))
        for t in range(3)
    ]
    assert_round_off(measure.network_distance(xs, ys, distance), expected)
