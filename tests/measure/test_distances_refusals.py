import functools
import inspect
import math
import sys

import jax
import numpy as np
import pytest
from distance_family import KEY, TRANSPORT, every_distance, two_clouds

from meanfield import measure
from meanfield.measure import entropic

# The shape annotations refuse some of these first when they are checked, as in this suite; users
# run without that check, so the functions are tried bare.
BARE = {
    "exact": inspect.unwrap(measure.wasserstein),
    "line": inspect.unwrap(measure.wasserstein_1d),
    "sliced": functools.partial(inspect.unwrap(measure.sliced_wasserstein), KEY),
    "sinkhorn": inspect.unwrap(measure.sinkhorn_divergence),
    "gaussian": inspect.unwrap(measure.mmd),
    "energy": inspect.unwrap(measure.energy_distance),
}


@every_distance
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:0], "y must be a non-empty cloud"),
        (lambda x: x[None], "y must be a non-empty cloud"),
        (lambda x: x * np.nan, "y must be finite"),
        (lambda x: x + np.inf, "y must be finite"),
    ],
)
def test_refused_clouds(name, spoil, message):
    """Closed form: one sentence that names the argument."""
    x = np.ones(4) if name == "line" else np.ones((4, 2))
    with pytest.raises(ValueError, match=message):
        BARE[name](x, spoil(x))


@every_distance
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.full(3, 1 / 3), "one weight for each of 4 points, got shape \\[3\\]"),
        (np.array([0.5, 0.7, -0.2, 0.0]), "numbers >= 0, got -0.2"),
        (np.array([0.25, 0.25, 0.25, np.nan]), "numbers >= 0, got nan"),
        (np.full(4, 0.3), "sum to 1, got 1.2; divide"),
    ],
)
def test_refused_weights(name, weights, message):
    """Closed form: the message gives the weight or the sum, and says what to do."""
    x = np.ones(4) if name == "line" else np.ones((4, 2))
    for side in ("x_weights", "y_weights"):
        with pytest.raises(ValueError, match=f"{side} must .*{message}"):
            BARE[name](x, x, **{side: weights})


@pytest.mark.parametrize("name", [name for name in BARE if name != "line"])
def test_refused_dimensions(name):
    """Closed form: the message gives both dimensions."""
    with pytest.raises(ValueError, match="equal dimension, got 3 and 1"):
        BARE[name](np.ones((4, 3)), np.ones((4, 1)))


@pytest.mark.parametrize("name", TRANSPORT)
@pytest.mark.parametrize("p", [0.5, -1, 0, math.nan, math.inf])
def test_refused_orders(name, p):
    """Closed form: below 1 there is no distance, and the limit of infinite order is not offered."""
    x = np.ones(4) if name == "line" else np.ones((4, 2))
    with pytest.raises(ValueError, match="p must be a finite number >= 1, got"):
        BARE[name](x, x, p=p)


def test_refused_projections():
    """Closed form: at least one direction."""
    with pytest.raises(ValueError, match="projections must be an integer >= 1, got 0"):
        measure.sliced_wasserstein(KEY, np.ones((4, 2)), np.ones((4, 2)), projections=0)


def test_exact_refuses_to_be_traced():
    """Closed form: the sentence points to the distance that can be traced."""
    with pytest.raises(ValueError, match="sliced_wasserstein"):
        jax.jit(measure.wasserstein)(np.ones((4, 2)), np.ones((4, 2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be a finite number > 0, got 0.0"),
        ({"tolerance": -1.0}, "tolerance must be a finite number > 0"),
        ({"max_iterations": 0}, "max_iterations must be an integer >= 1"),
        ({"epsilon": 1e-7}, "did not reach tolerance 0.0001 in .*pass a larger epsilon"),
    ],
)
def test_refused_entropies(options, message):
    """Closed form: one sentence; iterations that do not converge are no silent number."""
    x, y = two_clouds(6, 9, 2)
    with pytest.raises(ValueError, match=message):
        measure.sinkhorn_divergence(x, y, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "gausian"}, "did you mean 'gaussian'"),
        ({"estimate": "best"}, "estimate must be one of biased, unbiased"),
        ({"bandwidth": 0.0}, "bandwidth must be a finite number > 0, got 0.0"),
        ({"kernel": "energy", "bandwidth": 1.0}, "the energy kernel has no bandwidth"),
        ({"estimate": "unbiased"}, ">= 2 points of positive weight in each cloud, got one"),
    ],
)
def test_refused_kernels(options, message):
    """Closed form: one sentence that says what to do."""
    with pytest.raises(ValueError, match=message):
        BARE["gaussian"](np.ones((4, 2)), np.ones((1, 2)), **options)


@pytest.mark.parametrize("name", ["gaussian", "energy"])
def test_refused_single_weight(name):
    """Closed form: all weight on one point leaves no pair of different points, so 0/0."""
    x, weights = np.arange(8.0).reshape(4, 2), np.array([0.0, 1.0, 0.0, 0.0])
    for side in ("x_weights", "y_weights"):
        with pytest.raises(ValueError, match="points of positive weight .* take `biased`"):
            BARE[name](x, x, estimate="unbiased", **{side: weights})


def test_refused_underflow():
    """Closed form: W_100 of two far pairs, each 1 apart, is 1, whose power is 1e-400 of the rest.

    The line, which scales by the gaps, can tell.
    """
    x = np.array([[0.0], [1e4]])
    with pytest.raises(ValueError, match="p = 100 is too high for distances from 1 to 10001; take"):
        BARE["exact"](x, x + 1.0, p=100)
    np.testing.assert_allclose(BARE["line"](x[:, 0], x[:, 0] + 1.0, p=100), 1.0)


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        (np.ones(3), "must be a matrix"),
        (np.ones((0, 3)), "must be a matrix"),
        (-np.ones((2, 2)), "numbers >= 0"),
        (np.full((2, 2), np.nan), "numbers >= 0"),
    ],
)
def test_refused_matrices(distances, message):
    """Closed form: the distances between points are numbers >= 0, one for each pair."""
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(measure.wasserstein_of)(distances)


@pytest.mark.parametrize(
    ("name", "library", "options"),
    [
        ("exact", "ot", {"x_weights": np.array([0.1, 0.2, 0.3, 0.4])}),
        ("sinkhorn", "ott.geometry", {}),
    ],
)
def test_missing_libraries(name, library, options, monkeypatch):
    """Closed form: the sentence names the extra, and a distance that does without it."""
    monkeypatch.setitem(sys.modules, library, None)
    entropic._solver.cache_clear()
    x = np.ones((4, 2))
    with pytest.raises(ImportError, match=r"meanfield\[ot\].*sliced_wasserstein"):
        BARE[name](x, x + 1.0, **options)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"bias": np.ones((4, 5))}, "equal depth, got 3 and 4"),
        ({"weight": np.ones((3, 5))}, "same kind of particle"),
        ({"bias": np.ones((3, 5, 2))}, "equal dimension"),
        ({"bias": np.ones((0, 5))}, r"start with the same axes \[depth, width\]"),
    ],
)
def test_refused_networks(other, message):
    """Closed form: different depths, trees or particles, and no layers at all."""
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(measure.network_distance)({"bias": np.ones((3, 5))}, other, BARE["exact"])
