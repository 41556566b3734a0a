import functools
import inspect
import math

import jax
import numpy as np
import pytest
from distance_family import KEY, every_distance

from meanfield import measure

# The shape annotations refuse some of these first when they are checked, as in this suite; users
# run without that check, so the functions are tried bare.
BARE = {
    "exact": inspect.unwrap(measure.wasserstein),
    "line": inspect.unwrap(measure.wasserstein_1d),
    "sliced": functools.partial(inspect.unwrap(measure.sliced_wasserstein), KEY),
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


@pytest.mark.parametrize("name", ["exact", "sliced"])
def test_refused_dimensions(name):
    """Closed form: the message gives both dimensions."""
    with pytest.raises(ValueError, match="equal dimension, got 3 and 1"):
        BARE[name](np.ones((4, 3)), np.ones((4, 1)))


@every_distance
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
