import functools
import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from scipy import stats

from meanfield import measure

KEY = jax.random.key(0)


class Particle(NamedTuple):
    matrix: object
    vector: object
    number: object


def particles(depth=3, width=6):
    rng = np.random.default_rng(0)
    return Particle(
        rng.normal(size=(depth, width, 2, 4)),
        rng.normal(size=(depth, width, 3)),
        rng.normal(size=(depth, width)),
    )


def points(m=7, p=4):
    return np.random.default_rng(1).normal(size=(m, p)) + 1.0


def assert_trees_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_clouds_against_a_loop():
    """Numpy loop: the leaves of each particle, flattened one after the other."""
    tree = particles()
    found = measure.clouds(tree)
    for layer in range(3):
        for j in range(6):
            point = np.concatenate([leaf[layer, j].ravel() for leaf in tree])
            np.testing.assert_array_equal(found[layer, j], point)


@pytest.mark.parametrize("layer", range(-3, 3))
def test_cloud_is_one_of_the_clouds(layer):
    """Invariance: a layer counted from either end, traced or not."""
    tree = particles()
    expected = measure.clouds(tree)[layer]
    np.testing.assert_array_equal(measure.cloud(tree, layer), expected)
    traced = jax.jit(measure.cloud, static_argnums=1)(tree, layer)
    np.testing.assert_array_equal(traced, expected)


def test_round_trip():
    """Invariance: particles to clouds and back, of all layers or one, at another width."""
    tree = particles()
    assert_trees_equal(measure.particles_from_cloud(measure.clouds(tree), tree), tree)
    wider = particles(depth=2, width=9)
    assert_trees_equal(measure.particles_from_cloud(measure.clouds(wider), tree), wider)
    layer = measure.particles_from_cloud(measure.cloud(tree, 1), tree)
    assert_trees_equal(layer, jax.tree.map(lambda leaf: leaf[1], tree))


def test_round_trip_keeps_types():
    """Invariance: a leaf of single precision comes back in single precision."""
    tree = {"a": np.ones((2, 5), np.float32), "b": np.ones((2, 5, 3))}
    assert measure.clouds(tree).dtype == np.float64
    assert_trees_equal(measure.particles_from_cloud(measure.clouds(tree), tree), tree)
    back = measure.particles_from_cloud(measure.clouds(tree), tree)
    assert back["a"].dtype == np.float32


def test_moments_against_numpy():
    """Independent library: numpy's mean, and its covariance with weight 1/m."""
    x = points()
    np.testing.assert_allclose(measure.mean(x), np.mean(x, axis=0), rtol=round_off())
    expected = np.cov(x, rowvar=False, ddof=0)
    np.testing.assert_allclose(measure.covariance(x), expected, rtol=round_off())
    norms = np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(measure.second_moment(x), np.mean(norms**2), rtol=round_off())
    expected = np.quantile(norms, [0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(measure.norm_quantiles(x), expected, rtol=round_off())


def test_moments_belong_to_the_measure():
    """Invariance: repeating every point changes no moment."""
    x = points()
    for moment in (measure.mean, measure.covariance, measure.second_moment):
        repeated = moment(np.repeat(x, 3, axis=0))
        np.testing.assert_allclose(repeated, moment(x), rtol=round_off(), atol=round_off())


def test_second_moment_splits():
    """Closed form: second moment = trace of the covariance + squared mean."""
    x = points()
    split = jnp.trace(measure.covariance(x)) + jnp.sum(measure.mean(x) ** 2)
    np.testing.assert_allclose(split, measure.second_moment(x), rtol=round_off())


def test_covariance_far_from_the_origin():
    """Invariance: a shift by 1e6 costs the digits of the data, not twice as many."""
    x = np.round(points() * 1024) / 1024
    expected = measure.covariance(x)
    np.testing.assert_allclose(measure.covariance(x + 2.0**20), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("coupling", ["independent", "path"])
def test_resampled_particles_are_particles(coupling):
    """Theorem: every draw is a whole particle of its own layer, at any width."""
    tree = particles()
    drawn = measure.resample(KEY, tree, 50, coupling=coupling)
    before, after = measure.clouds(tree), measure.clouds(drawn)
    assert after.shape == (3, 50, 12)
    assert (after[:, :, None] == before[:, None]).all(axis=-1).sum(axis=-1).tolist() == [
        [1] * 50
    ] * 3


def test_resample_couplings():
    """Theorem: a path keeps one index over all layers; independent layers agree only by luck."""
    index = {"j": np.broadcast_to(np.arange(40.0), (2, 40))}
    path = measure.resample(KEY, index, 300, coupling="path")["j"]
    np.testing.assert_array_equal(path[0], path[1])
    apart = measure.resample(KEY, index, 300)["j"]
    assert np.mean(apart[0] == apart[1]) < 0.1


def test_resample_is_uniform():
    """Theorem: indices drawn uniformly, chi-square test at the level 1e-4."""
    index = {"j": np.broadcast_to(np.arange(10.0), (2, 10))}
    drawn = np.asarray(measure.resample(KEY, index, 5000)["j"])
    for layer in drawn:
        assert stats.chisquare(np.bincount(layer.astype(int), minlength=10)).pvalue > 1e-4


@pytest.mark.parametrize("layer", [3, -4, 100])
def test_refused_layers(layer):
    """Closed form: the message gives the range."""
    with pytest.raises(ValueError, match=rf"layer must lie in \[-3, 2\] .* got {layer}"):
        measure.cloud(particles(), layer)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"a": np.ones(3)},
        {"a": np.ones((2, 3)), "b": np.ones((2, 4))},
        {"a": np.ones((0, 3))},
        {"a": np.ones((2, 0))},
    ],
)
def test_refused_trees(tree):
    """Closed form: no particles, or leaves that do not share depth and width."""
    resample = functools.partial(inspect.unwrap(measure.resample), KEY, width=2)
    for function in (inspect.unwrap(measure.clouds), resample):
        with pytest.raises(ValueError, match="particles must be"):
            function(tree)


def test_refused_points():
    """Closed form: points that do not fill a particle."""
    with pytest.raises(ValueError, match=r"points must have shape \[m 12\].*got \[6, 11\]"):
        measure.particles_from_cloud(np.ones((6, 11)), particles())


def test_refused_draws():
    """Closed form: no width, and no coupling of that name."""
    with pytest.raises(ValueError, match="width must be an integer >= 1, got 0"):
        measure.resample(KEY, particles(), 0)
    with pytest.raises(ValueError, match="did you mean 'path'"):
        inspect.unwrap(measure.resample)(KEY, particles(), 4, coupling="paths")


@pytest.mark.parametrize(
    "moment", [measure.mean, measure.covariance, measure.second_moment, measure.norm_quantiles]
)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (2, 3, 4)])
def test_refused_clouds(moment, shape):
    """Closed form: a moment needs a matrix of points."""
    with pytest.raises(ValueError, match="non-empty matrix"):
        inspect.unwrap(moment)(np.ones(shape))


@pytest.mark.parametrize("levels", [(), (0.5, 1.5), (-0.1,), (np.nan,)])
def test_refused_levels(levels):
    """Closed form: quantiles of levels outside [0, 1]."""
    with pytest.raises(ValueError, match=r"levels must be at least one number in \[0, 1\]"):
        measure.norm_quantiles(points(), levels=levels)
