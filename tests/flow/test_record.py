import numpy as np
from helpers import round_off

from meanfield.flow.observables import observables, observed
from meanfield.flow.progress import meter
from meanfield.flow.record import COMPLETED, Record, balance_warnings, energy_balance, rows


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


def test_changes_too_small_for_the_energy_are_unknown():
    """Closed form: an energy that never moves while D does certifies nothing, and says so."""
    balance = energy_balance(np.array([1e8, 1e8, 1e8]), np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(balance.residual, [0.0, np.nan, np.nan])
    (sentence,) = balance_warnings(balance, 0.01)
    assert "unknown at 2 of 3 saved times" in sentence
    assert "too large for its changes to show" in sentence


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


def test_energy_that_is_not_finite():
    """Closed form: NaN where energy or dissipated is not finite, the other times as without it."""
    energy = np.array([3.0, np.nan, 1.0, np.inf, 2.0, 2.0])
    dissipated = np.array([0.0, 0.1, 2.2, 0.5, 1.1, np.nan])
    residual = energy_balance(energy, dissipated).residual
    np.testing.assert_allclose(residual, [0.0, np.nan, 0.1, np.nan, 0.05, np.nan], rtol=round_off())
    everywhere = energy_balance(np.full(3, np.nan), np.zeros(3))
    assert np.all(np.isnan(everywhere.residual))
    infinite = energy_balance(np.full(2, np.inf), np.zeros(2))
    assert np.all(np.isnan(infinite.residual))


def test_warnings_of_an_unknown_balance():
    """Closed form: one sentence for what is unknown, and one for what is known and off."""
    balance = energy_balance(np.array([2.0, 1.0, np.nan]), np.array([0.0, 0.9, 1.0]))
    unknown, off = balance_warnings(balance, 0.01)
    assert unknown.startswith("the energy balance is unknown at 1 of 3 saved times, where")
    assert "nan" not in unknown
    assert "off by 10 %, more than 1 %" in off
    assert balance_warnings(balance, 0.2) == (unknown,)


def test_worst_balance():
    """Closed form: the largest residual; NaN if one is, without a balance and without rows."""
    record = Record(np.zeros(0), {}, (), 0.0, COMPLETED, "", {})
    assert np.isnan(record.worst_balance)
    balances = {
        "empty": (energy_balance(np.zeros(0), np.zeros(0)), np.nan),
        "off": (energy_balance(np.array([2.0, 1.0]), np.array([0.0, 0.75])), 0.25),
        "unknown": (energy_balance(np.array([2.0, np.nan]), np.zeros(2)), np.nan),
    }
    for balance, worst in balances.values():
        np.testing.assert_equal(record._replace(balance=balance).worst_balance, worst)
