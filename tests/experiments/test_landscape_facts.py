"""What the landscape experiment concludes from known numbers."""

import numpy as np
import pytest
from scipy import stats

from experiments.attention_kernels import landscape_facts, landscape_report
from experiments.global_convergence.verdicts import Interval


def test_all_intervals_hold_together():
    """Closed form: Student's t of the level 1 - 0.05 / 10 for two tasks, and of 1 - 0.05 / 5."""
    values = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 4.5]])
    apart, mean = values[1], 2.5
    for tasks, level in ((1, 0.99), (2, 0.995)):
        assert landscape_facts.confidence(tasks) == pytest.approx(level)
        half = stats.t.ppf(0.5 + level / 2, 2) * apart.std(ddof=1) / np.sqrt(3)
        check = landscape_facts.below("it", values, level=landscape_facts.confidence(tasks))
        said = landscape_facts.said(Interval(mean, mean - half, mean + half))
        assert check.measured == said


def made_up(**apart):
    """A record of three seeds in which Gaussian minus softmax is known up to a little noise."""
    rng = np.random.default_rng(0)
    names = ("trace", "rise", "stage_barrier", "kernel_barrier", "risk")
    arrays = {
        name: np.stack([np.full(3, 2.0), 2.0 + apart.get(name, -1.0) + 1e-3 * rng.normal(size=3)])
        for name in names
    }
    ratio = np.exp(apart.get("largest", -1.0) + 1e-3 * rng.normal(size=3))
    arrays["largest"] = np.stack([np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]) * ratio])
    arrays["converged"] = np.ones((2, 3), bool)
    arrays["minima"] = np.array([[3], [1]])
    arrays["outside"] = np.full((2, 3, 1), 0.5)
    return arrays


@pytest.mark.parametrize(
    ("apart", "flatter", "barriers"),
    [
        ({}, True, True),
        ({"trace": 1.0}, False, True),
        ({"largest": 1.0}, False, True),
        ({"kernel_barrier": 1.0}, True, False),
        ({"rise": 0.0}, None, True),
        ({"stage_barrier": 0.0}, True, None),
    ],
)
def test_the_verdict_follows_the_numbers(apart, flatter, barriers):
    """Closed form: paired differences that are known up to a thousandth."""
    found = landscape_facts.facts(made_up(**apart), tasks=2)
    assert landscape_facts.verdicts.joint(found.flatter) is flatter
    assert landscape_facts.verdicts.joint(found.barriers) is barriers
    outcomes = (flatter, barriers)
    expected = False if False in outcomes else None if None in outcomes else True
    agrees, because = landscape_facts.verdict({"text": found, "pathfinder": found})
    assert agrees is expected
    assert "Of 10 paired differences" in because
    word = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}
    assert word[expected] in landscape_report.summary({"text": found})


def test_what_cannot_be_trusted_stays_open():
    """Closed form: no convergence, no eigenvalue above 0, and no barrier under either kernel."""
    arrays = made_up()
    arrays["converged"][0, 1] = False
    found = landscape_facts.facts(arrays, tasks=1)
    assert (found.flatter[0].agrees, found.converged) == (None, (5, 6))
    assert "not converged" in found.flatter[0].measured
    arrays = made_up()
    arrays["largest"][1, 2] = -1.0
    assert landscape_facts.facts(arrays, tasks=1).flatter[0].agrees is None
    arrays["stage_barrier"] = np.array([[3e-5, 0.0, 9e-5], [0.0, 0.0, 1e-6]])
    check = landscape_facts.facts(arrays, tasks=1).barriers[0]
    assert (check.agrees, check.measured) == (None, "+0 [+0, +0]")
