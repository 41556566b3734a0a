import numpy as np
from helpers import round_off

from meanfield.flow.observables import observables, observed
from meanfield.flow.progress import meter
from meanfield.flow.record import balance_warnings, energy_balance, rows


def test_energy_balance():
    """Closed form: |Q(0) - Q - D| over the largest decrease so far, 0 before any."""
    energy = np.array([3.0, 3.0, 1.0, 2.0])
    dissipated = np.array([0.0, 0.5, 2.2, 1.1])
    balance = energy_balance(energy, dissipated)
    np.testing.assert_allclose(balance.residual, [0.0, 0.0, 0.1, 0.05], rtol=round_off())
    np.testing.assert_array_equal(balance.energy, energy)
    np.testing.assert_array_equal(balance.dissipated, dissipated)


def test_energy_that_rises_is_seen():
    """Closed form: a rise counts as a change, so its residual is not hidden by a division by 0."""
    balance = energy_balance(np.array([1.0, 1.5]), np.array([0.0, 0.1]))
    np.testing.assert_allclose(balance.residual[1], 0.6 / 0.5, rtol=round_off())


def test_empty_balance():
    """Closed form: a run without save times has an empty balance and no warnings."""
    balance = energy_balance(np.zeros(0), np.zeros(0))
    assert balance.residual.size == 0
    assert balance_warnings(balance, 0.01) == ()


def test_warnings():
    """Closed form: one sentence with both percentages, at the bound none, at NaN one."""
    balance = energy_balance(np.array([2.0, 1.0]), np.array([0.0, 0.9]))
    (sentence,) = balance_warnings(balance, 0.01)
    assert "off by 10 %, more than 1 %" in sentence
    assert balance_warnings(balance, float(balance.residual[1])) == ()
    lost = balance._replace(residual=np.array([0.0, np.nan]))
    assert len(balance_warnings(lost, 0.01)) == 1


def test_rows():
    """Closed form: the first rows of every leaf, as numpy arrays."""
    kept = rows({"a": np.arange(3), "b": (np.ones((3, 2)),)}, 2)
    np.testing.assert_array_equal(kept["a"], [0, 1])
    assert kept["b"][0].shape == (2, 2)


def test_observables():
    """Closed form: a function, a dictionary of functions, or nothing."""
    theta = [1.0, 2.0]
    assert observed(observables(sum), theta) == 3.0
    assert observed(observables({"total": sum, "largest": max}), theta) == {
        "total": 3.0,
        "largest": 2.0,
    }
    assert observed(observables(None), theta) == {}


def test_meter():
    """Closed form: without a label there is no bar; an empty label is one."""
    assert type(meter(None)).__name__ == "NoProgressMeter"
    assert type(meter("")) is type(meter("seed 0"))
