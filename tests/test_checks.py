import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meanfield import checks


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, -np.inf])
def test_positive(value):
    """Closed form: the message names the argument, what is expected and what was got."""
    assert checks.positive("bandwidth", 0.5) == 0.5
    with pytest.raises(ValueError, match=rf"^bandwidth must be a finite number > 0, got {value}$"):
        checks.positive("bandwidth", value)


@pytest.mark.parametrize("value", [-1.0, -1e-300, np.nan, np.inf])
def test_non_negative(value):
    """Closed form: zero passes; less, infinity and NaN do not."""
    assert checks.non_negative("weight_decay", 0.0) == 0.0
    kind = "" if np.isfinite(value) else "a finite number "
    with pytest.raises(ValueError, match=rf"^weight_decay must be {kind}>= 0, got {value}$"):
        checks.non_negative("weight_decay", value)


@pytest.mark.parametrize("value", [0, -3, 2.5, True, np.nan, np.inf])
def test_count(value):
    """Closed form: whole numbers from the least on; True is no number."""
    with pytest.raises(ValueError, match=rf"^depth must be an integer >= 1, got {value}$"):
        inspect.unwrap(checks.count)("depth", value)


@pytest.mark.parametrize("value", [2**63, 10**400, -(10**400)])
def test_count_beyond_all_counters(value):
    """House rule: what no array can be as long as is refused, not an overflow."""
    with pytest.raises(ValueError, match="depth must be an integer >= 1 and below 2\\^63"):
        checks.count("depth", value)


def test_count_of_other_types():
    """Closed form: whole numbers of other types become Python's integers."""
    for value in (3, 3.0, np.int32(3)):
        counted = inspect.unwrap(checks.count)("depth", value)
        assert type(counted) is int
        assert counted == 3
    assert checks.count("layer", 0, least=0) == 0


def test_choice_suggests():
    """Closed form: the nearest option is suggested when one is near."""
    options = (name for name in ("softmax", "gaussian"))
    with pytest.raises(
        ValueError,
        match=r"^kernel must be one of softmax, gaussian, got 'gausian'; did you mean 'gaussian'\?",
    ):
        checks.choice("kernel", "gausian", options)
    with pytest.raises(ValueError, match="got 'relu'$"):
        checks.choice("kernel", "relu", ("softmax", "gaussian"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_finite(bad):
    """Closed form: bad entries are counted, in any leaf."""
    tree = {"a": jnp.ones((2, 2)), "b": np.array([1.0, bad, bad])}
    with pytest.raises(
        ValueError, match="^inputs must be finite, got 2 NaN or infinite entries among 3;"
    ):
        checks.finite("inputs", tree)


def test_finite_passes_other_types():
    """Closed form: integers, booleans, Python numbers and empty trees pass."""
    for tree in (np.arange(3), np.array(True), 1.0, (), np.zeros((0, 3)), [2, {"a": 1.5}]):
        checks.finite("inputs", tree)


def test_finite_passes_traced_arrays():
    """Closed form: an array inside jit has no values to check; NaN is data there."""

    @jax.jit
    def checked(x):
        checks.finite("inputs", x)
        return 2 * x

    assert float(checked(1.0)) == 2.0
    assert np.isnan(checked(np.nan))
